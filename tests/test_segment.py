"""`python -m cliplab segment`: label PNGs, overlays, summary of real files, and every misuse."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from json_files import read
from PIL import Image
from safetensors.torch import save_file
from segment_world import (
    COLOURS,
    WORDS,
    Knowing,
    flat,
    knowing,
    labels_in,
    make_groupvit,
    run,
)

from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.pasture import SPECIES
from cliplab.pasture.stuff import NOUNS, class_of
from cliplab.runtime import write_json
from cliplab.segmentation import (
    BACKGROUND_WORDS,
    overlay_sheet,
    percent,
    read_labels,
    usual_background,
)
from cliplab.viz.segmentation import NOTHING, rgb

__all__ = ["knowing"]

FLOCK = ("--labels", "sheep", "dog", "--background", "grass", "sky")


@pytest.fixture
def flock(tmp_path: Path) -> Path:
    """Three pictures, one of them with a name full of traps."""
    folder = tmp_path / "flock"
    flat(folder / "a.png", "kk", "sg")
    flat(folder / "b, '羊' & <i>.png", "kk", "gg")
    flat(folder / "sub" / "c.png", "sdd")
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny random model where the shipped one belongs -> its folder."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "data"))
    return make_groupvit(tmp_path / "data" / "checkpoints" / "groupvit")


# ---- what it gives -----------------------------------------------------------------------------


@pytest.mark.usefixtures("knowing")
def test_pictures_become_label_pngs_overlays_and_a_summary(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "out", tmp_path / "again.json"
    assert run(flock, *FLOCK, "--out", out, "--json", again) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == f"wrote {out.as_posix()}\nwrote {again.as_posix()}\n"
    assert re.search(r"^a\.png +3  background 75%, sheep 25%$", printed, re.M)
    assert re.search(r"^sub/c\.png +2  dog 67%, sheep 33%$", printed, re.M)
    assert re.search(r"^dog +18\.2% +1$", printed, re.M)  # of 400, 400 and 300 pixels 200
    assert "IoU" not in printed
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert files == [
        "a_labels.png", "a_overlay.png", "b, '羊' & <i>_labels.png", "b, '羊' & <i>_overlay.png",
        "sub/c_labels.png", "sub/c_overlay.png", "summary.json",
    ]  # fmt: skip
    found = labels_in(out / "a_labels.png")
    assert found.shape == (20, 20)
    assert found[::10, ::10].tolist() == [[0, 0], [1, 0]]
    assert found[10:, :10].min() == found[10:, :10].max() == 1
    said = read(out / "summary.json")
    assert said == read(again)
    assert [(row["index"], row["name"]) for row in said["labels"]] == [
        (0, "background"), (1, "sheep"), (2, "dog"),
    ]  # fmt: skip
    assert said["background"] == ["grass", "sky"]
    assert said["model"]["name"] == "knowing"
    assert said["settings"]["top_words"] == 5
    assert said["counts"] == {"pictures": 3, "read": 3, "unreadable": 0, "judged": 0}
    assert said["pictures"][2] == {
        "file": "sub/c.png", "width": 30, "height": 10, "groups": 2,
        "shares": {"sheep": 0.33333, "dog": 0.66667},
        "labels": "sub/c_labels.png", "overlay": "sub/c_overlay.png",
    }  # fmt: skip
    with Image.open(out / "a_labels.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    for row in said["labels"]:
        assert tuple(palette[row["index"]]) == rgb(row["colour"])


@pytest.mark.usefixtures("knowing")
def test_panoptic_segments_are_found_again_by_their_ids(flock: Path, tmp_path: Path) -> None:
    path = tmp_path / "pan.json"
    assert run(flock, *FLOCK, "--panoptic", path) == 0
    said = read(path)
    assert [(c["id"], c["name"], c["isthing"]) for c in said["categories"]] == [
        (1, "sheep", 0), (2, "dog", 0),
    ]  # fmt: skip
    assert [one["file_name"] for one in said["images"]] == [
        "a.png", "b, '羊' & <i>.png", "sub/c.png",
    ]  # fmt: skip
    colours = {c["id"]: c["color"] for c in said["categories"]}
    counts = []
    for one in said["annotations"]:
        with Image.open(tmp_path / "pan" / one["file_name"]) as image:
            pixels = np.asarray(image).astype(int)
        ids = pixels @ [1, 256, 256**2]
        counts.append(len(one["segments_info"]))
        assert {s["id"] for s in one["segments_info"]} == set(np.unique(ids).tolist()) - {0}
        for segment in one["segments_info"]:
            mask = ids == segment["id"]
            x, y, width, height = segment["bbox"]
            assert segment["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
            assert mask[y].any()
            assert mask[:, x + width - 1].any()
            assert pixels[mask][0].tolist() == colours[segment["category_id"]]
    assert counts == [1, 0, 2]


def test_the_shipped_model_is_found_by_name_path_and_folder(
    flock: Path, shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for i, model in enumerate(["pasture", shipped / "model.safetensors", f"hf:{shipped}"]):
        out = tmp_path / str(i)
        arguments = ("--labels", "羊", "dog", "grass", "--model", model, "--device", "cpu")
        assert run(flock, *arguments, "--out", out) == 0
        answers.append(labels_in(out / "a_labels.png"))
        assert answers[-1].max() < 3
        about = read(out / "summary.json")["model"]
        assert about["name"] == str(model)
        assert about["file"].endswith("groupvit/model.safetensors")
        assert (about["groups"], len(about["sha256"])) == (4, 64)
        assert re.search(r"^a\.png +[1-9]", capsys.readouterr().out, re.M)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert read(tmp_path / "0" / "summary.json")["settings"]["templates"] == ["{}"]  # languages mix


# ---- words -------------------------------------------------------------------------------------


def test_full_width_signs_are_separators_too() -> None:
    words = {"动物": ("sheep", "dog"), "草": ("grass", "草", "地")}
    assert read_labels(["动物＝sheep｜dog，草=grass|草｜地"]) == words


def test_labels_have_words_of_their_own(flock: Path, tmp_path: Path, knowing: Knowing) -> None:
    labels = ("--labels", "动物=sheep|dog，grass=grass，sky=sky")
    assert run(flock, *labels, "--out", tmp_path / "o") == 0
    assert knowing.asked == (("sheep", "dog", "grass", "sky"), ("a photo of a {}.",))
    assert labels_in(tmp_path / "o" / "sub" / "c_labels.png").max() == 0
    assert run(flock, "--labels", "sheep|羊", "dog|狗", "--template", "{}", "{}.") == 0
    assert knowing.asked == (("sheep", "羊", "dog", "狗"), ("{}", "{}."))
    assert run(flock, "--labels", "羊", "狗", "草地") == 0
    assert knowing.asked == (("羊", "狗", "草地"), ("一张{}的照片",))


def test_the_usual_background_is_what_the_model_reads_and_nobody_asks_for(
    flock: Path, knowing: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flock, "--labels", "sheep", "sky", "--background") == 0
    assert "note: words for the background: grass, tree\n" in capsys.readouterr().err
    assert knowing.asked[0] == ("grass", "tree", "sheep", "sky")
    knowing.model.vocab = ()  # of photographs: the list of the papers
    knowing.tokenizer = WordPieceTokenizer([*WORDS[:-1], *BACKGROUND_WORDS, "[SEP]"], 12)
    assert run(flock, "--labels", "sheep", "sky", "--background") == 0
    words = [word for word in BACKGROUND_WORDS if word != "sky"]
    assert knowing.asked[0] == (*words, "sheep", "sky")


@pytest.mark.parametrize(
    ("labels", "left"),
    [
        (("sheep", "grass"), {"grass", "meadow", "field", "pasture"}),
        (("sheep", "The green field"), {"grass", "meadow", "field", "pasture"}),
        (("sheep", "ground=meadow|snow"), {"grass", "meadow", "field", "pasture", "snow"}),
        (("sheep", "a pine tree"), {"tree"}),
        (("sheep", "草地"), {"grass", "meadow", "field", "pasture"}),
        (("羊", "水面"), {"水面", "池塘"}),
        (("sheep", "zebra"), set()),
    ],
)
def test_the_usual_background_has_no_other_word_for_a_label(
    knowing: Knowing, labels: tuple[str, ...], left: set[str]
) -> None:
    language = "zh" if labels[0] == "羊" else "en"
    landscape = [noun for noun in NOUNS[language] if class_of(noun) not in SPECIES]
    every = dict.fromkeys([*landscape, *(BACKGROUND_WORDS if language == "en" else ())])
    pieces = dict.fromkeys([*every, *"".join(NOUNS["zh"])])
    knowing.tokenizer = WordPieceTokenizer(
        [*WORDS[:-1], *(p for p in pieces if p not in WORDS), "[SEP]"], 12
    )
    found = usual_background(knowing, read_labels(labels))  # type: ignore[arg-type]
    assert found == tuple(word for word in every if word not in left)


def test_a_threshold_alone_makes_a_background_and_the_best_of_a_picture_stay(
    flock: Path, tmp_path: Path, knowing: Knowing
) -> None:
    knowing.score = 0.4
    for threshold in (0.3, 1):
        out = tmp_path / str(threshold)
        options = ("--threshold", threshold, "--out", out)
        assert run(flock, "--labels", "sheep", "dog", *options) == 0
        assert labels_in(out / "a_labels.png")[::10, ::10].tolist() == [[0, 0], [1, 0]]
        assert labels_in(out / "b, '羊' & <i>_labels.png").max() == 0
        assert read(out / "summary.json")["background"] == []


def test_words_that_no_caption_had_are_remarked_on(
    flock: Path, tmp_path: Path, knowing: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    assert run(flock, "--labels", "sheep", "zebra", "Sheep .", "cow", "--json", report) == 0
    complaints = capsys.readouterr().err
    assert "remark: knowing cannot read 'zebra' (nor 1 more): it knows 0% of it" in complaints
    assert len(read(report)["remarks"]) == 1
    for vocab, advised in ((WORDS, False), ((), True)):  # one that reads Chinese, and another
        knowing.model.vocab = vocab
        assert run(flock, "--labels", "sheep", "斑马") == 0
        complaints = capsys.readouterr().err
        assert "cannot read '斑马'" in complaints
        assert ("a model that reads Chinese: pasture" in complaints) is advised


# ---- odd pictures and labels ---------------------------------------------------------------------


def test_pictures_of_every_shape_and_mode(
    tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Smaller than a patch, one pixel high, palette, with alpha."""
    folder, rng = tmp_path / "odd", np.random.default_rng(0)
    folder.mkdir()
    noise = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    small = Image.fromarray(noise)
    pictures = {
        "tiny": Image.fromarray(noise[:2, :3]),
        "panorama": Image.fromarray(rng.integers(0, 256, (1, 300, 3), dtype=np.uint8)),
        "tower": Image.fromarray(rng.integers(0, 256, (300, 1, 3), dtype=np.uint8)),
        "one": Image.fromarray(noise[:1, :1]),
        "palette": small.convert("P"),
        "alpha": small.convert("RGBA"),
    }
    for name, image in pictures.items():
        image.save(folder / f"{name}.png")
    out, options = tmp_path / "o", ("--labels", "sheep", "dog", "--model", shipped)
    assert run(folder, *options, "--out", out, "--html", tmp_path / "g.html") == 0
    said = capsys.readouterr().err
    assert all(line.startswith("wrote ") for line in said.splitlines())
    for name, image in pictures.items():
        assert labels_in(out / f"{name}_labels.png").shape == image.size[::-1]
        with Image.open(out / f"{name}_overlay.png") as drawn:
            assert 48 < min(drawn.size) <= max(drawn.size) < 1600


