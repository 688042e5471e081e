"""What the gallery of `segment` adds to the looks of the other galleries: tiles, layers, a page."""

from cliplab.report.gallery.page import HEAD

STYLE = """
.grid { grid-template-columns: repeat(auto-fill, minmax(420px, 1fr)); }
.grid.judged { grid-template-columns: repeat(auto-fill, minmax(560px, 1fr)); }
@media (max-width: 620px) { .grid, .grid.judged { grid-template-columns: 1fr; } }
.tiles { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 2px;
  background: var(--line); }
.tile { position: relative; aspect-ratio: 4 / 3; margin: 0;
  background: var(--track) var(--p) center / contain no-repeat;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.tile.over { background-blend-mode: normal; }
.card .tile img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;
  aspect-ratio: auto; background: none; image-rendering: pixelated; opacity: var(--tint, .68); }
.tile figcaption { position: absolute; left: 8px; bottom: 7px; padding: 1px 8px; font-size: 12px;
  border-radius: 999px; background: rgba(16, 22, 27, .66); color: #fff; z-index: 1; }
.stack { display: flex; height: 10px; border-radius: 5px; overflow: hidden;
  background: var(--track); }
.stack span { background: var(--c); min-width: 1px; }
.tally b { font-variant-numeric: tabular-nums; font-weight: 600; }
.dot { border-radius: 3px; border: 1px solid rgba(16, 22, 27, .45); width: 12px; height: 12px;
  vertical-align: -1px; }
.dot.bare { background: repeating-linear-gradient(45deg, var(--track) 0 3px, var(--muted) 3px 4px);
  border-color: var(--muted); }
.fill { border: 1px solid rgba(16, 22, 27, .25); }
.meta { margin: 0; color: var(--muted); font-size: 13px; font-variant-numeric: tabular-nums; }
.meta b { color: var(--ink); font-weight: 600; }
.classes .words { color: var(--muted); font-weight: 400; }
.confused { margin: 12px 0 0; padding: 0; list-style: none; font-size: 13px; }
.confused li { padding: 2px 0; } .confused b { font-variant-numeric: tabular-nums; }
.why { margin: 10px 0 0; font-size: 12.5px; color: var(--muted); }
"""

# Written out for each label, since CSS cannot compute a selector.
_RULES = """#c-{k}:checked ~ main .card:not(.h{k}), #c-{k}:checked ~ main .b:not(.k{k}) {{
  display: none; }}
"""
_CHOSEN = """#c-{k}:checked ~ main label[for="c-{k}"] {{ background: var(--ink);
  color: var(--page); border-color: var(--ink); }}
#c-{k}:focus-visible ~ main label[for="c-{k}"] {{ outline: 3px solid var(--focus);
  outline-offset: 2px; }}
"""


def label_rules(count: int) -> str:
    """Rules that show one of the first `count` labels alone."""
    every = [_CHOSEN.format(k="all")]
    every += [_CHOSEN.format(k=k) + _RULES.format(k=k) for k in range(count)]
    return "".join(every)


SCRIPT = """
document.documentElement.classList.add("js");
const grid = document.querySelector(".grid"), cards = [...grid.children];
const sort = document.querySelector("#sort"), find = document.querySelector("#find");
const tint = document.querySelector("#tint"), picks = [...document.querySelectorAll(".pick")];
const share = (card) => {
  const label = picks.find((pick) => pick.checked).id.slice(2);
  return label === "all" ? 0 : Number(JSON.parse(card.dataset.shares)[label] || 0);
};
const orders = {
  file: (a, b) => a.dataset.rank - b.dataset.rank,
  most: (a, b) => share(b) - share(a),
  groups: (a, b) => b.dataset.groups - a.dataset.groups,
  bad: (a, b) => (a.dataset.iou || 2) - (b.dataset.iou || 2),
  good: (a, b) => (b.dataset.iou || -1) - (a.dataset.iou || -1),
};
function update() {
  const text = find.value.trim().toLowerCase();
  for (const card of cards) card.hidden = !card.dataset.name.includes(text);
  grid.style.setProperty("--tint", tint.value);
  grid.append(...cards.sort((a, b) => orders[sort.value](a, b) || orders.file(a, b)));
}
for (const control of [sort, find, tint, ...picks]) control.addEventListener("input", update);
update();
"""

PAGE = (
    HEAD
    + """\
{radios}<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
{notes}
{panel}
</header>
<main>
<div class="controls{many}" role="group" aria-label="Filter and sort">
<div class="line"><span class="what">label</span>{chips}
<span class="rest needs-js"><label>colour
<input id="tint" type="range" min="0" max="1" step="0.02" value="0.68" aria-label="Strength of the
 colours"></label>
<input id="find" type="search" placeholder="file name" aria-label="File name">
<select id="sort" aria-label="Sort by"><option value="file">by file name</option>{orders}
<option value="most">most of the label first</option>
<option value="groups">most groups first</option></select></span></div>
</div>
<ul class="grid{judged}">
{cards}
</ul>
{unreadable}
<footer>{footer}</footer>
</main>
<script>{script}</script>
</body>
</html>
"""
)

FOOTER = """Every pixel has the label that its group of patches fits best; nobody showed the model
 a mask in training. Choose a label to see its pixels alone. Shares are of the picture's pixels."""
JUDGED = """ IoU: pixels that are the label's in both, the answer and the truth, over those that are
 in either. Oracle: every group is given its best true label, so that it tells what the masks are
 worth whatever they are called; no result, since it needs the truth. Boundary: IoU near the borders
 of the masks alone."""
