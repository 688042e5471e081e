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
