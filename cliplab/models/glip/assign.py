"""Which cells answer for which box: adaptive training sample selection.

Source: ATSS, arXiv:1912.02424, Algorithm 1.

Letters: A anchors, G labelled boxes of one picture, L text tokens. Boxes hold their last pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.models.glip.anchors import centres, decode, iou

NEAREST = 9  # anchors of each level, nearest to a box's centre, that are looked at
_INSIDE = 0.01  # pixels by which a centre has to be inside the box


def assign(anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
    """Index of the box that each anchor answers for, (A,); -1 for none.

    Candidates are the nearest anchors of each level; the bar is the mean and the standard deviation
    of their IoU with the box. An anchor claimed by several boxes goes to the one it overlaps most.

    Args:
        anchors: (A, 4).
        counts: how many of them each level has.
        boxes: (G, 4).
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    overlap = iou(anchors, boxes)  # (A, G)
    candidates = _candidates(anchors, counts, boxes)  # (N, G)
    found = overlap.gather(0, candidates)  # (N, G)
    bar = found.mean(0) + (found.std(0) if len(found) > 1 else 0)
    good = (found >= bar) & _is_inside(anchors, boxes).gather(0, candidates)
    claims = torch.full_like(overlap, -1.0).scatter_(0, candidates, found.where(good, -1.0))
    best, index = claims.max(1)
    return index.where(best >= 0, -1)


def _candidates(anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
    """(N, G) indices of the anchors nearest to each box, N up to 9 of each level."""
    apart = centres(anchors)[:, None] - centres(boxes)[None]  # (A, G, 2)
    distance = apart.pow(2).sum(2).sqrt()
    chosen, first = [], 0
    for count, part in zip(counts, distance.split(list(counts)), strict=True):
        chosen.append(part.topk(min(NEAREST, count), dim=0, largest=False).indices + first)
        first += count
    return torch.cat(chosen)


def _is_inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Whether an anchor's centre is in a box, (A, G)."""
    point = centres(anchors)[:, None]  # (A, 1, 2)
    room = torch.cat([point - boxes[:, :2], boxes[:, 2:] - point], dim=2)  # (A, G, 4)
    return room.amin(2) > _INSIDE


def token_targets(matched: Tensor, positive: Tensor, *, mark_last: bool = False) -> Tensor:
    """Which words mean each anchor: (A,) of `assign`, bool (G, L) -> (A, L) of 0 and 1.

    Args:
        matched: index of each anchor's box, -1 for none.
        positive: the words of each box.
        mark_last: anchors of no box point at the last token, as in the released code; its loss
            leaves that token out as long as it is padding.
    """
    none = positive.new_zeros(1, positive.shape[1])
    none[:, -1] = mark_last
    return torch.cat([positive, none]).float()[matched]  # index -1 is the last row


def centerness_targets(deltas: Tensor, anchors: Tensor) -> Tensor:
    """How central anchors are in their boxes, (A, 4) coded, (A, 4) -> (A,) in 0 to 1.

    Only for anchors with their centre inside. Source: FCOS, arXiv:1904.01355, equation 3.
    """
    boxes, point = decode(deltas, anchors), centres(anchors)
    near, far = point - boxes[:, :2], boxes[:, 2:] - point  # (A, 2) left and top, right and bottom
    return (torch.minimum(near, far) / torch.maximum(near, far)).prod(1).sqrt()
