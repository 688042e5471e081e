"""What data/photos/README.md shows is run as it stands there."""

import re
from pathlib import Path

import pytest
from PIL import Image

from cliplab.data import read_photos
from cliplab.pasture.dataset import portraits

README = Path(__file__).parent.parent / "data" / "photos" / "README.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def make(path: Path, size: tuple[int, int] = (640, 480)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, sum(path.name.encode()) % 256).save(path)


def test_python_examples_run_in_a_row(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = portraits("train", 24, size=64)
    for i, (image, example) in enumerate(zip(pictures.pil(), pictures.examples, strict=True)):
        path = in_tmp / "data" / "photos" / example.combo.posture / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    first, split, again = blocks("python")
    names: dict = {}
    exec(first, names)
    assert capsys.readouterr().out.splitlines()[0].startswith("24 ('drinking', 'eating', ")
    exec(split, names)
    before = {photo.name: photo.split for photo in names["photos"]}
    assert set(before.values()) == {"train", "val", "test"}
    assert names["photos"].problems == ()
    for i, image in enumerate(portraits("val", 6, size=64).pil()):
        image.save(in_tmp / "data" / "photos" / "lying" / f"new{i}.jpg")
    exec(again, names)
    after = {photo.name: photo.split for photo in read_photos("data/photos")}
    assert {name: after[name] for name in before} == before
    assert len(after) == 30
    assert None not in after.values()


def test_the_folder_the_table_and_the_boxes_are_as_drawn(tmp_path: Path) -> None:
    folder, table, yolo = blocks("text")
    for line in folder.splitlines()[1:]:
        label, *files = line.split()
        for name in files:
            make(tmp_path / "folder" / label / name)
    assert read_photos(tmp_path / "folder").class_names == ("lying", "standing", "喝水")
    for name in ("IMG_0012.jpg", "flock.jpg"):
        make(tmp_path / name)
    (tmp_path / "manifest.csv").write_text(table, encoding="utf-8")
    rows = [(p.label, p.group, p.split, p.box_xyxy) for p in read_photos(tmp_path / "manifest.csv")]
    assert rows == [
        ("standing", "Dolly", "train", None),
        ("lying", "Molly", "test", (120, 80, 310, 240)),
        ("standing", "Polly", "test", (400, 60, 520, 260)),
    ]
    for line in yolo.splitlines()[1:]:
        name, _, text = line.strip().partition(" ")
        if name.endswith(".jpg"):
            make(tmp_path / "yolo" / name)
        else:
            (tmp_path / "yolo" / name).parent.mkdir(parents=True, exist_ok=True)
            content = "sheep\n" if name == "classes.txt" else text.strip()
            (tmp_path / "yolo" / name).write_text(content, encoding="utf-8")
    (box,) = [photo.box_xyxy for photo in read_photos(tmp_path / "yolo")]
    assert box == pytest.approx((260.48, 163.2, 394.88, 249.6))


def test_every_name_that_is_read_is_documented() -> None:
    from cliplab.data import reading, source, yolo
    from cliplab.data.files import SUFFIXES

    text = re.sub(r"`|_(?=name)", "", README.read_text(encoding="utf-8"))
    names = [name for names in reading._ALIASES.values() for name in names]
    boxes = [",".join(way) for way in reading._CORNERS + reading._EXTENTS]
    for name in (*names, *boxes, *SUFFIXES, *source._STEMS, yolo.SETTINGS[-1], *yolo.NAME_FILES):
        assert name in text, name
