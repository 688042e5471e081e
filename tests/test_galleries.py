"""The galleries: every number, nothing interpreted, no network, mistakes first."""

import base64
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from pages import PICTURE, TRAP, read_page, texts
from PIL import Image
from test_page import chromium, dom

from cliplab.classification import Answer, Classes, Scores
from cliplab.data import Sample, SampleSet, UnreadableImage, open_image
from cliplab.detection import Cut, Detections, Found, Query, judge, summarise
from cliplab.models.glip import Prompt
from cliplab.report import classification_page, detection_page, galleries, segmentation_page
from cliplab.segmentation import LabelRow, PictureRow, Quality, Settings

SECOND = ".classes tbody tr:nth-of-type(2) > *"  # row of the table

# ---- what they share ---------------------------------------------------------------------------


def test_a_thumbnail_is_a_small_jpeg_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera of somebody"
    image = Image.new("RGB", (1600, 900), (200, 30, 30))
    image.info["exif"] = exif.tobytes()
    kind, _, content = galleries.thumbnail(image).partition(",")
    assert kind == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (small.format, small.size) == ("JPEG", (320, 180))
    assert not small.getexif()
    assert small.getpixel((9, 9)) == pytest.approx((200, 30, 30), abs=4)
    assert image.size == (1600, 900)


def test_no_minute_has_sixty_seconds() -> None:
    said = [galleries.duration(seconds) for seconds in (0.4, 59.4, 59.6, 119.7, 125)]
    assert said == ["0 s", "59 s", "1 min 0 s", "2 min 0 s", "2 min 5 s"]


def test_of_many_pictures_an_even_sample_has_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galleries, "MAX_CARDS", 3)
    chosen, side = galleries.choose_pictures([Path(str(i)) for i in range(9)])
    assert sorted(path.name for path in chosen) == ["0", "3", "6"]
    assert 300 < side < 1000
    assert galleries.choose_pictures([])[0] == set()


# ---- classify ----------------------------------------------------------------------------------


def answer(
    cosine: object, true: list[int | None] | None = None, names: list[str] | None = None
) -> Answer:
    """N photos with these cosines (N, K) of labels c0, c1 ..."""
    scores = torch.as_tensor(cosine, dtype=torch.float32)
    n, k = scores.shape
    labels = tuple(names or [f"c{i}" for i in range(k)])
    photos = SampleSet.of((Sample(Path(f"{i}.png"), name=f"{i}.png") for i in range(n)), Path("p"))
    known = tuple(true or [None] * n)
    return Answer(photos, Classes(labels, labels), tuple(range(n)), known,
                  Scores.from_cosine(labels, scores, 10.0))  # fmt: skip


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Image.new("RGB", (8, 8))
    monkeypatch.setattr(classification_page, "open_image", lambda *_, **__: blank)
    monkeypatch.setattr(classification_page, "thumbnail", lambda image, size: PICTURE)


def classify(tmp_path: Path, found: Answer, **changes: object) -> BeautifulSoup:
    words = {"title": "t", "templates": ("{}",), "notes": (), "unreadable": []} | changes
    path = tmp_path / "g.html"
    classification_page.write_gallery(path, found, "pasture", **words)
    return read_page(path)


def random_cosine(n: int, k: int) -> torch.Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(0))


def test_every_card_has_every_number(tmp_path: Path) -> None:
    found = answer(random_cosine(2, 3))
    page, scores = classify(tmp_path, found), found.scores
    cards = page.select("li.card")
    assert [card["data-class"] for card in cards] == [str(k) for k in scores.prediction.tolist()]
    shares = [f"{share:.1%}" for share in scores.probability.flatten().tolist()]
    assert texts(page, "td.share") == shares
    for i, card in enumerate(cards):
        doubt = card.select_one(".doubt").get_text()
        assert f"margin {float(scores.margin[i]):.1%}" in doubt
        assert f"entropy {float(scores.relative_entropy[i]):.0%}" in doubt
    predicted = scores.prediction.tolist()
    assert texts(page, "button .count") == ["2", *(str(predicted.count(k)) for k in range(3))]
    assert not page.select(".panel, .truth, option[value=given]")  # nothing is known
    marked = classify(tmp_path, answer([[0.5, 0.499], [0.5, 0.0]])).select("li.card")
    assert [len(card.select(".badge")) for card in marked] == [1, 0]  # a close call


