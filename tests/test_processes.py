"""What a notebook needs: the memory of a call, and its functions as a module."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cliplab.report import as_module, peak_mb

PROGRAM = """
import time
import numpy as np
from cliplab.report import peak_mb

def fill():
    held = np.ones(6_000_000)  # 48 MB
    time.sleep(0.05)

print(peak_mb(fill), peak_mb(lambda: None))
"""


def test_the_most_memory_of_a_call_is_seen() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    filled, nothing = map(float, done.stdout.split())  # a new process holds no memory to reuse
    assert 40 < filled < 120
    assert nothing < 20


def test_an_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        peak_mb(lambda: 1 / 0)


def double(x: float) -> float:
    return 2 * np.float64(x)


def test_functions_become_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "of_a_notebook.py"
    module = as_module(path, "import numpy as np", double)
    assert module.double.__module__ == "of_a_notebook"
    assert module.double(2) == 4
    again = as_module(path, "import numpy as np\n\nMORE = 1", double)  # the cell was changed
    assert (again.double(3), again.MORE) == (6, 1)
    del sys.modules["of_a_notebook"]
