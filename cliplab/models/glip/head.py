"""Where words and boxes meet: alignment scores, boxes and centerness of every cell.

Source: GLIP, arXiv:2112.03857, section 3.1, equation 3: S = O P^T, region features times words.

Letters: B images, A anchors (one per cell, all levels), L text tokens, C channels, D text channels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.dyhead import Tower, draw
from cliplab.models.glip.fusion import LIMIT
from cliplab.models.losses import at_least_float32

PRIOR = 0.01  # probability of a match that new weights start with


class Raw(NamedTuple):
    """What the head says, before anything is chosen."""

    token_logits: Tensor  # (B, A, L) does this word mean this cell
    deltas: Tensor  # (B, A, 4) of the box from its anchor, coded
    centerness: Tensor  # (B, A) logits: is the cell in the middle of its box
    sizes: tuple[tuple[int, int], ...]  # cells (h, w) of each level; A is their sum of h * w


class Scale(nn.Module):
    """One learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.scale


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
        self.scales = nn.ModuleList([Scale() for _ in config.strides])
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
        boxes = [s(self.bbox_pred(x)) for s, x in zip(self.scales, maps, strict=True)]
        cells = _cells(maps)  # (B, A, C)
        centerness = _cells([self.centerness(x) for x in maps]).squeeze(2)
        logits = self.align(cells, fused if self.fusion else embedded)
        return Raw(logits, _cells(boxes).float(), centerness.float(), sizes)

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


def _cells(maps: list[Tensor]) -> Tensor:
    """Levels (B, X, h, w) -> (B, A, X), row by row."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
