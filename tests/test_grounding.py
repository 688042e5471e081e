"""Sentences about herds: every phrase is where its span says, and true of what it means."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from cliplab.detection import read_prompt
from cliplab.pasture import (
    SEEN_COMBOS,
    SEMANTIC_CLASSES,
    SPECIES,
    captions,
    grounding,
    herd,
    labels,
    relations,
)
from cliplab.pasture.captions import class_phrase, noun_phrase
from cliplab.pasture.drawing import box_of
from cliplab.pasture.grounding import (
    PROPS,
    Annotations,
    Thing,
    Words,
    annotations_of,
    class_list,
    describe,
    is_held_out,
    say,
    sentence,
    universe,
)
from cliplab.pasture.relations import near_pair, relation
from cliplab.pasture.scene import Dice

WIDTH = 171
LANGUAGES = ("en", "zh")
UNNAMED = ("dog", "horse")
BETWEEN = ("relation", "near")  # families that tell one of several alike by a landmark


def annotated_herd(seed: int, *, few: bool) -> Annotations:
    """What a herd shows; `few` kinds of animal, so that several look alike."""
    combos = Dice("few kinds", seed).shuffled(SEEN_COMBOS)[:4] if few else SEEN_COMBOS
    scene = herd(seed, combos=combos)
    return annotations_of(scene, labels(scene, 128))


@pytest.fixture(scope="module")
def annotations() -> list[Annotations]:
    return [annotated_herd(seed, few=seed % 2 == 1) for seed in range(60)]


def prompts(annotations: list[Annotations], language: str, unnamed: tuple[str, ...] = UNNAMED):
    """A prompt of each family about each herd, with its annotated."""
    for i, annotated in enumerate(annotations):
        dice = Dice("test", language, i)
        for said in (
            class_list(annotated, language, dice, unnamed=unnamed),
            sentence(annotated, language, dice, unnamed=unnamed),
            relation(annotated, language, dice, width=WIDTH, unnamed=unnamed),
            *(near_pair(annotated, language, dice, width=WIDTH, unnamed=unnamed) or ()),
        ):
            if said is not None:
                yield annotated, said


@pytest.mark.parametrize("language", LANGUAGES)
def test_phrases_mean_what_they_say(annotations: list[Annotations], language: str) -> None:
    families = []
    for annotated, said in prompts(annotations, language):
        families.append(said.family)
        assert len(said.spans) == len(said.words) == len(said.things) >= 1
        for phrase, words, things in zip(said.phrases, said.words, said.things, strict=True):
            assert phrase.strip() == phrase != ""
            assert all(annotated.things[i].fits(words) for i in things)
            if said.family not in BETWEEN:  # there the sentence decides, not the phrase alone
                assert things == annotated.meant(words)
    assert families.count("list") == len(annotations)
    assert families.count("relation") > len(annotations) / 3
    assert families.count("near") >= 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_never_names_what_is_held_out(annotations, language: str) -> None:
    names = {say(Words(species), language) for species in UNNAMED} | {"dog", "horse", "狗", "马"}
    meant = set()
    for annotated, said in prompts(annotations, language):
        assert not any(is_held_out(words) for words in said.words)
        assert not any(name in said.caption for name in names)
        meant |= {annotated.things[i].kind for things in said.things for i in things}
    assert set(UNNAMED) < meant  # they are spoken of as animals


def test_gaps_of_boxes() -> None:
    here = Thing("sheep", "lying", "white", (10.0, 10.0, 20.0, 20.0))

    def to(*box: float) -> float:
        return here.gap(Thing("trough", "", "", box))  # type: ignore[arg-type]

    assert to(12, 12, 30, 14) == to(20, 10, 30, 20) == 0  # across it, and touching
    assert to(23, 0, 30, 40) == to(0, 0, 7, 12) == 3
    assert to(0, 24, 40, 30) == to(0, 0, 30, 6) == 4
    assert to(23, 24, 30, 30) == to(0, 0, 7, 6) == 5  # over a corner


def test_mirrored_things_change_sides(annotations: list[Annotations]) -> None:
    annotated = annotations[0]
    turned = annotated.mirrored(WIDTH)
    for before, after in zip(annotated.things, turned.things, strict=True):
        assert after.middle == pytest.approx(WIDTH - before.middle)
        assert after.box[1::2] == before.box[1::2]
        assert after.box[2] - after.box[0] == before.box[2] - before.box[0]
    again = turned.mirrored(WIDTH)
    assert again == annotated


def test_a_list_may_speak_of_nothing_that_is_there(annotations: list[Annotations]) -> None:
    """A detector that always finds something true learns that something always is."""
    empty, things = 0, []
    for i, annotated in enumerate(annotations):
        said = class_list(annotated, "en", Dice("untrue", i), untrue=1.0)
        assert said.words
        assert not any(said.things) or all(said.things)  # "animal": where nothing can be absent
        empty += not any(said.things)
        usual = class_list(annotated, "en", Dice("untrue", i)).things
        assert any(usual)
        things += usual
    assert empty > 0.8 * len(annotations)
    assert 0.2 < sum(not t for t in things) / len(things) < 0.8  # as a rule some are not there


def first_near(*given, **more):
    pair = near_pair(*given, **more)
    return pair and pair[0]


@pytest.mark.parametrize("make", [class_list, sentence, relation, first_near])
def test_descriptions_say_what_they_are_told_to(annotations: list[Annotations], make) -> None:
    between = make in (relation, first_near)
    more = {"width": WIDTH} if between else {}
    said = [make(s, "en", Dice("levels", i), levels={("colour",): 1}, **more)
            for i, s in enumerate(annotations)]  # fmt: skip
    first = [one.words[:1] if between else one.words for one in said if one]
    animals = [words for some in first for words in some if words.kind not in PROPS]
    assert animals
    assert all(words.colour and not words.kind and not words.posture for words in animals)


def test_what_is_hidden_is_never_said_to_be_absent() -> None:
    seen = Thing("sheep", "lying", "white", (0.0, 0.0, 9.0, 9.0))
    hidden = (Thing("tree", "", "", (0.0,) * 4), Thing("cow", "eating", "black", (0.0,) * 4))
    annotated = Annotations((seen,), hidden)
    for seed in range(200):
        for words in class_list(annotated, "en", Dice("hidden", seed)).words:
            assert seen.fits(words) or not any(thing.fits(words) for thing in hidden)


@pytest.mark.parametrize(
    ("kinds", "kind"), [("tree pine", "tree"), ("pond trough", "pond"), ("trough trough", "trough")]
)
def test_props_that_others_may_be_taken_for_are_not_spoken_of(kinds: str, kind: str) -> None:
    found = ((s, Counter(p.kind.rstrip("*") for p in s.props)) for s in map(herd, range(300)))
    scene = next(scene for scene, there in found if Counter(kinds.split()) <= there)
    annotated = annotations_of(scene, labels(scene, 128))
    assert kind not in {thing.kind for thing in annotated.things}
    assert kind in {thing.kind for thing in annotated.hidden}


def test_boxes_of_props_hold_their_pixels() -> None:
    scene = next(s for s in map(herd, range(300)) if [p.kind for p in s.props].count("barn") == 1)
    found = labels(scene, 128)
    (barn,) = [t for t in annotations_of(scene, found).things if t.kind == "barn"]
    assert barn.box == box_of(found.semantic == SEMANTIC_CLASSES.index("barn"))


def test_a_description_fits_what_it_is_true_of() -> None:
    sheep, tree = Thing("sheep", "lying", "white", (0.0,) * 4), Thing("tree", "", "", (0.0,) * 4)
    assert [sheep.fits(w) for w in (Words(), Words("sheep", "", "white"))] == [True, True]
    assert not any(sheep.fits(w) for w in (Words("sheep", "standing"), Words("tree")))
    assert tree.fits(Words("tree"))
    assert not tree.fits(Words())  # an animal, whichever
    assert describe(sheep, ("posture",)) == Words("", "lying", "")
    assert describe(sheep, ("kind", "colour")) == Words("sheep", "", "white")
    assert describe(sheep, ("kind", "colour"), ("sheep",)) == Words("", "", "white")


def test_the_universe_leaves_out_what_is_held_out() -> None:
    kinds = universe(("kind", "posture", "colour"))
    assert len(kinds) == len(set(kinds)) == 60
    assert Words("sheep", "lying") not in universe(("kind", "posture"))
    assert len(universe(("kind",), UNNAMED)) == len(SPECIES) - 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_dice_a_phrase_is_the_class_phrase(language: str) -> None:
    for words in universe(("kind", "posture", "colour")):
        phrase = class_phrase(
            species=words.kind, posture=words.posture, colour=words.colour, language=language
        )
        assert say(words, language) == phrase
    assert say(Words(), language) == {"en": "animal", "zh": "动物"}[language]
    assert all(say(Words(prop), language).isascii() == (language == "en") for prop in PROPS)


def test_wordings_vary() -> None:
    some = {
        noun_phrase("sheep", "lying", "white", language="zh", dice=Dice("vary", i))
        for i in range(60)
    }
    assert {"躺着的白羊", "卧着的白色绵羊"} < some
    assert len(some) == 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lexicon_covers_every_word(annotations: list[Annotations], language: str) -> None:
    rooms = (captions, grounding, relations)
    known = " ".join(word for room in rooms for word in room.lexicon(language))
    known = known if language == "zh" else set(known.replace(",", " ").split())
    for _, said in prompts(annotations, language):
        text = said.caption.replace(".", " ").replace(",", " ")
        for word in text.split() if language == "en" else text.replace(" ", ""):
            assert word in known, said.caption


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_user_who_types_what_was_trained_on_means_the_same(annotations, language: str) -> None:
    families = set()
    for unnamed in (UNNAMED, ()):
        for _, said in prompts(annotations, language, unnamed):
            families.add(said.family)
            found = set(read_prompt(said.caption).phrases)
            if len(found) == 1:  # "a goat" alone is a list of one class, and keeps its article
                found = {phrase.removeprefix("a ").removeprefix("an ") for phrase in found}
            assert found == set(said.phrases), said.caption
    assert families == {"list", "attributes", *BETWEEN}


# ---- one of several alike, told by a landmark ----------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_relation_picks_one_of_several_by_its_side(annotations, language: str) -> None:
    alike = 0
    for i, annotated in enumerate(annotations):
        dice = Dice("side", language, i)
        said = relation(annotated, language, dice, width=WIDTH, unnamed=UNNAMED)
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


def gap_by_hand(a: Thing, b: Thing) -> float:
    """Smallest distance between any two points of two boxes, tried out on a grid of a pixel."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = a.box, b.box
    across = min(abs(x - u) for x in np.arange(x0, x1 + 1) for u in np.arange(u0, u1 + 1))
    down = min(abs(y - v) for y in np.arange(y0, y1 + 1) for v in np.arange(v0, v1 + 1))
    return float(np.hypot(across, down))


