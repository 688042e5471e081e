"""The gallery of `detect` and the boxes in figures: all shown, nothing interpreted, no network."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from detect_world import Oracle, coco, picture, write
from matplotlib.colors import to_hex

from cliplab.cli.detect import page
from cliplab.cli.detect.prepare import Task
from cliplab.data import open_image
from cliplab.detection.finding import Cut, find
from cliplab.detection.judging import judge
from cliplab.detection.pictures import read_pictures
from cliplab.report.gallery import thumbnail
from cliplab.viz.boxes import BOX_COLOURS, box_colour, ink_on, place_tags, plot_boxes, tag_size

TRAP = "<b>sheep & 'goat'</b>"
LEFT, RIGHT = [5.0, 5.0, 20.0, 30.0], [30.0, 5.0, 25.0, 30.0]  # x, y, width, height
LEFT_XYXY, RIGHT_XYXY = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]


class Page(HTMLParser):
    """What a browser would make of the page: elements with what is in them."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str, cls: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and cls in (a.get("class") or "").split()]


@pytest.fixture
def shown(tmp_path: Path) -> page.Shown:
    """a.png: a trap found and a goat missed; b.png: a goat found where nothing is."""
    names = [TRAP, "goat"]
    for i, name in enumerate(["a.png", "b.png"]):
        picture(tmp_path / name, seed=i)
    boxes = {"a.png": [(TRAP, LEFT), ("goat", RIGHT)], "b.png": []}
    pictures = read_pictures(write(tmp_path / "herd.json", coco(names, boxes)))
    answers = [[(0, 0.9, LEFT_XYXY)], [(1, 0.51, RIGHT_XYXY)]]
    oracle = Oracle(names, answers, {"novel": (1,)})
    found = find(oracle, pictures)
    judged = judge(found, oracle.classes, oracle.groups)
    thumbnails = {one.path: thumbnail(open_image(one.path)) for one in pictures}
    task = Task(pictures, oracle.classes, notes=("a <note>",))
    return page.Shown(task, oracle, found, judged, thumbnails)


# ---- the page ----------------------------------------------------------------------------------


def test_the_page_is_whole_and_says_everything_as_text(shown: page.Shown) -> None:
    html = page.gallery_html(shown, title="T & <T>")
    read = Page(html)
    assert read.open == []
    texts = [text for _, text in read.texts]
    assert ("title", "T & <T>") in read.texts
    assert f"{TRAP} 0.90" in texts
    assert "A <note>." in texts
    assert [tag for tag, _ in read.tags if tag == "b" and TRAP in html.split("</style>")[0]] == []
    assert "<b>sheep" not in html
    assert not re.search(r"(?:src|href|url)\W+https?:", html)
    assert all(
        (a.get("src") or "").startswith("data:image/jpeg") for t, a in read.tags if t == "img"
    )
    policy = next(a["content"] for t, a in read.tags if a.get("http-equiv"))
    assert "default-src 'none'" in (policy or "")


def test_boxes_lie_over_their_picture(shown: page.Shown) -> None:
    read = Page(page.gallery_html(shown, title="t"))
    assert [a["viewbox"] for t, a in read.tags if t == "svg"] == ["0 0 60 40"] * 2
    lines = [tuple(float(a[k] or 0) for k in ("x", "y", "width", "height"))
             for a in read.all("rect", "line")]  # fmt: skip
    assert lines == [tuple(LEFT), tuple(RIGHT)]
    missed = read.all("rect", "dash")
    assert [float(a["x"] or 0) for a in missed] == [RIGHT[0]]
    assert [a["class"] for a in read.all("g", "m")] == ["m k1"]
    assert ("title", "goat: there, and not found") in read.texts
    assert [a["data-k"] for a in read.all("g", "b")] == ["0", "1"]
    assert [a["data-s"] for a in read.all("g", "b")] == ["0.9000", "0.5100"]


def test_a_class_is_chosen_without_script(shown: page.Shown) -> None:
    html = page.gallery_html(shown, title="t")
    read = Page(html)
    radios = [a["id"] for a in read.all("input", "pick")]
    assert radios == ["c-all", "c-0", "c-1"]
    assert [a["for"] for a in read.all("label", "chip") if "for" in a] == radios
    cards = [set((a["class"] or "").split()) for a in read.all("li", "card")]
    assert [classes & {"h0", "h1"} for classes in cards] == [{"h0", "h1"}, {"h1"}]  # one missed
    assert "#c-1:checked ~ main .card:not(.h1)" in html
    body = html.index("<body>")
    assert html.index('id="c-0"') > body  # the rules reach `main` from radios that come before it
    assert html.index('id="c-0"') < html.index("<main>")


def test_what_is_known_is_judged_on_the_page(shown: page.Shown) -> None:
    read = Page(page.gallery_html(shown, title="t"))
    texts = [text for _, text in read.texts]
    assert "\u2717 1 missed" in texts
    assert "\u2717 1 wrong" in texts
    assert "2 true boxes in 2 pictures" in texts
    assert "50.0%" in texts  # AP50: the trap is found, the goat is not
    assert [a["data-bad"] for a in read.all("li", "card")] == ["1", "1"]
    bare = page.Shown(shown.task, shown.detector, shown.found, None, shown.thumbnails)
    html = page.gallery_html(bare, title="t")
    assert "true boxes in" not in html
    assert 'id="missed"' not in html
    assert "novel" in html


