"""CSV manifests as people and spreadsheets write them."""

import os
from pathlib import Path

import pytest
from photos_world import told, tree

from cliplab.data import Problem, ProblemKind, Sample, SampleSet, read_photos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures of 40 x 20: a, b, c and 羊 in a sub-folder."""
    return tree(tmp_path, {"a.png": "red", "b.png": "lime", "c.png": "blue", "more/羊.png": "tan"})


def table(root: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    (root / name).write_bytes(data)
    return root / name


SHEEP = [("a.png", "sheep"), ("more/羊.png", "goat")]


@pytest.mark.parametrize(("separator", "end"), [(",", "\n"), (";", "\r\n"), ("\t", "\r")])
def test_separators_and_line_ends(root: Path, separator: str, end: str) -> None:
    rows = ["image,label", "a.png,sheep", "", "more/羊.png,goat", ""]
    found = read_photos(table(root, end.join(rows).replace(",", separator)))
    assert told(found) == SHEEP
    assert (found.root, found.class_names) == (root, ("goat", "sheep"))
    assert found[1].path == root / "more" / "羊.png"


@pytest.mark.parametrize(("encoding", "remarks"), [("utf-8", 0), ("utf-8-sig", 0), ("gb18030", 1)])
def test_encodings(root: Path, encoding: str, remarks: int) -> None:
    text = "图片,标签\na.png,sheep\nmore/羊.png,goat\n"
    found = read_photos(table(root, text.encode(encoding)))
    assert told(found) == SHEEP
    remark = "tables that are not UTF-8 (1): manifest.csv is read as GB18030"
    assert [str(one) for one in found.problems if "read as" in str(one)] == [remark] * remarks


@pytest.mark.parametrize("name", ["image", "File", " path ", "filename", "file_name", "图片"])
def test_names_of_the_column_of_pictures(root: Path, name: str) -> None:
    for other in ("weight", "文件名"):  # the better name of two counts
        found = read_photos(table(root, f"{other},{name},label\n3,a.png, sheep \n"))
        assert told(found) == [("a.png", "sheep")]


def test_all_columns(root: Path) -> None:
    text = (
        "image;label;animal;split;x1;y1;x2;y2\n"
        "a.png;sheep;Dolly;training;1;2;11;12.5\n"
        "a.png;sheep;Molly;valid;20;0;40;20\n"
        "b.png;goat;;TEST;;;;\n"
    )
    first, second, third = read_photos(table(root, text))
    assert first == Sample(root / "a.png", "sheep", (1, 2, 11, 12.5), "Dolly", "train", "a.png#1")
    assert second == Sample(root / "a.png", "sheep", (20, 0, 40, 20), "Molly", "val", "a.png#2")
    assert third == Sample(root / "b.png", "goat", None, None, "test", "b.png")
    assert first.open().size == (10, 11)


def test_pictures_elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    absolute = (root / "a.png").as_posix()
    found = read_photos(table(root, f"image,label\nmore\\羊.png,x\n{absolute},y\n"))
    assert told(found) == [("more/羊.png", "x"), ("a.png", "y")]
    path = table(tmp_path_factory.mktemp("tables"), "image,label\na.png,x\nb.png,y\n")
    found = read_photos(path, images=root)
    assert (found.root, found[0].path) == (root, root / "a.png")
    assert read_photos(root, boxes=path).samples == found.samples
    with pytest.raises(FileNotFoundError, match=r"none of its 2 pictures is in .*; paths are"):
        read_photos(path)


# ---- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column names pictures; got the columns none; expected image"),
        (b"image,label\n\xff\xff\xff,\x80\n", "not a text in UTF-8 or GB18030; save it as UTF-8"),
        (b"image\0,label\n", "not a text in UTF-8 or GB18030; save it as UTF-8"),
        ("image,label\n", "no rows below the header; expected a picture on each"),
        ("name,label\na.png,x\n", r"got the columns 'name', 'label'; expected image"),
        ("a.png,sheep\n", r"got the columns 'a\.png', 'sheep'; .* comma, semicolon"),
        (
            "image,image\na.png,b.png\n",
            "'image', 'image' mean the same; got the columns .* each once",
        ),
        ("image,x1,y1\na.png,1,2\n", "boxes from 'x1', 'y1'; got the .* x1, y1, x2, y2"),
        ("image,label,bbox\na.png,x,1\n", "read boxes from 'bbox'; got the columns 'image', 'l"),
        ("image,label,Box\na.png,x,1\n", "read boxes from 'Box'; got"),
        ("image,xmin,label\na.png,1,x\n", "read boxes from 'xmin'; got"),
        ("image,bounding_box\na.png,1\n", "read boxes from 'bounding_box'; got"),
        ("image,bbox_xyxy\na.png,1\n", "read boxes from 'bbox_xyxy'; got"),
        ("image\tlabel\na.png\tx\nb.png,y\n", ":3: more or fewer cells than the 2"),
        ("image,label\n\na.png\n", ":3: more or fewer cells .* quote cells with"),
        ("image,label\na.png,white, lying\n", ":2: more or fewer cells than the 2"),
        ("image,label\n,x\n", ":2: no picture in this row; expected its path"),
        ("image,split\na.png,train\nb.png,\n./a.png,test\n", ":4: .* has split test, and train"),
        ('image,label\n"a.png,x\n', ":2: .*; mend the quotes"),
        ("image,split\na.png,holdout\n", ":2: split 'holdout'; expected train, val, test"),
        ("image,x1,y1,x2,y2\na.png,1,2,,\n", ":2: box '1', '2', '', ''; expected four numbers"),
        ("image;x1;y1;x2;y2\na.png;1,5;2;3;4\n", ":2: box '1,5', .*with a decimal point"),
        ("image,x1,y1,x2,y2\na.png,1,2,inf,4\n", ":2: box .*; expected four numbers"),
        (
            "image,x1,y1,x2,y2\na.png,30,2,8,9\n",
            ":2: box '30', .* not width and height",
        ),
        (
            "image,x1,y1,x2,y2\na.png,0.1,0.2,0.5,1\n",
            r"all boxes lie between 0 and 1, the first is \(0\.1, .* multiply by",
        ),
        (
            "image,x1,y1,x2,y2\na.png,3,3,3,9\n",
            r"no picture and no box left; boxes without area or outside .*: a\.png \(3, 3, 3, 9\)",
        ),
    ],
)
def test_faults_are_named(root: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_photos(table(root, text))


def test_missing_pictures_are_listed(root: Path) -> None:
    text = "image,label\n" + "".join(f"{name}.png,x\n" for name in "abcdefgh")
    found = read_photos(table(root, text))
    assert [photo.name for photo in found] == ["a.png", "b.png", "c.png"]
    assert str(found.problems[0]) == (
        "pictures that are missing, left out (5): d.png (line 5), e.png (line 6), f.png (line 7) "
        "and 2 more"
    )


# ---- writing ---------------------------------------------------------------------------------


def test_what_is_written_reads_back_the_same(root: Path) -> None:
    photos = [
        Sample(root / "a.png", "sheep", (1, 2, 11.25, 12 + 1 / 3), "Dolly", "train", "a.png#1"),
        Sample(root / "a.png", "goat", (20, 0, 40, 20), None, "train", "a.png#2"),
        Sample(root / "more" / "羊.png", None, None, "a, b", "test", "more/羊.png"),
        Sample(root / "c.png", 'say "baa"', None, None, None, "c.png"),
    ]
    before = SampleSet.of(photos, root)
    path = before.write_manifest(root / "manifest.csv")
    after = read_photos(path)
    assert after.samples == before.samples
    assert (after.root, after.class_names) == (root, before.class_names)
    assert read_photos(root).samples == before.samples  # the folder is read through its manifest
    with pytest.raises(FileExistsError, match=r"manifest\.csv: exists already; .*force=True"):
        before.write_manifest(path)
    before.write_manifest(path, force=True)
    elsewhere = before.write_manifest(root.parent / "out" / f"{root.name}.csv")
    assert [os.path.realpath(photo.path) for photo in read_photos(elsewhere)] == [
        os.path.realpath(photo.path) for photo in before
    ]
    assert elsewhere.read_text("utf-8").splitlines()[4].startswith(f"../{root.name}/c.png,")


def test_pictures_that_the_table_does_not_list_are_remarked_on(root: Path) -> None:
    table(root, "image,label\na.png,x\nb.png,y\n")
    strays = Problem(ProblemKind.STRAY_PICTURES, ("c.png", "more/羊.png"))
    assert strays in read_photos(root).problems
    assert strays not in read_photos(root / "manifest.csv").problems
