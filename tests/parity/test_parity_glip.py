"""Our GLIP against tensors of the released code: fusion, deformable convolution, head, losses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity.reference import Reference, read_reference
from torch import Tensor

from cliplab.models.glip import (
    GLIP,
    VARIANTS,
    GLIPConfig,
    Prompt,
    Selection,
    Targets,
    Truth,
    chunks_of,
    load_glip,
    select,
)
from cliplab.models.glip.anchors import anchor_boxes, decode, encode, half_open
from cliplab.models.glip.dyhead import Head, Raw, gathered_conv, reread
from cliplab.models.glip.fusion import CrossAttention, FusionBlock
from cliplab.models.glip.inference import Found
from cliplab.models.glip.training import (
    Losses,
    assign,
    centerness_targets,
    losses,
    targets_of,
    token_targets,
)
from cliplab.models.losses import token_focal_loss
from cliplab.models.weights import load_strict

LEVELS = range(5)
SMALL = GLIPConfig(
    extra_levels=2,
    channels=32,
    anchor_sizes=(16, 32, 64, 128, 256),
    vocab_size=64,
    text_width=48,
    text_layers=2,
    text_heads=4,
    text_hidden=96,
    text_positions=32,
    max_tokens=16,
    blocks=2,
    fusion_width=64,
    fusion_heads=4,
    norm_groups=8,
    unused_classes=5,
)
FULL = replace(
    SMALL, body="swin", widths=(8, 16, 32, 64), depths=(2, 2, 1, 1), swin_heads=(1, 2, 2, 4),
    window=5, blocks=1,
)  # fmt: skip


# ---- fusion --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fusion() -> Reference:
    return read_reference("glip/fusion")


def attention(golden: Reference, **changes) -> CrossAttention:
    ours = {k.removeprefix("attn."): v for k, v in golden.weights.items() if k.startswith("attn.")}
    return load_strict(CrossAttention(replace(SMALL, **changes)), ours, "golden")


def block(golden: Reference, **changes) -> FusionBlock:
    return load_strict(FusionBlock(replace(SMALL, **changes)), golden.weights, "golden")


def inputs(golden: Reference, prefix: str = "") -> tuple[Tensor, Tensor]:
    return golden.inputs[f"{prefix}v"], golden.inputs[f"{prefix}l"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "given", "changes"),
    [
        ("attn.raw", "", {}),
        ("attn.nomask", "", {}),
        ("clamp", "big_", {}),  # logits beyond the limit
        ("noclamp", "big_", {"clamp": False}),
        ("clamp_stable2d", "big_", {"batch_max": True}),
    ],
)
def test_attention_in_both_directions(
    fusion: Reference, name: str, given: str, changes: dict
) -> None:
    mask = None if name == "attn.nomask" else fusion.inputs["mask"].bool()
    image, text = attention(fusion, **changes)(*inputs(fusion, given), mask)
    fusion.assert_close(f"{name}.delta_v", image)
    fusion.assert_close(f"{name}.delta_l", text)


@torch.no_grad()
def test_block(fusion: Reference) -> None:
    mask, ours = fusion.inputs["mask"].bool(), block(fusion)
    cells, words = inputs(fusion)
    image, text = ours.attn(ours.layer_norm_v(cells), ours.layer_norm_l(words), mask)
    fusion.assert_close("attn.delta_v_of_normed", image)
    fusion.assert_close("attn.delta_l_of_normed", text)
    image, text = ours(cells, words, mask)
    fusion.assert_close("block.v", image)
    fusion.assert_close("block.l", text)


def test_gradients_of_the_block(fusion: Reference) -> None:
    ours = block(fusion)
    cells, words = (x.clone().requires_grad_() for x in inputs(fusion))
    image, text = ours(cells, words, fusion.inputs["mask"].bool())
    (image * fusion.inputs["cot_v"]).sum().add((text * fusion.inputs["cot_l"]).sum()).backward()
    fusion.assert_close("grad.v", cells.grad)
    fusion.assert_close("grad.l", words.grad)
    fusion.assert_close("grad.gamma_v", ours.gamma_v.grad)
    fusion.assert_close("grad.attn.v_proj.weight", ours.attn.v_proj.weight.grad)


# ---- deformable convolution ----------------------------------------------------------------


@pytest.fixture(scope="module")
def dcn() -> Reference:
    return read_reference("glip/dcn")


def convolve(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, **rest) -> Tensor:
    """By torchvision; the official kernel reads maps that torchvision refuses (see `reread`)."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(x, offset, weight, rest["bias"], rest["stride"], 1, mask=mask)


