"""What the gallery of `detect` adds to the gallery's looks: boxes, chips without script, a page."""

from collections.abc import Sequence

from cliplab.report.gallery.page import HEAD

STYLE = """
.panel.boxes { grid-template-columns: 1fr; align-items: start; }
.panel.boxes.judged { grid-template-columns: minmax(250px, 1fr) minmax(420px, 2.6fr); }
@media (max-width: 980px) { .panel.boxes.judged { grid-template-columns: 1fr; } }
.numbers thead td { color: var(--muted); }
.classes { font-size: 13.5px; } .classes th { padding: 4px 0 4px 14px; white-space: nowrap; }
.classes th:first-child { padding-left: 0; }
.classes thead th { color: var(--muted); font-size: 12.5px; text-align: right; }
.classes thead th:first-child { text-align: left; }
.classes td { padding: 4px 0 4px 14px; white-space: nowrap; }
.classes td.n { text-align: right; font-variant-numeric: tabular-nums; }
.classes td:nth-child(2):not(.n) { color: var(--muted); text-align: right; }
.classes td.bar { width: 30%; min-width: 80px; }
.controls.many { position: static; }
.pick { position: absolute; opacity: 0; pointer-events: none; }
.chip { cursor: pointer; background: var(--card); border: 1px solid var(--line);
  border-radius: 999px; padding: 5px 13px; }
.chip.box { display: inline-flex; gap: 7px; align-items: center; border-style: dashed; }
.chip input { margin: 0; accent-color: var(--focus); }
.rest label { display: inline-flex; gap: 8px; align-items: center; color: var(--muted);
  font-size: 13px; }
.rest input[type=range] { padding: 0; width: 130px; accent-color: var(--focus); }
output { font-variant-numeric: tabular-nums; min-width: 2.4em; color: var(--ink); }
.grid { grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.shot { position: relative; background: var(--track); }
.shot img { aspect-ratio: 4 / 3; }
.shot svg { position: absolute; inset: 0; width: 100%; height: 100%; max-width: none; margin: 0; }
.shot rect { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.shot .edge { stroke: rgba(16, 22, 27, .6); stroke-width: 4; }
.shot .line { stroke: var(--c); stroke-width: 2.2; }
.shot .dash { stroke: #fff; stroke-width: 2; stroke-dasharray: 5 4; }
.shot rect.plate { fill: var(--c); }
.shot text { font-weight: 600; text-anchor: middle; }
.shot .b.low { display: none; }
.shot .b:hover .line { stroke-width: 4; }
.shot:has(.b:hover) .b:not(:hover) { opacity: .25; }
.body .name { margin: 0; font-size: 13.5px; font-weight: 600; }
.tally { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 14px;
  font-size: 13.5px; }
.nothing { margin: 0; color: var(--muted); font-size: 13.5px; }
.body .truth { margin: auto 0 0; }
"""

# Written out for each class, since CSS cannot compute a selector.
_RULES = """#c-{k}:checked ~ main .card:not(.h{k}), #c-{k}:checked ~ main .b:not(.k{k}),
#c-{k}:checked ~ main .m:not(.k{k}) {{ display: none; }}
#c-{k}:checked ~ main label[for="c-{k}"] {{ background: var(--ink); color: var(--page);
  border-color: var(--ink); }}
#c-{k}:focus-visible ~ main label[for="c-{k}"] {{ outline: 3px solid var(--focus);
  outline-offset: 2px; }}
"""
_ALL = """#c-all:checked ~ main label[for="c-all"] { background: var(--ink); color: var(--page);
  border-color: var(--ink); }
#c-all:focus-visible ~ main label[for="c-all"] { outline: 3px solid var(--focus);
  outline-offset: 2px; }
main:has(#missed:not(:checked)) .m { display: none; }
"""


def class_rules(colours: Sequence[str], chosen: int) -> str:
    """Rules that colour the boxes of K classes, and show one of the first `chosen` alone."""
    paints = "".join(f".k{k} {{ --c: {colour}; }}\n" for k, colour in enumerate(colours))
    return paints + _ALL + "".join(_RULES.format(k=k) for k in range(min(chosen, len(colours))))


SCRIPT = """
document.documentElement.classList.add("js");
const grid = document.querySelector(".grid"), cards = [...grid.children];
const boxes = [...document.querySelectorAll(".b")];
const sort = document.querySelector("#sort"), find = document.querySelector("#find");
const least = document.querySelector("#least"), said = document.querySelector("#said");
const orders = {
  file: (a, b) => a.dataset.rank - b.dataset.rank,
  bad: (a, b) => b.dataset.bad - a.dataset.bad,
  most: (a, b) => b.dataset.boxes - a.dataset.boxes,
  unsure: (a, b) => a.dataset.least - b.dataset.least,
};
function update() {
  const text = find.value.trim().toLowerCase(), counts = {};
  let total = 0;
  for (const card of cards) card.hidden = !card.dataset.name.includes(text);
  for (const box of boxes) {
    const low = box.dataset.s < Number(least.value);
    box.classList.toggle("low", low);
    if (low || box.closest(".card").hidden) continue;
    counts[box.dataset.k] = (counts[box.dataset.k] || 0) + 1;
    total += 1;
  }
  for (const count of document.querySelectorAll("[data-count]"))
    count.textContent = counts[count.dataset.count] || 0;
  document.querySelector('label[for="c-all"] .count').textContent = total;
  said.value = Number(least.value).toFixed(2);
  grid.append(...cards.sort((a, b) => orders[sort.value](a, b) || orders.file(a, b)));
}
for (const control of [sort, find, least]) control.addEventListener("input", update);
update();
"""

PAGE = (
    HEAD
    + """\
{radios}<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
{prompt}
{notes}
{panel}
</header>
<main>
<div class="controls{many}" role="group" aria-label="Filter and sort">
<div class="line"><span class="what">label</span>{chips}{extras}
<span class="rest needs-js"><label>score at least
<input id="least" type="range" min="{least}" max="1" step="0.01" value="{least}">
<output id="said"></output>
</label>
<input id="find" type="search" placeholder="file name" aria-label="File name">
<select id="sort" aria-label="Sort by"><option value="file">by file name</option>{orders}
<option value="most">most boxes first</option><option value="unsure">least sure first</option>
</select></span></div>
</div>
<ul class="grid">
{cards}
</ul>
{unreadable}
<footer>A score is how sure the model is of this name for this box; scores of different models do
not compare. Boxes below the least score of the run are not on this page. Base labels had boxes in
the detector's training, novel ones had none. White dashes: true boxes that were not found under
their name. AP looks at all answers, those below the least score too.</footer>
</main>
<script>{script}</script>
</body>
</html>
"""
)
