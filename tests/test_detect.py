"""`python -m cliplab detect`: tables, COCO, pictures and report of real files, and every misuse."""

import re
from pathlib import Path

import numpy as np
import pytest
from detect_world import Oracle, picture, run, said, told
from json_files import coco, read, write
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cliplab.cli import detect
from cliplab.cli.options import parse
from cliplab.cli.skeleton import targets_in
from cliplab.data import Sample, read_pictures
from cliplab.detection import MODELS, annotated, finding
from cliplab.detection.settings import Cut, Model, Settings

NAMES = ["sheep", "goat"]
LEFT, RIGHT = [5.0, 5.0, 20.0, 30.0], [30.0, 5.0, 25.0, 30.0]  # x, y, width, height
LEFT_XYXY, RIGHT_XYXY = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three pictures, one of them with a name full of traps."""
    folder = tmp_path / "frames"
    for i, name in enumerate(["a.png", "b, '羊' & <i>.jpg", "sub/c.png"]):
        picture(folder / name, seed=i)
    return folder


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model `oracle` that finds a sheep left and a goat right in each picture."""
    both = [(0, 0.9, LEFT_XYXY), (1, 0.6, RIGHT_XYXY), (1, 0.2, LEFT_XYXY)]

    def load(where: str, settings: Settings) -> Oracle:
        return Oracle([list(both) for _ in range(9)], {"base": (1,)})

    monkeypatch.setitem(MODELS, "oracle", Model(frozenset(), "knows"))
    monkeypatch.setitem(finding._LOADERS, "oracle", load)


# ---- what it gives -----------------------------------------------------------------------------


