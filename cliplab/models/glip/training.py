"""What GLIP learns from: which anchors answer for which box (ATSS), and the three losses.

Source: GLIP, arXiv:2112.03857, equation 1; ATSS, arXiv:1912.02424, Algorithm 1.

Letters: B images, A anchors, G labelled boxes of one picture, L text tokens. Boxes hold their last
pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.glip.anchors import anchor_boxes, centres, decode, encode, inclusive, iou
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.dyhead import Raw
from cliplab.models.losses import token_focal_loss

NEAREST = 9  # anchors of each level, nearest to a box's centre, that are looked at
_INSIDE = 0.01  # pixels by which a centre has to be inside the box


def assign(anchors: Tensor, counts: Sequence[int], boxes: Tensor) -> Tensor:
    """Index of the box that each anchor answers for, (A,); -1 for none.

    Candidates are the nearest anchors of each level; the bar is the mean and the standard deviation
    of their IoU with the box. An anchor claimed by several boxes goes to the one it overlaps most.
    Anchors (A, 4), `counts` of which each level has; boxes (G, 4).
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


def token_targets(matched: Tensor, positive: Tensor) -> Tensor:
    """Which words mean each anchor: (A,) of `assign`, bool (G, L) -> (A, L) of 0 and 1.

    Deviates: the released code lets anchors of no box mean the last token; with a prompt that
    fills all tokens it would learn that the background is [SEP]. Not so here.
    """
    none = positive.new_zeros(1, positive.shape[1])
    return torch.cat([positive, none]).float()[matched]  # index -1 is the last row


def centerness_targets(deltas: Tensor, anchors: Tensor) -> Tensor:
    """How central anchors are in their boxes, (A, 4) coded, (A, 4) -> (A,) in 0 to 1.

    Only for anchors with their centre inside. Source: FCOS, arXiv:1904.01355, equation 3.
    """
    boxes, point = decode(deltas, anchors), centres(anchors)
    near, far = point - boxes[:, :2], boxes[:, 2:] - point  # (A, 2) left and top, right and bottom
    return (torch.minimum(near, far) / torch.maximum(near, far)).prod(1).sqrt()


BOX_WEIGHT = 2.0


class Truth(NamedTuple):
    """What is in one picture."""

    boxes_xyxy: Tensor  # (G, 4) px, half-open
    positive: Tensor  # (G, L) bool: the words of each box; see `positive_map`


class Losses(NamedTuple):
    """Scalars; their sum is what is minimised."""

    token: Tensor
    box: Tensor
    centerness: Tensor


class Targets(NamedTuple):
    """What the anchors of a batch are to say."""

    anchors: Tensor  # (A, 4)
    matched: Tensor  # (B, A) index of a box in its picture, -1 for none
    deltas: Tensor  # (B, A, 4) that box, coded; of no meaning where there is none
    tokens: Tensor  # (B, A, L) of 0 and 1

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        return Targets(*(part.to(device) for part in self))


@torch.no_grad()
def targets_of(
    truth: Sequence[Truth], sizes: Sequence[tuple[int, int]], config: GLIPConfig
) -> Targets:
    """What the truth asks of the anchors; it needs no model, so it can be made beforehand.

    `sizes`: cells of each level, see `GLIPConfig.cells`.
    """
    anchors = anchor_boxes(sizes, config.strides, config.anchor_sizes, truth[0].boxes_xyxy.device)
    matched, deltas, tokens = [], [], []
    for boxes_xyxy, positive in truth:
        boxes = inclusive(boxes_xyxy.float())
        index = assign(anchors, [h * w for h, w in sizes], boxes)
        nowhere = anchors if not len(boxes) else boxes[index.clamp(min=0)]
        matched.append(index)
        deltas.append(encode(nowhere, anchors))
        tokens.append(token_targets(index, positive))
    return Targets(anchors, torch.stack(matched), torch.stack(deltas), torch.stack(tokens))


def losses(raw: Raw, targets: Targets, text_mask: Tensor) -> Losses:
    """Token focal loss, GIoU of the boxes, cross-entropy of the centerness.

    Each over the number of anchors with a box (the box loss: over the sum of their centerness,
    which weights it). `text_mask`: bool (B, L) or (1, L), the real tokens; only these are learned.

    Source: GLIP, arXiv:2112.03857, equation 1 and Appendix A; ATSS for the boxes.
    """
    has_box = targets.matched >= 0  # (B, A)
    count, mask = has_box.sum().clamp(min=1), text_mask.expand(len(has_box), -1)
    token = token_focal_loss(raw.token_logits, targets.tokens, mask) / count
    anchors = targets.anchors.expand(len(has_box), -1, -1)[has_box]  # (N, 4)
    deltas = targets.deltas[has_box]
    if not len(anchors):  # zero, with a gradient of zero
        return Losses(token, 0 * raw.deltas.sum(), 0 * raw.centerness.sum())
    central = centerness_targets(deltas, anchors)
    apart = giou_loss(decode(raw.deltas[has_box], anchors), decode(deltas, anchors))
    box = BOX_WEIGHT * (apart * central).sum() / central.sum()
    logits = raw.centerness[has_box]
    centerness = F.binary_cross_entropy_with_logits(logits, central, reduction="sum") / count
    return Losses(token, box, centerness)


def giou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised IoU of pairs of boxes, (N, 4), (N, 4) -> (N,), 0 to 2.

    Sides count as x1 - x0 here, in the released code too. Source: GIoU, arXiv:1902.09630, Alg. 1.
    """
    from torchvision.ops import generalized_box_iou_loss

    low, high = found.split(2, dim=1)
    return generalized_box_iou_loss(torch.cat([low, torch.maximum(low, high)], dim=1), wanted)
