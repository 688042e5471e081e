"""Which images a gallery shows, and in which order: the worst mistakes first."""

from collections.abc import Iterable, Sequence

import torch

from cliplab.classification import Scores

MAX_CARDS = 2000  # a page with more opens slowly: about 10 KB for each


def most_wrong(scores: Scores, true: Sequence[int | None]) -> list[int]:
    """Rows whose prediction is wrong, the most confident mistake first."""
    share = scores.probability.amax(dim=1).tolist()
    predicted = scores.prediction.tolist()
    wrong = [i for i, t in enumerate(true) if t is not None and t != predicted[i]]
    return sorted(wrong, key=lambda i: -share[i])


def choose_cards(
    scores: Scores, true: Sequence[int | None] | None = None, *, limit: int = MAX_CARDS
) -> list[int]:
    """Rows to show, at most `limit`, in the order to show them.

    With truth the mistakes come first, the most confident ones on top. When there are more images
    than cards, half of the cards are for mistakes, then half of what is left for the closest
    calls, and the rest is an even sample of all others, so that the ordinary is seen too.

    Args:
        scores: of N images.
        true: N class indices, None where unknown; default all unknown.
        limit: cards at most, 1 or more.
    """
    if limit < 1:
        raise ValueError(f"limit: got {limit}; expected 1 card or more")
    n = len(scores)
    wrong = most_wrong(scores, true or [None] * n)
    if n <= limit:
        mistaken = set(wrong)
        return wrong + [i for i in range(n) if i not in mistaken]
    first = wrong[: limit // 2]
    close = _without(torch.argsort(scores.margin, stable=True).tolist(), first)
    close = close[: (limit - len(first)) // 2]
    rest = _without(range(n), [*first, *close])
    room = limit - len(first) - len(close)
    sample = [rest[i * len(rest) // room] for i in range(room)]
    chosen = {*close, *sample}
    also_wrong = _without([i for i in wrong if i in chosen], first)
    return [*first, *also_wrong, *sorted(chosen - set(also_wrong))]


def _without(rows: Iterable[int], taken: Sequence[int]) -> list[int]:
    gone = set(taken)
    return [row for row in rows if row not in gone]
