"""The gallery of `detect`: pictures with their boxes as one HTML file, a table on top.

It asks nothing of the network. Classes are chosen by CSS alone; JavaScript adds a threshold, a
search and an order. Whatever a file or a label is called is shown, never interpreted.
"""

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch

from cliplab.cli.detect.page_parts import PAGE, SCRIPT, STYLE, class_rules
from cliplab.cli.detect.page_prompt import PROMPT_STYLE, prompt_html
from cliplab.cli.detect.prepare import Task
from cliplab.data import shown
from cliplab.detection.finding import Detector, Found
from cliplab.detection.judging import Judged, Row, summarise
from cliplab.detection.words import Query
from cliplab.report.classification_page import sentence
from cliplab.report.gallery.page import STYLE as GALLERY_STYLE
from cliplab.report.gallery.write import notes_section, unreadable_section
from cliplab.runtime import atomic_write
from cliplab.viz.boxes import box_colour, ink_on, place_tags, tag_size

MAX_CARDS = 1000  # 20 to 40 KB each
MAX_BOXES = 200  # drawn on a card, the best ones; more could not be told apart
_FEW, _LARGE, _SMALL = 300, 560, 320  # up to _FEW cards have thumbnails _LARGE pixels long
_CARD = 380  # pixels that a card's picture is wide on a usual screen, and 3/4 of it high
_FONT = 12.0  # pixels of a tag's text there
_STICKY = 12  # classes up to which the chips stay in view
_MAX_CHIPS = 40  # classes that can be chosen; more would fill the screen


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page is made from."""

    task: Task
    detector: Detector
    query: Query
    found: Found
    judged: Judged | None
    thumbnails: Mapping[Path, str]  # path -> data URI


def choose_pictures(paths: Sequence[Path]) -> tuple[set[Path], int]:
    """Which pictures get a card, an even sample if there are many, and how long it is in pixels."""
    n = len(paths)
    chosen = set(paths) if n <= MAX_CARDS else {paths[i * n // MAX_CARDS] for i in range(MAX_CARDS)}
    return chosen, _LARGE if len(chosen) <= _FEW else _SMALL


def write_gallery(
    args: argparse.Namespace,
    task: Task,
    detector: Detector,
    query: Query,
    found: Found,
    *,
    judged: Judged | None,
    thumbnails: Mapping[Path, str],
) -> None:
    """The page to --html."""
    page = gallery_html(
        Shown(task, detector, query, found, judged, thumbnails),
        title=f"{shown(args.source.resolve().name)}, boxes by label",
    )
    with atomic_write(args.html, "w") as file:
        file.write(page)


def gallery_html(what: Shown, *, title: str) -> str:
    """The page: what was found, how well if that is known, and a card for each picture."""
    rows = summarise(what.found, what.query, what.judged)
    colours = [box_colour(k) for k in range(len(rows))]
    cards = [
        _card(what, i, rank)
        for rank, i in enumerate(
            i for i, one in enumerate(what.found.pictures) if one.path in what.thumbnails
        )
    ]
    notes = [*what.query.remarks, *what.task.notes, *what.query.notes]
    if len(cards) < len(what.found):
        notes.insert(0, f"{len(cards):,} of {len(what.found):,} pictures, an even sample; "
                        "--out JSON has the boxes of all")  # fmt: skip
    unreadable = {shown(e.path): f"{e.cause}; {e.remedy}" for e in what.found.unreadable}
    return PAGE.format(
        title=escape(title),
        style=GALLERY_STYLE + STYLE + PROMPT_STYLE + class_rules(colours, _MAX_CHIPS),
        script=SCRIPT,
        facts=_facts(what),
        prompt=_prompt(what),
        notes=notes_section([sentence(note, what.detector.name) for note in notes]),
        radios=_radios(len(rows)),
        panel=_panel(rows, what.judged),
        chips=_chips(rows, sum(row.boxes for row in rows)),
        many=" many" if len(rows) > _STICKY else "",
        extras=_extras(what.judged),
        orders='<option value="bad">most mistakes first</option>' if what.judged else "",
        least=_hundredths(what.found.cut.score),
        cards="\n".join(cards),
        unreadable=unreadable_section(unreadable),
    )


def _hundredths(score: float) -> str:
    """Rounded down, so that the slider at its lowest hides nothing: 0.696 -> 0.69."""
    return f"{math.floor(round(score * 100, 6)) / 100:.2f}"  # 0.29 * 100 is less than 29


def _facts(what: Shown) -> str:
    teacher = getattr(what.detector, "teacher", None)
    facts = {"pictures": f"{len(what.found):,}", "boxes": f"{what.found.boxes:,}"}
    facts["model"] = what.detector.name
    if teacher is not None:
        facts["teacher"] = teacher.name
    if what.found.cut.score:
        facts["score at least"] = f"{what.found.cut.score:g}"
    said = [f"{escape(key)} <b>{escape(value)}</b>" for key, value in facts.items()]
    return " &middot; ".join(said)


def _prompt(what: Shown) -> str:
    """The sentence that was asked, of models that read one."""
    prompt = getattr(what.query, "prompt", None)
    return prompt_html(prompt, what.task.classes.names, _MAX_CHIPS) if prompt else ""


# ---- choosing --------------------------------------------------------------------------------


def _radios(k: int) -> str:
    """One radio button for all and one for each class; CSS does what they say."""
    more = [_radio(str(i)) for i in range(min(k, _MAX_CHIPS))]
    return _radio("all", checked=True) + "".join(more)


def _radio(value: str, *, checked: bool = False) -> str:
    mark = " checked" if checked else ""
    return f'<input class="pick" type="radio" name="class" id="c-{value}"{mark}>\n'


def _chips(rows: Sequence[Row], total: int) -> str:
    chips = [f'<label class="chip" for="c-all">all<span class="count">{total}</span></label>']
    for k, row in enumerate(rows[:_MAX_CHIPS]):
        dot = f'<span class="dot" style="--c:{box_colour(k)}"></span>'
        count = f'<span class="count" data-count="{k}">{row.boxes}</span>'
        chips.append(f'<label class="chip" for="c-{k}">{dot}{escape(row.name)}{count}</label>')
    return "".join(chips)


def _extras(judged: Judged | None) -> str:
    if judged is None:
        return ""
    missed = sum(map(len, judged.missed.values()))
    return (
        '<label class="chip box"><input type="checkbox" id="missed" checked>missed'
        f'<span class="count">{missed}</span></label>'
    )


# ---- the table -------------------------------------------------------------------------------


def _panel(rows: Sequence[Row], judged: Judged | None) -> str:
    sections = [f"<section><h2>By label</h2>{_table(rows, judged)}</section>"]
    if judged:
        sections.insert(0, _precision(judged))
    return f'<div class="panel boxes{" judged" if judged else ""}">{"".join(sections)}</div>'


def _precision(judged: Judged) -> str:
    """AP50 in large, then the groups."""
    every = judged.groups["all"]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}, {one.categories} label'
        f"{'s' * (one.categories != 1)}</th>"
        f"<td>{one.ap50:.1%}</td><td>{one.ap:.1%}</td></tr>"
        for name, one in judged.groups.items()
    )
    pictures = len(judged.rows)
    return (
        "<section><h2>Average precision at IoU 0.5</h2>"
        f'<p class="big">{every.ap50:.1%}</p>'
        f'<p class="small">{_many(sum(judged.true), "true box", "es")} in '
        f"{_many(pictures, 'picture')}</p>"
        '<table class="numbers"><thead><tr><th></th><td>AP50</td><td>AP</td></tr></thead>'
        f"<tbody>{body}</tbody></table></section>"
    )


def _many(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{plural * (count != 1)}"


def _table(rows: Sequence[Row], judged: Judged | None) -> str:
    grouped = any(row.group for row in rows)
    most = max([row.boxes for row in rows] + [1])
    head = ["label", *(["group"] * grouped), "boxes", "", "pictures", "mean score"]
    head += ["true", "hit", "wrong", "AP50"] if judged else []
    body = []
    for k, row in enumerate(rows):
        cells = [f"<td>{escape(row.group)}</td>"] * grouped
        bar = f'<div class="fill" style="width:{row.boxes / most:.1%};--c:{box_colour(k)}"></div>'
        cells += [_number(row.boxes), f'<td class="bar"><div class="track">{bar}</div></td>']
        cells += [_number(row.pictures), _number(row.score)]
        if judged:
            cells += [_number(row.true), _number(row.hit), _number(row.wrong), _number(row.ap50)]
        dot = f'<span class="dot" style="--c:{box_colour(k)}"></span>'
        name = f'<th scope="row">{dot}{escape(row.name)}</th>'
        body.append(f"<tr>{name}{''.join(cells)}</tr>")
    top = "".join(f'<th scope="col">{text}</th>' for text in head)
    return (
        f'<div class="scroll"><table class="classes"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _number(value: float | None) -> str:
    if value is None:
        return '<td class="n">&ndash;</td>'
    return f'<td class="n">{f"{value:.1%}" if isinstance(value, float) else f"{value:,}"}</td>'


# ---- cards -----------------------------------------------------------------------------------


def _card(what: Shown, i: int, rank: int) -> str:
    """Picture i: its thumbnail under an overlay of boxes, and how many of what."""
    picture, one, size = what.found.pictures[i], what.found.found[i], what.found.sizes[i]
    judged = what.judged if what.judged and i in what.judged.missed else None
    bad = len(judged.missed[i]) + int(judged.wrong[i].sum()) if judged else 0
    there = {*one.labels.tolist(), *(judged.missed[i].labels.tolist() if judged else [])}
    held = "".join(f" h{k}" for k in sorted(there))
    name = escape(picture.name)
    least = float(one.scores.min()) if len(one) else 2.0
    alone = "" if len(one) else " none"
    return f"""<li class="card{held}{alone}" data-rank="{rank}" data-boxes="{len(one)}"
 data-bad="{bad}" data-least="{least:.4f}" data-name="{escape(picture.name.lower())}">