@pytest.mark.usefixtures("world")
def test_a_flock_and_words_give_boxes_pictures_and_a_report(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn, report = tmp_path / "o.json", tmp_path / "drawn", tmp_path / "r.json"
    code = run(
        *(frames, "--labels", "sheep lying", "goat", "--device", "cpu", "--score", 0),
        *("--out", out, "--pictures", drawn, "--json", report, "--html", tmp_path / "g.html"),
    )
    assert code == 0
    printed, complaints = capsys.readouterr()
    assert not re.search("^(problem|unreadable|warning)", complaints, re.M)
    assert "note: 1 of the 2 labels had boxes in the detector's training (base): for" in complaints
    found = told(out)
    assert list(found) == ["a.png", "b, '羊' & <i>.jpg", "sub/c.png"]
    counts = {name: len(boxes) for name, boxes in found.items()}
    assert 0 < counts["a.png"] <= 100
    assert re.search(rf"^a\.png +{counts['a.png']}  \d+ (goat|sheep lying)", printed, re.M)
    boxes = sum(len(one.regions) for one in read_pictures(out, images=frames))
    assert boxes == sum(counts.values())
    written = read(report)
    assert written["counts"]["boxes"] == sum(row["boxes"] for row in written["summary"])
    assert written["counts"] == {
        "pictures": 3, "read": 3, "unreadable": 0, "boxes": boxes, "judged": 0,
    }  # fmt: skip
    assert written["model"]["head"] == "ensemble"
    assert written["teacher"]["name"] == "pasture"
    copies = [path.relative_to(drawn).as_posix() for path in sorted(drawn.rglob("*.jpg"))]
    assert copies == ["a.jpg", "b, '羊' & <i>.jpg", "sub/c.jpg"]
    with Image.open(drawn / "a.jpg") as image:
        assert image.size == (800, 533)


@pytest.mark.usefixtures("oracle")
def test_boxes_of_the_source_judge_what_was_found(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {"a.png": [("sheep", LEFT), ("goat", RIGHT)], "sub/c.png": [("goat", RIGHT)]}
    source = write(tmp_path / "herd.json", coco(NAMES, truth))
    report, out = tmp_path / "r.json", tmp_path / "o.json"
    options = ("--labels", *NAMES, "--model", "oracle", "--json", report, "--out", out)
    assert run(source, "--images", frames, *options) == 0
    printed, complaints = capsys.readouterr()
    assert "knows boxes of 2 of the 2 labels, by which the answer is judged\n" in complaints
    assert "note: it knows" in complaints
    assert re.search(r"^label +group +boxes +pictures .* AP50 +AP$", printed, re.M)
    assert re.search(r"^goat +base +2 +2 +0\.600 +2 +2 +0 +1\.000", printed, re.M)
    assert re.search(r"^sheep +2 +2 +0\.900 +1 +1 +1 +", printed, re.M)
    assert re.search(r"^base +1 +1\.000", printed, re.M)
    assert "judged in 2 pictures" in printed
    goat = next(row for row in read(report)["summary"] if row["name"] == "goat")
    assert (goat["true"], goat["hit"], goat["ap50"]) == (2, 2, 1.0)
    assert told(out)["a.png"] == [("sheep", LEFT, 0.9), ("goat", RIGHT, 0.6)]


@pytest.mark.parametrize("odd", ["plain", "clipped", "close scores", "crowd"])
def test_precision_of_out_is_that_of_the_file(
    odd: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pycocotools says of --out and the user's own file, ids of its own in an own order."""
    rng, scale = np.random.default_rng(0), 2e-5 if odd == "close scores" else 0.4
    boxes = np.stack([[5.0 + 18 * (i % 3), 4.0 + 17 * (i // 3), 14, 13] for i in range(6)])
    files = ["sub/c.png", "b, '羊' & <i>.jpg", "a.png"]
    truth = {name: [(NAMES[i % 2], box.tolist()) for i, box in enumerate(boxes)] for name in files}
    table = coco(NAMES, truth)
    for one in table["annotations"]:
        one |= {"iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3]}
    if odd == "clipped":
        table["annotations"][2]["bbox"] = [41.0, 4.0, 30.0, 13.0]
    if odd == "crowd":
        table["annotations"][2] |= {"bbox": [35.0, 0.0, 25.0, 40.0], "iscrowd": 1}
    source = write(tmp_path / "herd.json", table)
    answers = []
    for _ in files:
        moved = boxes + rng.normal(0, 1.0, boxes.shape)
        moved[:, 2:] += moved[:, :2]
        scores = 0.55 + scale * rng.random(len(boxes))
        labels = [i % 2 if rng.random() < 0.8 else 1 - i % 2 for i in range(len(boxes))]
        answers.append(list(zip(labels, scores.tolist(), moved.tolist(), strict=True)))
    monkeypatch.setitem(MODELS, "oracle", Model(frozenset(), "knows"))
    monkeypatch.setitem(finding._LOADERS, "oracle", lambda where, settings: Oracle(answers))
    report, out = tmp_path / "r.json", tmp_path / "o.json"
    options = ("--labels", *NAMES, "--model", "oracle", "--json", report, "--out", out)
    assert run(source, "--images", frames, *options) == 0
    own = COCO(str(source))
    judged = COCOeval(own, own.loadRes(read(out)["annotations"]), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert 0.1 < judged.stats[0] < 0.9
    assert read(report)["precision_of_out"]["ap"] == pytest.approx(judged.stats[0], abs=1e-4)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("model", ["vild", "crops"])
def test_boxes_may_be_given(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    truth = {"a.png": [("sheep", LEFT), ("goat", RIGHT), ("goat", LEFT)]}
    boxes, out = write(tmp_path / "herd.json", coco(NAMES, truth)), tmp_path / "o.json"
    arguments = ("--model", model, "--out", out, "--device", "cpu", "--force", "--boxes", boxes)
    for source in ((frames, "--labels", "goat", "sheep"), (boxes, "--images", frames)):
        assert run(*source, *arguments) == 0
        printed, complaints = capsys.readouterr()
        found = told(out)
        assert sorted(box for _, box, _ in found["a.png"]) == [LEFT, LEFT, RIGHT]
        assert found.get("sub/c.png", []) == []
        assert "2 of the 2 labels, by which the answer is judged\n" in complaints
        assert "judged in 1 picture:" in printed  # of the others nobody said that they are empty


@pytest.mark.usefixtures("world")
def test_answers_of_a_detector_can_be_named_anew(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    labels = ("--labels", "goat", "sheep", "--device", "cpu")
    assert run(frames, *labels, "--score", 0, "--top", 5, "--out", first) == 0
    capsys.readouterr()
    assert run(frames, *labels, "--boxes", first, "--model", "crops", "--out", second) == 0
    printed, complaints = capsys.readouterr()
    assert "a detector drew them" in complaints
    assert "judged" not in printed
    assert [len(boxes) for boxes in told(second).values()] == [5, 5, 5]


@pytest.mark.usefixtures("oracle")
def test_labels_that_are_no_classes_of_the_boxes_are_not_judged(
    frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(frames / "herd.json", coco(NAMES, {"a.png": [("sheep", LEFT)]}))
    assert run(source, "--labels", "a sheep", "a goat", "--model", "oracle") == 0
    printed, complaints = capsys.readouterr()
    assert "not judged: none of the labels is a class of the boxes (sheep)" in complaints
    assert "AP50" not in printed


# ---- options and outputs -----------------------------------------------------------------------


def test_every_option_reaches_the_model() -> None:
    def settings(*typed: str) -> Settings:
        options = parse(detect.Options, ["x", *typed], prog="x", about="", epilog="")
        return options.settings

    given = settings("--score", ".1", "--iou", ".2", "--top", "300", "--template", "a {}", "{}")
    assert given.cut() == given.cut(given=True) == Cut(0.1, 0.2, top=300)
    assert (given.template, given.most) == (("a {}", "{}"), 300)
    assert settings().cut() == Cut(0.5, 0.5, top=100)
    assert settings().cut(given=True) == Cut(0.0, None, top=None)


@pytest.mark.usefixtures("oracle")
def test_what_is_read_is_never_replaced(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = write(tmp_path / "boxes.json", {})
    before = {path: path.read_bytes() for path in (boxes, *frames.rglob("*.*"))}
    for model, options, message in (
        ("crops", ("--boxes", boxes, "--out", boxes), "would overwrite --boxes, with --force too"),
        ("oracle", ("--pictures", frames), "holds the pictures that are read"),
    ):
        assert run(frames, "--labels", "sheep", "--model", model, *options, "--force") == 2
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_annotated_copies_stay_in_their_folder_and_apart(tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/root.png", "d/a.png", "d/a.jpg.png", "d/a.jpg", "../d/a.jpg"]
    names += ["C:/e/windows.png", "//host/share.png"]
    files = [
        "e/windows.jpg",
        "host/share.jpg",
        "up.jpg",
        "etc/root.jpg",
        "d/a.jpg",
        "d/a.jpg.jpg",
        "d/a.jpg-2.jpg",
        "d/a.jpg-3.jpg",
    ]
    pictures = [Sample(tmp_path / str(i), name=name) for i, name in enumerate(names)]
    targets = targets_in(tmp_path / "drawn", pictures, [".jpg"], option="--pictures")
    inside = [path.relative_to(tmp_path / "drawn").as_posix() for (path,) in targets.values()]
    assert sorted(inside) == sorted(files)


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("ax")  # where the house style is on, its layout asks for other axes
def test_an_annotated_picture_shows_its_boxes() -> None:
    grey = Image.new("RGB", (60, 40), (128, 128, 128))
    answers = [(0, 0.9, LEFT_XYXY), (1, 0.6, RIGHT_XYXY)]
    drawn = annotated(grey, said(NAMES, answers))
    assert drawn.size == (800, 533)
    pixels = np.asarray(drawn).astype(int)
    scale = 800 / 60
    for k, (x0, y0, x1, y1) in enumerate((LEFT_XYXY, RIGHT_XYXY)):
        paint = np.array([(0, 114, 178), (213, 94, 0)][k])
        for x, y in ((x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), ((x0 + x1) / 2, y1)):
            column, row = round(x * scale), round(y * scale)
            around = pixels[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
            assert np.abs(around - paint).sum(1).min() < 12, (k, x, y)
    bare = annotated(grey, said(NAMES, []))
    assert np.unique(np.asarray(bare)).tolist() == [128]
    assert max(annotated(grey.resize((4000, 30)), said(NAMES, [])).size) == 1600
