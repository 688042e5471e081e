"""The shipped detectors on 100 fresh herds, as README asks: what they find, what is right."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from cliplab import detection, pasture
from cliplab.detection.vild import contest_of, nested

HERDS = [pasture.herd(seed, split="test") for seed in range(5_000_000, 5_000_100)]


@pytest.fixture(scope="module")
def vild() -> detection.Detector:
    return detection.load_detector("vild", detection.Settings(device="cpu"))


@pytest.fixture(scope="module")
def glip() -> detection.Detector:
    return detection.load_detector("glip", detection.Settings(device="cpu"))


def counted(
    detector: detection.Detector, labels: Sequence[str], scenes: Sequence[pasture.Scene],
    asked: str | None = None,
) -> dict[str, tuple[int, int, int]]:  # fmt: skip
    """Label -> animals that show, boxes at the default threshold, boxes that are right.

    `asked` is the list that a GLIP reads, in the order of the labels.
    """
    words = labels if asked is None else detection.read_phrases([asked])
    query, rows = detector.read(words), {name: (0, 0, 0) for name in labels}
    for scene in scenes:
        (said,) = detector.detect([pasture.draw(scene, 256)], query)
        found = detection.postprocess(said, nested=query.nested)
        told = pasture.labels(scene, 256)
        for k, name in enumerate(labels):
            kind = [set(name.split()) <= {a.species, a.colour} for a in scene.animals]
            boxes = found.boxes_xyxy[found.labels == k]
            true = (
                torch.from_numpy(told.boxes_xyxy).float().reshape(-1, 4)[torch.tensor(kind).bool()]
            )
            right = int((box_iou(true, boxes) >= 0.5).any(1).sum()) if len(boxes) else 0
            shown = sum(x and v >= 0.3 for x, v in zip(kind, told.visible, strict=True))
            rows[name] = tuple(
                a + b for a, b in zip(rows[name], (shown, len(boxes), right), strict=False)
            )
    return rows


def test_readmes_example_is_mostly_right_and_nested_labels_change_nothing(vild) -> None:
    plain = counted(vild, ["sheep", "goat"], HERDS)
    animals, boxes, right = map(sum, zip(*plain.values(), strict=True))
    assert right / boxes >= 0.8
    assert right / animals >= 0.8
    both = counted(vild, ["sheep", "goat", "black sheep"], HERDS)
    assert abs(both["sheep"][2] - plain["sheep"][2]) <= 3
    assert both["black sheep"][2] >= 0.9 * both["black sheep"][0]


def test_empty_pastures_stay_empty(vild) -> None:
    empty = [replace(scene, animals=()) for scene in HERDS]
    found = counted(vild, ["sheep", "goat"], empty)
    assert sum(boxes for _, boxes, _ in found.values()) <= 0.05 * len(empty)


@pytest.mark.parametrize("asked", ["sheep, goat", "羊、山羊"])
def test_readmes_list_for_glip_is_mostly_right(glip, asked: str) -> None:
    found = counted(glip, ["sheep", "goat"], HERDS, asked)
    animals, boxes, right = map(sum, zip(*found.values(), strict=True))
    print(f"{asked}: {right} of {boxes} boxes right, {right} of {animals} animals found")
    assert right / boxes >= 0.8
    assert right / animals >= 0.8
    empty = [replace(scene, animals=()) for scene in HERDS]
    drawn = sum(boxes for _, boxes, _ in counted(glip, ["sheep", "goat"], empty, asked).values())
    assert drawn <= 0.05 * len(empty)


def test_what_counts_for_and_against_a_label() -> None:
    asked = ["sheep", "the black sheep", "goats", "羊", "黑色的羊", "山羊"]
    contest = contest_of(asked, ["sheep eating", "cow eating"])
    assert contest.own[0].tolist() == [True] + [False] * 5 + [True, False]
    assert contest.rivals[0].tolist() == [False, False, True, True, True, True, False, True]
    assert contest.rivals[1].tolist() == [True, False, True, True, True, True, False, True]
    assert not contest.rivals[2, 6:].any()  # a word that no kind has: nothing is known against it
    assert nested(contest).nonzero().tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]


def test_articles_change_nothing_in_what_glip_finds(glip) -> None:
    asked = ("the sheep", "a sheep", "sheep")
    right = {words: counted(glip, ["sheep"], HERDS, words)["sheep"][2] for words in asked}
    assert max(right.values()) - min(right.values()) <= 2, right
    assert min(right.values()) >= 50, right


@pytest.mark.parametrize("asked", ["羊，不要山羊", "sheep, not goats"])
def test_what_is_not_meant_is_not_asked_for(glip, asked: str) -> None:
    query = glip.read(detection.read_phrases([asked]))
    (kept,) = query.classes.names
    assert kept in ("羊", "sheep")
    assert "negation" in query.remarks[0]
