"""What a ViLD of the pasture can do: all numbers of its model card, on herds never trained on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab import detection
from cliplab.classification import build_classifier, templates
from cliplab.encoders import Encoder
from cliplab.models.vild import Regions, ViLD, class_scores
from cliplab.pasture import COMBOS, HELD_OUT_PAIRS
from cliplab.training.pictures import as_floats
from cliplab.training.vild_dataset import (
    GROUPS,
    LEAST_VISIBLE,
    ViLDDataset,
    draw_herds,
    members,
    phrases,
)

# Consecutive seeds of the test split, far from those that the CLIPs are evaluated on.
STARTS = {"known": 700_000, "unseen": 800_000}
_PAIRS = [c for c in COMBOS if (c.species, c.posture) in HELD_OUT_PAIRS]
# Which heads a variant has: a single head was trained for what its variant says.
HEADS_OF = {
    "text": ("text",),
    "supervised": ("text",),
    "image": ("image",),
    "vild": ("text",),
    "ensemble": ("text", "image", "ensemble"),
}


def find_regions(model: ViLD, herds: ViLDDataset) -> list[Regions]:
    """The regions of every picture."""
    found: list[Regions] = []
    for begin in range(0, len(herds), 32):
        found += model(as_floats(herds.images[begin : begin + 32]))
    return found


def detect(
    model: ViLD, regions: Sequence[Regions], text_emb: Tensor, *, head: str = "ensemble"
) -> list[detection.Detections]:
    """Name the regions of every picture by the 20 categories (20, D) that are asked for."""
    base, names = members("base"), phrases()
    scores = (class_scores(model, one, text_emb, base, head=head).cpu() for one in regions)
    pairs = zip(regions, scores, strict=True)
    return [detection.name_boxes(one.boxes_xyxy.cpu(), score, names) for one, score in pairs]


def truth_of(herds: ViLDDataset) -> dict[str, Any]:
    """The herds as a COCO data set; animals that hardly show may be found or not."""
    _, height, width, _ = herds.images.shape
    hidden = [v < LEAST_VISIBLE for v in herds.visible]
    sizes = [(width, height)] * len(herds)
    return detection.coco_truth(sizes, herds.boxes, herds.labels, phrases(), ignored=hidden)


def proposal_recall(
    model: ViLD, regions: Sequence[Regions], herds: ViLDDataset, groups: Sequence[str]
) -> dict[str, Any]:
    """Share of animals that one of the 100 refined regions covers at IoU 0.5, whatever its name."""
    found = [r.boxes_xyxy for r in regions]
    report = {}
    for group in groups:
        true = [herds.labelled(i, members(group))[0] for i in range(len(herds))]
        report[group] = detection.box_recall(found, true, top=model.config.proposals).as_dict()
    return report


def evaluate(model: ViLD, teacher: Encoder, variant: str, *, count: int = 600) -> dict[str, Any]:
    """All metrics of a model card, on `count` pictures, half as many of the unseen pairs.

    The teacher's texts name the classes; the variant decides which heads are asked.
    """
    known = draw_herds("test", count, start=STARTS["known"])
    unseen = draw_herds("test", count // 2, start=STARTS["unseen"], combos=_PAIRS)
    rows, new = (_rows(model, teacher, variant, herds) for herds in (known, unseen))
    return {"pictures": count, "split": "test", **rows, "unseen pairs": new}


def _rows(model: ViLD, teacher: Encoder, variant: str, herds: ViLDDataset) -> dict[str, Any]:
    text_emb = build_classifier(teacher, phrases(), templates("pasture", "en"))
    regions = find_regions(model, herds)
    report: dict[str, Any] = {"recall": proposal_recall(model, regions, herds, _groups(herds))}
    for head in HEADS_OF[variant]:
        report[head] = _row(herds, detect(model, regions, text_emb, head=head))
    return report


def _groups(herds: ViLDDataset) -> list[str]:
    """The groups of which the herds show a category."""
    return [name for name, ks in GROUPS.items() if _present(herds) & set(ks)]


def _present(herds: ViLDDataset) -> set[int]:
    """Categories with an animal that shows enough to count."""
    seen = torch.cat(herds.visible) >= LEAST_VISIBLE
    return set(torch.cat(herds.labels)[seen].tolist())


def _row(herds: ViLDDataset, found: Sequence[detection.Detections]) -> dict[str, Any]:
    """COCO's numbers of each group, and AP50 of each category."""
    groups = {name: GROUPS[name] for name in _groups(herds)}
    singles = {phrases()[k]: [k] for k in sorted(_present(herds))}
    scored = detection.average_precision(
        truth_of(herds), detection.coco_results(found), {**groups, **singles}
    )
    row: dict[str, Any] = {name: scored[name].as_dict() for name in groups}
    row["AP50 by category"] = {name: round(scored[name].ap50, 4) for name in singles}
    return row
