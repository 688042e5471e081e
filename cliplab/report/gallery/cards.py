"""One card of a gallery for each image: thumbnail, prediction, truth, and a bar for each class."""

import base64
import io
from html import escape

from PIL import Image

from cliplab.classification import Scores

THUMBNAIL = 320  # pixels, longer side
CLOSE_CALL = 0.1  # margin below which a card is marked
MAX_BARS = 6  # classes shown at once on a card; the others fold away
# Okabe and Ito's colours, told apart by colour-blind readers; no yellow and black, which vanish
# on a white and on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#8A8A8A")


def thumbnail(image: Image.Image, *, size: int = THUMBNAIL) -> str:
    """The image at most `size` pixels long, as a JPEG inside a data URI, without metadata."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def colour(k: int) -> str:
    """Colour of class k."""
    return COLOURS[k % len(COLOURS)]


def card(scores: Scores, i: int, name: str, uri: str, *, rank: int, true: int | None) -> str:
    """The card of row i, which is the `rank`-th of the page."""
    best, share = int(scores.prediction[i]), float(scores.probability[i].max())
    margin, entropy = float(scores.margin[i]), float(scores.relative_entropy[i])
    label, file = escape(scores.class_names[best]), escape(name)
    badge = '<span class="badge">close call</span>' if margin < CLOSE_CALL else ""
    right = "" if true is None else str(int(true == best))
    return f"""<li class="card" data-rank="{rank}" data-order="{i}" data-class="{best}"
 data-true="{"" if true is None else true}" data-right="{right}" data-probability="{share:.6f}"
 data-entropy="{entropy:.6f}" data-name="{escape(name.lower())}">
<img src="{uri}" alt="{file}" loading="lazy">
<div class="body">
<h2><span class="dot" style="--c:{colour(best)}"></span>{label}{badge}</h2>
{_truth(scores, best, true)}<p class="name">{file}</p>
{_bars(scores, i, true)}
<p class="doubt"><span>margin {margin:.1%}</span><span>entropy {entropy:.0%}</span></p>
</div>
</li>"""


def _truth(scores: Scores, best: int, true: int | None) -> str:
    if true is None:
        return ""
    if true == best:
        return '<p class="truth yes">&#10003; right</p>\n'
    return f'<p class="truth no">&#10007; wrong: it is {escape(scores.class_names[true])}</p>\n'


def _bars(scores: Scores, i: int, true: int | None) -> str:
    """Bars in the order of the labels; if there are many, the best ones and the rest folded."""
    shares = scores.probability[i].tolist()
    order = list(range(len(shares)))
    if len(order) > MAX_BARS:
        order.sort(key=lambda k: -shares[k])
        if true is not None and true not in order[:MAX_BARS]:  # the truth is never folded away
            order.remove(true)
            order.insert(MAX_BARS - 1, true)
    best = int(scores.prediction[i])
    rows = [
        _row(scores.class_names[k], shares[k], colour(k), best=k == best, true=k == true)
        for k in order
    ]
    table = f"<table>{''.join(rows[:MAX_BARS])}</table>"
    if rest := rows[MAX_BARS:]:
        table += (
            f"<details><summary>{len(rest)} more</summary><table>{''.join(rest)}</table></details>"
        )
    return table


def _row(label: str, share: float, colour: str, *, best: bool, true: bool) -> str:
    kinds = " ".join(["best"] * best + ["true"] * true)
    row = f'<tr class="{kinds}">' if kinds else "<tr>"
    return (
        f'{row}<th scope="row">{escape(label)}</th>'
        f'<td class="bar"><div class="track"><div class="fill" '
        f'style="width:{share:.1%};--c:{colour}"></div></div></td>'
        f'<td class="share">{share:.1%}</td></tr>'
    )
