"""What a GLIP of the pasture can do: all numbers of its model card, on herds never trained on.

Detection is asked at four levels, the species ("sheep"), the colour ("white animal"), the species
and the posture ("sheep lying down"), all of it ("white sheep lying down"), in herds of seen kinds
and in herds of kinds that no picture and no prompt of the training had. Grounding asks whether the
best box of a phrase is right: phrases with attributes, relations that tell one of several alike by
its side, and, in pairs, by the landmark that it is near.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cliplab import pasture
from cliplab.classification import rate
from cliplab.detection import GLIPDetector, average_precision, box_recall, coco_results, coco_truth
from cliplab.models.glip import GLIP
from cliplab.training.glip_dataset import (
    LANGUAGES,
    NAMED,
    UNNAMED,
    GLIPDataset,
    draw_few_kinds,
    draw_herds,
    normalised,
    pair_of,
    to_prompt,
)

# Consecutive seeds of a split, far from those of other evaluations.
STARTS = {"seen": 2_000_000, "held-out": 2_100_000, "few kinds": 2_200_000}
HELD_OUT = tuple(c for c in (*pasture.HELD_OUT_TRIPLES, *pasture.PAIR_COMBOS) if c.species in NAMED)
LEVELS: dict[str, tuple[pasture.Words, ...]] = {
    "species": tuple(pasture.Words(s) for s in NAMED),
    "colour": tuple(pasture.Words(colour=c) for c in pasture.COLOURS),
    "species, posture": tuple(pasture.Words(s, p) for s in NAMED for p in pasture.POSTURES),
    "species, posture, colour": tuple(
        pasture.Words(s, p, c) for s in NAMED for p in pasture.POSTURES for c in pasture.COLOURS
    ),
}
_BATCH = 25  # pictures at a time


def evaluate(model: GLIP, *, count: int = 200) -> dict[str, Any]:
    """All metrics of a model card, on `count` herds of seen and as many of held-out kinds.

    Phrases are grounded in three times as many of seen kinds: only half of them allow a relation.
    """
    sets = {
        "seen": draw_herds("test", 3 * count, start=STARTS["seen"]),
        "held-out": draw_herds("test", count, start=STARTS["held-out"], combos=HELD_OUT),
    }
    report: dict[str, Any] = {"pictures": count, "split": "test", "detection": {}, "grounding": {}}
    for name, herds in sets.items():
        some = herds.first(count)
        report["detection"][name] = {
            x: {level: ap_row(model, some, words, x) for level, words in LEVELS.items()}
            for x in LANGUAGES
        }
        report["grounding"][name] = {x: grounding_rows(model, herds, x) for x in LANGUAGES}
    seen = sets["seen"].first(count)
    report["species without a name"] = {x: unnamed_row(model, seen, x) for x in LANGUAGES}
    few = draw_few_kinds("test", 5 * count, start=STARTS["few kinds"])
    report["near"] = {x: near_rows(model, few, x) for x in LANGUAGES}
    return report


# ---- detection -----------------------------------------------------------------------------


def ap_row(
    model: GLIP, herds: GLIPDataset, asked: Sequence[pasture.Words], language: str
) -> dict[str, float | int]:
    """COCO's AP of the descriptions, asked as one class list; those that occur are averaged."""
    names = [pasture.say(words, language) for words in asked]
    found = GLIPDetector(model, batch_size=_BATCH).detect(pictures(herds), names)
    truth = truth_of(herds, asked, names)
    present = sorted({a["category_id"] - 1 for a in truth["annotations"] if not a["iscrowd"]})
    return average_precision(truth, coco_results(found), {"all": present})["all"].as_dict()


def pictures(herds: GLIPDataset) -> Iterator[Image.Image]:
    """The herds as PIL images."""
    return (Image.fromarray(image) for image in herds.images)


