"""Class folders, flat folders and split folders; one door that recognises what it is given."""

import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from cliplab.data import (
    Sample,
    SampleSet,
    UnreadableImage,
    list_images,
    open_image,
    read_photos,
    read_unlabelled,
)
from cliplab.data.files import read_header


def said(found: SampleSet) -> tuple[str, ...]:
    return tuple(map(str, found.problems))


def picture(path: Path, size: tuple[int, int] = (8, 6), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def touch(root: Path, *names: str) -> Path:
    """Empty files: what is read of a folder is their names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def told(found: SampleSet) -> list[tuple[str, str | None, str | None]]:
    return [(photo.name, photo.label, photo.split) for photo in found]


def remark(found: SampleSet, about: str) -> str:
    (sentence,) = [problem for problem in said(found) if about in problem]
    return sentence


# ---- one photo -------------------------------------------------------------------------------


def quarters(path: Path) -> Path:
    """40 x 20: left half red, right half blue."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    image.save(path)
    return path


def test_photo_opens_whole_or_cut(tmp_path: Path) -> None:
    path = quarters(tmp_path / "a.png")
    assert Sample(path).open().size == (40, 20)
    cut = Sample(path, box_xyxy=(20, 5, 40, 15)).open()
    assert cut.size == (20, 10)
    assert cut.getcolors() == [(200, (0, 0, 255))]
    assert Sample(path).name == "a.png"


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((9.6, 0, 20.4, 20), (10, 20)),  # to the nearest border
        ((-5, -5, 3, 3), (3, 3)),
        ((35, 15, 400, 200), (5, 5)),
        ((10.1, 3, 10.3, 4), (1, 1)),  # less than a pixel is still one
        ((39.8, 19.8, 41, 41), (1, 1)),
    ],
)
def test_boxes_are_rounded_and_clipped(
    tmp_path: Path, box: tuple[float, ...], size: tuple[int, int]
) -> None:
    assert Sample(quarters(tmp_path / "a.png"), box_xyxy=box).open().size == size


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (1, 2, float("nan"), 4), (1, 2, float("inf"), 4), (5, 0, 5, 4), (0, 5, 9, 4)]
)
def test_impossible_boxes_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Sample(Path("a.png"), box_xyxy=box)


# ---- a set -------------------------------------------------------------------------------


def some_photos() -> SampleSet:
    rows = [("a", "sheep", "train"), ("b", "goat", "test"), ("c", None, "train")]
    return SampleSet.of((Sample(Path(f"/x/{n}.png"), la, split=s) for n, la, s in rows), Path("/x"))


def test_set_counts_labels_and_selects() -> None:
    found = some_photos()
    assert found.class_names == ("goat", "sheep")
    assert found.labels == [1, 0, None]
    assert (len(found), found.splits) == (3, {"train": 2, "test": 1})
    assert [photo.path.stem for photo in found] == ["a", "b", "c"]
    train = found.select("train")
    assert train.labels == [1, None]
    assert train.class_names == found.class_names  # so that an index means the same everywhere
    assert len(found.select("val")) == 0
    assert found[1].label == "goat"
    assert found[1:].labels == [0, None]
    with pytest.raises(ValueError, match=r"no photo of /x has a split; call with_splits\(\)"):
        SampleSet.of([Sample(Path("/x/a.png"))], Path("/x")).select("train")


# ---- folders ---------------------------------------------------------------------------------


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "sheep/b.jpg", "sheep/farm 2/old/a.jpg", "羊/1.png", "goat/g.webp", "notes.txt")
    found = read_photos(tmp_path)
    assert told(found) == [
        ("goat/g.webp", "goat", None),
        ("sheep/b.jpg", "sheep", None),
        ("sheep/farm 2/old/a.jpg", "sheep", None),
        ("羊/1.png", "羊", None),
    ]
    assert found.class_names == ("goat", "sheep", "羊")
    assert found.root == tmp_path
    assert found[1].path == tmp_path / "sheep" / "b.jpg"
    assert "single picture, which only one split can have (2): goat, 羊" in said(found)[0]


