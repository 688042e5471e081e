"""How good are labels? IoU over classes, at borders, and with the names taken out of the question.

Letters: K classes, H W pixels. Labels are indices into the names; `IGNORE` marks true pixels that
nobody is judged on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255
BOUNDARY = 0.02  # width of a boundary, as a share of the picture's diagonal


@dataclass(frozen=True)
class Quality:
    """What was reached on some pictures, 0 to 1; classes that nobody saw or named are NaN."""

    names: tuple[str, ...]
    confusion: Tensor  # (K, K) pixels, row = true class, column = predicted
    iou: Tensor  # (K,) intersection over union of the pixels of all pictures
    boundary_iou: Tensor  # (K,) the same, near the borders of the masks only
    oracle_iou: Tensor  # (K,) after every group was given its best true class; NaN without groups
    known: tuple[int, ...]  # classes that the truth knows; means are over these

    @property
    def miou(self) -> float:
        """Mean IoU over the known classes that occur, in truth or in prediction."""
        return self._mean(self.iou)

    @property
    def boundary_miou(self) -> float:
        """Mean boundary IoU."""
        return self._mean(self.boundary_iou)

    @property
    def oracle_miou(self) -> float:
        """Mean IoU if every group had the right name: what the masks alone are worth."""
        return self._mean(self.oracle_iou)

    def _mean(self, values: Tensor) -> float:
        return float(values[list(self.known)].nanmean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels that are labelled right."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())

    def means(self) -> dict[str, float | None]:
        """The numbers for people: mIoU, the oracle's, at borders, pixels; None: not there."""
        names = ("miou", "oracle_miou", "boundary_miou", "pixel_accuracy")
        return {name: _finite(getattr(self, name)) for name in names}

    def of(self, k: int) -> dict[str, float | None]:
        """Share of the true pixels and IoUs of class k; None where nothing can be said."""
        names = ("iou", "oracle_iou", "boundary_iou")
        numbers = {name: getattr(self, name)[k] for name in names}
        numbers["true_share"] = self.confusion[k].sum() / self.confusion.sum()
        known = k in self.known
        return {name: _finite(value) if known else None for name, value in numbers.items()}

    def confusions(self, count: int = 5) -> list[tuple[str, str, float]]:
        """The worst mistakes: true class, what it was called, share of the true class's pixels."""
        share = self.confusion / self.confusion.sum(dim=1, keepdim=True).clamp(min=1)
        share = share - torch.diag(share.diagonal())
        values, where = share.flatten().topk(min(count, share.numel()))
        rows, columns = where // len(self.names), where % len(self.names)
        found = zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True)
        return [(self.names[r], self.names[c], v) for r, c, v in found if v > 0]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, rounded to 4 decimals; without what does not exist."""
        kept: dict[str, Any] = {k: round(v, 4) for k, v in self.means().items() if v is not None}
        pairs = zip(self.names, self.iou.tolist(), strict=True)
        return {**kept, "iou": {k: round(v, 4) for k, v in pairs if math.isfinite(v)}}


def _finite(value: Tensor | float) -> float | None:
    return float(value) if math.isfinite(value) else None


class Tally:
    """Counts over pictures; `result` makes numbers of them.

    Counts of all pictures are added before anything is divided, as in PASCAL VOC: a picture counts
    by its pixels, and a class by all of its pixels together.
    """

    def __init__(self, names: Sequence[str], *, known: Collection[int] | None = None) -> None:
        """Nothing counted yet; `known`: classes that the truth knows, None for all."""
        count = len(names)
        self.names = tuple(names)
        self.known = tuple(range(count) if known is None else sorted(known))
        self.named = torch.zeros(count, count, dtype=torch.long)
        self.judged = torch.zeros(count, count, dtype=torch.long)
        self.edges = torch.zeros(2, count, dtype=torch.long)  # intersection, union

    def add(self, predicted: Tensor, true: Tensor, owner: Tensor | None = None) -> None:
        """Count one picture: integers (H, W), `true` with IGNORE where it does not count.

        `owner`, the group of each pixel, is for the oracle.
        """
        count = len(self.names)
        self.named += confusion(predicted, true, count)
        self.edges += boundary_counts(predicted, true, count)
        if owner is not None:
            self.judged += confusion(oracle_labels(owner, true, count), true, count)

    def include(self, other: Tally) -> None:
        """Add the counts of another one of the same names."""
        self.named += other.named
        self.judged += other.judged
        self.edges += other.edges

    def result(self) -> Quality:
        """The numbers so far; NaN before any pixel was counted."""
        intersection, union = self.edges
        edges = torch.where(union > 0, intersection / union, math.nan)
        iou, oracle = iou_per_class(self.named), iou_per_class(self.judged)
        return Quality(self.names, self.named, iou, edges, oracle, self.known)


def confusion(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Pixel counts (K, K) of two pictures of labels (H, W): row = true class, column = predicted.

    Pixels that are IGNORE in `true` do not count.
    """
    kept = true != IGNORE
    found, expected = predicted[kept].long(), true[kept].long()
    return torch.bincount(expected * classes + found, minlength=classes**2).view(classes, classes)


def iou_per_class(counts: Tensor) -> Tensor:
    """Pixel counts (K, K) -> (K,) intersection over union, NaN where a class does not occur."""
    hits = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - hits
    return torch.where(union > 0, hits / union, math.nan)


def oracle_labels(owner: Tensor, true: Tensor, classes: int) -> Tensor:
    """Every group's most frequent true class: groups (H, W), truth (H, W) -> labels (H, W).

    Ground truth chooses the names, so this is no result; it tells what the masks could be worth.
    Pixels to be ignored have no say. The lowest index wins a tie.
    """
    ids, group = owner.unique(return_inverse=True)  # (G,), (H, W)
    kept = true != IGNORE
    votes = group[kept] * classes + true[kept].long()
    table = torch.bincount(votes, minlength=len(ids) * classes).view(len(ids), classes)
    return table.argmax(dim=1)[group]


def boundary_counts(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Intersection and union (2, K) of the boundaries of masks: labels (H, W), labels (H, W).

    Large masks have a high IoU whatever their outline looks like; here only pixels near the outline
    count. A boundary is what erosion takes away from a mask: its pixels within d of a pixel that is
    not the mask's, or of the frame, in a square neighbourhood; d is BOUNDARY of the diagonal.

    Source: Boundary IoU, arXiv:2103.16562, section 4; for a class, its pixels are the mask.
    """
    height, width = true.shape
    distance = max(1, round(BOUNDARY * math.hypot(height, width)))
    kept = true != IGNORE
    counts = torch.zeros(2, classes, dtype=torch.long)
    for k in torch.cat([predicted[kept], true[kept]]).long().unique().tolist():
        ours, theirs = (_boundary((x == k) & kept, distance) for x in (predicted, true))
        counts[0, k], counts[1, k] = (ours & theirs).sum(), (ours | theirs).sum()
    return counts


def _boundary(mask: Tensor, distance: int) -> Tensor:
    """Pixels of a mask (H, W) that erosion by `distance` removes, (H, W) bool."""
    outside = F.pad((~mask).float()[None, None], (distance,) * 4, value=1.0)
    window = 2 * distance + 1
    near = F.max_pool2d(F.max_pool2d(outside, (1, window), 1), (window, 1), 1)
    return mask & near[0, 0].bool()
