"""The shipped ViLD on 100 fresh herds, as README asks it: what it finds, and what is right."""

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


def counted(
    vild: detection.Detector, labels: Sequence[str], scenes: Sequence[pasture.Scene]
) -> dict[str, tuple[int, int, int]]:
    """Label -> animals that show, boxes at the default threshold, boxes that are right."""
    query, rows = vild.read(labels), {name: (0, 0, 0) for name in labels}
    for scene in scenes:
        (said,) = vild.detect([pasture.draw(scene, 256)], query)
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


def test_what_counts_for_and_against_a_label() -> None:
    asked = ["sheep", "the black sheep", "goats", "羊", "黑色的羊", "山羊"]
    contest = contest_of(asked, ["sheep eating", "cow eating"])
    assert contest.own[0].tolist() == [True] + [False] * 5 + [True, False]
    assert contest.rivals[0].tolist() == [False, False, True, True, True, True, False, True]
    assert contest.rivals[1].tolist() == [True, False, True, True, True, True, False, True]
    assert not contest.rivals[2, 6:].any()  # a word that no kind has: nothing is known against it
    assert nested(contest).nonzero().tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]