def test_whatever_files_and_labels_are_called_is_text(tmp_path: Path) -> None:
    found = answer(random_cosine(1, 2), [0], [TRAP, "b"])
    photo = replace(found.photos[0], name=TRAP)
    found = replace(found, photos=SampleSet.of([photo], Path("p")))
    broken = [{"file": TRAP, "cause": "<i>broken", "remedy": "mend"}]
    page = classify(tmp_path, found, title=TRAP, notes=[TRAP], unreadable=broken)
    assert page.select_one("li.card img")["alt"] == TRAP
    assert texts(page, "li.card .name") == texts(page, "#unreadable li b") == [TRAP]
    assert page.h1.get_text() == page.title.get_text() == f"{TRAP}, by label"
    assert f"{TRAP}." in texts(page, ".note")
    assert page.select_one("th[scope=row]").get_text() == "balanced accuracy"
    assert TRAP in page.select_one(".confusion th[scope=row]").get_text()
    assert not page.select("i, main script")


def test_every_file_is_opened_once_and_each_card_has_its_own_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.repeat(np.uint8([[[255, 0, 0]] * 8 + [[0, 0, 255]] * 8]), 8, 0)).save(
        tmp_path / "0.png"
    )
    Image.new("RGB", (900, 600), (0, 255, 0)).save(tmp_path / "1.jpg")
    left, right, gone = (0.0, 0.0, 8.0, 8.0), (8.0, 0.0, 16.0, 8.0), tmp_path / "gone.png"
    photos = (
        Sample(tmp_path / "0.png", box_xyxy=left, name="red"),
        Sample(tmp_path / "0.png", box_xyxy=right, name="blue"),
        Sample(gone, name="gone"),
        Sample(tmp_path / "1.jpg", name="green"),
    )
    found = answer([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.2, 0.8]], true=[0, 0, 0, 0])
    found = replace(found, photos=SampleSet(photos, tmp_path))
    opened = list[tuple[str, int | None]]()

    def opening(path: Path, side: int | None) -> Image.Image:
        opened.append((path.name, side))
        return open_image(path, side=side)

    monkeypatch.setattr(classification_page, "open_image", opening)
    monkeypatch.setattr(classification_page, "thumbnail", galleries.thumbnail)
    cards = classify(tmp_path, found).select("li.card")
    assert opened == [("0.png", None), ("gone.png", 320), ("1.jpg", 320)]
    seen = []
    for card in cards:
        data = card.select_one("img")["src"].partition(",")[2]
        small = Image.open(io.BytesIO(base64.b64decode(data)))
        seen.append((card["data-name"], small.size, int(np.argmax(small.getpixel((3, 3))))))
    assert seen == [("blue", (8, 8), 2), ("green", (320, 213), 1), ("red", (8, 8), 0)]


def test_of_many_classes_the_best_are_shown_and_always_the_truth(tmp_path: Path) -> None:
    n = classification_page.MAX_BARS + 3
    found = answer(random_cosine(1, n))
    page = classify(tmp_path, found)
    assert texts(page, ".rest-of") == ["3 less likely ones: see the CSV of scores"]
    best = found.scores.probability[0].topk(classification_page.MAX_BARS).values.tolist()
    assert texts(page, "td.share") == [f"{share:.1%}" for share in best]
    last = int(found.scores.probability[0].argmin())
    page = classify(tmp_path, replace(found, true=(last,)))
    assert texts(page, ".body > table tr.true th") == [f"c{last}"]
    assert len(page.select(".body > table tr")) == classification_page.MAX_BARS


def test_a_page_of_thousands_of_labels_and_photos_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 2000
    rng, start = np.random.default_rng(0), time.process_time()  # others may work here, too
    side = classification_page.thumbnail_size(n)
    noise = [np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((20, 20, 1))) for _ in range(20)]
    shots = [galleries.thumbnail(Image.fromarray(a.astype(np.uint8)), size=side) for a in noise]
    names = [f"class {k}" for k in range(n)]
    found = answer(random_cosine(n, n), list(range(n)), names)
    made = iter(shots * n)
    monkeypatch.setattr(classification_page, "thumbnail", lambda image, size: next(made))
    path = tmp_path / "g.html"
    classification_page.write_gallery(path, found, "pasture", title="t", templates=("{}",),
                                      notes=(), unreadable=[])  # fmt: skip
    assert time.process_time() - start < 20
    assert path.stat().st_size < 20_000_000
    html = path.read_text(encoding="utf-8")
    assert html.count('<li class="card"') == n
    assert html.count("1,994 less likely ones: see the CSV of scores") == n
    assert html.count('<td class="share">') == n * classification_page.MAX_BARS


