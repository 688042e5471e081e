"""The tower of GLIP's head: fusion, a BERT layer for the words, a DyHead block for the maps.

Source: Dynamic Head, arXiv:2106.08322, section 3; GLIP, arXiv:2112.03857, section 3.2.

Letters: B images, C channels, H W cells, L text tokens, D text channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.bert import BertLayer
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.deformable import TAPS, DynamicReLU, NormedConv, draw, reread
from cliplab.models.glip.fusion import Fusion


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
                parts += [Fusion(config), _bert_layer(config)]
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


def _bert_layer(config: GLIPConfig) -> BertLayer:
    dropout = {"hidden_dropout": config.dropout, "attention_dropout": config.dropout}
    return BertLayer(config.text_width, config.text_heads, config.text_hidden, **dropout)
