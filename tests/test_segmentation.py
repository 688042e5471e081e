"""Segmentation: words, thresholds, windows, odd pictures, and numbers equal to a library's."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from segment_world import drawn
from sklearn.metrics import confusion_matrix, jaccard_score
from torch import Tensor

from cliplab.models.groupvit import Groups, GroupViT, GroupViTConfig, save_groupvit
from cliplab.segmentation import (
    BACKGROUND,
    BACKGROUND_WORDS,
    IGNORE,
    Features,
    GroupViTSegmenter,
    Segmentation,
    Settings,
    Tally,
    boundary_counts,
    load_segmenter,
    name_groups,
    oracle_labels,
    read_scenes,
    refine,
    score_groups,
    vocabulary,
    working_size,
)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "sheep", "dog", "grass", "sky", "羊", "狗", "草", "[SEP]")
TINY = GroupViTConfig(
    image_resolution=16, patch_size=4, widths=(16, 16, 16), depths=(1, 1, 1), heads=(2, 2, 2),
    group_tokens=(6, 3), output_groups=(6, 3), embed_dim=8, projector_width=12, context_length=6,
    vocab_size=len(WORDS), text_width=16, text_heads=2, text_layers=1, test_resolution=16,
)  # fmt: skip
UNGROUPED = {"widths": (16,), "depths": (1,), "heads": (2,), "group_tokens": (),
             "output_groups": ()}  # fmt: skip
PLAIN = Settings(templates=("{}",), top_words=None)
ASKED = vocabulary(["sheep", "dog"])


def make(**changes) -> GroupViT:
    return drawn(replace(TINY, **changes), WORDS)


@pytest.fixture(scope="module")
def segmenter() -> GroupViTSegmenter:
    return GroupViTSegmenter(make(), device="cpu")


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ---- vocabulary ----------------------------------------------------------------------------


def test_a_label_is_as_good_as_its_best_word() -> None:
    words = vocabulary({"sheep": ["sheep", "lamb", "ewe"], "dog": []}, background=["grass"])
    assert words.names == (BACKGROUND, "sheep", "dog")
    assert words.words == ("grass", "sheep", "lamb", "ewe", "dog")
    assert words.label_of == (0, 1, 1, 1, 2)
    assert words.words_of(1) == ("sheep", "lamb", "ewe")
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.2, 0.9], [0.1, 0.1], [0.4, 0.4]])
    expected = torch.tensor([[0.1, 0.2], [0.3, 0.9], [0.4, 0.4]])
    assert torch.equal(words.by_label(scores), expected)


def test_a_background_without_words_has_no_score_of_its_own() -> None:
    words = vocabulary(["羊", "狗"], background=())
    assert words.names == (BACKGROUND, "羊", "狗")
    scores = words.by_label(torch.tensor([[0.3], [0.4]]))
    assert scores.flatten().tolist() == pytest.approx([0.0, 0.3, 0.4])
    assert len(vocabulary(["sheep"], background=BACKGROUND_WORDS).words) == 27  # one label is fine
    with pytest.raises(ValueError, match="'sheep', ' Sheep ' repeated among the names"):
        vocabulary(["sheep", " Sheep "])  # what else is refused: see test_bad_inputs
    with pytest.raises(ValueError, match="got '' among 2 names"):
        vocabulary(["sheep", "  "])


# ---- labels --------------------------------------------------------------------------------

SCORES = torch.tensor([[[0.0, 0.5]], [[0.3, 0.2]], [[0.1, 0.4]]])  # (3, 1, 2), background first


def segmentation(scores: Tensor = SCORES, **changes) -> Segmentation:
    names = (BACKGROUND, *map(str, range(1, len(scores))))
    owner = torch.zeros(scores.shape[1:], dtype=torch.long)
    size = (scores.shape[2], scores.shape[1])
    return Segmentation(scores, owner, names, size, **{"has_background": True, **changes})


def test_background_by_vocabulary_by_threshold_and_by_both() -> None:
    assert segmentation().labels.tolist() == [[1, 0]]  # a word of the background wins on the right
    without = SCORES.clone()
    without[0] = 0
    assert segmentation(without).labels.tolist() == [[1, 2]]
    assert segmentation(without, threshold=0.35).labels.tolist() == [[0, 2]]
    both = segmentation(threshold=0.35)
    assert both.labels.tolist() == [[0, 0]]
    none = segmentation(without, threshold=0.99)  # the best of a picture are always kept
    assert none.labels.tolist() == [[0, 2]]
    assert none.labels_at((4, 2)).tolist() == [[0, 0, 0, 2]] * 2


@pytest.mark.parametrize("size", [(7, 5), (40, 3), (3, 31), (1, 1)])
def test_labels_are_enlarged_one_after_another(size: tuple[int, int]) -> None:
    scores = draw(4, 5, 7)
    found = segmentation(scores, threshold=0.55).labels_at(size)
    enlarged = F.interpolate(scores[None], size[::-1], mode="bilinear")[0]
    expected = torch.where(enlarged[1:].amax(0) < 0.55, 0, enlarged.argmax(0))
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), expected)
    assert torch.equal(segmentation(scores).labels_at().long(), segmentation(scores).labels)


@torch.no_grad()
def test_the_best_group_sets_the_limit_though_it_owns_no_pixel(
    segmenter: GroupViTSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released evaluation takes the best score of all groups, not of all pixels."""
    model, words = segmenter.model, vocabulary(["sheep", "dog"], background=())
    emb, group = segmenter.embed(words.words, PLAIN.templates), model.group

    def disown(pixels: Tensor) -> Groups:
        groups = group(pixels)
        best = name_groups(model, groups, (16, 16), emb, top_words=None).group_scores[0].amax(1)
        last = groups.assignments[-1]
        last.soft[:, best.argmax()] = 0
        seen.append(float(best.max()))
        return groups

    seen: list[float] = []
    monkeypatch.setattr(model, "group", disown)
    (found,) = segmenter.segment([picture(16, 16)], words, replace(PLAIN, threshold=1.0))
    assert found.best == pytest.approx(seen[0])
    assert found.scores.max() < found.best - 1e-4
    assert found.labels.max() == found.labels_at().max() == 0
    reached = float(found.scores.max())
    assert replace(found, threshold=reached).labels.max() > 0


