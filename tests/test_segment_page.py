"""The gallery of `segment`, its colours and its overlays: all shown, nothing interpreted."""

import base64
import io
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segment_world import COLOURS, Knowing, flat, knowing, numbers, run
from skimage.color import deltaE_ciede2000, rgb2lab
from test_detect_page import Page

from cliplab.cli.segment import page
from cliplab.cli.segment.page_parts import label_rules
from cliplab.cli.segment.summary import percent
from cliplab.pasture import SEMANTIC_CLASSES
from cliplab.segmentation import overlay
from cliplab.segmentation.colours import NOTHING, label_colours, palette, rgb

__all__ = ["knowing"]

TRAP = "<b>sheep & 'goat'</b>"


def pixels_of(uri: str | None) -> np.ndarray:
    """A layer as RGBA."""
    kind, _, data = (uri or "").partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


@pytest.fixture
def html(tmp_path: Path, knowing: Knowing) -> str:
    """a.png is half sheep, half dog, and judged; <b>.png is grass, of which nothing is known."""
    flock = tmp_path / "flock & <T>"
    flat(flock / "a.png", "sd")
    flat(flock / "<b>.png", "gg")
    numbers(flock / "a_labels.png", "12")
    (flock / "classes.txt").write_text("grass\nsheep\ndog", encoding="utf-8")
    labels = ("--labels", f"{TRAP}=sheep", "dog", "--background", "grass")
    assert run(flock, *labels, "--html", tmp_path / "g.html") == 0
    return (tmp_path / "g.html").read_text(encoding="utf-8")


# ---- the page ----------------------------------------------------------------------------------


def test_the_page_is_whole_and_says_everything_as_text(html: str) -> None:
    read = Page(html)
    assert read.open == []
    texts = [text for _, text in read.texts]
    assert ("title", "flock & <T>, pixels by label") in read.texts
    assert texts.count(TRAP) >= 3  # its chip, its row, its card
    assert "<b>.png" in texts
    assert "<b>sheep" not in html
    assert not re.search(r"(?:src|href|url)\W+https?:", html)
    images = [a for t, a in read.tags if t == "img"]
    assert all((a["src"] or "").startswith("data:image/png") for a in images)
    policy = next(a["content"] for t, a in read.tags if a.get("http-equiv"))
    assert "default-src 'none'" in (policy or "")
    cards = read.all("li", "card")
    assert all((a["style"] or "").startswith("--p:url(data:image/jpeg;base64,") for a in cards)


def test_every_label_is_a_layer_of_its_own_in_its_colour(html: str) -> None:
    read = Page(html)
    layers = [(a["class"], pixels_of(a["src"])) for a in read.all("img", "b")]
    assert [kind for kind, _ in layers] == ["b k0", "b k1", "b k2", "b k1", "b k2"]  # b.png first
    colours = label_colours(
        ("background", TRAP, "dog"), (("grass",), ("sheep",), ("dog",)), has_background=True
    )
    sheep, dog = layers[1][1], layers[2][1]
    assert sheep.shape == dog.shape == (10, 20, 4)
    assert sheep[5, 5].tolist() == [*rgb(colours[1]), 255]
    assert dog[5, 15].tolist() == [*rgb(colours[2]), 255]
    assert (sheep[5, 15, 3], dog[5, 5, 3]) == (0, 0)
    assert ((sheep[..., 3] > 0) ^ (dog[..., 3] > 0)).all()


def test_a_label_is_chosen_without_script(html: str) -> None:
    read = Page(html)
    radios = [a["id"] for a in read.all("input", "pick")]
    assert radios == ["c-all", "c-0", "c-1", "c-2"]
    assert [a["for"] for a in read.all("label", "chip") if "for" in a] == radios
    cards = [set((a["class"] or "").split()) for a in read.all("li", "card")]
    assert cards == [{"card", "h0"}, {"card", "h1", "h2"}]
    for rule in (".card:not(.h1)", ".b:not(.k1)"):
        assert f"#c-1:checked ~ main {rule}" in html
    body = html.index("<body>")
    assert body < html.index('id="c-1"') < html.index("<main>")
    assert label_rules(2).count("display: none") == 2


