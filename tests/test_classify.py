"""`python -m cliplab classify`: table, CSV and gallery of real files, and every way to go wrong."""

import argparse
import base64
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_checkpoints import RESNET, make_modelscope, make_openai, noise_images

from cliplab import classify as command
from cliplab.__main__ import main
from cliplab.encoders import load_encoder
from cliplab.gallery import MAX_BARS, gallery_html, thumbnail
from cliplab.photos import open_image
from cliplab.zero_shot import Scores, build_classifier, classify

LABELS = ["a sheep", "goat", "a brown cow"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_openai(folder / "checkpoints" / "clip-openai", RESNET)
    make_modelscope(folder / "checkpoints" / "clip-chinese", RESNET)
    return folder


@pytest.fixture(autouse=True)
def _use_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(data))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four readable images, one of them in a sub-folder, one with a name full of traps."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    names = ["a.png", "more/羊.jpg", "b, 'c'.png", "z&amp; #1.png"]
    for name, image in zip(names, noise_images(4), strict=True):
        image.save(folder / name)
    return folder


def run(*arguments: object) -> int:
    return main(["classify", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- what it gives ---------------------------------------------------------------------------


def test_table_csv_and_exit_code(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "scores.csv"
    assert run(photos, "--labels", *LABELS, "--out", out, "--device", "cpu") == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    written = rows(out)
    assert [row["file"] for row in written] == [
        "a.png", "b, 'c'.png", "more/羊.jpg", "z&amp; #1.png",
    ]  # fmt: skip
    assert "more/羊.jpg" in printed
    encoder = load_encoder("pasture", device="cpu")
    images = [open_image(photos / row["file"]) for row in written]
    expected = classify(encoder, images, build_classifier(encoder, LABELS), class_names=LABELS)
    for i, row in enumerate(written):
        assert row["predicted"] == expected.predicted_names[i]
        for k, label in enumerate(LABELS):
            share = float(expected.probability[i, k])
            assert float(row[f"probability({label})"]) == pytest.approx(share, abs=2e-6)
            cosine = float(expected.cosine[i, k])
            assert float(row[f"cosine({label})"]) == pytest.approx(cosine, abs=2e-6)
        assert float(row["probability"]) == pytest.approx(
            float(expected.probability[i].max()), abs=2e-6
        )
        assert float(row["margin"]) == pytest.approx(float(expected.margin[i]), abs=2e-6)
        assert float(row["entropy"]) == pytest.approx(float(expected.entropy[i]), abs=2e-6)
    counts = [f"{label} {expected.predicted_names.count(label)}" for label in LABELS]
    assert printed.splitlines()[-1] == f"4 images: {', '.join(counts)}"


def test_templates_encoder_and_chinese_labels(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    code = run(
        *(photos, "--labels", "站立，躺着", "--encoder", "pasture-zh", "--out", out),
        *("--template", "{}的羊", "一只{}的羊", "--batch-size", 3, "--device", "cpu"),
    )
    assert code == 0
    encoder = load_encoder("pasture-zh", device="cpu")
    classifier = build_classifier(encoder, ["站立", "躺着"], ["{}的羊", "一只{}的羊"])
    image = open_image(photos / "more" / "羊.jpg")
    expected = float(classify(encoder, [image], classifier).probability[0, 1])
    row = next(row for row in rows(out) if row["file"] == "more/羊.jpg")
    assert float(row["probability(躺着)"]) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    "given",
    [
        ["a sheep", "goat"],
        ["a sheep,goat"],
        ["a sheep, goat,"],
        ["a sheep，goat"],
        ["a sheep、goat"],
    ],
)
def test_labels_may_be_apart_by_commas(given: list[str]) -> None:
    assert command.split_labels(given) == ["a sheep", "goat"]


def test_columns_line_up_though_chinese_is_wide() -> None:
    lines = list(
        command._aligned([["file", "label", "p"], ["羊.jpg", "躺着的羊", "9%"], ["a", "b", "10%"]])
    )
    assert lines == [
        "file    label       p",
        "羊.jpg  躺着的羊   9%",
        "a       b         10%",
    ]


def test_long_table_is_cut_but_the_csv_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MAX_LINES", 2)
    for i, image in enumerate(noise_images(5)):
        image.save(tmp_path / f"{i}.png")
    assert run(tmp_path, "--labels", "a,b", "--out", tmp_path / "s.csv") == 0
    printed = capsys.readouterr().out
    assert "1.png" in printed
    assert "2.png" not in printed
    assert "... and 3 more; --out CSV writes all" in printed
    assert len(rows(tmp_path / "s.csv")) == 5


# ---- unreadable files ------------------------------------------------------------------------


def test_unreadable_files_are_listed_and_the_exit_code_says_so(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty.png").touch()
    (photos / "page.jpg").write_text("<html>404</html>", encoding="utf-8")
    out, html = tmp_path / "scores.csv", tmp_path / "gallery.html"
    assert run(photos, "--labels", *LABELS, "--out", out, "--html", html) == 3
    complaints = capsys.readouterr().err
    assert re.search(
        r"unreadable: .*/empty\.png: the file is empty \(0 bytes\); copy it", complaints
    )
    assert re.search(r"unreadable: .*/page\.jpg: not an image", complaints)
    assert len(rows(out)) == 4
    page = html.read_text(encoding="utf-8")
    assert "<b>empty.png</b>: the file is empty" in page
    assert ">2 not read<" in page


def test_nothing_readable_is_an_error_without_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.png").touch()
    assert run(tmp_path, "--labels", "a,b", "--out", tmp_path / "s.csv") == 2
    assert "none of the 1 images in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty.png"]


# ---- bad arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "sheep"], "class_names: got only 'sheep', which would always get 100 %"),
        (["--labels", "sheep", "goat", "sheep"], "class_names: 'sheep' repeated"),
        (["--labels", ","], "class_names: got none; expected two or more"),
        (["--labels", "a", "b", "--template", "a photo"], "template 'a photo' has no {}"),
        (["--labels", "a", "b", "--encoder", "pastur"], "did you mean 'pasture'"),
        (["--labels", "a", "b", "--encoder", "openai:absent.pt"], "no such path"),
        (["--labels", "a", "b", "--device", "gpu"], "unknown device 'gpu'"),
        (["--labels", "a", "b", "--batch-size", "0"], "batch_size: got 0; expected 1 or more"),
        (["--labels", "a", "sheep " * 90], "text too long"),
    ],
)
def test_bad_arguments_give_one_clean_line(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(photos, *arguments) == 2
    printed, complaints = capsys.readouterr()
    assert printed == ""
    assert message in complaints
    assert len(complaints.splitlines()) == 1


def test_long_labels_are_cut_when_asked(photos: Path) -> None:
    assert run(photos, "--labels", "a", "sheep " * 90, "--truncate") == 0


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "no such folder"),
        ("a.png", "a file; expected a folder"),
        ("none", "no images in"),
    ],
)
def test_bad_folders(
    photos: Path, capsys: pytest.CaptureFixture[str], folder: str, message: str
) -> None:
    (photos / "none").mkdir()
    assert run(photos / folder, "--labels", "a,b") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--labels", "a", "b"], ["photos"]])
