"""Readers of users' files under whatever hypothesis thinks of: no traceback, nothing lost."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings, strategies as st
from photos_world import tree
from PIL import Image
from pycocotools import mask as coco_mask

from cliplab.data import Masks, ProblemKind as Kind, SampleSet, read_photos, read_pictures
from cliplab.data.samples import run_lengths

FUZZ = settings(
    max_examples=60, derandomize=True, database=None, deadline=timedelta(seconds=10),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def _bytes(image: Image.Image, suffix: str, turn: int = 1) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    image.save(file, suffix, exif=exif)
    return file.getvalue()


SOUND = _bytes(Image.new("RGB", (40, 20), "red"), "JPEG")
FILES = [SOUND, _bytes(Image.new("L", (40, 20)), "PNG", 6), SOUND[:200], b"", b"no picture"]
PLACES = ["a.jpg", "b.png", "x/a.jpg", "x/c.JPG", "images/a.jpg", "train/y/d.png", "val/y/a.jpg"]
pictures = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(FILES), min_size=1, max_size=5)
full = pictures.map(lambda some: dict.fromkeys(PLACES, SOUND) | some)
ODD = ["D:\\x\\c.jpg", "/home/c.JPG", "gone.jpg", "..", " a.jpg"]
names = st.sampled_from(PLACES) | st.sampled_from(PLACES) | st.sampled_from(ODD)
words = st.sampled_from(["sheep", "goat", "羊", "Sheep ", "no", "\ud800", "a,b", '"', "train"])
number = st.one_of(
    st.integers(-5, 50), st.floats(-5, 50), st.floats(), st.sampled_from([10**400, True])
)
junk = st.recursive(
    st.none() | st.booleans() | number | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def spoilt(draw: Any, usual: st.SearchStrategy[Any], how: st.SearchStrategy[Any] = junk) -> Any:
    """A document of lists and objects of which up to two places hold something else."""
    whole = [deepcopy(draw(usual))]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        parent: Any = whole
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            key = draw(st.sampled_from(keys))
            if isinstance(parent[key], dict | list) and parent[key] and draw(st.integers(0, 9)):
                parent = parent[key]
                continue
            parent[key] = draw(how)
            break
    return whole[0]


def tried(read: Callable[[Any], SampleSet], source: Path, root: Path) -> SampleSet | None:
    """What is read; None for an error that names the file or folder, which is a user's to mend."""
    found, said = refused(lambda: read(source))
    assert found is not None or root.name in said, said
    return found


def refused(read: Callable[[], Any]) -> tuple[Any, str]:
    """What is read, or the error of a kind that users may meet."""
    try:
        return read(), ""
    except (ValueError, OSError) as error:
        return None, repr(error) if isinstance(error, UnicodeError) else str(error)


def places(found: SampleSet, *kinds: Kind) -> list[str]:
    return [where for problem in found.problems if problem.kind in kinds for where in problem.where]


def told(found: SampleSet, *kinds: Kind) -> int:
    return len(places(found, *kinds))


OFF_PICTURE = (Kind.OUTSIDE, Kind.OTHER_SHAPE)


