"""Sentences about herds: every phrase is where its span says, and true of what it means."""

import pytest

from cliplab.detection import read_prompt
from cliplab.pasture import SPECIES, captions, grounding, herd, labels, relations
from cliplab.pasture.captions import class_phrase, noun_phrase
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


@pytest.fixture(scope="module")
def annotations() -> list[Annotations]:
    scenes = [herd(seed) for seed in range(40)]
    return [annotations_of(scene, labels(scene, 128)) for scene in scenes]


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
    assert families.count("near") > len(annotations) / 2  # two about every other picture


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_never_names_what_is_held_out(
    annotations: list[Annotations], language: str
) -> None:
    names = {say(Words(species), language) for species in UNNAMED} | {"dog", "horse", "狗", "马"}
    for _, said in prompts(annotations, language):
        assert not any(is_held_out(words) for words in said.words)
        assert not any(name in said.caption for name in names)


def test_unnamed_species_are_spoken_of_as_animals(annotations: list[Annotations]) -> None:
    meant = [
        annotated.things[i].kind
        for annotated, said in prompts(annotations, "en")
        for things in said.things
        for i in things
    ]
    assert set(UNNAMED) < set(meant)


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


def test_lists_hold_classes_that_are_not_there(annotations: list[Annotations]) -> None:
    said = [class_list(s, "en", Dice("absent", i)) for i, s in enumerate(annotations)]
    things = [t for one in said for t in one.things]
    assert 0.2 < sum(not t for t in things) / len(things) < 0.8


def test_a_list_may_speak_of_nothing_that_is_there(annotations: list[Annotations]) -> None:
    """A detector that always finds something true learns that something always is."""
    empty = 0
    for i, annotated in enumerate(annotations):
        said = class_list(annotated, "en", Dice("untrue", i), untrue=1.0)
        assert said.words
        assert not any(said.things) or all(said.things)  # "animal": where nothing can be absent
        empty += not any(said.things)
        assert any(class_list(annotated, "en", Dice("untrue", i)).things)
    assert empty > 0.8 * len(annotations)


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


def test_two_of_a_kind_of_prop_are_not_spoken_of() -> None:
    for seed in range(300):
        scene = herd(seed)
        trees = [prop for prop in scene.props if prop.kind in ("tree", "pine")]
        if len(trees) == 2:
            break
    annotated = annotations_of(scene, labels(scene, 128))
    assert "tree" not in {thing.kind for thing in annotated.things}
    assert "tree" in {thing.kind for thing in annotated.hidden}


def test_boxes_of_props_hold_their_pixels() -> None:
    scene = next(
        s for s in map(herd, range(300)) if [p.kind for p in s.props].count("barn") == 1
    )  # fmt: skip
    found = labels(scene, 128)
    (barn,) = [t for t in annotations_of(scene, found).things if t.kind == "barn"]
    x0, y0, x1, y1 = (int(v) for v in barn.box)
    mask = found.semantic == 6
    assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
    assert mask[y0, x0:x1].any() and mask[y1 - 1, x0:x1].any()  # noqa: PT018
    assert mask[y0:y1, x0].any() and mask[y0:y1, x1 - 1].any()  # noqa: PT018


def test_an_animal_fits_what_leaves_things_open() -> None:
    sheep = Thing("sheep", "lying", "white", (0.0, 0.0, 9.0, 9.0))
    assert sheep.fits(Words())
    assert sheep.fits(Words("sheep", "", "white"))
    assert not sheep.fits(Words("sheep", "standing"))
    assert not sheep.fits(Words("tree"))
    tree = Thing("tree", "", "", (0.0, 0.0, 9.0, 9.0))
    assert tree.fits(Words("tree"))
    assert not tree.fits(Words())  # an animal, whichever


def test_descriptions_say_no_more_than_asked() -> None:
    sheep = Thing("sheep", "lying", "white", (0.0, 0.0, 9.0, 9.0))
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
    with pytest.raises(ValueError, match="unknown language 'fr'"):
        grounding.lexicon("fr")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_user_who_types_what_was_trained_on_means_the_same_phrases(
    annotations, language: str
) -> None:
    families = set()
    for unnamed in (UNNAMED, ()):
        for _, said in prompts(annotations, language, unnamed):
            families.add(said.family)
            found = set(read_prompt(said.caption).phrases)
            if len(found) == 1:  # "a goat" alone is a list of one class, and keeps its article
                found = {phrase.removeprefix("a ").removeprefix("an ") for phrase in found}
            assert found == set(said.phrases), said.caption
    assert families == {"list", "attributes", *BETWEEN}


def test_props_have_names_in_both_languages() -> None:
    for prop in PROPS:
        assert say(Words(prop), "en") == prop
        assert not say(Words(prop), "zh").isascii()
