"""Grade forty made up hand-ins of a lesson with nbgrader, and compare with what they deserve.

    python tools/grade_forty.py        lesson 01
    python tools/grade_forty.py 03     another one

Solutions, stubs, known mistakes, and everything that may go wrong: a cell that crashes, loops for
ever or ends Python, cells deleted or copied, 200 MB of output, wrong names, files that are broken.
Prints for each: the marks it deserves, those it got, seconds; then the peak of memory of nbgrader
and its kernels together. Exit code 1 where marks differ or hidden tests show in feedback.
"""

import copy
import csv
import importlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbformat import v4

from cliplab.cli.main import main as cliplab
from cliplab.exercises import read_masters, student_form

ROOT = Path(__file__).resolve().parents[1]
SEED = 8_675_309  # of the hidden tests; feedback must not show it
Change = Callable[[Any], None]  # of a solved notebook, in place


@dataclass(frozen=True)
class HandIn:
    """One of the forty.

    Args:
        what: is wrong with it.
        lost: exercises that it deserves no marks for; None: all.
        change: makes it of a solved notebook.
        name: of its file; "": as it should be.
        whole: the bytes of the file, where they are no notebook.
    """

    what: str
    lost: int | None = 0
    change: Change = field(default=lambda notebook: None)
    name: str = ""
    whole: bytes = b""


def position(notebook: Any, cell_id: str) -> int:
    """Where a cell is."""
    return next(i for i, cell in enumerate(notebook.cells) if cell.get("id") == cell_id)


def first(notebook: Any) -> str:
    """The id of the cell of the first exercise."""
    checks = (c.id for c in notebook.cells if c.get("id", "").endswith("-check"))
    return next(checks).removesuffix("-check")


def edited(change: Callable[[str], str], part: str = "") -> Change:
    """The first exercise, its cell or with `part` "-check" its check, rewritten."""

    def edit(notebook: Any) -> None:
        cell = notebook.cells[position(notebook, first(notebook) + part)]
        cell.source = change(cell.source)

    return edit


def before(text: str) -> Change:
    """Text above the first exercise, in its cell."""
    return edited(lambda source: f"{text}\n{source}")


def behind(text: str) -> Change:
    """Text below the first exercise, in its cell."""
    return edited(lambda source: f"{source}\n{text}")


def inside(text: str) -> Change:
    """Text that the first exercise executes when it is called."""

    def edit(notebook: Any) -> None:
        cell = notebook.cells[position(notebook, first(notebook))]
        name = called(notebook)
        cell.source += f"\n\n\ndef {name}(*args, **kwargs):\n" + "".join(
            f"    {line}\n" for line in text.splitlines()
        )

    return edit


def called(notebook: Any) -> str:
    """The name of the first exercise's function, from its check."""
    source = notebook.cells[position(notebook, first(notebook) + "-check")].source
    return source.partition(", ")[2].partition(")")[0]


def added(text: str, where: str = "") -> Change:
    """A cell of one's own, before the first exercise or that cell."""

    def edit(notebook: Any) -> None:
        at = position(notebook, where or first(notebook))
        notebook.cells.insert(at, v4.new_code_cell(text))

    return edit


def deleted(*parts: str) -> Change:
    """The first exercise's cells removed: "" its code, "-check" its check."""

    def edit(notebook: Any) -> None:
        stem = first(notebook)
        for part in parts:
            del notebook.cells[position(notebook, stem + part)]

    return edit


def copied(part: str, by: int) -> Change:
    """A cell of the first exercise a second time, with the same id for nbgrader."""

    def edit(notebook: Any) -> None:
        at = position(notebook, first(notebook) + part)
        again = copy.deepcopy(notebook.cells[at])
        again.id = "a-copy"
        notebook.cells.insert(max(at + by, 0), again)

    return edit


def bare(notebook: Any) -> None:
    """Without any metadata, as some editors save."""
    notebook.metadata.clear()
    for cell in notebook.cells:
        cell.metadata.clear()


def spoilt(notebook: Any) -> None:
    """Metadata of another nbgrader."""
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata["nbgrader"] = {"schema_version": 1, "grade_id": 7}