def check(files: dict[str, bytes], source: str, count: Callable[[SampleSet, Path], None]) -> None:
    """Read the files twice, as samples and as pictures, and count what comes out."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        root = tree(Path(folder), files)
        for read in (read_photos, read_pictures):
            if (found := tried(read, root / source, root)) is not None:
                assert len(set(map(str, found.problems))) == len(found.problems)
                if read is read_photos:
                    count(found, root)


def add_up(found: SampleSet, lost: int, rows: int) -> None:
    """What is read and what is told to be lost is all, but for pictures that are not there."""
    assert len(found) + lost <= rows
    if not told(found, Kind.MISSING, Kind.UNREADABLE):
        assert len(found) + lost == rows


# ---- folders ---------------------------------------------------------------------------------

OTHERS = ["a.txt", "a.json", "labels.csv", "classes.txt", "data.yaml", "b.DNG", "x/b.xml", ".a.jpg"]
OTHERS += ["labels/a.txt", "annotations/z.json", "obj.data", "annotations.csv", "x/x/e.jp2"]
TEXTS = [b"image,label\na.jpg,x\n", b"0 .5 .5 .1 .1", b"sheep\ngoat", b"names: [a]", b"{}", b"\xff"]
contents = st.sampled_from([*FILES, *TEXTS])


@FUZZ
@given(pictures, st.dictionaries(st.sampled_from(OTHERS), contents, max_size=4))
def test_folders(files: dict[str, bytes], others: dict[str, bytes]) -> None:
    def count(found: SampleSet, root: Path) -> None:
        seen = {one.path.relative_to(root).as_posix() for one in found}
        said = " ".join(str(problem) + " ".join(problem.where) for problem in found.problems)
        for name in files:
            assert name in seen or name in said, name
        assert ("b.DNG" in said) == ("b.DNG" in others)

    check(files | others, "", count)


# ---- tables ----------------------------------------------------------------------------------

HEADERS = ["image,label", "image,label,x1,y1,x2,y2", "File_Name,class,width,height,x,y,w,h",
           "image,split,group,kg", "image,label,bbox", "label"]  # fmt: skip
cell = words | names | st.sampled_from(["", "\0", "1", "12.5", "nan", "1e309", "-3", "val", "x\ny"])
numbers = st.sampled_from(["2", "9", "40", "-3", "nan", "1e309", ""])


@st.composite
def tables(draw: Any) -> tuple[bytes, int]:
    """A table, and its number of rows with a cell; -1 for bytes that may be none."""
    columns = draw(st.sampled_from(HEADERS)).split(",")
    usual = {"image": names, "File_Name": names, "label": words, "class": words, "group": words}
    usual |= {"split": st.sampled_from(["", "train", "val"])}
    row = st.tuples(*(usual.get(name, numbers) for name in columns)).map(list)
    rows = [draw(spoilt(st.just(one), cell)) for one in draw(st.lists(row, max_size=6))]
    file = io.StringIO()
    csv.writer(file, delimiter=draw(st.sampled_from(",;\t"))).writerows([columns, *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"]))
    data = file.getvalue().encode(encoding, "replace")
    if draw(st.integers(0, 9)):
        return data, sum(any(map(str.strip, one)) for one in rows)
    return data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=4)), -1


@FUZZ
@given(full, tables())
def test_tables(files: dict[str, bytes], table: tuple[bytes, int]) -> None:
    data, rows = table

    def count(found: SampleSet, root: Path) -> None:
        if rows >= 0:
            add_up(found, told(found, *OFF_PICTURE), rows)

    check(files | {"t.csv": data}, "t.csv", count)


# ---- COCO ------------------------------------------------------------------------------------

box = st.sampled_from(
    [[10, 5, 10, 5], [0, 0, 40, 20], [30, 5, 30, 5], [0, 0, 10**400, 5]]
) | st.lists(st.integers(-5, 50) | st.floats(-5, 50), min_size=4, max_size=4)
outline = st.one_of(
    st.lists(st.lists(st.integers(-5, 50) | number, min_size=6, max_size=6), max_size=2),
    st.fixed_dictionaries({
        "size": st.just([20, 40]) | st.lists(st.integers(-1, 50), max_size=3),
        "counts": st.lists(st.integers(-9, 900), max_size=5) | st.text(max_size=8),
    }),
)  # fmt: skip
sizes = st.sampled_from([{}, {"width": 40, "height": 20}, {"width": 80, "height": 40}])


@st.composite
def coco(draw: Any) -> dict[str, Any]:
    """A sound file but for what is missing or outside."""
    files = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    kinds = draw(st.lists(words, min_size=1, max_size=3))
    image_id, category_id = st.integers(0, len(files)), st.integers(0, len(kinds) - 1)
    annotation = st.fixed_dictionaries(
        {"image_id": image_id, "category_id": category_id, "bbox": box},
        optional={"segmentation": outline, "iscrowd": st.integers(0, 1)},
    )
    annotations = draw(st.lists(annotation, max_size=6))
    return {
        "images": [{"id": i, "file_name": n} | draw(sizes) for i, n in enumerate(files)],
        "categories": [{"id": float(i), "name": name} for i, name in enumerate(kinds)],
        "annotations": annotations,
    }


@FUZZ
@given(full, spoilt(coco()))
def test_coco(files: dict[str, bytes], table: Any) -> None:
    def count(found: SampleSet, root: Path) -> None:
        lost = told(found, Kind.UNLISTED, Kind.CROWD, Kind.NO_BOX, *OFF_PICTURE)
        add_up(found, lost, len(table["annotations"]))

    check(files | {"t.json": json.dumps(table).encode()}, "t.json", count)


# ---- YOLO ------------------------------------------------------------------------------------

share = st.sampled_from(["0.5", ".25", "1", "0", "1.04", "-0.1", "nan", "120", "1e999", "x"])
line = st.one_of(
    st.lists(share, max_size=9).map(lambda values: " ".join(["1", *values])),
    st.lists(st.sampled_from([".5", ".2"]), min_size=4, max_size=4).map(
        lambda v: f"0 {' '.join(v)}"
    ),
    st.text(max_size=6),
)
ENTRIES = ["train: images", "val: x", "train: gone", "path: images", "path: x", "kpt_shape: [1, 3]"]
ENTRIES += ["train: t.txt", "kpt_shape: x", "test:", "val: [x, [y]]", "? [a]\n: b"]
ENTRIES += ["x: !!python/x y"]
NAMED = ["[sheep, no]", "{0: a, 1: b}", "x", "[]", "[[a]]", "{a: b}", "&a [*a]"]
settings_text = st.one_of(
    st.builds(
        lambda names, rest: "\n".join([f"names: {names}", *rest]),
        st.sampled_from(NAMED[:2]) | st.sampled_from(NAMED),
        st.lists(st.sampled_from(ENTRIES), max_size=2, unique=True),
    ),
    st.text(max_size=20),
)


@FUZZ
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(line, max_size=4), min_size=1),
    st.sampled_from(FILES), st.none() | settings_text,
)  # fmt: skip
def test_yolo(labels: dict[str, list[str]], last: bytes, yaml: str | None) -> None:
    files = {f"images/{name}.jpg": SOUND for name in labels if name != "c"} | {"images/d.jpg": last}
    files |= {f"labels/{n}.txt": "\n".join(lines).encode() for n, lines in labels.items()}
    text = ("data.yaml", yaml) if yaml is not None else ("classes.txt", "sheep\ngoat")
    files |= {text[0]: text[1].encode("utf-8", "replace"), "t.txt": b"images/a.jpg\n./images/z.jpg"}

    def count(found: SampleSet, root: Path) -> None:
        seen = {Path(name).stem for name in places(found, Kind.NOT_BOXED)}
        seen |= {one.path.stem for one in found}
        lines = [t for n in seen & labels.keys() for t in "\n".join(labels[n]).splitlines()]
        read = sum(bool(text.strip()) for text in lines)
        assert len(found) + told(found, Kind.MALFORMED, *OFF_PICTURE) == read
        strays = {Path(name).stem for name in places(found, Kind.STRAY_LABELS)}
        assert set(labels) - seen <= strays

    check(files, "", count)


# ---- masks -----------------------------------------------------------------------------------


@FUZZ
@given(spoilt(outline), st.sampled_from([(40, 20), (80, 40), (20, 40), (3, 3), None]))
def test_masks(segmentation: Any, size: tuple[int, int] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = tree(Path(folder), {"a.jpg": SOUND}) / "a.jpg"
        masks = Masks(("x",), outlines=(("x", segmentation),), size=size)
        drawn, said = refused(lambda: masks.draw(path))
        if drawn is None:
            assert "segmentation" in said or "expected the same shape" in said, said
        else:
            assert drawn.shape == (20, 40)
            assert set(np.unique(drawn)) <= {-1, 0}


@FUZZ
@given(st.integers(1, 300), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_packed_masks(height: int, width: int, share: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    mask[: height // 2] = mask[0]  # long runs, too
    packed = coco_mask.encode(np.asfortranarray(mask))
    written = packed | {"counts": packed["counts"].decode()}
    assert run_lengths(written, height, width) == packed
