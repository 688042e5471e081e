"""Sentences about a herd whose phrases point at things, and class lists: what a grounder reads.

A caption says what a picture shows; here it is also known which box each of its phrases means. All
of it follows from descriptions and boxes, never from pixels, so that a mirrored picture has true
sentences too: mirror the things, then speak of them. Sentences that tell one of several alike by a
landmark are in `relations`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import NamedTuple

from cliplab.pasture.captions import noun_phrase, said_in
from cliplab.pasture.drawing import SEMANTIC_CLASSES, Labels, box_of
from cliplab.pasture.scene import (
    COLOURS,
    POSTURES,
    SPECIES,
    Combo,
    Dice,
    Scene,
    combo_group,
)

LEAST_VISIBLE = 0.3  # share of an animal that must show for anybody to speak of it
FAMILIES = ("list", "attributes", "relation", "near")
_LEAST_PIXELS = 24  # of a prop
Span = tuple[int, int]  # characters from, up to but not including

# What a class of pixels is called; pines are trees, and a pond is its water.
PROPS = ("tree", "barn", "fence", "trough", "pond", "hay bale")
_PIXELS_OF = {"pond": "water", "hay bale": "hay"}
_KINDS_OF = {"tree": ("tree", "pine"), "hay bale": ("hay",)}
_PROP_ZH = {
    "tree": ("一棵", "大树"), "barn": ("一座", "谷仓"), "fence": ("一道", "栅栏"),
    "trough": ("一个", "水槽"), "pond": ("一个", "池塘"), "hay bale": ("一堆", "干草垛"),
}  # fmt: skip
_MEASURE = {"sheep": "一只", "goat": "一只", "cow": "一头", "dog": "一只", "horse": "一匹"}
_EN_FRAME = ("{}", "{}", "a photo of {}", "a picture of {}", "there is {}")
_ZH_FRAME = ("{}", "{}", "图中有{}", "{}的照片", "照片里有{}")


class Words(NamedTuple):
    """A description: what it leaves open is "". Props have a kind only."""

    kind: str = ""  # a species, one of PROPS, or "" for any animal
    posture: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Thing:
    """Something in a picture that can be spoken of."""

    kind: str  # a species, or one of PROPS
    posture: str  # "" for a prop
    colour: str  # "" for a prop
    box: tuple[float, float, float, float]  # px, x0 y0 x1 y1, half-open

    @property
    def is_animal(self) -> bool:
        """Animal or prop."""
        return self.kind in SPECIES

    @property
    def look(self) -> tuple[str, str, str]:
        """Kind, posture and colour."""
        return self.kind, self.posture, self.colour

    @property
    def middle(self) -> float:
        """x of its centre, px."""
        return (self.box[0] + self.box[2]) / 2

    def gap(self, other: "Thing") -> float:
        """Distance between two boxes, px; 0 where they touch or overlap."""
        (x0, y0, x1, y1), (u0, v0, u1, v1) = self.box, other.box
        return math.hypot(max(u0 - x1, x0 - u1, 0), max(v0 - y1, y0 - v1, 0))

    def fits(self, words: Words) -> bool:
        """Whether a description is true of it."""
        if not self.is_animal:
            return self.kind == words.kind
        said = zip(words, self.look, strict=True)
        return all(word in ("", own) for word, own in said)

    def mirrored(self, width: float) -> "Thing":
        """The same in a picture of this width that was turned left to right."""
        x0, y0, x1, y1 = self.box
        return replace(self, box=(width - x1, y0, width - x0, y1))


class Grounded(NamedTuple):
    """A caption, its phrases, and what each of them means in one picture."""

    caption: str
    spans: tuple[Span, ...]  # K, characters of the caption
    words: tuple[Words, ...]  # K, the description that each phrase puts into words
    things: tuple[tuple[int, ...], ...]  # K, indices of things; () where the phrase means nothing
    family: str  # one of FAMILIES

    @property
    def phrases(self) -> tuple[str, ...]:
        """The K phrases."""
        return tuple(self.caption[a:b] for a, b in self.spans)


class Annotations(NamedTuple):
    """The things of a picture: those that phrases may mean, and those that hardly show."""

    things: tuple[Thing, ...]  # animals in the scene's order, then props
    hidden: tuple[Thing, ...]  # animals that hardly show, and props of which there are several

    def meant(self, words: Words) -> tuple[int, ...]:
        """Indices of the things that a description is true of."""
        return tuple(i for i, thing in enumerate(self.things) if thing.fits(words))

    def is_clear(self, words: Words) -> bool:
        """Whether a description is true of nothing that is hidden."""
        return not any(thing.fits(words) for thing in self.hidden)

    def mirrored(self, width: float) -> "Annotations":
        """The same in a picture of this width that was turned left to right."""
        things, hidden = (tuple(t.mirrored(width) for t in part) for part in self)
        return Annotations(things, hidden)


def annotations_of(scene: Scene, found: Labels) -> Annotations:
    """Sort what a scene shows; `found` is `labels(scene, size)`, boxes are in its pixels."""
    things: list[Thing] = []
    hidden: list[Thing] = []
    for animal, box, visible in zip(scene.animals, found.boxes_xyxy, found.visible, strict=True):
        thing = Thing(animal.species, animal.posture, animal.colour, _floats(box))
        (things if visible >= LEAST_VISIBLE else hidden).append(thing)
    for kind in PROPS:
        count = sum(prop.kind.rstrip("*") in _KINDS_OF.get(kind, (kind,)) for prop in scene.props)
        if count:
            mask = found.semantic == SEMANTIC_CLASSES.index(_PIXELS_OF.get(kind, kind))
            # A trough holds water too, so that the water beside one is no pond's box.
            mixed = kind == "pond" and any(p.kind.rstrip("*") == "trough" for p in scene.props)
            clear = count == 1 and mask.sum() >= _LEAST_PIXELS and not mixed
            box = _floats(box_of(mask)) if clear else (0.0, 0.0, 0.0, 0.0)
            (things if clear else hidden).append(Thing(kind, "", "", box))
    return Annotations(tuple(things), tuple(hidden))


def _floats(values: Iterable[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(v) for v in values)
    return x0, y0, x1, y1


# ---- descriptions --------------------------------------------------------------------------

Parts = tuple[str, ...]  # of "kind", "posture", "colour"
Levels = Mapping[Parts, float]  # what a description of an animal says, and how often
LEVELS: Levels = {
    ("kind",): 8, ("kind", "posture"): 3, ("kind", "colour"): 3, ("kind", "posture", "colour"): 4,
    ("posture",): 1, ("colour",): 1, ("posture", "colour"): 1, (): 1,
}  # fmt: skip


def describe(thing: Thing, parts: Parts, unnamed: Sequence[str] = ()) -> Words:
    """A true description: `parts` of an animal ("animal" if unnamed), the kind of a prop."""
    if not thing.is_animal:
        return Words(thing.kind)
    kind = thing.kind if "kind" in parts and thing.kind not in unnamed else ""
    posture = thing.posture if "posture" in parts else ""
    return Words(kind, posture, thing.colour if "colour" in parts else "")


def is_held_out(words: Words) -> bool:
    """Whether a description names a combination that nobody may be trained on."""
    return combo_group(Combo(*words)) != "seen"


def universe(parts: Parts, unnamed: Sequence[str] = ()) -> list[Words]:
    """Every description of animals at this level that is not held out."""
    kinds = [s for s in SPECIES if s not in unnamed] if "kind" in parts else [""]
    postures = POSTURES if "posture" in parts else ("",)
    colours = COLOURS if "colour" in parts else ("",)
    every = (Words(*names) for names in product(kinds, postures, colours))
    return [words for words in every if not is_held_out(words)]


def say(words: Words, language: str, dice: Dice | None = None) -> str:
    """A description without article: "black goat", "躺着的白羊", "trough".

    Dice draw among synonyms; without, it is the first of each.
    """
    if words.kind in PROPS:
        return words.kind if language == "en" else _PROP_ZH[words.kind][1]
    return noun_phrase(words.kind, words.posture, words.colour, language=language, dice=dice)


# ---- class lists ---------------------------------------------------------------------------


def class_list(
    annotated: Annotations, language: str, dice: Dice, *, unnamed: Sequence[str] = (),
    most: int = 7,
    levels: Levels = LEVELS, untrue: float = 0.0,
) -> Grounded:  # fmt: skip
    """A detection prompt: classes that are there and classes that are not, in random order.

    Half of the lists are of one level ("sheep. goat", "white sheep lying down. ..."), the others
    mix levels and props.

    Args:
        annotated: of the picture.
        language: "en" or "zh".
        dice: draws everything.
        unnamed: species that are never named.
        most: classes of the list.
        levels: what descriptions say.
        untrue: chance that nothing of the list is there, if anything of its level is absent.
    """
    mixed, level = dice.chance(0.5), dice.weighted(levels)
    seen = [thing for thing in annotated.things if mixed or thing.is_animal]
    there = [
        describe(thing, dice.weighted(levels) if mixed else level, unnamed)
        for thing in dice.shuffled(seen)
    ]
    absent = universe(level, unnamed) + ([Words(kind) for kind in PROPS] if mixed else [])
    absent = [w for w in absent if not annotated.meant(w) and annotated.is_clear(w)]
    count = 1 + dice.integer(most)
    chosen = list(dict.fromkeys(there))[: max(1, count - dice.integer(3))]
    if absent and untrue and dice.chance(untrue):
        chosen = []
    chosen += dice.shuffled(absent)[: max(0, count - len(chosen))]
    names: dict[str, Words] = {}
    for words in dice.shuffled(chosen):
        names.setdefault(say(words, language, dice), words)
    text, spans = joined(["", *(piece for name in names for piece in (name, ". "))][:-1])
    things = tuple(map(annotated.meant, names.values()))
    return Grounded(text, spans, tuple(names.values()), things, "list")


def joined(pieces: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Text, phrase, text, phrase and so on -> all of it, and where its phrases are."""
    ends = [0, *accumulate(map(len, pieces))]
    return "".join(pieces), tuple(zip(ends[1::2], ends[2::2], strict=False))


