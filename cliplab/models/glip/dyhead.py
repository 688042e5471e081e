"""GLIP's head: a tower of fusion, BERT layers and DyHead blocks; then words meet boxes.

A DyHead block is made of convolutions that choose where to look. Behind the tower each cell is
compared with each word, equation 3 of GLIP: S = O P^T, region features times words.

Source: Dynamic Head, arXiv:2106.08322, section 3; GLIP, arXiv:2112.03857, sections 3.1 and 3.2;
Deformable ConvNets v2, arXiv:1811.11168, section 3.

Letters: B images, C channels, H W cells, h w cells of an output, N = 9 B h w samples, A anchors
(one per cell, all levels), L text tokens, D text channels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.bert import BertLayer
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.fusion import LIMIT, Fusion, cells_of
from cliplab.models.layers import at_least_float32

TAPS = 9  # of a 3 x 3 kernel; each has an offset (y, x) and a weight
PRIOR = 0.01  # probability of a match that new weights start with


class DeformableConv(nn.Module):
    """3 x 3 convolution whose taps are moved by offsets and weighted by a mask.

    Parameters are those of the released weights (`weight`, `bias`).
    """

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W), (B, 18, h, w), (B, 9, h, w) -> (B, C', h, w).

        On a GPU torchvision's kernel; elsewhere `gathered_conv`, since torchvision's kernel for the
        CPU takes nine times as long in training (16 maps of 64 x 16 x 16, there and back: 286 ms
        against 32) and 1.8 times as long in inference. Samples are float32 whatever autocast says.
        """
        full = torch.promote_types(x.dtype, torch.float32)
        x, offset, mask = x.to(full), offset.to(full), mask.to(full)
        if x.device.type != "cuda":
            return gathered_conv(x, offset, mask, self.weight, self.bias, self.stride)
        from torchvision.ops import deform_conv2d

        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(full), self.bias.to(full)
            return deform_conv2d(x, offset, weight, bias, self.stride, padding=1, mask=mask)


def gathered_conv(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int
) -> Tensor:
    """`torchvision.ops.deform_conv2d` of a 3 x 3 kernel with padding 1, made of ordinary parts.

    A sample between four cells is a weighted sum of four rows of the map, which is what
    `embedding_bag` computes; the rest is one matrix product.

    Maps (B, C, H, W), offsets (B, 18, h, w) in cells, (y, x) of each tap, and its weights
    (B, 9, h, w); kernel (C', C, 3, 3) and bias (C',).
    """
    (height, width), (images, _, h, w) = x.shape[-2:], mask.shape
    tap = torch.arange(3, device=x.device) - 1
    rows = torch.arange(h, device=x.device) * stride
    columns = torch.arange(w, device=x.device) * stride
    # Output cell by output cell, as they are read below: (B, h, w, 9, 2) and (B, h, w, 9)
    moved, mask = offset.permute(0, 2, 3, 1).unflatten(-1, (TAPS, 2)), mask.permute(0, 2, 3, 1)
    above, below = _neighbours(
        moved[..., 0] + (rows[:, None, None] + tap.repeat_interleave(3)), height
    )
    left, right = _neighbours(moved[..., 1] + (columns[:, None] + tap.repeat(3)), width)
    first = torch.arange(images, device=x.device, dtype=torch.int32) * (height * width)
    lines = [
        (row * width + first[:, None, None, None], part * mask) for row, part in (above, below)
    ]
    corners = [(line, column) for line in lines for column in (left, right)]
    index = torch.stack([line[0] + column[0] for line, column in corners], -1).view(-1, 4)  # (N, 4)
    share = torch.stack([line[1] * column[1] for line, column in corners], -1).view(-1, 4)
    table = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, C)
    sampled = F.embedding_bag(index, table, mode="sum", per_sample_weights=share)  # (N, C)
    kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, C')
    found = torch.addmm(bias, sampled.reshape(-1, kernel.shape[0]), kernel)  # (B h w, C')
    return found.view(images, h, w, -1).permute(0, 3, 1, 2)


