"""The pasture: the same world from the same seed, labels that are true, captions that are too."""

import hashlib
import json
import re
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from cliplab.pasture import (
    COLOURS,
    COMBOS,
    HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES,
    POSTURES,
    SEEN_COMBOS,
    SEMANTIC_CLASSES,
    SPECIES,
    Scene,
    animal_caption,
    caption,
    class_phrase,
    draw,
    herd,
    labels,
    portrait,
)
from cliplab.pasture.captions import lexicon
from cliplab.pasture.dataset import crops
from cliplab.pasture.scene import SPLITS, Dice, combo_group

# ---- scenes --------------------------------------------------------------------------------


def fingerprint(scenes: list[Scene]) -> str:
    text = json.dumps([asdict(s) for s in scenes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_seed_is_the_same_scene_on_every_platform() -> None:
    # Written down once; a change of it is a change of every shipped model's world.
    assert fingerprint([portrait(s) for s in range(50)]) == "ecde94278b832143"
    assert fingerprint([herd(s, split="test") for s in range(50)]) == "0767ef3fbcfb9f2c"


def test_held_out_is_twelve_triples_and_two_pairs() -> None:
    groups = [combo_group(c) for c in COMBOS]
    assert (groups.count("triple"), groups.count("pair"), groups.count("seen")) == (12, 8, 60)
    assert set(HELD_OUT_PAIRS) == {("sheep", "lying"), ("horse", "eating")}
    assert not {(c.species, c.posture) for c in HELD_OUT_TRIPLES} & set(HELD_OUT_PAIRS)


def test_every_value_is_still_seen_with_most_others() -> None:
    for field, values in (("species", SPECIES), ("posture", POSTURES), ("colour", COLOURS)):
        for value in values:
            assert sum(getattr(c, field) == value for c in SEEN_COMBOS) >= 9, value


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_never_shows_a_held_out_kind(split: str) -> None:
    shown = {a.combo for s in range(300) for a in herd(s, split=split).animals}
    shown |= {portrait(s, split=split).animals[0].combo for s in range(600)}
    assert {combo_group(c) for c in shown} == {"seen"}
    assert len(shown) == 60  # and all that may be shown is


def test_splits_share_no_seed() -> None:
    seeds = list(SPLITS.values())
    assert all(a.stop <= b.start for a, b in pairwise(seeds))
    assert portrait(3, split="test") != portrait(3, split="train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset'"),
        ({"weather": "hail"}, "unknown weather 'hail'; expected one of sunny"),
        ({"combos": [("pig", "lying", "white")]}, "expected .species, posture, colour."),
        ({"combos": []}, "none given"),
        ({"seed": 10_000_000, "split": "val"}, "split 'val' has seeds 0 to 9999999"),
        ({"count": 9}, "expected 1 to 8 animals"),
        ({"combos": [("sheep", "lying", "white")]}, "held out of training: ask for it with split="),
        ({"combos": [("sheep", "lying", "white")], "split": "val"}, "held out of training"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        herd(**{"seed": 0, **options})


def test_dice_are_fair_enough() -> None:
    dice = Dice("test")
    assert np.mean([dice.uniform(0, 1) for _ in range(4000)]) == pytest.approx(0.5, abs=0.02)
    picks = [dice.weighted({"a": 3, "b": 1}) for _ in range(4000)]
    assert picks.count("a") / 4000 == pytest.approx(0.75, abs=0.03)
    assert sorted(dice.shuffled(range(9))) == list(range(9))


# ---- pictures and labels -------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 65, 200])
def test_picture_has_the_size_asked_for(size: int) -> None:
    assert draw(portrait(1), size).size == (size, size)
    assert draw(herd(1, aspect=1.5), size).size == (round(size * 1.5), size)


def test_labels_agree_with_the_animals() -> None:
    for seed in range(12):
        scene = herd(seed, split="test")
        found = labels(scene, 96)
        assert found.semantic.shape == found.instance.shape == (96, 128)
        for i, animal in enumerate(scene.animals):
            mine = found.instance == i + 1
            names = {SEMANTIC_CLASSES[c] for c in np.unique(found.semantic[mine])}
            assert names <= {animal.species}
            if mine.any():
                x0, y0, x1, y1 = found.boxes_xyxy[i]
                assert mine[y0:y1, x0:x1].sum() == mine.sum()  # nothing outside the box
                assert mine[y0, x0:x1].any()  # and the box is tight
                assert mine[y1 - 1, x0:x1].any()
                assert mine[y0:y1, x0].any()
                assert mine[y0:y1, x1 - 1].any()
        of_animals = np.isin(found.semantic, [SEMANTIC_CLASSES.index(s) for s in SPECIES])
        assert (of_animals == (found.instance > 0)).all()


def test_labels_lie_where_the_picture_shows_the_animal() -> None:
    # A black animal on snow is dark exactly where its label is.
    scene = portrait(11, split="test", combos=[("cow", "standing", "black")], weather="snowy")
    grey = np.asarray(draw(scene, 128).convert("L"), dtype=float)
    mask = labels(scene, 128).instance == 1
    assert grey[mask].mean() < 90
    ground = labels(scene, 128).semantic == SEMANTIC_CLASSES.index("snow")
    assert grey[ground].mean() > 180


def test_occlusion_is_measured() -> None:
    shares = np.concatenate([labels(herd(s, count=6), 96).visible for s in range(10)])
    assert shares.max() > 0.99
    assert ((shares > 0.05) & (shares < 0.95)).any()  # some animals stand behind others
    assert labels(portrait(0), 64).visible[0] > 0.9  # at most some grass before its lips


def test_every_class_appears_and_none_in_every_picture() -> None:
    seen = [set(np.unique(labels(herd(s), 48).semantic)) for s in range(80)]
    for i, name in enumerate(SEMANTIC_CLASSES):
        share = np.mean([i in classes for classes in seen])
        assert 0.02 < share < 0.98, name


# ---- captions ------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_say_only_what_is_there(language: str) -> None:
    words = {
        "en": {w: w for w in (*SPECIES, *COLOURS)},
        "zh": {"sheep": "羊", "goat": "山羊", "cow": "牛", "dog": "狗", "horse": "马",
               "white": "白", "black": "黑", "brown": "棕", "spotted": "花"},
    }[language]  # fmt: skip
    for seed in range(400):
        scene = portrait(seed)
        animal, text = scene.animals[0], caption(scene, language, seed)
        assert words[animal.species] in text
        # what surrounds the animal has colours too
        clean = re.sub("red barn|green field|blue sky|grey sky|灰色的天空|绿色的田野", "", text)
        assert not any(words[c] in clean for c in COLOURS if c != animal.colour), (
            f"{animal.colour}: {text}"
        )


def test_english_is_grammatical() -> None:
    for seed in range(400):
        for scene in (portrait(seed), herd(seed)):
            text = caption(scene, "en", seed)
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | a$", text), text
            assert not re.search(r"\bis (two|three|four|five|six)\b|are a \w+$", text), text
            assert not re.search(r"\b(two|three|four|five|six) (goat|cow|dog|horse)\b", text), text


def test_captions_vary_and_repeat_with_their_variant() -> None:
    scene = portrait(7)
    for language in ("en", "zh"):
        texts = [caption(scene, language, v) for v in range(60)]
        assert len(set(texts)) > 25
        assert texts == [caption(scene, language, v) for v in range(60)]


def test_some_captions_are_bare_and_full_ones_are_not() -> None:
    bare = [caption(portrait(s), "en", 1) for s in range(400)]
    assert any(re.fullmatch(r"a photo of a \w+", text) for text in bare)
    scene = next(s for s in map(portrait, range(50)) if s.props and s.backdrop == "hills")
    full = caption(scene, "en", facts="all")
    assert scene.animals[0].colour in full
    assert len(full.split()) > 6


def test_the_lexicon_covers_every_caption() -> None:
    english, chinese = {w for p in lexicon("en") for w in p.split()}, set("".join(lexicon("zh")))
    for seed in range(500):
        for scene in (portrait(seed), herd(seed)):
            words = set(re.findall(r"\w+|,", caption(scene, "en", seed)))
            assert words <= english, words - english
            assert set(caption(scene, "zh", seed)) <= chinese
    for s, p, c in COMBOS:
        assert set(class_phrase(species=s, posture=p, colour=c, language="zh")) <= chinese


def test_class_phrases() -> None:
    assert class_phrase(species="sheep", posture="lying") == "sheep lying down"
    assert class_phrase(species="goat", colour="white") == "white goat"
    assert class_phrase(species="sheep", posture="lying", language="zh") == "躺着的羊"
    goat = {"species": "goat", "posture": "eating", "colour": "black"}
    assert class_phrase(**goat, language="zh") == "进食的黑色山羊"
    with pytest.raises(ValueError, match="at least one"):
        class_phrase()
    with pytest.raises(ValueError, match="unknown language 'fr'"):
        class_phrase(species="sheep", language="fr")


# ---- data sets -----------------------------------------------------------------------------


def test_crops_show_the_animal_they_name() -> None:
    made = crops("train", 12, size=48)
    assert made.images.shape == (12, 48, 48, 3)
    for example in made.examples:
        species = example.scene.animals[example.index].species
        assert example.combo.species == species
        assert species in animal_caption(example.scene, example.index)
        assert labels(example.scene, 176).visible[example.index] >= 0.5
