"""What a picture is to be labelled with: classes, their synonyms, and words for the background."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = "background"
# Things that are rarely what a picture is about. The list that most papers on open-vocabulary
# segmentation use for the background of PASCAL VOC, such as SCLIP (arXiv:2312.01597).
BACKGROUND_WORDS = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sand", "desk",
    "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf",
    "curtain", "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """Labels, and the words that stand for them; make one with `vocabulary`."""

    names: tuple[str, ...]  # K labels, the background first if there is one
    words: tuple[str, ...]  # W words, each of one label
    label_of: tuple[int, ...]  # W, indices into names
    has_background: bool

    def by_label(self, word_scores: Tensor) -> Tensor:
        """Scores of words (W, ...) -> of labels (K, ...): a label's best word.

        A label without words, which is the background by threshold alone, has 0.
        """
        labels = torch.tensor(self.label_of)
        rows = [(labels == k).nonzero()[:, 0] for k in range(len(self.names))]
        nothing = word_scores.new_zeros(word_scores.shape[1:])
        return torch.stack([word_scores[r].amax(dim=0) if len(r) else nothing for r in rows])


def vocabulary(
    classes: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    background: Sequence[str] | None = None,
) -> Vocabulary:
    """Classes to choose between, in any language that the model's text tower reads.

    Args:
        classes: names, or names with synonyms: {"person": ["man", "woman"]}. A pixel gets the
            class whose best word fits best. There may be more classes than a model has groups;
            a picture then shows at most as many as there are groups.
        background: None: every pixel is of some class. Words, such as BACKGROUND_WORDS: a pixel
            that one of them fits best is background. () : background by threshold alone.

    Raises:
        ValueError: an empty or repeated name or word; one word in all, which nothing competes with.
    """
    synonyms = dict(classes) if isinstance(classes, Mapping) else {}
    names = _list(classes, "classes")
    if not names:
        raise ValueError("classes: got none; expected at least one name")
    _check(names, "classes")
    labelled = [(n, [n, *_list(synonyms.get(n, ()), f"synonyms of {n!r}")]) for n in names]
    if background is not None:
        _check([BACKGROUND, *names], "classes")
        labelled.insert(0, (BACKGROUND, _list(background, "background")))
    words = [word.strip() for _, some in labelled for word in some]
    _check(words, "words")
    if len(words) == 1:
        raise ValueError(
            f"classes: got only {words[0]!r}, which would be everywhere with probability 1; "
            "expected a second class, or words for the background"
        )
    return Vocabulary(
        names=tuple(name.strip() for name, _ in labelled),
        words=tuple(words),
        label_of=tuple(k for k, (_, some) in enumerate(labelled) for _ in some),
        has_background=background is not None,
    )


def _list(words: Iterable[str], what: str) -> list[str]:
    if isinstance(words, str):
        raise ValueError(f"{what}: got the text {words!r}; expected a list, such as [{words!r}]")
    return list(words)


def _check(words: Sequence[str], what: str) -> None:
    """Raise ValueError for what is empty, no text, or there twice whatever its case."""
    if odd := [word for word in words if not isinstance(word, str) or not word.strip()]:
        raise ValueError(f"{what}: got {odd[0]!r} among {len(words)}; expected text, not empty")
    folded = [word.strip().casefold() for word in words]
    repeated = sorted({word for word in folded if folded.count(word) > 1})
    if repeated:
        raise ValueError(
            f"{what}: {', '.join(map(repr, repeated))} repeated; expected every name, synonym and "
            "background word once, since duplicates would share their probability"
        )
