"""`python -m cliplab classify`: table, CSV and gallery of real files, and every way to go wrong."""

import re
from pathlib import Path

import pytest
from classify_world import rows, run
from tiny_checkpoints import noise_images

from cliplab.classification.zero_shot import build_classifier, classify
from cliplab.cli import tables
from cliplab.data import open_image
from cliplab.encoders import load_encoder

pytestmark = pytest.mark.usefixtures("world")

LABELS = ["a sheep", "goat", "a brown cow"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four readable images, one of them with a name full of traps."""
    folder = tmp_path / "photos"
    folder.mkdir(parents=True)
    names = ["a.png", "羊.jpg", "b, 'c'.png", "z&amp; #1.png"]
    for name, image in zip(names, noise_images(4), strict=True):
        image.save(folder / name)
    return folder


# ---- what it gives ---------------------------------------------------------------------------


def test_table_csv_and_exit_code(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "scores.csv"
    assert run(photos, "--labels", *LABELS, "--out", out, "--device", "cpu") == 0
    printed, complaints = capsys.readouterr()
    assert not re.search("^(problem|note|unreadable|warning)", complaints, re.M)
    written = rows(out)
    assert [row["file"] for row in written] == [
        "a.png", "b, 'c'.png", "z&amp; #1.png", "羊.jpg",
    ]  # fmt: skip
    assert "羊.jpg" in printed
    encoder = load_encoder("pasture", device="cpu")
    images = [open_image(photos / row["file"]) for row in written]
    expected = classify(encoder, images, build_classifier(encoder, LABELS), class_names=LABELS)
    columns = {"probability": expected.probability.amax(1), "margin": expected.margin}
    columns["entropy"] = expected.entropy
    for k, label in enumerate(LABELS):
        columns[f"probability({label})"] = expected.probability[:, k]
        columns[f"cosine({label})"] = expected.cosine[:, k]
    assert list(written[0]) == ["file", "predicted", *list(columns)[:3],
                                *(f"probability({label})" for label in LABELS),
                                *(f"cosine({label})" for label in LABELS)]  # fmt: skip
    assert [row["predicted"] for row in written] == expected.predicted_names
    for name, values in columns.items():
        assert [float(row[name]) for row in written] == pytest.approx(values.tolist(), abs=2e-6)
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
    image = open_image(photos / "羊.jpg")
    expected = float(classify(encoder, [image], classifier).probability[0, 1])
    row = next(row for row in rows(out) if row["file"] == "羊.jpg")
    assert float(row["probability(躺着)"]) == pytest.approx(expected, abs=2e-6)


def test_columns_line_up_though_chinese_is_wide() -> None:
    rows = [["file", "label", "p"], ["羊.jpg", "躺着的羊", "9%"], ["a", "b", "10%"]]
    assert list(tables.aligned(rows)) == [
        "file    label       p",
        "羊.jpg  躺着的羊   9%",
        "a       b         10%",
    ]


def test_long_table_is_cut_but_the_csv_is_whole(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "MAX_LINES", 2)
    assert run(photos, "--labels", "a,b", "--out", tmp_path / "s.csv") == 0
    printed = capsys.readouterr().out
    assert "a.png" in printed
    assert "羊.jpg" not in printed
    assert "2 more" in printed
    assert len(rows(tmp_path / "s.csv")) == 4


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


# ---- arguments and outputs: what is refused stands in test_bad_inputs.py ---------------------


def test_long_labels_are_cut_when_asked(photos: Path) -> None:
    assert run(photos, "--labels", "a", "sheep " * 90, "--truncate") == 0


def test_existing_outputs_are_kept_unless_forced(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept.csv"
    path.write_text("mine", encoding="utf-8")
    assert run(photos, "--labels", "a,b", "--out", path) == 2
    assert "exists already; choose another name or pass --force" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "mine"
    assert run(photos, "--labels", "a,b", "--out", path, "--force") == 0
    assert path.read_text(encoding="utf-8") != "mine"


def test_what_is_read_is_never_replaced(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "sheep.csv"
    table.write_text("file,label\n", encoding="utf-8")
    (tmp_path / "d").mkdir()
    listed = tmp_path / "d" / "labels.csv"
    listed.write_text("file,label\n", encoding="utf-8")
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"kept")
    for source, options, path, what in (
        (table, ("--labels", "a,b"), table, "SOURCE"),
        (tmp_path / "d", ("--labels", "a,b"), listed, "part of SOURCE"),
        (photos, ("--examples", table), table, "--examples"),
        (photos, ("--classifier", kept), kept, "--classifier"),
    ):
        before = path.read_bytes()
        assert run(source, *options, "--out", path, "--force") == 2
        assert f"--out {path}: would overwrite {what}, with --f" in capsys.readouterr().err
        assert path.read_bytes() == before
