"""The untrained network of the pasture's GroupViT, and what it starts with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD, load_openai
from cliplab.models.groupvit import Groups, GroupViT, GroupViTConfig
from cliplab.runtime import checkpoint_dir
from cliplab.training.groupvit_dataset import SIZE, vocabulary_of

if TYPE_CHECKING:
    from cliplab.training.groupvit import Recipe

CONTEXT = 77  # tokens of a text
_FAINT = 0.3  # length of what asks for a group, beside the mean of its patches


def new_model(recipe: Recipe) -> GroupViT:
    """An untrained model whose stem has the weights of the shipped CLIP's image tower."""
    groups = {0: (), 1: (recipe.groups,), 2: (2 * recipe.groups, recipe.groups)}[recipe.stages]
    vocab, stages = vocabulary_of(), recipe.stages
    model = GroupViT(
        GroupViTConfig(
            image_resolution=SIZE,
            patch_size=4,
            widths=(recipe.width,) * (stages + 1),
            # The stem does the seeing: a block of attention over 576 patches costs three times as
            # much as all of it. Groups have a block each, where there are few of them.
            depths=(0,) + (1,) * stages,
            heads=(4,) * (stages + 1),
            group_tokens=groups,
            output_groups=groups,
            embed_dim=128,
            projector_width=0,
            context_length=CONTEXT,
            vocab_size=len(vocab),
            text_width=128,
            text_heads=2,
            text_layers=2,
            hard=recipe.assignment == "hard",
            gumbel=recipe.recipe == "paper",
            stem="conv",
            stem_width=32,
            stem_blocks=(1,) * recipe.stem_layers,
            test_resolution=SIZE,
            image_mean=IMAGE_MEAN,
            image_std=IMAGE_STD,
        )
    )
    model.vocab = tuple(vocab)
    start_from_clip(model)
    if recipe.recipe != "paper":
        start_as_means(model)
        if recipe.spread:
            spread_assignments(model, recipe.spread)
    return model


def patch_embeddings(model: GroupViT, groups: Groups) -> Tensor:
    """Patches in the space of texts before they are grouped, (B, P, D), of any length."""
    if not model.config.stages:  # they were never grouped
        return model.img_projector(groups.tok)
    return model.img_projector(model.img_encoder.norm(groups.patch_tok))


def spread_assignments(model: GroupViT, spread: float) -> None:
    """Let groups differ from the first step: queries and keys whose products vary by `spread`.

    With the usual small weights every patch starts as an equal part of every group, so that all
    groups are the same mean, and a soft assignment takes long to leave that point.
    """
    for stage in model.img_encoder.layers:
        if stage.downsample is not None:
            block = stage.downsample
            std = (spread / block.assign.k_proj.in_features) ** 0.5
            asking = block.pre_assign_attn.norm_post.weight.mean().item()  # its length, as a factor
            torch.nn.init.normal_(block.assign.k_proj.weight, std=std)
            torch.nn.init.normal_(block.assign.q_proj.weight, std=std / asking)


def start_as_means(model: GroupViT) -> None:
    """Let every group begin as the mean of its patches, so that a name for patches fits groups.

    GroupViT's groups begin as a random projection of that mean, plus what asked for them: the names
    of groups are then learned apart from those of patches, and later.
    """
    for stage in model.img_encoder.layers:
        block = stage.downsample
        if block is not None:
            for linear in (block.assign.v_proj, block.assign.proj):
                torch.nn.init.eye_(linear.weight)
            torch.nn.init.zeros_(block.mlp_channels.fc2.weight)
            torch.nn.init.constant_(block.pre_assign_attn.norm_post.weight, _FAINT)


def start_from_clip(model: GroupViT, path: Path | None = None) -> int:
    """Copy the layers that the stem shares with CLIP's ResNet; -> how many tensors.

    Args:
        model: with a convolutional stem.
        path: CLIP's weights; None: the shipped ones.

    Raises:
        ValueError: nothing of the file fits.
    """
    path = path or checkpoint_dir("clip-openai") / "model.pt"
    stem = model.img_encoder.patch_embed.proj
    own, theirs = stem.state_dict(), load_openai(path).visual.state_dict()
    shared = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    if not shared:
        raise ValueError(f"{path}: no layer of it fits the stem; expected a ResNet 32 wide")
    stem.load_state_dict(shared, strict=False)
    return len(shared)
