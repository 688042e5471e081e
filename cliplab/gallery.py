"""A folder's classification as one HTML file: thumbnails with their probabilities, to look through.

The page asks nothing of the network, works without JavaScript (which only filters and sorts), in
light and dark, by mouse and by keyboard. Whatever a file is called is shown, never interpreted.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from cliplab.zero_shot import Scores

THUMBNAIL = 320  # pixels, longer side
CLOSE_CALL = 0.1  # margin below which a card is marked
MAX_BARS = 6  # classes shown at once on a card; the others fold away
# Okabe and Ito's colours, told apart by colour-blind readers; no yellow and black, which vanish
# on a white and on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#8A8A8A")

_STYLE = """
:root { color-scheme: light dark; --page: #f5f6f7; --card: #fff; --ink: #1b2733; --muted: #57656f;
  --line: #dde2e6; --track: #e9edf0; --focus: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --card: #1e2429; --ink: #e8ecef;
  --muted: #a3afb8; --line: #323b42; --track: #2c343b; --focus: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Noto Sans", "PingFang SC",
  "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
main, header { max-width: 1240px; margin: auto; padding: 0 24px; }
header { padding-top: 28px; }
h1 { margin: 0 0 4px; font-size: 26px; font-weight: 650; overflow-wrap: anywhere; }
.facts { margin: 0; color: var(--muted); overflow-wrap: anywhere; }
a { color: inherit; }
.facts b { color: var(--ink); font-weight: 600; }
.controls { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; padding: 14px 0;
  position: sticky; top: 0; background: var(--page); z-index: 1; }
html:not(.js) .needs-js { display: none; }
button, select, input { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 999px; padding: 5px 13px; }
button { cursor: pointer; }
button[aria-pressed=true] { background: var(--ink); color: var(--page); border-color: var(--ink); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px;
  background: var(--c); }
.count { opacity: .7; margin-left: 5px; font-variant-numeric: tabular-nums; }
.right { margin-left: auto; display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
#status { color: var(--muted); min-width: 8em; text-align: right; }
.grid { display: grid; gap: 18px; padding: 0; margin: 6px 0 32px; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(258px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; display: flex; flex-direction: column; content-visibility: auto;
  contain-intrinsic-size: auto 400px; }
.card[hidden] { display: none; }
.card img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--track);
  display: block; }
.body { padding: 12px 14px 14px; display: flex; flex-direction: column; gap: 9px; flex: 1; }
.body h2 { margin: 0; font-size: 16px; font-weight: 650; overflow-wrap: anywhere; }
.badge { margin-left: 8px; padding: 2px 8px; border-radius: 999px; font-size: 12px;
  font-weight: 500; color: var(--muted); border: 1px solid var(--line); white-space: nowrap; }
.name { margin: -8px 0 0; color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th { text-align: left; font-weight: 400; padding: 2px 8px 2px 0;
  overflow-wrap: anywhere; }
tr.best th, tr.best .share { font-weight: 650; }
td { padding: 2px 0; } td.bar { width: 42%; }
.share { text-align: right; padding-left: 8px; font-variant-numeric: tabular-nums; width: 4.2em; }
.track { background: var(--track); border-radius: 4px; height: 9px; overflow: hidden; }
.fill { height: 100%; border-radius: 4px; background: var(--c); }
.doubt { margin: auto 0 0; padding-top: 8px; border-top: 1px solid var(--line); display: flex;
  justify-content: space-between; color: var(--muted); font-size: 12.5px;
  font-variant-numeric: tabular-nums; }
summary { cursor: pointer; color: var(--muted); font-size: 13px; }
.unreadable { border: 1px solid var(--line); border-left: 5px solid #d55e00; border-radius: 8px;
  background: var(--card); padding: 12px 18px; margin-bottom: 32px; }
.unreadable h2 { margin: 0 0 6px; font-size: 16px; }
.unreadable ul { margin: 0; padding-left: 18px; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 13px; padding: 0 0 32px; }
"""

_SCRIPT = """
document.documentElement.classList.add("js");
const grid = document.querySelector(".grid"), cards = [...grid.children];
const chips = [...document.querySelectorAll("button[data-class]")];
const sort = document.querySelector("#sort"), find = document.querySelector("#find");
let wanted = "all";
const orders = {
  file: (a, b) => a.dataset.order - b.dataset.order,
  sure: (a, b) => b.dataset.probability - a.dataset.probability,
  unsure: (a, b) => b.dataset.entropy - a.dataset.entropy,
  class: (a, b) => a.dataset.class - b.dataset.class
    || b.dataset.probability - a.dataset.probability,
};
function update() {
  const text = find.value.trim().toLowerCase();
  let count = 0;
  for (const card of cards) {
    const keep = (wanted === "all" || card.dataset.class === wanted)
      && card.dataset.name.includes(text);
    card.hidden = !keep;
    count += keep;
  }
  grid.append(...cards.sort((a, b) => orders[sort.value](a, b) || orders.file(a, b)));
  document.querySelector("#status").textContent = `${count} of ${cards.length} shown`;
}
for (const chip of chips) chip.addEventListener("click", () => {
  wanted = chip.dataset.class;
  for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
  update();
});
sort.addEventListener("change", update);
find.addEventListener("input", update);
update();
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
</header>
<main>
{controls}
<ul class="grid">
{cards}
</ul>
{unreadable}
<footer>Probabilities are shares among these labels only: an image of something else still gets one.
Margin is the lead of the best label over the second; entropy is in percent of its maximum, where
100 % means that the model has no opinion.</footer>
</main>
<script>{script}</script>
</body>
</html>
"""


def thumbnail(image: Image.Image) -> str:
    """The image at most THUMBNAIL pixels long, as a JPEG inside a data URI, without metadata."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def gallery_html(
    scores: Scores,
    names: Sequence[str],
    thumbnails: Sequence[str],
    *,
    title: str,
    facts: Mapping[str, str],
    unreadable: Mapping[str, str] | None = None,
) -> str:
    """The page for N scored images.

    Args:
        scores: of the N images.
        names: N file names.
        thumbnails: N data URIs from `thumbnail`.
        title: heading of the page.
        facts: what to say below it, such as {"encoder": "pasture"}.
        unreadable: file names that could not be scored -> why, and what to do.
    """
    if not len(scores) == len(names) == len(thumbnails):
        raise ValueError(
            f"gallery: got {len(scores)} scores, {len(names)} names, {len(thumbnails)} thumbnails; "
            "expected one of each per image"
        )
    cards = [_card(scores, i, name, thumbnails[i]) for i, name in enumerate(names)]
    said = [f"{escape(key)} <b>{escape(value)}</b>" for key, value in facts.items()]
    if unreadable:
        said.append(f'<a href="#unreadable">{len(unreadable)} not read</a>')
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        script=_SCRIPT,
        facts=" &middot; ".join(said),
        controls=_controls(scores),
        cards="\n".join(cards),
        unreadable=_unreadable(unreadable or {}),
    )


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _controls(scores: Scores) -> str:
    """Buttons that filter by predicted class, how to sort, and a box to find file names."""
    predicted = scores.prediction.tolist()
    chips = [
        f'<button type="button" data-class="all" aria-pressed="true">all'
        f'<span class="count">{len(scores)}</span></button>'
    ]
    for k, name in enumerate(scores.class_names):
        chips.append(
            f'<button type="button" data-class="{k}" aria-pressed="false">'
            f'<span class="dot" style="--c:{_colour(k)}"></span>{escape(name)}'
            f'<span class="count">{predicted.count(k)}</span></button>'
        )
    return f"""<div class="controls needs-js" role="group" aria-label="Filter and sort">
{"".join(chips)}
<span class="right"><input id="find" type="search" placeholder="file name" aria-label="File name">
<select id="sort" aria-label="Sort by"><option value="file">by file name</option>
<option value="class">by label</option><option value="sure">surest first</option>
<option value="unsure">least sure first</option></select>
<span id="status" role="status"></span></span>
</div>"""