def test_boxes_of_many_pictures_are_bounded(tmp_path: Path) -> None:
    n = galleries.MAX_CARDS
    one = detections(*((0, 1 - i / 600, LEFT) for i in range(300)), names=("goat",))
    pictures = tuple(Sample(Path(f"{i}.png"), name=f"{i}.png") for i in range(n))
    found = Found(pictures, ((60, 40),) * n, (one,) * n, (one,) * n, (), Cut(score=0))
    query, path = Query(classes=Classes(("goat",), ("goat",))), tmp_path / "g.html"
    thumbnails = {one.path: PICTURE for one in pictures}
    rows = summarise(found, query, None)
    detection_page.write_gallery(path, Oracle(), query, found, rows, judged=None, notes=[],
                                 thumbnails=thumbnails, title="t")  # fmt: skip
    html = path.read_text(encoding="utf-8")
    assert html.count("the best 32 are drawn") == n
    assert len(html) < 12_000_000
    alone = Found(pictures[:1], ((60, 40),), (one,), (one,), (), Cut(score=0))
    page = detect(tmp_path, query, alone)
    scores = [float(g["data-s"]) for g in page.select("g.b")]
    assert len(scores) == detection_page.MAX_BOXES
    assert scores == sorted(scores)  # the best one on top
    assert scores[-1] == 1


def test_the_most_confident_mistake_comes_first_and_can_be_filtered(tmp_path: Path) -> None:
    found = answer([[0.9, 0.1], [0.5, 0.4], [0.8, 0.1], [0.1, 0.2]], [0, 1, 1, None])
    page = classify(tmp_path, found)
    cards = page.select("li.card")
    assert [card["data-order"] for card in cards] == ["2", "1", "0", "3"]
    assert [card["data-right"] for card in cards] == ["0", "0", "1", ""]
    assert [card["data-true"] for card in cards] == ["1", "1", "0", ""]
    assert texts(page, ".truth.no") == ["✗ wrong: it is c1"] * 2
    assert len(page.select(".truth.yes")) == 1
    assert texts(page, "button[data-key=right] .count") == ["4", "2", "1"]
    assert page.select_one("#sort option")["value"] == "given"


def test_the_panel_has_every_number(tmp_path: Path) -> None:
    found = answer([[0.9, 0.1], [0.6, 0.1], [0.0, 0.9], [0.1, 0.7]], [0, 1, 1, 1], ["躺着", "b"])
    page = classify(tmp_path, found)
    assert texts(page, ".big") == ["75.0%"]
    assert "95 % interval 30.1% to 95.4%, 4 images" in texts(page, ".small")
    assert texts(page, ".confusion th[scope=row]") == ["躺着", "b"]
    assert texts(page, ".recall b") == ["100%", "67%"]
    assert texts(page, ".confusion td button, .confusion td span") == ["1", "0", "1", "2"]
    cells = [button["data-cell"] for button in page.select(".confusion button")]
    assert cells == ["0 0", "1 0", "1 1"]  # true class, answer
    bins = found.judged.reliability
    told = [int(text.partition(" ")[0]) for text in texts(page, "svg g title")]
    assert told == [int(n) for n in bins.count if n]


def test_many_classes_are_summed_up_as_pairs_and_many_notes_folded(tmp_path: Path) -> None:
    notes = ("one", "two", "three", "four", "five")
    page = classify(tmp_path, answer(torch.eye(14), [1, *range(1, 14)]), notes=notes)
    assert not page.select(".confusion")
    assert texts(page, ".pairs th") == ["c1 → c0"]
    assert texts(page, "header > .note") == ["One.", "Two.", "Three."]
    assert texts(page, "details.more .note") == ["Four.", "Five."]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_full_page_has_mistakes_and_a_sample_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    true = torch.randint(3, (300,), generator=generator).tolist() if labelled else None
    found = answer(random_cosine(300, 3), true)
    chosen = classification_page.choose_cards(found, limit=40)
    assert len(chosen) == len(set(chosen)) == 40
    wrong = found.mistakes
    assert chosen[: 20 * labelled] == wrong[: 20 * labelled]
    rest = sorted(set(chosen) - set(wrong))
    assert rest[0] < 100
    assert rest[-1] > 200
    monkeypatch.setattr(classification_page, "MAX_CARDS", 4)
    page = classify(tmp_path, found)
    assert len(page.select("li.card")) == 4
    said = "4 of 300 images, the worst mistakes and an" if labelled else "4 of 300 images, an even"
    assert said in texts(page, ".note")[0]


