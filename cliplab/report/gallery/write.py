"""The whole page of a gallery: heading, summary, what filters and sorts, and the cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from cliplab.classification import Scores
from cliplab.report.gallery.cards import card, colour
from cliplab.report.gallery.page import PAGE, SCRIPT, STYLE

MAX_NOTES = 3  # shown at once; the others fold away
MAX_CHIPS = 12  # classes that get a button each; with more there is a list


@dataclass(frozen=True)
class Heading:
    """What a gallery says besides its images."""

    title: str
    facts: Mapping[str, str]  # such as {"encoder": "pasture"}
    notes: Sequence[str] = ()  # sentences, such as the remarks of a diagnosis
    unreadable: Mapping[str, str] = field(default_factory=dict)  # file -> why, and what to do


def gallery_html(
    scores: Scores,
    names: Sequence[str],
    thumbnails: Mapping[int, str],
    *,
    heading: Heading,
    true: Sequence[int | None] | None = None,
    panel: str = "",
) -> str:
    """The page for N scored images, or for those of them that have a thumbnail.

    Args:
        scores: of the N images.
        names: N file names.
        thumbnails: row -> data URI from `thumbnail`; the cards come in its order.
        heading: title and what else there is to say.
        true: N class indices, None where unknown; default all unknown.
        panel: HTML of `panel_html`, above the cards.

    Raises:
        ValueError: numbers that do not fit together.
    """
    truth = [None] * len(scores) if true is None else list(true)
    _check_fit(scores, names, thumbnails, truth)
    cards = [
        card(scores, i, names[i], uri, rank=rank, true=truth[i])
        for rank, (i, uri) in enumerate(thumbnails.items())
    ]
    shown = list(thumbnails)
    return PAGE.format(
        title=escape(heading.title),
        style=STYLE,
        script=SCRIPT,
        facts=_facts(heading),
        notes=notes_section(heading.notes),
        panel=panel,
        controls=_controls(scores, shown, [truth[i] for i in shown]),
        cards="\n".join(cards),
        unreadable=unreadable_section(heading.unreadable),
    )


def _check_fit(
    scores: Scores, names: Sequence[str], thumbnails: Mapping[int, str], truth: Sequence[int | None]
) -> None:
    if not len(scores) == len(names) == len(truth) or not set(thumbnails) <= set(range(len(names))):
        raise ValueError(
            f"gallery: got {len(scores)} scores, {len(names)} names, {len(truth)} truths and "
            f"{len(thumbnails)} thumbnails; expected one of each per image, thumbnails of its rows"
        )


def notes_section(notes: Sequence[str]) -> str:
    """The first ones in full, the others folded away."""
    lines = [f'<p class="note">{escape(note)}</p>' for note in notes]
    if rest := lines[MAX_NOTES:]:
        lines[MAX_NOTES:] = [
            f'<details class="more"><summary>{len(rest)} more remarks</summary>',
            *rest,
            "</details>",
        ]
    return "\n".join(lines)


def _facts(heading: Heading) -> str:
    said = [f"{escape(key)} <b>{escape(value)}</b>" for key, value in heading.facts.items()]
    if heading.unreadable:
        said.append(f'<a href="#unreadable">{len(heading.unreadable)} not read</a>')
    return " &middot; ".join(said)


# ---- filter and sort -----------------------------------------------------------------------


def _controls(scores: Scores, shown: Sequence[int], truth: Sequence[int | None]) -> str:
    """What filters and sorts: predicted class, right or wrong, true class, order, file name."""
    predicted = [int(k) for k in scores.prediction[list(shown)]]
    known = any(t is not None for t in truth)
    classes = _chips(scores.class_names, predicted)
    lines = [_line("predicted", classes, "" if known else _search(known))]
    if known:
        verdict = [t == p for t, p in zip(truth, predicted, strict=True) if t is not None]
        chips = [
            _chip("right", "all", "all", len(shown), pressed=True),
            _chip("right", "0", "wrong", verdict.count(False)),
            _chip("right", "1", "right", verdict.count(True)),
        ]
        rest = _true_list(scores.class_names, truth) + _search(known)
        lines.append(_line("answer", "".join(chips), rest))
    return (
        f'<div class="controls needs-js" role="group" aria-label="Filter and sort">\n'
        f"{''.join(lines)}</div>"
    )


def _line(what: str, chips: str, rest: str) -> str:
    return (
        f'<div class="line"><span class="what">{what}</span>{chips}\n'
        f'<span class="rest">{rest}</span></div>\n'
    )


def _chips(class_names: Sequence[str], predicted: Sequence[int]) -> str:
    """Buttons that filter by predicted class; with many classes only those that occur most."""
    counts = [predicted.count(k) for k in range(len(class_names))]
    order = list(range(len(class_names)))
    if len(order) > MAX_CHIPS:
        order = sorted(sorted(order, key=lambda k: -counts[k])[:MAX_CHIPS])
    chips = [_chip("class", "all", "all", len(predicted), pressed=True)]
    for k in order:
        dot = f'<span class="dot" style="--c:{colour(k)}"></span>'
        chips.append(_chip("class", str(k), class_names[k], counts[k], before=dot))
    return "".join(chips)


def _chip(
    key: str, value: str, text: str, count: int, *, pressed: bool = False, before: str = ""
) -> str:
    return (
        f'<button type="button" data-key="{key}" data-value="{value}" '
        f'aria-pressed="{str(pressed).lower()}">{before}{escape(text)}'
        f'<span class="count">{count}</span></button>'
    )


def _search(known: bool) -> str:
    first = '<option value="given">most wrong first</option>' if known else ""
    return f"""<input id="find" type="search" placeholder="file name" aria-label="File name">
<select id="sort" aria-label="Sort by">{first}<option value="file">by file name</option>
<option value="class">by label</option><option value="sure">surest first</option>
<option value="unsure">least sure first</option></select>
<span id="status" role="status"></span>"""


def _true_list(class_names: Sequence[str], truth: Sequence[int | None]) -> str:
    options = [
        f'<option value="{k}">truly {escape(name)} ({truth.count(k)})</option>'
        for k, name in enumerate(class_names)
        if k in truth
    ]
    return (
        '<select id="true" aria-label="True class"><option value="all">any true class</option>'
        f"{''.join(options)}</select>"
    )


def unreadable_section(reasons: Mapping[str, str]) -> str:
    """The pictures that could not be read and why, as a section of the page; "" if none."""
    if not reasons:
        return ""
    items = [f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in reasons.items()]
    return (
        f'<section class="unreadable" id="unreadable"><h2>{len(reasons)} not read</h2>'
        f"<ul>{''.join(items)}</ul></section>"
    )
