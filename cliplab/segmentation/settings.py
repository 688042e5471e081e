"""What is asked of a picture: labels, the words that stand for them, and how it is read.

Nothing here loads torch: the command line is made from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cliplab.classification import check_templates, fold, is_chinese, typed_classes
from cliplab.runtime import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background"
# Things that are rarely what a picture is about. The list that most papers on open-vocabulary
# segmentation use for the background of PASCAL VOC, such as SCLIP (arXiv:2312.01597).
BACKGROUND_WORDS = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sand", "desk",
    "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf",
    "curtain", "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip
_OR = re.compile("[|｜]")  # a Chinese keyboard has the full-width one


@dataclass(frozen=True)
class Settings:
    """How a picture is read; choose on val, report on test."""

    threshold: float | None = None  # classes that score less are background; 0 to 1
    top_words: int | None = 5  # words that a window may show; None: all
    templates: tuple[str, ...] = ("a photo of a {}.",)  # their features are averaged
    hard: bool = True  # a pixel has its group's scores; False: the mean over its groups
    scales: tuple[float, ...] = (1.0,)  # times the model's side; several are averaged
    flip: bool = False  # with the scores of the mirrored picture, at every scale
    refine: int = 0  # steps of `refine`, of the averaged scores
    offsets: Mapping[str, float] = field(default_factory=dict)  # class -> added to its logits

    def __post_init__(self) -> None:
        """Accept lists, as JSON gives them; refuse numbers out of range."""
        object.__setattr__(self, "templates", tuple(check_templates(self.templates)))
        object.__setattr__(self, "scales", tuple(self.scales))
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ArgumentError("threshold", f"got {self.threshold}; expected a score, 0 to 1")

    def views(self) -> list[tuple[float, bool]]:
        """Scale of each view of a picture, and whether it is mirrored; the first is not."""
        return [(scale, flip) for scale in self.scales for flip in (False, True)[: 1 + self.flip]]


# ---- labels and their words ----------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """Labels, and the words that stand for them; make one with `vocabulary`."""

    names: tuple[str, ...]  # K labels, the background first if there is one
    words: tuple[str, ...]  # W words, each of one label
    label_of: tuple[int, ...]  # W, indices into names
    has_background: bool

    def words_of(self, k: int) -> tuple[str, ...]:
        """The words of label k."""
        pairs = zip(self.words, self.label_of, strict=True)
        return tuple(word for word, label in pairs if label == k)

    def by_label(self, word_scores: Tensor) -> Tensor:
        """Scores of words (W, ...) -> of labels (K, ...): a label's best word.

        A label without words, which is the background by threshold alone, has 0.
        """
        scores = word_scores.new_zeros(len(self.names), *word_scores.shape[1:])
        for k in set(self.label_of):
            own = [w for w, label in enumerate(self.label_of) if label == k]
            scores[k] = word_scores[own].amax(dim=0)
        return scores


def vocabulary(
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    background: Sequence[str] | None = None,
) -> Vocabulary:
    """Labels to choose between.

    Args:
        labels: names, or names with the words that stand for them: {"person": ["man", "woman"]}; a
            name without words is its own word. A pixel gets the label whose best word fits best.
        background: None: every pixel has some label. Words, such as BACKGROUND_WORDS: a pixel
            that one of them fits best is background. (): background by threshold alone.

    Raises:
        ValueError: an empty or repeated name or word; one word in all, which nothing competes with.
    """
    if not labels:
        raise ArgumentError("labels", "got none; expected names, such as sheep and dog")
    given = labels if isinstance(labels, Mapping) else {}
    pairs = [(name, [*given.get(name, ())] or [name]) for name in labels]
    if background is not None:
        pairs.insert(0, (BACKGROUND, [*background]))
    _check([name for name, _ in pairs], "names")
    words = [word for _, some in pairs for word in some]
    _check(words, "words")
    if len(words) == 1:
        raise ArgumentError(
            "labels",
            f"got only {words[0]!r}, which would be everywhere with probability 1; "
            "expected a second label, or words for the background such as grass and sky",
        )
    return Vocabulary(
        names=tuple(name.strip() for name, _ in pairs),
        words=tuple(word.strip() for word in words),
        label_of=tuple(k for k, (_, some) in enumerate(pairs) for _ in some),
        has_background=background is not None,
    )


def _check(words: Sequence[str], what: str) -> None:
    """Raise ValueError for what is empty, or there twice whatever its case."""
    if not all(map(str.strip, words)):
        raise ArgumentError("labels", f"got '' among {len(words)} {what}; expected text")
    folded = [fold(word) for word in words]
    repeated = [w for w, key in zip(words, folded, strict=True) if folded.count(key) > 1]
    if repeated:
        raise ArgumentError(
            "labels",
            f"{', '.join(map(repr, dict.fromkeys(repeated)))} repeated among the {what}; "
            "expected every label, word and background word once, since duplicates would share "
            "their probability",
        )


# ---- words of users ------------------------------------------------------------------------


def read_labels(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Label -> its words, of texts such as `sheep`, `羊=sheep` and `person=man|woman`.

    Raises:
        ValueError: an empty text, a name without words, or a name twice.
    """
    typed = typed_classes(texts)
    words = [tuple(word.strip() for word in _OR.split(prompt)) for prompt in typed.prompts]
    triples = zip(typed.names, typed.prompts, words, strict=True)
    names = [own[0] if name == prompt else name for name, prompt, own in triples]
    _check(names, "names")
    return dict(zip(names, words, strict=True))


def language_of(words: Sequence[str]) -> str:
    """ "zh" if every word has a Chinese character, else "en"."""
    return "zh" if all(map(is_chinese, words)) else "en"
