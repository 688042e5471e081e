"""A lesson as slides to project: one file that loads nothing, for 1280 by 720 pixels.

What is shown follows from what the cells are. A heading begins a slide, and text goes on to the
next where a paragraph ends. Figures and what was printed are evidence; of the code only what is
short is shown, where it prints or checks something. A cell tagged `skip` is left out, and one
tagged `slide` keeps its code, however long.
"""

import base64
import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
from pygments.formatters import HtmlFormatter

from cliplab.report.galleries import write_html
from cliplab.report.notebook import RESULTS_PATH, read_notebook, tags, title
from cliplab.report.page import CODE_STYLES, FONT

_ROOM = 540  # pixels below a title; where that was estimated too low, the page makes things smaller
_WIDTH, _FIGURE = 1160, 400  # pixels across, and of a figure, which grows where room is left
_REST = 90  # what ends a part and is no higher goes on the slide before it
_LINE, _LETTERS, _CODE_LINE = 37, 92, 25  # height of a line of text, what it holds; of code
_CHECK, _CODE = 14, 3  # lines of code that are shown: where it checks something, and elsewhere
_PRINTED = 18  # lines of print on a slide
_LEFT_OUT = {"skip", "parameters", "setup", "results", "quiz", "injected-parameters"}
_NOT_PROJECTED = ("Exercises", "References")
_HEADING = re.compile(r"#{1,6} +.+\n?")
_CAPTION = re.compile(r"\*([^*].*)\*", re.DOTALL)


@dataclass(frozen=True)
class _Block:
    """One thing on a slide: a cell, and the pixels that it is thought to take."""

    cell: Any
    height: float


@dataclass
class _Part:
    """What stands below one heading."""

    heading: str  # Markdown
    above: str = ""  # the section it belongs to
    blocks: list[_Block] = field(default_factory=list)


def write_slides(source: Path, path: Path) -> int:
    """Write the notebook `source` as slides to `path` -> their number.

    Raises:
        ValueError: it was never executed, so that there is nothing to show.
    """
    notebook = read_notebook(source)
    if not any(cell.get("outputs") for cell in notebook.cells):
        raise ValueError(
            f"{source} has no figures and no results to show: it was never executed; execute it, "
            "and give the copy that is in the folder of the run"
        )
    slides = [slide for part in _parts(notebook) for slide in _packed(part)]
    bodies = _bodies(slides, source.parent)
    write_html(
        path, "slides.html.j2", title=title(notebook) or source.stem,
        font=base64.b64encode(FONT.read_bytes()).decode(),
        slides=[(re.sub(r"[$`*\\]", "", s.above), b) for s, b in zip(slides, bodies, strict=True)],
        code_css=HtmlFormatter(style=CODE_STYLES[0]).get_style_defs(".highlight"),
    )  # fmt: skip
    return len(slides)


def _bodies(slides: list[_Part], folder: Path) -> list[str]:
    """HTML of each slide, cleaned as on any other page."""
    from cliplab.report.exporter import chapters

    new, made = nbformat.v4, {}
    for i, slide in enumerate(slides, start=1):
        cells = [new.new_markdown_cell(f"# {slide.heading}"), *(b.cell for b in slide.blocks)]
        for j, cell in enumerate(cells):
            cell.id = f"part-{j}"
        made[f"slide-{i}"] = (new.new_notebook(cells=cells), folder)
    return list(chapters(made).values())


# ---- what is on them -----------------------------------------------------------------------


def _parts(notebook: Any) -> Iterator[_Part]:
    """The parts of a notebook; the first is its title with its question."""
    from cliplab.report.exporter import prepare

    notebook = copy.deepcopy(notebook)
    prepare(notebook)
    first = notebook.cells[0]
    first.source = "\n\n".join([*first.source.split("\n\n")[:2], *_given(notebook)])
    part = _Part("")
    for cell in notebook.cells:
        if _LEFT_OUT & set(tags(cell)):
            continue
        before = part
        for piece in _pieces(cell):
            if isinstance(piece, _Block):
                part.blocks.append(piece)
            else:
                yield part
                part = _below(piece, part)
        if cell is first or "exercise" in tags(cell):  # the lesson goes on, under its own heading
            yield part
            part = replace(part if cell is first else before, blocks=[])
    yield part