def test_a_pair_differs_in_its_landmark_and_in_what_it_means() -> None:
    """So a rule that does not read the landmark is wrong in one of the two."""
    first = []
    for seed, language in product(range(120), LANGUAGES):
        annotated, dice = annotated_herd(seed, few=True), Dice("near", language, seed)
        pair = near_pair(annotated, language, dice, width=WIDTH, unnamed=UNNAMED)
        if not pair:
            continue
        one, other = pair
        assert one.phrases[0] == other.phrases[0]
        assert one.words[0] == other.words[0]
        assert one.things[0] != other.things[0]
        assert one.things[1] != other.things[1]
        rests = [s.caption.replace(s.phrases[1], "", 1) for s in pair]
        assert rests[0] == rests[1]
        a, b = (annotated.things[s.things[0][0]] for s in pair)
        assert a.look == b.look
        first.append(a.middle < b.middle)
        for said in pair:
            ((target,), (anchor,)) = said.things
            mark, alike = annotated.things[anchor], set(annotated.meant(said.words[0])) - {anchor}
            gaps = {i: gap_by_hand(annotated.things[i], mark) for i in alike}
            assert gaps[target] <= 0.25 * WIDTH
            assert min(gaps[i] for i in alike - {target}) - gaps[target] >= 0.08 * WIDTH
            assert annotated.meant(said.words[1]) == (anchor,)
            assert any(word in said.caption for word in (" near ", " by ", "旁边", "附近"))
    assert len(first) > 20
    assert 0.25 < sum(first) / len(first) < 0.75  # neither is first by habit


@pytest.mark.parametrize(
    ("other", "apart", "told"),
    [
        ("sheep lying white", 30, True),
        ("sheep lying white", 50, False),  # more than a quarter of the width
        # Animals that drink are near troughs: who knows that need not look where the trough is.
        ("goat lying white", 30, False),
        ("sheep eating white", 30, False),
        ("sheep lying black", 30, False),
    ],
)
def test_what_looks_alike_is_told_apart_by_its_place_alone(other: str, apart: int, told: bool):
    looks = ("sheep lying white", "trough  ", other, "barn  ")
    places = (0.0, 9.0 + apart, 150.0, 159.0 + apart)
    things = [
        Thing(*look.split(" "), (x, 0.0, x + 9, 9.0)) for look, x in zip(looks, places, strict=True)
    ]
    annotated = Annotations(tuple(things), ())
    assert told == any(near_pair(annotated, "en", Dice(i), width=WIDTH) for i in range(20))
