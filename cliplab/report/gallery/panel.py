"""The summary above a gallery whose truth is known: accuracy, confusion and reliability."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliplab.classification import Assessment

MAX_MATRIX = 12  # classes in the table; with more the most frequent confusions are listed
DEEP = 0.8  # share from which a cell is dark and its number light
_SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM = 220, 52, 8, 22, 66  # of the diagram, in SVG units
SURE = 10  # images in a bin from which its bar has its full colour


def panel_html(assessment: "Assessment", rows: Sequence[tuple[str, str]]) -> str:
    """The summary.

    Args:
        assessment: of the images whose class is known.
        rows: (what, value) for the table below the accuracy, as text.
    """
    few = len(assessment.scores.class_names) <= MAX_MATRIX
    return f"""<div class="panel">
{_accuracy(assessment, rows)}
<section><h2>{"True class (rows) and answer" if few else "Most frequent confusions"}</h2>
<div class="scroll">{_confusion(assessment) if few else _pairs(assessment)}</div></section>
<section><h2>How often right, by how sure</h2>
{_reliability(assessment)}</section>
</div>"""


def _accuracy(said: "Assessment", rows: Sequence[tuple[str, str]]) -> str:
    rate = said.accuracy
    body = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td>{escape(value)}</td></tr>'
        for what, value in rows
    )
    return f"""<section><h2>Accuracy</h2>
<p class="big">{rate.value:.1%}</p>
<p class="small">95 % interval {rate.low:.1%} to {rate.high:.1%}, {rate.n} images</p>
<table class="numbers">{body}</table></section>"""


# ---- confusion -----------------------------------------------------------------------------


def _confusion(said: "Assessment") -> str:
    """Counts as a table whose cells filter the cards; shaded by the share of the true class."""
    names = said.scores.class_names
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = []
    for t, name in enumerate(names):
        total = max(1, int(said.confusion[t].sum()))
        cells = [_cell(int(n), int(n) / total, t, p) for p, n in enumerate(said.confusion[t])]
        recall = said.recalls.get(name)
        found = "&ndash;"
        if recall:
            ends = f"{100 * recall.low:.0f}&ndash;{100 * recall.high:.0f}"
            found = f"<b>{recall.value:.0%}</b> ({ends})"
        body.append(
            f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}'
            f'<td class="recall">{found}</td></tr>'
        )
    return (
        f'<table class="confusion"><thead><tr><td></td>{head}<th scope="col">recall</th></tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table>"
        '<p class="small">Outlined: right. Recall with its 95 % interval. '
        '<span class="needs-js">Press a number to see its images.</span></p>'
    )


def _cell(count: int, share: float, true: int, predicted: int) -> str:
    classes = " ".join(["diagonal"] * (true == predicted) + ["deep"] * (share >= DEEP))
    opening = f'<td class="{classes}"' if classes else "<td"
    inner = '<span class="cell">0</span>'
    if count:
        inner = (
            f'<button type="button" data-cell="{true} {predicted}" aria-pressed="false">'
            f"{count}</button>"
        )
    return f'{opening} style="--a:{0.9 * share:.3f}">{inner}</td>'


def _pairs(said: "Assessment") -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(true)} &rarr; {escape(predicted)}</th><td>{count}</td></tr>'
        for true, predicted, count in said.pairs()
    )
    return f'<table class="pairs">{rows or "<tr><th>none</th></tr>"}</table>'


# ---- reliability ---------------------------------------------------------------------------


def _reliability(said: "Assessment") -> str:
    """Accuracy against confidence as SVG, so that it follows light and dark; counts below."""
    bins = said.reliability
    edges = [float(edge) for edge in bins.edges]
    counts = [int(count) for count in bins.count]
    parts = [_grid()]
    for b, count in enumerate(counts):
        if count:
            left, right = _x(edges[b]) + 0.7, _x(edges[b + 1]) - 0.7
            parts.append(
                _bin(left, right, float(bins.confidence[b]), float(bins.accuracy[b]), count)
            )
            tall = 30 * count / max(counts)
            parts.append(
                f'<rect class="count" x="{left:.1f}" y="{_TOP + _SIZE + 62 - tall:.1f}" '
                f'width="{right - left:.1f}" height="{tall:.1f}"/>'
            )
    low, high = f"{said.confidence:.1%}", f"{said.accuracy.value:.1%}"
    width, height = _LEFT + _SIZE + _RIGHT, _TOP + _SIZE + _BOTTOM
    return f"""<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="rel">
<title id="rel">Reliability: on average {low} sure and {high} right; expected calibration error
{said.calibration_error:.3f}</title>
{"".join(parts)}</svg>
<p class="small">Orange: the way to the dashed line, where both agree. Grey: how many
images; pale: fewer than {SURE}.</p>"""


def _x(share: float) -> float:
    return _LEFT + _SIZE * share


def _y(share: float) -> float:
    return _TOP + _SIZE * (1 - share)


def _grid() -> str:
    ends = f'x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"'
    lines = []
    for share in (0.0, 0.5, 1.0):
        x, y = _x(share), _y(share)
        lines.append(
            f'<line class="axis" x1="{_LEFT}" y1="{y}" x2="{_LEFT + _SIZE}" y2="{y}"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4}" text-anchor="end">{share:.0%}</text>'
            f'<text x="{x}" y="{_y(0) + 15}" text-anchor="middle">{share:.0%}</text>'
        )
    lines.append(
        f'<text x="{_x(0.5)}" y="{_y(0) + 28}" text-anchor="middle">how sure</text>'
        f'<text transform="translate(12 {_y(0.5)}) rotate(-90)" text-anchor="middle">how often '
        f'right</text><line class="ideal" {ends}/>'
    )
    return "".join(lines)


def _bin(left: float, right: float, confidence: float, accuracy: float, count: int) -> str:
    """A bar up to the accuracy, and the distance from there to the confidence."""
    middle, top = _x(confidence), _y(accuracy)
    return (
        f"<g><title>{count} images: {confidence:.1%} sure, {accuracy:.1%} right</title>"
        f'<rect class="bin" opacity="{0.3 + 0.7 * min(1, count / SURE):.2f}" '
        f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{max(0.8, _y(0) - top):.1f}"/>'
        f'<line class="gap" x1="{middle:.1f}" y1="{top:.1f}" x2="{middle:.1f}" '
        f'y2="{_y(confidence):.1f}"/></g>'
    )
