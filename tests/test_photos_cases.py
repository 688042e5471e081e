"""Folders as label tools and people leave them: what each reader makes of them, and says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cliplab.data import ProblemKind as Kind, SampleSet, read_photos, read_pictures

Tree = Mapping[str, Any]


def tree(root: Path, files: Tree) -> Path:
    """Files of a text, bytes, JSON, or a picture of 40 x 20 in a colour, "6 red" turned by EXIF."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str) and path.suffix in (".jpg", ".png", ".ppm", ".tga", ".jp2"):
            *turn, colour = content.split()
            exif = Image.Exif()
            exif[0x0112] = int(*turn) if turn else 1
            Image.new("RGB", (40, 20), colour).save(path, **({"exif": exif} if turn else {}))
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
    return root


def said(found: SampleSet) -> dict[Kind, tuple[str, ...]]:
    return {problem.kind: problem.where for problem in found.problems}


def told(found: SampleSet) -> list[tuple[Any, ...]]:
    return [(one.name, one.label, *(() if not one.box_xyxy else (one.box_xyxy,))) for one in found]


BLOCK = (10.0, 5.0, 20.0, 10.0)
LINE = "0 0.375 0.375 0.25 0.25"
A = {"images/a.jpg": "red"}
ONE = [("images/a.jpg#1", "sheep", BLOCK)]
NAMES = {"classes.txt": "sheep\ngoat"}


def yaml(text: str = "", names: str = "[sheep, goat]") -> dict[str, str]:
    return {"data.yaml": f"path: .\ntrain: images\nnames: {names}\n{text}"}


# Files; samples of `read_photos`; what is said of them.
YOLO: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "key points are no polygon": (
        A | yaml("kpt_shape: [2, 2]") | {"labels/a.txt": f"{LINE} 0 0 1 1\n{LINE} .1 .1"},
        ONE,
        {Kind.MALFORMED: ("labels/a.txt:2: 7 values, where a box has 5 and 9 with key points",)},
    ),
    "key points with visibility": (
        A | yaml("kpt_shape: [1, 3]") | {"labels/a.txt": f"{LINE} 0.9 0.9 2"}, ONE, {},
    ),
    "yes and no are names": (
        A | yaml(names="\n- yes\n- no") | {"labels/a.txt": LINE},
        [("images/a.jpg#1", "yes", BLOCK)],
        {},
    ),
    "a split that has no picture of its own": (
        A | yaml("val: images") | {"labels/a.txt": LINE},
        ONE,
        {Kind.MISSING_SPLIT: ("val: images (all in train)",)},
    ),
    "a split that is not there": (
        A | yaml("val: valid/images") | {"labels/a.txt": LINE, "val/images/b.jpg": "red"},
        ONE,
        {Kind.MISSING_SPLIT: ("val: valid/images",), Kind.STRAY_PICTURES: ("val/images/b.jpg",)},
    ),
    "one bad line of several": (
        A | NAMES
        | {"labels/a.txt": f"{LINE}\n2 .5 .5 .2 .2\n0 120 50 30 30\n0 .5 .5 .2\nsheep 1\n"
           "0 nan 0 0 0"},
        ONE,
        {
            Kind.MALFORMED: (
                "labels/a.txt:2: class 2, where there are 0 to 1",
                "labels/a.txt:3: '0 120 50 30 30' has values far outside 0 to 1, such as pixels",
                "labels/a.txt:4: 4 values, where a box has 5 and a polygon 7, 9, ...",
                "labels/a.txt:5: 'sheep 1' are not numbers",
                "labels/a.txt:6: '0 nan 0 0 0' has values far outside 0 to 1, such as pixels",
            )
        },
    ),
    "a polygon that leaves its picture is clipped": (
        A | NAMES | {"labels/a.txt": "0 0.8 0.3 1.1 0.3 1.0 0.8 0.8 0.8"},
        [("images/a.jpg#1", "sheep", (32, 6, 40, 16))],
        {Kind.CLIPPED: ("images/a.jpg (32, 6, 44, 16) of 40 x 20",)},
    ),
    "turned pictures are taken as seen": (
        {"images/a.jpg": "6 red", "labels/a.txt": LINE} | NAMES,
        [("images/a.jpg#1", "sheep", (5, 10, 10, 20))],
        {Kind.AS_SEEN: ("images/a.jpg",)},
    ),
    "label files beside the pictures": (
        {"a.jpg": "red", "a.txt": LINE} | NAMES, [("a.jpg#1", "sheep", BLOCK)], {},
    ),
    "CVAT's YOLO 1.1": (
        {
            "obj.data": "names = data/obj.names\ntrain = data/train.txt\nvalid=v.txt\n",
            "obj.names": "sheep\ngoat\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "v.txt": "obj_valid_data/b.jpg\nobj_valid_data/c.jpg\n",
            "obj_train_data/a.jpg": "red",
            "obj_train_data/a.txt": LINE,
            "obj_valid_data/b.jpg": "red",
            "obj_valid_data/b.txt": LINE,
        },
        [("obj_train_data/a.jpg#1", "sheep", BLOCK), ("obj_valid_data/b.jpg#1", "sheep", BLOCK)],
        {
            Kind.MISSING: ("obj_valid_data/c.jpg",),
            Kind.GUESSED: ("data/train.txt", "data/obj_train_data/a.jpg"),
        },
    ),
    "label files of no picture, however deep": (
        A | NAMES | {"labels/a.txt": LINE, "labels/x/b.txt": LINE},
        ONE, {Kind.STRAY_LABELS: ("labels/x/b.txt",)},
    ),
}  # fmt: skip


