"""A course for nbgrader: lessons with solved exercises and hidden tests, from which it releases.

The exercises come from their masters; text, stub and hidden test are those of the lesson. nbgrader
keeps what belongs to a cell in its metadata (schema 3), under an id that is the cell's own.
"""

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.exercises.checking import SEEDS
from cliplab.exercises.masters import Master, nbgrader_metadata, read_masters
from cliplab.runtime import ArgumentError, atomic_write

POINTS = 1  # of an exercise
WEEKS = 8
_MEMORY = 4 << 30  # bytes that one hand-in may have; more is a MemoryError in its cell
_PRINTED = 1_000_000  # characters that one hand-in may print
_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^) ]+)\)")  # to a file beside the notebook
_AFRESH = "### BEGIN HIDDEN TESTS\nfrom cliplab.exercises import check, grade\n### END HIDDEN TESTS"


@dataclass(frozen=True)
class Assignment:
    """A lesson or a lab as nbgrader takes it."""

    name: str  # of its folder and of its notebook
    title: str
    notebook: Any  # nbformat's node, solved
    figures: dict[str, Path]  # files that it shows, by their place beside it
    exercises: list[str]  # their names


def make_course(folder: Path, notebooks: Sequence[Path], name: str, seed: int) -> list[Assignment]:
    """Make an nbgrader course of lessons and labs; those without exercises are left out.

    Args:
        folder: is made; it may be there if it is empty.
        notebooks: lessons and labs.
        name: of the course.
        seed: of the hidden tests.

    Raises:
        FileExistsError: there is something in the folder; nothing is overwritten.
        ValueError: there are no exercises, or the seed is one that students can see.
    """
    if not max(SEEDS) < seed < 2**31:
        what = f"expected {max(SEEDS) + 1} to {2**31 - 1}; students see those before"
        raise ArgumentError("seed", f"got {seed}; {what}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists, and no course is overwritten; choose another folder, or remove it"
        )
    found = [read_assignment(path, seed) for path in notebooks]
    assignments = [one for one in found if one.exercises]
    if not assignments:
        raise ValueError("no exercises in these lessons; name others")
    folder = folder.resolve()
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        _write(work, assignments, name)
        folder.mkdir(exist_ok=True)
        for part in work.iterdir():
            part.rename(folder / part.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return assignments


def read_assignment(path: Path, seed: int) -> Assignment:
    """A lesson with the solutions and hidden tests of its exercises, and without outputs."""
    import nbformat

    root = path.parent.parent if path.parent.name == "labs" else path.parent
    masters: dict[str, Master] = {}
    for solutions in sorted(root.glob(f"solutions/{path.stem[:2]}_*.ipynb")):
        masters |= read_masters(solutions)
    solved = {cell.id: cell for master in masters.values() for cell in master.cells}
    notebook = nbformat.read(path, as_version=4)
    figures: dict[str, Path] = {}
    placed = solved.keys() & {cell.id for cell in notebook.cells}
    for cell in notebook.cells:
        if cell.id in placed:
            cell.source = solved[cell.id].source
            _mark(cell, seed)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            figures |= _self_contained(cell, path.parent)
    names = [name for name, master in masters.items() if master.check.id in placed]
    title = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
    return Assignment(path.stem, title, notebook, figures, names)


def _mark(cell: Any, seed: int) -> None:
    """Say what nbgrader must know of a cell; the hidden test gets its seed."""
    if cell.cell_type != "code":
        return
    graded = cell.id.endswith("-check")
    cell.metadata["nbgrader"] = nbgrader_metadata(cell.id, POINTS if graded else None)
    if graded:  # what the student may have called `check` does not matter
        source = re.sub(r'(grade\("[^"]+", \w+)\)', rf"\1, seed={seed})", cell.source)
        cell.source = f"{_AFRESH}\n{source}"


def _self_contained(cell: Any, beside: Path) -> dict[str, Path]:
    """Keep links to figures, which are returned; those to other files become plain words."""
    figures = {}

    def kept(link: re.Match[str]) -> str:
        target = os.path.normpath(beside / link[3])
        if not link[1]:
            return link[2]
        place = f"figures/{Path(target).name}"
        figures[place] = Path(target)
        return f"![{link[2]}]({place})"

    cell.source = _LINK.sub(kept, cell.source)
    return figures


# ---- the folder ----------------------------------------------------------------------------


def _write(folder: Path, assignments: Sequence[Assignment], name: str) -> None:
    import nbformat

    for one in assignments:
        beside = folder / "source" / one.name
        _text(beside / f"{one.name}.ipynb", nbformat.writes(one.notebook, ensure_ascii=False))
        for place, figure in one.figures.items():
            (beside / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(figure, beside / place)
    _text(folder / "source" / "header.ipynb", nbformat.writes(_header(name)))
    _text(folder / "nbgrader_config.py", CONFIG.format(name=json.dumps(name, ensure_ascii=False)))
    _text(folder / "students.csv", STUDENTS)
    rows = enumerate(plan(assignments), start=1)
    weeks = "\n".join(f"| {week} | {read} | {due} |" for week, (read, due) in rows)
    first = assignments[0].name
    _text(folder / "README.md", README.format(name=name, weeks=weeks, first=first))


def _text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text.rstrip("\n") + "\n")


def _header(name: str) -> Any:
    """The cell on top of what students get."""
    import nbformat

    text = f"**{name}**\n\n**Name:** \n\n**Student ID:** "
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="header")])


