"""Anchors, and boxes coded from them.

Everything in this file counts as the released code does: a box holds its last pixel, so that its
width is x1 - x0 + 1. The rest of the package is half-open; `inclusive` and `half_open` translate.

Letters: A anchors, R boxes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the four numbers of a coded box
_MOST = math.log(1000 / 16)  # of the coded width and height, before exp


def inclusive(boxes_xyxy: Tensor) -> Tensor:
    """Half-open boxes (R, 4) -> boxes that hold their last pixel."""
    return boxes_xyxy - boxes_xyxy.new_tensor([0.0, 0.0, 1.0, 1.0])


def half_open(boxes: Tensor) -> Tensor:
    """Boxes that hold their last pixel (R, 4) -> half-open ones."""
    return boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])


def anchor_boxes(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], anchor_sizes: Sequence[int],
    device: torch.device | None = None,
) -> Tensor:  # fmt: skip
    """One square per cell, all levels, row by row -> (A, 4) px.

    Each level has cells (h, w), a stride in pixels per cell, and a side of its squares in pixels.
    """
    levels = []
    for (height, width), stride, side in zip(sizes, strides, anchor_sizes, strict=True):
        y = torch.arange(height, device=device) * stride
        x = torch.arange(width, device=device) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([x, y, x, y], dim=-1).flatten(0, 1) + (stride - 1) / 2  # (h w, 4)
        half = (side - 1) / 2
        levels.append(centre + centre.new_tensor([-half, -half, half, half]))
    return torch.cat(levels)


def centres(boxes: Tensor) -> Tensor:
    """Boxes (R, 4) -> middle points (R, 2) as (x, y)."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def sides(boxes: Tensor) -> Tensor:
    """Boxes (R, 4) -> (R, 2) as (width, height)."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes as seen from their anchors, (A, 4), (A, 4) -> (A, 4)."""
    move = (centres(boxes) - centres(anchors)) / sides(anchors)
    grow = (sides(boxes) / sides(anchors)).log()
    return torch.cat([move, grow], dim=1) * boxes.new_tensor(WEIGHTS)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode`, (A, 4), (A, 4) -> (A, 4), for boxes up to 62 times their anchor."""
    move, grow = (deltas / deltas.new_tensor(WEIGHTS)).split(2, dim=1)
    centre = centres(anchors) + move * sides(anchors)
    half = (grow.clamp(max=_MOST).exp() * sides(anchors) - 1) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of all pairs, (A, 4), (R, 4) -> (A, R)."""
    from torchvision.ops import box_iou

    return box_iou(half_open(first), half_open(second))
