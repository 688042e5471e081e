"""COCO files and YOLO folders, sound and faulty: each box becomes a crop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliplab.data import Sample, SampleSet, read_photos
from cliplab.data.files import open_image


def said(found: SampleSet) -> tuple[str, ...]:
    return tuple(map(str, found.problems))


def picture(path: Path, size: tuple[int, int] = (40, 20), orientation: int = 1) -> Path:
    """Black, and a red block: columns 10 to 20, rows 5 to 10 of the stored pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    image.paste("red", (10, 5, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, quality=100, subsampling=0)
    return path


def redness(photo: Sample) -> int:
    """Of its least red pixel, 0 to 255."""
    return int(np.asarray(photo.open())[..., 0].min())


def told(found: SampleSet) -> list[tuple[str, str | None, tuple[float, ...] | None]]:
    return [(photo.name, photo.label, photo.box_xyxy) for photo in found]


def kinds(found: SampleSet) -> list[str]:
    return [problem.partition(" (")[0] for problem in said(found)]


# ---- COCO ------------------------------------------------------------------------------------


def coco(*boxes: list[float], **changes: Any) -> dict[str, Any]:
    """One picture a.jpg with boxes of sheep (1) and goats (2) in turn."""
    annotations = [
        {"id": i, "image_id": 7, "category_id": i % 2 + 1, "bbox": box}
        for i, box in enumerate(boxes)
    ]
    images = [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 20}]
    categories = [{"id": 1, "name": "sheep"}, {"id": 2, "name": "goat"}]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def write(root: Path, found: Any, name: str = "boxes.json") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    picture(tmp_path / "a.jpg")
    return tmp_path


def test_each_box_is_a_crop(root: Path) -> None:
    path = write(root, coco([10, 5, 10, 5], [0, 0, 5.5, 6]))
    found = read_photos(path)
    assert told(found) == [
        ("a.jpg#1", "sheep", (10, 5, 20, 10)),
        ("a.jpg#2", "goat", (0, 0, 5.5, 6)),
    ]
    assert found[0].open().size == (10, 5)
    assert redness(found[0]) > 200
    assert read_photos(root).samples == read_photos(root, boxes=path).samples == found.samples


def test_boxes_outside_or_without_area(root: Path) -> None:
    boxes = [
        *([-5, -5, 10, 10], [30, 10, 100, 100], [41, 0, 5, 5], [0, 25, 5, 5]),
        *([3, 3, 0, 5], [3, 3, 5, 0], [9, 9, -4, 3], [0, 0, 40.4, 20.4]),
    ]
    found = read_photos(write(root, coco(*boxes)))
    assert [box for *_, box in told(found)] == [(0, 0, 5, 5), (30, 10, 40, 20), (0, 0, 40, 20)]
    assert said(found)[0] == (
        "boxes clipped to their picture (2): a.jpg (-5, -5, 5, 5) of 40 x 20, "
        "a.jpg (30, 10, 130, 110) of 40 x 20"
    )
    assert "boxes without area or outside their picture, skipped (5): " in said(found)[1]


@pytest.mark.parametrize(("scale", "box"), [(1.5, (7.5, 3.75, 22.5, 11.25)), (9, (0, 0, 40, 20))])
def test_box_scale_is_about_the_centre(root: Path, scale: float, box: tuple[float, ...]) -> None:
    found = read_photos(write(root, coco([10, 5, 10, 5])), box_scale=scale)
    assert found[0].box_xyxy == pytest.approx(box)
    assert not any("clipped" in problem for problem in said(found))


def test_crowds_and_odd_annotations_are_counted(root: Path) -> None:
    found = coco([1, 1, 5, 5], [1, 1, 6, 6], [1, 1, 7, 7], [2, 2, 8, 8], [1, 1, 5, 5])
    found["annotations"][1]["iscrowd"] = 1
    found["annotations"][2]["image_id"] = 99
    found["annotations"][3]["bbox"] = [1, 2, None, 4]
    photos = read_photos(write(root, found))
    assert [photo.box_xyxy for photo in photos] == [(1, 1, 6, 6)] * 2
    assert said(photos)[:3] == (
        "boxes of crowds (iscrowd), skipped (1): annotation 1",
        "boxes of pictures that the file does not list, skipped (1): annotation 2",
        "annotations without four finite numbers in 'bbox', skipped (1): annotation 3",
    )