def truth_of(
    herds: GLIPDataset, asked: Sequence[pasture.Words], names: Sequence[str]
) -> dict[str, Any]:
    """The herds as a COCO data set; animals that hardly show may be found or not."""
    rows = [fitting(annotated, asked) for annotated in herds.annotations]
    boxes, labels, ignored = ([row[i] for row in rows] for i in range(3))
    height, width = herds.images.shape[1:3]
    return coco_truth([(width, height)] * len(herds), boxes, labels, names, ignored=ignored)


def fitting(
    annotated: pasture.Annotations, asked: Sequence[pasture.Words]
) -> tuple[Tensor, Tensor, Tensor]:
    """Things of a picture under each description that is true of them.

    Returns:
        Boxes (A, 4) px, indices of descriptions (A,), and whether they hardly show (A,) bool.
    """
    rows = [
        (thing.box, k, bool(hidden))
        for hidden, part in enumerate(annotated)
        for thing in part
        for k, words in enumerate(asked)
        if thing.fits(words)
    ]
    boxes = torch.tensor([box for box, _, _ in rows]).view(-1, 4)
    labels = torch.tensor([k for _, k, _ in rows], dtype=torch.long)
    return boxes, labels, torch.tensor([hidden for _, _, hidden in rows], dtype=torch.bool)


def unnamed_row(model: GLIP, herds: GLIPDataset, language: str) -> dict[str, Any]:
    """Species that training called animals only: asked by name, and found as animals."""
    asked = [pasture.Words(species) for species in (*NAMED, *UNNAMED)]
    names = [pasture.say(words, language) for words in asked]
    found = GLIPDetector(model, batch_size=_BATCH).detect(pictures(herds), names)
    truth = truth_of(herds, asked, names)
    labelled = {a["category_id"] - 1 for a in truth["annotations"] if not a["iscrowd"]}
    groups = {s: [k] for k, (s, _, _) in enumerate(asked) if s in UNNAMED and k in labelled}
    scored = average_precision(truth, coco_results(found), groups)
    animals = GLIPDetector(model, batch_size=_BATCH).detect(
        pictures(herds), [pasture.say(pasture.Words(), language)]
    )
    true = [
        torch.tensor([t.box for t in annotated.things if t.kind in UNNAMED]).view(-1, 4)
        for annotated in herds.annotations
    ]
    boxes = [one.above(0.3).boxes_xyxy for one in animals]
    return {
        "AP50 by name": {species: round(row.ap50, 4) for species, row in scored.items()},
        "found as animals, score 0.3": box_recall(boxes, true).as_dict(),
    }


# ---- grounding -----------------------------------------------------------------------------


class Asked(NamedTuple):
    """A prompt about one picture of a dataset."""

    picture: int
    annotated: pasture.Annotations
    said: pasture.Grounded


def grounding_rows(model: GLIP, herds: GLIPDataset, language: str) -> dict[str, Any]:
    """Share of phrases whose best box is right (R@1, IoU 0.5): attributes, and relations.

    "by prop" and "by animal" split the relations by what their landmark is. "relation unsaid" asks
    for the same phrase alone: what the words without the relation are worth. "chance" is one over
    the number of things that these words are true of, in the mean.
    """
    attributes = ask_about(herds, language, "attributes")
    hits = right_boxes(model, herds, attributes)
    judged = [
        (hit, pasture.is_held_out(words))
        for one, found in zip(attributes, hits, strict=True)
        for hit, words in zip(found, one.said.words, strict=True)
    ]
    row: dict[str, Any] = {}
    for name, new in (("attributes", False), ("attributes, held-out phrases", True)):
        some = [hit for hit, is_new in judged if is_new is new]
        if some:
            row[name] = rate(some).as_dict()
    return row | relation_rows(model, herds, language)


