// Make what is too high or too wide smaller, figures first, until it fits; then show the slides.
const HEIGHT = 720, FOOT = 32, WIDTH = 1280, LEAST = 0.5, FIGURES = [540, 500, 460, 400];
function fits(body) {
  const inner = [...body.querySelectorAll("*")];
  return body.scrollHeight <= HEIGHT - FOOT && body.scrollWidth <= WIDTH &&
    inner.every((one) => !one.clientWidth || one.scrollWidth <= one.clientWidth + 1);
}
function shrink(section) {
  section.style.display = "block";
  const body = section.querySelector(".body");
  for (const high of FIGURES) {
    body.style.setProperty("--figure", `${high}px`);
    if (fits(body)) break;
  }
  let size = 1;
  while (!fits(body) && size > LEAST) {
    size = Math.round((size - 0.05) * 100) / 100;
    body.style.setProperty("--size", size);
  }
  section.dataset.size = fits(body) ? size : "too much";
  section.style.display = "";
}
// an embedded font is only there when it is asked for, and decides how wide a formula is;
// a figure has its size when it is loaded
const loaded = new Promise((done) => window.addEventListener("load", done));
Promise.allSettled([loaded, ...[...document.fonts].map((font) => font.load())]).then(() => {
  document.querySelectorAll(".slides > section").forEach(shrink);
  Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: 0, center: false, hash: true, transition: "none",
    slideNumber: "c/t", controls: false,
  });
});