DCN_CASES = ("same", "stride2", "upper_level", "upper_tiny")


def dcn_inputs(golden: Reference, case: str) -> dict:
    size = tuple(golden.outputs[case].shape[-2:])
    names = ("x", "offset", "mask", "weight", "bias")
    given: dict = {name: golden.inputs[f"{case}.{name}"] for name in names}
    given |= {name: reread(given[name], size) for name in ("offset", "mask")}
    return given | {"stride": 2 if case == "stride2" else 1}


@torch.no_grad()
@pytest.mark.parametrize("conv", [gathered_conv, convolve])
@pytest.mark.parametrize("case", DCN_CASES)
def test_deformable_convolution(dcn: Reference, case: str, conv) -> None:
    dcn.assert_close(case, conv(**dcn_inputs(dcn, case)))


@pytest.mark.parametrize("case", DCN_CASES)
def test_gradients_of_the_deformable_convolution(dcn: Reference, case: str) -> None:
    given = dcn_inputs(dcn, case)
    tensors = [name for name in given if name != "stride"]
    gradients = []
    for conv in (gathered_conv, convolve):
        leaves = {name: given[name].detach().double().requires_grad_() for name in tensors}
        found = conv(**leaves, stride=given["stride"])
        (found * torch.arange(found.numel()).view_as(found).cos()).sum().backward()
        gradients.append([leaves[name].grad for name in tensors])
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-9)


# ---- head ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head() -> Reference:
    return read_reference("glip/head")


def in_head(golden: Reference, **changes) -> Head:
    weights = {k.removeprefix("head."): v for k, v in golden.weights.items()}
    return load_strict(Head(replace(SMALL, **changes)), weights, "golden")


def run_head(ours: Head, golden: Reference, **given: Tensor) -> Raw:
    given = golden.inputs | given
    maps = [given[f"feat{i}"] for i in LEVELS]
    return ours(maps, given["hidden"], given["embedded"], given["mask"].bool())


def by_level(x: Tensor, raw: Raw) -> list[Tensor]:
    """(B, A, X) -> levels (B, X, h, w)."""
    parts = x.transpose(1, 2).split([h * w for h, w in raw.sizes], dim=2)
    return [part.unflatten(2, size) for part, size in zip(parts, raw.sizes, strict=True)]


def assert_raw(raw: Raw, golden: Reference) -> None:
    boxes, central = by_level(raw.deltas, raw), by_level(raw.centerness[..., None], raw)
    tokens = raw.token_logits.split([h * w for h, w in raw.sizes], dim=1)
    for i in LEVELS:
        golden.assert_close(f"bbox_reg{i}", boxes[i])
        golden.assert_close(f"centerness{i}", central[i])
        golden.assert_close(f"dot_product_logits{i}", tokens[i])


@torch.no_grad()
def test_head(head: Reference) -> None:
    assert_raw(run_head(in_head(head), head), head)


@torch.no_grad()
@pytest.mark.parametrize(
    ("mistake", "changes"),
    [
        ("offsets_resized_instead_of_prefix_reinterpreted", {"flat_offsets": False}),
        ("residual_on_unnormed_input", {"normed_residual": False}),
        ("upsample_align_corners_False", {}),
        ("groupnorm_eps_1e-6", {}),
    ],
)
def test_the_tolerance_catches_typical_mistakes(
    mistake: str, changes: dict, head: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = in_head(head, **changes)
    if mistake.startswith("upsample"):
        resize = F.interpolate
        monkeypatch.setattr(F, "interpolate", lambda x, s, **k: resize(x, s, mode="bilinear"))
    for module in ours.modules():
        if mistake.startswith("groupnorm") and isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6
    raw = run_head(ours, head)
    wrong = {"bbox_reg": by_level(raw.deltas, raw), "dot_product_logits": by_level(
        raw.token_logits, raw)}  # fmt: skip
    for name, found in wrong.items():
        expected = [head.outputs[f"{name}{i}"] for i in LEVELS]
        if name == "dot_product_logits":
            found = [x.flatten(2).transpose(1, 2) for x in found]
        error = max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))
        # How to resize offsets is a matter of taste; the other mistakes have one form.
        slack = 0.5 if "offsets" in mistake else 0.05
        assert error == pytest.approx(head.notes["mutations"][mistake][name], rel=slack)


# ---- assignment, losses ----------------------------------------------------------------------


def sizes_of(golden: Reference) -> list[tuple[int, int]]:
    return [tuple(size) for size in golden.notes["config"]["sizes"]]


