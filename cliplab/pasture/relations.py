"""Sentences that tell one of several alike by a landmark: "the black goat left of the trough".

Their first phrase means one thing though its words are true of several, so that who reads nothing
but these words has at best an even chance. That is what deep fusion is for.
"""

from collections.abc import Sequence

from cliplab.pasture.captions import said_in
from cliplab.pasture.grounding import (
    LEVELS,
    Annotations,
    Grounded,
    Levels,
    Parts,
    Words,
    describe,
    joined,
    say,
)
from cliplab.pasture.scene import Dice

_APART = 0.06  # of the picture's width: centres nearer than this are neither left nor right
_NEAR = 0.25  # of the picture's width: the widest gap between boxes that is still near
_NEARER = 0.08  # of the picture's width: the next of those alike must be this much further away
_TRIES = 30
SIDES = ("left", "right")
_TELLING: tuple[Parts, ...] = (  # what a landmark is called by
    ("kind",),
    ("kind", "colour"),
    ("kind", "posture"),
    ("colour",),
)
_EN_SIDE = ("{} of", "to the {} of", "on the {} of")
_ZH_SIDE = {"left": ("左边", "左侧"), "right": ("右边", "右侧")}
_EN_NEAR, _ZH_NEAR = ("near", "by"), ("旁边", "附近")


def relation(
    annotated: Annotations, language: str, dice: Dice, *, width: float, unnamed: Sequence[str] = (),
    levels: Levels = LEVELS,
) -> Grounded | None:  # fmt: skip
    """One of several alike, told by its side of something: "the black goat left of the trough".

    The first phrase means exactly one thing, the second the landmark. None if the draws found no
    such pair.

    Args:
        annotated, language, dice, unnamed: as `grounding.class_list` takes them.
        width: of the picture, px.
        levels: what the first phrase says.
    """
    for _ in range(_TRIES):
        found = _told_apart(annotated, dice, width, unnamed, levels)
        if found:
            words, target, side, landmark, anchor = found
            told, mark = say(words, language, dice), say(landmark, language, dice)
            link = dice.choice(_EN_SIDE if language == "en" else _ZH_SIDE[side]).format(side)
            things = ((target,), (anchor,))
            return _linked(told, link, mark, language, (words, landmark), things, "relation")
    return None


def _told_apart(
    annotated: Annotations, dice: Dice, width: float, unnamed: Sequence[str], levels: Levels
) -> tuple[Words, int, str, Words, int] | None:
    """One draw: description, which thing, side, landmark's description, which thing that is."""
    animals = [i for i, thing in enumerate(annotated.things) if thing.is_animal]
    anchor = dice.integer(len(annotated.things)) if annotated.things else 0
    if len(animals) < 2:
        return None
    landmark = describe(annotated.things[anchor], dice.choice(_TELLING), unnamed)
    words = describe(annotated.things[dice.choice(animals)], dice.weighted(levels), unnamed)
    alike = [i for i in annotated.meant(words) if i != anchor]
    clear = annotated.is_clear(words) and annotated.is_clear(landmark)
    if len(alike) < 2 or len(annotated.meant(landmark)) != 1 or not clear:
        return None
    away = [annotated.things[i].middle - annotated.things[anchor].middle for i in alike]
    side = dice.choice(SIDES)
    there = [i for i, x in zip(alike, away, strict=True) if (x < 0) == (side == "left")]
    if len(there) != 1 or min(map(abs, away)) < _APART * width:
        return None
    return words, there[0], side, landmark, anchor


def near_pair(
    annotated: Annotations, language: str, dice: Dice, *, width: float, unnamed: Sequence[str] = (),
    levels: Levels = LEVELS,
) -> tuple[Grounded, Grounded] | None:  # fmt: skip
    """Two sentences that differ in their landmark alone, and therefore mean two things.

    "the sheep near the trough", "the sheep near the tree": each means the one of those alike whose
    box has the smallest gap to the landmark's. Of several alike, the outermost, the largest or
    whichever other can be right in one of the two at most: who does not read the landmark answers
    half of them at best, and never both. The two that are meant are of one species, posture and
    colour: animals that drink are near troughs, and who knows that need not look where it is.

    Args:
        annotated, language, dice, width, unnamed, levels: as `relation` takes them.

    Returns:
        Both, in random order; each with the phrase and its landmark. None if the draws found none.
    """
    for _ in range(_TRIES):
        found = _near_two(annotated, dice, width, unnamed, levels)
        if found:
            words, marks = found
            told = say(words, language, dice)
            link = dice.choice(_EN_NEAR if language == "en" else _ZH_NEAR)
            one, other = (
                _linked(told, link, say(landmark, language, dice), language, (words, landmark),
                        ((target,), (anchor,)), "near")
                for target, landmark, anchor in marks
            )  # fmt: skip
            return one, other
    return None


def _near_two(
    annotated: Annotations, dice: Dice, width: float, unnamed: Sequence[str], levels: Levels
) -> tuple[Words, list[tuple[int, Words, int]]] | None:
    """One draw: description, and twice which thing, landmark's description, which thing that is."""
    animals = [i for i, thing in enumerate(annotated.things) if thing.is_animal]
    if len(animals) < 2:
        return None
    words = describe(annotated.things[dice.choice(animals)], dice.weighted(levels), unnamed)
    meant = annotated.meant(words)
    if len(meant) < 2 or not annotated.is_clear(words):
        return None
    marks: dict[int, tuple[int, Words, int]] = {}
    for anchor in dice.shuffled(range(len(annotated.things))):
        landmark = describe(annotated.things[anchor], dice.choice(_TELLING), unnamed)
        target = _nearest([i for i in meant if i != anchor], anchor, annotated, width)
        told = len(annotated.meant(landmark)) == 1 and annotated.is_clear(landmark)
        if target is None or target in marks or not told:
            continue
        for other in marks:
            if annotated.things[other].look == annotated.things[target].look:
                return words, [marks[other], (target, landmark, anchor)]
        marks[target] = (target, landmark, anchor)
    return None


def _nearest(some: Sequence[int], anchor: int, annotated: Annotations, width: float) -> int | None:
    """The one of several things that is clearly the nearest to another; None: there is none."""
    if len(some) < 2:
        return None
    mark = annotated.things[anchor]
    (first, target), (second, _) = sorted((annotated.things[i].gap(mark), i) for i in some)[:2]
    return target if first <= _NEAR * width and second - first >= _NEARER * width else None


def _linked(
    told: str, link: str, mark: str, language: str, words: tuple[Words, Words],
    things: tuple[tuple[int, ...], ...], family: str,
) -> Grounded:  # fmt: skip
    """The sentence of what is told, its place and its landmark."""
    if language == "en":
        text, spans = joined(["the ", told, f" {link} the ", mark])
    else:
        text, spans = joined(["", mark, link + ("" if words[0].posture else "的"), told])
        spans = spans[::-1]
    return Grounded(text, spans, words, things, family)


def lexicon(language: str) -> list[str]:
    """Every word of this file's own, as `grounding.lexicon` has those of the other sentences."""
    english, chinese = (_EN_SIDE, _EN_NEAR, SIDES, "the"), (*_ZH_SIDE.values(), _ZH_NEAR)
    return said_in(english if language == "en" else chinese)
