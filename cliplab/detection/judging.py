"""What was found against what is known to be there: average precision, hits and misses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.cli.detect.words import match
from cliplab.detection.boxes import (
    Detections,
    Precision,
    average_precision,
    coco_results,
    coco_truth,
)
from cliplab.detection.finding import Found
from cliplab.detection.pictures import Picture

IOU = 0.5  # from which a box counts as hit


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one picture."""

    boxes_xyxy: Tensor  # (A, 4) px
    labels: Tensor  # (A,) indices of classes; -1: nobody said what it is

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Judged:
    """How well N pictures with truth were done; K classes."""

    rows: tuple[int, ...]  # N numbers of pictures among those found
    groups: Mapping[str, Precision]  # "all", and the detector's groups
    classes: Mapping[int, Precision]  # of those classes that have a true box
    known: frozenset[int]  # classes that the source knows; of the others nothing can be said
    true: tuple[int, ...]  # K: boxes there are
    hit: tuple[int, ...]  # K: of them, found under their name
    counted: tuple[int, ...]  # K: boxes that count as found in the N pictures
    missed: Mapping[int, Truth]  # number of the picture -> true boxes not hit
    wrong: Mapping[int, Tensor]  # number of the picture -> (R,) bool: found, known, and not there


def truth_of(pictures: Sequence[Picture], classes: Classes) -> list[Truth | None]:
    """For each picture the boxes whose class is looked for, None where nothing is known.

    Boxes of classes that nobody asked for are left out; boxes without a class are kept as -1.
    All is None if no class of the source is a label.
    """
    index = _index(pictures, classes)
    if not index:
        return [None] * len(pictures)
    truth: list[Truth | None] = []
    for one in pictures:
        if not one.judged:
            truth.append(None)
            continue
        kept = [a for a, name in enumerate(one.labels) if name is None or name in index]
        labels = [-1 if (name := one.labels[a]) is None else index[name] for a in kept]
        truth.append(Truth(one.boxes_xyxy[kept], torch.tensor(labels, dtype=torch.long)))
    return truth


def _index(pictures: Sequence[Picture], classes: Classes) -> dict[str, int]:
    """Class of the source -> the label that means it."""
    return match(classes, sorted({n for one in pictures for n in one.labels if n is not None}))


def judge(
    found: Found, classes: Classes, groups: Mapping[str, Sequence[int]] | None = None
) -> Judged | None:
    """Average precision over all that was said, hits and misses of what counts as found.

    Args:
        found: pictures whose sources know boxes, others too; they are left out.
        classes: that were looked for.
        groups: such as base and novel: indices of classes.

    Returns:
        None if no box of a class that was looked for is known.
    """
    truth = truth_of(found.pictures, classes)
    known = {i: one for i, one in enumerate(truth) if one is not None}
    true = _counts([one.labels for one in known.values()], len(classes.names))
    if not any(true):
        return None
    asked = frozenset(_index(found.pictures, classes).values())
    hits = {i: _hits(found.found[i], one, asked) for i, one in known.items()}
    precision = _precision(found, known, classes.names, groups or {})
    return Judged(
        rows=tuple(known),
        groups={key: value for key, value in precision.items() if isinstance(key, str)},
        classes={key: value for key, value in precision.items() if isinstance(key, int)},
        known=asked,
        true=true,
        hit=_counts([one.labels[hits[i][0]] for i, one in known.items()], len(true)),
        counted=_counts([found.found[i].labels for i in known], len(true)),
        missed={i: _missed(one, hits[i][0]) for i, one in known.items()},
        wrong={i: wrong for i, (_, wrong) in hits.items()},
    )


def _missed(truth: Truth, hit: Tensor) -> Truth:
    kept = ~hit & (truth.labels >= 0)
    return Truth(truth.boxes_xyxy[kept], truth.labels[kept])


def _precision(
    found: Found,
    known: Mapping[int, Truth],
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
) -> dict[str | int, Precision]:
    """Of "all", of the groups, and of each class, those without a true box left out."""
    present = sorted({int(k) for one in known.values() for k in one.labels if k >= 0})
    wanted: dict[str | int, list[int]] = {"all": present}
    wanted |= {
        name: kept for name, ks in groups.items() if (kept := [k for k in ks if k in present])
    }
    wanted |= {k: [k] for k in present}
    data = _as_coco([found.sizes[i] for i in known], list(known.values()), names)
    results = coco_results([found.said[i] for i in known])
    keys = {f"{type(key).__name__} {key}": key for key in wanted}  # a class may be called "base"
    scored = average_precision(data, results, {text: wanted[key] for text, key in keys.items()})
    return {key: scored[text] for text, key in keys.items()}


def _as_coco(
    sizes: Sequence[tuple[int, int]], known: Sequence[Truth], names: Sequence[str]
) -> dict[str, Any]:
    """COCO's data set; a box without a class may be found as any class, without any effect."""
    boxes, labels, ignored = [], [], []
    every = torch.arange(len(names))
    for one in known:
        unsure = one.boxes_xyxy[one.labels < 0]  # (U, 4)
        sure = one.labels >= 0
        boxes.append(torch.cat([one.boxes_xyxy[sure], unsure.repeat_interleave(len(names), 0)]))
        labels.append(torch.cat([one.labels[sure], every.repeat(len(unsure))]))
        flags = torch.ones(len(labels[-1]), dtype=torch.bool)
        flags[: int(sure.sum())] = False
        ignored.append(flags)
    return coco_truth(sizes, boxes, labels, names, ignored=ignored)


def _hits(found: Detections, truth: Truth, asked: frozenset[int]) -> tuple[Tensor, Tensor]:
    """(A,) bool: true boxes hit under their name; (R,) bool: found boxes of `asked` that hit none.

    As COCO does, the best found box goes first and takes the free true box of its class that it
    overlaps most. A box without a class makes what is found there neither right nor wrong.
    """
    from torchvision.ops import box_iou

    hit = torch.zeros(len(truth.labels), dtype=torch.bool)
    wrong = torch.tensor([k in asked for k in found.labels.tolist()], dtype=torch.bool)
    if not len(hit) or not len(found):
        return hit, wrong
    boxes, true = found.boxes_xyxy.double(), truth.boxes_xyxy.double()
    for row in found.scores.argsort(descending=True, stable=True).tolist():
        overlap = box_iou(boxes[row, None], true)[0]  # (A,): (R, A) would be 200 MB for 5,000
        free = (truth.labels == found.labels[row]) & ~hit
        best = torch.where(free, overlap, -1.0)
        if float(best.max()) >= IOU:
            hit[int(best.argmax())] = True
            wrong[row] = False
        elif bool(((truth.labels < 0) & (overlap >= IOU)).any()):
            wrong[row] = False
    return hit, wrong


def _counts(labels: Sequence[Tensor], k: int) -> tuple[int, ...]:
    every = torch.cat([torch.zeros(0).long(), *labels])
    return tuple(torch.bincount(every[every >= 0], minlength=k).tolist())
