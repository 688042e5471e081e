"""What a notebook needs: the memory of a call, and its functions as a module."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cliplab.report import as_module, peak_mb


def test_the_most_memory_of_a_call_is_seen() -> None:
    def fill() -> None:
        for _ in range(3):
            held = np.ones(6_000_000)  # 48 MB at a time
            time.sleep(0.05)
            del held

    assert 40 < peak_mb(fill) < 120
    assert peak_mb(lambda: None) < 20


def test_an_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        peak_mb(lambda: 1 / 0)


def double(x: float) -> float:
    return 2 * np.float64(x)


def test_functions_become_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = as_module(tmp_path / "of_a_notebook.py", "import numpy as np", double)
    assert module.double.__module__ == "of_a_notebook"
    assert module.double(2) == 4
    (again,) = {as_module(tmp_path / "of_a_notebook.py", "import numpy as np", double).double(3)}
    assert again == 6
    del sys.modules["of_a_notebook"]
