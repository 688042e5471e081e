"""COCO files and YOLO folders: each box becomes a crop of its picture."""

from pathlib import Path

import numpy as np
import pytest
from photos_world import BLOCK, coco, said, told, tree

from cliplab.data import ProblemKind as Kind, Sample, read_photos

ROW = [("a.jpg#1", "x", BLOCK)]


def redness(photo: Sample) -> int:
    """Of its least red pixel, 0 to 255."""
    return int(np.asarray(photo.open())[..., 0].min())


def test_each_box_is_a_crop(tmp_path: Path) -> None:
    tree(tmp_path, {"a.jpg": "black", "herd.json": coco([10, 5, 10, 5], [0, 0, 5.5, 6])})
    found = read_photos(tmp_path / "herd.json")
    assert told(found) == [*ROW, ("a.jpg#2", "x", (0, 0, 5.5, 6))]
    assert found[0].open().size == (10, 5)
    assert redness(found[0]) > 200
    assert read_photos(tmp_path).samples == found.samples
    assert read_photos(tmp_path, boxes=tmp_path / "herd.json").samples == found.samples


@pytest.mark.parametrize(("scale", "box"), [(1.5, (7.5, 3.75, 22.5, 11.25)), (9, (0, 0, 40, 20))])
def test_box_scale_is_about_the_centre(tmp_path: Path, scale: float, box: tuple) -> None:
    found = read_photos(tree(tmp_path, {"a.jpg": "red", "t.json": coco()}), box_scale=scale)
    assert found[0].box_xyxy == pytest.approx(box)
    assert Kind.CLIPPED not in said(found)


def test_pictures_elsewhere_and_in_sub_folders(tmp_path: Path) -> None:
    files = {"pictures/x/a.jpg": "red", "annotations/t.json": coco(name="x\\a.jpg")}  # of Windows
    path = tree(tmp_path, files) / "annotations" / "t.json"
    pictures = tmp_path / "pictures"
    with pytest.raises(FileNotFoundError, match=r"name the folder of the pictures: `images`\)"):
        read_photos(path)
    for found in (read_photos(path, images=pictures), read_photos(pictures, boxes=path)):
        assert told(found) == [("x/a.jpg#1", "x", BLOCK)]
        assert found.root == pictures
    pictures.rename(tmp_path / "images")
    assert read_photos(path).samples == read_photos(tmp_path).samples


# where the red block lies upright, worked out by hand for 40 x 20 stored pixels
UPRIGHT = {5: (5, 10, 10, 20), 6: (10, 10, 15, 20), 7: (10, 20, 15, 30), 8: (5, 20, 10, 30)}


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("stored", [True, False])
def test_boxes_of_turned_pictures(tmp_path: Path, turn: int, stored: bool) -> None:
    """Boxes refer to the picture whose size the JSON names."""
    x1, y1, x2, y2 = BLOCK if stored else UPRIGHT[turn]
    table = coco([x1, y1, x2 - x1, y2 - y1])
    table["images"][0] |= {"width": 40, "height": 20} if stored else {"width": 20, "height": 40}
    found = read_photos(tree(tmp_path, {"a.jpg": f"{turn} black", "t.json": table}))
    assert found[0].box_xyxy == UPRIGHT[turn]
    assert redness(found[0]) > 150
    whole = Sample(found[0].path).open()
    assert (np.asarray(whole)[..., 0] > 128).sum() == 50
    assert (Kind.TURNED in said(found)) == stored


def test_unreadable_picture_is_told_once(tmp_path: Path) -> None:
    table = coco([10, 5, 10, 5], {"image_id": 8, "bbox": [1, 1, 5, 5]}, {"image_id": 8})
    table["annotations"][2]["bbox"] = [2, 2, 5, 5]
    table["images"].append({"id": 8, "file_name": "b.jpg"})
    found = read_photos(tree(tmp_path, {"a.jpg": "red", "b.jpg": b"none", "t.json": table}))
    assert told(found) == ROW
    (sentence,) = said(found)[Kind.UNREADABLE]
    assert "b.jpg: not an image, or damaged; open and save it" in sentence


def test_yolo_boxes_and_polygons(tmp_path: Path) -> None:
    text = "0 0.375 0.375 0.25 0.25\n\n1 0 0 .25 .5 0.5 0.25 \n"
    files = {"images/a.jpg": "black", "labels/a.txt": text, "classes.txt": "sheep\n羊驼\n"}
    found = read_photos(tree(tmp_path, files))
    assert told(found) == [
        ("images/a.jpg#1", "sheep", BLOCK),
        ("images/a.jpg#2", "羊驼", (0, 0, 20, 10)),
    ]
    assert found.root == tmp_path
    assert redness(found[0]) > 200
    assert read_photos(tmp_path, box_scale=2)[0].box_xyxy == (5, 2.5, 25, 12.5)


YAML = "path: .\ntrain: images/train\nval: images/val\nnames: {0: sheep, 3: goat}\n"


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
    files = {"data.yaml": text, "train.txt": "./images/train/a.jpg\n"}
    for split, number in (("train", 0), ("val", 3)):
        files[f"images/{split}/a.jpg"] = "red"
        files[f"labels/{split}/a.txt"] = f"{number} 0.375 0.375 0.25 0.25\n"
    found = read_photos(tree(tmp_path, files))
    assert told(found) == [
        ("images/train/a.jpg#1", "sheep", BLOCK, "train"),
        ("images/val/a.jpg#1", "goat", BLOCK, "val"),
    ]
    assert read_photos(tmp_path / "data.yaml").samples == found.samples