def helped(notebook: Any) -> None:
    """The work is done by a helper in a cell of one's own."""
    name, at = called(notebook), position(notebook, first(notebook))
    helper = v4.new_code_cell(f"{notebook.cells[at].source}\n\n\nhelper = {name}")
    notebook.cells[at].source = f"def {name}(*args, **kwargs):\n    return helper(*args, **kwargs)"
    notebook.cells.insert(at, helper)


def printed(notebook: Any) -> None:
    """200 MB of output that were saved."""
    output = v4.new_output("stream", text="a line that is printed again and again\n" * 5_200_000)
    notebook.cells.insert(0, v4.new_code_cell("print('very much')", outputs=[output]))


STUBBORN = """\
while True:
    try:
        while True:
            pass
    except BaseException:
        pass"""
CHEAT = "def grade(*args, **kwargs):\n    return None\n\n\ncheck = grade"
TROUBLE = [
    HandIn("a cell that crashes", change=added("1 / 0")),
    HandIn("the cell crashes below the function", change=behind("1 / 0")),
    HandIn("the cell crashes above the function", 1, before("1 / 0")),
    HandIn("a syntax error", 1, before("def (")),
    HandIn("an endless loop in a cell of one's own", change=added("while True:\n    pass")),
    HandIn("an endless loop in the function", 1, inside("while True:\n    pass")),
    HandIn("an endless loop above the function", 1, before("while True:\n    pass")),
    HandIn("an endless loop that cannot be interrupted", 1, inside(STUBBORN)),
    HandIn("the function's cell is deleted", 1, deleted("")),
    HandIn("the check is deleted", change=deleted("-check")),
    HandIn("function and check are deleted", 1, deleted("-check", "")),
    HandIn("the function's cell is copied", change=copied("", 1)),
    HandIn("the check is copied below", change=copied("-check", 1)),
    HandIn("the check is copied to the top", change=copied("-check", -10_000)),
    HandIn("200 MB of output, saved", change=printed),
    HandIn("200 MB of output, printed by the cell", change=behind("print('x' * 200_000_000)")),
    HandIn("200 MB in lines", change=behind("for _ in range(2_000_000):\n    print('x' * 100)")),
    HandIn("another name", name="final (1).ipynb"),
    HandIn("without metadata", change=bare),
    HandIn("metadata of another nbgrader", change=spoilt),
    HandIn("sys.exit() below the function", change=behind("import sys\n\nsys.exit()")),
    HandIn("exit() below the function", change=behind("exit()")),
    HandIn("os._exit() in the function", 1, inside("import os\n\nos._exit(0)")),
    HandIn("check and grade overwritten", 1, lambda nb: [before(CHEAT)(nb), inside("pass")(nb)]),
    HandIn("the check rewritten", 1, lambda nb: [edited(lambda _: "1")(nb), inside("pass")(nb)]),
    HandIn("a helper of one's own", change=helped),
    HandIn("more memory than there is", change=behind("x = bytearray(64 << 30)")),
    HandIn("a file that is no notebook", None, whole=b"{"),
]


def mistakes(lesson: str, masters: dict[str, Any]) -> Iterator[HandIn]:
    """One exercise with a known mistake, the others solved."""
    sys.path.append(str(ROOT / "tests" / "exercises"))
    known = importlib.import_module(f"mutants_{lesson}").MUTANTS
    for name, number in chain.from_iterable(((n, i) for n in known) for i in range(3)):
        if name in masters:
            old, new, _ = known[name][number]

            def change(notebook: Any, name: str = name, old: str = old, new: str = new) -> None:
                cell = notebook.cells[position(notebook, masters[name].code.id)]
                cell.source = cell.source.replace(old, new)

            what = (new.strip() or "a line is missing").splitlines()[0]
            yield HandIn(f"{name}: {what[:40]}", 1, change)


def unsolved(notebook: Any) -> None:
    """As it was handed out; the rest of the makers start from solutions."""
    for cell in notebook.cells:
        cell.source = student_form(cell.source)


def forty(lesson: str, masters: dict[str, Any], number: int = 40) -> list[HandIn]:
    """Every trouble, two stubs, mistakes, and solutions for the rest."""
    some = [HandIn("solved"), HandIn("stubs", None, unsolved), HandIn("solved, again")]
    found = [*some, *TROUBLE, *list(mistakes(lesson, masters))[: number - 4 - len(TROUBLE)]]
    return [*found, *repeat(HandIn("solved"), number - len(found))]


