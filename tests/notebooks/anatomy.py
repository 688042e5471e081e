"""The anatomy that every notebook of the course has, as a list of what is wrong with one."""

import base64
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from save_notebooks import noise

from cliplab.report.notebook import notebooks_dir, read_parameters, tags

LESSONS, LABS, SOLUTIONS = (
    sorted(notebooks_dir().glob(names))
    for names in ("[0-9][0-9]_*.ipynb", "labs/*.ipynb", "solutions/*.ipynb")
)
TAG = "nbval-check-output"  # what nbval compares
MAX_NOTEBOOK_BYTES = 1_500_000
MAX_FIGURE_BYTES = 150_000
MOST_CELLS, MOST_WORDS = 60, 2_500  # of a lesson; what is deeper goes into a lab
FIRST_RESULT = (10, 300)  # cells and words to the first figure of a lesson
# Lines of a code cell: the median, the 90th percentile, the longest.
LESSON_LINES, LAB_LINES = (8, 15, 25), (18, 20, 30)
HEADINGS = ("What we found", "Limits", "Exercises", "References")

_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|opt|var)/\w|\b[A-Z]:\\\w")
_DATE = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b")
_ID = re.compile(r"(?!c\d+$)[a-z][a-z0-9]*(-[a-z0-9]+)*")  # says what the cell is about
_PROGRESS = re.compile(r"\r|\d(?:it|s)/(?:s|it)\]|[█▉▊▋▌▍▎▏]{2}")


def faults(notebook: Any, path: Path) -> list[str]:
    """Everything that is wrong with a notebook of the course, in words; [] if nothing is."""
    lesson = without_exercises(notebook)
    return [
        *front(notebook, path),
        *neighbours(notebook, path),
        *back(notebook),
        *sizes(lesson, LAB_LINES if is_lab(path) else LESSON_LINES),
        *([] if is_lab(path) else short(lesson)),
        *names(notebook),
        *hygiene(notebook, path),
    ]


def without_exercises(notebook: Any) -> Any:
    """What there is to read: cells in which a student writes do not count for the length."""
    cells = [cell for cell in notebook.cells if not {"exercise", "quiz"} & set(tags(cell))]
    return type(notebook)(notebook, cells=cells)


def is_lab(path: Path) -> bool:
    """Whether a notebook goes deeper than a lesson."""
    return path.parent.name == "labs"


def solution_faults(notebook: Any, path: Path) -> list[str]:
    """The same for the solutions to exercises, which have no front and back matter."""
    wrong = [] if _order(notebook) == ["parameters", "results"] else [_order_text(notebook)]
    if len(_h1(notebook)) != 1:
        wrong.append(f"{len(_h1(notebook))} headings of level 1; expected one")
    return [*wrong, *_too_long(notebook), *hygiene(notebook, path)]


# ---- parts ---------------------------------------------------------------------------------


def front(notebook: Any, path: Path) -> Iterator[str]:
    """Title, goals, parameters, setup: the first four cells; and a table of the notation."""
    cells = notebook.cells
    kinds = ["markdown", "markdown", "code", "code"]
    if [cell.cell_type for cell in cells[:4]] != kinds:
        yield f"the first four cells are not {kinds}"
        return
    titles = _h1(notebook)
    if len(titles) != 1 or not cells[0].source.startswith(f"# {path.stem[:2]} "):
        yield f"expected one heading of level 1, '# {path.stem[:2]} ...', in cell 1; got {titles}"
    for promise in ("You will do", "You will learn", "You need"):
        if promise not in cells[1].source:
            yield f"cell 2 lacks '{promise}'"
    if "parameters" not in tags(cells[2]) or "setup" not in tags(cells[3]):
        yield "cells 3 and 4 lack the tags `parameters` and `setup`"
        return
    if _lines(cells[3]) > 12:
        yield f"the setup cell has {_lines(cells[3])} lines; at most 12"
    parameters = read_parameters(notebook, path.stem)
    for name in ("SEED", "QUICK", "RESULTS_PATH"):
        if name not in parameters:
            yield f"parameter {name} is missing"
    for parameter in parameters.values():
        if not parameter.note:
            yield f"parameter {parameter.name} has no comment"
    if not re.search(r"^\|.*\|\s*$", notation(notebook), re.MULTILINE):
        yield "there is no table of the notation below '## Notation'"


