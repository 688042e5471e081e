"""CLIP on crops: what is seen, how it is scored, what is refused, and its rows in ViLD's exam."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from cliplab.detection.boxes import SCALES, embed_boxes
from cliplab.detection.crops import LOOKS, CropDetector, crop_scores, crop_size, look, together
from cliplab.detection.proposals import Proposals, region_proposals
from cliplab.encoders import load_encoder
from cliplab.encoders.two_towers import Encoder
from cliplab.models.vild import Regions, ViLD, ViLDConfig, class_scores, streamlined
from cliplab.training import vild_evaluation as exam
from cliplab.training.vild_dataset import Flock, draw_flock

COLOURS = ("red", "green", "blue")
ONE_EACH = torch.eye(3)


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


class Painter:
    """A teacher that knows nothing but colours: a crop's embedding is its mean colour."""

    name, dim, languages = "painter", 3, ("en",)
    logit_scale, logit_bias = 20.0, None
    side = 6  # pixels that it takes in

    def __init__(self) -> None:
        self.batches: list[int] = []

    def preprocess(self, image: Image.Image) -> Tensor:
        small = np.asarray(image.resize((self.side, self.side)), dtype=np.float32)
        return (torch.from_numpy(small).permute(2, 0, 1) / 255 - 0.1) / 0.7

    def encode_pixels(self, batches: Iterable[Tensor]) -> Tensor:
        rows = [torch.zeros(0, 3)]
        for pixels in batches:
            assert pixels.shape[1:] == (3, self.side, self.side)
            self.batches.append(len(pixels))
            rows.append((pixels * 0.7 + 0.1).mean((2, 3)))
        return F.normalize(torch.cat(rows), dim=-1)


class Moody(Painter):
    """Its preprocessing depends on the whole crop: dark ones are made brighter."""

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels = super().preprocess(image)
        return pixels / pixels.abs().amax().clamp(min=0.1)


class Plain:
    """The same colours through the interface that every encoder has, and no more."""

    name, dim, logit_scale, logit_bias = "plain", 3, 20.0, None

    def preprocess(self, image: Image.Image) -> Tensor:
        return Painter().preprocess(image)

    def encode_image(self, images: Iterable[Image.Image], *, batch_size: int = 64) -> Tensor:
        rows = [Painter().preprocess(i).mul(0.7).add(0.1).mean((1, 2)) for i in images]
        return F.normalize(torch.stack(rows), dim=-1)


def picture() -> tuple[Image.Image, Tensor]:
    """Three coloured squares on black, and their boxes."""
    image = Image.new("RGB", (60, 40))
    true = boxes((2, 2, 12, 12), (20, 20, 36, 36), (44, 4, 58, 18))
    for (x0, y0, x1, y1), colour in zip(true.tolist(), ("red", "lime", "blue"), strict=True):
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    return image, true


@pytest.fixture(scope="module")
def pasture() -> Encoder:
    return load_encoder("pasture", device="cpu")


@pytest.fixture(scope="module")
def flock() -> Flock:
    return draw_flock("test", 4, start=900_000)


# ---- a detector ----------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", [Painter(), Moody(), Plain()])
def test_each_box_is_named_by_what_is_in_it(teacher) -> None:
    image, true = picture()
    detector = CropDetector(teacher, COLOURS, ONE_EACH, scales=LOOKS["1x"])
    (found,) = detector([image], [Proposals(true)])
    best = found.above(0.5)
    assert sorted(best.names) == sorted(COLOURS)
    by_name = dict(zip(best.names, best.boxes_xyxy.tolist(), strict=True))
    assert [by_name[name] for name in COLOURS] == true.tolist()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_doubles_of_one_class_are_suppressed() -> None:
    image, true = picture()
    twice = Proposals(torch.cat([true[:1], true[:1] + 1]), torch.tensor([0.4, 0.9]))
    (found,) = CropDetector(Painter(), COLOURS, ONE_EACH)([image], [twice])
    red = found.select(found.labels == 0)
    assert red.boxes_xyxy.tolist() == [[3, 3, 13, 13]]
    apart = CropDetector(Painter(), COLOURS, ONE_EACH, iou=0.9)
    assert (apart([image], [twice])[0].labels == 0).sum() == 2


def test_objectness_counts_where_there_is_one_and_it_is_wanted() -> None:
    image, true = picture()
    sure = torch.tensor([0.25, 1.0, 0.01])
    detector = CropDetector(Painter(), COLOURS, ONE_EACH, scales=LOOKS["1x"])
    (with_it,) = detector([image], [Proposals(true, sure)])
    (without,) = detector([image], [Proposals(true)])
    (ignored,) = replace(detector, objectness=False)([image], [Proposals(true, sure)])
    assert torch.equal(ignored.scores, without.scores)
    assert with_it.names[:3] == ["green", "red", "blue"]
    torch.testing.assert_close(with_it.scores[:3], sure[[1, 0, 2]].sqrt(), atol=1e-3, rtol=0)


