"""The page that a student hands in, one file with everything in it; two runs side by side."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.report.galleries import write_html
from cliplab.report.notebook import read_notebook

CODE_STYLES = ("xcode", "lightbulb")  # on white and on black; their comments can be read
ATOL = 1e-6  # absolute difference that results may always have
FONT = Path(__file__).parent / "fonts" / "STIXTwoMath-cliplab.woff2"


def write_page(state: Mapping[str, Any], folder: Path) -> Path:
    """Write index.html for the run in `folder`, whose results.json says `state`; its path."""
    from pygments.formatters import HtmlFormatter

    notebooks = _chapters(state, folder)
    formulas = any("<math" in notebook["html"] for notebook in notebooks)
    path = folder / "index.html"
    write_html(
        path,
        "report.html.j2",
        state=state,
        title=notebooks[0]["title"] if len(notebooks) == 1 else "Images and words",
        code_css=[HtmlFormatter(style=name).get_style_defs(".highlight") for name in CODE_STYLES],
        font=base64.b64encode(FONT.read_bytes()).decode() if formulas else "",
        notebooks=notebooks,
        environment=list(_environment(state)),
    )
    return path


def _chapters(state: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What the template needs of each notebook."""
    from cliplab.report.exporter import chapters

    paths = {name: folder / record["notebook"] for name, record in state["notebooks"].items()}
    read = {n: (read_notebook(path), path.parent) for n, path in paths.items() if path.is_file()}
    bodies = chapters(read)
    return [
        dict(record)
        | {"name": name, "tables": list(tables(record["results"])), "html": bodies.get(name, "")}
        | {"question": question(read[name][0]) if name in read else ""}
        for name, record in state["notebooks"].items()
    ]


def question(notebook: Any) -> str:
    """The question that a notebook asks: the first paragraph below its title, as plain words."""
    source = next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")
    paragraphs = [part.strip() for part in source.split("\n\n")]
    text = next((part for part in paragraphs if part and not part.startswith("#")), "")
    return re.sub(r"[*`]", "", text).replace("\n", " ")


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested results: ("accuracy.seen", 0.99), ...; lists of plain values are leaves."""
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from flatten(item, f"{key}.{name}" if key else str(name))


def lasting(results: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of results, as `flatten` names them, but for `timings`, which need not repeat."""
    return dict(flatten({key: value for key, value in results.items() if key != "timings"}))


def fold(value: Any) -> Any:
    """Results with each value that has an interval as one text, for people."""
    if not isinstance(value, Mapping):
        return value
    if {"value", "low", "high"} <= set(value):
        n = f", n={value['n']}" if "n" in value else ""
        mean, low, high = (show(value[key], 3) for key in ("value", "low", "high"))
        return f"{mean} ({low} to {high}{n})"
    return {key: fold(item) for key, item in value.items()}


def tables(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], dict[str, list[str]]]]:
    """Results by groups: title, columns, rows; of a group of groups the shorter side across."""
    folded = fold(results)
    groups = {key: value for key, value in folded.items() if isinstance(value, Mapping)}
    groups[""] = {key: value for key, value in folded.items() if key not in groups}
    for title, group in sorted(groups.items(), key=lambda pair: pair[0] != ""):
        nested = all(isinstance(value, Mapping) for value in group.values())
        columns = group if nested else {"": group}
        cells = {(row, name): show(x, 3) for name in columns for row, x in flatten(columns[name])}
        down, across = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
        if len(across) > len(down):
            cells = {(column, row): text for (row, column), text in cells.items()}
            down, across = across, down
        if cells:
            yield title, across, {r: [cells.get((r, c), "") for c in across] for r in down}


def show(value: Any, digits: int = 4) -> str:
    """A result for people: its first significant digits, but whole numbers whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(show(item, digits) for item in value)
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _environment(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Tables about how the run was made."""
    for record in state["notebooks"].values():
        facts = {name: repr(value) for name, value in record["parameters"].items()}
        facts |= {f"{n}, SHA-256": digest for n, digest in record.get("inputs", {}).items()}
        yield f"Parameters: {record['title']}", facts
    machine = {key.replace("_", " "): str(value) for key, value in state["machine"].items()}
    if commit := state["commit"]:
        changed = " with uncommitted changes" if commit["dirty"] else ""
        machine["commit"] = commit["id"] + changed
    yield "Machine and code", machine
    yield "Versions", state["versions"]
    files = {f"{n}/{f}": h for n, hashes in state["checkpoints"].items() for f, h in hashes.items()}
    if files:
        yield "Checkpoints and prompts (SHA-256)", files


# ---- two runs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One result in two runs; None where a run lacks it."""

    notebook: str
    key: str
    a: Any
    b: Any
    relative: float | None  # (b - a) / |a|; None when that has no meaning
    agrees: bool


def compare(a: Mapping[str, Any], b: Mapping[str, Any], rtol: float = 0.01) -> list[Difference]:
    """Every result of the runs `a` and `b` (as in results.json), timings left out.

    Numbers agree when |a - b| <= 1e-6 + rtol |a|; lists of numbers, when each does; anything
    else, when equal. A result or a notebook that only one run has does not agree.
    """
    differences = []
    for name in dict.fromkeys([*a["notebooks"], *b["notebooks"]]):
        left, right = (lasting(run["notebooks"].get(name, {}).get("results", {})) for run in (a, b))
        for key in dict.fromkeys([*left, *right]):
            x, y = left.get(key), right.get(key)
            agrees = key in left and key in right and close(x, y, rtol=rtol, atol=ATOL)
            differences.append(Difference(name, key, x, y, _relative(x, y), agrees))
    return differences


def origin(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run (as in results.json) was made from, flat: what may explain other results."""
    kinds = ("parameters", "inputs", "source_sha256")
    asked = {n: {kind: r.get(kind) for kind in kinds} for n, r in run["notebooks"].items()}
    shared = ("commit", "code_sha256", "checkpoints", "versions", "machine")
    return dict(flatten(asked | {kind: run.get(kind) for kind in shared}))


def close(a: Any, b: Any, *, rtol: float, atol: float) -> bool:
    """Whether two results agree, see `compare`; True is not 1."""
    if _is_number(a) and _is_number(b):
        return bool(abs(a - b) <= atol + rtol * abs(a))
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return all(close(x, y, rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(a: Any, b: Any) -> float | None:
    if not (_is_number(a) and _is_number(b)) or (a == 0 and b != 0):
        return None
    return 0.0 if a == b else (b - a) / abs(a)