def notation(notebook: Any) -> str:
    """The cell with the table of the notation, "" if there is none."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return next((text for text in texts if "## Notation" in text), "")


def neighbours(notebook: Any, path: Path) -> Iterator[str]:
    """The first cell leads to the lesson before and the one behind, or from a lab to its lesson."""
    if is_lab(path):
        lesson = next(path.parent.parent.glob(f"{path.stem[:2]}_*.ipynb"))
        if f"(../{lesson.name})" not in notebook.cells[0].source:
            yield f"cell 1 lacks the link '[...](../{lesson.name})'"
        return
    order = sorted(path.parent.glob("[0-9][0-9]_*.ipynb"))
    here = order.index(path)
    expected = {"previous": order[here - 1] if here else None, "next": None}
    if here + 1 < len(order):
        expected["next"] = order[here + 1]
    for word, other in expected.items():
        if other and not re.search(
            rf"{word}\W[^\n]*\({other.name}\)", notebook.cells[0].source, re.I
        ):
            yield f"cell 1 lacks the link '{word}: [...]({other.name})'"
    linked = re.findall(r"\]\(([\w./-]+\.ipynb)", notebook.cells[0].source)
    for name in linked:
        if not (path.parent / name).is_file():
            yield f"cell 1 leads to {name}, which does not exist"


def back(notebook: Any) -> Iterator[str]:
    """Findings, limits, exercises, references, and the results cell as the last."""
    order = _order(notebook)
    middle = set(order[2:-1])
    good = order[:2] == ["parameters", "setup"] and order[-1:] == ["results"]
    if not good or middle != {"check"} or notebook.cells[-1].cell_type != "code":
        yield _order_text(notebook)
    elif "save_results(" not in notebook.cells[-1].source:
        yield "the last cell does not call save_results(...)"
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    places = [text.find(f"\n## {h}") if not text.startswith(f"## {h}") else 0 for h in HEADINGS]
    for heading, place in zip(HEADINGS, places, strict=True):
        if place < 0:
            yield f"there is no heading '## {heading}'"
    if -1 not in places and places != sorted(places):
        yield f"the headings are not in the order {', '.join(HEADINGS)}"
    tagged = [(i, cell) for i, cell in enumerate(notebook.cells, start=1) if TAG in tags(cell)]
    if not tagged:
        yield f"no cell has the tag `{TAG}`"
    yield from (f"cell {i} has the tag `{TAG}` and no output" for i, c in tagged if not c.outputs)


def short(notebook: Any) -> Iterator[str]:
    """What a student reads in 45 minutes, with something to see at once."""
    words, first = 0, None
    for i, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            words += len(cell.source.split())
        elif first is None and any("image/png" in o.get("data", {}) for o in cell.outputs):
            first = (i, words)
    if len(notebook.cells) > MOST_CELLS or words > MOST_WORDS:
        yield (
            f"{len(notebook.cells)} cells, {words} words; at most {MOST_CELLS} and {MOST_WORDS}: "
            "what is deeper goes into a lab"
        )
    if first is None or first > FIRST_RESULT or first[1] > FIRST_RESULT[1]:
        yield f"the first figure comes after {first} cells and words; at most {FIRST_RESULT}"


def names(notebook: Any) -> Iterator[str]:
    """Ids of cells, on which a translation hangs."""
    found = [cell.id for cell in notebook.cells]
    wrong = [name for name in found if not _ID.fullmatch(name)]
    if wrong or len(set(found)) < len(found):
        yield f"cell ids that say nothing, or twice the same: {wrong}; write 'temperature-ceiling'"


def sizes(notebook: Any, most: tuple[int, int, int] = LAB_LINES) -> Iterator[str]:
    """Length of cells, text against code, and how often there is something to see."""
    coded = [c for c in notebook.cells if c.cell_type == "code"]
    written = len(notebook.cells) - len(coded)
    yield from _too_long(notebook, most[2])
    lengths = sorted(_lines(cell) for cell in coded)
    p90 = statistics.quantiles(lengths, n=10, method="inclusive")[-1] if len(lengths) > 1 else 0
    if p90 > most[1]:
        yield f"the 90th percentile of the code cells is {p90:.0f} lines; at most {most[1]}"
    if statistics.median(lengths) > most[0]:
        yield f"half of the code cells have {statistics.median(lengths)} lines; at most {most[0]}"
    if not 1.0 <= written / len(coded) <= 1.8:
        yield f"{written} cells of text to {len(coded)} of code; 1.0 to 1.8 is good to read"
    figures = sum("image/png" in o.get("data", {}) for c in coded for o in c.outputs)
    if figures * 5 < len(coded):
        yield f"{figures} figures in {len(coded)} code cells; at least one in five"


def hygiene(notebook: Any, path: Path) -> Iterator[str]:
    """What must not be committed."""
    yield from noise(notebook)
    coded = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    counts = [cell.execution_count for cell in coded]
    if counts != list(range(1, len(coded) + 1)):
        yield f"not executed in order from the start: counts {counts}; run `make notebooks`"
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        yield f"{path.stat().st_size / 1e6:.1f} MB; at most {MAX_NOTEBOOK_BYTES / 1e6}"
    if extra := set(notebook.metadata) - {"kernelspec", "language_info"}:
        yield f"metadata of an editor: {sorted(extra)}; run `make notebooks`"
    for i, cell in enumerate(notebook.cells, start=1):
        if extra := set(cell.metadata) - {"tags", "alt"}:
            yield f"cell {i} has metadata of an editor: {sorted(extra)}"
        if cell.cell_type == "code":
            yield from (f"cell {i} {fault}" for fault in _code_faults(cell))


def _code_faults(cell: Any) -> Iterator[str]:
    if re.search(r"https?://", cell.source):
        yield "uses the network; data comes from the package or data/"
    if re.search(r"^\s*[!%]\s*(pip|conda)\b", cell.source, re.MULTILINE):
        yield "installs something"
    for output in cell.outputs:
        data = output.get("data", {})
        text = "".join(output.get("text", "")) + "".join(data.get("text/plain", ""))
        if match := _PATH.search(text):
            yield f"prints a path of one machine: ...{text[match.start() :][:40]!r}"
        if match := _DATE.search(text):
            yield f"prints a date: {match[0]}"
        if _PROGRESS.search(text):
            yield "shows a progress bar"
        if "image/png" in data and len(base64.b64decode(data["image/png"])) > MAX_FIGURE_BYTES:
            yield f"has a figure above {MAX_FIGURE_BYTES // 1000} KB"


# ---- small things --------------------------------------------------------------------------


def _lines(cell: Any) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def _too_long(notebook: Any, most: int = LAB_LINES[2]) -> Iterator[str]:
    for i, cell in enumerate(notebook.cells, start=1):
        limit = most + 10 if re.match(r"(@.*\n)*class ", cell.source) else most
        if cell.cell_type == "code" and _lines(cell) > limit:
            yield f"cell {i} has {_lines(cell)} lines; at most {limit}"


def _h1(notebook: Any) -> list[str]:
    """Headings of level 1, fenced code left out."""
    texts = (c.source for c in notebook.cells if c.cell_type == "markdown")
    bare = (re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in texts)
    return [line for text in bare for line in text.splitlines() if line.startswith("# ")]


def _order(notebook: Any) -> list[str]:
    """The tags with a meaning, in the order in which they come."""
    known = ("parameters", "setup", "check", "results")
    return [tag for cell in notebook.cells for tag in tags(cell) if tag in known]


def _order_text(notebook: Any) -> str:
    return (
        "expected the tags parameters, setup, check (once or more), results (last cell) in this "
        f"order; got {_order(notebook)}"
    )