def test_pictures_do_not_mix() -> None:
    image, true = picture()
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((0, 0, 50, 30))
    proposals = [Proposals(true[:1]), Proposals(boxes()), Proposals(true[1:] * 0.8)]
    detector = CropDetector(Painter(), COLOURS, ONE_EACH)
    at_once = detector([image, image, other], proposals)
    for i, one in enumerate((image, image, other)):
        (alone,) = detector([one], [proposals[i]])
        assert torch.equal(at_once[i].boxes_xyxy, alone.boxes_xyxy)
        torch.testing.assert_close(at_once[i].scores, alone.scores)
    assert len(at_once[1]) == 0
    assert detector([], []) == []


def test_boxes_outside_or_without_area_are_left_out() -> None:
    image, true = picture()
    odd = boxes((60, 0, 70, 10), (-9, -9, -1, -1), (5, 5, 5, 9), (-5, -5, 12.5, 12), (8, 8, 8.1, 8))
    objectness = torch.full((8,), 0.5)
    detector = CropDetector(Painter(), COLOURS, ONE_EACH)
    (found,) = detector([image], [Proposals(torch.cat([odd, true]), objectness)])
    (expected,) = detector([image], [Proposals(torch.cat([odd[3:4], true]).clamp(min=0))])
    assert sorted(found.boxes_xyxy.tolist()) == sorted(expected.boxes_xyxy.tolist())
    assert found.boxes_xyxy.min() >= 0


def test_5000_boxes_are_never_all_in_memory() -> None:
    image, _ = picture()
    corner = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) * 30
    teacher = Painter()
    many = Proposals(torch.cat([corner, corner + 8], dim=1))
    (found,) = CropDetector(teacher, COLOURS, ONE_EACH, batch_size=32, top=70)([image], [many])
    assert len(found) == 70
    assert max(teacher.batches) == 32
    assert sum(teacher.batches) == 2 * 5000


# ---- scores --------------------------------------------------------------------------------


