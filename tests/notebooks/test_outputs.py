"""Cells tagged `nbval-check-output` still print what is committed, says nbval.

nbval runs in a process of its own, on copies that stop behind the last tagged cell and have
QUICK = True: what is tagged must not depend on it. A first cell leads to the notebooks' folder.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from notebook_builder import code, markdown, stream, write

from cliplab.reports.notebook import notebooks_dir, read_notebook, tags
from cliplab.reports.outputs import write_notebook

NOTEBOOKS = sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def shortened(path: Path, target: Path) -> Path:
    """A copy of a notebook that nbval can run elsewhere and quickly."""
    notebook = read_notebook(path)
    tagged = [i for i, c in enumerate(notebook.cells) if "nbval-check-output" in tags(c)]
    assert tagged, f"{path.name} has no cell tagged `nbval-check-output`"
    cells = notebook.cells[: tagged[-1] + 1]
    for cell in cells:
        if "parameters" in tags(cell) and re.search(r"^QUICK\b", cell.source, re.MULTILINE):
            cell.source += "\nQUICK = True"
    move = code(f"import os; os.chdir({str(path.parent)!r})", count=0)
    notebook.cells = [move, *cells]
    write_notebook(notebook, target / path.name)
    return target / path.name


def nbval(folder: Path, *notebooks: Path) -> "subprocess.CompletedProcess[str]":
    """Run nbval on notebooks, away from this repository's own pytest options."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "--color=no"]
    place = ["--rootdir", str(folder), "-c", str(folder / "pytest.ini")]
    environment = os.environ | {"TQDM_DISABLE": "1", "IPYTHONDIR": str(folder / "ipython")}
    environment["PYTHONUTF8"] = "1"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *options,
            *place,
            *notebooks,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tagged_outputs_are_what_is_committed(path: Path, tmp_path: Path) -> None:
    done = nbval(tmp_path, shortened(path, tmp_path))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def notebook(path: Path, output: Any) -> Path:
    return write(
        path,
        markdown("# 01"),
        code("QUICK = False", "parameters", count=1),
        code("import os; print(os.getpid())", count=2, outputs=[stream("1\n")]),
        code("print(QUICK, 6 * 7)", "nbval-check-output", count=3, outputs=[output]),
        code("1 / 0", count=4),
    )


def test_nbval_sees_a_changed_output_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    good = shortened(notebook(tmp_path / "01_good.ipynb", stream("True 42\n")), tmp_path / "here")
    bad = shortened(notebook(tmp_path / "02_bad.ipynb", stream("True 43\n")), tmp_path / "here")
    done = nbval(tmp_path / "here", good, bad)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 7 passed" in done.stdout
    assert "02_bad.ipynb::Cell 3" in done.stdout
    assert "Cell outputs differ" in done.stdout
    assert "True 43" in done.stdout