# ---- pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((1, 1), (16, 16)), ((2, 3), (16, 24)), ((640, 480), (21, 16)), ((300, 1), (64, 1)),
        ((100, 1000), (6, 64)), ((33, 16), (33, 16)),
    ],
)  # fmt: skip
def test_pictures_of_every_shape_get_labels_at_a_bounded_size(
    size: tuple[int, int], seen: tuple[int, int], segmenter: GroupViTSegmenter
) -> None:
    words = vocabulary(["sheep", "dog"], background=["grass"])
    (found,) = segmenter.segment([picture(*size)], words, replace(PLAIN, threshold=0.2))
    assert working_size(size, 16) == seen
    assert found.scores.shape == (3, *seen[::-1])
    assert found.scores.isfinite().all()
    assert found.labels_at().shape == size[::-1]
    assert found.owner.shape == seen[::-1]  # each pixel in one group


def test_a_large_photo_is_seen_through_windows(
    segmenter: GroupViTSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, group = [], segmenter.model.group
    monkeypatch.setattr(
        segmenter.model, "group", lambda pixels: shapes.append(tuple(pixels.shape)) or group(pixels)
    )
    (found,) = segmenter.segment([Image.new("RGB", (8000, 1000), (90, 120, 60))], ASKED, PLAIN)
    assert found.scores.shape == (2, 8, 64)
    assert shapes == [(1, 3, 16, 16)] * 7  # half a window apart
    assert found.labels_at().shape == (1000, 8000)


def test_windows_are_averaged_and_their_groups_kept_apart(segmenter: GroupViTSegmenter) -> None:
    image = picture(24, 16)
    halves = [image.crop((x, 0, x + 16, 16)) for x in (0, 8)]
    found, left, right = segmenter.segment([image, *halves], ASKED, PLAIN)
    torch.testing.assert_close(found.scores[..., :8], left.scores[..., :8])
    torch.testing.assert_close(found.scores[..., 16:], right.scores[..., 8:])
    middle = (left.scores[..., 8:] + right.scores[..., :8]) / 2
    torch.testing.assert_close(found.scores[..., 8:16], middle)
    # a pixel belongs to a group of the window in which it lies deeper
    assert torch.equal(found.owner[:, :8], left.owner[:, :8])
    assert set(found.owner[:, :8].unique().tolist()) <= {0, 1, 2}
    assert found.owner[8, -1] >= left.owner.max() + 1


def test_features_are_kept_and_pictures_of_one_size_are_looked_at_together(
    segmenter: GroupViTSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(24, 16), picture(24, 16).rotate(180), picture(9, 9), picture(24, 16)]
    how = replace(PLAIN, scales=(1, 1.5), flip=True, refine=2)
    alone = segmenter.segment(images, ASKED, how)
    looked, group = [], segmenter.model.group
    monkeypatch.setattr(
        segmenter.model, "group", lambda pixels: looked.append(len(pixels)) or group(pixels)
    )
    features = Features(segmenter, images)
    for found, one in zip(features.read(ASKED, how), alone, strict=True):
        torch.testing.assert_close(found.scores, one.scores, atol=1e-4, rtol=0)
        assert (found.owner == one.owner).float().mean() > 0.99
        assert found.size == one.size
    assert set(looked) == {1, 2}
    count = len(looked)
    again = list(features.read(vocabulary(["sky", "grass"]), replace(how, hard=False, refine=0)))
    assert (len(again), len(looked)) == (4, count)  # another question, no other look
    bare = next(Features(segmenter, images[2:], grouped=False).read(ASKED, PLAIN))
    assert len(bare.owner.unique()) == 16  # every patch is a segment


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_grey_and_other_pictures_are_read_as_rgb(mode: str, segmenter: GroupViTSegmenter) -> None:
    image = picture(20, 16, mode)
    found, expected = segmenter.segment([image, image.convert("RGB")], ASKED, PLAIN)
    assert torch.equal(found.scores, expected.scores)


def test_a_threshold_needs_a_background_and_templates_a_place_for_the_word(segmenter) -> None:
    with pytest.raises(ValueError, match=r"threshold: got 0\.5, but there is no background"):
        segmenter.segment([picture(3, 3)], ASKED, replace(PLAIN, threshold=0.5))
    for fault, message in (({"threshold": -0.1}, "got -0.1"), ({"templates": ("x",)}, "has no {}")):
        with pytest.raises(ValueError, match=message):
            Settings(**fault)


# ---- views ---------------------------------------------------------------------------------


def test_views_of_a_picture_are_averaged() -> None:
    patches = GroupViTSegmenter(make(**UNGROUPED), device="cpu")  # scores that differ everywhere
    assert GroupViTSegmenter(make(test_resolution=None), device="cpu").side == 32  # 2 x 16

    def scores(of: Image.Image, **changes) -> Tensor:
        return patches.segment([of], ASKED, replace(PLAIN, **changes))[0].scores

    image = picture(23, 17)
    small, large = scores(image), scores(image, scales=(1.5,))
    enlarged = F.interpolate(large[None], small.shape[1:], mode="bilinear")[0]
    torch.testing.assert_close(scores(image, scales=(1, 1.5)), (small + enlarged) / 2)
    # Whichever way round it is shown, a picture has the same scores; 24 x 16 needs no filling up.
    image = picture(24, 16)
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both, again = (scores(shown, flip=True) for shown in (image, turned))
    torch.testing.assert_close(both, again.flip(2), atol=1e-4, rtol=0)
    assert not torch.allclose(both, again, atol=1e-3, rtol=0)
    one, other = scores(image), scores(turned)
    assert not torch.allclose(one, other.flip(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(23, 17), (3, 3), (1, 300)])
def test_averaged_scores_are_refined_with_the_picture_at_their_size(
    size: tuple[int, int], segmenter: GroupViTSegmenter
) -> None:
    image, words = picture(*size), vocabulary(["sheep", "dog"], background=())
    views = replace(PLAIN, scales=(1.5, 1), flip=True, threshold=0.3)
    (before,) = segmenter.segment([image], words, views)
    (found,) = segmenter.segment([image], words, replace(views, refine=3))
    shown = image.resize(working_size(size, 24), Image.Resampling.BICUBIC, reducing_gap=3.0)
    pixels = torch.from_numpy(np.asarray(shown).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(found.scores, refine(before.scores[None], pixels[None], 3)[0])
    assert not torch.allclose(found.scores, before.scores, atol=1e-4)
    (first,) = segmenter.segment([image], words, replace(PLAIN, scales=(1.5,)))
    assert torch.equal(found.owner, first.owner)  # of the first view
    assert found.threshold == 0.3


# ---- scores --------------------------------------------------------------------------------


def test_words_that_do_not_fit_the_picture_are_left_out() -> None:
    image, group, word = torch.eye(4)[:1], torch.eye(4)[None, 1:3], torch.eye(4)
    free = score_groups(image, group, word, scale=2.0)
    torch.testing.assert_close(free, (2 * group @ word.T).softmax(-1) ** 2)
    some = score_groups(image, group, word, scale=2.0, top_words=1)
    torch.testing.assert_close(some[..., 0], (2 * group @ word.T).softmax(-1)[..., 0])
    assert some[..., 1:].abs().max() == 0
    assert torch.equal(score_groups(image, group, word, scale=2.0, top_words=9), free)


def test_hard_scores_are_those_of_the_owner_and_soft_ones_a_mean() -> None:
    model, emb = make().eval(), F.normalize(torch.randn(4, 8), dim=-1)
    pixels = torch.randn(2, 3, 16, 16)
    hard, soft = (read_scenes(model, pixels, emb, hard=h) for h in (True, False))
    with torch.no_grad():
        unowned = name_groups(model, model.group(pixels), (16, 16), emb, hard=False, owned=False)
    assert torch.equal(unowned.scores, soft.scores)
    assert unowned.owner.unique().tolist() == [-1]
    for b, y, x in ((0, 3, 5), (1, 15, 0)):
        assert torch.equal(hard.scores[b, :, y, x], hard.group_scores[b, hard.owner[b, y, x]])
    low, high = hard.group_scores.amin(1), hard.group_scores.amax(1)  # (B, W)
    assert (soft.scores >= low[..., None, None] - 1e-6).all()
    assert (soft.scores <= high[..., None, None] + 1e-6).all()
    assert not torch.equal(hard.scores, soft.scores)


def test_without_groups_patches_speak_for_themselves() -> None:
    model, emb = make(**UNGROUPED).eval(), F.normalize(torch.randn(4, 8), dim=-1)
    seen = read_scenes(model, torch.randn(1, 3, 16, 16), emb, top_words=None)
    assert seen.owner[0, 0].tolist() == [x // 4 for x in range(16)]
    assert seen.owner[0, :, 0].tolist() == [4 * (y // 4) for y in range(16)]
    coarse = seen.group_scores.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(seen.scores, F.interpolate(coarse, (16, 16), mode="bilinear"))


# ---- refining ------------------------------------------------------------------------------


def slowly(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    """The formula in words, one pixel after another: (K, H, W) and (3, H, W) -> (K, H, W)."""
    _, height, width = image.shape
    ways = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    apart = [(reach * y, reach * x) for reach in (1, 2, 4, 8) for y, x in ways]
    for _ in range(steps):
        found = torch.empty_like(scores)
        for y in range(height):
            for x in range(width):
                rows = [min(max(y + down, 0), height - 1) for down, _ in apart]
                columns = [min(max(x + right, 0), width - 1) for _, right in apart]
                near, here = image[:, rows, columns], image[:, y, x, None]  # (3, N), (3, 1)
                spread = torch.cat([near, here], dim=1).std(dim=1, keepdim=True)
                weight = (-((near - here).abs() / (0.1 * spread)).mean(dim=0)).softmax(dim=0)
                found[:, y, x] = scores[:, rows, columns] @ weight
        scores = found
    return scores


@pytest.mark.parametrize("size", [(1, 6), (12, 11)])
def test_refining_is_the_formula_pixel_by_pixel(size: tuple[int, int]) -> None:
    scores, image = draw(2, 3, *size).double(), draw(2, 3, *size, seed=1).double()
    image[1] = image[1] * 0.1 + 0.5  # of low contrast, which changes nothing
    expected = torch.stack([slowly(*pair, 2) for pair in zip(scores, image, strict=True)])
    torch.testing.assert_close(refine(scores, image, 2), expected, atol=1e-5, rtol=0)
    assert torch.equal(refine(scores, image, 0), scores)


def test_probabilities_stay_probabilities_and_borders_find_the_edge_of_the_picture() -> None:
    found = refine(draw(2, 4, 9, 13, seed=1).softmax(dim=1), draw(2, 3, 9, 13), 20)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 9, 13))
    assert refine(draw(1, 2, 9, 13), torch.zeros(1, 3, 9, 13), 5).isfinite().all()  # no edge
    image = 0.05 * draw(1, 3, 30, 40)
    image[..., 20:] += 0.2
    scores = torch.zeros(1, 2, 30, 40)
    scores[:, 0, :, :23], scores[:, 1, :, 23:] = 1, 1  # 3 px off
    expected = (torch.arange(40) >= 20).long().expand(30, 40)
    assert torch.equal(refine(scores, image, 20).argmax(dim=1)[0], expected)


# ---- words and files -----------------------------------------------------------------------


def test_templates_are_averaged_before_rows_are_made_unit(segmenter: GroupViTSegmenter) -> None:
    templates = ("{}", "sky {}")
    emb = segmenter.embed(["sheep", "羊"], templates)
    mean = segmenter.model.encode_text(segmenter.tokenizer(["sheep", "sky sheep"])).mean(dim=0)
    torch.testing.assert_close(emb[0], F.normalize(mean, dim=0))
    assert segmenter.embed(["sheep", "羊"], templates) is emb
    assert not torch.equal(segmenter.embed(["sheep", "羊"]), emb)
    with pytest.raises(ValueError, match="text too long"):
        segmenter.embed(["sheep sheep sheep sheep sheep"])


def test_the_hub_is_asked_after_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: GroupViTSegmenter
) -> None:
    name = "hf:nvidia/groupvit-gcc-yfcc"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"hf download nvidia/groupvit-gcc-yfcc") as caught:
        load_segmenter(name, offline=True)
    assert "damaged: config.json, model.safetensors or pytorch_model.bin" in str(caught.value)
    snapshot = tmp_path / "models--nvidia--groupvit-gcc-yfcc" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    save_groupvit(segmenter.model, snapshot / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"damaged: config\.json;"):
        load_segmenter(name, offline=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    found = load_segmenter(name, offline=True, device="cpu")
    assert found.model.config == segmenter.model.config
    with pytest.raises(FileNotFoundError, match="no such path"):
        load_segmenter("hf:nowhere", offline=True)


# ---- how good ------------------------------------------------------------------------------

NAMES = ("grass", "sheep", "dog", "cow", "never")


def labels(seed: int, height: int = 31, width: int = 44) -> Tensor:
    """Blobs of the first four classes."""
    coarse = draw(4, height // 5, width // 5, seed=seed)
    return F.interpolate(coarse[None], (height, width), mode="bilinear")[0].argmax(0)


def truth(seed: int, *size: int) -> Tensor:
    true = labels(seed, *size)
    true[:3, :9] = IGNORE
    return true


def test_counts_and_iou_equal_those_of_scikit_learn() -> None:
    pairs = [(labels(s), truth(s + 10)) for s in range(3)]
    tally = Tally(NAMES)
    for predicted, true in pairs:
        tally.add(predicted, true)
    found = tally.result()
    flat = [torch.cat([x[t != IGNORE] for x, t in p]) for p in (pairs, [(t, t) for _, t in pairs])]
    predicted, true = (x.numpy() for x in flat)
    assert np.array_equal(found.confusion, confusion_matrix(true, predicted, labels=range(5)))
    expected = jaccard_score(true, predicted, labels=range(4), average=None)
    assert np.allclose(found.iou[:4], expected, atol=1e-7)
    assert found.iou[4].isnan()
    assert found.miou == pytest.approx(expected.mean(), abs=1e-7)
    assert found.pixel_accuracy == pytest.approx((true == predicted).mean(), abs=1e-7)
    assert math.isnan(found.oracle_miou)
    assert "oracle_miou" not in found.as_dict()
    assert found.as_dict()["iou"].keys() == set(NAMES[:4])


def test_boundaries_are_what_opencvs_erosion_takes_away() -> None:
    cv2 = pytest.importorskip("cv2", reason="needs the extra `official`")
    predicted, true = labels(1, 62, 88), truth(2, 62, 88)
    distance = max(1, round(0.02 * math.hypot(*true.shape)))
    kernel = np.ones((3, 3), np.uint8)

    def boundary(mask: np.ndarray) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, kernel, iterations=distance)[1:-1, 1:-1]
        return mask & ~eroded.astype(bool)

    found = boundary_counts(predicted, true, 5)
    kept = (true != IGNORE).numpy()
    for k in range(5):
        ours, theirs = (boundary((x == k).numpy() & kept) for x in (predicted, true))
        assert found[:, k].tolist() == [(ours & theirs).sum(), (ours | theirs).sum()]


def test_the_oracle_gives_every_group_its_most_frequent_class() -> None:
    owner = torch.tensor([[7, 7, 7, 2], [2, 2, 9, 9]])
    true = torch.tensor([[1, 1, 0, 3], [IGNORE, 3, IGNORE, IGNORE]])
    expected = torch.tensor([[1, 1, 1, 3], [3, 3, 0, 0]])
    assert torch.equal(oracle_labels(owner, true, 4), expected)
    true = labels(3)
    tally = Tally(NAMES[:4])
    tally.add((true + 1) % 4, true, owner=true)  # right masks with wrong names
    found = tally.result()
    assert (found.miou, found.boundary_miou, found.oracle_miou) == (0.0, 0.0, 1.0)
    ring = zip(NAMES[:4], (*NAMES[1:4], NAMES[0]), [1.0] * 4, strict=True)
    assert set(found.confusions(9)) == set(ring)
    assert found.as_dict()["oracle_miou"] == 1.0


def test_pictures_of_which_nothing_is_known_have_no_numbers() -> None:
    true = labels(0)
    tally = Tally(NAMES)
    tally.add(true, torch.full_like(true, IGNORE))
    assert tally.result().means() == dict.fromkeys(
        ("miou", "oracle_miou", "boundary_miou", "pixel_accuracy")
    )