def test_a_model_is_read_as_its_card_says_unless_told_otherwise(
    flock: Path, shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = {
        "language": "en", "synonyms": True, "top_words": None, "hard": False,
        "templates": ["{}", "a view of {}"], "scales": [1.0, 2.0], "flip": True,
        "refine": 3, "offsets": {"sheep": 9.0},
    }  # fmt: skip
    found = {"reading": reading, "iou": {"sheep": 0.5, "dog": 0.45, "sky": 0.1}}
    card = {"files": {}, "metrics": {"en": {"reading": {"refine": 9}, "balanced": found}}}
    write_json(shipped / "model_card.json", card)
    report, html = tmp_path / "r.json", tmp_path / "g.html"
    how = ("--json", report, "--force")
    assert run(flock, "--labels", "sheep", "dog", *how) == 0
    settings = read(report)["settings"]
    assert {name: settings[name] for name in reading if name in settings} == {
        name: value for name, value in reading.items() if name in settings
    }
    assert read(report)["pictures"][0]["shares"] == {"sheep": 1.0}  # by its offset
    told = capsys.readouterr().err
    assert "note: read as the model's card chose on val: top_words None, hard False, " in told
    assert "remark: pasture is weak in some of the labels (IoU in its card: dog 0.45)" in told
    assert run(flock, "--labels", "sheep", "dog", "--template", "{}", *how) == 0
    said = read(report)["settings"]
    assert (said["templates"], said["refine"]) == (["{}"], 3)
    capsys.readouterr()
    assert run(flock, "--labels", "羊", "狗", "--html", html, *how) == 0
    said = read(report)["settings"]  # nothing was chosen for Chinese
    assert (said["top_words"], said["refine"], said["offsets"]) == (5, 0, {})
    assert "is weak" not in capsys.readouterr().err
    assert "refined in" not in html.read_text("utf-8")


def test_a_label_is_a_byte_and_never_255(
    flock: Path, tmp_path: Path, knowing: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = [f"x{i}" for i in range(253)], tmp_path / "o"
    assert run(flock, "--labels", *labels, "sheep", "--threshold", 0.1, "--out", out) == 0
    assert np.unique(labels_in(out / "a_labels.png")).tolist() == [0, 254]
    assert run(flock, "--labels", *labels, "sheep", "dog", "--threshold", 0.1) == 2
    assert "--labels: got 255; expected at most 255 with the background" in capsys.readouterr().err


# ---- misuse --------------------------------------------------------------------------------------


def test_a_model_that_is_not_there_or_another_one(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    save_file({"backbone.weight": torch.zeros(2, 3)}, tmp_path / "vild.safetensors")
    other = make_groupvit(tmp_path / "other")
    card = '{"files": {"model.safetensors": "%s"}}' % ("0" * 64)
    (other / "model_card.json").write_text(card, encoding="utf-8")
    told = {
        "pasture": r"groupvit/model\.safetensors: there is no shipped segmenter; make it with "
        r"`python -m cliplab train groupvit`",
        str(tmp_path / "absent"): "unknown model '.*absent'.*, or the path of a GroupViT",
        str(tmp_path / "vild.safetensors"): r"vild\.safetensors: .*not a GroupViT|missing",
        str(other): "the file is damaged or another one",
        str(flock): r"flock/model\.safetensors: no such file; expected",
    }
    for model, message in told.items():
        assert run(flock, *FLOCK, "--model", model, "--offline", "--device", "cpu") == 2
        printed, complaints = capsys.readouterr()
        assert (printed, complaints.count("\n")) == ("", 1)
        assert re.search(message, complaints), complaints


# ---- outputs -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("knowing")
def test_existing_outputs_are_kept_unless_forced(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {
        "--out": tmp_path / "o" / "summary.json",
        "--panoptic": tmp_path / "pan" / "a.png",
        "--html": tmp_path / "g.html",
        "--json": tmp_path / "r.json",
    }
    given = {**kept, "--out": tmp_path / "o", "--panoptic": tmp_path / "pan.json"}
    for option, path in kept.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
        assert run(flock, *FLOCK, option, given[option]) == 2
        assert "exists already; choose another" in capsys.readouterr().err
        assert path.read_bytes() == b"mine"
        assert run(flock, *FLOCK, option, given[option], "--force") == 0
        assert path.read_bytes() != b"mine"


def test_a_run_that_was_cut_short_leaves_whole_files(
    flock: Path, tmp_path: Path, knowing: Knowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, segment, seen = tmp_path / "o", knowing.segment, []

    def interrupted(image, *rest):
        seen.append(image)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return segment(image, *rest)

    monkeypatch.setattr(knowing, "segment", interrupted)
    assert run(flock, *FLOCK, "--out", out) == 130
    assert sorted(path.name for path in out.iterdir()) == ["a_labels.png", "a_overlay.png"]
    labels_in(out / "a_labels.png")
    assert run(flock, *FLOCK, "--out", out, "--force") == 0
    assert read(out / "summary.json")["counts"]["read"] == 3
    seen.clear()  # cut short again: what is left of the summary would speak of other masks
    assert run(flock, "--labels", "dog", "sky", "--out", out, "--force") == 130
    assert not (out / "summary.json").exists()


@pytest.mark.usefixtures("knowing")
@pytest.mark.parametrize(
    ("source", "option", "path", "message"),
    [
        ("flock", "--panoptic", "flock.json", "flock, among the pictures of SOURCE"),
        ("flock/a.png", "--panoptic", "flock.json", "flock, among the pictures of SOURCE"),
        ("flock", "--panoptic", "flock/pan.json", "pan, among the pictures of SOURCE"),
        ("flock", "--out", "flock", "flock, among the pictures of SOURCE"),
        ("flock", "--out", "flock/sub", "flock/sub, among the pictures of SOURCE"),
        ("flock", "--json", "flock/a.png", "would overwrite part of SOURCE"),
    ],
)
def test_results_never_replace_the_pictures(
    flock: Path, source: str, option: str, path: str, message: str, capsys
) -> None:
    before = {path: path.read_bytes() for path in flock.rglob("*.*")}
    assert run(flock.parent / source, *FLOCK, option, flock.parent / path, "--force") == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in flock.rglob("*.*")} == before


# ---- overlays ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("ax")  # where the house style is on, its layout asks for other axes
def test_an_overlay_shows_the_picture_its_colours_and_a_legend() -> None:
    size, names = (30, 20), ["background", "羊", "dog", "absent"]
    image = Image.new("RGB", size, COLOURS["sky"])
    labels = np.zeros(size[::-1], np.uint8)
    labels[:10], labels[19, 29] = 1, 2
    colours = [NOTHING, "#D55E00", "#E69F00", "#CC79A7"]
    sheet = np.asarray(overlay_sheet(image, labels, names, colours)).astype(int)
    assert sheet.shape[1] == 2 * 480 + 3 * 12
    assert sheet[100, 100].tolist() == [0, 0, 255]
    assert np.abs(sheet[60, 480 + 40] - sheet[100, 900]).max() == 0
    legend = sheet[320 + 24 :].reshape(-1, 3)
    shown = [(np.abs(legend - rgb(colour)).sum(1) < 6).any() for colour in colours[1:]]
    assert shown == [True, True, False]


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (4000, 900)])
def test_overlays_of_odd_pictures_fit_a_slide(size: tuple[int, int]) -> None:
    labels = np.zeros(size[::-1], np.uint8)
    sheet = overlay_sheet(Image.new("RGB", size), labels, ["a"], ["#D55E00"])
    assert max(sheet.size) <= 1500
    assert min(sheet.size) >= 70
    stacked = size[0] > 2 * size[1]  # a wide picture stands above its colours
    assert (sheet.width == 720 + 2 * 12) is stacked


def test_shares_are_never_rounded_to_nothing() -> None:
    assert [percent(x) for x in (0.0, 0.001, 0.005, 0.5, 1.0)] == ["0%", "<1%", "0%", "50%", "100%"]
