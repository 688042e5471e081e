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
follow(() => {
  grid.style.setProperty("--tint", tint.value);
  arrange(orders);
}, sort, find, tint, ...picks);
