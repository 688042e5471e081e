"""The gallery's page: its template, its looks and its script; nothing here knows about scores."""

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f7; --card: #fff; --ink: #1b2733; --muted: #57656f;
  --line: #dde2e6; --track: #e9edf0; --focus: #0072b2; --right: #00795a; --wrong: #c04f00;
  --heat: 0, 114, 178; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --card: #1e2429; --ink: #e8ecef;
  --muted: #a3afb8; --line: #323b42; --track: #2c343b; --focus: #56b4e9; --right: #2bbf95;
  --wrong: #ff9a4d; --heat: 86, 180, 233; } }
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
.note { margin: 14px 0 0; padding: 9px 14px; border-radius: 8px; background: var(--card);
  border: 1px solid var(--line); border-left: 5px solid var(--focus); overflow-wrap: anywhere; }
.more { margin: 10px 0 0; }

.panel { display: grid; gap: 18px; margin: 20px 0 4px; align-items: stretch;
  grid-template-columns: minmax(250px, 1fr) minmax(300px, 1.75fr) minmax(250px, .95fr); }
@media (max-width: 980px) { .panel { grid-template-columns: 1fr; } }
.panel section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 16px 18px; min-width: 0; }
.panel h2 { margin: 0 0 8px; font-size: 14px; font-weight: 600; color: var(--muted); }
.big { font-size: 44px; line-height: 1.05; font-weight: 700; letter-spacing: -.5px;
  font-variant-numeric: tabular-nums; margin: 0; }
.small { margin: 3px 0 0; font-size: 13px; color: var(--muted); }
.numbers { margin: 14px 0 0; width: 100%; font-size: 13px; }
.numbers th { color: var(--muted); } .numbers td { text-align: right; padding: 3px 0 3px 8px;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
.confusion { width: auto; border-collapse: separate; border-spacing: 3px; }
.confusion th { padding: 3px 6px; font-size: 12.5px; max-width: 11em; vertical-align: middle; }
.confusion thead th { text-align: center; vertical-align: bottom; }
.confusion td { padding: 0; min-width: 58px; text-align: center; }
.confusion button, .confusion span.cell { display: block; width: 100%; border-radius: 6px;
  border: 2px solid transparent; padding: 10px 6px; color: var(--ink);
  font-variant-numeric: tabular-nums; background: rgba(var(--heat), var(--a)); }
.confusion .deep button, .confusion .deep span.cell { color: #fff; }
@media (prefers-color-scheme: dark) { .confusion .deep button, .confusion .deep span.cell {
  color: #10161b; } }
.confusion .diagonal button, .confusion .diagonal span.cell { border-color: var(--right); }
.confusion button[aria-pressed=true] { outline: 3px solid var(--ink); outline-offset: 1px; }
.confusion .recall { font-size: 12.5px; color: var(--muted); padding-left: 8px; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
.confusion .recall b { color: var(--ink); }
.pairs { width: auto; } .pairs td { padding: 3px 0 3px 14px; text-align: right;
  font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; max-width: 262px; margin: auto; }
svg text { fill: var(--muted); font-size: 11px; } svg .axis { stroke: var(--line); }
svg .ideal { stroke: var(--muted); stroke-dasharray: 4 3; } svg .bin { fill: #0072b2; }
svg .gap { stroke: var(--wrong); stroke-width: 2; } svg .count { fill: var(--muted); opacity: .45; }

.controls { padding: 12px 0; position: sticky; top: 0; background: var(--page); z-index: 1; }
.line { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 3px 0; }
html:not(.js) .needs-js { display: none; }
button, select, input { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 999px; padding: 5px 13px; max-width: 100%; }
button { cursor: pointer; }
.line button[aria-pressed=true] { background: var(--ink); color: var(--page);
  border-color: var(--ink); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.what { color: var(--muted); font-size: 13px; min-width: 4.6em; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px;
  background: var(--c); }
.count { opacity: .7; margin-left: 5px; font-variant-numeric: tabular-nums; }
.rest { margin-left: auto; display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
#status { color: var(--muted); min-width: 8em; text-align: right; }
.grid { display: grid; gap: 18px; padding: 0; margin: 6px 0 32px; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(258px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; display: flex; flex-direction: column; content-visibility: auto;
  contain-intrinsic-size: auto 400px; }
.card[data-right="0"] { border-color: var(--wrong); box-shadow: inset 0 4px 0 var(--wrong); }
.card[hidden] { display: none; }
.card img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--track);
  display: block; }
.card[data-right="0"] img { margin-top: 4px; }
.body { padding: 12px 14px 14px; display: flex; flex-direction: column; gap: 9px; flex: 1; }
.body h2 { margin: 0; font-size: 16px; font-weight: 650; overflow-wrap: anywhere; }
.badge { margin-left: 8px; padding: 2px 8px; border-radius: 999px; font-size: 12px;
  font-weight: 500; color: var(--muted); border: 1px solid var(--line); white-space: nowrap; }
.truth { margin: -7px 0 0; font-size: 13.5px; font-weight: 600; overflow-wrap: anywhere; }
.truth.yes { color: var(--right); } .truth.no { color: var(--wrong); }
.name { margin: -8px 0 0; color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th { text-align: left; font-weight: 400; padding: 2px 8px 2px 0;
  overflow-wrap: anywhere; }
tr.best th, tr.best .share { font-weight: 650; }
tr.true th { text-decoration: underline; text-decoration-color: var(--right);
  text-decoration-thickness: 2px; text-underline-offset: 3px; }
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
@media print { .controls { display: none; } .card { break-inside: avoid; } }
"""

SCRIPT = """
document.documentElement.classList.add("js");
const grid = document.querySelector(".grid"), cards = [...grid.children];
const sort = document.querySelector("#sort"), find = document.querySelector("#find");
const wanted = { class: "all", right: "all", true: "all" };
const buttons = [...document.querySelectorAll("button[data-key]")];
const cells = [...document.querySelectorAll("button[data-cell]")];
const chosen = document.querySelector("#true");
const orders = {
  given: (a, b) => a.dataset.rank - b.dataset.rank,
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
    const keep = Object.entries(wanted).every(([k, v]) => v === "all" || card.dataset[k] === v)
      && card.dataset.name.includes(text);
    card.hidden = !keep;
    count += keep;
  }
  grid.append(...cards.sort((a, b) => orders[sort.value](a, b) || orders.file(a, b)));
  for (const b of buttons)
    b.setAttribute("aria-pressed", String(wanted[b.dataset.key] === b.dataset.value));
  const both = `${wanted.true} ${wanted.class}`;
  for (const cell of cells)
    cell.setAttribute("aria-pressed", String(cell.dataset.cell === both));
  if (chosen) chosen.value = wanted.true;
  document.querySelector("#status").textContent = `${count} of ${cards.length} shown`;
}
for (const b of buttons) b.addEventListener("click", () => {
  wanted[b.dataset.key] = b.dataset.value;
  update();
});
for (const cell of cells) cell.addEventListener("click", () => {
  const again = cell.getAttribute("aria-pressed") === "true";
  [wanted.true, wanted.class] = again ? ["all", "all"] : cell.dataset.cell.split(" ");
  wanted.right = "all";
  update();
});
if (chosen) chosen.addEventListener("change", () => { wanted.true = chosen.value; update(); });
sort.addEventListener("change", update);
find.addEventListener("input", update);
update();
"""

# A page may load nothing from anywhere, whatever a label or a file name contains.
HEAD = """<!DOCTYPE html>
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
"""

PAGE = (
    HEAD
    + """\
<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
{notes}
{panel}
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
)
