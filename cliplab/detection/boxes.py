"""Boxes: what a detector says, what of that counts, and how well boxes were found.

Boxes are (R, 4) float tensors x0, y0, x1, y1 in pixels, half-open: a box covers the pixels from x0
up to but not including x1. COCO's boxes are x, y, width, height.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cliplab.classification import Rate, rate
from cliplab.detection.settings import MOST, OVERLAP, SCORE

_PAIRS = 1000  # of a box and a name that are looked at, so that memory stays bounded
_LEAST = 1e-4  # score of a detection that AP looks at


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first."""

    boxes_xyxy: Tensor  # (R, 4) px of the picture, half-open
    scores: Tensor  # (R,) 0 to 1
    labels: Tensor  # (R,) long, indices into `phrases`
    phrases: tuple[str, ...]  # K, what was looked for

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    @property
    def names(self) -> list[str]:
        """The phrase of each box."""
        return [self.phrases[k] for k in self.labels.tolist()]

    def select(self, keep: Tensor) -> Detections:
        """Those that a (R,) bool mask or indices choose."""
        parts = (self.boxes_xyxy[keep], self.scores[keep], self.labels[keep])
        return Detections(*parts, phrases=self.phrases)

    def above(self, score: float) -> Detections:
        """Those with at least this score."""
        return self.select(self.scores >= score)


def postprocess(
    found: Detections, *, score: float = SCORE, iou: float | None = OVERLAP,
    top: int | None = MOST, nested: Tensor | None = None,
) -> Detections:  # fmt: skip
    """What counts of a picture's detections, best first.

    Args:
        found: best first.
        score: least score.
        iou: of two boxes that overlap more the weaker one goes (non-maximum suppression); None:
            all stay.
        top: boxes that stay; None: all.
        nested: (K, K) bool, pairs of names whose boxes never suppress each other.
    """
    from torchvision.ops import nms

    found = found.above(score)
    if iou is not None and nested is not None and nested.any():
        found = _without_doubles(found, iou, nested)
    elif iou is not None:
        found = found.select(nms(found.boxes_xyxy, found.scores, iou))
    return found.select(torch.arange(len(found))[:top])


def _without_doubles(found: Detections, iou: float, nested: Tensor) -> Detections:
    """Non-maximum suppression in which boxes of nested names stay together."""
    from torchvision.ops import box_iou

    same = box_iou(found.boxes_xyxy, found.boxes_xyxy) > iou
    same &= ~nested[found.labels][:, found.labels]
    keep = torch.ones(len(found), dtype=torch.bool)
    for row in range(len(found)):
        keep[row + 1 :] &= ~(same[row, row + 1 :] & keep[row])
    return found.select(keep)


def name_boxes(
    boxes_xyxy: Tensor, scores: Tensor, phrases: Sequence[str], *,
    iou: float | None = OVERLAP, top: int = MOST,
) -> Detections:  # fmt: skip
    """Boxes (R, 4) under the names whose scores (R, K) are best, unlikely ones too, best first.

    A box may come back under several names, as COCO's AP expects, without its doubles of one name.
    With no `iou` each box is kept, under its best name.
    """
    from torchvision.ops import batched_nms

    if iou is None:
        best, label = scores.max(1)
        order = best.argsort(descending=True, stable=True)
        return Detections(boxes_xyxy[order].float(), best[order], label[order], tuple(phrases))
    flat = scores.flatten()
    pairs = flat.topk(min(_PAIRS, flat.numel())).indices
    pairs = pairs[flat[pairs] >= _LEAST]
    rows, labels = pairs // len(phrases), pairs % len(phrases)
    found = Detections(boxes_xyxy[rows].float(), flat[pairs], labels, tuple(phrases))
    return found.select(batched_nms(found.boxes_xyxy, found.scores, labels, iou)[:top])


# ---- boxes ---------------------------------------------------------------------------------


