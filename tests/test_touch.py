"""What notebooks use: controls, guesses, the memory of a call, functions as a module."""

import doctest
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from cliplab.report import as_module, beside, peak_mb, touch
from cliplab.runtime import ArgumentError

module = sys.modules["cliplab.report.touch"]
CONTROLS: dict[str, Any] = {
    "prompt": "a sheep",
    "model": ["vild", "glip"],
    "top": (3, 1, 9, 1),
    "share": (0.25, 0.0, 1.0, 0.05),
}
FIRST = {"prompt": "a sheep", "model": "vild", "top": 3, "share": 0.25}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is displayed to somebody who is there."""
    found: list[Any] = []
    InteractiveShell.instance()
    monkeypatch.setattr(module, "somebody_is_there", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *things: found.extend(things))
    yield found
    InteractiveShell.clear_instance()


def test_without_a_reader_the_first_picture_or_what_makes_no_sense_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[dict[str, object]] = []
    touch(lambda **values: drawn.append(values), **CONTROLS)
    assert drawn == [FIRST]
    said: list[Any] = []
    monkeypatch.setattr("IPython.display.display", said.append)

    def draw(prompt: str) -> None:
        raise ValueError(f"prompt: got {prompt!r}; expected words")

    touch(draw, prompt="")
    assert [one.data for one in said] == ["prompt: got ''; expected words"]


@pytest.mark.parametrize(
    ("controls", "argument", "named"),
    [
        ({"least": (0.5, 0.0, 1.0, 0.1), "your_words": ""}, "class_names", "your words"),
        ({"words": "", "least": (0.5, 0.0, 1.0, 0.1)}, "least", "least"),
        ({"least": (0.5, 0.0, 1.0, 0.1)}, "score", "score"),  # no text that it may be about
    ],
)
def test_what_a_library_refuses_is_about_a_control(
    monkeypatch: pytest.MonkeyPatch, controls: dict[str, Any], argument: str, named: str
) -> None:
    def draw(**_: object) -> None:
        raise ArgumentError(argument, "got none")

    said: list[Any] = []
    monkeypatch.setattr("IPython.display.display", said.append)
    touch(draw, **controls)
    assert [one.data for one in said] == [f"{named}: got none"]


def test_a_control_that_is_moved_draws_again(shown: list[Any]) -> None:
    drawn: list[dict[str, object]] = []
    touch(lambda **values: drawn.append(values), **CONTROLS)
    box, _ = shown
    assert [one.description for one in box.children] == list(CONTROLS)
    box.children[3].value = 0.5
    box.children[1].value = "glip"
    assert drawn == [FIRST, FIRST | {"share": 0.5}, FIRST | {"share": 0.5, "model": "glip"}]


def test_guesses_stand_beside_what_was_measured() -> None:
    assert doctest.testmod(module).failed == 0
    assert "as you said" in beside(2, 2.0)
    assert "as you said" in beside("left", "left")
    for wrong in ("half", True, [0.5], {}):
        assert "a guess is a number here" in beside(wrong, 0.5)


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
    with pytest.raises(ZeroDivisionError):  # an error comes through
        peak_mb(lambda: 1 / 0)


def double(x: float) -> float:
    return 2 * np.float64(x)


def test_functions_become_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "of_a_notebook.py"
    made = as_module(path, "import numpy as np", double)
    assert made.double.__module__ == "of_a_notebook"
    assert made.double(2) == 4
    again = as_module(path, "import numpy as np\n\nMORE = 1", double)  # the cell was changed
    assert (again.double(3), again.MORE) == (6, 1)
    del sys.modules["of_a_notebook"]
