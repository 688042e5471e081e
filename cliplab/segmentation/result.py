"""What a segmenter is, and what it says of one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.models.groupvit import GroupViT
from cliplab.models.tokenizers import Tokenizer
from cliplab.segmentation.settings import Settings, Vocabulary

_STRIP_VALUES = 2**24  # numbers held at a time when labels are enlarged
_ROUNDING = 1e-6  # interpolating between equal scores may end a hair below them


class Segmenter(Protocol):
    """Pictures and words in, a label for every pixel out."""

    name: str
    device: torch.device
    model: GroupViT
    tokenizer: Tokenizer

    def embed(self, words: Sequence[str], templates: Sequence[str] = ...) -> Tensor:
        """W words in T templates -> (W, D) unit rows."""

    def side(self, settings: Settings) -> int:
        """Px of the shorter side of a picture as it is looked at, and of a window."""

    def segment(
        self, images: Sequence[Image.Image], vocabulary: Vocabulary, settings: Settings | None = ...
    ) -> list[Segmentation]:
        """Pictures of any size and mode -> what is said of each."""


@dataclass(frozen=True)
class Segmentation:
    """Labels of a picture at the size that it was looked at, which is bounded; see `labels_at`.

    Letters: K labels, G groups in use, H W pixels as looked at.
    """

    scores: Tensor  # (K, H, W) float32, 0 to 1; not a distribution
    owner: Tensor  # (H, W) long, which group a pixel belongs to
    names: tuple[str, ...]  # K, names[0] is the background if there is one
    size: tuple[int, int]  # width and height of the picture itself, in pixels
    has_background: bool = False
    threshold: float | None = None  # scores below are background

    @property
    def labels(self) -> Tensor:
        """(H, W) long, indices into names."""
        return best_labels(self.scores, self._lowest())

    @property
    def groups(self) -> Tensor:
        """(G, H, W) bool, the pixels of every group that has any; each pixel is in one group."""
        present = self.owner.unique()  # (G,)
        return self.owner == present[:, None, None]

    def labels_at(self, size: tuple[int, int] | None = None) -> Tensor:
        """Labels (height, width) uint8 or int16 at the size of the picture, or another.

        Scores are interpolated before the best is taken, so that borders are smooth; in strips of
        rows, so that no more than some million numbers are held at a time.
        """
        width, height = size or self.size
        kind = torch.uint8 if len(self.names) <= 256 else torch.int16
        found = torch.empty((height, width), dtype=kind)
        lowest = self._lowest()
        if lowest is not None:
            lowest -= _ROUNDING
        for start, strip in _strips(self.scores, width, height):
            found[start : start + strip.shape[1]] = best_labels(strip, lowest).to(kind)
        return found

    def shares(self) -> dict[str, float]:
        """Label -> share of the picture's pixels, 0 to 1."""
        counts = torch.bincount(self.labels.flatten(), minlength=len(self.names))
        return dict(zip(self.names, (counts / counts.sum()).tolist(), strict=True))

    def _lowest(self) -> float | None:
        """The threshold, or the best score if that is lower: the best class always stays."""
        if self.threshold is None:
            return None
        return min(self.threshold, float(self.scores[1:].max()))


def best_labels(scores: Tensor, lowest: float | None) -> Tensor:
    """The best label of every pixel, (K, H, W) -> (H, W) long; classes below `lowest` become 0."""
    best = scores.argmax(dim=0)
    return best if lowest is None else torch.where(scores[1:].amax(dim=0) < lowest, 0, best)


def check_threshold(threshold: float | None, *, has_background: bool) -> None:
    """Raise ValueError for a threshold that has no label to give."""
    if threshold is not None and not has_background:
        raise ValueError(
            f"threshold: got {threshold}, but there is no background to give to pixels below it; "
            "make the vocabulary with background=() or with words for the background"
        )


def _strips(scores: Tensor, width: int, height: int) -> Iterator[tuple[int, Tensor]]:
    """Scores (K, H, W) enlarged (bilinear) to strips (K, rows, width), with their first row."""
    rows_in = scores.shape[1]
    step = max(1, _STRIP_VALUES // (len(scores) * max(width, scores.shape[2])))
    where = ((torch.arange(height) + 0.5) * rows_in / height - 0.5).clamp(0, rows_in - 1)
    above = where.floor().long()
    below, weight = (above + 1).clamp(max=rows_in - 1), (where - above)[:, None]
    for start in range(0, height, step):
        part = slice(start, start + step)
        upper, lower = scores[:, above[part]], scores[:, below[part]]  # (K, rows, W)
        mixed = torch.lerp(upper, lower, weight[part].to(scores))
        yield start, F.interpolate(mixed[None], (mixed.shape[1], width), mode="bilinear")[0]