def relation_rows(model: GLIP, herds: GLIPDataset, language: str) -> dict[str, Any]:
    """R@1 of the thing that a relation tells from others alike."""
    asked = ask_about(herds, language, "relation")
    if not asked:
        return {}
    hits = [hit[0] for hit in right_boxes(model, herds, asked)]
    alone = [hit[0] for hit in right_boxes(model, herds, [_unsaid(one) for one in asked])]
    by_prop = [not one.annotated.things[one.said.things[1][0]].is_animal for one in asked]
    some = {
        "by prop": [h for h, p in zip(hits, by_prop, strict=True) if p],
        "by animal": [h for h, p in zip(hits, by_prop, strict=True) if not p],
    }
    return {
        "relation": rate(hits).as_dict(),
        **{f"relation, {name}": rate(part).as_dict() for name, part in some.items() if part},
        "relation unsaid": rate(alone).as_dict(),
        "relation, chance": round(float(np.mean([1 / _alike(one) for one in asked])), 4),
    }


def near_rows(model: GLIP, herds: GLIPDataset, language: str) -> dict[str, Any]:
    """R@1 of the one that is near a landmark, each asked with either of two landmarks.

    The two that are meant look alike, so that a rule which does not look where the landmark is
    gives one answer twice: it is right in one of the two at best, and never in "both". "chance" as
    in `grounding_rows`. Ask about `draw_few_kinds`; others have hardly a pair.
    """
    asked = ask_about(herds, language, "near")
    if not asked:
        return {}
    hits = [hit[0] for hit in right_boxes(model, herds, asked)]
    both = [one and other for one, other in zip(hits[::2], hits[1::2], strict=True)]
    return {
        "each": rate(hits).as_dict(),
        "both": rate(both).as_dict(),
        "chance": round(float(np.mean([1 / _alike(one) for one in asked])), 4),
    }


def _alike(one: Asked) -> int:
    """How many things the first phrase is true of, without the relation and its landmark."""
    return len(set(one.annotated.meant(one.said.words[0])) - set(one.said.things[1]))


def _unsaid(one: Asked) -> Asked:
    """The first phrase by itself, still meaning the one thing."""
    said, phrase = one.said, one.said.phrases[0]
    alone = pasture.Grounded(
        phrase, ((0, len(phrase)),), said.words[:1], said.things[:1], "attributes"
    )
    return one._replace(said=alone)


def ask_about(herds: GLIPDataset, language: str, family: str) -> list[Asked]:
    """A prompt of a family about every picture that allows one; of "near" two in a row."""
    asked = []
    for index, annotated in enumerate(herds.annotations):
        dice = pasture.Dice("glip exam", family, language, index)
        said: tuple[pasture.Grounded | None, ...]
        if family == "near":
            said = pair_of(annotated, language, dice, width=herds.width) or ()
        elif family == "relation":
            said = (
                pasture.relation(annotated, language, dice, width=herds.width, unnamed=UNNAMED),
            )
        else:
            said = (pasture.sentence(annotated, language, dice, unnamed=UNNAMED),)
        asked += [Asked(index, annotated, one) for one in said if one is not None]
    return asked


@torch.no_grad()
def right_boxes(model: GLIP, herds: GLIPDataset, asked: Sequence[Asked]) -> list[list[bool]]:
    """Whether the best box of each phrase overlaps a thing that it means by half."""
    from torchvision.ops import box_iou

    hits = []
    for begin in range(0, len(asked), _BATCH):
        some = asked[begin : begin + _BATCH]
        for one, boxes in zip(some, best_boxes(model, herds, some), strict=True):
            true = [torch.tensor([one.annotated.things[i].box for i in t]) for t in one.said.things]
            pairs = zip(boxes, true, strict=True)
            hits.append([bool((box_iou(b[None], t.view(-1, 4)) >= 0.5).any()) for b, t in pairs])
    return hits


def best_boxes(model: GLIP, herds: GLIPDataset, asked: Sequence[Asked]) -> list[Tensor]:
    """For each prompt the best box of each phrase, (K, 4) px, half-open."""
    images = herds.images[[one.picture for one in asked]]
    prompts = [to_prompt(one.said) for one in asked]
    return GLIPDetector(model).ground(normalised(images, model.config), prompts)
