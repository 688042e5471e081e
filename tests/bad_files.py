"""A folder of things that users bring and that no command can read, for `test_bad_inputs`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 48


def picture(path: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(path)


def coco(**changes: Any) -> dict[str, Any]:
    """A sound table of a.png and b.png, with these top-level keys exchanged."""
    sound: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": name, "width": SIZE, "height": SIZE}
            for i, name in enumerate(("a.png", "b.png"), 1)
        ],
        "annotations": [box(id=i, image_id=i, category_id=i) for i in (1, 2)],
        "categories": [{"id": 1, "name": "sheep"}, {"id": 2, "name": "goat"}],
    }
    return sound | changes


def box(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400,
            "iscrowd": 0} | changes  # fmt: skip


IMAGE = {"id": 1, "file_name": "a.png", "width": SIZE, "height": SIZE}
COCO: dict[str, Any] = {  # what is written; a text stands as it is
    "empty": "",
    "cut": json.dumps(coco())[:120],
    "list": [],
    "number": 7,
    "nothing": {},
    "no-images": coco(images=[]),
    "no-categories": {"images": [IMAGE], "annotations": [box()]},
    "images-dict": coco(images={"a": 1}),
    "image-number": coco(images=[7]),
    "no-file-name": coco(images=[{"id": 1, "width": SIZE, "height": SIZE}]),
    "file-name-number": coco(images=[IMAGE | {"file_name": 7}]),
    "file-name-empty": coco(images=[IMAGE | {"file_name": ""}]),
    "file-name-up": coco(images=[IMAGE | {"file_name": "../../../etc/passwd"}]),
    "image-twice": coco(images=[IMAGE, IMAGE]),
    "image-id-missing": coco(images=[{"file_name": "a.png"}]),
    "image-unknown": coco(annotations=[box(image_id=99)]),
    "category-unknown": coco(annotations=[box(category_id=99)]),
    "category-twice": coco(categories=[{"id": 1, "name": "sheep"}, {"id": 1, "name": "goat"}]),
    "category-number": coco(categories=[{"id": 1, "name": 7}, {"id": 2, "name": "goat"}]),
    "category-nameless": coco(categories=[{"id": 1}, {"id": 2, "name": "goat"}]),
    "annotation-list": coco(annotations=[[1, 2, 3]]),
    "annotations-null": coco(annotations=None),
    "box-three": coco(annotations=[box(bbox=[1, 2, 3])]),
    "box-words": coco(annotations=[box(bbox=["a", "b", "c", "d"])]),
    "box-null": coco(annotations=[box(bbox=None)]),
    "box-nan": coco(annotations=[box(bbox=[float("nan"), 1, 2, 3])]),
    "box-endless": coco(annotations=[box(bbox=[0, 0, 1e999, 5])]),
    "box-flat": coco(annotations=[box(bbox=[5, 5, 0, 5])]),
    "box-negative": coco(annotations=[box(bbox=[5, 5, -3, 5])]),
    "box-outside": coco(annotations=[box(bbox=[400, 400, 5, 5])]),
    "polygon-odd": coco(annotations=[box(segmentation=[[1, 2, 3, 4, 5]])]),
    "polygon-words": coco(annotations=[box(segmentation=[["a", "b", "c", "d", "e", "f"]])]),
    "rle-size": coco(annotations=[box(segmentation={"size": [3, 3], "counts": [4, 5]})]),
    "rle-short": coco(annotations=[box(segmentation={"size": [SIZE, SIZE], "counts": [4, 5]})]),
    "rle-text": coco(annotations=[box(segmentation={"size": [SIZE, SIZE], "counts": "\u00ff"})]),
    "all-missing": coco(images=[IMAGE | {"file_name": "gone.png"}]),
}  # fmt: skip

CSV: dict[str, bytes] = {
    "empty": b"",
    "head": b"file,label\n",
    "no-file": b"colour,label\nred,sheep\n",
    "gone": b"file,label\ngone.png,sheep\n",
    "utf16": "file,label\na.png,sheep\n".encode("utf-16"),
    "latin": "file,label\na.png,b\u00e9lier\n".encode("latin-1"),
    "nul": b"file,label\na.png,\x00\n",
    "xlsx": b"PK\x03\x04\x14\x00\x06\x00" + bytes(range(256)),
    "quote": b'file,label\na.png,"sheep\n',
    "ragged": b"file,label\na.png,sheep,more,and more\n",
    "two-heads": b"file,file,label\na.png,b.png,sheep\n",
    "split-typo": b"file,label,split\na.png,sheep,tset\nb.png,goat,test\n",
    "conflict": b"file,label\na.png,sheep\na.png,goat\n",
    "box-words": b"file,label,x1,y1,x2,y2\na.png,sheep,a,b,c,d\n",
    "box-half": b"file,label,x1,y1\na.png,sheep,1,2\n",
    "box-turned": b"file,label,x1,y1,x2,y2\na.png,sheep,20,20,5,5\n",
    "box-nan": b"file,label,x1,y1,x2,y2\na.png,sheep,nan,1,5,5\n",
    "box-outside": b"file,label,x1,y1,x2,y2\na.png,sheep,400,400,500,500\n",
    "box-empty": b"file,label,x1,y1,x2,y2\na.png,sheep,1,,5,5\n",
    "no-label": b"file\na.png\nb.png\n",
    "up": b"file,label\n../../../etc/passwd,sheep\n",
    "not-picture": b"file,label\nnotes.txt,sheep\n",
}

YAML: dict[str, str] = {
    "empty": "",
    "list": "- a\n- b\n",
    "broken": "names: [a, b\n\tval: x",
    "python": "names: !!python/object/apply:os.system ['true']\nval: images\n",
    "no-names": "val: images\n",
    "names-number": "names: 7\nval: images\n",
    "names-twice": "names: [sheep, sheep]\nval: images\n",
    "names-hole": "names: {0: sheep, 5: goat}\nval: images\n",
    "nc": "names: [sheep, goat]\nnc: 7\nval: images\n",
    "no-split": "names: [sheep, goat]\n",
    "gone": "names: [sheep, goat]\nval: nowhere\n",
    "val-number": "names: [sheep, goat]\nval: 7\n",
}

YOLO: dict[str, str] = {  # the one label file of a.png
    "class-high": "9 0.5 0.5 0.2 0.2\n",
    "class-negative": "-1 0.5 0.5 0.2 0.2\n",
    "class-word": "sheep 0.5 0.5 0.2 0.2\n",
    "class-half": "0.5 0.5 0.5 0.2 0.2\n",
    "three": "0 0.5 0.5 0.2\n",
    "words": "0 a b c d\n",
    "nan": "0 nan 0.5 0.2 0.2\n",
    "pixels": "0 24 24 10 10\n",
    "flat": "0 0.5 0.5 0 0.2\n",
    "binary": "\x00\x01\x02\n",
}


def make(root: Path) -> None:
    """Everything, below `root`."""
    for name in ("whole", "yolo/images", "classes/sheep", "classes/goat", "frames"):
        (root / name).mkdir(parents=True)
        for seed, file in enumerate(("a.png", "b.png")):
            picture(root / name / file, seed + 7 * len(name))
    for name in ("empty", "folder.png", "texts", "one-class/sheep", "no-classes", "outfolder"):
        (root / name).mkdir(parents=True)
    picture(root / "one-class" / "sheep" / "a.png")
    picture(root / "one.png")
    for name, data in (
        ("texts/notes.txt", b"nothing to see"),
        ("zero.png", b""),
        ("html.png", b"<!DOCTYPE html><html>not found</html>"),
        ("cut.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
        ("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("page.pdf", b"%PDF-1.7"),
        ("broken.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00not json"),
        ("empty.pt", b""),
        ("html.pt", b"<html>404</html>"),
        ("there.csv", b"mine"),
        ("there.html", b"mine"),
        ("there.json", b"{}"),
        ("frames/notes.txt", b"nothing to see"),
    ):
        (root / name).write_bytes(data)
    for name, table in COCO.items():
        text = table if isinstance(table, str) else json.dumps(table)
        (root / f"coco-{name}.json").write_text(text, "utf-8")
    for name, content in CSV.items():
        (root / f"csv-{name}.csv").write_bytes(content)
    for name, text in YAML.items():
        (root / "yolo" / f"{name}.yaml").write_text(text, "utf-8")
    for name, line in YOLO.items():
        (root / f"yolo-{name}" / "images").mkdir(parents=True)
        (root / f"yolo-{name}" / "labels").mkdir()
        picture(root / f"yolo-{name}" / "images" / "a.png")
        (root / f"yolo-{name}" / "labels" / "a.txt").write_text(line, encoding="utf-8")
        (root / f"yolo-{name}" / "data.yaml").write_text("names: [sheep, goat]\nval: images\n")
    truth(root / "truth-bare", classes=None)
    truth(root / "truth-empty", classes="")
    truth(root / "truth-twice", classes="sheep\nsheep\n")
    truth(root / "truth-small", size=20)
    truth(root / "truth-high", value=9)
    truth(root / "truth-colours", mode="RGB")
    truth(root / "truth-none", classes="sheep\ngoat\n", files=())


def truth(folder: Path, classes: str | None = "sheep\ngoat\n", size: int = SIZE, value: int = 1,
          mode: str = "L", files: tuple[str, ...] = ("a", "b")) -> None:  # fmt: skip
    """Label PNGs of frames/, with something wrong."""
    folder.mkdir()
    if classes is not None:
        (folder / "classes.txt").write_text(classes, encoding="utf-8")
    for name in files:
        Image.new("L", (size, size), value).convert(mode).save(folder / f"{name}_labels.png")
