"""Questions at the end of a lesson: their text is in the notebook, their key in `QUIZ` of the
lesson's module."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cliplab.exercises.checking import module_of, show
from cliplab.runtime import unknown_name


@dataclass(frozen=True)
class Choice:
    """A question with choices.

    Args:
        right: the letter of the right one.
        reasons: why each choice is right or wrong, by its letter.
    """

    right: str
    reasons: Mapping[str, str]

    def reply(self, answer: object) -> str:
        """A sentence on an answer."""
        if not isinstance(answer, str) or answer not in self.reasons:
            return f"got {answer!r}; expected one of {', '.join(map(repr, self.reasons))}"
        return f"{'right' if answer == self.right else 'wrong'}: {self.reasons[answer]}"


@dataclass(frozen=True)
class Number:
    """A question whose answer is a number.

    Args:
        right: the number.
        tolerance: how far an answer may be from it.
        reason: how it comes about.
    """

    right: float
    tolerance: float
    reason: str

    def reply(self, answer: object) -> str:
        """A sentence on an answer."""
        if not isinstance(answer, int | float) or isinstance(answer, bool) or math.isnan(answer):
            return f"got {answer!r}; expected a number, such as 0.5"
        if abs(answer - self.right) <= self.tolerance:
            return f"right: {self.reason}"
        return f"wrong: it is {'less' if answer > self.right else 'more'}; try again"


def quiz(lesson: str, **answers: object) -> None:
    """Reply to the answers that are given; None is a question left open.

    Args:
        lesson: its number, such as "01".
        answers: a letter or a number for each question, by its name.

    Raises:
        ValueError: no such lesson or question.
    """
    questions = module_of(lesson).QUIZ
    lines = []
    for name, answer in answers.items():
        if name not in questions:
            raise ValueError(unknown_name("question", name, questions))
        reply = "not yet" if answer is None else questions[name].reply(answer)
        lines.append(f"{lesson}.{name} {reply}")
    show("\n".join(lines))
