"""Every notebook has the anatomy of the course; and the test of that sees what is wrong."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from anatomy import faults, solution_faults
from notebook_builder import code, markdown, stream

from cliplab.report.notebook import notebooks_dir, read_notebook

NOTEBOOKS = sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted(notebooks_dir().glob("solutions/*.ipynb"))
LABS = sorted(notebooks_dir().glob("labs/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS + LABS, ids=lambda path: path.stem)
def test_notebooks_have_the_anatomy(path: Path) -> None:
    assert faults(read_notebook(path), path) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_have_the_anatomy(path: Path) -> None:
    assert solution_faults(read_notebook(path), path) == []


def test_every_notebook_has_solutions() -> None:
    assert [path.stem[:2] for path in SOLUTIONS] == [path.stem[:2] for path in NOTEBOOKS]


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
    "wrong number": (cell(1, source="# 02 T\nnext: [](02_b.ipynb)"), "'# 01 ...', in cell 1"),
    "two titles": (cell(6, source="# 1 A step"), "got ['# 01 Title', '# 1 A step']"),
    "no next": (cell(1, source="# 01 Title"), "lacks the link 'next: [...](02_b.ipynb)'"),
    "dead link": (
        cell(1, source="# 01 T\nnext: [](02_b.ipynb) [](3.ipynb)"),
        "3.ipynb, which does",
    ),
    "no goals": (cell(2, source="You need: time"), "cell 2 lacks 'You will do'"),
    "no parameters tag": (cell(3, metadata={}), "lack the tags"),
    "no comment": (cell(3, source=PARAMETERS[:-5]), "parameter RESULTS_PATH has no comment"),
    "no seed": (cell(3, source=PARAMETERS[14:]), "parameter SEED is missing"),
    "long setup": (cell(4, source="x = 1\n" * 13), "the setup cell has 13 lines"),
    "no notation": (cell(5, source="none"), "no table of the notation"),
    "code first": (drop(2), "the first four cells are not"),
    "no check": (cell(7, metadata={"tags": ["nbval-check-output"]}), "expected the tags"),
    "results not last": (add(markdown("end"), 12), "expected the tags"),
    "two results": (cell(8, metadata={"tags": ["results"]}), "expected the tags"),
    "results not saved": (cell(11, source="results"), "does not call save_results"),
    "no limits": (cell(9, source="## What we found"), "no heading '## Limits'"),
    "wrong order": (
        cell(9, source="## Limits\n\n## What we found"),
        "headings are not in the order",
    ),
    "nothing printed": (cell(7, outputs=[]), "cell 7 has the tag `nbval-check-output` and no out"),
    "nothing for nbval": (cell(7, metadata={"tags": ["check"]}), "no cell has the tag `nbval-"),
    "long cell": (cell(8, source="x = 1\n" * 31), "cell 8 has 31 lines; at most 25"),
    "long class": (cell(8, source="class A:\n" + " x = 1\n" * 40), "41 lines; at most 35"),
    "many long cells": (
        lambda n: [cell(i, source="x = save_results()\n" * 22)(n) for i in (8, 11)],
        "the 90th percentile of the code cells is 22 lines",
    ),
    "too much code": (lambda n: [drop(6)(n), drop(9)(n)], "4 cells of text to 5 of code"),
    "too much text": (
        lambda n: [add(markdown("t"), 9)(n) for _ in range(4)],
        "10 cells of text to 5",
    ),
    "nothing to see": (cell(8, outputs=[]), "0 figures in 5 code cells"),
    "too many words": (cell(6, source="word " * 2600), "2638 words; at most 60 and 2500"),
    "a late result": (
        cell(2, source="You will do, You will learn, You need" + " w" * 400),
        "first",
    ),
    "a dumb id": (cell(8, id="c07"), "ids that say nothing, or twice the same: ['c07']"),
    "one id twice": (cell(8, id="step-a"), "or twice the same"),
    "big figure": (cell(8, outputs=[BIG]), "a figure above 150 KB"),
    "not executed": (cell(8, execution_count=None), "counts [1, 2, 3, None, 5]"),
    "out of order": (cell(8, execution_count=9), "counts [1, 2, 3, 9, 5]"),
    "stderr": (cell(7, outputs=[stream("beware", "stderr")]), "writes to stderr: beware"),
    "an error": (
        cell(7, outputs=[nbformat.v4.new_output("error", ename="E", evalue="")]),
        "cell 7 ends with E",
    ),
    "a path": (cell(7, outputs=[stream("in /home/me/x")]), "cell 7 prints a path"),
    "a Windows path": (cell(7, outputs=[stream(r"in C:\Users")]), "cell 7 prints a path"),
    "a date": (cell(7, outputs=[stream("on 2026-11-23")]), "prints a date: 2026-11-23"),
    "a progress bar": (cell(7, outputs=[stream("50%|██   | 1/2")]), "shows a progress bar"),
    "a network": (cell(8, source="get('https://a.b')"), "cell 8 uses the network"),
    "an installation": (cell(8, source="%pip install x"), "cell 8 installs"),
    "editor metadata": (
        lambda n: n.metadata.update({"vscode": {}}),
        "metadata of an editor: ['vscode']",
    ),
    "cell metadata": (cell(8, metadata={"collapsed": True}), "cell 8 has metadata of an editor"),
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


def test_exercises_do_not_count_for_the_length(place: Path) -> None:
    notebook = good()
    for i in range(30):
        notebook.cells.insert(8, code("x = 1", "exercise", count=5))
        notebook.cells.insert(8, markdown("word " * 100))
        notebook.cells[8].update(id=f"quiz-{i}", metadata=nbformat.from_dict({"tags": ["quiz"]}))
        notebook.cells[9].id = f"exercise-{i}"
    coded = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, one in enumerate(coded, start=1):
        one.execution_count = count
    assert faults(notebook, place) == []
    for one in notebook.cells[8:40:2]:
        one.metadata = nbformat.from_dict({})
    assert any("cells of text to" in fault for fault in faults(notebook, place))


def test_a_big_notebook_is_seen(place: Path) -> None:
    place.write_bytes(bytes(1_600_000))
    assert "1.6 MB; at most 1.5" in faults(good(), place)


def test_solutions_need_less(place: Path) -> None:
    notebook = good()
    notebook.cells = [notebook.cells[i] for i in (0, 2, 10)]
    for count, executed in enumerate(notebook.cells[1:], start=1):
        executed.execution_count = count
    assert solution_faults(notebook, place) == []
    notebook.cells.append(markdown("# more"))
    assert solution_faults(notebook, place) == ["2 headings of level 1; expected one"]
    notebook.cells[1].metadata = {}
    assert "expected the tags" in solution_faults(notebook, place)[0]
