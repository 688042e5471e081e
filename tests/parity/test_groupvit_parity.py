"""Our GroupViT against tensors of the official code, and against transformers' on equal weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.reference import Reference, read_reference
from torch import Tensor, nn

from cliplab.models.groupvit import (
    GroupViT,
    GroupViTConfig,
    grouping,
    load_groupvit,
    save_groupvit,
)
from cliplab.models.layers import QuickGELU
from cliplab.models.losses import clip_loss, multi_label_loss
from cliplab.models.weights import load_strict
from cliplab.segmentation import Scenes, Segmentation, pixel_maps, read_scenes


@pytest.fixture(scope="module", params=["main", "uneven"])
def golden(request: pytest.FixtureRequest) -> Reference:
    return read_reference(f"groupvit/{request.param}")


@pytest.fixture
def model(golden: Reference) -> GroupViT:
    return build(golden)


def build(golden: Reference) -> GroupViT:
    whole = golden.notes["config"]
    img, txt = whole["img"], whole["txt"]
    config = GroupViTConfig(
        image_resolution=img["img_size"],
        patch_size=img["patch_size"],
        widths=tuple(img["embed_dim"] * factor for factor in img["embed_factors"]),
        depths=img["depths"],
        heads=img["num_heads"],
        group_tokens=img["num_group_tokens"][:-1],
        output_groups=img["num_output_groups"],
        embed_dim=whole["output_dim"],
        projector_width=whole["proj_inner"],
        context_length=txt["context_length"],
        vocab_size=txt["vocab_size"],
        text_width=txt["width"],
        text_heads=txt["width"] // 64,
        text_layers=txt["layers"],
        own_label_scale=not whole["share_temperature"],
    )
    return load_strict(GroupViT(config), golden.weights, "golden")


def classes_of(golden: Reference, model: GroupViT) -> Tensor:
    """The classes' embeddings: features of the templates, averaged, then made unit rows."""
    ids = golden.inputs["text_classes"]  # (K, T, L)
    prompts = model.encode_text(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    return F.normalize(prompts.mean(dim=1), dim=-1)


@torch.no_grad()
def test_groups_features_and_embeddings(golden: Reference, model: GroupViT) -> None:
    groups = model.group(golden.inputs["image"])
    golden.assert_close("image.feat", groups.tok)
    golden.assert_close("image.x", groups.tok.mean(dim=1))
    for name, actual in zip(("image_x", "image_feat"), model.encode_groups(groups), strict=True):
        golden.assert_close(name, actual)
    golden.assert_close("text.x", model.text_encoder(golden.inputs["text"]))
    golden.assert_close("text_x", model.encode_text(golden.inputs["text"]))
    golden.assert_close("text_embedding", classes_of(golden, model))
    image_emb = F.normalize(model.encode_image(golden.inputs["image"]), dim=-1)
    golden.assert_close("zero_shot_pred", image_emb @ classes_of(golden, model).T)


@torch.no_grad()
def test_assignments_of_both_stages(golden: Reference, model: GroupViT) -> None:
    assignments = model.group(golden.inputs["image"]).assignments
    assert len(assignments) == 2
    for i, (hard, soft) in enumerate(assignments):
        golden.assert_close(f"stage{i}.attn_soft", soft[:, None])
        assert torch.equal(hard, golden.outputs[f"stage{i}.attn_hard"][:, 0].round())


@torch.no_grad()
def test_positions_of_a_picture_that_is_not_square(golden: Reference, model: GroupViT) -> None:
    pixels = golden.inputs["image_nonsquare"]
    grid = tuple(side // model.config.patch_size for side in pixels.shape[2:])
    golden.assert_close("nonsquare.pos_embed", model.img_encoder.positions(grid))
    golden.assert_close("nonsquare.image_x", model.encode_image(pixels))


# ---- segmentation --------------------------------------------------------------------------


def scene(golden: Reference, model: GroupViT, name: str) -> Scenes:
    pixels = golden.inputs[name][:1]
    return read_scenes(model, pixels, classes_of(golden, model), top_words=5)


def segmentation(found: Scenes, threshold: float) -> Segmentation:
    """As `Features.read` makes it of a vocabulary with a background and no words for it."""
    best = float(found.group_scores.max())
    scores = torch.cat([torch.zeros_like(found.scores[:, :1]), found.scores], dim=1)[0]
    names = ("background", *map(str, range(len(scores) - 1)))
    return Segmentation(scores, found.owner[0], names, (1, 1), True, threshold, best)


@torch.no_grad()
def test_maps_and_scores_of_the_official_segmentation(golden: Reference, model: GroupViT) -> None:
    found = scene(golden, model, "image")
    size = tuple(found.owner.shape[1:])
    maps = pixel_maps(model.group(golden.inputs["image"][:1]), size)
    golden.assert_close("seg.attn_map_last", maps.permute(0, 2, 3, 1))
    background, *classes = golden.outputs["seg.bg0.35"][0]
    torch.testing.assert_close(
        found.scores[0], torch.stack(classes), atol=golden.atol("seg.bg0.35"), rtol=0
    )
    assert torch.equal(segmentation(found, 0.35).labels == 0, background.bool())
    assert torch.equal(found.scores.argmax(1), golden.outputs["seg.nobg_argmax"].long())


@torch.no_grad()
def test_labels_of_a_picture_that_is_not_square(golden: Reference, model: GroupViT) -> None:
    labels = segmentation(scene(golden, model, "image_nonsquare"), 0.95).labels
    assert torch.equal(labels, golden.outputs["seg.nonsquare.bg0.95_argmax"][0].long())


# ---- losses --------------------------------------------------------------------------------


@torch.no_grad()
def test_losses_in_eval_mode(golden: Reference, model: GroupViT) -> None:
    pixels = golden.inputs["image"]
    losses = model.losses(pixels, golden.inputs["text_multi"])
    golden.assert_close("eval.loss_multi_caption0", losses.caption)
    golden.assert_close("eval.multi_label_loss", losses.multi_label)
    alone = model.losses(pixels, golden.inputs["text"])
    golden.assert_close("eval.loss", alone.caption)
    assert alone.multi_label == 0


def test_losses_and_gradients_in_training(
    golden: Reference, model: GroupViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [golden.inputs["gumbel0"], golden.inputs["gumbel1"]]
    monkeypatch.setattr(grouping, "gumbel_noise", lambda like: noise.pop(0)[:, 0])
    weight = golden.notes["config"]["multi_label_loss_weight"]
    seen: list[Tensor] = []
    for i in (0, 1):
        block = model.img_encoder.layers[i].downsample.assign
        block.register_forward_hook(lambda _m, _i, output: seen.append(output[1].hard))
    losses = model.train().losses(golden.inputs["image"], golden.inputs["text_multi"])
    golden.assert_close("train.loss", losses.caption)
    golden.assert_close("train.multi_label_loss", weight * losses.multi_label)
    for i, hard in enumerate(seen):
        assert torch.equal(hard.round(), golden.outputs[f"train.stage{i}.attn_hard"][:, 0].round())
    (losses.caption + weight * losses.multi_label).backward()
    names = [name for name in golden.outputs if name.startswith("train.grad.")]
    assert len(names) >= 10
    for name in names:
        golden.assert_close(name, model.get_parameter(name.removeprefix("train.grad.")).grad)
    norm = model.img_projector.linear_hidden[1]
    golden.assert_close("train.img_projector.running_mean_after", norm.running_mean)
    golden.assert_close("train.img_projector.running_var_after", norm.running_var)


def test_two_ranks_are_the_whole_batch() -> None:
    """The mean of the ranks' losses is the loss of one process; their gradients are its own.

    Rank r holds rows of the batch and compares them with everybody's. Its gradient contains what
    the other ranks' losses send back: that of the sum, twice the mean's.
    """
    golden = read_reference("groupvit/main")
    model = build(golden)
    pixels, texts = golden.inputs["image"], golden.inputs["text_multi"]
    with torch.no_grad():
        image = model.encode_image(pixels)
        text = model.encode_text(texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
    image.requires_grad_()
    text.requires_grad_()
    image_emb, text_emb = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    losses = {
        "loss": clip_loss(image_emb, text_emb[:, 0], model.scale()),
        "multi_label_loss": multi_label_loss(image_emb, text_emb[:, 1:], model.scale(labels=True)),
    }
    for name, loss in losses.items():
        ranks = [golden.outputs[f"dist2.rank{r}.{name}"] for r in (0, 1)]
        torch.testing.assert_close(sum(ranks) / 2, loss.detach(), atol=4e-6, rtol=0)
    (2 * sum(losses.values())).backward()
    for r, rows in enumerate((slice(0, 2), slice(2, 4))):
        golden.assert_close(f"dist2.rank{r}.grad_image_x", image.grad[rows])
        golden.assert_close(f"dist2.rank{r}.grad_text_x", text.grad[rows, 0])


# ---- typical mistakes ----------------------------------------------------------------------

MISTAKES = {
    "assign_eps_1e-6_instead_of_1": "image_x",
    "soft_assignment": "image_x",
    "vision_ln_eps_1e-6": "image_x",
    "vision_quickgelu": "image_x",
    "text_gelu": "text_x",
}


def make(mistake: str, model: GroupViT, monkeypatch: pytest.MonkeyPatch) -> None:
    if mistake.startswith("assign_eps"):
        monkeypatch.setattr(grouping, "_ONE_MORE_VOTER", 1e-6)
    if mistake == "vision_quickgelu":
        monkeypatch.setattr(grouping.F, "gelu", QuickGELU())
    for module in model.modules():
        if mistake == "soft_assignment" and isinstance(module, grouping.AssignAttention):
            module.hard = False
        if mistake == "text_gelu" and hasattr(module, "c_fc"):
            module.gelu = nn.GELU()
    for module in model.img_encoder.modules():
        if mistake.startswith("vision_ln") and isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


@torch.no_grad()
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_tolerance_catches_typical_mistakes(
    mistake: str, golden: Reference, model: GroupViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(mistake, model, monkeypatch)
    where = MISTAKES[mistake]
    encode = {"image_x": model.encode_image, "text_x": model.encode_text}[where]
    given = golden.inputs["image" if where == "image_x" else "text"]
    error = (encode(given) - golden.outputs[where]).abs().max().item()
    assert error == pytest.approx(golden.notes["mutations"][mistake][where], rel=0.1)
    assert error > 2 * golden.atol(where)


# ---- transformers --------------------------------------------------------------------------


def make_theirs(**changes: Any) -> nn.Module:
    """transformers' model with random weights; "text" changes the text tower."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `official`")
    text_changes = changes.pop("text", {})
    vision = {"hidden_size": 48, "intermediate_size": 192, "image_size": 32, "patch_size": 8,
              "depths": [2, 1, 1], "num_hidden_layers": 4, "num_attention_heads": 6,
              "num_group_tokens": [8, 3, 0], "num_output_groups": [8, 3, 3], **changes}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 99, "eos_token_id": 98,
            "max_position_embeddings": 12, **text_changes}  # fmt: skip
    config = transformers.GroupViTConfig(
        text_config=text, vision_config=vision, projection_dim=24, projection_intermediate_dim=40
    )
    generator = torch.Generator().manual_seed(4)
    model = transformers.GroupViTModel(config).eval()
    for name, tensor in model.state_dict().items():  # norms and biases too: nothing may hide
        if tensor.is_floating_point():
            spread = 0.1 * torch.randn(tensor.shape, generator=generator)
            tensor.copy_(tensor + (spread.abs() if name.endswith("running_var") else spread))
    return model


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return make_theirs()


@pytest.fixture(scope="module")
def folder(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(path)
    return path


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(5, 3, 32, 32, generator=generator)
    ids = torch.randint(1, 90, (5, 12), generator=generator)
    ids[torch.arange(5), torch.tensor([3, 11, 6, 9, 4])] = 98  # the end token, then padding
    return pixels, ids


@torch.no_grad()
def test_transformers_agrees_on_equal_weights(theirs: nn.Module, folder: Path) -> None:
    ours, (pixels, ids) = load_groupvit(folder), inputs()
    assert (ours.config.heads, ours.config.text_heads) == ((6, 6, 6), 4)
    expected = theirs(pixel_values=pixels, input_ids=ids, output_attentions=True)
    image_emb = F.normalize(ours.encode_image(pixels), dim=-1)
    text_emb = F.normalize(ours.encode_text(ids), dim=-1)
    torch.testing.assert_close(image_emb, expected.image_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(text_emb, expected.text_embeds, atol=1e-6, rtol=0)
    groups = ours.group(pixels)
    torch.testing.assert_close(
        groups.tok, expected.vision_model_output.last_hidden_state, atol=1e-5, rtol=0
    )
    maps = expected.vision_model_output.attentions
    assert len(maps) == len(groups.assignments) == 2
    for soft, (hard, mine) in zip(maps, groups.assignments, strict=True):
        torch.testing.assert_close(mine, soft.reshape(mine.shape), atol=2e-6, rtol=0)
        assert torch.equal(hard.argmax(1), soft.reshape(mine.shape).argmax(1))
    both = expected.logits_per_image, expected.logits_per_text
    for logits, mine in zip(both, ours(pixels, ids), strict=True):
        torch.testing.assert_close(mine, logits, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"intermediate_size": 96, "text": {"intermediate_size": 160}},
        {"assign_mlp_ratio": [0.3, 2.7]},
        {"num_output_groups": [8, 2, 2]},  # of the last stage: of others it fails itself
        {"depths": [2, 1], "num_hidden_layers": 3, "num_group_tokens": [8, 0],
         "num_output_groups": [5, 0], "assign_mlp_ratio": [1, 1],
         "text": {"intermediate_size": 64}},
    ],
)  # fmt: skip
def test_transformers_of_other_widths_and_groups_agrees(changes: dict, tmp_path: Path) -> None:
    model, (pixels, ids) = make_theirs(**changes), inputs()
    model.save_pretrained(tmp_path)
    save_groupvit(ours := load_groupvit(tmp_path), tmp_path / "ours.safetensors")
    assert load_groupvit(tmp_path / "ours.safetensors").config == ours.config
    expected = model(pixel_values=pixels, input_ids=ids)
    for logits, mine in zip(expected[:2], ours(pixels, ids), strict=True):
        torch.testing.assert_close(mine, logits, atol=2e-5, rtol=0)
    assert ours.group(pixels).tok.shape == expected.vision_model_output.last_hidden_state.shape
