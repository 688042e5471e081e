"""Every notebook has the anatomy of the course; and the test of that sees what is wrong."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from anatomy import LABS, LESSONS, SOLUTIONS, faults, solution_faults
from notebook_builder import code, markdown, stream

from cliplab.report.notebook import read_notebook


@pytest.mark.parametrize("path", LESSONS + LABS, ids=lambda path: path.stem)
def test_notebooks_have_the_anatomy(path: Path) -> None:
    assert faults(read_notebook(path), path) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_have_the_anatomy(path: Path) -> None:
    assert solution_faults(read_notebook(path), path) == []


def test_every_notebook_has_solutions() -> None:
    assert [path.stem[:2] for path in SOLUTIONS] == [path.stem[:2] for path in LESSONS]


# ---- the test itself -----------------------------------------------------------------------

PNG = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(b"x").decode()})
PARAMETERS = "SEED = 0  # a\nQUICK = False  # b\nRESULTS_PATH = ''  # c"


def good() -> Any:
    """A notebook with the whole anatomy."""
    cells = [
        markdown("# 01 Title\n\nWhat? next: [02](02_b.ipynb)"),
        markdown("**You will do**, **You will learn**, **You need**"),
        code(PARAMETERS, "parameters", count=1),
        code("import numpy", "setup", count=2),
        markdown("## Notation\n\n| symbol | meaning |\n|---|---|\n| N | n |"),
        markdown("## 1 A step"),
        code("1 + 1", "check", "nbval-check-output", count=3, outputs=[stream("2")]),
        code("plot()", count=4, outputs=[PNG]),
        markdown("## What we found\n\n## Limits\n\nthese"),
        markdown("## Exercises\n\n## References"),
        code("save_results(results, RESULTS_PATH)", "results", count=5),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "x"},
        "language_info": {"name": "python"},
    }
    for letter, one in zip("abcdefghijk", cells, strict=True):
        one.id = f"step-{letter}"
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def cell(i: int, **changes: Any) -> Callable[[Any], None]:
    """Changes fields of the i-th cell (from 1)."""
    return lambda notebook: notebook.cells[i - 1].update(nbformat.from_dict(changes))


def drop(i: int) -> Callable[[Any], None]:
    return lambda notebook: notebook.cells.pop(i - 1)


def add(new: Any, i: int) -> Callable[[Any], None]:
    return lambda notebook: notebook.cells.insert(i - 1, new)


BIG = nbformat.v4.new_output(
    "display_data", {"image/png": base64.b64encode(bytes(200_000)).decode()}
)
BROKEN = {
    "no title": (cell(1, source="Title. next: [](02_b.ipynb)"), "expected one heading of level 1"),
    "no next": (cell(1, source="# 01 Title"), "lacks the link 'next: [...](02_b.ipynb)'"),
    "no goals": (cell(2, source="You need: time"), "cell 2 lacks 'You will do'"),
    "no parameters tag": (cell(3, metadata={}), "lack the tags"),
    "no comment": (cell(3, source=PARAMETERS[:-5]), "parameter RESULTS_PATH has no comment"),
    "no seed": (cell(3, source=PARAMETERS[14:]), "parameter SEED is missing"),
    "long setup": (cell(4, source="x = 1\n" * 13), "the setup cell has 13 lines"),
    "no notation": (cell(5, source="none"), "no table of the notation"),
    "no check": (cell(7, metadata={"tags": ["nbval-check-output"]}), "expected the tags"),
    "results not last": (add(markdown("end"), 12), "expected the tags"),
    "results not saved": (cell(11, source="results"), "does not call save_results"),
    "no limits": (cell(9, source="## What we found"), "no heading '## Limits'"),
    "nothing printed": (cell(7, outputs=[]), "cell 7 has the tag `nbval-check-output` and no out"),
    "long cell": (cell(8, source="x = 1\n" * 31), "cell 8 has 31 lines; at most 25"),
    "too much code": (lambda n: [drop(6)(n), drop(9)(n)], "4 cells of text to 5 of code"),
    "nothing to see": (cell(8, outputs=[]), "0 figures in 5 code cells"),
    "too many words": (cell(6, source="word " * 2600), "2638 words; at most 60 and 2500"),
    "a late result": (
        cell(2, source="You will do, You will learn, You need" + " w" * 400),
        "first",
    ),
    "a dumb id": (cell(8, id="c07"), "ids that say nothing, or twice the same: ['c07']"),
    "big figure": (cell(8, outputs=[BIG]), "a figure above 150 KB"),
    "not executed": (cell(8, execution_count=None), "counts [1, 2, 3, None, 5]"),
    "stderr": (cell(7, outputs=[stream("beware", "stderr")]), "writes to stderr: beware"),
    "a path": (cell(7, outputs=[stream("in /home/me/x")]), "cell 7 prints a path"),
    "a date": (cell(7, outputs=[stream("on 2026-11-23")]), "prints a date: 2026-11-23"),
    "a progress bar": (cell(7, outputs=[stream("50%|██   | 1/2")]), "shows a progress bar"),
    "a network": (cell(8, source="get('https://a.b')"), "cell 8 uses the network"),
    "an installation": (cell(8, source="%pip install x"), "cell 8 installs"),
    "editor metadata": (
        lambda n: n.metadata.update({"vscode": {}}),
        "metadata of an editor: ['vscode']",
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the notebook under test stands: beside a second one."""
    (tmp_path / "02_b.ipynb").touch()
    (tmp_path / "01_a.ipynb").touch()
    return tmp_path / "01_a.ipynb"


def test_the_anatomy_passes(place: Path) -> None:
    assert faults(good(), place) == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_seen(name: str, place: Path) -> None:
    notebook = good()
    change, message = BROKEN[name]
    change(notebook)
    found = faults(notebook, place)
    assert any(message in fault for fault in found), found
