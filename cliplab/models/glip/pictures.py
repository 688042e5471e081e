"""Pictures as the model takes them: resized, normalised, filled up; and boxes back to the picture.

Letters: B pictures, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.models.glip.anchors import half_open
from cliplab.models.glip.config import GLIPConfig

MULTIPLE = 32  # that sides are filled up to, at the right and at the bottom, with the mean colour


def resized(size: tuple[int, int], config: GLIPConfig) -> tuple[int, int]:
    """(width, height) of a picture -> (width, height) for the model, both at least 1.

    The shorter side gets `short_side` pixels, or as many as keep the longer within `long_side`.
    """
    if min(size) < 1:
        raise ValueError(f"picture: got {size[0]} x {size[1]} pixels; expected at least 1 x 1")
    low, high = min(size), max(size)
    short = config.short_side
    if high / low * short > config.long_side:
        short = max(1, round(config.long_side * low / high))
    long = min(max(short * high // low, short), max(config.long_side, short))
    return (short, long) if size[0] <= size[1] else (long, short)


def prepare(image: Image.Image, config: GLIPConfig) -> tuple[Tensor, tuple[int, int]]:
    """A picture -> pixels (3, H, W) filled up to a multiple of 32, and its own (H, W) in them."""
    width, height = resized(image.size, config)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)
    pixels = pixels.flip(0) if config.bgr else pixels
    mean, std = (torch.tensor(x)[:, None, None] for x in (config.mean, config.std))
    filled = F.pad((pixels - mean) / std, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
    return filled, (height, width)


def to_picture(boxes: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes of the resized picture, which hold their last pixel, -> half-open ones of the picture.

    Args:
        boxes: (R, 4) px.
        shape: (H, W) of the resized picture.
        size: (width, height) of the picture.

    Scaled first and opened then, as the released code does, which was trained on boxes that had
    been closed first and scaled then.
    """
    whole = boxes.new_tensor([*size, *size])
    scale = whole / boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
    return torch.minimum(half_open(boxes * scale).clamp(min=0), whole)


def same_sizes(pixels: Sequence[Tensor]) -> list[list[int]]:
    """Indices of pictures that make a batch: neighbours of one size.

    Filling up pictures of several sizes to one would let the result depend on the neighbours.
    """
    batches: list[list[int]] = []
    for index, one in enumerate(pixels):
        if batches and pixels[batches[-1][0]].shape == one.shape:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
