"""Bring the exercise cells of lessons and labs into line with their masters.

    python tools/sync_exercises.py            write what students get, from notebooks/solutions
    python tools/sync_exercises.py --check    only say what differs; exit code 1 if anything does

Where an exercise stands is decided in the lesson: put three cells there with the ids
`exercise-01-3-text` (Markdown), `exercise-01-3` and `exercise-01-3-check`; this fills them.
"""

import sys
from itertools import chain
from pathlib import Path

import nbformat

from cliplab.exercises import read_masters, student_form
from cliplab.report import find_notebooks, with_labs
from cliplab.report.execute import write_notebook

SOLUTIONS = Path(__file__).resolve().parents[1] / "notebooks" / "solutions"
TAG = "exercise"  # of a student's cells, which do not count for a lesson's length


def out_of_line(solutions: Path, *, write: bool) -> tuple[list[str], list[str]]:
    """What students get that differs from the masters of a lesson, and masters that they miss."""
    masters, said = read_masters(solutions), []
    cells = {cell.id: cell for master in masters.values() for cell in master.cells}
    placed: set[str] = set()
    for path in with_labs(find_notebooks([solutions.stem[:2]])):
        notebook, changed = nbformat.read(path, as_version=4), False
        for cell in notebook.cells:
            if cell.id in cells:
                placed.add(cell.id)
                source = student_form(cells[cell.id].source)
                if cell.source != source or cell.metadata.get("tags") != [TAG]:
                    said.append(f"{path.name}: {cell.id} differs from its master")
                    cell.source, changed = source, True
                    cell.metadata["tags"] = [TAG]
        if changed and write:
            write_notebook(notebook, path)
    missing = sorted(cells.keys() - placed)
    remedy = "stands in no lesson or lab; put an empty cell with this id where it is needed"
    return said, [f"{solutions.name}: {name} {remedy}" for name in missing]


def main() -> int:
    """Go through all solutions notebooks."""
    check = sys.argv[1:] == ["--check"]
    paths = sorted(SOLUTIONS.glob("*.ipynb"))
    parts = [out_of_line(path, write=not check) for path in paths]
    differing, missing = (list(chain.from_iterable(some)) for some in zip(*parts, strict=True))
    print("\n".join([*differing, *missing] or ["all exercises are as their masters"]))
    return bool(missing or (check and differing))


if __name__ == "__main__":
    raise SystemExit(main())