def _given(notebook: Any) -> Iterator[str]:
    """That the text is of another run, where this one was given parameters."""
    cells = [cell for cell in notebook.cells if "injected-parameters" in tags(cell)]
    lines = [line for cell in cells for line in cell.source.splitlines()]
    lines = [line for line in lines if not line.startswith(("#", RESULTS_PATH))]
    if lines:
        yield f"Given: `{'`, `'.join(lines)}`. The text describes the run with the defaults."


def _below(heading: str, part: _Part) -> _Part:
    """The empty part of a heading, as Markdown has it, behind another part."""
    marks, words = heading.split(maxsplit=1)
    return _Part(words, (part.above or part.heading) if len(marks) > 2 else "")


def _packed(part: _Part) -> Iterator[_Part]:
    """A part as slides: as much on each as there is room for, and no short rest alone."""
    if part.heading.startswith(_NOT_PROJECTED):
        return
    slides, asked = [list[_Block]()], False
    for block in part.blocks:
        caption = block.cell.source.startswith("<small>")
        full = sum(b.height for b in [*slides[-1], block]) > _ROOM and not caption
        asked = bool(slides[-1]) and slides[-1][-1].cell.source.startswith("**Predict")
        if full or asked:  # the answer comes with the next slide, and with what announces it
            announced = [one for one in slides[-1][-1:] if one.cell.source.endswith(":")]
            slides[-1:] = [slides[-1][: len(slides[-1]) - len(announced)], announced]
        slides[-1].append(block)
    if len(slides) > 1 and sum(b.height for b in slides[-1]) < _REST and not asked:
        slides[-2:] = [slides[-2] + slides[-1]]
    yield from (replace(part, blocks=blocks) for blocks in slides if blocks)


def _pieces(cell: Any) -> Iterator[str | _Block]:
    """Headings, such as "## 2 Why", and blocks of a cell, in their order."""
    if cell.cell_type == "code":
        yield from [] if "exercise" in tags(cell) else _evidence(cell)
        return
    for text in re.split(r"\n\s*\n", cell.source.strip()):
        if heading := _HEADING.match(text):
            yield heading[0].strip()
        if below := text[heading.end() if heading else 0 :]:
            yield _text(below, cell)


def _text(text: str, cell: Any) -> _Block:
    """A paragraph, a list, a table, a formula, a picture, or what is said below a figure."""
    caption = _CAPTION.fullmatch(text)
    letters, line = (_LETTERS * 1.3, _LINE * 0.75) if caption else (_LETTERS, _LINE)
    lines = sum(max(1, math.ceil(len(row) / letters)) for row in text.splitlines())
    height = _ROOM if "![" in text else (lines + 0.4) * line
    source = f"<small>{caption[1]}</small>" if caption else text
    return _Block(nbformat.from_dict(cell | {"source": source}), height)


def _evidence(cell: Any) -> Iterator[_Block]:
    """What a code cell leaves to be seen, and its code if that is short, or wanted."""
    shown, lines = set(tags(cell)), cell.source.strip().splitlines()
    drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
    most = _CHECK if "check" in shown else _CODE * bool(cell.outputs)
    if (len(lines) <= most and not drawn) or "slide" in shown:
        code = nbformat.v4.new_markdown_cell(f"```python\n{cell.source.strip()}\n```")
        yield _Block(code, len(lines) * _CODE_LINE + 30)
    for output in (part for whole in cell.outputs for part in _cut(whole)):
        if height := _seen(output):
            yield _Block(nbformat.from_dict(cell | {"source": "", "outputs": [output]}), height)


def _cut(output: Any) -> Iterator[Any]:
    """An output; a long print in pieces that fit on a slide."""
    lines = output.get("text", "").splitlines(keepends=True) or [""]
    for i in range(0, len(lines), _PRINTED):
        yield output | ({"text": "".join(lines[i : i + _PRINTED])} if "text" in output else {})


def _seen(output: Any) -> float:
    """Pixels that an output takes; 0 for what a slide cannot show, such as a slider."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        size = base64.b64decode(data["image/png"][:32])[16:]  # its width and height, 4 bytes each
        width, height = int.from_bytes(size[:4]), int.from_bytes(size[4:])
        return min(_FIGURE, height * min(1, _WIDTH / max(width, 1))) + 20
    if "text/html" in data:
        return data["text/html"].count("<tr") * 36 + 30
    text = data.get("text/markdown", data.get("text/plain", ""))
    return len(text.strip().splitlines()) * _CODE_LINE + 20 if text.strip() else 0
