"""Folders as label tools and people leave them: what each reader makes of them, and says."""

from pathlib import Path
from typing import Any

import pytest
from photos_world import BLOCK, Tree, coco, said, told, tree
from PIL import Image

from cliplab.data import ProblemKind as Kind, read_photos, read_pictures

LINE = "0 0.375 0.375 0.25 0.25"
A = {"images/a.jpg": "red"}
ONE = [("images/a.jpg#1", "sheep", BLOCK)]
TRAIN = [("images/a.jpg#1", "sheep", BLOCK, "train")]
NAMES = {"classes.txt": "sheep\ngoat"}


def yaml(text: str = "", names: str = "[sheep, goat]") -> dict[str, str]:
    return {"data.yaml": f"path: .\ntrain: images\nnames: {names}\n{text}"}


# Files; samples of `read_photos`; what is said of them.
YOLO: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "key points are no polygon": (
        A | yaml("kpt_shape: [2, 2]") | {"labels/a.txt": f"{LINE} 0 0 1 1\n{LINE} .1 .1"},
        TRAIN,
        {Kind.MALFORMED: ("labels/a.txt:2: 7 values, where a box has 5 and 9 with key points",)},
    ),
    "key points with visibility": (
        A | yaml("kpt_shape: [1, 3]") | {"labels/a.txt": f"{LINE} 0.9 0.9 2"}, TRAIN, {},
    ),
    "yes and no are names": (
        A | yaml(names="\n- yes\n- no") | {"labels/a.txt": LINE},
        [("images/a.jpg#1", "yes", BLOCK, "train")],
        {},
    ),
    "a split that has no picture of its own": (
        A | yaml("val: images") | {"labels/a.txt": LINE},
        TRAIN,
        {Kind.MISSING_SPLIT: ("val: images (all in train)",)},
    ),
    "a split that is not there": (
        A | yaml("val: valid/images") | {"labels/a.txt": LINE, "val/images/b.jpg": "red"},
        TRAIN,
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
        [("obj_train_data/a.jpg#1", "sheep", BLOCK, "train"),
         ("obj_valid_data/b.jpg#1", "sheep", BLOCK, "val")],
        {
            Kind.MISSING: ("obj_valid_data/c.jpg",),
            Kind.GUESSED: ("data/train.txt", "data/obj_train_data/a.jpg"),
        },
    ),
    "label files of no picture, however deep, and pictures of no label": (
        A | NAMES | {"labels/a.txt": LINE, "labels/x/b.txt": LINE, "labels/c.txt": LINE,
                     "images/b.jpg": "red", "labels/b.txt": "", "images/d.jpg": "red"},
        ONE,
        {
            Kind.STRAY_LABELS: ("labels/c.txt", "labels/x/b.txt"),
            Kind.NOT_BOXED: ("images/b.jpg", "images/d.jpg"),
        },
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


BARE = [("a.jpg", None), ("b.jpg", None)]
SCORED = {"bbox": [10, 5, 10, 5], "score": 0.9}
ODD = [{"bbox": [1, 1, 6, 6], "iscrowd": 1}, {"bbox": [1, 1, 7, 7], "image_id": 99},
       {"bbox": [1, 2, None, 4]}]  # fmt: skip
FAR = [[41, 0, 5, 5], [0, 25, 5, 5], [3, 3, 0, 5], [3, 3, 5, 0], [9, 9, -4, 3]]
GONE = tuple(f"{i}.jpg" for i in range(100, 400))
COCO: dict[str, tuple[Tree, list[Any], dict[Kind, Any]]] = {
    "float ids": ({"a.jpg": "red", "herd.json": coco(key=1.0)}, BOXED, {}),
    "ids from zero": ({"a.jpg": "red", "herd.json": coco(key=0)}, BOXED, {}),
    "one picture of many is there": (
        {"a.jpg": "red", "herd.json": coco() | {"images": [
            {"id": i, "file_name": name} for i, name in enumerate([GONE[0], "a.jpg", *GONE[1:]])]}},
        BOXED, {Kind.MISSING: GONE},
    ),
    "paths of Label Studio on Windows": (
        {"images/a.jpg": "red", "result.json": coco(name="..\\..\\label-studio\\media\\4\\a.jpg")},
        BOXED, {Kind.GUESSED: ("..\\..\\label-studio\\media\\4\\a.jpg",)},
    ),
    "answers in the folder are no truth": (
        {"a.jpg": "red", "b.jpg": "blue", "boxes.json": coco(SCORED)},
        BARE, {Kind.ANSWERS: ("boxes.json",)},
    ),
    "answers beside the truth": (
        {"a.jpg": "red", "boxes.json": coco(SCORED), "herd.json": coco()},
        BOXED, {Kind.ANSWERS: ("boxes.json",)},
    ),
    "boxes outside or without area": (
        {"a.jpg": "red", "herd.json": coco([-5, -5, 10, 10], [30, 10, 100, 100], *FAR,
                                           [0, 0, 40.4, 20.4])},
        [("a.jpg#1", "x", (0, 0, 5, 5)), ("a.jpg#2", "x", (30, 10, 40, 20)),
         ("a.jpg#3", "x", (0, 0, 40, 20))],
        {
            Kind.CLIPPED: (
                "a.jpg (-5, -5, 5, 5) of 40 x 20", "a.jpg (30, 10, 130, 110) of 40 x 20",
            ),
            Kind.OUTSIDE: (
                "a.jpg (41, 0, 46, 5) of 40 x 20", "a.jpg (0, 25, 5, 30) of 40 x 20",
                "a.jpg (3, 3, 3, 8) of 40 x 20", "a.jpg (3, 3, 8, 3) of 40 x 20",
                "a.jpg (9, 9, 5, 12) of 40 x 20",
            ),
        },
    ),
    "crowds and odd annotations": (
        {"a.jpg": "red", "herd.json": coco([10, 5, 10, 5], *ODD)},
        BOXED,
        {Kind.CROWD: ("annotation 1",), Kind.UNLISTED: ("annotation 2",),
         Kind.NO_BOX: ("annotation 3",)},
    ),
    "of another size": (
        {"a.jpg": "red", "herd.json": coco([100, 50, 100, 50], images=[
            {"id": 1, "file_name": "a.jpg", "width": 401, "height": 200}])},
        [("a.jpg#1", "x", pytest.approx(BLOCK, abs=0.05))],
        {Kind.SCALED: ("a.jpg (401 x 200, the file has 40 x 20)",)},
    ),
    "one file for each split, as the original": (
        {"train2017/a.jpg": "red", "valid2017/a.jpg": "red",
         "annotations/instances_train2017.json": coco(),
         "annotations/instances_valid2017.json": coco()},
        [("train2017/a.jpg#1", "x", BLOCK, "train"), ("valid2017/a.jpg#1", "x", BLOCK, "val")], {},
    ),
    "one file for each split, as exported": (
        {f"{split}/{name}": content for split in ("train", "valid")
         for name, content in (("a.jpg", "red"), ("_annotations.coco.json", coco()))},
        [("train/a.jpg#1", "x", BLOCK, "train"), ("valid/a.jpg#1", "x", BLOCK, "val")], {},
    ),
    "turned pictures whose size is not told, or the same": (
        {"a.jpg": "3 red", "herd.json": coco(images=[{"id": 1, "file_name": "a.jpg"}])},
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


# ---- what is refused, with a sentence ----------------------------------------------------------


def images(*images: dict[str, Any]) -> dict[str, Any]:
    return coco(images=list(images))


A_JPG = {"id": 1, "file_name": "a.jpg"}
KINDS = [{"id": 1, "name": "sheep"}, {"id": 2, "name": "goat"}]
JSONS: list[tuple[Any, str]] = [
    (coco({"category_id": 5}, {"category_id": 5}, {"category_id": 9}, categories=KINDS),
     "unknown category ids 5, 9; categories lists 1 sheep, 2 goat"),
    (coco({"category_id": None}, categories=KINDS), "unknown category ids None; cat"),
    (coco(annotations=[]), r"t\.json: no picture and no box left; .*without boxes"),
    (coco(categories=[KINDS[0], KINDS[1] | {"id": 1}]),
     "categories: id 1 stands for 'sheep' and for 'goat'; give each its own id"),
    (coco(categories=[{"id": 1}]), r"categories\[0\] has id 1 and name None; expected both"),
    (images(A_JPG, {"id": 1, "file_name": "b.jpg"}),
     r"images: id 1 stands for 'a\.jpg' and for 'b\.jpg'; give each its own id"),
    (images({"file_name": "a.jpg"}), r"images\[0\] has id None and file_name 'a\.jpg'"),
    (images({"id": 3}), "no picture has a 'file_name'"),
    (images(A_JPG | {"width": 300, "height": 200}),
     r"of another shape than their file says, skipped \(1\): a"),
    (coco(images="none"), "got 'images', .*; expected COCO"),
    (coco(annotations=[{"category_id": 1}, 3]), "got 'images', .*; expected COCO"),
    ("<html>", r"t\.json: not JSON \(Expecting value.*; export it again as COCO"),
    ("[" * 99_999, "not JSON"),
    ([{"image_id": 1, "bbox": []}], "got list; .*these are detections, give the file"),
]  # fmt: skip
YAMLS = [
    ("names: [a\n", r"data\.yaml: not YAML"),
    ("train: images\n", r"data\.yaml: no list 'names'; expected names of"),
    ("just text", "no list 'names'; expected"),
    ("names: []\n", "expected number and name"),
    ("names: {a: b}\n", "class 'a' is 'b'; expected number and name"),
    ("names: [a]\ntrain: {x: y}\n", "train is {'x': 'y'}; expected a folder or file"),
    ("names: [[a]]\n", r"class '0' is \['a'\]; expected number and name"),
    ("names: [a]\nkpt_shape: many\n", r"kpt_shape is 'many'; expected two numbers, as \[17, 3\]"),
]
TWO = {"one.json": coco(), "two.json": coco()}
REFUSED: list[tuple[Tree, str, type[Exception], str]] = [
    *(({"t.json": table}, "t.json", ValueError, message) for table, message in JSONS),
    *(({"data.yaml": text}, "", ValueError, message) for text, message in YAMLS),
    (TWO, "", ValueError, r"2 COCO files, one\.json, two\.json; expected one, or"),
    (NAMES | {"a.txt": ""}, "", ValueError, r"no box left; .*pictures without boxes"),
    ({"labels/a.txt": LINE}, "", FileNotFoundError,
     r"no names of classes; looked for data\.yaml, .*obj\.data, classes\.txt, obj\.names"),
    ({"dataset.yaml": "names: [a]\ntrain: x\nval: y\n"}, "", FileNotFoundError,
     r"none of train: x, val: y is in .*; mend path"),
    ({}, "no.yaml", FileNotFoundError, r"no\.yaml: no such file or folder"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "source", "error", "message"), REFUSED)
def test_faulty_labels_are_refused(
    tmp_path: Path, files: Tree, source: str, error: type[Exception], message: str
) -> None:
    tree(tmp_path, {"a.jpg": "red"} | files)
    with pytest.raises(error, match=message):
        read_photos(tmp_path / source)


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
    root = tree(tmp_path, {"a.jpg": "red", "boxes.json": coco(SCORED)})
    assert told(read_photos(root / "boxes.json")) == [("a.jpg#1", None, BLOCK)]


@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_images_that_hold_nothing_are_not_asked_for_again(tmp_path: Path, name: str) -> None:
    content = "image\nz.jpg" if name == "t.csv" else coco(name="z.jpg")
    tree(tmp_path, {name: content, "in/a.jpg": "red"})
    with pytest.raises(FileNotFoundError, match=r"name the folder of the pictures: `images`\)"):
        read_photos(tmp_path / name)
    match = "such as z.jpg.*; give the folder they are in, not .*/in, or mend the paths"
    with pytest.raises(FileNotFoundError, match=match):
        read_photos(tmp_path / name, images=tmp_path / "in")
