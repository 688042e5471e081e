document.documentElement.classList.add("js");
const grid = document.querySelector(".grid"), cards = [...grid.children];
const sort = document.querySelector("#sort"), find = document.querySelector("#find");
// Shows the cards whose file has the name and that `keep` lets through, in the order chosen.
function arrange(orders, keep = () => true) {
  const text = find.value.trim().toLowerCase();
  for (const card of cards) card.hidden = !(keep(card) && card.dataset.name.includes(text));
  grid.append(...cards.sort((a, b) => orders[sort.value](a, b) || orders.file(a, b)));
}
function follow(update, ...controls) {
  for (const control of controls) control.addEventListener("input", update);
  update();
}
