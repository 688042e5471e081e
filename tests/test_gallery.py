"""The gallery: every number, nothing interpreted, no network, mistakes first."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from tiny_checkpoints import noise_images

from cliplab.classification.assessment import assess
from cliplab.classification.scores import Scores
from cliplab.report.gallery import (
    MAX_BARS,
    Heading,
    choose_cards,
    gallery_html,
    most_wrong,
    panel_html,
    thumbnail,
)


class Page(HTMLParser):
    """What a browser would make of the page: tags, and the text inside each."""

    VOID = ("meta", "img", "input", "link", "br")

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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str, cls: str | None = None) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and (cls is None or a.get("class") == cls)]


def random_scores(n: int, k: int) -> Scores:
    cosine = torch.rand(n, k, generator=torch.Generator().manual_seed(0))
    return Scores.from_cosine([f"<b>class {i}</b>" for i in range(k)], cosine, 10.0)


def thumbs(n: int) -> dict[int, str]:
    return {i: thumbnail(image) for i, image in enumerate(noise_images(n))}


def page_of(
    n_classes: int,
    names: list[str],
    *,
    unreadable: dict[str, str] | None = None,
    notes: tuple[str, ...] = (),
    true: list[int | None] | None = None,
) -> tuple[Page, str, Scores]:
    scores = random_scores(len(names), n_classes)
    heading = Heading("T & <T>", {"a": "<b>"}, notes, unreadable or {})
    panel = ""
    if true and (judged := assess(scores, true, [None] * len(names))):
        panel = panel_html(judged, [("<i>what</i>", "<u>5</u>")])
    html = gallery_html(scores, names, thumbs(len(names)), heading=heading, true=true, panel=panel)
    return Page(html), html, scores


def test_gallery_is_well_formed_and_shows_every_number() -> None:
    page, html, scores = page_of(3, ["a.png", "b.png"])
    assert page.open == []
    cards = page.all("li", "card")
    assert [card["data-class"] for card in cards] == [str(k) for k in scores.prediction.tolist()]
    shown = re.findall(r'<td class="share">([\d.]+%)</td>', html)
    assert shown == [f"{share:.1%}" for share in scores.probability.flatten().tolist()]
    bars = [re.search(r"width:([\d.]+%)", tag["style"])[1] for tag in page.all("div", "fill")]
    assert bars == shown
    for i in range(2):
        assert f"margin {float(scores.margin[i]):.1%}" in html
        assert f"entropy {float(scores.relative_entropy[i]):.0%}" in html


def test_gallery_escapes_names_labels_title_and_facts() -> None:
    evil = '"><script>alert(1)</script>.png'
    page, html, _ = page_of(2, [evil, "&amp;.png"], unreadable={evil: "broken <i>; mend"})
    assert len(page.all("script")) == 1
    assert page.all("i") == []
    assert [image["alt"] for image in page.all("img")] == [evil, "&amp;.png"]
    texts = [text for _, text in page.texts]
    assert evil in texts
    assert ": broken <i>; mend" in texts
    assert ("h1", "T & <T>") in page.texts
    assert "<b>class 0</b>" in texts
    assert "<b>class" not in html


def test_gallery_needs_no_network() -> None:
    page, html, _ = page_of(2, ["a.png"])
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    sources = [tag[key] for _, tag in page.tags for key in ("src", "href") if key in tag]
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    policy = next(tag for tag in page.all("meta") if tag.get("http-equiv"))
    assert "default-src 'none'" in policy["content"]


def test_gallery_controls_are_native_and_named() -> None:
    page, html, scores = page_of(3, ["a.png", "b.png", "c.png"])
    chips = page.all("button")
    assert [chip["data-value"] for chip in chips] == ["all", "0", "1", "2"]
    assert [chip["aria-pressed"] for chip in chips] == ["true", "false", "false", "false"]
    counts = re.findall(r'<span class="count">(\d+)</span>', html)
    predicted = scores.prediction.tolist()
    assert counts == ["3", *(str(predicted.count(k)) for k in range(3))]
    for tag in ("input", "select"):
        assert page.all(tag)[0]["aria-label"]
    assert page.all("html")[0]["lang"] == "en"
    assert "prefers-color-scheme: dark" in html
    assert ":focus-visible" in html


def test_gallery_folds_many_classes_and_ranks_them() -> None:
    page, html, scores = page_of(MAX_BARS + 3, ["a.png"])
    assert page.all("details") != []
    assert ("summary", "3 more") in page.texts
    shown = re.findall(r'<td class="share">([\d.]+)%</td>', html)
    ranked = scores.probability[0].sort(descending=True).values.tolist()
    assert shown == [f"{100 * share:.1f}" for share in ranked]


def test_close_calls_are_marked() -> None:
    cosine = torch.tensor([[0.5, 0.499], [0.5, 0.0]])
    scores = Scores.from_cosine(["a", "b"], cosine, 10.0)
    html = gallery_html(scores, ["x", "y"], thumbs(2), heading=Heading("t", {}))
    first, second = html.split('<li class="card"')[1:]
    assert "close call" in first
    assert "close call" not in second


@pytest.mark.parametrize(
    ("names", "rows", "true"),
    [(["x", "y"], [0], None), (["x"], [1], None), (["x"], [0], [0, 1])],
)
def test_gallery_parts_must_fit(
    names: list[str], rows: list[int], true: list[int | None] | None
) -> None:
    scores = Scores.from_cosine("ab", torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match="gallery: got 1 scores"):
        gallery_html(scores, names, dict.fromkeys(rows, "u"), heading=Heading("t", {}), true=true)


# ---- the truth -------------------------------------------------------------------------------


def test_wrong_cards_are_marked_and_the_truth_is_beside() -> None:
    names = ["a.png", "b.png", "c.png"]
    predicted = random_scores(3, 3).prediction.tolist()
    true = [predicted[0], (predicted[1] + 1) % 3, None]
    page, html, _ = page_of(3, names, true=true)
    cards = page.all("li", "card")
    assert [card["data-right"] for card in cards] == ["1", "0", ""]
    assert [card["data-true"] for card in cards] == [str(true[0]), str(true[1]), ""]
    right, wrong, unknown = html.split('<li class="card"')[1:]
    assert "right</p>" in right
    assert f"wrong: it is &lt;b&gt;class {true[1]}&lt;/b&gt;</p>" in wrong
    assert 'class="truth' not in unknown
    assert wrong.count("true") >= 1
    assert page.open == []


def test_truth_can_be_filtered_by() -> None:
    predicted = random_scores(4, 2).prediction.tolist()
    page, html, _ = page_of(2, ["a", "b", "c", "d"], true=[predicted[0], 1 - predicted[1], 0, None])
    chips = [b for b in page.all("button") if b.get("data-key") == "right"]
    assert [chip["data-value"] for chip in chips] == ["all", "0", "1"]
    lists = [tag.get("id") for tag in page.all("select")]
    assert lists == ["true", "sort"]
    assert "most wrong first" in html
    cells = {b["data-cell"] for b in page.all("button") if "data-cell" in b}
    assert f"{predicted[0]} {predicted[0]}" in cells
    unlabelled, html, _ = page_of(2, ["a", "b"])
    assert [tag.get("id") for tag in unlabelled.all("select")] == ["sort"]
    assert "most wrong first" not in html
    assert 'class="panel"' not in html


def test_the_true_class_is_never_folded_away() -> None:
    scores = random_scores(1, MAX_BARS + 3)
    last = int(scores.probability[0].argmin())
    _, html, _ = page_of(MAX_BARS + 3, ["a.png"], true=[last])
    shown = html.partition("<details>")[0]
    assert f"class {last}&lt;/b&gt;</th>" in shown.partition('<li class="card"')[2]
    assert '<tr class="true">' in shown


def test_the_panel_has_every_number() -> None:
    cosine = torch.tensor([[0.9, 0.1], [0.6, 0.1], [0.0, 0.9], [0.1, 0.7]])
    judged = assess(Scores.from_cosine(["躺着", "b"], cosine, 4.0), [0, 1, 1, 1], [None] * 4)
    page = Page(panel_html(judged, [("balanced", "83 %")]))
    texts = [text for _, text in page.texts]
    assert "75.0%" in texts
    assert "95 % interval 30.1% to 95.4%, 4 images" in texts
    assert {"躺着", "balanced", "83 %", "100%", "67%"} <= set(texts)
    cells = [(t, x) for t, x in page.texts if t in ("button", "span") and x.isdigit()]
    assert cells == [("button", "1"), ("span", "0"), ("button", "1"), ("button", "2")]
    pressed = [button["data-cell"] for button in page.all("button")]
    assert pressed == ["0 0", "1 0", "1 1"]  # true class, answer
    bars = page.all("rect", "bin")
    counts = [int(t.partition(" ")[0]) for tag, t in page.texts if tag == "title" and "images" in t]
    assert len(bars) == len(counts)
    assert sum(counts) == 4
    assert page.all("svg")[0]["role"] == "img"


def test_many_classes_are_summed_up_as_pairs() -> None:
    n = 14
    scores = Scores.from_cosine([f"c{k}" for k in range(n)], torch.eye(n), 9.0)
    true = [1, *range(1, n)]
    page = Page(panel_html(assess(scores, true, [None] * n), []))
    assert ("h2", "Most frequent confusions") in page.texts
    assert page.all("table", "confusion") == []
    assert ("th", "c1 → c0") in page.texts


def test_many_notes_are_folded() -> None:
    page, html, _ = page_of(2, ["a"], notes=("one", "two", "three", "four", "five"))
    assert ("summary", "2 more remarks") in page.texts
    assert ("p", "five") in page.texts
    assert "four" not in html.partition("<details")[0]
    assert "<details" not in page_of(2, ["a"], notes=("one", "two", "three"))[1]


def test_notes_are_shown_as_text() -> None:
    page, _, _ = page_of(2, ["a"], notes=("<script>x</script>",))
    assert ("p", "<script>x</script>") in page.texts


# ---- which cards -----------------------------------------------------------------------------


def test_the_most_confident_mistake_is_the_worst() -> None:
    cosine = torch.tensor([[0.9, 0.1], [0.5, 0.4], [0.8, 0.1], [0.1, 0.2]])
    scores = Scores.from_cosine(["a", "b"], cosine, 5.0)
    true = [0, 1, 1, None]
    assert most_wrong(scores, true) == [2, 1]
    assert choose_cards(scores, true) == [2, 1, 0, 3]
    assert choose_cards(scores) == [0, 1, 2, 3]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_full_page_has_mistakes_close_calls_and_a_sample(labelled: bool) -> None:
    scores = random_scores(300, 3)
    generator = torch.Generator().manual_seed(1)
    true = torch.randint(3, (300,), generator=generator).tolist() if labelled else None
    chosen = choose_cards(scores, true, limit=40)
    assert len(chosen) == len(set(chosen)) == 40
    wrong = most_wrong(scores, true or [None] * 300)
    assert chosen[: 20 * labelled] == wrong[: 20 * labelled]
    others = [i for i in scores.margin.argsort().tolist() if i not in chosen[: 20 * labelled]]
    assert set(others[: 10 if labelled else 20]) <= set(chosen)
    rest = sorted(set(chosen) - set(others[:20]) - set(wrong[:20]))
    assert rest[0] < 100
    assert rest[-1] > 200


def test_there_is_at_least_one_card() -> None:
    with pytest.raises(ValueError, match="limit: got 0"):
        choose_cards(random_scores(2, 2), limit=0)
    assert len(choose_cards(random_scores(5, 2), [0, 1, 0, 1, 0], limit=1)) == 1


# ---- thumbnails ------------------------------------------------------------------------------


def test_thumbnail_is_a_small_jpeg_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera of somebody"
    image = Image.new("RGB", (1600, 900), (200, 30, 30))
    image.info["exif"] = exif.tobytes()
    kind, _, content = thumbnail(image).partition(",")
    assert kind == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (small.format, small.size) == ("JPEG", (320, 180))
    assert not small.getexif()
    assert small.getpixel((9, 9)) == pytest.approx((200, 30, 30), abs=4)
    assert image.size == (1600, 900)