def table(text: str, **files: Any) -> dict[str, Any]:
    return {"a.jpg": "red", "b.jpg": "blue", "labels.csv": text} | files


AB = [("a.jpg", "x"), ("b.jpg", "y")]
BOXED = [("a.jpg#1", "x", BLOCK)]
TABLES: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "corners as in TensorFlow's CSV": (
        table("filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,20,x,10,5,20,10"),
        BOXED, {Kind.STRAY_PICTURES: ("b.jpg",)},
    ),
    "a corner and an extent": (table("Image,Label,X,Y,W,H\na.jpg,x,10,5,10,5"), BOXED, {}),
    "the same in words": (
        table("file name;class-name;bbox_x;bbox_y;bbox_width;bbox_height\na.jpg;x;10;5;10;5"),
        BOXED, {},
    ),
    "sides": (table("image,label,Left,Top,Right,Bottom\na.jpg,x,10,5,20,10"), BOXED, {}),
    "corners with lines": (table("image,label,x_1,y_1,x_2,y_2\na.jpg,x,10,5,20,10"), BOXED, {}),
    "left, top, width, height": (
        table("image,label,left,top,width,height\na.jpg,x,10,5,10,5"), BOXED, {},
    ),
    "other columns beside a box": (
        table("image,label,x1,y1,x2,y2,cx,area\na.jpg,x,10,5,20,10,15,50"), BOXED, {},
    ),
    "of the stored rows, since it says their size": (
        table("image,class,width,height,xmin,ymin,xmax,ymax\nt.jpg,x,40,20,10,5,20,10",
              **{"t.jpg": "6 red"}),
        [("t.jpg#1", "x", (10, 10, 15, 20))], {Kind.TURNED: ("t.jpg",)},
    ),
    "of turned pictures whose size is not told": (
        table("image,label,x1,y1,x2,y2\nt.jpg,x,5,10,10,20", **{"t.jpg": "6 red"}),
        [("t.jpg#1", "x", (5, 10, 10, 20))], {Kind.AS_SEEN: ("t.jpg",)},
    ),
    "class_name is a label": (table("image,class_name\na.jpg,x\nb.jpg,y"), AB, {}),
    "annotations.csv is found": (
        {"a.jpg": "red", "b.jpg": "blue", "annotations.csv": "image,label\na.jpg,x\nb.jpg,y"},
        AB, {},
    ),
    "a row for each of two labels": (
        table("image,label\na.jpg,x\nb.jpg,y\n./a.jpg,y"),
        [("a.jpg", None), ("b.jpg", "y"), ("a.jpg", None)],
        {Kind.TWO_CLASSES: ("a.jpg (x)", "a.jpg (y)")},
    ),
    "no column of labels": (
        table("image,species,kg\na.jpg,x,3\nb.jpg,y,4"),
        [("a.jpg", None), ("b.jpg", None)], {Kind.UNREAD_COLUMNS: ("species", "kg")},
    ),
    "paths of another machine": (
        table("图片,标签\nD:\\照片\\羊\\a.jpg,x\n/home/me/b.jpg,y"), AB,
        {Kind.GUESSED: ("D:\\照片\\羊\\a.jpg", "/home/me/b.jpg")},
    ),
    "paths that end alike are not guessed": (
        table("image,label\nb.jpg,y\neast/a.jpg,x\nwest/a.jpg,y"),
        [("b.jpg", "y")], {Kind.MISSING: ("east/a.jpg (line 3)", "west/a.jpg (line 4)")},
    ),
}  # fmt: skip


