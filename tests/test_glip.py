"""GLIP: the parts by hand, training on a small scale, bad input, and files."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from cliplab.detection import read_prompt
from cliplab.models.glip import (
    GLIP,
    GLIP_L,
    GLIP_T,
    GLIP_T_A,
    VARIANTS,
    Found,
    GLIPConfig,
    Raw,
    Selection,
    Truth,
    batch_of,
    chunks_of,
    load_glip,
    phrase_scores,
    prepare,
    save_glip,
    select,
    to_picture,
)
from cliplab.models.glip.anchors import anchor_boxes, decode, half_open, inclusive, iou
from cliplab.models.glip.dyhead import DeformableConv
from cliplab.models.glip.inference import resized, same_sizes, suppress
from cliplab.models.glip.swin import Swin
from cliplab.models.glip.training import (
    Losses,
    assign,
    giou_loss,
    losses,
    targets_of,
    token_targets,
)
from cliplab.models.glip.weights import build
from cliplab.models.tokenizers import WordPieceTokenizer

WORDS = ("red", "blue", "box", "on", "红", "蓝", "盒", "子")
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", *WORDS]
TOKENIZER = WordPieceTokenizer(VOCAB, 32)
TINY = GLIPConfig(
    widths=(16, 32, 32, 32), depths=(1, 1, 1, 1), channels=32, norm_groups=8,
    anchor_sizes=(16, 32, 64), short_side=64, long_side=128, vocab_size=len(VOCAB), text_width=32,
    text_layers=1, text_heads=2, text_hidden=32, text_positions=32, max_tokens=32, blocks=1,
    fusion_width=32, fusion_heads=2,
)  # fmt: skip


def tiny(**changes) -> GLIP:
    torch.manual_seed(0)
    return GLIP(replace(TINY, **changes), TOKENIZER)


def raw_of(model: GLIP, text: str = "red box. blue box", *, images: int = 2) -> tuple[Raw, Tensor]:
    ids, mask, _ = batch_of(chunks_of(read_prompt(text), TOKENIZER))
    generator = torch.Generator().manual_seed(1)
    return model(torch.randn(images, 3, 64, 64, generator=generator), ids, mask), mask


# ---- configuration ---------------------------------------------------------------------------


def test_published_sizes() -> None:
    """Names and numbers of the released layout, checked without their 1 GB of storage."""
    sizes = {"a": (GLIP_T_A, 151), "t": (GLIP_T, 232), "l": (GLIP_L, 430)}  # millions
    shapes = {}
    for name, (config, millions) in sizes.items():
        tensors = dict(build(config).named_parameters())
        assert round(sum(x.numel() for x in tensors.values()) / 1e6) == millions
        shapes[name] = {key: tuple(x.shape) for key, x in tensors.items()}
    assert shapes["a"]["rpn.head.dyhead_tower.5.offset.weight"] == (27, 256, 3, 3)
    assert "rpn.head.dyhead_tower.6.offset.weight" not in shapes["a"]
    assert shapes["t"]["rpn.head.dyhead_tower.15.b_attn.attn.v_proj.weight"] == (2048, 256)
    assert shapes["t"]["rpn.head.dyhead_tower.16.intermediate.dense.weight"] == (3072, 768)
    table = "backbone.body.layers.2.blocks.5.attn.relative_position_bias_table"
    assert (shapes["t"][table], shapes["l"][table]) == ((169, 12), (529, 24))


# ---- parts -----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (5, 130)])
def test_swin_takes_any_size(size: tuple[int, int]) -> None:
    config = replace(TINY, body="swin", widths=(4, 8, 16, 32), swin_heads=(1, 1, 2, 2), window=3)
    maps = Swin(config)(torch.randn(1, 3, *size))
    for level, x in enumerate(maps):
        cells = [-(-side // (4 * 2**level)) for side in size]
        assert x.shape == (1, 4 * 2**level, *cells)


def test_deformable_convolution_sees_nothing_far_away() -> None:
    conv, x = DeformableConv(3, 4, 2), torch.randn(2, 3, 5, 7)
    far = conv(x, torch.full((2, 18, 3, 4), 100.0), torch.ones(2, 9, 3, 4))
    torch.testing.assert_close(far, conv.bias[:, None, None].expand_as(far))


# ---- boxes and assignment ----------------------------------------------------------------------


def test_boxes_that_hold_their_last_pixel() -> None:
    box = torch.tensor([[10.0, 20, 30, 40]])
    assert inclusive(box).tolist() == [[10, 20, 29, 39]]
    assert torch.equal(half_open(inclusive(box)), box)
    assert decode(torch.full((1, 4), 1e4), box).isfinite().all()
    assert iou(box, box).item() == 1
    assert iou(
        torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 0, 14, 9]])
    ).item() == pytest.approx(1 / 3)


def test_assignment_prefers_the_better_box_and_copes_with_none() -> None:
    anchors = anchor_boxes([(8, 8)], (8,), (16,))
    boxes = torch.tensor([[8.0, 8, 23, 23], [8.0, 8, 39, 39]])
    matched = assign(anchors, [64], boxes)
    swapped = assign(anchors, [64], boxes.flip(0))
    assert set(matched.tolist()) == {-1, 0, 1}
    assert torch.equal(torch.where(matched < 0, -1, 1 - matched), swapped)
    assert assign(anchors, [64], boxes[:0]).unique().tolist() == [-1]
    alone = assign(anchors[:1], [1], anchors[:1])
    assert alone.tolist() == [0]  # a single candidate has no spread


def test_words_of_the_anchors() -> None:
    positive = torch.tensor([[True, False, False], [False, True, False]])
    matched = torch.tensor([1, -1, 0])
    assert token_targets(matched, positive).tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert token_targets(matched[1:2], positive[:0]).tolist() == [[0, 0, 0]]


def test_giou_of_known_boxes() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    others = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    found = giou_loss(box.expand(3, 4), others)
    assert found.tolist() == pytest.approx([0, 2 / 3, 1 + 1 / 3], abs=1e-5)


# ---- scores and selection ----------------------------------------------------------------------


def test_words_of_a_phrase_vote() -> None:
    prob = torch.tensor([[[0.9, 0.4, 0.1]]])
    positive = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    logits = prob.logit()
    mean, most, power = (
        phrase_scores(logits, positive, how)[0, 0] for how in ("mean", "max", "power")
    )
    assert mean.tolist() == pytest.approx([0.65, 0.1, 0.0])
    assert most.tolist() == pytest.approx([0.9, 0.1, 0.0])
    assert power.tolist() == pytest.approx([0.6, 0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"aggregate": "sum"}, {"least": -0.1}, {"nms": 0.0}, {"top": 0}],
)
def test_selections_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"(aggregate|selection): got .*; expected"):
        Selection(**wrong)


def test_suppression_within_a_phrase_only() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [1, 0, 10, 9], [0, 0, 9, 9], [50, 50, 59, 59]])
    found = Found(boxes, torch.tensor([0.5, 0.9, 0.8, 0.1]), torch.tensor([0, 0, 1, 0]))
    kept = suppress(found, Selection())
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8, 0.1])
    assert kept.labels.tolist() == [0, 1, 0]
    assert len(suppress(found, Selection(top=2)).scores) == 2
    tied = found._replace(scores=torch.tensor([0.5, 0.9, 0.8, 0.8]))
    assert len(suppress(tied, Selection(top=2)).scores) == 3  # equal to the last one
    nothing = suppress(Found(*(x[:0] for x in found)), Selection())
    assert [x.shape for x in nothing] == [(0, 4), (0,), (0,)]


def test_the_bar_is_before_centerness() -> None:
    raw = Raw(
        torch.tensor([[[0.1]]]).logit(), torch.zeros(1, 1, 4), torch.tensor([[-3.0]]), ((1, 1),)
    )
    config = replace(TINY, extra_levels=-2, anchor_sizes=(8,))
    (found,) = select(raw, torch.tensor([[True]]), [(8, 8)], config, Selection(least=0.09))
    expected = (0.1 * torch.tensor(-3.0).sigmoid()).sqrt().item()
    assert found.scores.tolist() == pytest.approx([expected])
    assert found.boxes.tolist() == [[0, 0, 7, 7]]
    (none,) = select(raw, torch.tensor([[True]]), [(8, 8)], config, Selection(least=0.11))
    assert len(none.scores) == 0


@torch.no_grad()
def test_the_best_candidates_of_each_level_go_on() -> None:
    raw, mask = raw_of(tiny().eval(), images=1)
    few = Selection(least=0.0, candidates=2, nms=1.0)
    (found,) = select(raw, mask, [(64, 64)], TINY, few)
    scores = phrase_scores(raw.token_logits, mask)[0, :, 0] * raw.centerness[0].sigmoid()
    best = torch.cat([x.topk(2).values for x in scores.split([h * w for h, w in raw.sizes])])
    torch.testing.assert_close(found.scores, best.sqrt().sort(descending=True).values)


def test_boxes_narrower_than_a_pixel_are_dropped() -> None:
    """They would be turned inside out where a large picture's boxes are scaled back to it."""
    deltas = torch.zeros(1, 1, 4)
    config = replace(TINY, extra_levels=-2, anchor_sizes=(8,))
    for width, count in ((1.0, 1), (0.5, 0)):
        deltas[..., 2] = 5 * math.log(width / 8)
        raw = Raw(torch.ones(1, 1, 1), deltas, torch.ones(1, 1), ((1, 1),))
        (found,) = select(raw, torch.tensor([[True]]), [(8, 8)], config)
        assert len(found.boxes) == len(found.scores) == len(found.labels) == count
        boxes = to_picture(found.boxes, (8, 8), (800, 800))
        assert (boxes[:, 2:] > boxes[:, :2]).all()


