"""What a GroupViT of the pasture is made from: the recipe, the network, what it starts with."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD, load_openai
from cliplab.models.groupvit import GroupingBlock, Groups, GroupViT, GroupViTConfig
from cliplab.runtime import checkpoint_dir
from cliplab.training.groupvit_dataset import SIZE, vocabulary_of

CONTEXT = 77  # tokens of a text
_FAINT = 0.3  # length of what asks for a group, beside the mean of its patches


@dataclass(frozen=True)
class GroupViTRecipe:
    """Everything that decides the weights, besides the code and the CLIP that is started from."""

    recipe: Literal["small-world", "paper"] = "small-world"  # how captions teach
    stages: Literal[0, 1, 2] = 1  # of grouping; 0: patches name themselves
    groups: int = 16  # that come out of the last stage, 4 to 32; one before it has twice as many
    assignment: Literal["soft", "hard"] = "soft"  # of patches to groups, in training
    multi_label: bool = True  # learn from nouns, not from whole captions alone
    captions: Literal[1, 6] = 6  # of a picture, whose nouns count as said
    stuff: float | None = None  # how often they say grass, snow, sky, hill, water; None: often
    patches: bool = True  # captions teach patches, and these their groups; or groups directly
    seed: int = 0  # of weights and batches
    steps: int = 800  # of the first round; those that are compared with one another have fewer
    second_round_steps: int = 1000  # learn the pseudo-labels of the first round; 0: none
    pictures: int = 12_000  # distinct ones
    second_round_pictures: int = 4000
    batch: int = 32
    lr: float = 1e-3  # of both rounds
    width: int = 128
    patch: Literal[4, 8] = 4  # px; a quarter as many patches make layers affordable
    layers: int = 0  # of attention among patches and group tokens before grouping; the paper: 6
    stem_layers: int = 3  # of CLIP's tower; each doubles what a patch can see
    share: float = 0.02  # of the patches that presence_loss counts
    spread: float = 1.5  # of the assignment's logits at the start; 0: as GroupViT starts, near 0
    caption_weight: float = 0.1  # of the captions' InfoNCE, where nouns are learned from
    snapshot_every: int = 100  # steps

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and combinations that mean nothing."""
        if not 4 <= self.groups <= 32:
            raise ValueError(f"groups: got {self.groups}; expected 4 to 32")
        if self.stuff is not None and not 0 <= self.stuff <= 1:
            raise ValueError(f"stuff: got {self.stuff}; expected 0 to 1")
        learns_nouns = self.recipe != "paper" and self.multi_label and self.patches
        if self.second_round_steps and not learns_nouns:
            raise ValueError(
                f"second_round_steps: got {self.second_round_steps} steps, in which patches learn "
                "their nouns; expected 0 with the paper's recipe, without multi_label or patches"
            )

    @property
    def name(self) -> str:
        """What tells a variant from the others, for folders and tables."""
        parts = ["paper"] if self.recipe == "paper" else []
        if self.stages:
            parts += [f"{self.stages}-stage{'s' * (self.stages > 1)}", self.assignment]
            parts += [f"{self.groups}-groups"] if self.groups != GroupViTRecipe.groups else []
        else:
            parts.append("no-groups")
        parts += [] if self.multi_label else ["no-nouns"]
        parts += [] if self.captions == GroupViTRecipe.captions else ["one-caption"]
        small_world = self.recipe != "paper" and self.multi_label
        parts += ["groups-taught"] if self.stages and small_world and not self.patches else []
        parts += [] if self.stuff is None else [f"stuff-{self.stuff:g}"]
        parts += [f"{self.layers}-layers"] if self.layers else []
        parts += [f"patch-{self.patch}"] if self.patch != GroupViTRecipe.patch else []
        return "-".join(parts)


def new_model(recipe: GroupViTRecipe) -> GroupViT:
    """An untrained model whose stem has the weights of the shipped CLIP's image tower."""
    groups = {0: (), 1: (recipe.groups,), 2: (2 * recipe.groups, recipe.groups)}[recipe.stages]
    vocab, stages = vocabulary_of(), recipe.stages
    model = GroupViT(
        GroupViTConfig(
            image_resolution=SIZE,
            patch_size=recipe.patch,
            widths=(recipe.width,) * (stages + 1),
            # The shipped stem does the seeing: a block of attention over 576 patches costs three
            # times as much as all of it. Groups have a block each, where there are few of them.
            depths=(recipe.layers,) + (1,) * stages,
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
        start_groups(model, recipe.spread)
    return model


def patch_embeddings(model: GroupViT, groups: Groups) -> Tensor:
    """Patches in the space of texts before they are grouped, (B, P, D), of any length."""
    if not model.config.stages:  # they were never grouped
        return model.img_projector(groups.tok)
    return model.img_projector(model.img_encoder.norm(groups.patch_tok))


def start_groups(model: GroupViT, spread: float) -> None:
    """Let every group begin as the mean of its patches, and differ from the others.

    GroupViT's groups begin as a random projection of that mean, plus what asked for them: the names
    of groups are then learned apart from those of patches, and later. And with the usual small
    weights every patch starts as an equal part of every group, so that all groups are the same
    mean, and a soft assignment takes long to leave that point: here products of queries and keys
    vary by `spread`, if it is not 0.
    """
    for stage in model.img_encoder.layers:
        if not isinstance(block := stage.downsample, GroupingBlock):
            continue
        asking, assign = block.pre_assign_attn.norm_post.weight, block.assign
        for linear in (assign.v_proj, assign.proj):
            torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(block.mlp_channels.fc2.weight)
        torch.nn.init.constant_(asking, _FAINT)
        if spread:
            std = (spread / assign.k_proj.in_features) ** 0.5
            torch.nn.init.normal_(assign.k_proj.weight, std=std)
            torch.nn.init.normal_(assign.q_proj.weight, std=std / asking.mean().item())


def start_from_clip(model: GroupViT) -> None:
    """Copy the layers that the stem shares with the ResNet of the shipped CLIP."""
    stem, clip = model.img_encoder.patch_embed.proj, checkpoint_dir("clip-openai") / "model.pt"
    own, theirs = stem.state_dict(), load_openai(clip).visual.state_dict()
    shared = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    stem.load_state_dict(shared, strict=False)