def test_pictures_beside_class_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sheep/b.jpg", "goat/c.jpg")
    match = r"1 pictures \(a\.jpg\) lie beside the class folders goat, sheep; expected all"
    with pytest.raises(ValueError, match=match):
        read_photos(tmp_path)
    assert told(read_unlabelled(tmp_path)) == [
        (name, None, None) for name in ("a.jpg", "goat/c.jpg", "sheep/b.jpg")
    ]


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "验证集"])
def test_split_folders_fix_the_splits(tmp_path: Path, val: str) -> None:
    touch(
        tmp_path, "train/sheep/a.jpg", f"{val}/sheep/b.jpg", "test/sheep/x/c.jpg", "test/goat/d.jpg"
    )
    found = read_photos(tmp_path)
    assert {(Path(n).name, label, split) for n, label, split in told(found)} == {
        ("a.jpg", "sheep", "train"),
        ("b.jpg", "sheep", "val"),
        ("c.jpg", "sheep", "test"),
        ("d.jpg", "goat", "test"),
    }
    assert remark(found, "a split lacks").endswith("(1): goat (train, val)")


def test_splits_beside_other_folders_are_refused_but_a_class_may_be_a_train(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "train/b.jpg", "bus/a.jpg", "bus/b.jpg")
    assert read_photos(tmp_path).class_names == ("bus", "train")
    touch(tmp_path, "test/c.jpg")
    match = r"got the splits test, train beside other folders \(bus\); expected either"
    with pytest.raises(ValueError, match=match):
        read_photos(tmp_path)


def test_folders_that_look_like_mistakes_are_remarked_on(tmp_path: Path) -> None:
    touch(tmp_path, "Sheep/a.jpg", "Sheep/b.jpg", "sheep/c.jpg", "sheep/d.jpg")
    (tmp_path / "goat" / "deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    found = read_photos(tmp_path)
    if len(found.class_names) == 2:  # not where file systems fold case
        assert remark(found, "upper and lower case").endswith("(2): Sheep, sheep")
    assert remark(found, "without pictures") == "folders without pictures (1): goat"


def test_labels_of_macos_are_composed(tmp_path: Path) -> None:
    found = read_photos(touch(tmp_path, "e\u0301/a.jpg", "b/a.jpg"))
    assert "\u00e9" in found.class_names


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:  # Windows without the right to
        pytest.skip("no symbolic links")


def test_links_are_followed_but_nothing_is_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path, "pool/x/1.jpg", "set/goat/2.jpg")
    link(tmp_path / "set" / "sheep", tmp_path / "pool" / "x")
    link(tmp_path / "set" / "goat" / "round", tmp_path / "set")  # a loop
    link(tmp_path / "set" / "a", tmp_path / "set" / "goat")  # one of those that are listed
    link(tmp_path / "set" / "itself", tmp_path / "set" / "itself")
    link(tmp_path / "set" / "goat" / "gone.jpg", tmp_path / "nowhere.jpg")
    names = [
        path.relative_to(tmp_path / "set").as_posix() for path in list_images(tmp_path / "set")
    ]
    assert names == ["goat/2.jpg", "sheep/1.jpg"]
    assert read_photos(tmp_path / "set").class_names == ("goat", "sheep")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not text")
