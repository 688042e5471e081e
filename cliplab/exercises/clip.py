"""Exercises of lesson 01: the contrastive loss."""

import math

from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number

QUIZ: dict[str, Choice | Number] = {}


@exercise(
    "01.1",
    "Closed forms of the loss",
    hints=(
        "All embeddings equal: what is the softmax of a row of N equal logits?",
        "The right cell of such a row has probability 1/N. What is its cross-entropy?",
        "For the simplex each row holds e^s once and e^(-s/(N-1)) for the N - 1 others: divide by "
        "e^s before you take the logarithm.",
    ),
)
def closed_form(answer: Answer, draw: Draw) -> None:
    """`closed_form(kind, n, scale)` for the kinds "equal" and "simplex"."""
    n, scale = draw.integer(2, 9), draw.number(0.5, 12)
    answer.expect(
        math.log(n),
        "equal",
        n,
        scale,
        mistakes={"this is the sum of both directions; the loss is their mean": 2 * math.log(n)},
    )
    simplex = math.log1p((n - 1) * math.exp(-scale * n / (n - 1)))
    answer.expect(
        simplex,
        "simplex",
        n,
        scale,
        mistakes={
            "a simplex of N points has cosines -1/(N-1) off the diagonal, not 0": math.log1p(
                (n - 1) * math.exp(-scale)
            )
        },
    )
