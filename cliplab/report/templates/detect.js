const boxes = [...document.querySelectorAll(".b")];
const least = document.querySelector("#least"), said = document.querySelector("#said");
const orders = {
  file: (a, b) => a.dataset.rank - b.dataset.rank,
  bad: (a, b) => b.dataset.bad - a.dataset.bad,
  most: (a, b) => b.dataset.boxes - a.dataset.boxes,
  unsure: (a, b) => a.dataset.least - b.dataset.least,
};
follow(() => {
  const counts = {};
  let total = 0;
  arrange(orders);
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
}, sort, find, least);
