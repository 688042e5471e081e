"""The gallery of `segment`: pictures beside their labels as one HTML file, a table on top.

It asks nothing of the network. Each label of a picture is a layer of its own, so that CSS alone
can show one of them; JavaScript adds the strength of the colours, a search and an order. Whatever
a file or a label is called is shown, never interpreted.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.cli.detect_page_parts import STYLE as BOX_STYLE
from cliplab.data import UnreadableImage, resized, shown
from cliplab.report.classification_page import sentence
from cliplab.report.gallery import thumbnail
from cliplab.report.gallery.page import STYLE as GALLERY_STYLE
from cliplab.report.gallery.write import notes_section, unreadable_section
from cliplab.report.segmentation_parts import FOOTER, JUDGED, PAGE, SCRIPT, STYLE, label_rules
from cliplab.report.segmentation_tables import dot, panel
from cliplab.runtime import atomic_write
from cliplab.segmentation import IGNORE, Judge, LabelRow, PictureRow, Settings, percent
from cliplab.viz.segmentation import NOTHING, rgb

MAX_REFUSED = 20  # masks that were refused, named on the page

MAX_CARDS = 600  # 20 to 60 KB each
_FEW, _LARGE, _SMALL = 200, 480, 280  # up to _FEW cards have thumbnails _LARGE pixels long
_STICKY = 12  # labels up to which the chips stay in view
_MAX_CHIPS = 40  # labels that can be chosen; more would fill the screen


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


def choose_pictures(paths: Sequence[Path]) -> tuple[set[Path], int]:
    """Which pictures get a card, an even sample if there are many, and how long it is in pixels."""
    n = len(paths)
    chosen = set(paths) if n <= MAX_CARDS else {paths[i * n // MAX_CARDS] for i in range(MAX_CARDS)}
    return chosen, _LARGE if len(chosen) <= _FEW else _SMALL


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
    found = layers(resized(labels, small.size), colours)
    known = {} if true is None else layers(resized(true, small.size), colours)
    return Card(thumbnail(small, size=side), found, known)


def layers(labels: NDArray[np.uint8], colours: Sequence[str]) -> dict[int, str]:
    """Label -> its pixels in its colour, all others clear, as a PNG inside a data URI.

    The background has a layer of its own, too: a dark veil.
    """
    found = {}
    for k in (k for k in np.unique(labels).tolist() if k != IGNORE):
        image = Image.fromarray((labels == k).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, *rgb(colours[k])])
        file = io.BytesIO()
        image.save(file, "PNG", bits=1, transparency=0, optimize=True)
        found[k] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return found


# ---- the page ------------------------------------------------------------------------------


def write_gallery(path: Path, answer: Answer, cards: Mapping[Path, Card]) -> None:
    """Write the page."""
    with atomic_write(path, "w") as file:
        file.write(gallery_html(answer, cards))


def gallery_html(result: Answer, cards: Mapping[Path, Card]) -> str:
    """The page: what was found, how well if that is known, and a card for each picture."""
    found, rows, judged = result.pictures, result.rows, result.judge.quality
    order = [i for i, one in enumerate(found) if one.path in cards]
    refused = result.judge.refused
    notes = [*result.remarks, *result.notes, *refused[:MAX_REFUSED]]
    if (more := len(refused) - MAX_REFUSED) > 0:
        notes.append(f"... and {more} more masks that were refused; --json lists all")
    if len(order) < len(found):
        notes.insert(0, f"{len(order):,} of {len(found):,} pictures, an even sample; "
                        "--out FOLDER has all")  # fmt: skip
    unreadable = {shown(e.path): f"{e.cause}; {e.remedy}" for e in result.unreadable}
    bad = '<option value="bad">lowest IoU first</option><option value="good">highest IoU first'
    return PAGE.format(
        title=escape(result.title),
        style=GALLERY_STYLE + BOX_STYLE + STYLE + label_rules(min(len(rows), _MAX_CHIPS)),
        script=SCRIPT,
        facts=_facts(result),
        notes=notes_section([sentence(note, result.model) for note in notes]),
        radios=_radios(len(rows)),
        panel=panel(rows, result.judge),
        chips=_chips(result),
        many=" many" if len(rows) > _STICKY else "",
        orders=f"{bad}</option>" if judged else "",
        judged=" judged" if judged else "",
        cards="\n".join(
            _card(result, i, rank, cards[found[i].path]) for rank, i in enumerate(order)
        ),
        unreadable=unreadable_section(unreadable),
        footer=FOOTER + (JUDGED if judged else ""),
    )


def _facts(result: Answer) -> str:
    facts = {"pictures": f"{len(result.pictures):,}", "model": result.model}
    if result.groups:
        facts["groups"] = str(result.groups)
    if (threshold := result.settings.threshold) is not None:
        facts["background below"] = f"{threshold:g}"
    if steps := result.settings.refine:
        facts["refined in"] = f"{steps} steps"
    facts["prompts"] = ", ".join(result.settings.templates)
    said = [f"{escape(key)} <b>{escape(value)}</b>" for key, value in facts.items()]
    return " &middot; ".join(said)


def _radios(k: int) -> str:
    """One radio button for all and one for each label; CSS does what they say."""
    values = ["all", *map(str, range(min(k, _MAX_CHIPS)))]
    checked = {"all": " checked"}
    return "".join(
        f'<input class="pick" type="radio" name="class" id="c-{v}"{checked.get(v, "")}>\n'
        for v in values
    )


def _chips(result: Answer) -> str:
    """What can be chosen, with the number of pictures that have it."""
    count = f'<span class="count">{len(result.pictures)}</span>'
    chips = [f'<label class="chip" for="c-all">all{count}</label>']
    for row in result.rows[:_MAX_CHIPS]:
        count = f'<span class="count">{row.pictures}</span>'
        chips.append(
            f'<label class="chip" for="c-{row.index}">{dot(row.colour)}{escape(row.name)}{count}'
            "</label>"
        )
    return "".join(chips)


# ---- cards ---------------------------------------------------------------------------------


def _card(result: Answer, i: int, rank: int, card: Card) -> str:
    """Picture i: the thumbnail, the same under its labels, and how much there is of what."""
    picture = result.pictures[i]
    shares = picture.shares
    order = [k for k in sorted(range(len(shares)), key=lambda k: -shares[k]) if shares[k] > 0]
    held = "".join(f" h{k}" for k in sorted({*order, *card.true}))
    value = result.judge.pictures.get(picture.path)
    name, iou = escape(picture.name), "" if value is None else f"{value:.4f}"
    numbers = escape(json.dumps({k: round(shares[k], 4) for k in order}))
    judged = "" if value is None else f" &middot; mean IoU <b>{value:.1%}</b>"
    tiles = f'<figure class="tile" role="img" aria-label="{name}"></figure>'
    tiles += _tile(card.found, "found", f"labels of {picture.name}")
    tiles += _tile(card.true, "truth", f"true labels of {picture.name}") if card.true else ""
    return f"""<li class="card{held}" data-rank="{rank}" data-iou="{iou}"
 data-groups="{picture.groups}" data-shares="{numbers}" data-name="{escape(picture.name.lower())}"
 style="--p:url({card.picture})">
<div class="tiles">{tiles}</div>
<div class="body"><h2 class="name">{name}</h2>
{_stack(result, order, shares)}
<p class="meta">{picture.groups} groups{judged}</p></div>
</li>"""


def _tile(pixels: Mapping[int, str], caption: str, what: str) -> str:
    """The picture under one layer for each label."""
    images = "".join(f'<img class="b k{k}" src="{uri}" alt="">' for k, uri in pixels.items())
    return (
        f'<figure class="tile over" role="img" aria-label="{escape(what)}">{images}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _bar_colour(colour: str) -> str:
    return "var(--line)" if colour == NOTHING else colour


def _stack(result: Answer, order: Sequence[int], shares: Sequence[float]) -> str:
    """One bar made of the shares, and the same as a list."""
    bar = "".join(
        f'<span style="flex:{shares[k]:.5f};--c:{_bar_colour(result.rows[k].colour)}"></span>'
        for k in order
    )
    texts = {k: escape(percent(shares[k])) for k in order}
    items = "".join(
        f"<li>{dot(result.rows[k].colour)}{escape(result.rows[k].name)} <b>{texts[k]}</b></li>"
        for k in order
    )
    return f'<div class="stack">{bar}</div><ul class="tally">{items}</ul>'
