"""Pictures of any size for a detector of one height, and its regions as named boxes."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.detection.boxes import Detections, clip_boxes
from cliplab.detection.detectors import Options
from cliplab.detection.finding import OVERLAP
from cliplab.models.vild import Regions, ViLD, suppress

_LONGEST = 8  # times its height that a picture may be wide, or else it is made smaller


def to_pixels(image: Image.Image, height: int) -> Tensor:
    """A picture of any size, `height` px high and its aspect kept -> (1, 3, H, W) in [0, 1].

    A very wide one is made so small that it is at most 8 times as wide as `height`.
    """
    scale = min(height / image.height, _LONGEST * height / image.width)
    size = [max(1, round(side * scale)) for side in image.size]
    small = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255


def ratios(pixels: Tensor, image: Image.Image) -> Tensor:
    """What pixels of the picture are multiplied by to be those of `pixels`, (4,) for xyxy."""
    across, down = pixels.shape[-1] / image.width, pixels.shape[-2] / image.height
    return torch.tensor([across, down] * 2)


@torch.no_grad()
def regions_of(model: ViLD, pixels: Tensor, boxes_xyxy: Tensor, *, batch_size: int) -> Regions:
    """What `model(pixels, [boxes])` says of given boxes (R, 4), at most `batch_size` at a time.

    5,000 pooled regions of the shipped model are 60 MB and as much again in its heads.
    """
    maps, size = model.maps(pixels)
    texts, images = [], []
    for part in boxes_xyxy.split(batch_size):  # of no boxes one empty part
        pooled = model.pooled(maps, [part], size)
        texts.append(model.head(pooled)[0])
        images.append(model.image_head(pooled)[0] if model.image_head else texts[-1])
    ones = boxes_xyxy.new_ones(len(boxes_xyxy))
    return Regions(boxes_xyxy, ones, torch.cat(texts), torch.cat(images))


def best_names(boxes_xyxy: Tensor, scores: Tensor, phrases: tuple[str, ...]) -> Detections:
    """Each of the boxes (R, 4) under the name of its best score (R, K), best first."""
    if not len(boxes_xyxy):
        empty = torch.zeros(0)
        return Detections(boxes_xyxy.float(), empty, empty.long(), phrases)
    best, label = scores.max(1)
    order = best.argsort(descending=True, stable=True)
    return Detections(boxes_xyxy[order].float(), best[order], label[order], phrases)


def named(
    boxes_xyxy: Tensor, scores: Tensor, classes: Classes, options: Options, *, given: bool
) -> Detections:
    """(R, 4), (R, K) -> given boxes with their best name, or found ones without their doubles."""
    if given and options.iou is None:
        return best_names(boxes_xyxy, scores, classes.names)
    overlap = OVERLAP if options.iou is None else options.iou
    return Detections(
        *suppress(boxes_xyxy, scores, iou=overlap, top=options.most), phrases=classes.names
    )


def usable(boxes_xyxy: Tensor, image: Image.Image) -> Tensor:
    """Boxes cut off at the frame (R, 4); those of which nothing is left are dropped."""
    clipped, left = clip_boxes(boxes_xyxy.float(), image.size)
    return clipped[left]