def truth_of(golden: Reference) -> list[tuple[Tensor, Tensor]]:
    """Boxes and words of the two pictures; positive_map has one row per box."""
    rows = golden.inputs["positive_map"].bool().split([3, 2])
    return [(golden.inputs[f"gt{i}.boxes"], rows[i]) for i in (0, 1)]


def targets(golden: Reference, raw: Raw, config: GLIPConfig) -> Targets:
    truth = [Truth(half_open(boxes), words) for boxes, words in truth_of(golden)]
    return targets_of(truth, raw.sizes, config)


def test_anchors_and_assignment(head: Reference) -> None:
    sizes = sizes_of(head)
    anchors = anchor_boxes(sizes, SMALL.strides, SMALL.anchor_sizes)
    head.assert_close("anchors", anchors)
    for i, (boxes, positive) in enumerate(truth_of(head)):
        matched = assign(anchors, [h * w for h, w in sizes], boxes)
        labels = head.inputs[f"gt{i}.labels"][matched.clamp(min=0)] * (matched >= 0)
        assert torch.equal(labels, head.outputs[f"labels{i}"])
        assert torch.equal((matched >= 0).nonzero().squeeze(1), head.outputs[f"pos_inds{i}"])
        deltas = encode(boxes[matched.clamp(min=0)], anchors)
        head.assert_close(f"reg_targets{i}", deltas)
        tokens = token_targets(matched, positive)
        tokens[matched < 0, -1] = 1  # as the released code marks nothing
        assert torch.equal(tokens, head.outputs[f"token_labels{i}"])
        chosen = matched >= 0
        central = centerness_targets(deltas[chosen], anchors[chosen])
        head.assert_close(f"centerness_targets{i}", central)


def assert_losses(found: Losses, golden: Reference) -> None:
    golden.assert_close("loss.loss_reg", found.box)
    golden.assert_close("loss.loss_centerness", found.centerness)
    golden.assert_close("loss.loss_dot_product_token", found.token)
    assert golden.outputs["loss.loss_cls"] == 0  # the released code computes it and multiplies by 0


def test_losses_and_their_gradients(head: Reference) -> None:
    ours = in_head(head)
    names = [f"feat{i}" for i in LEVELS] + ["hidden"]
    given = {name: head.inputs[name].clone().requires_grad_() for name in names}
    raw = run_head(ours, head, **given)
    found = losses(raw, targets(head, raw, SMALL), head.inputs["mask"])
    assert_losses(found, head)
    sum(found).backward()
    weights = {f"head.{name}": p.grad for name, p in ours.named_parameters()}
    gradients = {name: x.grad for name, x in given.items()} | weights
    wanted = [name for name in head.outputs if name.startswith("loss_grad.")]
    assert len(wanted) == 13
    for name in wanted:
        head.assert_close(name, gradients[name.removeprefix("loss_grad.")])


@pytest.fixture(scope="module")
def focal() -> Reference:
    return read_reference("glip/losses")


def focal_cases() -> list[str]:
    """Of the released code's three versions the one that all published models use."""
    names = [n for n in read_reference("glip/losses").outputs if n.startswith("binary.")]
    return [name.removesuffix(".loss") for name in names if name.endswith(".loss")]


@pytest.mark.parametrize("case", focal_cases())
def test_token_focal_loss(focal: Reference, case: str) -> None:
    _, numbers, masked, kind = case.replace("0.", "0_").replace("1.", "1_").split(".")
    alpha, gamma = (float(x.replace("_", ".")) for x in numbers[1:].split("g"))
    logits = focal.inputs["logits"].clone().requires_grad_()
    targets = focal.inputs["soft_targets" if kind == "soft" else "targets"]
    mask = focal.inputs["mask"] if masked == "mask" else None
    before = focal.inputs["mask"].clone()
    loss = token_focal_loss(logits, targets, mask, alpha=alpha, gamma=gamma)
    loss.backward()
    focal.assert_close(f"{case}.loss", loss)
    focal.assert_close(f"{case}.grad", logits.grad)
    assert torch.equal(before, focal.inputs["mask"])


def test_coded_boxes(focal: Reference) -> None:
    anchors = focal.inputs["box.anchors"]
    focal.assert_close("box.encode", encode(focal.inputs["box.gt"], anchors))
    focal.assert_close("box.decode", decode(focal.inputs["box.deltas"], anchors))


# ---- detections ----------------------------------------------------------------------------


def rows_of(golden: Reference, columns: int) -> Tensor:
    """Bool (K, L): the words of each label."""
    positive = torch.zeros(5, columns, dtype=torch.bool)
    for label, tokens in golden.notes["config"]["label_tokens"].items():
        positive[int(label) - 1, tokens] = True
    return positive


