"""What was found against what is known to be there: average precision, hits and misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cliplab.data import Ids, Sample
from cliplab.detection.boxes import (
    Detections,
    Precision,
    average_precision,
    coco_results,
    coco_truth,
)
from cliplab.detection.finding import Found
from cliplab.detection.words import Query, match

IOU = 0.5  # from which a box counts as hit


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one picture."""

    boxes_xyxy: Tensor  # (A, 4) px
    labels: Tensor  # (A,) indices of classes; -1: nobody said what it is

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> Truth:
        """Those that a (A,) bool mask chooses."""
        return Truth(self.boxes_xyxy[keep], self.labels[keep])


@dataclass(frozen=True, eq=False)
class Judged:
    """How well N pictures with truth were done; K classes."""

    groups: Mapping[str, Precision]  # "all", and the detector's groups
    counting: Precision  # of "all" by the boxes that count as found and the source's own: of files
    classes: Mapping[int, Precision]  # of those classes that have a true box
    known: frozenset[int]  # classes that the source knows; of the others nothing can be said
    true: tuple[int, ...]  # K: boxes there are
    hit: tuple[int, ...]  # K: of them, found under their name
    counted: tuple[int, ...]  # K: boxes that count as found in the N pictures
    missed: Mapping[int, Truth]  # number of the picture -> true boxes not hit
    wrong: Mapping[int, Tensor]  # number of the picture -> (R,) bool: found, known, and not there


def judge(found: Found, query: Query, ids: Ids | None = None) -> Judged | None:
    """Average precision over all that was said, hits and misses of what counts as found.

    Args:
        found: pictures whose sources know boxes, others too; they are left out.
        ids: of the source's COCO file, with its boxes.

    Returns:
        None if no box of a class that was looked for is known.
    """
    names = query.classes.names
    index = match(query.classes, labels_of(found.pictures))
    truth = {i: _truth(one, index) for i, one in enumerate(found.pictures) if one.judged}
    true = _counts([one.labels for one in truth.values()], len(names))
    if not any(true):
        return None
    known = frozenset(index.values())
    matched = {i: hits(found.found[i], one, known) for i, one in truth.items()}
    groups, classes = _precision(found.sizes, found.said, truth, query)
    own = {i: (ids or Ids()).boxes.get(found.pictures[i].path, ()) for i in truth}
    if any(own.values()):
        written = _written(found.sizes, own, index, names)
    else:
        written = _as_coco([found.sizes[i] for i in truth], list(truth.values()), names)
    results = coco_results([found.found[i] for i in truth])
    present = [k for k, count in enumerate(true) if count]
    counting = average_precision(written, results, {"all": present})["all"]
    return Judged(
        groups, counting, classes, known, true,
        hit=_counts([one.labels[matched[i][0]] for i, one in truth.items()], len(names)),
        counted=_counts([found.found[i].labels for i in truth], len(names)),
        missed={i: one.select(~matched[i][0] & (one.labels >= 0)) for i, one in truth.items()},
        wrong={i: wrong for i, (_, wrong) in matched.items()},
    )  # fmt: skip


def labels_of(pictures: Iterable[Sample]) -> list[str]:
    """Classes of the boxes that are known, sorted."""
    return sorted({name for one in pictures for name in one.labels if name is not None})


def _truth(picture: Sample, index: Mapping[str, int]) -> Truth:
    """Boxes whose class is looked for, and as -1 those without a class."""
    kept = [a for a, name in enumerate(picture.labels) if name is None or name in index]
    labels = [-1 if (name := picture.labels[a]) is None else index[name] for a in kept]
    return Truth(torch.from_numpy(picture.boxes_xyxy[kept]), torch.tensor(labels, dtype=torch.long))


def _precision(
    sizes: Sequence[tuple[int, int]], said: Sequence[Detections], truth: Mapping[int, Truth],
    query: Query,
) -> tuple[dict[str, Precision], dict[int, Precision]]:  # fmt: skip
    """Of "all" and of the groups, and of each class; those without a true box are left out."""
    present = sorted({int(k) for one in truth.values() for k in one.labels if k >= 0})
    groups = {"all": present} | {
        name: kept for name, ks in query.groups.items() if (kept := [k for k in ks if k in present])
    }
    wanted = {f"group {name}": ks for name, ks in groups.items()}  # a class may be called "base"
    wanted |= {f"class {k}": [k] for k in present}
    data = _as_coco([sizes[i] for i in truth], list(truth.values()), query.classes.names)
    scored = average_precision(data, coco_results([said[i] for i in truth]), wanted)
    return (
        {name: scored[f"group {name}"] for name in groups},
        {k: scored[f"class {k}"] for k in present},
    )


