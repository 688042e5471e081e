"""The gallery of `segment`: pictures beside their labels, a table on top.

Each label of a picture is a layer of its own, so that CSS alone can show one of them; JavaScript
adds the strength of the colours, a search and an order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data import UnreadableImage, resized, shown
from cliplab.report import galleries
from cliplab.segmentation import IGNORE, Judge, LabelRow, PictureRow, Settings, percent
from cliplab.viz import rgb

_MAX_REFUSED = 20  # masks that were refused, named on the page; the JSON report lists all


@dataclass(frozen=True)
class Answer:
    """What a run found, as the page shows it."""

    title: str
    model: str
    groups: int | None  # of the model
    settings: Settings
    pictures: Sequence[PictureRow]
    rows: Sequence[LabelRow]
    judge: Judge
    notes: Sequence[str]
    remarks: Sequence[str]
    unreadable: Sequence[UnreadableImage]


@dataclass(frozen=True)
class Card:
    """What a page needs of one picture."""

    picture: str  # data URI of the thumbnail
    found: Mapping[int, str]  # label -> data URI of its layer
    true: Mapping[int, str]  # the same of the truth; {} if that is not known


def make_card(
    image: Image.Image,
    labels: NDArray[np.uint8],
    colours: Sequence[str],
    *,
    side: int,
    true: NDArray[np.uint8] | None = None,
) -> Card:
    """The thumbnail, at most `side` pixels long, and a layer for each label (H, W) of it."""
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    found = _layers(resized(labels, small.size), colours)
    known = {} if true is None else _layers(resized(true, small.size), colours)
    return Card(galleries.thumbnail(small, size=side), found, known)


def _layers(labels: NDArray[np.uint8], colours: Sequence[str]) -> dict[int, str]:
    """Label -> its pixels in its colour, all others clear, as a PNG; the background is a veil."""
    found = {}
    for k in (k for k in np.unique(labels).tolist() if k != IGNORE):
        image = Image.fromarray((labels == k).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, *rgb(colours[k])])
        found[k] = galleries.data_uri(image, "png", bits=1, transparency=0, optimize=True)
    return found


def write_gallery(path: Path, answer: Answer, cards: Mapping[Path, Card]) -> None:
    """Write the page: what was found, how well if that is known, and a card for each picture."""
    order = [one for one in answer.pictures if one.path in cards]
    refused = [str(problem) for problem in answer.judge.refused]
    notes = [*answer.remarks, *answer.notes, *refused[:_MAX_REFUSED]]
    if (n := len(answer.pictures)) > len(order):
        notes.insert(0, f"{len(order):,} of {n:,} pictures, an even sample; the folder has all")
    heading = galleries.Heading(
        shown(answer.title),
        [galleries.sentence(note, answer.model) for note in notes],
        galleries.reasons(answer.unreadable),
    )
    galleries.write_html(
        path, "segment.html.j2", heading=heading, answer=answer, rows=answer.rows,
        colours=[row.colour for row in answer.rows], counted="pictures", total=n,
        quality=answer.judge.quality, judged=answer.judge.pictures,
        cards=[_numbers(one, cards[one.path], answer.judge) for one in order],
    )  # fmt: skip


def _numbers(one: PictureRow, card: Card, judge: Judge) -> dict[str, Any]:
    """What a card says of its picture: how much there is of what, the largest first."""
    order = sorted((k for k, share in enumerate(one.shares) if share), key=lambda k: -one.shares[k])
    return {
        "name": one.name, "groups": one.groups, "card": card, "iou": judge.pictures.get(one.path),
        "held": sorted({*order, *card.true}),
        "shares": [(k, one.shares[k], percent(one.shares[k])) for k in order],
        "numbers": json.dumps({k: round(one.shares[k], 4) for k in order}),
    }  # fmt: skip