# ---- detect ------------------------------------------------------------------------------------

LEFT, RIGHT = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]


class Oracle:
    name, teacher = "oracle", None


def detections(*answers: tuple[int, float, list[float]], names: tuple[str, ...]) -> Detections:
    labels, scores, boxes = (list(column) for column in zip(*answers, strict=True))
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), names)


@pytest.fixture
def herd() -> tuple[Query, Found]:
    """a.png: a trap found and a goat missed; b.png: a goat found where nothing is."""
    names = (TRAP, "goat")
    query = Query(classes=Classes(names, names), groups={"novel": (1,)})
    boxes = [Sample(Path("a.png"), label, tuple(box))
             for label, box in zip(names, (LEFT, RIGHT), strict=True)]  # fmt: skip
    pictures = (
        Sample(Path("a.png"), name="a.png", regions=tuple(boxes), judged=True),
        Sample(Path("b.png"), name=TRAP, judged=True),
    )
    answers = (detections((0, 0.9, LEFT), names=names), detections((1, 0.51, RIGHT), names=names))
    lost = UnreadableImage(Path("c.png"), "<i>torn", "mend it")
    return query, Found(pictures, ((60, 40),) * 2, answers, answers, (lost,), Cut(score=0.5))


def detect(
    tmp_path: Path, query: Query, found: Found, *, judged: bool = True, cards: int | None = None
) -> BeautifulSoup:
    said = judge(found, query) if judged else None
    thumbnails = {one.path: PICTURE for one in found.pictures[:cards]}
    rows = summarise(found, query, said)
    path = tmp_path / "g.html"
    detection_page.write_gallery(path, Oracle(), query, found, rows, judged=said,
                                 notes=["a <remark>", "a note."], thumbnails=thumbnails,
                                 title=TRAP)  # fmt: skip
    return read_page(path)


def test_detections_are_shown_as_text(tmp_path: Path, herd: tuple[Query, Found]) -> None:
    page = detect(tmp_path, *herd)
    assert page.h1.get_text() == TRAP
    assert texts(page, ".t text") == [f"{TRAP} 0.90", "goat 0.51"]
    assert texts(page, "li.card h2") == ["a.png", TRAP]
    assert texts(page, ".note") == ["A <remark>.", "A note."]
    assert texts(page, "#unreadable li") == ["c.png: <i>torn; mend it"]
    few = detect(tmp_path, *herd, cards=1)
    assert len(few.select("li.card")) == 1
    assert "1 of 2 pictures" in texts(few, ".note")[0]
    assert not page.select("i, main script")


@pytest.mark.skipif(not chromium(), reason="needs Chromium")
def test_cards_are_found_and_ordered_in_a_browser(
    tmp_path: Path, herd: tuple[Query, Found]
) -> None:
    def shown(typed: str, order: str) -> list[tuple[str, bool]]:
        path = tmp_path / "g.html"
        text = path.read_text("utf-8").replace('id="find"', f'id="find" value="{typed}"')
        path.write_text(text.replace(f'value="{order}"', f'value="{order}" selected'), "utf-8")
        cards = BeautifulSoup(dom(path), "html.parser").select("li.card")
        return [(card["data-name"], not card.has_attr("hidden")) for card in cards]

    classify(tmp_path, answer([[0.9, 0.0], [0.5, 0.4], [0.7, 0.2]]))
    assert shown("2.P", "unsure") == [("1.png", False), ("2.png", True), ("0.png", False)]
    detect(tmp_path, *herd, judged=False)
    assert shown("A.P", "unsure") == [(TRAP.lower(), False), ("a.png", True)]


def test_boxes_lie_over_their_picture(tmp_path: Path, herd: tuple[Query, Found]) -> None:
    page = detect(tmp_path, *herd)
    assert [svg["viewbox"] for svg in page.select(".shot svg")] == ["0 0 60 40"] * 2

    def places(selector: str) -> list[list[float]]:
        keys = ("x", "y", "width", "height")
        return [[float(tag[key]) for key in keys] for tag in page.select(selector)]

    assert places(".b .line") == places(".b .edge") == [[5, 5, 20, 30], [30, 5, 25, 30]]
    assert places(".m .dash") == [[30, 5, 25, 30]]
    assert texts(page, ".m.k1 title") == ["goat: there, and not found"]
    drawn = page.select("g.b")
    assert [(g["data-k"], g["data-s"]) for g in drawn] == [("0", "0.9000"), ("1", "0.5100")]


