"""Boxes: their arithmetic, crops for a teacher, COCO's numbers, and what is refused."""

from collections.abc import Sized
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.detection import (
    Detections,
    average_precision,
    box_recall,
    clip_boxes,
    coco_results,
    coco_truth,
    crop_boxes,
    crop_scores,
    embed_boxes,
    expand_boxes,
)
from cliplab.models.vild import Regions, ViLD, ViLDConfig, class_scores


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def detections(rows: Tensor, scores: list[float], labels: list[int]) -> Detections:
    return Detections(rows, torch.tensor(scores), torch.tensor(labels).long(), ("sheep", "goat"))


NOTHING = detections(boxes(), [], [])


# ---- boxes ---------------------------------------------------------------------------------


def test_boxes_are_cut_off_at_the_frame() -> None:
    inside, over, outside, line = (2, 3, 9, 8), (-5, -5, 30, 4), (20, 0, 25, 9), (3, 3, 3, 9)
    clipped, left = clip_boxes(boxes(inside, over, outside, line), (10, 20))
    assert clipped[0].tolist() == list(inside)
    assert clipped[1].tolist() == [0, 0, 10, 4]
    assert left.tolist() == [True, True, False, False]
    none, left = clip_boxes(boxes(), (10, 20))
    assert none.shape == (0, 4)
    assert left.shape == (0,)


def test_a_box_grows_by_a_quarter_on_each_side() -> None:
    one = boxes((10, 20, 18, 24))
    assert expand_boxes(one, 1.5).tolist() == [[8, 19, 20, 25]]
    assert torch.equal(expand_boxes(one, 1), one)


# ---- crops ---------------------------------------------------------------------------------


