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
  arrange(orders, (card) =>
    Object.entries(wanted).every(([k, v]) => v === "all" || card.dataset[k] === v));
  for (const b of buttons)
    b.setAttribute("aria-pressed", String(wanted[b.dataset.key] === b.dataset.value));
  const both = `${wanted.true} ${wanted.class}`;
  for (const cell of cells)
    cell.setAttribute("aria-pressed", String(cell.dataset.cell === both));
  if (chosen) chosen.value = wanted.true;
  const count = cards.filter((card) => !card.hidden).length;
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
follow(update, sort, find);
