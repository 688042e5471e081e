"""From pictures to the model's pixels, from scores per word to boxes per phrase, and back.

Letters: B pictures, H W pixels, A anchors, L text tokens, K phrases, R boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.models.glip.anchors import anchor_boxes, decode, half_open
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.dyhead import Raw
from cliplab.runtime import ArgumentError

MULTIPLE = 32  # that sides are filled up to, at the right and at the bottom, with the mean colour


def resized(size: tuple[int, int], config: GLIPConfig) -> tuple[int, int]:
    """(width, height) of a picture -> (width, height) for the model, both at least 1.

    The shorter side gets `short_side` pixels, or as many as keep the longer within `long_side`.
    """
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
    """Boxes (R, 4) px of the resized picture (H, W), which hold their last pixel, -> half-open ones
    of the picture of `size` (width, height).

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
    runs = groupby(range(len(pixels)), key=lambda index: pixels[index].shape)
    return [list(run) for _, run in runs]


AGGREGATES = ("mean", "max", "power")


@dataclass(frozen=True)
class Selection:
    """What becomes a detection; the defaults are those of the released code."""

    least: float = 0.05  # score of a phrase in a cell, before centerness has its say
    candidates: int = 1000  # of each level, that go on
    nms: float = 0.6  # IoU from which two boxes of one phrase are the same
    top: int = 100  # of all phrases; ties with the last one stay
    aggregate: str = "mean"  # of a phrase's words: "mean", "max" or "power" (geometric mean)

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.aggregate not in AGGREGATES:
            raise ArgumentError(
                "aggregate", f"got {self.aggregate!r}; expected one of {', '.join(AGGREGATES)}"
            )
        if not (0 <= self.least <= 1 and 0 < self.nms <= 1 and min(self.candidates, self.top) >= 1):
            raise ValueError(
                f"selection: got {self}; expected least from 0 to 1, nms above 0 and up to 1, and "
                "at least one candidate and detection"
            )


class Found(NamedTuple):
    """What was found in one picture, best first; boxes hold their last pixel."""

    boxes: Tensor  # (R, 4) px of the resized picture
    scores: Tensor  # (R,) 0 to 1
    labels: Tensor  # (R,) indices into the phrases


def phrase_scores(token_logits: Tensor, positive: Tensor, aggregate: str = "mean") -> Tensor:
    """How well each phrase fits, (B, A, L), bool (K, L) -> (B, A, K), 0 to 1.

    A phrase without words fits nowhere.
    """
    words = token_logits.sigmoid()
    count = positive.sum(1).clamp(min=1)  # (K,)
    if aggregate == "mean":
        return words @ positive.to(words).T / count
    if aggregate == "power":
        log_words = token_logits.float().sigmoid().clamp(min=1e-30).log()
        return (log_words @ positive.to(log_words).T / count).exp() * positive.any(1)
    columns = [words[..., row].amax(-1) if row.any() else words[..., 0] * 0 for row in positive]
    return torch.stack(columns, dim=-1)


@torch.no_grad()
def select(
    raw: Raw, positive: Tensor, shapes: Sequence[tuple[int, int]], config: GLIPConfig,
    selection: Selection | None = None,
) -> list[Found]:  # fmt: skip
    """Scores of a batch -> the boxes of each picture.

    Args:
        positive: (K, L) bool, the words of each phrase.
        shapes: (H, W) of each picture in pixels, without what it was filled up with.
    """
    from torchvision.ops import clip_boxes_to_image

    chosen = selection or Selection()
    device = raw.deltas.device
    anchors = anchor_boxes(raw.sizes, config.strides, config.anchor_sizes, device)
    scores = phrase_scores(raw.token_logits, positive.to(device), chosen.aggregate)
    central = raw.centerness.sigmoid()
    counts = [h * w for h, w in raw.sizes]
    found = []
    for image, shape in enumerate(shapes):
        split = [x.split(counts) for x in (scores[image], central[image], raw.deltas[image])]
        levels = zip(*split, anchors.split(counts), strict=True)
        parts = [_from_level(s, c, d, a, chosen) for s, c, d, a in levels]
        boxes, values, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        boxes = clip_boxes_to_image(boxes, (shape[0] - 1, shape[1] - 1))
        # None that is narrower than a pixel: enlarged, its first pixel would lie behind its last.
        whole = (boxes[:, 2:] >= boxes[:, :2]).all(1)
        inside = Found(boxes[whole], values[whole], labels[whole])
        found.append(suppress(inside, chosen))
    return found


def _from_level(
    scores: Tensor, central: Tensor, deltas: Tensor, anchors: Tensor, chosen: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores (N,) and phrases (N,) of one level, scores (A, K), central (A,)."""
    cells, labels = (scores > chosen.least).nonzero(as_tuple=True)
    values = scores[cells, labels] * central[cells]
    values, best = values.topk(min(chosen.candidates, len(values)), sorted=False)
    cells, labels = cells[best], labels[best]
    return decode(deltas[cells], anchors[cells]), values.sqrt(), labels


def suppress(found: Found, chosen: Selection) -> Found:
    """Without boxes that a better one of the same phrase covers, the best `top` of the rest."""
    from torchvision.ops import nms

    found = Found(*(x[found.scores.argsort(descending=True, stable=True)] for x in found))
    boxes, kept = half_open(found.boxes).float(), []  # IoU with last pixels, as torchvision has it
    for label in found.labels.unique():
        mine = (found.labels == label).nonzero().squeeze(1)
        kept.append(mine[nms(boxes[mine], found.scores[mine].float(), chosen.nms)])
    order = torch.cat(kept).sort().values if kept else found.labels[:0]
    if len(order) > chosen.top:
        order = order[found.scores[order] >= found.scores[order[chosen.top - 1]]]
    return Found(*(x[order] for x in found))


def merge(parts: Sequence[Found], chosen: Selection) -> Found:
    """What was found with each part of a prompt, as if it had been one."""
    if len(parts) == 1:
        return parts[0]
    return suppress(Found(*(torch.cat(x) for x in zip(*parts, strict=True))), chosen)


def best_boxes(raw: Raw, positive: Sequence[Tensor], config: GLIPConfig) -> list[Tensor]:
    """The best box of each phrase, for B pictures with a prompt each: B tensors (K, 4) px.

    `positive`: B maps (K, L) bool, the words of each phrase.
    """
    anchors = anchor_boxes(raw.sizes, config.strides, config.anchor_sizes, raw.deltas.device)
    found = []
    for image, words in enumerate(positive):
        scores = phrase_scores(raw.token_logits[image], words.to(anchors.device))  # (A, K)
        cell = (scores * raw.centerness[image].sigmoid()[:, None]).argmax(0)  # (K,)
        found.append(half_open(decode(raw.deltas[image][cell], anchors[cell])))
    return found