# ---- sentences -----------------------------------------------------------------------------


def sentence(
    annotated: Annotations, language: str, dice: Dice, *, unnamed: Sequence[str] = (),
    levels: Levels = LEVELS,
) -> Grounded | None:  # fmt: skip
    """One to three things of the picture, each described; None if there is nothing to speak of.

    "a photo of a white sheep lying down and a barn"; a phrase means all that it is true of.
    """
    picked = dice.shuffled(annotated.things)[: 1 + dice.integer(3)]
    said = tuple(dict.fromkeys(describe(thing, dice.weighted(levels), unnamed) for thing in picked))
    if not said:
        return None
    frame = dice.choice(_EN_FRAME if language == "en" else _ZH_FRAME)
    before, _, after = frame.partition("{}")
    comma, last = (", ", " and ") if language == "en" else ("、", "和")
    between = [before, *[comma] * (len(said) - 2), *[last] * (len(said) > 1)]
    pieces = []
    for text, words in zip(between, said, strict=True):
        phrase = say(words, language, dice)
        pieces += [text + _article(words, phrase, language), phrase]
    text, spans = joined([*pieces, after])
    return Grounded(text, spans, said, tuple(map(annotated.meant, said)), "attributes")


def _article(words: Words, phrase: str, language: str) -> str:
    if language == "en":
        return "an " if phrase[0] in "aeiou" else "a "
    return _PROP_ZH[words.kind][0] if words.kind in PROPS else _MEASURE.get(words.kind, "一只")


def lexicon(language: str) -> list[str]:
    """Every word of this file's own, which a vocabulary must cover as it must that of captions."""
    if language == "en":
        return said_in([PROPS, _EN_FRAME, "an", "animal", "and", ","])
    names = ["".join(words) for words in _PROP_ZH.values()]
    return said_in([names, [*_MEASURE.values()], _ZH_FRAME, "动物", "和", "、"])