def test_what_is_known_of_boxes_is_judged(tmp_path: Path, herd: tuple[Query, Found]) -> None:
    page = detect(tmp_path, *herd)
    assert texts(page, ".truth") == ["✗ 1 missed", "✗ 1 wrong"]
    assert texts(page, ".big") == ["50.0%"]  # AP50: the trap is found, the goat is not
    assert texts(page, ".small") == ["2 true boxes in 2 pictures"]
    assert texts(page, SECOND) == ["goat", "novel", "1", "", "1", "51.0%", "1", "0", "1", "0.0%"]
    assert [card["data-bad"] for card in page.select("li.card")] == ["1", "1"]
    bare = detect(tmp_path, *herd, judged=False)
    assert not bare.select(".big, .truth, #missed, option[value=bad]")
    assert texts(bare, SECOND) == ["goat", "novel", "1", "", "1", "51.0%"]


def test_a_class_is_chosen_without_script(tmp_path: Path, herd: tuple[Query, Found]) -> None:
    page = detect(tmp_path, *herd)
    radios = [tag["id"] for tag in page.select("body > input.pick")]
    assert radios == ["c-all", "c-0", "c-1"]
    assert [tag["for"] for tag in page.select("label.chip[for]")] == radios
    held = [set(card["class"]) & {"h0", "h1"} for card in page.select("li.card")]
    assert held == [{"h0", "h1"}, {"h1"}]  # one missed
    style = page.style.get_text()
    assert "#c-1:checked ~ main .card:not(.h1), #c-1:checked ~ main .b:not(.k1)" in style
    assert ".k1 { --c: #D55E00; }" in style


@pytest.mark.parametrize(
    ("score", "least"), [(0.696, "0.69"), (0.29, "0.29"), (0.999, "0.99"), (0.0, "0.00")]
)
def test_the_slider_at_its_lowest_hides_nothing(
    tmp_path: Path, herd: tuple[Query, Found], score: float, least: str
) -> None:
    query, found = herd
    slider = detect(tmp_path, query, replace(found, cut=Cut(score=score))).select_one("#least")
    assert slider["min"] == slider["value"] == least


def test_what_was_asked_is_shown_and_of_many_labels_some_can_be_chosen(tmp_path: Path) -> None:
    names = tuple(f"n{k}" for k in range(50))
    query = Query(classes=Classes(names, names))
    object.__setattr__(query, "prompt", Prompt("a goat & <b>grass</b>", ("goat",), (((2, 6),),)))
    page = detect(tmp_path, query, Found((), (), (), (), (), Cut()), judged=False)
    assert texts(page, ".prompt") == ["a goat & <b>grass</b>"]
    assert len(page.select("label.chip[for]")) == 41
    assert page.select(".controls.many")


# ---- segment -----------------------------------------------------------------------------------

COLOURS = ("#000000", "#112233", "#445566")  # black: background
WORDS = (("grass",), ("sheep", "羊"), ("dog",))


class Judge:
    """Knows a.png, if anything."""

    def __init__(self, *, known: bool = True) -> None:
        confusion = torch.tensor([[0, 0, 0], [0, 90, 10], [0, 0, 100]])
        iou = torch.tensor([float("nan"), 0.9, 0.91])
        known_labels = ("background", TRAP, "dog")
        quality = Quality(known_labels, confusion, iou, iou / 2, iou / 3, (1, 2))
        self.quality = quality if known else None
        self.pictures = {Path("a.png"): 0.905} if known else {}
        self.refused = [f"mask {i}" for i in range(25)] if known else []


def pixels_of(uri: str) -> np.ndarray:
    """A layer as RGBA."""
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def halves() -> tuple[Image.Image, np.ndarray]:
    """A picture, its left half label 1, its right half label 2."""
    return Image.new("RGB", (20, 10)), np.repeat([[1] * 10 + [2] * 10], 10, 0).astype(np.uint8)