def _as_coco(
    sizes: Sequence[tuple[int, int]], truth: Sequence[Truth], names: Sequence[str]
) -> dict[str, Any]:
    """COCO's data set; a box without a class may be found as any class, without any effect."""
    every, parts = torch.arange(len(names)), []
    for one in truth:
        sure, unsure = one.select(one.labels >= 0), one.select(one.labels < 0)
        boxes = torch.cat([sure.boxes_xyxy, unsure.boxes_xyxy.repeat_interleave(len(names), 0)])
        labels = torch.cat([sure.labels, every.repeat(len(unsure))])
        parts.append((boxes, labels, torch.arange(len(labels)) >= len(sure)))
    boxes_of, labels_of, ignored = zip(*parts, strict=True)
    return coco_truth(sizes, boxes_of, labels_of, names, ignored=ignored)


def _written(
    sizes: Sequence[tuple[int, int]], own: Mapping[int, Sequence[tuple[str, Any, bool]]],
    index: Mapping[str, int], names: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The boxes of a COCO source as it has them: they may end outside; crowds count for nothing."""
    rows = [[(box, index[k], crowd) for k, box, crowd in one if k in index] for one in own.values()]
    boxes = [torch.tensor([box for box, _, _ in one]).reshape(-1, 4) for one in rows]
    labels = [torch.tensor([k for _, k, _ in one], dtype=torch.long) for one in rows]
    crowds = [torch.tensor([crowd for _, _, crowd in one], dtype=torch.bool) for one in rows]
    return coco_truth([sizes[i] for i in own], boxes, labels, names, ignored=crowds)


def hits(found: Detections, truth: Truth, asked: frozenset[int]) -> tuple[Tensor, Tensor]:
    """(A,) bool: true boxes hit under their name; (R,) bool: found boxes of `asked` that hit none.

    As COCO does, the best found box goes first and takes the free true box of its class that it
    overlaps most. A box without a class makes what is found there neither right nor wrong.
    """
    from torchvision.ops import box_iou

    hit = torch.zeros(len(truth), dtype=torch.bool)
    wrong = torch.tensor([k in asked for k in found.labels.tolist()], dtype=torch.bool)
    if not len(truth):
        return hit, wrong
    boxes, true = found.boxes_xyxy.double(), truth.boxes_xyxy.double()
    for row in found.scores.argsort(descending=True, stable=True).tolist():
        overlap = box_iou(boxes[row, None], true)[0]  # (A,): (R, A) would be 200 MB for 5,000
        best = torch.where((truth.labels == found.labels[row]) & ~hit, overlap, -1.0)
        if float(best.max()) >= IOU:
            hit[int(best.argmax())] = True
            wrong[row] = False
        elif bool(((truth.labels < 0) & (overlap >= IOU)).any()):
            wrong[row] = False
    return hit, wrong


def _counts(labels: Sequence[Tensor], k: int) -> tuple[int, ...]:
    every = torch.cat([torch.zeros(0).long(), *labels])
    return tuple(torch.bincount(every[every >= 0], minlength=k).tolist())


# ---- numbers for each class ----------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One class, as the terminal, the page and the report show it."""

    name: str
    group: str  # such as base or novel; "" if the model has none
    boxes: int  # that count as found
    pictures: int  # with such a box
    score: float | None  # mean of these boxes
    true: int | None = None  # boxes there are, None if nothing is known
    hit: int | None = None  # of them, found
    counted: int | None = None  # boxes found in judged pictures
    ap50: float | None = None
    ap: float | None = None

    @property
    def wrong(self) -> int | None:
        """Boxes found in judged pictures that are not there."""
        return None if self.counted is None or self.hit is None else self.counted - self.hit

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fractions with 4 decimals."""
        plain = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}


def summarise(found: Found, query: Query, judged: Judged | None) -> list[Row]:
    """A row for each class, in the order of the labels."""
    rows = []
    group_of = {k: group for group, ks in query.groups.items() for k in ks}
    for k, name in enumerate(query.classes.names):
        scores = [one.scores[one.labels == k] for one in found.found]
        every = torch.cat(scores).double() if scores else torch.zeros(0)
        mean = float(every.mean()) if len(every) else None
        known: dict[str, Any] = {}
        if judged and k in judged.known:
            precision = judged.classes.get(k)
            known = {"true": judged.true[k], "hit": judged.hit[k], "counted": judged.counted[k]}
            known |= {"ap50": precision.ap50, "ap": precision.ap} if precision else {}
        pictures = sum(bool(len(one)) for one in scores)
        rows.append(Row(name, group_of.get(k, ""), len(every), pictures, mean, **known))
    return rows