def clip_boxes(boxes_xyxy: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut boxes off at the frame: (R, 4) -> (R, 4), and (R,) bool: something of it is left.

    Args:
        boxes_xyxy: in pixels; they may reach out of the picture or lie outside.
        size: width and height of the picture in pixels, as PIL gives them.
    """
    width, height = size
    limit = torch.tensor([width, height, width, height], dtype=boxes_xyxy.dtype)
    clipped = torch.minimum(boxes_xyxy.clamp(min=0), limit)
    return clipped, (clipped[:, 2:] > clipped[:, :2]).all(1)


def expand_boxes(boxes_xyxy: Tensor, scale: float) -> Tensor:
    """Boxes `scale` times as wide and high about their centres; 1 is the identity.

    ViLD's second crop is 1.5 times the box: a quarter of its width and height more on each side.
    """
    margin = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * (scale - 1) / 2  # (R, 2)
    return boxes_xyxy + torch.cat([-margin, margin], dim=1)


# ---- COCO ----------------------------------------------------------------------------------


def coco_truth(
    sizes: Sequence[tuple[int, int]], boxes_xyxy: Sequence[Tensor], labels: Sequence[Tensor],
    names: Sequence[str], *, ignored: Sequence[Tensor] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Labelled pictures as a COCO data set; ids count from 1, category k + 1 is `names[k]`.

    Args:
        sizes: (width, height) of N pictures.
        boxes_xyxy: N tensors (A, 4).
        labels: N tensors (A,) of indices into names.
        names: K.
        ignored: N bool tensors (A,): boxes that may be found or not, without any effect.
    """
    images = [{"id": n + 1, "width": w, "height": h} for n, (w, h) in enumerate(sizes)]
    annotations: list[dict[str, Any]] = []
    for n, (boxes, classes) in enumerate(zip(boxes_xyxy, labels, strict=True)):
        flags = ignored[n].tolist() if ignored is not None else [False] * len(boxes)
        for box, k, flag in zip(boxes.tolist(), classes.tolist(), flags, strict=True):
            shape = _coco_box(box)
            annotations.append({
                "id": len(annotations) + 1, "image_id": n + 1, "category_id": k + 1,
                "bbox": shape, "area": round(shape[2] * shape[3], 3), "iscrowd": int(flag),
                "segmentation": [],  # datumaro and CVAT ask for one, and for licences
            })  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(names)]
    lists = {"images": images, "annotations": annotations, "categories": categories}
    return {"info": {}, "licenses": [], **lists}


def coco_results(found: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections of N pictures as COCO results, with the ids of `coco_truth`."""
    return [
        {"image_id": n + 1, "category_id": k + 1, "bbox": _coco_box(box), "score": score}
        for n, one in enumerate(found)
        for box, k, score in zip(
            one.boxes_xyxy.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True
        )
    ]


def _coco_box(box_xyxy: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = (round(float(v), 3) for v in box_xyxy)
    return [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)]


# ---- how well ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Precision:
    """COCO's numbers, 0 to 1, means over some categories that occur in the truth."""

    ap: float  # mean over IoU 0.5, 0.55, ..., 0.95
    ap50: float  # at IoU 0.5
    ar: float  # recall with 100 detections, mean over the same IoUs
    categories: int

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON, rounded to 4 decimals."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def average_precision(
    truth: dict[str, Any], results: list[dict[str, Any]], groups: Mapping[str, Sequence[int]]
) -> dict[str, Precision]:
    """COCO's AP, AP50 and AR through pycocotools, for groups of categories such as base and novel.

    Args:
        truth: a COCO data set, as `coco_truth` makes it.
        results: COCO results; none at all count as nothing found.
        groups: name -> indices into the data set's categories, from 0.

    Raises:
        ValueError: a group of which no category occurs in the truth.
    """
    precision, recall = _coco_eval(truth, results)  # (T, P, K), (T, K); -1 where there is no truth
    report = {}
    for name, members in groups.items():
        kept = [k for k in members if recall[0, k] >= 0]
        if not kept:
            raise ValueError(f"group {name!r}: none of its {len(members)} categories has a box")
        ap, ap50 = precision[:, :, kept].mean(), precision[0][:, kept].mean()
        report[name] = Precision(float(ap), float(ap50), float(recall[:, kept].mean()), len(kept))
    return report


def _coco_eval(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Any, Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its own progress
        data = COCO()
        data.dataset = truth
        data.createIndex()
        # loadRes cannot read an empty list; a box without score changes nothing but is one.
        nothing = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 0], "score": 0.0}
        judged = COCOeval(data, data.loadRes(results or [nothing]), "bbox")
        judged.evaluate()
        judged.accumulate()
    # all areas, 100 detections
    return judged.eval["precision"][:, :, :, 0, 2], judged.eval["recall"][:, :, 0, 2]


def box_recall(
    proposals: Sequence[Tensor], boxes_xyxy: Sequence[Tensor], *, iou: float = 0.5, top: int = 100
) -> Rate:
    """Share of true boxes that one of the best `top` proposals of their picture overlaps enough.

    Args:
        proposals: N tensors (R, 4), best first.
        boxes_xyxy: N tensors (A, 4).
        iou: intersection over union that counts as found.
        top: proposals of a picture that are looked at.
    """
    from torchvision.ops import box_iou

    hits = [
        (box_iou(true.double(), found[:top].double()) >= iou).any(1)
        for found, true in zip(proposals, boxes_xyxy, strict=True)
    ]
    return rate(torch.cat(hits))
