"""Controls above a picture, and guesses before the answer."""

import doctest
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from cliplab.report import beside, touch

module = __import__("cliplab.report.touch", fromlist=["touch"])
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


def test_without_a_reader_the_first_picture_is_left() -> None:
    drawn: list[dict[str, object]] = []
    touch(lambda **values: drawn.append(values), **CONTROLS)
    assert drawn == [FIRST]


def test_a_control_that_is_moved_draws_again(shown: list[Any]) -> None:
    drawn: list[dict[str, object]] = []
    touch(lambda **values: drawn.append(values), **CONTROLS)
    box, _ = shown
    assert [one.description for one in box.children] == list(CONTROLS)
    box.children[3].value = 0.5
    box.children[1].value = "glip"
    assert drawn == [FIRST, FIRST | {"share": 0.5}, FIRST | {"share": 0.5, "model": "glip"}]


def test_a_value_that_makes_no_sense_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr("IPython.display.display", said.append)

    def draw(prompt: str) -> None:
        raise ValueError(f"prompt: got {prompt!r}; expected words")

    touch(draw, prompt="")
    assert [one.data for one in said] == ["prompt: got ''; expected words"]


def test_guesses_stand_beside_what_was_measured() -> None:
    assert doctest.testmod(module).failed == 0
    assert "as you said" in beside(2, 2.0)
    assert "as you said" in beside("left", "left")
    for wrong in ("half", True, [0.5], {}):
        assert "a guess is a number here" in beside(wrong, 0.5)