def test_missing_arguments_are_argparse_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "the following arguments are required" in capsys.readouterr().err


def test_unexpected_errors_are_not_dressed_up(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "classify_files", broken)
    with pytest.raises(RuntimeError, match="a bug"):  # the interpreter's exit code is then 1
        run(photos, "--labels", "a,b")


def test_add_parser_makes_a_sub_command_with_help() -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["classify", "photos", "--labels", "a", "b"])
    assert (args.folder, args.labels) == (Path("photos"), ["a", "b"])
    assert (args.encoder, args.template, args.force) == ("pasture", ["{}"], False)


# ---- outputs ---------------------------------------------------------------------------------


def test_existing_outputs_are_kept_unless_forced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--out", "--html"):
        path = tmp_path / f"kept{option}"
        path.write_text("mine", encoding="utf-8")
        assert run(photos, "--labels", "a,b", option, path) == 2
        assert "exists already; choose another name or pass --force" in capsys.readouterr().err
        assert path.read_text(encoding="utf-8") == "mine"
        assert run(photos, "--labels", "a,b", option, path, "--force") == 0
        assert "a.png" in path.read_text(encoding="utf-8")


def test_outputs_that_cannot_be_written_are_found_before_the_work(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "classify_files", lambda *_, **__: pytest.fail("too late"))
    for path, message in [
        (photos / "a.png" / "s.csv", "a part of the path is a file"),
        (tmp_path, "a folder; expected the name of a file to write"),
    ]:
        assert run(photos, "--labels", "a,b", "--out", path) == 2
        assert message in capsys.readouterr().err
    same = tmp_path / "same"
    assert run(photos, "--labels", "a,b", "--out", same, "--html", same) == 2
    assert "--out and --html are both" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_run_leaves_no_output(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(command.csv, "writer", fail)
    before = sorted(tmp_path.iterdir())
    code = run(photos, "--labels", "a,b", "--out", tmp_path / "s.csv")
    assert code == (130 if failure is KeyboardInterrupt else 2)
    assert sorted(tmp_path.iterdir()) == before


# ---- gallery ---------------------------------------------------------------------------------


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


def page_of(n_classes: int, names: list[str], **options: object) -> tuple[Page, str, Scores]:
    cosine = torch.rand(len(names), n_classes, generator=torch.Generator().manual_seed(0))
    labels = [f"<b>class {k}</b>" for k in range(n_classes)]
    scores = Scores.from_cosine(labels, cosine, 10.0)
    thumbs = [thumbnail(image) for image in noise_images(len(names))]
    html = gallery_html(scores, names, thumbs, title="T & <T>", facts={"a": "<b>"}, **options)
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
    assert [chip["data-class"] for chip in chips] == ["all", "0", "1", "2"]
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
    html = gallery_html(
        scores, ["x", "y"], [thumbnail(i) for i in noise_images(2)], title="t", facts={}
    )
    first, second = html.split('<li class="card"')[1:]
    assert "close call" in first
    assert "close call" not in second


def test_gallery_parts_must_fit() -> None:
    with pytest.raises(ValueError, match="gallery: got 1 scores, 2 names, 1 thumbnails"):
        gallery_html(
            Scores.from_cosine("ab", torch.zeros(1, 2), 1.0), ["x", "y"], ["u"], title="t", facts={}
        )


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