<div class="shot"><img src="{what.thumbnails[picture.path]}" alt="{name}" loading="lazy">
{_overlay(what, i, size)}</div>
<div class="body"><h2 class="name">{name}</h2>
{_tally(one.names, one.phrases)}{_beyond(len(one))}{_mistakes(judged, i)}</div>
</li>"""


def _overlay(what: Shown, i: int, size: tuple[int, int]) -> str:
    """SVG in pixels of the picture, as high and wide as the thumbnail is shown."""
    one = what.found.found[i]
    one = one.select(torch.arange(min(len(one), MAX_BOXES)))
    unit = max(size[0] / _CARD, size[1] / (0.75 * _CARD))  # pixels of the picture per CSS pixel
    texts = [f"{name} {score:.2f}" for name, score in zip(one.names, one.scores, strict=True)]
    sizes = [tag_size(text, _FONT * unit) for text in texts]
    corners = place_tags(one.boxes_xyxy.tolist(), sizes, size)
    parts = []
    if what.judged and (missed := what.judged.missed.get(i)):
        pairs = zip(missed.boxes_xyxy.tolist(), missed.labels.tolist(), strict=True)
        parts = [_missed(box, k, one.phrases[k]) for box, k in pairs]
    drawn = zip(one.boxes_xyxy.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
    tags = zip(texts, corners, sizes, strict=True)
    groups = [
        f'<g class="b k{k}" data-s="{score:.4f}" data-k="{k}">{_rects(box)}{_tag(*tag, k)}</g>'
        for (box, k, score), tag in zip(drawn, tags, strict=True)
    ]
    parts += groups[::-1]  # the best one on top
    wide, high = size
    return (
        f'<svg viewBox="0 0 {wide} {high}" role="img" '
        f'aria-label="{escape(", ".join(texts) or "no boxes")}">{"".join(parts)}</svg>'
    )


def _rects(box: Sequence[float]) -> str:
    """An outline on a dark edge, so that it shows on bright and on dark ground."""
    at = _geometry(box)
    return f'<rect class="edge" {at}/><rect class="line" {at}/>'


def _missed(box: Sequence[float], k: int, name: str) -> str:
    at = _geometry(box)
    return (
        f'<g class="m k{k}"><rect class="edge" {at}/><rect class="dash" {at}/>'
        f"<title>{escape(name)}: there, and not found</title></g>"
    )


def _geometry(box: Sequence[float]) -> str:
    x0, y0, x1, y1 = box
    return f'x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'


def _tag(text: str, at: tuple[float, float], extent: tuple[float, float], k: int) -> str:
    (x, y), (width, height) = at, extent
    paint = box_colour(k)
    return (
        f'<g class="t"><rect class="plate" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" fill="{paint}"/><text x="{x + width / 2:.1f}" '
        f'y="{y + 0.7 * height:.1f}" style="fill:{ink_on(paint)};font-size:{height / 1.5:.2f}px">'
        f"{escape(text)}</text></g>"
    )


def _tally(names: Sequence[str], phrases: Sequence[str]) -> str:
    """How many of what."""
    if not names:
        return '<p class="nothing">nothing that counts</p>'
    items = []
    for name, count in Counter(names).most_common():
        dot = f'<span class="dot" style="--c:{box_colour(phrases.index(name))}"></span>'
        items.append(f"<li>{dot}<b>{count}</b> {escape(name)}</li>")
    return f'<ul class="tally">{"".join(items)}</ul>'


def _beyond(count: int) -> str:
    return "" if count <= MAX_BOXES else f'\n<p class="nothing">the best {MAX_BOXES} are drawn</p>'


def _mistakes(judged: Judged | None, i: int) -> str:
    if judged is None:
        return ""
    missed, wrong = len(judged.missed[i]), int(judged.wrong[i].sum())
    said = [f"{n} {what}" for n, what in ((missed, "missed"), (wrong, "wrong")) if n]
    if not said:
        return '\n<p class="truth yes">&#10003; all right</p>'
    return f'\n<p class="truth no">&#10007; {", ".join(said)}</p>'
