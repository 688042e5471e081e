"""What came in with ids goes out with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cliplab.data import SampleSet, read_pictures
from cliplab.detection import Cut, Detections, as_classes, as_coco
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


def test_boxes_keep_the_ids_of_their_source(own: Path) -> None:
    pictures = read_pictures(own)
    a = detections(([5.0, 5, 25, 25], 0.9, 1), ([0.0, 0, 9, 9], 0.8, 2))
    b = detections(([2.0, 2, 12, 12], 0.7, 0))
    found = Found(pictures.samples, ((40, 30),) * 2, (a, b), (a, b), (), Cut())
    table = as_coco(found, as_classes(["sheep", "goat", "dog"]), ids=pictures.ids)
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