def test_what_is_known_is_judged_on_the_page(html: str) -> None:
    read = Page(html)
    texts = [text for _, text in read.texts]
    assert "Mean IoU" in texts
    assert ("p", "100.0%") in read.texts
    assert "1 picture with known masks" in texts
    assert [a["data-iou"] for a in read.all("li", "card")] == ["", "1.0000"]
    assert texts.count("truth") == 1
    shares = json.loads(read.all("li", "card")[1]["data-shares"] or "")
    assert shares == {"1": 0.5, "2": 0.5}


def test_without_truth_nothing_is_judged(tmp_path: Path, knowing: Knowing) -> None:
    flat(tmp_path / "p" / "a.png", "sd")
    labels = ("--labels", "sheep", "dog", "--threshold", 0.5)
    assert run(tmp_path / "p", *labels, "--html", tmp_path / "g.html") == 0
    html = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "IoU" not in re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.DOTALL)
    assert "background below <b>0.5</b>" in html


def test_of_many_pictures_an_even_sample_is_shown(
    tmp_path: Path, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_CARDS", 3)
    chosen, side = page.choose_pictures([Path(str(i)) for i in range(9)])
    assert sorted(path.name for path in chosen) == ["0", "3", "6"]
    assert page.choose_pictures([])[0] == set()
    assert side == page._LARGE
    for i in range(5):
        flat(tmp_path / "p" / f"{i}.png", "sd")
    assert run(tmp_path / "p", "--labels", "sheep", "dog", "--html", tmp_path / "g.html") == 0
    html = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert len(Page(html).all("li", "card")) == 3
    assert "3 of 5 pictures, an even sample" in html


def test_thumbnails_are_small_and_their_layers_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    labels = (np.arange(900) // 450)[:, None].repeat(1200, 1).astype(np.uint8)
    card = page.make_card(
        Image.fromarray(noise),
        labels,
        ["#112233", "#445566"],
        side=120,
        true=labels[::3, ::3] * 255,
    )
    assert len(card.picture) < 20_000
    top = pixels_of(card.found[0])
    assert top.shape == (90, 120, 4)
    assert top[:45, :, 3].min() == 255
    assert top[45:, :, 3].max() == 0
    assert list(card.true) == [0]  # 255 is not judged, and not shown


# ---- colours -----------------------------------------------------------------------------------


def test_the_pasture_has_colours_that_can_be_told_apart() -> None:
    names = SEMANTIC_CLASSES
    colours = label_colours(names, [(name,) for name in names], has_background=False)
    lab = {
        name: rgb2lab(np.array(rgb(colour)) / 255)
        for name, colour in zip(names, colours, strict=True)
    }
    apart = {(a, b): deltaE_ciede2000(lab[a], lab[b]) for a, b in combinations(names, 2)}
    assert min(apart.values()) > 14, min(apart, key=apart.__getitem__)
    chinese = ("草地", "雪", "天空", "山丘", "水面", "树", "谷仓", "栅栏", "水槽", "干草",
               "羊", "山羊", "牛", "狗", "马")  # fmt: skip
    assert label_colours(chinese, [()] * 15, has_background=False) == colours


def test_other_labels_have_okabe_and_itos_colours_and_never_the_same_twice() -> None:
    names = tuple(f"x{i}" for i in range(254))
    colours = label_colours(("background", *names), [()] * 255, has_background=True)
    assert colours[:3] == (NOTHING, "#0072B2", "#D55E00")
    assert len(set(colours)) == 255
    numbers_of = palette(colours)
    assert len(numbers_of) == 768
    assert numbers_of[-3:] == [255, 255, 255]
    assert numbers_of[3:6] == [0, 114, 178]
    both = label_colours(("sheep", "x", "羊", "cow"), [()] * 4, has_background=False)
    assert both[0] == "#D55E00"
    assert len(set(both)) == 4
    words = label_colours(("动物", "x"), [("sheep",), ()], has_background=False)
    assert words == ("#D55E00", "#0072B2")
    black = label_colours(("background", "grass"), [(), ()], has_background=False)
    assert NOTHING not in black  # a label that is only called so


# ---- overlays ----------------------------------------------------------------------------------


def test_pixels_take_the_colour_of_their_label_and_the_background_none() -> None:
    picture = np.full((4, 6, 3), (200, 100, 0), np.uint8)
    labels = np.array([[0, 0, 0, 1, 1, 1]] * 4, np.uint8)
    found = overlay.paint(picture, labels, [NOTHING, "#0000FF"]).astype(int)
    assert len(set(found[0, 0].tolist())) == 1  # grey
    assert found[0, 5, 2] > 150 > found[0, 5, 0]
    assert (found[:, 2].sum(1) < found[:, 1].sum(1)).all()  # the border is dark
    assert np.array_equal(found[:, 3], found[:, 5])
    assert overlay.borders(labels).sum() == 4


@pytest.mark.filterwarnings("error")
def test_an_overlay_is_the_same_in_any_style(ax) -> None:
    """Where the house style is on, as in a notebook, its layout asks for axes placed by itself."""
    image, labels = Image.new("RGB", (40, 20)), np.zeros((20, 40), np.uint8)
    assert overlay.figure(image, labels, ["sky"], ["#0000FF"]).width > 80


def test_an_overlay_shows_the_picture_its_colours_and_a_legend() -> None:
    size, names = (30, 20), ["background", "羊", "dog", "absent"]
    image = Image.new("RGB", size, COLOURS["sky"])
    labels = np.zeros(size[::-1], np.uint8)
    labels[:10], labels[19, 29] = 1, 2
    colours = [NOTHING, "#D55E00", "#E69F00", "#CC79A7"]
    sheet = np.asarray(overlay.figure(image, labels, names, colours)).astype(int)
    assert sheet.shape[1] == 2 * 480 + 3 * 12
    assert sheet[100, 100].tolist() == [0, 0, 255]
    assert np.abs(sheet[60, 480 + 40] - sheet[100, 900]).max() == 0
    legend = sheet[320 + 24 :].reshape(-1, 3)
    shown = [(np.abs(legend - rgb(colour)).sum(1) < 6).any() for colour in colours[1:]]
    assert shown == [True, True, False]
    entries, rows = overlay._legend(labels, names, 984)
    assert [text for *_, text in entries] == ["羊  50%", "background  50%", "dog  <1%"]
    assert rows == 1


def test_a_long_legend_has_rows_inside_the_sheet() -> None:
    labels = np.arange(40, dtype=np.uint8)[None].repeat(3, 0)
    entries, rows = overlay._legend(labels, [f"label number {i}" for i in range(40)], 500)
    assert rows == len({y for _, y, *_ in entries}) > 10
    assert max(x for x, *_ in entries) < 400


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (4000, 900)])
def test_overlays_of_odd_pictures_fit_a_slide(size: tuple[int, int]) -> None:
    labels = np.zeros(size[::-1], np.uint8)
    sheet = overlay.figure(Image.new("RGB", size), labels, ["a"], ["#D55E00"])
    assert max(sheet.size) <= 1500
    assert min(sheet.size) >= 70
    stacked = size[0] > 2 * size[1]  # a wide picture stands above its colours
    assert (sheet.width == 720 + 2 * 12) is stacked


def test_shares_are_never_rounded_to_nothing() -> None:
    assert [percent(x) for x in (0.0, 0.001, 0.005, 0.5, 1.0)] == ["0%", "<1%", "0%", "50%", "100%"]
