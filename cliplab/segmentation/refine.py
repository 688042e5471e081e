"""Borders that follow the picture: scores that spread among neighbours of the same colour.

What a network knows of a place comes from coarse maps, and its borders are blurred over several
pixels. Where a thing ends is to be seen in the picture itself, without any training: neighbours of
like colour should have like scores. Several classes of post-processing do this; the one here has no
parameters to learn and is made of averages only.

Source: pixel-adaptive mask refinement, Araslanov and Roth, "Single-Stage Semantic Segmentation from
Image Labels", CVPR 2020 (arXiv:2005.08104), section 4.2.

Letters: B pictures, K classes, N neighbours, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

REACHES = (1, 2, 4, 8)  # px to the neighbours: eight at each distance
_CONTRAST = 0.1  # of the spread of a neighbourhood: by so much may colours differ
_LEAST = 1e-8


def refine(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    """Every pixel's scores become a weighted mean of its neighbours', `steps` times over.

    Weights are a softmax over the neighbours of minus their difference in colour, measured in the
    spread of the neighbourhood: a mean stops at an edge, also at one of low contrast.

    Args:
        scores: (B, K, H, W); where they sum to 1 over K they still do.
        image: (B, 3, H, W) of the same size, any range.
        steps: 0 leaves the scores as they are.

    Raises:
        ValueError: another size, or a negative number of steps.
    """
    if image.shape[:1] + image.shape[2:] != scores.shape[:1] + scores.shape[2:]:
        raise ValueError(
            f"image: got {tuple(image.shape)} for scores {tuple(scores.shape)}; expected as many "
            "pictures of the same size"
        )
    if steps < 0:
        raise ValueError(f"steps: got {steps}; expected 0 or more")
    # One picture after another: all that is read again and again stays in the processor's cache.
    pairs = zip(scores.split(1), image.split(1), strict=True)
    return torch.cat([_spread(one, picture, steps) for one, picture in pairs]) if steps else scores


def _spread(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    weights = _weights(image)  # (N, B, H, W)
    for _ in range(steps):
        parts = zip(weights, _neighbours(scores), strict=True)
        # One neighbour after another: all at once would take N times the memory of the scores.
        total = torch.zeros_like(scores)
        for weight, moved in parts:
            total.addcmul_(weight[:, None], moved)
        scores = total
    return scores


def _weights(image: Tensor) -> Tensor:
    """How alike a pixel and each of its neighbours are, (N, B, H, W), 1 in sum over N."""
    around = [*_neighbours(image), image]
    mean = sum(around) / len(around)
    spread = (sum((x - mean) ** 2 for x in around) / (len(around) - 1)).sqrt()  # (B, 3, H, W)
    allowed = _CONTRAST * spread + _LEAST
    apart = [((x - image).abs() / allowed).mean(dim=1) for x in around[:-1]]
    return (-torch.stack(apart)).softmax(dim=0)


def _neighbours(x: Tensor) -> Iterator[Tensor]:
    """(B, C, H, W) as seen from each pixel's neighbours in turn; edges are repeated."""
    height, width = x.shape[-2:]
    for reach in REACHES:
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        for down in (0, reach, 2 * reach):
            for right in (0, reach, 2 * reach):
                if (down, right) != (reach, reach):
                    yield padded[..., down : down + height, right : right + width]