def coco(name: str = "a.jpg", one: Any = 1, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": one, "file_name": name, "width": 40, "height": 20}],
        "categories": [{"id": one, "name": "x"}],
        "annotations": [
            {"id": one, "image_id": one, "category_id": one, "bbox": [10, 5, 10, 5]} | more
        ],
    }


BARE = [("a.jpg", None), ("b.jpg", None)]
GONE = tuple(f"{i}.jpg" for i in range(100, 400))
COCO: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "float ids": ({"a.jpg": "red", "herd.json": coco(one=1.0)}, BOXED, {}),
    "one picture of many is there": (
        {"a.jpg": "red", "herd.json": coco() | {"images": [
            {"id": i, "file_name": name} for i, name in enumerate([GONE[0], "a.jpg", *GONE[1:]])]}},
        BOXED, {Kind.MISSING: GONE},
    ),
    "paths of Label Studio on Windows": (
        {"images/a.jpg": "red", "result.json": coco("..\\..\\label-studio\\media\\4\\a.jpg")},
        BOXED, {Kind.GUESSED: ("..\\..\\label-studio\\media\\4\\a.jpg",)},
    ),
    "answers in the folder are no truth": (
        {"a.jpg": "red", "b.jpg": "blue", "boxes.json": coco(score=0.9)},
        BARE, {Kind.ANSWERS: ("boxes.json",)},
    ),
    "answers beside the truth": (
        {"a.jpg": "red", "boxes.json": coco(score=0.9), "herd.json": coco()},
        BOXED, {Kind.ANSWERS: ("boxes.json",)},
    ),
    "turned pictures whose size is not told, or the same": (
        {"a.jpg": "3 red",
         "herd.json": coco() | {"images": [{"id": 1, "file_name": "a.jpg"}]}},
        [("a.jpg#1", "x", BLOCK)], {Kind.AS_SEEN: ("a.jpg",)},
    ),
}  # fmt: skip

