"""GroupViT's sizes and image tower: patches or a convolutional stem, stages that end in groups.

Letters in shape comments: B images, P patches, G groups, T group tokens, C width, H heads.

Source: GroupViT, arXiv:2202.11094, section 3.1 and Fig. 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.groupvit.grouping import MLP, Assignment, GroupingBlock, Mixer
from cliplab.models.layers import ResNetStem, attend, residual_layer
from cliplab.models.weights import lists_to_tuples

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class GroupViTConfig:
    """Sizes of a GroupViT; the defaults are the official model's.

    `widths`, `depths` and `heads` have one entry more than `group_tokens` and `output_groups`:
    every stage but the last ends in a grouping block. With no stages, `group_tokens=()`, it is a
    plain vision transformer that pools its patches: the control for "does grouping help?".
    """

    image_resolution: int = 224  # pixels per side that the positions are made for
    patch_size: int = 16  # pixels per side; the stride of a convolutional stem: 4, 8, 16 or 32
    widths: tuple[int, ...] = (384, 384, 384)  # C of each stage
    depths: tuple[int, ...] = (6, 3, 3)  # transformer blocks of each stage
    heads: tuple[int, ...] = (6, 6, 6)
    group_tokens: tuple[int, ...] = (64, 8)  # T, learned, that ask
    output_groups: tuple[int, ...] = (64, 8)  # G that come out
    embed_dim: int = 256  # D
    projector_width: int = 4096  # hidden layer of both projections; 0: one linear layer
    context_length: int = 77  # longest text in tokens, start and end included
    vocab_size: int = 49408
    text_width: int = 256
    text_heads: int = 4
    text_layers: int = 12
    mlp_ratio: float = 4.0  # hidden layer / width, in blocks and cross-attention
    assign_mlp_ratios: tuple[float, float] = (0.5, 4.0)  # in grouping blocks: tokens, channels
    text_mlp_ratio: float = 4.0
    hard: bool = True  # one-hot assignment with a straight-through gradient; False: soft
    gumbel: bool = True  # noise on the assignment in training
    own_label_scale: bool = True  # a temperature of its own for the multi-label loss
    drop_path: float = 0.0  # of the last block, rising from 0; the official training has 0.1
    stem: str = "patch"  # or "conv"
    stem_width: int = 32  # channels behind the first convolutions of a convolutional stem
    stem_blocks: tuple[int, ...] = (1, 1)  # of its layers at strides 4, 8, 16, 32
    test_resolution: int | None = None  # px of the shorter side in segmenting; None: twice as many
    image_mean: tuple[float, ...] = IMAGENET_MEAN  # subtracted from RGB in [0, 1]
    image_std: tuple[float, ...] = IMAGENET_STD

    @property
    def stages(self) -> int:
        """How many times patches are grouped: 0, 1 or 2."""
        return len(self.group_tokens)

    def __post_init__(self) -> None:
        lists_to_tuples(self)


class Groups(NamedTuple):
    """What the image tower makes of a batch."""

    tok: Tensor  # (B, G, C) the groups of the last stage; without stages the P patches
    assignments: tuple[Assignment, ...]  # one a stage, (B, G_s, P_s) with P_s = G of the one before
    grid: tuple[int, int]  # rows and columns of patches, P of the first stage
    patch_tok: Tensor | None = None  # (B, P, C) what the first stage was given; for training

    def maps(self) -> Tensor:
        """How much of every patch belongs to every group, (B, G, rows, columns), 0 to 1.

        The soft assignments of the stages, multiplied: patch to small group, small group to large
        one. Without stages every patch is a group of its own.
        """
        rows, columns = self.grid
        if not self.assignments:
            alone = torch.eye(rows * columns, device=self.tok.device)
            return alone.expand(len(self.tok), -1, -1).unflatten(2, self.grid)
        product = self.assignments[0].soft  # (B, G_1, P)
        for later in self.assignments[1:]:
            product = later.soft @ product  # (B, G_s, P)
        return product.unflatten(2, self.grid)


class SelfAttention(nn.Module):
    """Multi-head self-attention, (B, L, C) -> (B, L, C), under the official names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        query, key, value = self.qkv(tok).chunk(3, dim=-1)  # (B, L, C)
        return self.proj(attend(query, key, value, self.heads))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then an MLP, each added to its input.

    Stochastic depth: in training an image skips either branch with probability `drop_path`.
    """

    def __init__(self, width: int, heads: int, drop_path: float, ratio: float) -> None:
        from torchvision.ops import StochasticDepth

        super().__init__()
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, round(ratio * width), width)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        tok = tok + self.drop_path(self.attn(self.norm1(tok)))
        return tok + self.drop_path(self.mlp(self.norm2(tok)))


class Stage(nn.Module):
    """Blocks in which patches and group tokens see one another, and a grouping block behind them.

    The last stage has no group tokens: its blocks see groups only, and nothing is grouped.
    """

    group_token: Tensor | None
    group_projector: nn.Module | None
    downsample: GroupingBlock | None

    def __init__(self, index: int, config: GroupViTConfig, *, drop_path: Sequence[float]) -> None:
        super().__init__()
        width, heads = config.widths[index], config.heads[index]
        ratio = config.mlp_ratio
        self.blocks = nn.ModuleList(Block(width, heads, rate, ratio) for rate in drop_path)
        self.group_token = self.group_projector = self.downsample = None
        if index == config.stages:
            return
        tokens = config.group_tokens[index]
        self.group_token = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))
        self.downsample = GroupingBlock(
            width, config.widths[index + 1], heads=heads,
            counts=(tokens, config.output_groups[index]), ratios=(ratio, *config.assign_mlp_ratios),
            hard=config.hard, gumbel=config.gumbel,
        )  # fmt: skip
        if index:
            before = config.group_tokens[index - 1], config.widths[index - 1]
            self.group_projector = _token_projector(*before, tokens, width)

    def forward(
        self, tok: Tensor, group_tok: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Assignment | None]:
        """(B, P, C), group tokens of the stage before -> (B, G, C'), (B, T, C), assignment."""
        if self.group_token is None or self.downsample is None:
            for block in self.blocks:
                tok = block(tok)
            return tok, None, None
        asking = self.group_token.expand(len(tok), -1, -1)
        if self.group_projector is not None:
            asking = asking + self.group_projector(group_tok)
        patches = tok.shape[1]
        both = torch.cat([tok, asking.to(tok.dtype)], dim=1)  # (B, P + T, C)
        for block in self.blocks:
            both = block(both)
        tok, asking = both[:, :patches], both[:, patches:]
        tok, assignment = self.downsample(tok, asking)
        return tok, asking, assignment


def _token_projector(tokens: int, width: int, new_tokens: int, new_width: int) -> nn.Sequential:
    """Group tokens of the stage before -> an offset for those of this stage."""
    mix = nn.Sequential(nn.LayerNorm(width), Mixer(tokens, width // 2, new_tokens))
    if width == new_width:
        return mix
    return nn.Sequential(mix, nn.LayerNorm(width), nn.Linear(width, new_width, bias=False))


class ConvStem(ResNetStem):
    """The first layers of CLIP's ResNet as one feature map, (B, 3, H, W) -> (B, C, h, w).

    Layers beyond the stride are read too, and added from the top down, so that a fine map knows
    what a coarse one sees. Names are those of `ModifiedResNet`, whose weights it can start from.
    """

    def __init__(self, width: int, *, channels: int, blocks: Sequence[int], stride: int) -> None:
        super().__init__(channels)
        self.depth, self.first = len(blocks), [4, 8, 16, 32].index(stride)
        inputs = channels
        for i, count in enumerate(blocks):
            layer = residual_layer(inputs, channels * 2**i, count, 2 if i else 1)
            self.add_module(f"layer{i + 1}", layer)
            inputs = 4 * channels * 2**i
        read = range(self.first, self.depth)
        self.lateral = nn.ModuleList(nn.Conv2d(4 * channels * 2**i, width, 1) for i in read)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / stride, W / stride)."""
        x, maps = self.stem(pixels), []
        for i in range(self.depth):
            x = self.get_submodule(f"layer{i + 1}")(x)
            maps.append(x)
        sides = [lateral(x) for lateral, x in zip(self.lateral, maps[self.first :], strict=True)]
        merged = sides.pop()
        while sides:
            finer = sides.pop()
            merged = finer + F.interpolate(merged, finer.shape[-2:], mode="nearest")
        return merged


class PatchEmbed(nn.Module):
    """Pixels to tokens, (B, 3, H, W) -> (B, C, rows, columns) and, normalised, (B, P, C)."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        width, stride = config.widths[0], config.patch_size
        self.proj: nn.Module = (
            nn.Conv2d(3, width, stride, stride=stride)
            if config.stem == "patch"
            else ConvStem(
                width, channels=config.stem_width, blocks=config.stem_blocks, stride=stride
            )
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) -> (B, P, C), (rows, columns)."""
        feature_map = self.proj(pixels)
        rows, columns = feature_map.shape[-2:]
        return self.norm(feature_map.flatten(2).transpose(1, 2)), (rows, columns)


class GroupingEncoder(nn.Module):
    """The image tower: pixels (B, 3, H, W) -> `Groups`."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        self.config, width = config, config.widths[0]
        side = config.image_resolution // config.patch_size
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.empty(1, side * side, width).normal_(std=0.02))
        blocks = sum(config.depths)
        rates = [config.drop_path * i / max(1, blocks - 1) for i in range(blocks)]
        self.layers = nn.ModuleList()
        for index, depth in enumerate(config.depths):
            start = sum(config.depths[:index])
            self.layers.append(Stage(index, config, drop_path=rates[start : start + depth]))
        self.norm = nn.LayerNorm(config.widths[-1])

    def forward(self, pixels: Tensor) -> Groups:
        """(B, 3, H, W), both sides multiples of the patch -> groups (B, G, C), not of unit length.

        Args:
            pixels: normalised; of another size than the model was made for, its positions are
                interpolated.
        """
        tok, grid = self.patch_embed(pixels)
        patch_tok = tok = tok + self.positions(grid).to(tok.dtype)
        group_tok, assignments = None, []
        for stage in self.layers:
            tok, group_tok, assignment = stage(tok, group_tok)
            if assignment is not None:
                assignments.append(assignment)
        return Groups(self.norm(tok), tuple(assignments), grid, patch_tok)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of a grid of (rows, columns), (1, P, C)."""
        side = self.config.image_resolution // self.config.patch_size
        if grid == (side, side):
            return self.pos_embed
        square = self.pos_embed.transpose(1, 2).unflatten(2, (side, side))  # (1, C, side, side)
        resized = F.interpolate(square, grid, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)
