"""What came in with ids goes out with them."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cliplab.data import SampleSet, read_pictures
from cliplab.detection import Cut, Detections, Query, as_classes, as_coco, judge
from cliplab.detection.finding import Found
from cliplab.segmentation import Panoptic
from cliplab.viz import NOTHING


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's COCO file whose ids are not 1, 2, 3."""
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    pairs = ((70, "b.png", 5, [2, 2, 10, 10]), (12, "a.png", 9, [5, 5, 20, 20]))
    size = {"width": 40, "height": 30}
    table = {
        "images": [{"id": key, "file_name": name, **size} for key, name, _, _ in pairs],
        "categories": [{"id": 9, "name": "goat"}, {"id": 5, "name": "sheep"}],
        "annotations": [
            {"id": i, "image_id": key, "category_id": k, "bbox": box, "area": 100, "iscrowd": 0}
            for i, (key, _, k, box) in enumerate(pairs, 1)
        ],
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True)
    names = ("sheep", "goat", "dog")
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), names)


def out_of(own: Path) -> dict:
    """What `detect --out` writes about these pictures."""
    pictures = read_pictures(own)
    a = detections(([5.0, 5, 25, 25], 0.9, 1), ([0.0, 0, 9, 9], 0.8, 2))
    b = detections(([2.0, 2, 12, 12], 0.7, 0))
    found = Found(pictures.samples, ((40, 30),) * 2, (a, b), (a, b), (), Cut())
    return as_coco(found, as_classes(["sheep", "goat", "dog"]), ids=pictures.ids)


def test_boxes_keep_the_ids_of_their_source(own: Path) -> None:
    table = out_of(own)
    assert [(one["id"], one["file_name"]) for one in table["images"]] == [
        (12, "a.png"), (70, "b.png"),
    ]  # fmt: skip
    assert {c["name"]: c["id"] for c in table["categories"]} == {"sheep": 5, "goat": 9, "dog": 1}
    truth = COCO(str(own))
    judged = COCOeval(truth, truth.loadRes(table["annotations"]), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1)


def test_segments_keep_the_ids_of_their_source(own: Path, tmp_path: Path) -> None:
    pictures: SampleSet = read_pictures(own)
    path, target = tmp_path / "pan.json", tmp_path / "pan" / "b.png"
    target.parent.mkdir()
    written = Panoptic(path, ("background", "sheep"), (NOTHING, "#ff0000"), pictures)
    labels = np.zeros((30, 40), np.uint8)
    labels[:10] = 1
    written.add(pictures[1].path, labels, target)
    written.write()
    table = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["id"], one["file_name"]) for one in table["images"]] == [(70, "b.png")]
    assert [one["id"] for one in table["categories"]] == [5]
    assert [s["category_id"] for s in table["annotations"][0]["segments_info"]] == [5]


@pytest.mark.skipif("OTHER_READERS" not in os.environ, reason="see tools/other_readers.py")
def test_label_tools_read_the_boxes(own: Path) -> None:
    """Label Studio's converter and datumaro, in an environment of their own."""
    out = own.with_name("out.json")
    out.write_text(json.dumps(out_of(own)), encoding="utf-8")
    tool = Path(__file__).parents[1] / "tools" / "other_readers.py"
    command = [os.environ["OTHER_READERS"], str(tool), str(out)]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert told
    expected = {
        "a.png": [["dog", 0, 0, 9, 9], ["goat", 5, 5, 20, 20]],
        "b.png": [["sheep", 2, 2, 10, 10]],
    }
    for reader, read in told.items():
        assert read.keys() == expected.keys(), reader
        for name, rows in expected.items():
            boxes = sorted(read[name])
            assert [row[0] for row in boxes] == [row[0] for row in rows]
            numbers = np.array([row[1:] for row in boxes], float)
            np.testing.assert_allclose(numbers, [row[1:] for row in rows], atol=1e-4)


def test_other_libraries_read_the_boxes_and_score_them_alike(tmp_path: Path) -> None:
    """Of `cliplab[oracles]`: faster-coco-eval and supervision, with ids of the user's own."""
    faster = pytest.importorskip("faster_coco_eval")
    supervision = pytest.importorskip("supervision")
    from supervision.metrics import MeanAveragePrecision

    rng, names = np.random.default_rng(0), ("sheep", "goat", "dog")
    images, annotations, answers = [], [], []
    for n in range(6):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{n}.png")
        images.append({"id": 90 - n, "file_name": f"{n}.png", "width": 64, "height": 48})
        boxes = [[4 + 20 * i, 6, 4 + 20 * i + 15, 6 + 20] for i in range(3)]
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 90 - n, "category_id": 7 - i % 2,
                 "bbox": [x0, y0, x1 - x0, y1 - y0], "area": 300, "iscrowd": 0}
            )  # fmt: skip
        moved = np.clip(np.array(boxes) + rng.normal(0, 1.2, (3, 4)), 0, 48).tolist()
        scores = sorted(rng.uniform(0.5, 1, 3).round(3), reverse=True)
        answers.append(detections(*zip(moved, scores, rng.permutation([0, 1, 0]), strict=True)))
    kinds = [{"id": 7, "name": "sheep"}, {"id": 6, "name": "goat"}]
    lists = {"images": images, "categories": kinds, "annotations": annotations}
    own, out = tmp_path / "own.json", tmp_path / "out.json"
    own.write_text(json.dumps({"info": {}, "licenses": [], **lists}), encoding="utf-8")
    pictures = read_pictures(own)
    found = Found(pictures.samples, ((64, 48),) * 6, tuple(answers), tuple(answers), (), Cut())
    classes = as_classes(list(names))
    out.write_text(json.dumps(as_coco(found, classes, ids=pictures.ids)), encoding="utf-8")
    judged = judge(found, Query(classes=classes), pictures.ids)
    assert judged is not None
    assert 0.1 < judged.counting.ap < 0.9
    # faster-coco-eval
    truth = faster.COCO(str(own))
    told = truth.loadRes(json.loads(out.read_text(encoding="utf-8"))["annotations"])
    scored = faster.COCOeval_faster(truth, told, "bbox")
    scored.run()
    assert scored.stats[0] == pytest.approx(judged.counting.ap, abs=1e-6)
    # supervision
    true, read = (
        supervision.DetectionDataset.from_coco(str(tmp_path), str(path)) for path in (own, out)
    )
    places = {Path(path).name: one for path, one in read.annotations.items()}
    metric = MeanAveragePrecision()
    for picture, answer in zip(pictures, answers, strict=True):
        mine = places[picture.path.name]
        np.testing.assert_allclose(mine.xyxy, answer.boxes_xyxy.numpy(), atol=1e-3)
        assert [read.classes[k] for k in mine.class_id] == answer.names
        mine.confidence = answer.scores.numpy()
        (same,) = [one for path, one in true.annotations.items() if Path(path) == picture.path]
        mine.class_id = np.array([names.index(read.classes[k]) for k in mine.class_id])
        same.class_id = np.array([names.index(true.classes[k]) for k in same.class_id])
        metric.update(mine, same)
    assert metric.compute().map50_95 == pytest.approx(judged.counting.ap, abs=1e-2)
