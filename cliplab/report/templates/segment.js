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