PAIR = [("x/a.jpg", "x"), ("y/b.jpg", "y")]
LABELME = {"shapes": [], "imagePath": "a.jpg"}
FOLDERS: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "a picture in two classes": (
        {"x/a.jpg": "red", "y/a.jpg": "red", "y/b.jpg": "blue"},
        [("x/a.jpg", None), ("y/a.jpg", None), ("y/b.jpg", "y")],
        {Kind.TWO_CLASSES: ("x/a.jpg (x)", "y/a.jpg (y)")},
    ),
    "a zip in a folder of its name": (
        {"flock/x/a.jpg": "red", "flock/y/b.jpg": "blue", "__MACOSX/._x": b""}, PAIR, {},
    ),
    "LabelMe's JSON": (
        {"a.jpg": "red", "b.jpg": "blue", "a.json": LABELME, "results.json": {}},
        BARE, {Kind.UNREAD_LABELS: ("a.json",)},
    ),
    "Pascal VOC": (
        {"JPEGImages/a.jpg": "red", "Annotations/a.xml": "<annotation/>"},
        [("JPEGImages/a.jpg", None)], {Kind.UNREAD_LABELS: ("Annotations/a.xml",)},
    ),
    "more formats": (
        {"a.jp2": "red", "a.ppm": "red", "b.tga": "blue"},
        [("a.jp2", None), ("a.ppm", None), ("b.tga", None)], {},
    ),
    "raw photos are counted": (
        {"x/a.jpg": "red", "y/b.jpg": "blue", "y/IMG.DNG": b"II*", "c.jxl": b""},
        PAIR, {Kind.OTHER_FORMAT: ("c.jxl", "y/IMG.DNG")},
    ),
}  # fmt: skip
CASES = YOLO | TABLES | COCO | FOLDERS
# Remarks of every small set.
USUAL = {Kind.ONE_CLASS, Kind.STRAY_PICTURES, Kind.UNLABELLED}


@pytest.mark.parametrize("case", CASES)
def test_every_case_gives_what_it_should(tmp_path: Path, case: str) -> None:
    files, samples, problems = CASES[case]
    root = tree(tmp_path / "flock", files)
    found = read_photos(root)
    assert told(found) == samples
    for path in (one.path for one in found):
        Image.open(path).close()
    others = {kind: where for kind, where in said(found).items() if kind not in USUAL}
    assert others == {kind: where for kind, where in problems.items() if kind not in USUAL}
    assert said(found).items() >= problems.items()
    whole = said(read_pictures(root))
    beside = {Kind.MALFORMED, Kind.ANSWERS, Kind.AS_SEEN, Kind.OTHER_FORMAT, Kind.UNREAD_LABELS}
    assert whole.items() >= {kind: problems[kind] for kind in beside & problems.keys()}.items()


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("bbox", "'bbox'"),
        ("cx,cy,w,h", "'cx', 'cy', 'w', 'h'"),
        ("x,y", "'x', 'y'"),
        ("Polygon", ""),
    ],
)
def test_columns_that_may_be_boxes_are_refused(tmp_path: Path, header: str, names: str) -> None:
    row = ",".join("1" for _ in header.split(","))
    tree(tmp_path, table(f"image,label,{header}\na.jpg,x,{row}"))
    match = (
        f"{names}; expected image .* a box .* x1, y1, x2, y2; xmin, ymin, .* x, y, w, h; .* once"
    )
    with pytest.raises(ValueError, match=match if names else "'Polygon'; expected"):
        read_photos(tmp_path)


def test_a_lost_truth_is_not_an_empty_picture(tmp_path: Path) -> None:
    root = tree(tmp_path, A | NAMES | {"labels/a.txt": "sheep .5 .5 .2 .2"})
    for read in (read_photos, read_pictures):
        with pytest.raises(
            ValueError, match=r"left; malformed lines of labels, skipped \(1\): lab"
        ):
            read(root)


def test_answers_that_are_named_are_boxes_without_labels(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a.jpg": "red", "boxes.json": coco(score=0.9)})
    assert told(read_photos(root / "boxes.json")) == [("a.jpg#1", None, BLOCK)]


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_images_that_hold_nothing_are_not_asked_for_again(tmp_path: Path, name: str) -> None:
    content = "image\nz.jpg" if name == "t.csv" else coco("z.jpg")
    tree(tmp_path, {name: content, "in/a.jpg": "red"})
    with pytest.raises(FileNotFoundError, match=r"name the folder of the pictures \(images\)"):
        read_photos(tmp_path / name)
    match = "such as z.jpg.*; give the folder they are in, not .*/in, or mend the paths"
    with pytest.raises(FileNotFoundError, match=match):
        read_photos(tmp_path / name, images=tmp_path / "in")