def assert_found(found: list[Found], golden: Reference) -> None:
    """The same boxes, up to the order of those with equal scores."""
    for i, one in enumerate(found):
        scores, boxes, labels = (
            golden.outputs[f"det{i}.{part}"] for part in ("scores", "boxes", "labels")
        )
        assert len(one.scores) == len(scores) == golden.notes["n_det"][i]
        order = scores.argsort(descending=True, stable=True)
        torch.testing.assert_close(one.scores, scores[order], atol=1e-6, rtol=0)
        apart = (one.boxes[:, None] - boxes).abs().amax(2)  # pixels
        apart = apart + 1e3 * (one.labels[:, None] + 1 != labels)
        apart = apart + 1e3 * ((one.scores[:, None] - scores).abs() > 1e-6)
        assert apart.amin(1).max() < 1e-4
        assert apart.amin(0).max() < 1e-4


@torch.no_grad()
def test_detections_of_the_head(head: Reference) -> None:
    raw = run_head(in_head(head), head)
    settings = head.notes["config"]
    selection = Selection(least=settings["infer_th"], top=settings["dets"])
    positive = rows_of(head, raw.token_logits.shape[2])
    assert_found(select(raw, positive, [tuple(settings["image"])] * 2, SMALL, selection), head)


# ---- the whole model -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> Reference:
    return read_reference("glip/full")


def whole(golden: Reference) -> GLIP:
    return load_strict(GLIP(FULL), golden.weights, "golden")


def run(ours: GLIP, golden: Reference) -> Raw:
    mask = golden.inputs["attention_mask"].bool()
    return ours(golden.inputs["image"], golden.inputs["input_ids"], mask)


@torch.no_grad()
def test_whole_model_and_its_detections(full: Reference) -> None:
    raw = run(whole(full), full)
    assert_raw(raw, full)
    settings = full.notes["config"]
    selection = Selection(least=settings["infer_th"], top=settings["dets"])
    shapes = [tuple(settings["image"])] * 2
    assert_found(select(raw, rows_of(full, 16), shapes, FULL, selection), full)


@torch.no_grad()
def test_padding_of_the_prompt_changes_nothing(full: Reference) -> None:
    ours, given = whole(full), full.inputs
    mask = given["attention_mask"].bool()
    longest = int(mask.sum(1).max())
    raw = run(ours, full)
    short = ours(given["image"], given["input_ids"][:, :longest], mask[:, :longest])
    real = mask[:, None, :longest].expand_as(short.token_logits)
    torch.testing.assert_close(
        short.token_logits[real], raw.token_logits[:, :, :longest][real], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(short.deltas, raw.deltas, atol=1e-5, rtol=0)


def test_losses_and_gradients_of_the_whole_model(full: Reference) -> None:
    ours = whole(full)
    raw = run(ours, full)
    found = losses(raw, targets(full, raw, FULL), full.inputs["attention_mask"])
    assert_losses(found, full)
    sum(found).backward()
    weights = dict(ours.named_parameters())
    wanted = [name for name in full.outputs if name.startswith("loss_grad.")]
    assert len(wanted) == 5
    for name in wanted:
        full.assert_close(name, weights[name.removeprefix("loss_grad.")].grad)


@torch.no_grad()
def test_published_file_of_the_whole_model(
    full: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a .pth in the released layout to the released code's numbers."""
    monkeypatch.setitem(VARIANTS, "glip-t", FULL)
    path = tmp_path / "glip_tiny.pth"
    torch.save({"model": {f"module.{k}": v.half() for k, v in full.weights.items()}}, path)
    ours = load_glip(f"glip-t:{path}", vocab=full.notes["config"]["vocab"])
    assert_raw(run(ours, full), full)
    spans = ((0, 5), (7, 21), (23, 29), (31, 34), (5, 6))  # the fifth label of the reference is "."
    prompt = Prompt(full.notes["captions"][0], tuple("12345"), tuple((span,) for span in spans))
    (chunk,) = chunks_of(prompt, ours.tokenizer, 16)
    assert torch.equal(chunk.positive, rows_of(full, len(chunk.token_ids)))
    raw = ours(full.inputs["image"][:1], chunk.token_ids[None], chunk.positive.new_ones(1, 12))
    settings = full.notes["config"]
    selection = Selection(least=settings["infer_th"], top=settings["dets"])
    assert_found(select(raw, chunk.positive, [tuple(settings["image"])], FULL, selection), full)
