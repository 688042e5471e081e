"""Quizzes: the text in the lesson and the key in the package belong together."""

import re
from pathlib import Path

import nbformat
import pytest

from cliplab.exercises import quiz
from cliplab.exercises.checking import LESSONS, module_of
from cliplab.exercises.quizzes import Choice, Number

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def key_of(lesson: str) -> dict[str, Choice | Number]:
    return module_of(lesson).QUIZ


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_key_fits_the_text(lesson: str) -> None:
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    text, code = cells["quiz"].source, cells["quiz-answers"].source
    parts = re.split(r"^\*\*(\w)\.\*\*", text, flags=re.MULTILINE)[1:]
    key, asked = key_of(lesson), dict(zip(parts[::2], parts[1::2], strict=True))
    assert 3 <= len(key) <= 5
    assert set(key) == set(asked) == set(re.findall(r"(\w)=None", code))
    for name, question in key.items():
        choices = re.findall(r"^- `\"(\w)\"`", asked[name], flags=re.MULTILINE)
        if isinstance(question, Choice):
            assert choices == list(question.reasons)
            assert question.right in choices
        else:
            assert not choices


@pytest.mark.parametrize("lesson", LESSONS)
def test_right_and_wrong_are_told(lesson: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_of(lesson)
    quiz(lesson, **dict.fromkeys(key))
    assert capsys.readouterr().out.count("not yet") == len(key)
    quiz(lesson, **{name: question.right for name, question in key.items()})
    assert capsys.readouterr().out.count(" right: ") == len(key)
    for name, question in key.items():
        if isinstance(question, Choice):
            others = [c for c in question.reasons if c != question.right]
        else:
            others = [question.right + 2 * question.tolerance + 1e-6, float("inf")]
        for other in others:
            quiz(lesson, **{name: other})
            assert " wrong: " in capsys.readouterr().out
        quiz(lesson, **{name: ["?"]})
        assert "expected" in capsys.readouterr().out


def test_unknown_questions_are_named() -> None:
    with pytest.raises(ValueError, match="unknown lesson"):
        quiz("91", a=1)
    with pytest.raises(ValueError, match="unknown question"):
        quiz("01", zz=1)