def halves() -> Image.Image:
    """Red on the left, blue on the right; 40 x 20 px."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image


def test_a_crop_is_the_whole_box_squeezed() -> None:
    left, both = crop_boxes(halves(), boxes((0, 0, 20, 20), (10, 0, 30, 10)), size=8)
    assert left.size == both.size == (8, 8)
    assert left.getpixel((0, 0)) == left.getpixel((5, 7)) == (255, 0, 0)
    assert both.getpixel((0, 4)) == (255, 0, 0)
    assert both.getpixel((7, 4)) == (0, 0, 255)


def test_a_larger_crop_stops_at_the_frame() -> None:
    # 1.5 times 0..20 is -5..25, of which 0..25 is in the frame: a fifth of it is blue
    (crop,) = crop_boxes(halves(), boxes((0, 0, 20, 20)), scale=1.5, size=10)
    reds = [crop.getpixel((x, 5))[0] > 128 for x in range(10)]
    assert reds == [True] * 8 + [False] * 2


def test_a_box_outside_the_picture_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"row 1 is \[50.*nothing is inside the picture of 40 x 20"
    ):
        list(crop_boxes(halves(), boxes((0, 0, 5, 5), (50, 0, 60, 5))))


class MeanColour:
    """A teacher that sees nothing but colour, D = 3; it remembers what it was given."""

    dim, name = 3, "mean colour"

    def __init__(self) -> None:
        self.most, self.sized = 0, False

    def encode_image(self, images, *, batch_size: int = 64, progress: bool = False) -> Tensor:
        self.sized = isinstance(images, Sized)
        rows = [torch.tensor(i.resize((1, 1)).getpixel((0, 0))).float() for i in images]
        self.most = max(self.most, len(rows))
        return F.normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, 3)


def test_the_teacher_sees_both_crops() -> None:
    teacher, box = MeanColour(), boxes((0, 0, 20, 20))
    once = embed_boxes(teacher, [halves()], [box], scales=(1.0,))
    torch.testing.assert_close(once, torch.tensor([[1.0, 0, 0]]), atol=0.02, rtol=0)
    both = embed_boxes(teacher, [halves()], [box])
    wide = embed_boxes(teacher, [halves()], [box], scales=(1.5,))
    torch.testing.assert_close(both, F.normalize(once + wide, dim=-1))
    assert both[0, 2] > 0.05  # some blue, from the larger crop alone
    assert embed_boxes(teacher, [halves()], [boxes()]).shape == (0, 3)


def test_crops_of_5000_boxes_are_made_one_by_one() -> None:
    teacher = MeanColour()
    emb = embed_boxes(
        teacher, [halves()], [boxes((0, 0, 9, 9)).repeat(5000, 1)], scales=(1.0,), size=2
    )
    assert emb.shape == (5000, 3)
    assert not teacher.sized  # a generator: the encoder holds one batch of crops, not all


# ---- scores of crops -------------------------------------------------------------------------


def rows(n: int, d: int, *, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_scores_of_crops_are_a_softmax_and_a_geometric_mean() -> None:
    teacher = SimpleNamespace(logit_scale=20.0, logit_bias=None)
    image, text, objectness = rows(5, 3, seed=0), rows(4, 3, seed=1), torch.rand(5)
    bare = crop_scores(teacher, image, text)
    torch.testing.assert_close(bare, (20 * image @ text.T).softmax(1))
    both = crop_scores(teacher, image, text, objectness)
    torch.testing.assert_close(both**2, bare * objectness[:, None])
    assert crop_scores(teacher, image[:0], text).shape == (0, 4)
    # as the head answers that was distilled from them
    config = ViLDConfig(embed_dim=3, widths=(8,) * 4, pyramid_width=8, temperature=1 / 20)
    regions = Regions(boxes(*[(0, 0, 1, 1)] * 5), objectness, image, image)
    by_head = class_scores(ViLD(config), regions, text, torch.ones(4).bool(), head="image")
    torch.testing.assert_close(both, by_head)


# ---- how well ------------------------------------------------------------------------------

TRUE = boxes((0, 0, 10, 10), (20, 0, 30, 10))
GROUPS = {"base": [0], "novel": [1]}


def scored(found: list[Detections], truth: dict | None = None) -> dict:
    truth = truth or coco_truth([(40, 20)], [TRUE], [torch.tensor([0, 1])], ("sheep", "goat"))
    return average_precision(truth, coco_results(found), GROUPS)


def test_perfect_detections_score_one(capsys) -> None:
    report = scored([detections(TRUE, [0.9, 0.8], [0, 1])])
    for group in GROUPS:
        assert report[group].as_dict() == {"ap": 1, "ap50": 1, "ar": 1, "categories": 1}
    assert capsys.readouterr().out == ""
    assert scored([NOTHING])["base"].as_dict() == {"ap": 0, "ap50": 0, "ar": 0, "categories": 1}


def test_groups_are_scored_apart() -> None:
    shifted = TRUE + torch.tensor([0.0, 2.0, 0.0, 2.0])  # IoU 8/12
    report = scored([detections(torch.stack([TRUE[0], shifted[1]]), [0.9, 0.8], [0, 1])])
    assert report["base"].ap == pytest.approx(1)
    assert report["novel"].ap50 == pytest.approx(1)
    assert report["novel"].ap == pytest.approx(0.4)  # IoU 0.5, 0.55, 0.6 and 0.65 of ten
    swapped = scored([detections(TRUE, [0.9, 0.8], [1, 0])])
    assert swapped["base"].ap50 == swapped["novel"].ap50 == 0


def test_precision_falls_with_what_is_wrongly_found() -> None:
    truth = coco_truth([(40, 20)], [TRUE], [torch.tensor([0, 0])], ("sheep", "goat"))
    wrong = boxes((0, 10, 10, 20))
    found = detections(torch.cat([TRUE[:1], wrong, TRUE[1:]]), [0.9, 0.8, 0.7], [0, 0, 0])
    report = average_precision(truth, coco_results([found]), {"sheep": [0]})
    # precision 1 up to recall 0.5 (51 of 101 points), then 2/3
    assert report["sheep"].ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_ignored_boxes_count_for_nobody() -> None:
    args = ([(40, 20)], [TRUE], [torch.tensor([0, 0])], ("sheep", "goat"))
    truth = coco_truth(*args, ignored=[torch.tensor([False, True])])
    for found in (detections(TRUE[:1], [0.9], [0]), detections(TRUE, [0.8, 0.9], [0, 0])):
        assert average_precision(truth, coco_results([found]), {"sheep": [0]})[
            "sheep"
        ].ap50 == pytest.approx(1)


def test_a_group_that_does_not_occur_is_refused() -> None:
    truth = coco_truth([(40, 20)], [TRUE], [torch.tensor([0, 0])], ("sheep", "goat"))
    with pytest.raises(ValueError, match="group 'novel': none of its 1 categories has a box"):
        scored([NOTHING], truth)


def test_boxes_become_coco_and_back() -> None:
    truth = coco_truth([(40, 20)], [boxes((1, 2, 4, 8))], [torch.tensor([1])], ("sheep", "goat"))
    (annotation,) = truth["annotations"]
    assert annotation["bbox"] == [1, 2, 3, 6]
    assert annotation["area"] == 18
    assert truth["categories"][annotation["category_id"] - 1]["name"] == "goat"
    (result,) = coco_results([detections(boxes((1, 2, 4, 8)), [0.5], [1])])
    assert result == {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 6], "score": 0.5}


def test_recall_looks_at_the_best_proposals_only() -> None:
    near = boxes((0, 0, 10, 9))
    proposals = torch.cat([near, boxes((0, 10, 5, 20)), TRUE[1:]])
    assert box_recall([proposals], [TRUE]).value == 1
    assert box_recall([proposals], [TRUE], top=2).value == 0.5
    assert box_recall([proposals], [TRUE], iou=0.95).value == 0.5
    assert box_recall([boxes(), near], [TRUE, boxes()]).n == 2  # no proposal; nothing to find
    assert box_recall([boxes()], [TRUE]).value == 0
