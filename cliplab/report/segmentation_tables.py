"""The tables above the cards: numbers of each label and, where the truth is known, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cliplab.segmentation import Judge, LabelRow
from cliplab.viz.segmentation import NOTHING

ORACLE = "every group with its best true label: what the masks are worth, whatever they are called"

_MEANS = {
    "oracle_miou": "oracle mean IoU",
    "boundary_miou": "boundary mean IoU",
    "pixel_accuracy": "pixels right",
}


def panel(rows: Sequence[LabelRow], judge: Judge) -> str:
    """What stands above the cards."""
    judged = judge.quality is not None
    sections = [f"<section><h2>By label</h2>{_table(rows, judged=judged)}</section>"]
    if judged:
        sections.insert(0, _verdict(judge))
    return f'<div class="panel boxes{" judged" if judged else ""}">{"".join(sections)}</div>'


def dot(colour: str) -> str:
    """A square in the colour of a label; hatched for the background."""
    bare = " bare" if colour == NOTHING else ""
    return f'<span class="dot{bare}" style="--c:{colour}"></span>'


def _verdict(judge: Judge) -> str:
    """Mean IoU in large, then what it is made of, then what is confused with what."""
    quality = judge.quality
    if quality is None:
        return ""
    means = quality.means()
    body = "".join(
        f'<tr><th scope="row">{text}</th><td>{_percent(means[key])}</td></tr>'
        for key, text in _MEANS.items()
    )
    items = "".join(
        f"<li><b>{share:.0%}</b> of {escape(true)} is called {escape(called)}</li>"
        for true, called, share in quality.confusions(5)
    )
    pictures = len(judge.pictures)
    return (
        f'<section><h2>Mean IoU</h2><p class="big">{_percent(means["miou"])}</p>'
        f'<p class="small">{pictures:,} picture{"s" * (pictures != 1)} with known masks</p>'
        f'<table class="numbers"><tbody>{body}</tbody></table>'
        f'<ul class="confused">{items}</ul><p class="why">Oracle: {ORACLE}.</p></section>'
    )


def _table(rows: Sequence[LabelRow], *, judged: bool) -> str:
    most = max(row.share for row in rows) or 1.0
    head = ["label", "pixels", "", "pictures"]
    head += ["truly", "IoU", "oracle", "boundary"] if judged else []
    body = []
    for row in rows:
        colour = "var(--muted)" if row.colour == NOTHING else row.colour
        bar = f'<div class="fill" style="width:{row.share / most:.1%};--c:{colour}"></div>'
        cells = [_number(row.share), f'<td class="bar"><div class="track">{bar}</div></td>']
        cells.append(f'<td class="n">{row.pictures:,}</td>')
        if judged:
            numbers = (row.true_share, row.iou, row.oracle_iou, row.boundary_iou)
            cells += map(_number, numbers)
        words, name = escape(", ".join(row.words)), escape(row.name)
        first = f'<th scope="row" title="{words}">{dot(row.colour)}{name}</th>'
        body.append(f"<tr>{first}{''.join(cells)}</tr>")
    top = "".join(f'<th scope="col">{text}</th>' for text in head)
    return (
        f'<div class="scroll"><table class="classes"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _number(value: float | None) -> str:
    return f'<td class="n">{_percent(value)}</td>'


def _percent(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.1%}"