def test_of_many_pictures_an_even_sample_is_shown(
    shown: page.Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_CARDS", 3)
    paths = [Path(str(i)) for i in range(9)]
    chosen, side = page.choose_pictures(paths)
    assert sorted(path.name for path in chosen) == ["0", "3", "6"]
    assert page.choose_pictures([])[0] == set()
    assert side == page._LARGE
    one = dict(list(shown.thumbnails.items())[1:])
    few = page.Shown(shown.task, shown.detector, shown.found, shown.judged, one)
    html = page.gallery_html(few, title="t")
    assert len(Page(html).all("li", "card")) == 1
    assert "1 of 2 pictures, an even sample" in html


def test_of_thousands_of_boxes_the_best_are_drawn(tmp_path: Path) -> None:
    pictures = read_pictures(picture(tmp_path / "a.png"))
    answers = [(0, 1 - i / 6000, LEFT_XYXY) for i in range(5000)]
    oracle = Oracle(["goat"], [answers])
    found = find(oracle, pictures, Cut(score=0, overlap=None, top=None))
    assert found.boxes == 5000
    thumbnails = {pictures[0].path: thumbnail(open_image(pictures[0].path))}
    what = page.Shown(Task(pictures, oracle.classes), oracle, found, None, thumbnails)
    read = Page(page.gallery_html(what, title="t"))
    assert len(read.all("g", "b")) == page.MAX_BOXES == 200
    texts = [text for _, text in read.texts]
    assert "the best 200 are drawn" in texts
    assert texts.count("5,000") == 2  # boxes of all, and of the label
    _, ax = plt.subplots()
    plot_boxes(ax, torch.rand(3, 40, 60), [LEFT_XYXY] * 201, ["goat"] * 201)
    assert len(ax.texts) == 200
    plt.close("all")


# ---- tags --------------------------------------------------------------------------------------


def test_tags_keep_off_each_other_and_inside() -> None:
    boxes = [[10.0, 20, 60, 60]] * 4 + [[-5.0, -5, 200, 200]]
    sizes = [(30.0, 8.0)] * 5
    corners = place_tags(boxes, sizes, (100, 80))
    assert corners[0] == (10, 12)  # above its box
    areas = [(x, y, x + 30, y + 8) for x, y in corners]
    for i, a in enumerate(areas):
        assert min(a) >= 0
        assert a[2] <= 100
        assert a[3] <= 80
        for b in areas[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert place_tags([[0.0, 0, 5, 5]], [(300.0, 90.0)], (100, 80)) == [(0, 0)]


def test_chinese_is_wider() -> None:
    latin, chinese = tag_size("ab", 10.0)[0], tag_size("羊群", 10.0)[0]
    assert chinese - latin == pytest.approx(8)
    assert tag_size("a", 10.0)[1] == 15


@pytest.mark.parametrize("paint", [*BOX_COLOURS, "#000000", "#FFFFFF"])
def test_tags_can_be_read(paint: str) -> None:
    def light(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(paint), light(ink_on(paint))))
    assert (high + 0.05) / (low + 0.05) >= 3  # WCAG: large or bold text


# ---- figures -----------------------------------------------------------------------------------


def test_a_figure_shows_boxes_under_their_names() -> None:
    _, ax = plt.subplots()
    boxes = torch.tensor([LEFT_XYXY, RIGHT_XYXY, RIGHT_XYXY])
    names, scores = ["躺着的羊", "goat", "躺着的羊"], torch.tensor([0.876, 0.5, 0.25])
    assert plot_boxes(ax, torch.rand(3, 40, 60), boxes, names, scores) is ax
    assert [text.get_text() for text in ax.texts] == ["躺着的羊 0.88", "goat 0.50", "躺着的羊 0.25"]
    frames = [patch for patch in ax.patches if not patch.get_fill()]
    assert [patch.get_bbox().bounds for patch in frames] == [
        (4.5, 4.5, 20, 30), (29.5, 4.5, 25, 30), (29.5, 4.5, 25, 30),
    ]  # fmt: skip
    paints = [to_hex(patch.get_edgecolor()).upper() for patch in frames]
    assert paints == [BOX_COLOURS[0], BOX_COLOURS[1], BOX_COLOURS[0]]
    plt.close("all")


def test_a_figure_without_boxes_names_or_scores() -> None:
    _, axes = plt.subplots(1, 3)
    plot_boxes(axes[0], torch.rand(3, 4, 6), torch.zeros(0, 4))
    assert not axes[0].patches
    plot_boxes(axes[1], torch.rand(3, 4, 6), [[1.0, 1, 3, 3]])
    assert (len(axes[1].patches), len(axes[1].texts)) == (1, 0)
    plot_boxes(axes[2], torch.rand(3, 4, 6), [[1.0, 1, 3, 3]], ["a"], colours={"a": "#112233"})
    assert to_hex(axes[2].patches[0].get_edgecolor()) == "#112233"
    assert len({box_colour(k) for k in range(21)}) == 21
    with pytest.raises(ValueError, match="names: got 2 for 1 boxes; expected one for each"):
        plot_boxes(axes[1], torch.rand(3, 4, 6), [[1.0, 1, 3, 3]], ["a", "b"])
    plt.close("all")


@pytest.mark.parametrize(
    ("score", "least"), [(0.696, "0.69"), (0.29, "0.29"), (0.999, "0.99"), (0.0, "0.00")]
)
def test_the_slider_at_its_lowest_hides_nothing(shown, score: float, least: str) -> None:
    found = replace(shown.found, cut=Cut(score=score))
    html = page.gallery_html(replace(shown, found=found), title="t")
    slider = next(a for tag, a in Page(html).tags if a.get("id") == "least")
    assert slider["min"] == slider["value"] == least