def test_pictures_elsewhere_and_in_sub_folders(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "x" / "a.jpg")
    found = coco([1, 1, 5, 5])
    found["images"][0]["file_name"] = "x\\a.jpg"  # written on Windows
    path = write(tmp_path / "annotations", found)
    with pytest.raises(FileNotFoundError, match=r"name the folder of the pictures \(images\)"):
        read_photos(path)
    for photos in (
        read_photos(path, images=tmp_path / "pictures"),
        read_photos(tmp_path / "pictures", boxes=path),
    ):
        assert [photo.name for photo in photos] == ["x/a.jpg#1"]
        assert photos.root == tmp_path / "pictures"
    (tmp_path / "pictures").rename(tmp_path / "images")
    assert read_photos(path).samples == read_photos(tmp_path).samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 7, "category_id": k} for k in (5, 5, 9)]},
            r"unknown category ids 5, 9; categories lists 1 sheep, 2 goat",
        ),
        ({"annotations": [{"id": 1, "image_id": 7}]}, "unknown category ids None; cat"),
        ({"annotations": []}, r"boxes\.json: no picture and no box left; .*without boxes"),
        (
            {"categories": [{"id": 1, "name": "sheep"}, {"id": 1, "name": "goat"}]},
            "categories: id 1 stands for 'sheep' and for 'goat'; give each its own id",
        ),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has id 1 and name None; expected both"),
        (
            {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]},
            r"images: id 7 stands for 'a\.jpg' and for 'b\.jpg'; give each its own id",
        ),
        ({"images": [{"file_name": "a.jpg"}]}, r"images\[0\] has id None and file_name 'a\.jpg'"),
        ({"images": [{"id": 3}]}, "no picture has a 'file_name'"),
        ({"images": "none"}, "got 'images', .*; expected COCO"),
        ({"annotations": [{"category_id": 1}, 3]}, "got 'images', .*; expected COCO"),
        ("<html>", r"boxes\.json: not JSON \(Expecting value.*; export it again as COCO"),
        ("[" * 99_999, "not JSON"),
        ('[{"image_id": 1, "bbox": []}]', "got list; .*these are detections, give the file"),
    ],
)
def test_faulty_files_are_refused(root: Path, change: dict[str, Any] | str, message: str) -> None:
    path = write(root, coco([1, 1, 5, 5]) | (change if isinstance(change, dict) else {}))
    if isinstance(change, str):
        path.write_text(change, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_photos(path)


# where the red block lies upright, worked out by hand for 40 x 20 stored pixels
UPRIGHT = {5: (5, 10, 10, 20), 6: (10, 10, 15, 20), 7: (10, 20, 15, 30), 8: (5, 20, 10, 30)}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("stored", [True, False])
def test_boxes_of_turned_pictures(tmp_path: Path, orientation: int, stored: bool) -> None:
    """Boxes refer to the picture whose size the JSON names."""
    picture(tmp_path / "a.jpg", orientation=orientation)
    x1, y1, x2, y2 = (10, 5, 20, 10) if stored else UPRIGHT[orientation]
    size = {"width": 40, "height": 20} if stored else {"width": 20, "height": 40}
    images = [{"id": 7, "file_name": "a.jpg"} | size]
    found = read_photos(write(tmp_path, coco([x1, y1, x2 - x1, y2 - y1], images=images)))
    assert found[0].box_xyxy == UPRIGHT[orientation]
    assert redness(found[0]) > 150
    whole = open_image(tmp_path / "a.jpg")
    assert (np.asarray(whole)[..., 0] > 128).sum() == 50
    turned = "boxes turned with their picture, since EXIF lays it on its side"
    assert (turned in kinds(found)) == stored


def test_boxes_for_another_size(root: Path) -> None:
    images = [{"id": 7, "file_name": "a.jpg", "width": 401, "height": 200}]
    found = read_photos(write(root, coco([100, 50, 100, 50], images=images)))
    assert found[0].box_xyxy == pytest.approx((10, 5, 20, 10), abs=0.05)
    assert (
        "boxes scaled, since their file was made for another size (1): a.jpg (401 x 200, the "
        in ("\n".join(said(found)))
    )
    images[0]["width"] = 300
    with pytest.raises(
        ValueError, match=r"of another shape than their file says, skipped \(1\): a"
    ):
        read_photos(write(root, coco([100, 50, 100, 50], images=images)))


def test_unreadable_picture_is_told_once(root: Path) -> None:
    (root / "b.jpg").write_bytes(b"no picture")
    found = coco([1, 1, 5, 5], [1, 1, 5, 5], [2, 2, 5, 5])
    found["images"].append({"id": 8, "file_name": "b.jpg"})
    for annotation in found["annotations"][1:]:
        annotation["image_id"] = 8
    photos = read_photos(write(root, found))
    assert [photo.name for photo in photos] == ["a.jpg#1"]
    (sentence,) = [p for p in said(photos) if "unreadable" in p]
    assert "left out (1): " in sentence
    assert "b.jpg: not an image, or damaged; open and save it" in sentence


@pytest.mark.parametrize("layout", ["original", "export"])
def test_one_file_for_each_split(tmp_path: Path, layout: str) -> None:
    for split in ("train", "valid"):
        if layout == "original":
            picture(tmp_path / f"{split}2017" / "a.jpg")
            write(tmp_path / "annotations", coco([1, 1, 5, 5]), f"instances_{split}2017.json")
        else:
            picture(tmp_path / split / "a.jpg")
            write(tmp_path / split, coco([1, 1, 5, 5]), "_annotations.coco.json")
    year = "2017" if layout == "original" else ""
    found = read_photos(tmp_path)
    assert [(photo.name, photo.split) for photo in found] == [
        (f"train{year}/a.jpg#1", "train"),
        (f"valid{year}/a.jpg#1", "val"),
    ]
    assert found[0].open().size == (5, 5)


def test_several_files_without_splits_are_refused(root: Path) -> None:
    write(root, coco([1, 1, 5, 5]), "one.json")
    write(root, coco([1, 1, 5, 5]), "two.json")
    with pytest.raises(ValueError, match=r"2 COCO files, one\.json, two\.json; expected one, or"):
        read_photos(root)


# ---- YOLO ------------------------------------------------------------------------------------


def yolo(root: Path, **labels: str) -> Path:
    """images/NAME.jpg and labels/NAME.txt for each name, and classes.txt."""
    for name, text in labels.items():
        picture(root / "images" / f"{name}.jpg")
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text(text, encoding="utf-8")
    (root / "classes.txt").write_text("sheep\n羊驼\n", encoding="utf-8")
    return root


def test_yolo_boxes_and_polygons(tmp_path: Path) -> None:
    text = "0 0.375 0.375 0.25 0.25\n\n1 0 0 .25 .5 0.5 0.25 \n"
    found = read_photos(yolo(tmp_path, a=text))
    assert told(found) == [
        ("images/a.jpg#1", "sheep", (10, 5, 20, 10)),
        ("images/a.jpg#2", "羊驼", (0, 0, 20, 10)),
    ]
    assert found.root == tmp_path
    assert redness(found[0]) > 200
    assert read_photos(tmp_path, box_scale=2)[0].box_xyxy == (5, 2.5, 25, 12.5)


def test_yolo_background_and_orphans_are_counted(tmp_path: Path) -> None:
    yolo(tmp_path, a="0 .5 .5 .2 .2", b="", c="0 .5 .5 .2 .2")
    picture(tmp_path / "images" / "d.jpg")
    (tmp_path / "images" / "c.jpg").unlink()
    found = read_photos(tmp_path)
    assert [photo.name for photo in found] == ["images/a.jpg#1"]
    assert "pictures without boxes, left out (2): images/b.jpg, images/d.jpg" in said(found)
    assert "label files without a picture (1): labels/c.txt" in said(found)


def test_yolo_without_names_or_boxes(tmp_path: Path) -> None:
    yolo(tmp_path, a="")
    with pytest.raises(ValueError, match=r"no box left; .*pictures without boxes"):
        read_photos(tmp_path)
    (tmp_path / "classes.txt").unlink()
    match = r"no names of classes; looked for data\.yaml, .*obj\.data, classes\.txt, obj\.names"
    with pytest.raises(FileNotFoundError, match=match):
        read_photos(tmp_path)


YAML = "path: .\ntrain: images/train\nval: images/val\nnames: {0: sheep, 3: goat}\n"


def with_yaml(root: Path, text: str = YAML, name: str = "data.yaml") -> Path:
    for split, number in (("train", 0), ("val", 3)):
        picture(root / "images" / split / f"{split}.jpg")
        (root / "labels" / split).mkdir(parents=True)
        label = f"{number} 0.375 0.375 0.25 0.25\n"
        (root / "labels" / split / f"{split}.txt").write_text(label, encoding="utf-8")
    (root / "train.txt").write_text("./images/train/train.jpg\n", encoding="utf-8")
    (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "text",
    [
        YAML,
        YAML.replace("path: .\n", "path: /datasets/of/somebody/else\n"),
        YAML.replace("images/train", "../images/train"),  # as one service exports it
        YAML.replace("images/train", "train.txt"),
        YAML.replace("images/train", "[images/train]"),
        YAML + "test:\n",
        "names: [sheep, x, y, goat]\n",
    ],
)
def test_yolo_yaml_names_classes_and_splits(tmp_path: Path, text: str) -> None:
    found = read_photos(with_yaml(tmp_path, text))
    assert [(photo.name, photo.label, photo.split) for photo in found] == [
        ("images/train/train.jpg#1", "sheep", "train"),
        ("images/val/val.jpg#1", "goat", "val"),
    ]
    assert found[0].open().size == (10, 5)
    assert read_photos(tmp_path / "data.yaml").samples == found.samples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", r"data\.yaml: not YAML"),
        ("train: images\n", r"data\.yaml: no list 'names'; expected names of"),
        ("just text", "no list 'names'; expected"),
        ("names: []\n", "expected number and name"),
        ("names: {a: b}\n", "class 'a' is 'b'; expected number and name"),
        ("names: [a]\ntrain: {x: y}\n", "train is {'x': 'y'}; expected a folder or file"),
        ("names: [[a]]\n", r"class '0' is \['a'\]; expected number and name"),
        (
            "names: [a]\nkpt_shape: many\n",
            r"kpt_shape is 'many'; expected two numbers, as \[17, 3\]",
        ),
    ],
)
def test_yolo_yaml_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_photos(with_yaml(tmp_path, text))


def test_yolo_yaml_that_leads_nowhere(tmp_path: Path) -> None:
    with_yaml(tmp_path, "names: [a]\ntrain: x\nval: y\n", "dataset.yaml")
    with pytest.raises(FileNotFoundError, match=r"none of train: x, val: y is in .*; mend path"):
        read_photos(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no\.yaml: no such file or folder"):
        read_photos(tmp_path / "no.yaml")