def _neighbours(place: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two cells around a place on one axis, int32, and the share of each; none outside."""
    low = place.detach().floor()
    further = place - low  # 0 to 1; the gradient with respect to the place
    low = low.clamp(-2, length).int()  # far away is as good as just outside
    return _inside(low, 1 - further, length), _inside(low + 1, further, length)


def _inside(cell: Tensor, share: Tensor, length: int) -> tuple[Tensor, Tensor]:
    kept = cell.clamp(0, length - 1)
    return kept, share * (kept == cell)


def reread(values: Tensor, size: tuple[int, int], *, flat: bool = True) -> Tensor:
    """Offsets or mask of one level, (B, C, h, w), for an output of `size` -> (B, C, H, W).

    A DyHead block convolves the next coarser level with the offsets of the current one, which are
    of twice its size. The released CUDA kernel does not notice: it reads the first C * H * W
    numbers of the flat buffer as if they were a map of H x W, so that the places it looks at come
    from other cells and other taps. The published weights were trained that way. Not `flat`:
    resized, which is what was meant.
    """
    if values.shape[-2:] == size:
        return values
    if not flat:
        return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    count = values.shape[1] * size[0] * size[1]
    return values.flatten(1)[:, :count].unflatten(1, (values.shape[1], *size))


def draw(layer: nn.Conv2d, std: float) -> None:
    """New weights of this spread (0: none at all), no bias."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class NormedConv(nn.Module):
    """Deformable convolution and group norm; names of the released weights (`conv`, `bn`)."""

    def __init__(self, channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = DeformableConv(channels, channels, stride)
        self.bn = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """As the convolution."""
        return self.bn(self.conv(x, offset, mask))


class DynamicReLU(nn.Module):
    """max(a1 x + b1, a2 x + b2), with slopes and intercepts that the picture decides, per channel.

    (B, C, H, W) -> (B, C, H, W). Source: Dynamic ReLU, arXiv:2003.10027, section 3, DY-ReLU-B.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze = channels // 4
        self.fc = nn.Sequential(
            nn.Linear(channels, squeeze), nn.ReLU(), nn.Linear(squeeze, 4 * channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        theta = F.hardsigmoid(self.fc(x.mean((2, 3))))[..., None, None]  # (B, 4C, 1, 1)
        a1, b1, a2, b2 = theta.chunk(4, dim=1)
        first = x * (2 * (a1 - 0.5) + 1) + (b1 - 0.5)  # starts as the identity
        return torch.maximum(first, x * (2 * (a2 - 0.5)) + (b2 - 0.5))


class DyConv(nn.Module):
    """One DyHead block: each level listens to itself, the finer and the coarser level.

    Every branch is a deformable convolution, all with the offsets of the level itself; their mean
    is weighted by how much each branch has to say about the picture, then a dynamic ReLU.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        channels, self.flat = config.channels, config.flat_offsets
        coarser, same, finer = (NormedConv(channels, s, config.norm_groups) for s in (1, 1, 2))
        self.DyConv = nn.ModuleList([coarser, same, finer])
        say = nn.Conv2d(channels, 1, 1)
        self.AttnConv = nn.Sequential(nn.AdaptiveAvgPool2d(1), say, nn.ReLU())
        self.offset = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)
        draw(say, 0.01)
        draw(self.offset, 0.0)  # a new block starts as plain convolutions
        self.relu = DynamicReLU(channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C, h, w), finest first -> the same."""
        return [self.relu(self._mixed(maps, level)) for level in range(len(maps))]

    def _mixed(self, maps: Sequence[Tensor], level: int) -> Tensor:
        """Weighted mean of the branches of one level, (B, C, h, w)."""
        coarser, same, finer = self.DyConv
        here = maps[level]
        both = self.offset(here)  # (B, 27, h, w)
        offset, mask = both[:, : 2 * TAPS], both[:, 2 * TAPS :].sigmoid()
        branches = [same(here, offset, mask)]
        if level > 0:
            branches.append(finer(maps[level - 1], offset, mask))
        if level + 1 < len(maps):
            above = maps[level + 1]
            size = (above.shape[-2], above.shape[-1])
            moved = [reread(x, size, flat=self.flat) for x in (offset, mask)]
            found, size = coarser(above, *moved), (here.shape[-2], here.shape[-1])
            branches.append(F.interpolate(found, size, mode="bilinear", align_corners=True))
        stacked = torch.stack(branches)  # (N, B, C, h, w), N = 2 or 3
        say = torch.stack([F.hardsigmoid(self.AttnConv(x)) for x in branches])
        return (stacked * say).mean(0)


class Tower(nn.Sequential):
    """Blocks of fusion, BERT layer and DyConv, numbered as in the released weights.

    Without fusion there are DyConvs only, and the text passes through.
    """

    def __init__(self, config: GLIPConfig) -> None:
        parts: list[nn.Module] = []
        for _ in range(config.blocks):
            if config.fusion:
                parts += [Fusion(config), BertLayer(config.bert)]
            parts.append(DyConv(config))
        super().__init__(*parts)

    def forward(  # type: ignore[override]
        self, maps: list[Tensor], text: Tensor, text_mask: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Levels (B, C, h, w), (B, L, D), bool (B, L) -> levels and text after all blocks."""
        for part in self:
            if isinstance(part, Fusion):
                maps, text = part(maps, text, text_mask)
            elif isinstance(part, BertLayer):
                text = part(text, text_mask)
            else:
                maps = part(maps)
        return maps, text


# ---- words and boxes ---------------------------------------------------------------------------


class Raw(NamedTuple):
    """What the head says, before anything is chosen."""

    token_logits: Tensor  # (B, A, L) does this word mean this cell
    deltas: Tensor  # (B, A, 4) of the box from its anchor, coded
    centerness: Tensor  # (B, A) logits: is the cell in the middle of its box
    sizes: tuple[tuple[int, int], ...]  # cells (h, w) of each level; A is their sum of h * w


class Head(nn.Module):
    """The tower, and three linear layers that read every cell."""

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        channels, width = config.channels, config.text_width
        self.fusion, self.clamp = config.fusion, config.clamp
        self.dyhead_tower = Tower(config)
        self.bbox_pred = nn.Conv2d(channels, 4, 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        if config.unused_classes:
            self.cls_logits = nn.Conv2d(channels, config.unused_classes, 1).requires_grad_(False)
        for layer in (self.bbox_pred, self.centerness):
            draw(layer, 0.01)
        ones = (nn.ParameterDict({"scale": torch.ones(1)}) for _ in config.strides)
        self.scales = nn.ModuleList(ones)  # a learned factor of each level
        self.dot_product_projection_text = nn.Linear(width, channels)
        self.log_scale = nn.Parameter(torch.full((1,), config.log_scale))
        self.bias_lang = nn.Parameter(torch.zeros(width))
        self.bias0 = nn.Parameter(torch.full((1,), -math.log(1 / PRIOR - 1)))

    def forward(
        self, maps: list[Tensor], hidden: Tensor, embedded: Tensor, text_mask: Tensor
    ) -> Raw:
        """Levels (B, C, h, w), text (B, L, D) twice, bool (B, L) -> `Raw`, in float32."""
        maps, fused = self.dyhead_tower(maps, hidden, text_mask)
        sizes = tuple((x.shape[-2], x.shape[-1]) for x in maps)
        factors = [level.get_parameter("scale") for level in self.scales]
        boxes = [s * self.bbox_pred(x) for s, x in zip(factors, maps, strict=True)]
        cells = cells_of(maps)  # (B, A, C)
        centerness = cells_of([self.centerness(x) for x in maps]).squeeze(2)
        logits = self.align(cells, fused if self.fusion else embedded)
        return Raw(logits, cells_of(boxes).float(), centerness.float(), sizes)

    def align(self, cells: Tensor, text: Tensor) -> Tensor:
        """(B, A, C), (B, L, D) -> logits (B, A, L).

        The words are unit vectors; half of one is projected, the whole one decides its own bias.
        Kept out of autocast: near the prior of 1 % a bfloat16 logit is 0.03 wide.
        """
        with torch.autocast(cells.device.type, enabled=False):
            cells, text = at_least_float32(cells), at_least_float32(text)
            unit = F.normalize(text, dim=-1)
            words = self.dot_product_projection_text(unit / 2)  # (B, L, C)
            bias = unit @ self.bias_lang + self.bias0  # (B, L)
            logits = cells @ words.transpose(1, 2) / self.log_scale.exp() + bias[:, None]
            return logits.clamp(-LIMIT, LIMIT) if self.clamp else logits