# ---- nbgrader ------------------------------------------------------------------------------


def nbgrader(course: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call it in a course, with the Python that runs this."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=course, env=os.environ | {"PATH": places}, capture_output=True, encoding="utf-8",
    )  # fmt: skip


def hand_in(course: Path, assignment: str, masters: dict[str, Any], one: HandIn, who: str) -> None:
    """Write one hand-in from what students get."""
    folder = course / "submitted" / who / assignment
    folder.mkdir(parents=True)
    path = folder / (one.name or f"{assignment}.ipynb")
    if one.whole:
        path.write_bytes(one.whole)
        return
    released = course / "release" / assignment / f"{assignment}.ipynb"
    notebook = nbformat.read(released, as_version=4)
    solved = {master.code.id: master.code.source for master in masters.values()}
    for cell in notebook.cells:
        if cell.id in solved:
            cell.source = solved[cell.id]
    one.change(notebook)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")


def masters_in(notebook: Path) -> dict[str, Any]:
    """The masters of the exercises that stand in a lesson."""
    (solutions,) = (ROOT / "notebooks" / "solutions").glob(f"{notebook.stem[:2]}_*.ipynb")
    here = {cell.id for cell in nbformat.read(notebook, as_version=4).cells}
    return {n: m for n, m in read_masters(solutions).items() if m.code.id in here}


def marks(course: Path) -> dict[str, float]:
    """Points by student, from what nbgrader exports."""
    nbgrader(course, "export")
    with open(course / "grades.csv", encoding="utf-8") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


class Memory(threading.Thread):
    """The peak of a process and its children together, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.going = 0, True

    def run(self) -> None:
        """Look ten times a second, at the children of this process."""
        while self.going:
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)
            time.sleep(0.1)


def main() -> int:
    """Make, grade and compare."""
    lesson = (sys.argv[1:] or ["01"])[0]
    with tempfile.TemporaryDirectory() as place:
        course = Path(place) / "course"
        assert cliplab(["course", str(course), "--lessons", lesson, "--seed", str(SEED)]) == 0
        (source,) = (p for p in course.glob("source/*/*.ipynb") if "_lab_" not in p.stem)
        masters = masters_in(source)
        assert nbgrader(course, "generate_assignment", source.stem).returncode == 0
        class_ = forty(lesson, masters)
        for i, one in enumerate(class_):
            hand_in(course, source.stem, masters, one, f"s{i:02d}")
        memory, start = Memory(), time.time()
        memory.start()
        nbgrader(course, "autograde", source.stem)
        seconds, memory.going = time.time() - start, False
        wrong = compare(course, source.stem, class_, len(masters), start)
        print(f"{len(class_)} hand-ins in {seconds:.0f} s, {memory.peak / 1e9:.1f} GB at most")
        return int(wrong + leaks(course, source.stem) > 0)


def compare(course: Path, name: str, class_: Sequence[HandIn], most: int, start: float) -> int:
    """Print a line for each hand-in -> how many marks differ."""
    got, wrong = marks(course), 0
    ended = {p.parts[-3]: p.stat().st_mtime for p in course.glob(f"autograded/*/{name}/*.ipynb")}
    for i, one in enumerate(class_):
        who = f"s{i:02d}"
        deserved = 0 if one.lost is None else most - one.lost
        differs = got.get(who, 0) != deserved
        wrong += differs
        took = f"{ended[who] - start:5.1f} s" if who in ended else "      -"
        start = ended.get(who, start)
        mark = "*" if differs else " "
        print(f"{mark} {who}  {deserved}  {got.get(who, 0):g}  {took}  {one.what}")
    print(f"{wrong} of {len(class_)} have other marks than they deserve")
    return wrong


def leaks(course: Path, name: str) -> int:
    """Write feedback, and count the pages that show a hidden test."""
    nbgrader(course, "generate_feedback", name)
    pages = [p.read_text(encoding="utf-8") for p in course.glob(f"feedback/*/{name}/*.html")]
    shown = sum(str(SEED) in page or "HIDDEN TESTS" in page for page in pages)
    print(f"{shown} of {len(pages)} pages of feedback show a hidden test")
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
