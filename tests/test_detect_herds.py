"""The shipped detectors on 100 fresh herds, as README asks: what they find, what is right."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from cliplab import detection, pasture
from cliplab.detection.vild import contest_of, nested
from cliplab.pasture import Thing, Words
from cliplab.runtime import checkpoint_dir

HERDS = range(5_000_000, 5_000_100)
EMPTY = [-seed for seed in HERDS]  # the same without their animals


@cache
def herd(seed: int) -> tuple[Image.Image, pasture.Annotations]:
    """A picture and what is in it; with a minus its pasture alone."""
    scene = pasture.herd(abs(seed), split="test")
    scene = scene if seed > 0 else replace(scene, animals=())
    return pasture.draw(scene, 256), pasture.annotations_of(scene, pasture.labels(scene, 256))


@pytest.fixture(scope="module")
def vild() -> detection.Detector:
    return detection.load_detector("vild", detection.Settings(device="cpu"))


@pytest.fixture(scope="module")
def glip() -> detection.Detector:
    return detection.load_detector("glip", detection.Settings(device="cpu"))


def counted(
    detector: detection.Detector, asked: str | Sequence[str], meant: dict[int, Callable],
    herds: Sequence[int] = HERDS,
) -> tuple[int, int, int]:  # fmt: skip
    """Animals that are meant, boxes that count by default, and boxes that are right.

    `meant`: number of a phrase -> (thing, annotations): whether it means that. Others are left out.
    """
    query = detector.read(asked if not isinstance(asked, str) else detection.read_phrases([asked]))
    rows = torch.zeros(3, dtype=torch.long)
    for seed in herds:
        image, known = herd(seed)
        (said,) = detector.detect([image], query)
        found = detection.postprocess(said, score=query.score, nested=query.nested)
        for k, fits in meant.items():
            true, hidden = (
                torch.tensor([t.box for t in part if fits(t, known)]).reshape(-1, 4)
                for part in known
            )
            boxes = found.boxes_xyxy[found.labels == k]
            hit = (box_iou(true, boxes) >= 0.5).any(1)
            unsure = (box_iou(boxes, hidden) >= 0.5).any(1) & ~(box_iou(boxes, true) >= 0.5).any(1)
            rows += torch.tensor([len(true), len(boxes) - int(unsure.sum()), int(hit.sum())])
    animals, boxes, right = rows.tolist()
    print(f"{asked}: {right} of {boxes} boxes right, {right} of {animals} found")
    return animals, boxes, right


def called(*looks: str) -> dict[int, Callable]:
    """Labels 0, 1, ...: species, or colour and species."""
    words = [Words(look.split()[-1], colour=" ".join(look.split()[:-1])) for look in looks]
    return {k: lambda thing, _, w=w: thing.fits(w) for k, w in enumerate(words)}


def near_tree(sheep: Thing, known: pasture.Annotations) -> bool:
    """A sheep within a quarter of the picture's width, 341 px, of a tree."""
    trees = (thing for thing in known.things if thing.kind == "tree")
    return sheep.kind == "sheep" and any(sheep.gap(tree) <= 341 / 4 for tree in trees)


def test_readmes_example_is_mostly_right_and_nested_labels_change_nothing(vild) -> None:
    animals, boxes, right = counted(vild, ["sheep", "goat"], called("sheep", "goat"))
    assert right / boxes >= 0.8
    assert right / animals >= 0.8
    *_, alone = counted(vild, ["sheep", "goat"], called("sheep"))
    labels = ["sheep", "goat", "black sheep"]
    *_, beside = counted(vild, labels, called("sheep"))
    assert abs(beside - alone) <= 3
    black = {2: called("black sheep")[0]}
    there, _, found = counted(vild, labels, black)
    assert found >= 0.9 * there


def test_empty_pastures_stay_empty(vild) -> None:
    _, boxes, _ = counted(vild, ["sheep", "goat"], called("sheep", "goat"), EMPTY)
    assert boxes <= 0.05 * len(EMPTY)


@pytest.mark.parametrize("asked", ["sheep, goat", "绵羊、山羊"])
def test_readmes_list_for_glip_is_mostly_right(glip, asked: str) -> None:
    animals, boxes, right = counted(glip, asked, called("sheep", "goat"))
    assert right / boxes >= 0.8
    assert right / animals >= 0.8
    _, drawn, _ = counted(glip, asked, called("sheep", "goat"), EMPTY)
    assert drawn <= 0.05 * len(EMPTY)


@pytest.mark.parametrize(
    ("asked", "k"), [("the [sheep] near the [tree]", 0), ("大树旁边的绵羊", 1)]
)
def test_readmes_relation_is_mostly_right(glip, asked: str, k: int) -> None:
    """It means one thing, so that one of several in a picture is enough."""
    pictures = sum(any(near_tree(t, herd(seed)[1]) for t in herd(seed)[1].things) for seed in HERDS)
    _, boxes, right = counted(glip, asked, {k: near_tree})
    print(f"{right} of {pictures} pictures")
    assert right / boxes >= 0.8
    assert right / pictures >= 0.7
    assert counted(glip, asked, {k: near_tree}, EMPTY)[1] == 0


@pytest.mark.parametrize("model", ["vild", "glip"])
def test_the_card_says_what_boxes_that_count_are_worth(model: str) -> None:
    card = json.loads((checkpoint_dir(model) / "model_card.json").read_text("utf-8"))
    rows = [row for row in card["thresholds"].values() if isinstance(row, dict)]
    assert len(rows) == 4
    assert min(row["precision"] for row in rows) >= 0.8
    assert max(row["boxes where nothing is"] for row in rows) <= 0.05
    assert max(row.get("boxes where it is on the other side", 0) for row in rows) <= 0.25


def test_a_threshold_leaves_most_boxes_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "tools")
    import choose_thresholds as tool

    box = torch.tensor([[0.0, 0, 9, 9]])
    query = detection.Query(classes=detection.as_classes(["sheep"]))

    def answer(score: float, there: bool) -> tool.Answer:
        said = detection.Detections(box, torch.tensor([score]), torch.tensor([0]), ("sheep",))
        truth = detection.Truth(box, torch.tensor([0])) if there else tool.NOTHING
        return tool.Answer(said, truth, query)

    right = [answer(score, there=True) for score in (0.82, 0.72, 0.62, 0.42)]
    wrong = [answer(score, there=False) for score in (0.52, 0.47, 0.46)]
    row = tool.choose({"all": right + wrong}, [answer(0.1, there=False)])
    assert (row["score"], row["precision"], row["recall"], row["n"]) == (0.55, 1.0, 0.75, 4)
    row = tool.choose({"all": right + wrong}, [answer(0.63, there=False)])
    assert (row["score"], row["recall"], row["boxes where nothing is"]) == (0.65, 0.5, 0.0)


def test_what_counts_for_and_against_a_label() -> None:
    asked = ["sheep", "the black sheep", "goats", "羊", "黑色的羊", "山羊"]
    contest = contest_of(asked, ["sheep eating", "cow eating"])
    assert contest.own[0].tolist() == [True] + [False] * 5 + [True, False]
    assert contest.rivals[0].tolist() == [False, False, True, True, True, True, False, True]
    assert contest.rivals[1].tolist() == [True, False, True, True, True, True, False, True]
    assert not contest.rivals[2, 6:].any()  # a word that no kind has: nothing is known against it
    assert nested(contest).nonzero().tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]
