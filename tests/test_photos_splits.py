"""Splits: groups and near-duplicates stay together, classes in proportion, the same everywhere."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cliplab.data import SPLITS, Sample, SampleSet, read_photos
from cliplab.data.sample_set import _similar, print_of
from cliplab.pasture.dataset import portraits

ROOT = Path("/nowhere")


def said(found: SampleSet) -> tuple[str, ...]:
    return tuple(map(str, found.problems))


def named(counts: Mapping[str, int], per_group: int = 1, files: int = 1) -> SampleSet:
    """Photos that exist by name only, `per_group` of them in each group of a class."""
    return SampleSet.of(
        (
            Sample(ROOT / f"{label}{i // files}.jpg", label, None, f"{label}{i // per_group}")
            for label, count in counts.items()
            for i in range(count)
        ),
        ROOT,
    )


def table(found: SampleSet) -> dict[str, list[int]]:
    """Class -> photos in train, val and test."""
    counts = Counter((photo.label, photo.split) for photo in found)
    return {name: [counts[name, split] for split in SPLITS] for name in found.class_names}


def of(found: SampleSet) -> dict[str, str | None]:
    return {photo.name: photo.split for photo in found}


# ---- dealing ---------------------------------------------------------------------------------


def test_classes_are_shared_out_in_proportion() -> None:
    found = named({"sheep": 100, "goat": 10, "cow": 7}).with_splits()
    assert table(found) == {"sheep": [60, 20, 20], "goat": [6, 2, 2], "cow": [4, 1, 2]}
    assert said(found) == ()
    two = named({"sheep": 10, "goat": 5}).with_splits({"train": 0.8, "test": 0.2})
    assert table(two) == {"sheep": [8, 0, 2], "goat": [4, 0, 1]}


def test_splits_are_the_same_everywhere() -> None:
    """Written down once: another machine, Python or run must give the same."""
    found = named({"sheep": 10}).with_splits(seed=0)
    got = "".join(str(photo.split)[1] for photo in found)  # r, a, e
    assert got == "arrrearerr"
    other = named({"sheep": 10}).with_splits(seed=1)
    assert of(other) != of(found)
    assert table(other) == table(found)


def test_groups_stay_together_in_whatever_order() -> None:
    found = named({"sheep": 60, "goat": 45}, per_group=5)
    turned = SampleSet.of(found.samples[::-1], ROOT).with_splits(seed=1)
    splits = {(photo.group, photo.split) for photo in found.with_splits(seed=1)}
    assert len(splits) == 12 + 9
    assert {(photo.group, photo.split) for photo in turned} == splits
    # 12 groups of sheep and 9 of goats, as near to 60, 20, 20 % as groups of 5 permit
    assert table(turned) == {"sheep": [35, 10, 15], "goat": [25, 10, 10]}


@pytest.mark.parametrize("named_groups", [False, True])
def test_boxes_of_a_file_stay_together_but_for_named_groups(named_groups: bool) -> None:
    """The owner of a flock picture told its animals apart, and wants a split by animal."""
    photos = [
        Sample(
            ROOT / f"{f}.jpg", "sheep", (0, 0, 5 + a, 5), f"animal {a}" if named_groups else None
        )
        for f in range(5)
        for a in range(5)
    ]
    found = SampleSet.of(photos, ROOT).with_splits()
    parts = {(one.group if named_groups else one.path, one.split) for one in found}
    assert len(parts) == 5
    assert found.splits == {"train": 15, "val": 5, "test": 5}


@pytest.mark.parametrize(
    ("groups", "row"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (4, [2, 1, 1])]
)
def test_small_classes_reach_as_many_splits_as_they_have_groups(groups: int, row: list) -> None:
    found = named({"sheep": 20, "rare": groups}).with_splits()
    assert table(found)["rare"] == row
    lacking = [split for split, count in zip(SPLITS, row, strict=True) if not count]
    remark = f"classes that a split lacks (1): rare ({', '.join(lacking)})"
    assert said(found) == ((remark,) if lacking else ())


def test_a_class_with_one_group_is_trained_on_even_if_train_is_small() -> None:
    found = named({"sheep": 20, "rare": 4}, per_group=4).with_splits({"train": 0.2, "test": 0.8})
    assert table(found)["rare"] == [4, 0, 0]


def test_the_largest_groups_are_dealt_first() -> None:
    photos = [*named({"sheep": 10}).samples, *named({"goat": 10}, per_group=10).samples]
    same = SampleSet.of((Sample(p.path, "sheep", None, p.group) for p in photos), ROOT)
    assert same.with_splits({"train": 0.5, "test": 0.5}).splits == {"train": 10, "test": 10}


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.5, "val": 0.2},
        {"train": 0.9, "valid": 0.1},
        {"train": 1.5, "test": -0.5},
        {"train": float("nan"), "test": 1},
        {},
    ],
)
def test_impossible_fractions(fractions: dict[str, float]) -> None:
    match = (
        r"fractions: got \{.*\}; expected shares of train, val, test from 0 to 1, which sum to 1"
    )
    with pytest.raises(ValueError, match=match):
        named({"sheep": 10}).with_splits(fractions)


def test_too_few_groups() -> None:
    match = r"nothing left for val: 8 pictures are 2 groups .* the largest has 4: sheep0\.jpg"
    with pytest.raises(ValueError, match=match):
        named({"sheep": 8}, per_group=4).with_splits()
    with pytest.raises(ValueError, match="nothing left for val and test: 2 pictures are 2 groups"):
        named({"sheep": 1, "goat": 1}).with_splits()
    assert len(SampleSet.of([], ROOT).with_splits()) == 0
    assert named({"sheep": 1}).with_splits({"train": 1.0, "val": 0, "test": 0}).splits == {
        "train": 1
    }


# ---- keeping old splits --------------------------------------------------------------------------


def test_given_splits_stay_and_the_rest_makes_up_for_them() -> None:
    photos = named({"sheep": 10}).samples
    given = [Sample(p.path, p.label, None, p.group, "test") for p in photos[:2]]
    found = SampleSet.of([*given, *photos[2:]], ROOT).with_splits()
    assert [photo.split for photo in found][:2] == ["test", "test"]
    assert found.splits == {"train": 6, "val": 2, "test": 2}
    assert found.with_splits(seed=9) == found


def test_new_pictures_move_no_old_one() -> None:
    old = named({"sheep": 20, "goat": 12}).with_splits()
    more = named({"sheep": 33, "goat": 18, "cow": 9})
    found = more.with_splits(previous=old)
    assert {name: of(found)[name] for name in of(old)} == of(old)
    assert table(found) == {"sheep": [20, 6, 7], "goat": [11, 3, 4], "cow": [5, 2, 2]}
    assert of(more.with_splits()) != of(found)  # what would have happened without


def test_new_photos_of_an_old_group_follow_it() -> None:
    old = named({"sheep": 20}, per_group=2).with_splits()
    more = named({"sheep": 40}, per_group=4)  # sheep0 to sheep3 are now one animal
    found = more.with_splits(previous=old)
    assert {name: of(found)[name] for name in of(old)} == of(old)
    assert any("straddle the given splits" in problem for problem in said(found))


# ---- near-duplicates ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 portraits in class folders; every third also re-saved, smaller and darker."""
    root = tmp_path_factory.mktemp("herd")
    pictures = portraits("train", 36, size=96)
    for i, (image, example) in enumerate(zip(pictures.pil(), pictures.examples, strict=True)):
        folder = root / example.combo.posture
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{i}.png")
        if i % 3 == 0:
            darker = ImageEnhance.Brightness(image.resize((80, 80))).enhance(0.85)
            darker.save(folder / f"{i}_copy.jpg", quality=60)
    return root


