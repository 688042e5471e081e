"""Class folders, flat folders and split folders; one door that recognises what it is given."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from photos_world import told, tree

from cliplab.data import Sample, SampleSet, read_photos, read_pictures


def touch(root: Path, *names: str, **texts: str) -> Path:
    """Empty files: what is read of a folder is their names."""
    texts = {name.replace("_", "."): text for name, text in texts.items()}
    return tree(root, dict.fromkeys(names, b"") | texts)


# ---- a photo, a set --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "colours"),
    [
        (None, (40, 20), 2),
        ((20, 5, 40, 15), (20, 10), 1),
        ((9.6, 4.6, 20.4, 10.4), (10, 5), 1),  # to the nearest border
        ((35, 15, 400, 200), (5, 5), 1),
        ((10.1, 3, 10.3, 4), (1, 1), 1),  # less than a pixel is still one
    ],
)
def test_a_photo_opens_whole_or_cut(
    tmp_path: Path, box: Any, size: tuple[int, int], colours: int
) -> None:
    sample = Sample(tree(tmp_path, {"a.png": "blue"}) / "a.png", box_xyxy=box)
    assert (sample.open().size, sample.size, sample.name) == (size, (40, 20), "a.png")
    assert len(sample.open().getcolors()) == colours


def test_a_set_counts_labels_and_selects() -> None:
    rows = [("a", "sheep", "train"), ("b", "goat", "test"), ("c", None, "train")]
    samples = (Sample(Path(f"/x/{n}.png"), la, split=s) for n, la, s in rows)
    found = SampleSet.of(samples, Path("/x"))
    assert (found.class_names, found.labels) == (("goat", "sheep"), [1, 0, None])
    assert (len(found), found.splits) == (3, {"train": 2, "test": 1})
    train = found.select("train")
    assert (train.labels, train.class_names) == ([1, None], found.class_names)
    assert len(found.select("val")) == 0
    with pytest.raises(ValueError, match="unknown split 'tst'; did you mean 'test'"):
        found.select("tst")


# ---- folders ---------------------------------------------------------------------------------


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "sheep/b.jpg", "sheep/farm 2/old/a.jpg", "羊/1.png", "goat/g.webp", "notes.txt")
    found = read_photos(tmp_path)
    assert told(found) == [
        ("goat/g.webp", "goat"),
        ("sheep/b.jpg", "sheep"),
        ("sheep/farm 2/old/a.jpg", "sheep"),
        ("羊/1.png", "羊"),
    ]
    assert (found.class_names, found.root) == (("goat", "sheep", "羊"), tmp_path)
    assert found[1].path == tmp_path / "sheep" / "b.jpg"


def test_pictures_beside_class_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sheep/b.jpg", "goat/c.jpg")
    match = r"1 pictures \(a\.jpg\) lie beside the class folders goat, sheep; expected all"
    with pytest.raises(ValueError, match=match):
        read_photos(tmp_path)
    names = [("a.jpg", None), ("goat/c.jpg", None), ("sheep/b.jpg", None)]
    assert told(read_pictures(tmp_path, kind="folder")) == names


@pytest.mark.parametrize("val", ["valid", "Validation", "验证集"])
def test_split_folders_fix_the_splits(tmp_path: Path, val: str) -> None:
    touch(tmp_path, "train/x/a.jpg", f"{val}/x/b.jpg", "test/x/1/c.jpg", "test/goat/d.jpg")
    found = read_photos(tmp_path)
    assert {(Path(n).name, label, split) for n, label, split in told(found)} == {
        ("a.jpg", "x", "train"),
        ("b.jpg", "x", "val"),
        ("c.jpg", "x", "test"),
        ("d.jpg", "goat", "test"),
    }
    said = [str(problem) for problem in found.problems]
    assert "classes that a split lacks (1): goat (train, val)" in said


def test_splits_beside_other_folders_are_refused_but_a_class_may_be_a_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg", "bus/a.jpg", "bus/b.jpg")
    assert read_photos(tmp_path).class_names == ("bus", "train")
    touch(tmp_path, "test/c.jpg")
    match = r"got the splits test, train beside other folders \(bus\); expected either"
    with pytest.raises(ValueError, match=match):
        read_photos(tmp_path)


def test_labels_of_macos_are_composed(tmp_path: Path) -> None:
    found = read_photos(touch(tmp_path, "e\u0301/a.jpg", "b/a.jpg"))
    assert "\u00e9" in found.class_names


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not text")
def test_names_that_are_not_text_are_shown_and_opened(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    tree(folder, {"a.png": "red"})
    (found,) = read_photos(tmp_path)
    assert (found.name, found.label) == ("\ufffd/a.png", "\ufffd")
    assert found.open().size == (40, 20)
    with pytest.raises(ValueError, match="its path is not text in UTF-8; rename the file"):
        read_photos(tmp_path).write_manifest(tmp_path / "m.csv")


# ---- recognising -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        ("absent", {}, "absent: no such file or folder; check the name"),
        ("x/a.png", {}, r"a\.png: a single picture; expected a folder of pictures"),
        ("a.docx", {}, r"a file of no known kind; .*CSV manifest .*COCO .*YOLO"),
        ("x", {"kind": "cocoo"}, "unknown kind 'cocoo'; did you mean 'coco'"),
        ("empty", {}, r"no images in .*empty, looked for \.jpg, .*; add some"),
        ("empty", {"kind": "csv"}, r"\(none\); expected one file or kind \(csv\)"),
        ("x/a.png", {"kind": "folder"}, "no table and no boxes; expected a folder of pictures"),
        ("mixed", {}, r"got the labels labels\.csv, classes\.txt; expected one file or kind"),
        ("t.csv", {"boxes": "t.csv"}, "goes with a folder of pictures as the source"),
        ("x", {"boxes": "b.json"}, r"b\.json: no such file or folder"),
        ("x", {"box_scale": 1.5}, r"box_scale: got 1\.5, .* no boxes; drop it"),
        ("x", {"box_scale": -1}, "box_scale: got -1; expected a number above 0"),
        ("raw", {}, r"no images in .* but 2 such as .*, which are not, looked"),
    ],
)
def test_sources_that_are_nothing_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path, {"x/a.png": "red"})
    touch(tmp_path, "a.docx", "mixed/a.jpg", "mixed/labels/a.txt", "raw/a.CR2", "raw/b.jxl")
    touch(tmp_path / "mixed", labels_csv="image,label\na.jpg,x\n", classes_txt="x\n")
    touch(tmp_path, t_csv="image\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        read_photos(where, **options)
    assert read_photos("mixed", kind="csv").labels == [0]


def test_results_and_lists_among_pictures_are_not_taken_for_labels(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "y/c.jpg", "y/d.jpg", classes_txt="x\ny\n")
    touch(tmp_path, scores_csv="file,predicted\nx/a.jpg,y\n", results_json='{"images": 4}')
    assert read_photos(tmp_path).labels == [0, 0, 1, 1]