def plan(assignments: Sequence[Assignment]) -> list[tuple[str, str]]:
    """(what is read, what is handed in) of eight weeks: lessons with their labs, then revision."""
    by_lesson: dict[str, list[Assignment]] = {}
    for one in assignments:
        by_lesson.setdefault(one.name[:2], []).append(one)
    weeks = [
        ("; ".join(one.title for one in some), "; ".join(map(_due, some)))
        for some in by_lesson.values()
    ]
    weeks += [("A lab run, or a project on photos of your own", "a run, and a page on it")] * max(
        WEEKS - 1 - len(weeks), 1
    )
    weeks.append(("Revision: quizzes, exercises that many got wrong, marks", "-"))
    return weeks


def _due(one: Assignment) -> str:
    points = len(one.exercises) * POINTS
    return f"`{one.name}`: {points} point{'s' if points > 1 else ''}"


STUDENTS = """\
id,first_name,last_name,email
s001,Lei,Li,
s002,Meimei,Han,
"""

CONFIG = """\
# Read by nbgrader whenever it is called in this folder. `configure` makes grading quick and safe
# against hand-ins that crash, hang or print without end, and keeps hidden tests out of feedback;
# what stands here after it overrules it.
from cliplab.exercises.grading import configure

c = get_config()  # noqa: F821 - nbgrader's
configure(c)
c.CourseDirectory.course_id = {name}
c.IncludeHeaderFooter.header = "source/header.ipynb"
c.Execute.timeout = 30  # seconds of one cell; then it has failed, and the others go on
# Names of files that `nbgrader zip_collect` finds: s001_01_clip_contrastive_loss.ipynb
c.FileNameCollectorPlugin.named_regexp = r".*/(?P<student_id>[^/_]+)_(?P<file_id>\\w+)"
"""

README = """\
# {name}

Made by `python -m cliplab course`. What each step is for stands in cliplab's `docs/teaching.md`.

| week | what is read | what is handed in |
|---|---|---|
{weeks}

`students.csv` is an example of a class. In this folder, with the environment of cliplab active:

```bash
nbgrader db student import students.csv
nbgrader generate_assignment {first}
nbgrader zip_collect {first}
nbgrader autograde {first}
nbgrader generate_feedback {first}
nbgrader export
```

`release/` is for students, and `feedback/` goes back to them. All else stays with you: `source/`
holds the solutions and the hidden tests. What came by mail waits for the third command in
`downloaded/{first}/archive/`. The last one writes `grades.csv`.
"""


# ---- in the kernel that grades -------------------------------------------------------------


def load_ipython_extension(shell: Any) -> None:
    """Bound what a hand-in prints and, on Linux, the memory that it takes; `exit()` ends a cell."""
    _limit(type(sys.stdout))
    shell.ask_exit = sys.exit  # the kernel would die a moment later, in a cell that is innocent
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))


def _limit(stream: Any) -> None:
    """Drop what a kind of stream is given after the first million characters.

    Of the class, because IPython replaces the method of the streams themselves.
    """
    write, left = stream.write, _PRINTED

    def limited(self: Any, text: str) -> int:
        nonlocal left
        shown, left = text[:left], max(left - len(text), 0)
        if shown:
            write(self, shown if left else f"{shown}\n... cut off")
        return len(text)

    stream.write = limited
