"""Labels against what is known of the pixels: IoU, at borders too, and what masks are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cliplab.segmentation import Quality, Tally
from cliplab.segmentation.finding import Seen
from cliplab.segmentation.truth import Truth, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from cliplab.segmentation import Vocabulary

MOST_PIXELS = 2**20  # of a picture that is judged; larger ones are judged smaller, with their truth


@dataclass(frozen=True, eq=False)
class Judged:
    """How well pictures with truth were done; means are over labels that the source knows."""

    quality: Quality  # K labels
    known: frozenset[int]  # labels that the source knows; of the others nothing can be said
    pictures: Mapping[Path, Quality] = field(default_factory=dict)  # each by itself

    @property
    def names(self) -> tuple[str, ...]:
        """K labels."""
        return self.quality.names

    def mean(self, values: Tensor) -> float:
        """Mean (K,) over the known labels that occur; NaN if none does."""
        return float(values[sorted(self.known)].nanmean())

    def of(self, path: Path) -> float | None:
        """Mean IoU of one picture, None if it was not judged."""
        return self.mean(self.pictures[path].iou) if path in self.pictures else None

    def means(self) -> dict[str, float | None]:
        """The numbers for people: mIoU, the oracle's, at borders, pixels; None: not there."""
        quality = self.quality
        found = {
            "miou": self.mean(quality.iou),
            "oracle_miou": self.mean(quality.oracle_iou),
            "boundary_miou": self.mean(quality.boundary_iou),
            "pixel_accuracy": quality.pixel_accuracy,
        }
        return {key: value if math.isfinite(value) else None for key, value in found.items()}

    def value(self, values: Tensor, k: int) -> float | None:
        """The number of label k, None if nothing can be said."""
        number = float(values[k])
        return number if k in self.known and math.isfinite(number) else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        quality = self.quality
        return {
            "pictures": len(self.pictures),
            **{k: None if v is None else round(v, 4) for k, v in self.means().items()},
            "confused": [
                {"true": true, "called": called, "share": round(share, 4)}
                for true, called, share in quality.confusions(10)
            ],
            "confusion": {"names": list(self.names), "pixels": quality.confusion.tolist()},
        }


class Judge:
    """Counts one picture after the other."""

    def __init__(self, truth: Truth, vocabulary: Vocabulary) -> None:
        self.truth, self.vocabulary = truth, vocabulary
        self._total = Tally(vocabulary.names)
        self._pictures: dict[Path, Quality] = {}

    def add(self, seen: Seen) -> Tensor | None:
        """Count a picture, if something is known of it -> its truth, at most MOST_PIXELS large."""
        path, size = seen.picture.path, seen.image.size
        bounded = judged_size(size)
        known = self.truth.labels_of(path, size, self.vocabulary, at=bounded)
        if known is None:
            return None
        predicted = seen.labels if bounded == size else seen.found.labels_at(bounded).numpy()
        true = torch.from_numpy(known)  # (H, W)
        one = Tally(self.vocabulary.names)
        owner = torch.from_numpy(nearest(seen.found.owner.numpy(), bounded))
        one.add(torch.from_numpy(predicted), true, owner)
        if not one.named.any():
            return true
        self._pictures[path] = one.result()
        for name in ("named", "judged", "edges"):
            setattr(self._total, name, getattr(self._total, name) + getattr(one, name))
        return true

    def result(self) -> Judged | None:
        """The numbers; None if nothing was known of any picture."""
        if not self._pictures:
            return None
        known = self.truth.known(self.vocabulary)
        return Judged(self._total.result(), known, self._pictures)


def judged_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a picture is judged: its own, unless that is very large."""
    scale = min(1.0, math.sqrt(MOST_PIXELS / (size[0] * size[1])))
    width, height = (min(MOST_PIXELS, max(1, int(side * scale))) for side in size)
    return min(width, MOST_PIXELS // height), min(height, MOST_PIXELS // width)
