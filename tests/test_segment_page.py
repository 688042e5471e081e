"""The gallery of `segment`, all shown, nothing interpreted."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segment_world import Knowing, flat, knowing, numbers, run
from test_detect_page import Page

from cliplab.report import segmentation_page as page
from cliplab.viz.segmentation import class_colours, rgb

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
    words = (("grass",), ("sheep",), ("dog",))
    names = ("background", TRAP, "dog")
    colours = tuple(class_colours(names, words, has_background=True).values())
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
