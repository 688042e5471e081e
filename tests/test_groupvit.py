"""GroupViT: assignment by hand, the towers in every configuration, its loss, its files."""

import math
from dataclasses import replace
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
from cliplab.models.layers import ModifiedResNet
from cliplab.models.losses import multi_label_loss
from cliplab.runtime import write_json

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


# ---- towers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_with_all_of_its_parameters(kind: str) -> None:
    model = tiny(**KINDS[kind]).train()
    losses = model.losses(pixels(), token_ids(3, 3))
    (losses.caption + losses.multi_label).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.ndim > 1)


def test_stochastic_depth_leaves_branches_out_in_training_only() -> None:
    model, plain = tiny(drop_path=0.9, gumbel=False), tiny(gumbel=False)
    assert torch.equal(model.group(pixels()).tok, plain.group(pixels()).tok)
    torch.manual_seed(0)
    block = model.train().img_encoder.layers[2].blocks[0]
    block.mlp.requires_grad_(False).fc2.weight.zero_()
    block.mlp.fc2.bias.zero_()  # what is left is attention's branch
    tok = torch.randn(1, 4, 16).expand(64, -1, -1)
    kept = (block(tok) != tok).flatten(1).any(1).sum()
    assert 0 < kept < 32


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


def test_training_is_noisy_and_use_is_not() -> None:
    model = tiny()
    assert torch.equal(model.group(pixels()).tok, model.group(pixels()).tok)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.group(pixels()).tok, model.group(pixels()).tok)
    quiet = tiny(gumbel=False).train()
    assert torch.equal(quiet.group(pixels()).tok, quiet.group(pixels()).tok)


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


def test_the_scale_ends_at_100() -> None:
    model = tiny()
    model.logit_scale.data.fill_(9.0)
    assert model.scale() == 100
    assert model.scale(labels=True).item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("shape", [(1, 3, 16, 18), (1, 3, 0, 16), (1, 1, 16, 16)])
def test_pixels_that_are_no_patches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixels: got shape .*multiples of 4"):
        tiny().group(torch.zeros(shape))


# ---- multi-label loss ----------------------------------------------------------------------


def test_multi_label_loss_of_equal_rows() -> None:
    image = rows(1, 5).expand(4, -1)
    label = image[:, None].expand(-1, 3, -1)
    expected = (math.log(12) + math.log(4)) / 2
    assert multi_label_loss(image, label, torch.tensor(14.0)).item() == pytest.approx(
        expected, rel=1e-6
    )


# ---- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["convolutional", "no groups"])
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


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as `save_pretrained` of transformers leaves it, but with the official names."""
    vision = {
        "image_size": 16, "patch_size": 4, "hidden_size": 16, "intermediate_size": 64,
        "depths": [1, 1, 1], "num_attention_heads": 2, "num_group_tokens": [6, 3, 0],
        "num_output_groups": [6, 3, 3], "assign_eps": 1.0,
    }  # fmt: skip
    text = {
        "hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 1, "max_position_embeddings": 6, "vocab_size": 20,
    }  # fmt: skip
    config = {"vision_config": vision, "text_config": text, "projection_dim": 8}
    config["projection_intermediate_dim"] = 12
    colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    for name, content in (("config", config), ("preprocessor_config", colours)):
        write_json(tmp_path / f"{name}.json", content)
    torch.save({"model": tiny().state_dict(), "epoch": 29}, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_published_folder_is_read(published: Path) -> None:
    model, expected = load_groupvit(published), tiny().state_dict()
    colours = {"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.2, 0.1)}
    assert model.config == replace(TINY, **colours)
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


def test_what_is_no_published_model_is_refused(published: Path) -> None:
    weights, official = published / "pytorch_model.bin", tiny().state_dict()
    shapes = r"1 of another shape: img_encoder\.norm\.bias \(3,\) instead of \(16,\)"
    for fault, message in (
        ({"img_encoder.norm.bias": torch.zeros(3)}, shapes),
        ({"visual.proj": torch.zeros(1)}, r"1 unexpected: visual\.proj"),
    ):
        torch.save(official | fault, weights)
        with pytest.raises(ValueError, match=message):
            load_groupvit(published)
    with pytest.raises(ValueError, match="are not those of a GroupViT"):
        load_groupvit(weights)  # without its folder: of the published sizes
    for content, message in (
        ('{"vision_config": {"assign_eps": 1e-6}}', r"vision_config has \{'assign_eps': 1e-06\}"),
        ("[", r"config\.json: not a JSON object"),
    ):
        (published / "config.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_groupvit(published)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such file; expected model\.safetensors or"):
        load_groupvit(published)


def test_the_default_is_the_official_shape() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in GroupViT().parameters()) == 55_726_610