def rows(n: int, d: int, *, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_scores_are_a_softmax_and_a_geometric_mean() -> None:
    image, text, objectness = rows(5, 3, seed=0), rows(4, 3, seed=1), torch.rand(5)
    bare = crop_scores(Painter(), image, text)
    torch.testing.assert_close(bare, (20 * image @ text.T).softmax(1))
    both = crop_scores(Painter(), image, text, objectness)
    torch.testing.assert_close(both**2, bare * objectness[:, None])
    assert crop_scores(Painter(), image[:0], text).shape == (0, 4)


def test_scores_are_those_of_the_head_that_was_distilled_from_them() -> None:
    image, text, objectness = rows(5, 3, seed=0), rows(4, 3, seed=1), torch.rand(5)
    model = ViLD(
        ViLDConfig(embed_dim=3, widths=(8,) * 4, pyramid_width=8, temperature=1 / 20, head_width=8)
    )
    regions = Regions(boxes(*[(0, 0, 1, 1)] * 5), objectness, image, image)
    by_head = class_scores(model, regions, text, torch.ones(4, dtype=torch.bool), head="image")
    torch.testing.assert_close(crop_scores(Painter(), image, text, objectness), by_head)


@pytest.mark.parametrize(
    ("phrases", "text_emb", "match"),
    [
        (("sheep",), torch.eye(3)[:1], "class"),
        (("sheep", "goat", "sheep"), ONE_EACH, "sheep"),
        (COLOURS, torch.eye(4)[:3], r"got shape \(3, 4\); expected \(3, 3\) for painter"),
        (COLOURS, ONE_EACH[:2], r"got shape \(2, 3\); expected \(3, 3\)"),
        (COLOURS, ONE_EACH * float("nan"), "text_emb: not finite"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(phrases, text_emb: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CropDetector(Painter(), phrases, text_emb)


def test_regions_of_another_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(R, 3\) for painter: .*another teacher"):
        crop_scores(Painter(), rows(2, 4, seed=0), ONE_EACH)
    with pytest.raises(ValueError, match="NaN"):
        crop_scores(Painter(), rows(2, 3, seed=0) * float("nan"), ONE_EACH)


# ---- what the teacher sees -----------------------------------------------------------------


def test_views_are_those_of_embed_boxes(pasture) -> None:
    image = Image.fromarray(draw_flock("test", 1, start=900_010).images[0])
    some = boxes((3, 4, 60, 50), (100, 20, 171, 128), (-5, 30, 40, 90))
    (views,) = look(pasture, [image], [some])
    assert views.shape == (2, 3, 128)
    for scale, view in zip(SCALES, views, strict=True):
        expected = embed_boxes(pasture, [image], [some], scales=[scale])
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)
    both = embed_boxes(pasture, [image], [some])
    torch.testing.assert_close(together(views), both, atol=1e-5, rtol=0)


def test_crops_are_as_large_as_the_teacher_takes_them(pasture) -> None:
    assert crop_size(pasture) == 64
    assert crop_size(Painter()) == 6


def counting(teacher: Painter, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls: list[int] = []
    preprocess = teacher.preprocess
    monkeypatch.setattr(teacher, "preprocess", lambda i: calls.append(1) or preprocess(i))
    return lambda: len(calls)


@pytest.mark.parametrize(("kind", "each"), [(Painter, 0), (Moody, 1)])
def test_only_plain_preprocessing_is_done_at_once(kind, each: int, monkeypatch) -> None:
    image, true = picture()
    teacher = kind()
    calls = counting(teacher, monkeypatch)
    (few,) = look(teacher, [image], [true], scales=[1.0])
    first = calls()
    (many,) = look(teacher, [image], [true.repeat(9, 1)], scales=[1.0])
    assert calls() - first == first + each * 8 * len(true)
    torch.testing.assert_close(many, few.repeat(1, 9, 1))
    alone = torch.stack([kind().preprocess(image.crop(b)) for b in true.tolist()])
    torch.testing.assert_close(few[0], kind().encode_pixels([alone]), atol=0.05, rtol=0)


def test_a_look_without_scales_or_at_nothing_is_refused() -> None:
    image, true = picture()
    with pytest.raises(ValueError, match="scales: got none"):
        look(Painter(), [image], [true], scales=[])
    with pytest.raises(ValueError, match=r"row 0 .*nothing is inside"):
        look(Painter(), [image], [boxes((70, 0, 80, 9))])
    with pytest.raises(ValueError, match="argument"):
        look(Painter(), [image], [true, true])


# ---- the exam ------------------------------------------------------------------------------


def test_the_rows_are_those_of_three_detectors(pasture, flock) -> None:
    true = [Proposals(b) for b in flock.boxes]
    table = exam.crop_rows(pasture, flock, true)
    assert list(table) == ["crops 1x", "crops 1.5x", "crops both"]
    text_emb = exam.build_classifier(pasture, exam.phrases(), exam.templates("pasture", "en"))
    for name, scales in LOOKS.items():
        detector = CropDetector(pasture, tuple(exam.phrases()), text_emb, scales=scales)
        assert table[f"crops {name}"] == exam._row(flock, detector(flock.pil(), true))
    # names are right most of the time, and the boxes are the true ones
    assert table["crops both"]["base"]["ap50"] > 0.6
    assert table["crops both"]["base"]["ap50"] == table["crops both"]["base"]["ap"]


def test_rows_have_the_format_of_the_heads(pasture, flock) -> None:
    model = ViLD(ViLDConfig(embed_dim=pasture.dim, proposals=5)).eval()
    regions = exam.find_regions(model, flock)
    heads = exam._examined(model, pasture, "ensemble", flock)
    table = exam.crop_rows(pasture, flock, region_proposals(regions))
    for row in table.values():
        assert row.keys() == heads["image"].keys()
        assert row["base"].keys() == heads["image"]["base"].keys()
        assert row["AP50 by category"].keys() == heads["image"]["AP50 by category"].keys()


def test_objectness_of_the_rows_can_be_left_out(pasture, flock) -> None:
    # true boxes that nothing is sure of, among sure ones that hold only grass
    wrong = boxes((0, 0, 30, 9), (130, 0, 171, 9))
    blurred = [
        Proposals(torch.cat([wrong, b]), torch.tensor([1.0] * 2 + [1e-4] * len(b)))
        for b in flock.boxes
    ]
    with_it = exam.crop_rows(pasture, flock, blurred)["crops both"]["base"]
    without = exam.crop_rows(pasture, flock, blurred, objectness=False)["crops both"]["base"]
    assert without["ap50"] > with_it["ap50"]


def test_a_flock_in_which_nothing_is_proposed_scores_nothing(pasture, flock) -> None:
    table = exam.crop_rows(pasture, flock, [Proposals(boxes())] * len(flock))
    assert all(row["base"]["ap50"] == row["base"]["ar"] == 0 for row in table.values())


# ---- one pass ------------------------------------------------------------------------------


def test_a_streamlined_vild_answers_the_same(flock) -> None:
    torch.manual_seed(0)
    model = ViLD(ViLDConfig(embed_dim=16, proposals=30))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pixels = torch.from_numpy(flock.images[:1]).permute(0, 3, 1, 2) / 255
    quick = streamlined(model)
    assert model.training  # a copy
    for given in (None, [flock.boxes[0]]):
        (mine,), (other,) = model.eval()(pixels, given), quick(pixels, given)
        torch.testing.assert_close(other.text_emb, mine.text_emb, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.image_emb, mine.image_emb, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.objectness, mine.objectness, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.boxes_xyxy, mine.boxes_xyxy, atol=1e-6 * 171, rtol=0)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in quick.modules())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
