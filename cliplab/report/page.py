"""The page that a student hands in: index.html, one file with everything in it."""

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliplab.report.notebook import read_notebook
from cliplab.runtime import atomic_write

_HERE = Path(__file__).parent


def write_page(state: Mapping[str, Any], folder: Path) -> Path:
    """Write index.html for the run in `folder`; its path.

    Args:
        state: what the run's results.json says.
        folder: of the run, finished or not.
    """
    path = folder / "index.html"
    with atomic_write(path, "w") as file:
        file.write(render(state, folder))
    return path


def render(state: Mapping[str, Any], folder: Path) -> str:
    """The page as text."""
    import jinja2
    import markupsafe
    from pygments.formatters import HtmlFormatter

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = duration
    code_css = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    css = [code_css, (_HERE / "page.css").read_text(encoding="utf-8")]
    notebooks = [_chapter(n, record, folder) for n, record in state["notebooks"].items()]
    if any("<math" in notebook["html"] for notebook in notebooks):
        css.append(_font_face())
    return environment.get_template("page.html.j2").render(
        state=state,
        title=notebooks[0]["title"] if len(notebooks) == 1 else "Images and words",
        css=markupsafe.Markup("\n".join(css)),
        notebooks=notebooks,
        seconds=sum(notebook["seconds"] for notebook in notebooks),
        environment=list(_environment(state)),
    )


def _font_face() -> str:
    """The font of the formulas, inside the page."""
    font = (_HERE / "fonts" / "STIXTwoMath-cliplab.woff2").read_bytes()
    data = base64.b64encode(font).decode()
    source = f'url("data:font/woff2;base64,{data}") format("woff2")'
    return f'@font-face {{ font-family: "STIX Two Math cliplab"; src: {source}; }}'


def _chapter(name: str, record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the template needs of one notebook."""
    import markupsafe

    from cliplab.report.exporter import to_html

    chapter = {
        "name": name,
        "title": record["title"],
        "seconds": record["seconds"],
        "question": "",
        "failure": _failure(record.get("failure")),
        "results": [(key, show(value)) for key, value in flatten(fold(record["results"]))],
        "html": "",
    }
    if record["notebook"]:
        path = folder / record["notebook"]
        notebook = read_notebook(path)
        chapter["question"] = question(notebook)
        chapter["html"] = markupsafe.Markup(to_html(notebook, name=name, folder=str(path.parent)))
    return chapter


def _failure(failure: Mapping[str, Any] | None) -> str:
    if not failure:
        return ""
    return f"at cell {failure['cell']} of {failure['cells']}: {failure['error']}"


def question(notebook: Any) -> str:
    """The question that a notebook asks: the first paragraph below its title, as plain words."""
    source = next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")
    paragraphs = [part.strip() for part in source.split("\n\n")]
    text = next((part for part in paragraphs if part and not part.startswith("#")), "")
    words = re.sub(r"[*`]", "", text).replace("\n", " ")
    words = re.sub(r"^(?:The )?question[:.]\s*", "", words, flags=re.IGNORECASE)
    return words[:1].upper() + words[1:] if len(words) < 400 else ""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested results: ("accuracy.seen", 0.99), ...; lists of plain values are leaves."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for i, item in enumerate(value):
            yield from flatten(item, f"{key}.{i}")
    else:
        yield key, value


def fold(value: Any) -> Any:
    """Results with each rate (value, low, high, n) as one text, for people."""
    if not isinstance(value, Mapping):
        return value
    if {"value", "low", "high", "n"} == set(value):
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f}, n={value['n']})"
    return {key: fold(item) for key, item in value.items()}


def show(value: Any) -> str:
    """A result for people: four significant digits, whole numbers whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(show(item) for item in value)
    return str(value)


def _environment(state: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Tables about how the run was made."""
    for record in state["notebooks"].values():
        facts = [(name, repr(value)) for name, value in record["parameters"].items()]
        yield f"Parameters: {record['title']}", facts
    machine = {key.replace("_", " "): str(value) for key, value in state["machine"].items()}
    commit = state["commit"]
    if commit:
        changed = " with uncommitted changes" if commit["dirty"] else ""
        machine["commit"] = commit["id"] + changed
    yield "Machine and code", list(machine.items())
    yield "Versions", list(state["versions"].items())
    files = {f"{n}/{f}": h for n, hashes in state["checkpoints"].items() for f, h in hashes.items()}
    if files:
        yield "Checkpoints (SHA-256)", list(files.items())
