"""GroupViT: assignment by hand, the towers in every configuration, its loss, its files."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.groupvit import (
    GroupViT,
    GroupViTConfig,
    assign,
    gumbel_noise,
    load_groupvit,
    save_groupvit,
)
from cliplab.models.groupvit.grouping import AssignAttention
from cliplab.models.layers import ModifiedResNet
from cliplab.models.losses import multi_label_loss
from cliplab.models.weights import load_strict

TINY = GroupViTConfig(
    image_resolution=16, patch_size=4, widths=(16, 16, 16), depths=(1, 1, 1), heads=(2, 2, 2),
    group_tokens=(6, 3), output_groups=(6, 3), embed_dim=8, projector_width=12, context_length=6,
    vocab_size=20, text_width=16, text_heads=2, text_layers=1,
)  # fmt: skip
ONE_STAGE = {"widths": (16, 24), "depths": (1, 0), "heads": (2, 2), "group_tokens": (5,),
             "output_groups": (4,)}  # fmt: skip
NO_STAGE = {"widths": (16,), "depths": (2,), "heads": (2,), "group_tokens": (),
            "output_groups": ()}  # fmt: skip
CONV = {"stem": "conv", "stem_width": 16, "stem_blocks": (1, 1)}
KINDS: dict[str, dict] = {
    "two stages": {},
    "one stage, another width": ONE_STAGE,
    "no groups": NO_STAGE,
    "soft": {"hard": False},
    "without noise": {"gumbel": False},
    "convolutional": CONV,
    "one map of stride 8": {**CONV, "patch_size": 8},
    "linear projections": {"projector_width": 0},
    "one temperature": {"own_label_scale": False},
    "stochastic depth": {"drop_path": 0.2},
}


def tiny(**changes) -> GroupViT:
    torch.manual_seed(0)
    return GroupViT(replace(TINY, **changes)).eval()


def pixels(n: int = 3, *, height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def token_ids(*shape: int) -> Tensor:
    ids = torch.randint(1, 19, (*shape, 6), generator=torch.Generator().manual_seed(1))
    ids[..., 4] = 19  # the end token
    return ids


def rows(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


# ---- assignment ----------------------------------------------------------------------------

LOGITS = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 3.0, 0.9]]])  # two groups, three patches


def test_every_patch_chooses_among_the_groups() -> None:
    hard, soft = assign(LOGITS, hard=True)
    assert hard.tolist() == [[[1, 0, 1], [0, 1, 0]]]
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(1, 3))
    assert soft[0, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-2)))
    mixed, same = assign(LOGITS, hard=False)
    assert torch.equal(mixed, same)
    assert torch.equal(same, soft)


def test_the_gradient_of_a_hard_choice_is_that_of_the_soft_one() -> None:
    weights = torch.tensor([[[1.0, -2.0, 3.0], [0.5, 1.0, -1.0]]])
    gradients = []
    for hard in (True, False):
        logits = LOGITS.clone().requires_grad_()
        (assign(logits, hard=hard).hard * weights).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().min() > 0


def test_noise_decides_who_is_chosen_but_leaves_the_maps_alone() -> None:
    noise = torch.zeros_like(LOGITS)
    noise[0, 1, 0] = 5.0
    quiet, noisy = assign(LOGITS, hard=True), assign(LOGITS, hard=True, noise=noise)
    assert torch.equal(quiet.soft, noisy.soft)
    assert noisy.hard[0, :, 0].tolist() == [0, 1]
    assert torch.equal(noisy.hard[..., 1:], quiet.hard[..., 1:])


def test_noisy_choices_are_as_frequent_as_they_are_likely() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1).expand(1, 3, 20_000)
    frequency = assign(logits, hard=True, noise=gumbel_noise(logits)).hard.mean(dim=2)[0]
    torch.testing.assert_close(frequency, logits[0, :, 0].softmax(0), atol=0.012, rtol=0)


def test_a_group_is_the_sum_of_its_patches_over_one_more_than_their_number() -> None:
    """Three patches, two groups and a third one that gets nobody, with nothing projected."""
    layer = AssignAttention(2, hard=True, gumbel=False)
    for linear in (layer.q_proj, layer.k_proj, layer.v_proj, layer.proj):
        linear.weight.data.copy_(torch.eye(2))
        linear.bias.data.zero_()
    patches = torch.tensor([[[4.0, 0.0], [0.0, 4.0], [6.0, 1.0]]])
    asking = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]])
    groups, assignment = layer(asking, patches)
    assert assignment.hard[0].argmax(0).tolist() == [0, 1, 0]
    expected = torch.tensor([[[10 / 3, 1 / 3], [0.0, 2.0], [0.0, 0.0]]])
    torch.testing.assert_close(groups, expected)


def test_groups_do_not_care_in_which_order_patches_stand() -> None:
    model = tiny()
    block = model.img_encoder.layers[0].downsample
    tok, asking = torch.randn(2, 9, 16), torch.randn(2, 6, 16)
    order = torch.tensor([3, 0, 8, 1, 7, 5, 2, 4, 6])
    (groups, (hard, soft)), (same, (mixed, _)) = block(tok, asking), block(tok[:, order], asking)
    torch.testing.assert_close(groups, same)
    assert torch.equal(hard[..., order], mixed)
    assert soft.shape == (2, 6, 9)


# ---- towers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_with_all_of_its_parameters(kind: str) -> None:
    model = tiny(**KINDS[kind]).train()
    losses = model.losses(pixels(), token_ids(3, 3))
    (losses.caption + losses.multi_label).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_tell_how_much_of_a_patch_each_group_has(kind: str) -> None:
    model = tiny(**KINDS[kind])
    groups = model.group(pixels(height=16, width=24))
    stride = model.config.patch_size
    maps = groups.maps()
    assert maps.shape == (3, groups.tok.shape[1], 16 // stride, 24 // stride)
    torch.testing.assert_close(maps.sum(dim=1), torch.ones_like(maps[:, 0]))
    assert len(groups.assignments) == model.config.stages
    image, group = model.encode_groups(groups)
    assert (image.shape, group.shape) == ((3, 8), (3, groups.tok.shape[1], 8))


def test_maps_of_two_stages_are_their_product() -> None:
    groups = tiny().group(pixels(1))
    first, second = (a.soft[0] for a in groups.assignments)
    by_hand = torch.zeros(3, 16)
    for large in range(3):
        for patch in range(16):
            by_hand[large, patch] = sum(second[large, g] * first[g, patch] for g in range(6))
    torch.testing.assert_close(groups.maps()[0].flatten(1), by_hand)


def test_training_is_noisy_and_use_is_not() -> None:
    model = tiny()
    assert torch.equal(model.group(pixels()).tok, model.group(pixels()).tok)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.group(pixels()).tok, model.group(pixels()).tok)
    quiet = tiny(gumbel=False).train()
    assert torch.equal(quiet.group(pixels()).tok, quiet.group(pixels()).tok)


def test_stochastic_depth_leaves_branches_out_in_training_only() -> None:
    model, plain = tiny(drop_path=0.9, gumbel=False), tiny(gumbel=False)
    assert torch.equal(model.group(pixels()).tok, plain.group(pixels()).tok)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.group(pixels()).tok, plain.group(pixels()).tok)


def test_a_convolutional_stem_starts_from_the_resnet_of_a_clip() -> None:
    tower = ModifiedResNet((1, 1, 1, 1), width=16, heads=1, resolution=64, embed_dim=8)
    stem = tiny(**CONV).img_encoder.patch_embed.proj
    report = stem.load_state_dict(tower.state_dict(), strict=False)
    assert {name.partition(".")[0] for name in report.missing_keys} == {"lateral"}
    assert all(n.startswith(("layer3", "layer4", "attnpool")) for n in report.unexpected_keys)


def test_what_stands_behind_the_end_of_a_text_does_not_matter() -> None:
    model, ids = tiny(), token_ids(2)
    other = ids.clone()
    other[:, 5] = 3
    torch.testing.assert_close(model.encode_text(ids), model.encode_text(other))
    with pytest.raises(ValueError, match="token_ids: got shape"):
        model.encode_text(torch.zeros(2, 7, dtype=torch.long))


def test_logits_are_scaled_cosines_and_the_scale_ends_at_100() -> None:
    model = tiny()
    per_image, per_text = model(pixels(), token_ids(2))
    image, text = model.encode_image(pixels()), model.encode_text(token_ids(2))
    cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(per_image, cosines / 0.07)
    assert torch.equal(per_image.T, per_text)
    model.logit_scale.data.fill_(9.0)
    assert model.scale() == 100
    assert model.scale(labels=True).item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("shape", [(1, 3, 16, 18), (1, 3, 3, 16), (1, 1, 16, 16), (3, 16, 16)])
def test_pixels_that_are_no_patches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixels: got shape .*multiples of 4"):
        tiny().group(torch.zeros(shape))


def test_captions_alone_teach_two_colours() -> None:
    torch.manual_seed(0)
    model = tiny(**ONE_STAGE, projector_width=0).train()  # batch norm would need more steps
    colours = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]).repeat(4, 1)
    images = colours[:, :, None, None] + 0.3 * pixels(8)
    ids = token_ids(2).repeat(4, 1)
    kind = torch.arange(8) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        model.losses(images, ids).caption.backward()
        optimizer.step()
    chosen = model.eval()(images, ids[:2])[0].argmax(dim=1)
    assert torch.equal(chosen, kind)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"widths": (16, 16)}, r"widths: got \(16, 16\); expected 3 numbers for 2 grouping stages"),
        ({"output_groups": (6,)}, r"output_groups: got \(6,\); expected 2"),
        ({"heads": (2, 3, 2)}, r"heads: got 16 / 3; expected divisors"),
        ({"image_resolution": 18}, r"image_resolution: got 18; expected a multiple of patch_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fault: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **fault)


# ---- multi-label loss ----------------------------------------------------------------------

SCALE = torch.tensor(14.0)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 2), (5, 3)])
def test_multi_label_loss_equals_the_loop(n: int, m: int) -> None:
    image, label = rows(n, 5), rows(n, m, 5, seed=1)
    logit = [[[14 * float(image[i] @ label[j, k]) for k in range(m)] for j in range(n)]
             for i in range(n)]  # fmt: skip
    per_image = per_text = 0.0
    for i in range(n):
        log_sum = math.log(sum(math.exp(z) for row in logit[i] for z in row))
        per_image += sum(log_sum - logit[i][i][k] for k in range(m)) / m / n
        for k in range(m):
            rivals = math.log(sum(math.exp(logit[j][i][k]) for j in range(n)))
            per_text += (rivals - logit[i][i][k]) / (n * m)
    found = multi_label_loss(image, label, SCALE).item()
    assert found == pytest.approx((per_image + per_text) / 2, rel=1e-5, abs=1e-6)


def test_multi_label_loss_of_equal_rows() -> None:
    image = rows(1, 5).expand(4, -1)
    label = image[:, None].expand(-1, 3, -1)
    expected = (math.log(12) + math.log(4)) / 2
    assert multi_label_loss(image, label, SCALE).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ((3, 5), (3, 5), r"expected \(N, D\) and \(N, M, D\)"),
        ((3, 5), (2, 2, 5), r"expected \(N, D\) and \(N, M, D\)"),
        ((0, 5), (0, 2, 5), r"N and M >= 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(image: tuple, label: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multi_label_loss(torch.zeros(image), torch.zeros(label), SCALE)


# ---- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["two stages", "convolutional", "no groups", "linear projections"])
def test_a_saved_model_comes_back(kind: str, tmp_path: Path) -> None:
    model = tiny(**KINDS[kind])
    model.vocab = ("[PAD]", "羊", "[SEP]")
    save_groupvit(model, tmp_path / "model.safetensors")
    for where in (tmp_path, tmp_path / "model.safetensors"):
        again = load_groupvit(where)
        assert (again.config, again.vocab, again.training) == (model.config, model.vocab, False)
        for name, tensor in again.state_dict().items():
            half = model.state_dict()[name]
            expected = half.half().float() if half.ndim > 1 else half
            assert torch.equal(tensor, expected), name


def test_a_diverged_model_is_not_saved(tmp_path: Path) -> None:
    model = tiny()
    model.img_encoder.pos_embed.data[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"img_encoder\.pos_embed: .*beyond fp16"):
        save_groupvit(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


WIDE = replace(TINY, widths=(64,) * 3, heads=(1,) * 3, text_width=64, text_heads=1)


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return GroupViT(WIDE).state_dict()


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_under_official_names_are_read(
    wrapped: bool, official: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "group_vit.pth"
    torch.save({"model": official, "epoch": 29} if wrapped else official, path)
    model = load_groupvit(path)
    assert model.config == WIDE
    assert all(torch.equal(t, official[name]) for name, t in model.state_dict().items())


def test_a_folder_of_transformers_tells_heads_and_colours(
    official: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(official, tmp_path / "pytorch_model.bin")
    vision = {"num_attention_heads": 2, "depths": [1, 1, 1], "assign_eps": 1.0}
    config = {"vision_config": vision, "text_config": {"num_attention_heads": 4}}
    colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    for name, obj in (("config", config), ("preprocessor_config", colours)):
        (tmp_path / f"{name}.json").write_text(json.dumps(obj), encoding="utf-8")
    found = load_groupvit(tmp_path).config
    assert (found.heads, found.text_heads) == ((2, 2, 2), 4)
    assert (found.image_mean, found.image_std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    config["vision_config"]["assign_eps"] = 1e-6
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"vision_config has \{'assign_eps': 1e-06\}"):
        load_groupvit(tmp_path)
    (tmp_path / "config.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json: not a JSON object"):
        load_groupvit(tmp_path)


def without(official: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in official.items() if name not in names}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda sd: without(sd, "img_encoder.pos_embed"), r"missing img_encoder\.pos_embed; got"),
        (lambda sd: without(sd, "text_encoder.ln_final.bias"), r"1 missing: text_encoder\.ln_f"),
        (lambda sd: sd | {"visual.proj": sd["logit_scale"]}, r"1 unexpected: visual\.proj"),
        (
            lambda sd: sd | {"img_encoder.norm.bias": torch.zeros(3)},
            r"1 of another shape: img_encoder\.norm\.bias \(3,\) instead of \(64,\)",
        ),
        (
            lambda sd: sd | {"img_encoder.pos_embed": torch.zeros(1, 15, 64)},
            r"got 15 positions; expected a square",
        ),
        (lambda sd: {"visual.conv1.weight": torch.zeros(4)}, r"not an official GroupViT: missing"),
    ],
    ids=["no positions", "no norm", "too many", "another shape", "no square", "a CLIP"],
)
def test_other_checkpoints_are_refused(
    fault, message: str, official: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(fault(official), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        load_groupvit(tmp_path / "other.pth")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load_groupvit(tmp_path / "absent.pth")
    with pytest.raises(FileNotFoundError, match=r"no weights; expected model\.safetensors or"):
        load_groupvit(tmp_path)
    torch.save({"model": {"a": 1}}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        load_groupvit(tmp_path / "numbers.pth")
    torch.save({"model": TINY}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="loading them could run code"):
        load_groupvit(tmp_path / "code.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_groupvit(tmp_path / "cut.safetensors")


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    save_groupvit(tiny(), tmp_path / "model.safetensors")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_groupvit(tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_the_default_is_the_official_shape() -> None:
    with torch.device("meta"):
        model = GroupViT()
    assert GroupViTConfig.from_state_dict(model.state_dict()) == model.config
    assert asdict(model.config)["group_tokens"] == (64, 8)
    assert sum(p.numel() for p in model.parameters()) == 55_726_610


def test_load_strict_takes_a_model_of_another_kind_for_another_one() -> None:
    with pytest.raises(ValueError, match=r"not those of a GroupViT .*missing"):
        load_strict(tiny(), tiny(**NO_STAGE).state_dict(), "another")