def test_near_duplicates_never_straddle(herd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_photos(herd).with_splits(seed=1)
    splits = of(found)
    pairs = [(name, name.replace("_copy.jpg", ".png")) for name in splits if "_copy" in name]
    assert len(pairs) == 12
    assert [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]] == []
    assert "near-duplicates, kept in one split (12): " in said(found)[-1]
    monkeypatch.setattr("cliplab.data.sample_set.near_pairs", lambda _: ())
    apart = of(read_photos(herd).with_splits(seed=1))
    assert any(apart[a] != apart[b] for a, b in pairs)  # else this test could not fail


def test_manifest_fixes_the_splits_for_good(herd: Path, tmp_path: Path) -> None:
    before = read_photos(herd).with_splits()
    path = before.write_manifest(tmp_path / "splits.csv")
    assert [photo.split for photo in read_photos(path)] == [photo.split for photo in before]
    lines = path.read_text(encoding="utf-8").splitlines()
    for i in (3, 9):
        lines[i] = lines[i].rpartition(",")[0] + ","  # its split is empty
    path.write_text("\n".join(lines), encoding="utf-8")
    again = read_photos(path).with_splits()
    kept = [i for i in range(len(before)) if i + 1 not in (3, 9)]
    assert [again[i].split for i in kept] == [before[i].split for i in kept]
    assert None not in of(again).values()


def test_similar_prints() -> None:
    images = portraits("val", 40, size=64).pil()
    assert list(_similar([print_of(image) for image in images])) == []
    for change in (
        lambda image: image.resize((40, 40)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.crop((1, 1, 63, 63)).resize((64, 64)),
    ):
        pairs = list(_similar([print_of(image) for image in [*images, *map(change, images)]]))
        assert set(pairs) <= {(i, i + 40) for i in range(40)}
        assert len(pairs) >= 38


def test_flat_pictures_are_told_apart_by_their_colour() -> None:
    greys = [Image.new("RGB", (20, 20), (v, v, v)) for v in (0, 0, 2, 128, 255)]
    assert sorted(_similar([print_of(image) for image in greys])) == [(0, 1), (0, 2)]


def test_many_equal_prints_are_joined_without_comparing_each_pair() -> None:
    found = print_of(Image.new("RGB", (9, 9)))
    pairs = list(_similar([found] * 20_000))
    assert pairs == [(0, i) for i in range(1, 20_000)]


def test_all_rows_of_a_long_list_are_compared() -> None:
    """More prints than one block of rows holds."""
    values = np.random.default_rng(0).integers(0, 256, (700, 8, 9), dtype=np.uint8)
    images = [Image.fromarray(v).convert("RGB").resize((32, 32), 0) for v in values]
    images[650], images[699] = images[3].resize((64, 64)), images[300].resize((30, 30))
    assert set(_similar([print_of(image) for image in images])) >= {(3, 650), (300, 699)}
