"""One of several alike, told by a landmark: the sentence is true of it, and of no other."""

import numpy as np
import pytest

from cliplab.pasture import herd, labels
from cliplab.pasture.grounding import Annotations, Thing, annotations_of
from cliplab.pasture.relations import near_pair, relation
from cliplab.pasture.scene import Dice

WIDTH = 171
LANGUAGES = ("en", "zh")
UNNAMED = ("dog", "horse")


@pytest.fixture(scope="module")
def annotations() -> list[Annotations]:
    scenes = [herd(seed) for seed in range(40)]
    return [annotations_of(scene, labels(scene, 128)) for scene in scenes]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_relation_picks_one_of_several_by_its_side(
    annotations: list[Annotations], language: str
) -> None:
    alike = 0
    for i, annotated in enumerate(annotations):
        said = relation(
            annotated, language, Dice("side", language, i), width=WIDTH, unnamed=UNNAMED
        )
        if said is None:
            continue
        ((target,), (landmark,)) = said.things
        alike += annotated.things[landmark].fits(said.words[0])
        away = annotated.things[target].middle - annotated.things[landmark].middle
        left = "left" in said.caption or "左" in said.caption
        assert left == (away < 0)
        others = set(annotated.meant(said.words[0])) - {target, landmark}
        assert others
        for other in others:  # all of them on the other side
            assert left == (annotated.things[other].middle > annotated.things[landmark].middle)
    assert alike  # "the animal left of the black goat": a landmark may fit the words too


def pairs(annotations: list[Annotations], language: str):
    """Both sentences of each herd that allows them, with its annotated."""
    for i, annotated in enumerate(annotations):
        dice = Dice("near", language, i)
        if pair := near_pair(annotated, language, dice, width=WIDTH, unnamed=UNNAMED):
            yield annotated, pair


def gap_by_hand(a: Thing, b: Thing) -> float:
    """Smallest distance between any two points of two boxes, tried out on a grid of a pixel."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = a.box, b.box
    across = min(abs(x - u) for x in np.arange(x0, x1 + 1) for u in np.arange(u0, u1 + 1))
    down = min(abs(y - v) for y in np.arange(y0, y1 + 1) for v in np.arange(v0, v1 + 1))
    return float(np.hypot(across, down))


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_is_near_has_the_smallest_gap_by_far(
    annotations: list[Annotations], language: str
) -> None:
    for annotated, pair in pairs(annotations, language):
        for said in pair:
            ((target,), (anchor,)) = said.things
            mark, alike = annotated.things[anchor], set(annotated.meant(said.words[0])) - {anchor}
            gaps = {i: gap_by_hand(annotated.things[i], mark) for i in alike}
            assert gaps[target] <= 0.25 * WIDTH
            assert min(gaps[i] for i in alike - {target}) - gaps[target] >= 0.08 * WIDTH
            assert annotated.meant(said.words[1]) == (anchor,)
            assert any(word in said.caption for word in (" near ", " by ", "旁边", "附近"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pair_differs_in_its_landmark_and_in_what_it_means(annotations, language: str) -> None:
    """So a rule that does not read the landmark is wrong in one of the two."""
    for _, (one, other) in pairs(annotations, language):
        assert one.phrases[0] == other.phrases[0]
        assert one.words[0] == other.words[0]
        assert one.things[0] != other.things[0]
        assert one.things[1] != other.things[1]
        rests = [s.caption.replace(s.phrases[1], "", 1) for s in (one, other)]
        assert rests[0] == rests[1]


def told(first: str, second: str, apart: float = 30, **options: bool) -> bool:
    """Whether one can ask which of two animals, each with a landmark this far away, is near it."""
    four = first.split(), ("trough", "", ""), second.split(), ("barn", "", "")
    places = (0.0, 9 + apart, 150.0, 159 + apart)
    things = [Thing(*look, (x, 0.0, x + 9, 9.0)) for look, x in zip(four, places, strict=True)]
    annotated = Annotations(tuple(things), ())
    return any(near_pair(annotated, "en", Dice(i), width=WIDTH, **options) for i in range(20))


def test_nothing_is_near_from_far_away() -> None:
    sheep = "sheep lying white"
    assert told(sheep, sheep, apart=30)
    assert not told(sheep, sheep, apart=50)  # more than a quarter of the width


@pytest.mark.parametrize("other", ["goat lying white", "sheep eating white", "sheep lying black"])
def test_what_looks_alike_is_told_apart_by_its_place_alone(other: str) -> None:
    """Animals that drink are near troughs: who knows that need not look where the trough is."""
    sheep = "sheep lying white"
    assert told(sheep, other)
    assert told(sheep, sheep, alike=True)
    assert not told(sheep, other, alike=True)


def test_neither_of_a_pair_is_first_by_habit(annotations: list[Annotations]) -> None:
    """Of the two that are meant, the one further left comes first as often as not."""
    first = [
        s.things[one.things[0][0]].middle < s.things[other.things[0][0]].middle
        for language in LANGUAGES
        for s, (one, other) in pairs(annotations, language)
    ]
    assert 0.25 < sum(first) / len(first) < 0.75
