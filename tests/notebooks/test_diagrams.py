"""The drawn architectures: up to date, true to the shipped models, and legible."""

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import draw_diagrams
import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from test_notation import symbols

from cliplab import pasture
from cliplab.encoders import load_encoder
from cliplab.models import glip
from cliplab.models.groupvit import load_groupvit
from cliplab.models.vild import load_vild
from cliplab.runtime import checkpoint_dir

NAMES = list(draw_diagrams.FACTS)
LESSON = {"clip": "01", "zero_shot": "02", "vild": "03", "glip": "04", "groupvit": "05"}
SVG = "{http://www.w3.org/2000/svg}"
Rect = tuple[float, float, float, float]  # left, top, right, bottom


def read(name: str) -> ElementTree.Element:
    return ElementTree.parse(draw_diagrams.FOLDER / f"{name}.svg").getroot()


def lines(name: str) -> list[str]:
    return ["".join(text.itertext()) for text in read(name).iter(f"{SVG}text")]


def test_the_committed_pictures_are_those_of_the_shipped_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_diagrams.main(tmp_path)
    for name in NAMES:
        committed = (draw_diagrams.FOLDER / f"{name}.svg").read_bytes()
        assert (tmp_path / f"{name}.svg").read_bytes() == committed, (
            f"{name}: run python tools/draw_diagrams.py"
        )
        assert len(committed) < 60_000
    shown = re.findall(r"^!\[(.{200,}?)\]\(figures/(\w+)\.svg\)$", capsys.readouterr().out, re.M)
    assert [name for _, name in shown] == NAMES
    assert all(alt == read(name).findtext(f"{SVG}title") for alt, name in shown)


def test_shapes_on_the_arrows_are_what_the_package_gives() -> None:
    drawn = {name: {line.replace("\xa0", " ") for line in lines(name)} for name in NAMES}
    portrait = pasture.draw(pasture.portrait(3, split="test"), 64)
    clip = load_encoder("pasture", device="cpu")
    assert f"(N, {clip.encode_text(['a sheep']).shape[1]})" in drawn["clip"]
    assert f"un  (N, {clip.encode_image([portrait]).shape[1]})" in drawn["zero_shot"]
    ids, pixels = torch.ones(1, 12, dtype=torch.long), torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        found = load_vild(checkpoint_dir("vild") / "model.safetensors")(pixels)[0]
        scores = glip.load_glip("pasture")(pixels, ids, ids.bool()).token_logits[0]
        groups = load_groupvit(checkpoint_dir("groupvit")).group(pixels[..., :96, :96])
    assert f"er  {tuple(found.image_emb.shape)}" in drawn["vild"]
    assert f"b  {tuple(found.boxes_xyxy.shape)}" in drawn["vild"]
    assert f"S  {tuple(scores.shape)}" in drawn["glip"]
    assert f"A  {tuple(groups.assignments[0].soft[0].shape)}" in drawn["groupvit"]


# ---- legible -------------------------------------------------------------------------------


def width_of(text: ElementTree.Element) -> float:
    """As DejaVu Sans has it, the widest of the fonts that are asked for."""
    total, pieces = 0.0, [(text.text, text), *((part.text, part) for part in text)]
    for words, part in [*pieces, *((part.tail, text) for part in text)]:
        size = float(part.get("font-size") or text.get("font-size") or 0)
        font = FontProperties(
            family="DejaVu Sans", weight=part.get("font-weight", "normal"), size=size
        )
        total += text_to_path.get_text_width_height_descent(words or "", font, False)[0]
    return total


def texts(root: ElementTree.Element) -> Iterator[tuple[str, Rect]]:
    for text in root.iter(f"{SVG}text"):
        x, y, size = (float(text.get(name, 0)) for name in ("x", "y", "font-size"))
        width = width_of(text)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "")]
        yield "".join(text.itertext()), (left, y - 0.72 * size, left + width, y + 0.2 * size)


def boxes(root: ElementTree.Element) -> list[Rect]:
    """Boxes and frames; the card is first."""
    sides = [
        [float(r.get(k, 0)) for k in ("x", "y", "width", "height")] for r in root.iter(f"{SVG}rect")
    ]
    return [(x, y, x + w, y + h) for x, y, w, h in sides]


def pieces(root: ElementTree.Element) -> list[list[Rect]]:
    """The straight pieces of each arrow."""
    paths = [p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("marker-end")]
    stops = [[tuple(map(float, s.split())) for s in re.split("[ML]", d) if s] for d in paths]
    return [
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for (a, b), (c, d) in pairwise(path)]
        for path in stops
    ]


def meet(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a: Rect, b: Rect) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_large_and_nothing_lies_on_it(name: str) -> None:
    root = read(name)
    (card, *drawn), words = boxes(root), list(texts(root))
    lines = [piece for path in pieces(root) for piece in path]
    sizes = [float(part.get("font-size", 99)) for part in root.iter()]
    assert float(root.get("width", 0)) >= 1000
    assert min(sizes) * 1000 / float(root.get("width", 0)) >= 14
    wrong = [(a, b) for (a, one), (b, other) in combinations(words, 2) if meet(one, other)]
    wrong += [
        (a, box) for a, one in words for box in drawn if meet(one, box) and not inside(one, box)
    ]
    wrong += [(a, line) for a, one in words for line in lines if meet(one, line)]
    assert [(a, one) for a, one in words if not inside(one, card)] == wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_arrows_do_not_cross(name: str) -> None:
    root = read(name)
    arrows = pieces(root)
    assert all(x0 == x1 or y0 == y1 for path in arrows for x0, y0, x1, y1 in path)
    for one, other in combinations(arrows, 2):
        assert not any(meet(a, b) for a in one for b in other)
    frames = [r.get("fill") == "none" for r in root.iter(f"{SVG}rect")]
    solid = [box for box, frame in zip(boxes(root), frames, strict=True) if not frame][1:]
    assert not [(a, box) for path in arrows for a in path for box in solid if meet(a, box)]


@pytest.mark.parametrize("name", NAMES)
def test_symbols_are_those_of_the_lesson(name: str) -> None:
    table = {re.sub(r"\W|mathbf", "", s) for s, of in symbols().items() if LESSON[name] in of}
    bold = {t.text for t in read(name).iter(f"{SVG}tspan") if t.get("font-weight")}
    italic = {t.text for t in read(name).iter(f"{SVG}tspan") if t.get("font-style")}
    used = {letter for words in bold | italic if words and len(words) < 3 for letter in words}
    assert used <= table | set("hw√T"), used - table  # map sides; a root; rows of t_k
