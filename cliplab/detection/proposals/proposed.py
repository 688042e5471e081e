"""Boxes of a picture without names, and those that a ViLD proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cliplab.detection.boxes import check_boxes, clip_boxes
from cliplab.models.vild import Regions, ViLD


@dataclass(frozen=True, eq=False)
class Proposals:
    """Boxes of one picture.

    Raises:
        ValueError: boxes that are none, or objectness of another shape, not finite or not 0 to 1.
    """

    boxes_xyxy: Tensor  # (R, 4) px of the upright picture; they may leave it
    objectness: Tensor | None = None  # (R,) 0 to 1; None: the source has no opinion

    def __post_init__(self) -> None:
        check_boxes(self.boxes_xyxy)
        score, count = self.objectness, len(self.boxes_xyxy)
        if score is None:
            return
        if tuple(score.shape) != (count,):
            raise ValueError(
                f"objectness: got shape {tuple(score.shape)}; expected ({count},), one a box"
            )
        wrong = ~((score >= 0) & (score <= 1))  # NaN is wrong, too
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"objectness: row {row} is {float(score[row]):g}; expected 0 to 1: pass logits "
                "through a sigmoid, or leave objectness out"
            )

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def select(self, keep: Tensor) -> Proposals:
        """Those that a (R,) bool mask or indices choose."""
        score = None if self.objectness is None else self.objectness[keep]
        return Proposals(self.boxes_xyxy[keep], score)

    def inside(self, size: tuple[int, int]) -> Proposals:
        """Cut off at the frame of a picture of (width, height) px; what is outside is dropped."""
        clipped, left = clip_boxes(self.boxes_xyxy, size)
        return Proposals(clipped, self.objectness).select(left)

    def best(self, top: int) -> Proposals:
        """The `top` with the highest objectness, best first; without any, the first ones."""
        if self.objectness is None:
            return self.select(torch.arange(min(top, len(self))))
        return self.select(self.objectness.argsort(descending=True, stable=True)[:top])


# ---- a ViLD --------------------------------------------------------------------------------


@torch.no_grad()
def vild_proposals(
    model: ViLD, images: Sequence[Image.Image], *, refined: bool = True
) -> list[Proposals]:
    """What a ViLD looks at in each of N pictures of any size, best first; no word is needed.

    Args:
        model: any variant; its names play no part.
        images: each is shown `model.config.height` px high.
        refined: boxes as the head moved them, which are those that a ViLD answers with; False: as
            the proposal network gave them.
    """
    found = []
    for image in images:
        pixels = _to_pixels(image, model.config.height).to(model.background_emb.device)
        if refined:
            boxes, objectness = model(pixels)[0][:2]
        else:
            (boxes,), (objectness,), _ = model.propose(*model.maps(pixels))
        across, down = image.width / pixels.shape[-1], image.height / pixels.shape[-2]
        scaled = boxes.cpu() * torch.tensor([across, down] * 2)
        found.append(Proposals(scaled, objectness.cpu()).inside(image.size))
    return found


def region_proposals(regions: Sequence[Regions]) -> list[Proposals]:
    """Boxes and objectness of regions that a ViLD has found already; their embeddings are left."""
    return [Proposals(one.boxes_xyxy.cpu(), one.objectness.cpu()) for one in regions]


def _to_pixels(image: Image.Image, height: int) -> Tensor:
    """(1, 3, H, W) in [0, 1], H = `height` and the aspect kept."""
    width = max(1, round(image.width * height / image.height))
    small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
