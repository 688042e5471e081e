"""The gallery of `detect`: pictures under their boxes, a table on top.

Classes are chosen by CSS alone; JavaScript adds a threshold, a search and an order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliplab import detection
from cliplab.data import shown
from cliplab.report.galleries import Heading, reasons, sentence, write_html
from cliplab.viz import box_colour, ink_on, place_tags, tag_size

MAX_BOXES = 200  # drawn on a card, the best ones; more could not be told apart
_MOST_BOXES = 16_000  # on all cards together: 10 MB
_CARD = 380  # pixels that a card's picture is wide on a usual screen, and 3/4 of it high
_FONT = 12.0  # pixels of a tag's text there


def write_gallery(
    path: Path,
    detector: detection.Detector,
    query: detection.Query,
    found: detection.Found,
    rows: Sequence[detection.Row],
    *,
    judged: detection.Judged | None,
    thumbnails: Mapping[Path, str],
    notes: Sequence[str],
    title: str,
) -> None:
    """Write the page: what was found, how well if that is known, and a card for each picture.

    Args:
        thumbnails: path of a picture -> data URI; pictures without one have no card.
        notes: what was assumed, by the detector too, and what is odd.
    """
    drawn = min(MAX_BOXES, _MOST_BOXES // max(1, len(thumbnails)))
    cards = [
        _card(found, judged, i, drawn) | {"picture": thumbnails[one.path]}
        for i, one in enumerate(found.pictures)
        if one.path in thumbnails
    ]
    said = [*notes]
    if len(cards) < len(found):
        more = f"{len(cards):,} of {len(found):,} pictures, an even sample; the JSON has all boxes"
        said.insert(0, more)
    prompt = getattr(query, "prompt", None)  # of models that read a sentence
    sentences = [sentence(note, detector.name) for note in said]
    # rounded down, so that the slider at its lowest hides nothing; 0.29 * 100 is less than 29
    least = f"{math.floor(round(found.cut.score * 100, 6)) / 100:.2f}"
    write_html(
        path, "detect.html.j2", heading=Heading(shown(title), sentences, reasons(found.unreadable)),
        detector=detector, found=found, judged=judged, rows=rows, least=least, cards=cards,
        colours=[box_colour(k) for k in range(len(rows))],
        counted="boxes", total=sum(row.boxes for row in rows),
        asked=prompt.caption if prompt else "",
    )  # fmt: skip


def _card(
    found: detection.Found, judged: detection.Judged | None, i: int, drawn: int
) -> dict[str, Any]:
    """Picture i: its best boxes with tags, those that were missed, and how many of what."""
    one, known = found.found[i], judged is not None and i in judged.missed
    missed, wrong = [], 0
    if judged is not None and known:
        gone = judged.missed[i]
        missed = list(zip(gone.boxes_xyxy.tolist(), gone.labels.tolist(), strict=True))
        wrong = int(judged.wrong[i].sum())
    tally = Counter(one.labels.tolist())
    return {
        "name": found.pictures[i].name, "size": found.sizes[i], "count": len(one),
        "held": sorted({*tally, *(k for _, k in missed)}), "tally": tally.most_common(),
        "least": float(one.scores.min()) if len(one) else 2.0,
        "judged": known, "missed": missed, "wrong": wrong,
        "tags": _tags(one, found.sizes[i], drawn),
    }  # fmt: skip


def _tags(one: detection.Detections, size: tuple[int, int], most: int) -> list[dict[str, Any]]:
    """The best boxes and where their tags go, in pixels of the picture, best first."""
    unit = max(size[0] / _CARD, size[1] / (0.75 * _CARD))  # pixels of the picture per CSS pixel
    boxes, labels = one.boxes_xyxy[:most].tolist(), one.labels[:most].tolist()
    scores = one.scores[:most].tolist()
    texts = [f"{one.phrases[k]} {score:.2f}" for k, score in zip(labels, scores, strict=True)]
    extents = [tag_size(text, _FONT * unit) for text in texts]
    corners = place_tags(boxes, extents, size)
    return [
        {"box": box, "k": k, "score": score, "text": text, "ink": ink_on(box_colour(k)),
         "x": x, "y": y, "width": width, "height": height}
        for box, k, score, text, (x, y), (width, height)
        in zip(boxes, labels, scores, texts, corners, extents, strict=True)
    ]  # fmt: skip