# ---- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (1066, 800)),
        ((480, 640), (800, 1066)),
        ((2000, 500), (1332, 333)),
        ((1, 1), (800, 800)),
        ((3, 7000), (1, 1333)),
    ],
)
def test_sizes_for_the_model(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(size, GLIP_T) == expected


def test_pictures_are_normalised_and_filled_up() -> None:
    image = Image.new("RGB", (100, 50), (255, 0, 51))
    pixels, shape = prepare(image, TINY)
    assert pixels.shape == (3, 64, 128)
    assert shape == (64, 128)
    assert pixels[:, 0, 0].tolist() == pytest.approx([2.2, -1.8, -1.0], abs=1e-5)
    turned, _ = prepare(image, replace(TINY, bgr=True))
    assert turned[:, 0, 0].tolist() == pytest.approx([-1.0, -1.8, 2.2], abs=1e-5)
    filled, shape = prepare(image.resize((70, 64)), TINY)
    assert shape == (64, 70)
    assert filled.shape == (3, 64, 96)
    assert not filled[:, :, 70:].any()


def test_boxes_back_in_the_picture() -> None:
    boxes = torch.tensor([[0.0, 0, 63, 31], [10, 10, 19, 19]])
    same = to_picture(boxes, (32, 64), (64, 32))
    assert same.tolist() == [[0, 0, 64, 32], [10, 10, 20, 20]]
    double = to_picture(boxes, (32, 64), (128, 64))
    assert double.tolist() == [[0, 0, 127, 63], [20, 20, 39, 39]]


def test_batches_of_neighbours_of_one_size() -> None:
    shapes = [(3, 32, 32), (3, 32, 32), (3, 32, 64), (3, 32, 32), (3, 32, 32), (3, 32, 32)]
    assert same_sizes([torch.empty(s) for s in shapes]) == [[0, 1], [2], [3, 4, 5]]


# ---- the model -----------------------------------------------------------------------------------


@torch.no_grad()
def test_one_prompt_for_all_pictures() -> None:
    model = tiny().eval()
    one, mask = raw_of(model)
    ids, _, _ = batch_of(chunks_of(read_prompt("red box. blue box"), TOKENIZER))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    both = model(pixels, ids.repeat(2, 1), mask.repeat(2, 1))
    for a, b in zip(one[:3], both[:3], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert one.sizes == ((8, 8), (4, 4), (2, 2))


@torch.no_grad()
def test_only_fusion_lets_the_words_move_the_boxes() -> None:
    for fusion in (True, False):
        model = tiny(fusion=fusion).eval()
        first, second = (raw_of(model, text)[0].deltas for text in ("red box", "blue box"))
        assert torch.equal(first, second) != fusion
        maps = [torch.ones(1, 32, side, side) for side in (8, 4, 2)]
        hidden, embedded = torch.ones(2, 1, 2, 32)
        mask = torch.ones(1, 2).bool()
        model.head.bias_lang.data.fill_(0.1)
        one, two = (model.head(maps, hidden, x, mask)[0] for x in (embedded, -embedded))
        assert torch.equal(one, two) == fusion  # without it the bare embeddings are compared


@torch.no_grad()
def test_new_weights_expect_nothing() -> None:
    raw, _ = raw_of(tiny(log_scale=0.0).eval())
    assert raw.token_logits.sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)
    assert tiny().head.bias0.sigmoid().item() == pytest.approx(0.01)


def truth_for(mask: Tensor) -> list[Truth]:
    positive = torch.zeros(2, mask.shape[1], dtype=torch.bool)
    positive[0, 1:3] = positive[1, 4:6] = True
    boxes = torch.tensor([[8.0, 8, 30, 30], [30, 30, 60, 60]])
    return [Truth(boxes, positive), Truth(boxes[:1], positive[:1])]


def glip_loss(raw: Raw, mask: Tensor, truth: list[Truth], config: GLIPConfig) -> Losses:
    return losses(raw, targets_of(truth, raw.sizes, config), mask)


def test_losses_reach_every_weight() -> None:
    for fusion in (True, False):
        model = tiny(fusion=fusion)
        raw, mask = raw_of(model)
        sum(glip_loss(raw, mask, truth_for(mask), TINY)).backward()
        deaf = [n for n, p in model.named_parameters() if p.grad is None]
        assert deaf == []
        still = {n for n, p in model.named_parameters() if not p.grad.any()}
        assert still == {"rpn.head.scales.2.scale"}  # no box is large enough for the coarsest level


def test_a_picture_without_boxes_teaches_that_nothing_is_there() -> None:
    model = tiny()
    raw, mask = raw_of(model)
    empty = Truth(torch.zeros(0, 4), torch.zeros(0, mask.shape[1], dtype=torch.bool))
    found = glip_loss(raw, mask, [empty, empty], TINY)
    assert found.token > 0
    assert found.box == found.centerness == 0
    sum(found).backward()
    assert model.head.bias0.grad > 0  # downhill is towards fewer matches
    mixed = glip_loss(raw_of(model)[0], mask, [truth_for(mask)[0], empty], TINY)
    assert all(part > 0 for part in mixed)


def test_bfloat16_is_near_and_has_gradients() -> None:
    model = tiny()
    totals = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            raw, mask = raw_of(model)
        assert all(x.dtype == torch.float32 for x in raw[:3])
        loss = sum(glip_loss(raw, mask, truth_for(mask), TINY))
        loss.backward()
        totals.append(loss.item())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert totals[1] == pytest.approx(totals[0], rel=0.02)
    assert totals[1] != totals[0]


# ---- files ---------------------------------------------------------------------------------------


def test_our_files(tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / "glip.safetensors"
    save_glip(model, path)
    again = load_glip(path)
    assert again.config == model.config
    assert again.tokenizer.vocab == VOCAB
    assert not again.training
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=1e-4, rtol=1e-3)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two tiny variants, and a published file of the first with all that such files carry."""
    swin = {"body": "swin", "widths": (8, 16, 32, 64), "swin_heads": (1, 1, 2, 2), "window": 3}
    fused = replace(TINY, **swin, unused_classes=80)
    monkeypatch.setitem(VARIANTS, "glip-t", fused)
    monkeypatch.setitem(VARIANTS, "glip-t-a", replace(fused, fusion=False))
    torch.manual_seed(0)
    model = GLIP(replace(fused, unused_classes=7))
    path = tmp_path / "glip_tiny.pth"
    write_published(path, model)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return path


def write_published(path: Path, model: GLIP, **changes: Tensor) -> None:
    tensors = dict(model.state_dict())
    extra = {
        "rpn.anchor_generator.cell_anchors.0": torch.zeros(1, 4),
        "language_backbone.body.model.embeddings.position_ids": torch.arange(32)[None],
        "backbone.body.layers.0.blocks.0.attn.relative_position_index": torch.zeros(9, 9).long(),
        "language_backbone.body.model.pooler.dense.weight": torch.zeros(32, 32),
    }
    table = {f"module.{name}": x for name, x in {**tensors, **extra, **changes}.items()}
    rest = {"optimizer": {"state": {0: {"step": 3}}}, "iteration": 7, "model_ema": {"x": 1}}
    torch.save({"model": table, **rest}, path)


def test_published_layout(zoo: Path) -> None:
    model = load_glip(f"glip-t:{zoo}")
    saved = torch.load(zoo, weights_only=True)["model"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[f"module.{name}"]), name
    assert model.config.unused_classes == 7
    assert model.tokenizer.vocab == VOCAB
    assert not model.training
    write_published(zoo, model, **{"rpn.head.tunable_linear.weight": torch.zeros(2, 2)})
    for variant, refused in {
        "glip-t": r"1 unexpected: rpn\.head\.tunable_linear\.weight\.",
        "glip-t-a": r"missing: rpn.head.dyhead_tower.0.AttnConv.*unexpected: .*b_attn.attn.l_proj",
        "glip-l": r"of another shape: .* instead of \(192,",
    }.items():
        with pytest.raises(ValueError, match=refused):
            load_glip(f"{variant}:{zoo}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"glip_tiny_model_o365_goldg_cc_sbu\.pth"):
        load_glip(f"glip-t:{tmp_path / 'no.pth'}")
    with pytest.raises(ValueError, match="unknown GLIP 'glip-x'; did you mean"):
        load_glip(f"glip-x:{tmp_path / 'no.pth'}")
    with pytest.raises(ValueError, match="unknown GLIP 'glpi'; did you mean 'glip'"):
        load_glip("glpi")
    with pytest.raises(FileNotFoundError, match=r"its variant in front: glip-t-a:<path>"):
        load_glip(tmp_path / "no.safetensors")


def test_the_vocabulary_of_a_published_file(zoo: Path) -> None:
    assert load_glip(f"glip-t:{zoo}", vocab=VOCAB).tokenizer.vocab == VOCAB
    with pytest.raises(ValueError, match=rf"vocab: got 5 tokens; expected {len(VOCAB)}"):
        load_glip(f"glip-t:{zoo}", vocab=VOCAB[:5])
    moved = (zoo.parent / "vocab.txt").rename(zoo.parent / "bert.txt")
    assert load_glip(f"glip-t:{zoo}", vocab=moved).tokenizer.vocab == VOCAB
    with pytest.raises(FileNotFoundError, match=r"expected vocab\.txt of bert-base-uncased"):
        load_glip(f"glip-t:{zoo}")