def _card(scores: Scores, i: int, name: str, uri: str) -> str:
    best, share = int(scores.prediction[i]), float(scores.probability[i].max())
    margin, entropy = float(scores.margin[i]), float(scores.relative_entropy[i])
    label, file = escape(scores.class_names[best]), escape(name)
    badge = '<span class="badge">close call</span>' if margin < CLOSE_CALL else ""
    return f"""<li class="card" data-order="{i}" data-class="{best}" data-probability="{share:.6f}"
 data-entropy="{entropy:.6f}" data-name="{escape(name.lower())}">
<img src="{uri}" alt="{file}" loading="lazy">
<div class="body">
<h2><span class="dot" style="--c:{_colour(best)}"></span>{label}{badge}</h2>
<p class="name">{file}</p>
{_bars(scores, i)}
<p class="doubt"><span>margin {margin:.1%}</span><span>entropy {entropy:.0%}</span></p>
</div>
</li>"""


def _bars(scores: Scores, i: int) -> str:
    """Bars in the order of the labels; if there are many, the best ones and the rest folded."""
    shares = scores.probability[i].tolist()
    order = list(range(len(shares)))
    if len(order) > MAX_BARS:
        order.sort(key=lambda k: -shares[k])
    best = int(scores.prediction[i])
    rows = [_row(scores.class_names[k], shares[k], _colour(k), best=k == best) for k in order]
    table = f"<table>{''.join(rows[:MAX_BARS])}</table>"
    if rest := rows[MAX_BARS:]:
        table += (
            f"<details><summary>{len(rest)} more</summary><table>{''.join(rest)}</table></details>"
        )
    return table


def _row(label: str, share: float, colour: str, *, best: bool) -> str:
    return (
        f'<tr{" class=best" if best else ""}><th scope="row">{escape(label)}</th>'
        f'<td class="bar"><div class="track"><div class="fill" '
        f'style="width:{share:.1%};--c:{colour}"></div></div></td>'
        f'<td class="share">{share:.1%}</td></tr>'
    )


def _unreadable(reasons: Mapping[str, str]) -> str:
    if not reasons:
        return ""
    items = [f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in reasons.items()]
    return (
        f'<section class="unreadable" id="unreadable"><h2>{len(reasons)} not read</h2>'
        f"<ul>{''.join(items)}</ul></section>"
    )