def test_names_that_are_not_text_are_shown_and_opened(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    picture(folder / "a.png")
    (found,) = read_photos(tmp_path)
    assert (found.name, found.label) == ("\ufffd/a.png", "\ufffd")
    assert found.open().size == (8, 6)
    with pytest.raises(ValueError, match="its path is not text in UTF-8; rename the file"):
        read_photos(tmp_path).write_manifest(tmp_path / "m.csv")


# ---- recognising -----------------------------------------------------------------------------


def test_sources_that_are_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder; check the name"):
        read_photos(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"a\.png: a single picture; expected a folder of class"):
        read_photos(picture(tmp_path / "a.png"))
    touch(tmp_path, "a.docx")
    with pytest.raises(ValueError, match=r"a file of no known kind; .*CSV manifest .*COCO .*YOLO"):
        read_photos(tmp_path / "a.docx")
    with pytest.raises(ValueError, match="unknown kind 'cocoo'; did you mean 'coco'"):
        read_photos(tmp_path, kind="cocoo")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*empty, looked for \.jpg, .*; add some"):
        read_photos(tmp_path / "empty")
    for kind in ("csv", "coco"):
        with pytest.raises(ValueError, match=rf"\(none\); expected one file or kind \({kind}\)"):
            read_photos(tmp_path / "empty", kind=kind)
    with pytest.raises(ValueError, match="no table and no boxes; expected a folder of class"):
        read_photos(tmp_path / "a.png", kind="folder")


def test_labels_of_several_kinds_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "labels/a.txt")
    (tmp_path / "labels.csv").write_text("image,label\na.jpg,x\n", encoding="utf-8")
    (tmp_path / "classes.txt").write_text("x\n", encoding="utf-8")
    match = r"got the labels labels\.csv, classes\.txt; expected one file or kind"
    with pytest.raises(ValueError, match=match):
        read_photos(tmp_path)
    assert read_photos(tmp_path, kind="csv").labels == [0]


def test_boxes_belong_to_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "t.csv")
    with pytest.raises(ValueError, match="goes with a folder of pictures as the source"):
        read_photos(tmp_path / "t.csv", boxes=tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match=r"b\.json: no such file or folder"):
        read_photos(tmp_path, boxes=tmp_path / "b.json")
    for scale, message in ((1.5, "no boxes; drop it"), (-1, "expected a number above 0")):
        with pytest.raises(ValueError, match=rf"box_scale: got {scale}.* {message}"):
            read_photos(tmp_path, kind="folder", box_scale=scale)


def test_results_among_pictures_are_not_taken_for_labels(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "y/c.jpg", "y/d.jpg")
    (tmp_path / "scores.csv").write_text("file,predicted\nx/a.jpg,y\n", encoding="utf-8")
    (tmp_path / "results.json").write_text('{"images": 4}', encoding="utf-8")
    assert read_photos(tmp_path).labels == [0, 0, 1, 1]


def test_a_list_of_classes_beside_class_folders_is_no_yolo(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/b.jpg", "y/c.jpg", "y/d.jpg")
    (tmp_path / "classes.txt").write_text("x\ny\n", encoding="utf-8")
    assert read_photos(tmp_path).labels == [0, 0, 1, 1]


# ---- reading in threads ----------------------------------------------------------------------


def test_threads_share_the_guards_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_MAX_PIXELS", "3000")
    paths = [picture(tmp_path / f"{i}.png", (60 + i, 40)) for i in range(40)]
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    barrier = threading.Barrier(8)

    def read(i: int) -> tuple[int, int] | str:
        if i < 8:
            barrier.wait(10)  # all at once
        try:
            return open_image(paths[i % 40]).size
        except UnreadableImage as error:
            return error.cause

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(200)))
    assert found == [
        "it has more than 3,000 pixels, as bombs do" if i % 40 > 15 else (60 + i % 40, 40)
        for i in range(200)
    ]
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_header_tells_the_upright_size(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    header = read_header(path)
    assert header.size == open_image(path).size == ((8, 6) if orientation < 5 else (6, 8))
    assert (header.stored, header.orientation) == ((8, 6), orientation)


def test_small_pictures_are_guarded_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "red").save(tmp_path / "a.jpg", exif=exif)
    small = open_image(tmp_path / "a.jpg", side=64)
    assert small.size == (100, 200)  # an eighth, turned
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(UnreadableImage, match="the file is empty"):
        open_image(tmp_path / "b.jpg", side=64)
    with pytest.raises(UnreadableImage, match="the file is empty"):
        read_header(tmp_path / "b.jpg")