def segment(tmp_path: Path, judge: Judge, cards: int = 2, **settings: object) -> BeautifulSoup:
    names = ("background", TRAP, "dog")
    numbers = {"true_share": 0.5, "iou": 0.9, "oracle_iou": None, "boundary_iou": 0.1}
    rows = [LabelRow(k, name, WORDS[k], COLOURS[k], 0.3, 1, **(numbers if judge.quality else {}))
            for k, name in enumerate(names)]  # fmt: skip
    pictures = [
        PictureRow(Path("a.png"), "a.png", (20, 10), 3, (0.0, 0.5, 0.5)),
        PictureRow(Path("b.png"), TRAP, (20, 10), 1, (0.999, 0.001, 0.0)),
    ]
    image, labels = halves()
    found = [
        segmentation_page.make_card(image, labels, COLOURS, side=100, true=labels),
        segmentation_page.make_card(image, 0 * labels, COLOURS, side=100),
    ]
    answer = segmentation_page.Answer(
        TRAP, "model", 4, Settings(**settings), pictures, rows, judge, ["a <note>"], [], []
    )
    chosen = {one.path: card for one, card in list(zip(pictures, found, strict=True))[:cards]}
    segmentation_page.write_gallery(tmp_path / "g.html", answer, chosen)
    return read_page(tmp_path / "g.html")


def test_segments_are_shown_as_text(tmp_path: Path) -> None:
    page = segment(tmp_path, Judge())
    assert page.title.get_text() == TRAP
    assert texts(page, "li.card h2") == ["a.png", TRAP]
    assert texts(page, "li.card .tally li") == [f"{TRAP} 50%", "dog 50%", "background 100%",
                                                f"{TRAP} <1%"]  # fmt: skip
    assert "A <note>." in texts(page, ".note")
    assert len(page.select(".note")) == 21  # of 25 masks that were refused 20 are named
    assert not page.select("i, main script")
    assert page.select(".classes th[scope=row]")[1]["title"] == "sheep, 羊"
    few = segment(tmp_path, Judge(), cards=1)
    assert len(few.select("li.card")) == 1
    assert "1 of 2 pictures" in texts(few, ".note")[0]


def test_every_label_is_a_layer_of_its_own_in_its_colour(tmp_path: Path) -> None:
    page = segment(tmp_path, Judge())
    layers = [(tag["class"][1], pixels_of(tag["src"])) for tag in page.select("img.b")]
    assert [kind for kind, _ in layers] == ["k1", "k2", "k1", "k2", "k0"]  # found, truth; b.png
    left, right = layers[0][1], layers[1][1]
    assert left.shape == right.shape == (10, 20, 4)
    assert left[5, 5].tolist() == [0x11, 0x22, 0x33, 255]
    assert right[5, 15].tolist() == [0x44, 0x55, 0x66, 255]
    assert ((left[..., 3] > 0) ^ (right[..., 3] > 0)).all()
    assert texts(page, "figcaption") == ["found", "truth", "found"]
    assert all(PICTURE[:22] in card["style"] for card in page.select("li.card"))
    held = [set(card["class"]) - {"card"} for card in page.select("li.card")]
    assert held == [{"h1", "h2"}, {"h0", "h1"}]
    assert "#c-1:checked ~ main .b:not(.k1)" in page.style.get_text()
    assert [tag["id"] for tag in page.select("body > input.pick")] == ["c-all", *("c-0", "c-1"),
                                                                     "c-2"]  # fmt: skip


def test_what_is_known_of_pixels_is_judged(tmp_path: Path) -> None:
    page = segment(tmp_path, Judge())
    assert texts(page, ".big") == ["90.5%"]
    assert texts(page, ".small") == ["1 picture with known masks"]
    assert texts(page, ".confused li") == [f"10% of {TRAP} is called dog"]
    assert texts(page, SECOND) == [TRAP, "30.0%", "", "1", "50.0%", "90.0%", "–", "10.0%"]
    assert [card["data-iou"] for card in page.select("li.card")] == ["0.9050", ""]
    assert json.loads(page.select("li.card")[0]["data-shares"]) == {"1": 0.5, "2": 0.5}
    bare = segment(tmp_path, Judge(known=False), threshold=0.5, refine=0)
    assert "IoU" not in bare.body.get_text().replace(bare.script.get_text(), "")
    assert texts(bare, ".facts b") == ["2", "model", "4", "0.5", "a photo of a {}."]


def test_layers_are_as_small_as_their_thumbnail() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    labels = (np.arange(900) // 450)[:, None].repeat(1200, 1).astype(np.uint8)
    card = segmentation_page.make_card(
        Image.fromarray(noise), labels, COLOURS, side=120, true=labels[::3, ::3] * 255
    )
    assert len(card.picture) < 20_000
    top = pixels_of(card.found[0])
    assert top.shape == (90, 120, 4)
    assert top[:45, :, 3].min() == 255
    assert top[45:, :, 3].max() == 0
    assert list(card.true) == [0]  # 255 is not judged, and not shown
