"""Masters of the exercises, in `notebooks/solutions`, and what students see of them.

An exercise is three cells of a solutions notebook: `exercise-01-3-text` says what is asked,
`exercise-01-3` is the function with its solution between marks, `exercise-01-3-check` checks it and
holds the hidden test. The marks are nbgrader's, and what is left without them is as there.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
_SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL
)
_HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?^[ \t]*### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL
)
_ID = re.compile(r"exercise-(\d\d)-(\d+)(-text|-check)?")


@dataclass(frozen=True)
class Master:
    """The cells of one exercise as nbformat nodes, solved."""

    name: str
    text: Any
    code: Any
    check: Any

    @property
    def cells(self) -> list[Any]:
        """All three, in their order."""
        return [self.text, self.code, self.check]


def student_form(source: str) -> str:
    """The source of a master's cell as students get it: a stub, and no hidden test."""

    def stub(match: re.Match[str]) -> str:
        return "\n".join(match[1] + line for line in STUB.split("\n"))

    return _HIDDEN.sub("", _SOLUTION.sub(stub, source)).rstrip("\n")


def nbgrader_metadata(cell_id: str, points: float | None) -> dict[str, Any]:
    """What nbgrader keeps of a cell (schema 3): of a test its points, of a function None."""
    graded = points is not None
    about = {
        "schema_version": 3, "grade_id": cell_id, "grade": graded, "locked": graded,
        "solution": not graded, "task": False,
    }  # fmt: skip
    return about | ({"points": points} if graded else {})


def exercise_of(cell_id: str) -> str | None:
    """The exercise that a cell belongs to: "exercise-01-3-check" -> "01.3"."""
    match = _ID.fullmatch(cell_id)
    return f"{match[1]}.{match[2]}" if match else None


def read_masters(path: Path) -> dict[str, Master]:
    """The masters in a solutions notebook, by the name of the exercise.

    Raises:
        ValueError: cells of an exercise that are missing, or not in their order.
    """
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    ids = [cell.id for cell in cells]
    found: dict[str, Master] = {}
    for name in dict.fromkeys(filter(None, map(exercise_of, ids))):
        stem = f"exercise-{name.replace('.', '-')}"
        wanted = [f"{stem}-text", stem, f"{stem}-check"]
        start = ids.index(wanted[0]) if wanted[0] in ids else 0
        if ids[start : start + 3] != wanted:
            raise ValueError(f"{path.name}: exercise {name} needs the cells {', '.join(wanted)}")
        found[name] = Master(name, *cells[start : start + 3])
    return found
