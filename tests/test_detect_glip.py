"""`python -m cliplab detect --model glip`: sentences and lists in, boxes with phrases out."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detect_world import picture, run, told
from json_files import coco, read, write
from PIL import Image

from cliplab.data import open_image, read_pictures
from cliplab.detection import (
    Detections,
    GLIPDetector,
    Settings,
    load_detector,
    read_phrases,
    sentence_prompt,
)
from cliplab.detection.glip import agreed, selection_of
from cliplab.detection.settings import PUBLISHED
from cliplab.models.glip import GLIP, VARIANTS, Found, GLIPConfig, Selection, load_glip, save_glip
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.runtime import sha256

WORDS = "sheep goat black a the left of on trough lying down , . 羊 山 黑 水 槽 左 边 的"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split(), "##s", *map(str, range(10))]
TINY = GLIPConfig(
    widths=(16, 32, 32, 32),
    depths=(1, 1, 1, 1),
    channels=32,
    norm_groups=8,
    anchor_sizes=(16, 32, 64),
    short_side=64,
    long_side=128,
    vocab_size=len(VOCAB),
    text_width=32,
    text_layers=1,
    text_heads=2,
    text_hidden=32,
    blocks=1,
    fusion_width=32,
    fusion_heads=2,
)
SENTENCE = "the [black goat] left of the [trough]"
CHINESE = "水槽左边的黑山羊"


def tiny(config: GLIPConfig = TINY) -> GLIP:
    """Untrained, and unsure of everything: its scores are about 0.6."""
    torch.manual_seed(0)
    model = GLIP(config, WordPieceTokenizer(VOCAB, config.max_tokens)).eval()
    model.head.bias0.data.zero_()
    return model


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tiny GLIP where the pasture's belongs -> its weights."""
    path = tmp_path_factory.mktemp("data") / "checkpoints" / "glip" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_glip(tiny(), path)
    card = {"name": "glip-tiny", "files": {path.name: sha256(path)}}
    (path.parent / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def data(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped one is the tiny one."""
    monkeypatch.setenv("CLIPLAB_DATA", str(shipped.parents[2]))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    for i, name in enumerate(["a.png", "b.png", "c.png"]):
        picture(folder / name, size=(60, 40) if name != "b.png" else (40, 60), seed=i)
    return folder


def ask(folder: Path, *options: object, model: str = "glip") -> int:
    return run(folder, "--model", model, "--device", "cpu", *options)


def answer(weights: Path, path: Path, text: str, selection: Selection) -> Detections:
    """What the library says of one picture."""
    detector = GLIPDetector(load_glip(weights), selection=selection)
    return detector.detect([open_image(path)], text)[0]


# ---- what it gives -----------------------------------------------------------------------------


def test_a_sentence_gives_boxes_pictures_a_page_and_a_report(
    frames: Path, shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn, report, html = (tmp_path / n for n in ("o.json", "drawn", "r.json", "g.html"))
    files = ("--out", out, "--pictures", drawn, "--json", report, "--html", html)
    assert ask(frames, "--phrases", SENTENCE, *files, "--top", 6, "--iou", 1) == 0
    printed, complaints = capsys.readouterr()
    assert [line.split()[0] for line in complaints.splitlines()] == ["wrote"] * 4
    found = told(out)
    for name in ("a.png", "b.png", "c.png"):
        expected = answer(shipped, frames / name, SENTENCE, Selection(nms=1.0))
        kept = expected.select(torch.arange(6))
        assert [phrase for phrase, _, _ in found[name]] == kept.names
        scores = torch.tensor([score for *_, score in found[name]])
        torch.testing.assert_close(scores, kept.scores, atol=1e-4, rtol=0)
        corners = torch.tensor([box for _, box, _ in found[name]])[:, :2]
        torch.testing.assert_close(corners, kept.boxes_xyxy[:, :2], atol=0.05, rtol=0)
    assert {name for rows in found.values() for name, *_ in rows} == {"black goat", "trough"}
    assert len(expected) > 50
    assert len(list(drawn.glob("*.jpg"))) == 3
    assert re.search(r"^black goat +\d+ +\d", printed, re.M)
    page = html.read_text(encoding="utf-8")
    assert '<p class="prompt">the black goat left of the trough</p>' in page
    assert re.search(r">(black goat|trough) 0\.6\d</text>", page)
    assert "model <b>GLIP (glip-tiny)</b>" in page


def test_texts_are_joined_to_one_prompt() -> None:
    prompt = read_phrases(["a goat on the trough.", "sheep; Goat", CHINESE])
    assert prompt.caption == "a goat on the trough. sheep. Goat. 水槽左边的黑山羊"
    told = {
        phrase: [prompt.caption[a:b] for a, b in spans]
        for phrase, spans in zip(prompt.phrases, prompt.spans, strict=True)
    }
    assert told == {
        "goat": ["goat", "Goat"], "trough": ["trough"], "sheep": ["sheep"],
        "水槽": ["水槽"], "黑山羊": ["黑山羊"],
    }  # fmt: skip
    assert read_phrases(["sheep, goat"]) == read_phrases(["sheep", "goat"])


def test_the_report_says_what_was_asked_and_of_whom(
    frames: Path, shipped: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "o.json", tmp_path / "r.json"
    options = ("--iou", 0.3, "--score", 0.1, "--top", 200, "--out", out, "--json", report)
    assert ask(frames, "--phrases", SENTENCE, *options) == 0
    model = read(report)["model"]
    assert (model["variant"], model["sha256"]) == ("glip-tiny", sha256(shipped))
    assert model["file"].endswith("checkpoints/glip/model.safetensors")
    assert model["prompt"] == "the black goat left of the trough"
    assert model["phrases"] == [
        {"label": "black goat", "phrase": "black goat", "spans": [[4, 14]]},
        {"label": "trough", "phrase": "trough", "spans": [[27, 33]]},
    ]
    chosen = {"least": pytest.approx(0.01), "candidates": 1000, "nms": 0.3, "top": 200}
    assert model["selection"] == chosen | {"aggregate": "mean"}
    assert read(report)["cut"] == {"score": 0.1, "overlap": 0.3, "top": 200}
    assert read(out)["info"]["model"] == model
    known = read_pictures(out, images=frames)
    assert sum(len(one.regions) for one in known) == read(report)["counts"]["boxes"]


def test_a_sentence_that_asks_for_some_is_not_judged_by_all(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A goat where no sheep is would count as hit, though nobody asked for it."""
    truth = {"a.png": [("goat", [5.0, 5, 20, 30])], "c.png": [("sheep", [5.0, 5, 20, 30])]}
    source = write(tmp_path / "herd.json", coco(["goat", "sheep"], truth))
    report = tmp_path / "r.json"
    options = ("--images", frames, "--json", report, "--force")
    assert ask(source, "--phrases", "the [goat] left of the [sheep]", *options) == 0
    printed, complaints = capsys.readouterr()
    assert "not judged: the sentence asks for some goat, sheep, the source knows all" in complaints
    assert "judged in" not in printed
    assert read(report)["precision"] is None
    assert ask(source, "--phrases", "a photo of a goat and a sheep", *options) == 0
    printed, complaints = capsys.readouterr()
    assert "2 of the 2 labels, by which the answer is judged" in complaints
    assert "judged in 2 pictures" in printed


def test_labels_keep_their_names(frames: Path, tmp_path: Path) -> None:
    out, report, html = tmp_path / "o.json", tmp_path / "r.json", tmp_path / "g.html"
    labels = ("--labels", "lying=a sheep lying down", "羊=goat", "trough")
    assert ask(frames, *labels, "--out", out, "--json", report, "--html", html) == 0
    assert [one["name"] for one in read(out)["categories"]] == ["lying", "羊", "trough"]
    assert read(report)["model"]["prompt"] == "sheep lying down. goat. trough"
    assert [one["label"] for one in read(report)["model"]["phrases"]] == ["lying", "羊", "trough"]
    page = html.read_text(encoding="utf-8")
    assert {*re.findall(r">(\S+?) 0\.\d\d</text>", page)} == {"lying", "羊", "trough"}


def test_several_pictures_at_a_time_give_the_same(
    frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [open_image(frames / f"{name}.png") for name in "aaab"]  # of two sizes
    model, sizes = tiny(), list[int]()
    forward = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda x: (sizes.append(len(x)), forward(x))[1])
    alone, together = (GLIPDetector(model, batch_size=n).detect(images, SENTENCE) for n in (1, 3))
    assert sizes == [1, 1, 1, 1, 3, 1]  # neighbours of one size
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=0)


# ---- words -------------------------------------------------------------------------------------


def test_phrases_that_were_guessed_are_told(
    frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (SENTENCE, "sheep, the goat", "羊、黑山羊"):
        assert ask(frames, "--phrases", text) == 0
        assert "phrases of the sentence" not in capsys.readouterr().err
    assert ask(frames, "--phrases", "the black goat left of the trough") == 0
    note = "note: phrases of the sentence: 'black goat', 'trough'; where you mean others, mark"
    assert note in capsys.readouterr().err
    assert ask(frames, "--phrases", CHINESE) == 0
    assert "note: phrases of the sentence: '水槽', '黑山羊'; " in capsys.readouterr().err


CARD = {
    "words never learned": ["trough", "水"],
    "a relation means one thing": True,
    "thresholds": {
        "en, list": {"score": 0.61, "precision": 0.9, "recall": 0.7},
        "zh, relation": {"score": 0.35, "precision": 0.8, "recall": 0.6},
    },
}


@pytest.mark.parametrize(
    ("typed", "remarks"),
    [
        ("the sheep, black goat", []),
        ("羊，不要黑羊", ["'不要黑羊': left out; no shipped model was taught negation"]),
        ("black zebra! sheep 🐑, goats 9", ["the model does not know 'zebra', '🐑', and takes"]),
        ("sheep, black troughs", ["its model card says that it never learned 'trough': boxes"]),
        ("羊、水槽", ["its model card says that it never learned '水': boxes"]),
        ("black troughlike, the leftmost sheep", ["'leftmost'", "the model does not know"]),
    ],
)
def test_remarks_on_words(typed: str, remarks: list[str]) -> None:
    said = GLIPDetector(tiny(), card=CARD).read(read_phrases([typed])).remarks
    assert len(said) == len(remarks)
    assert all(one.startswith(start) for one, start in zip(said, remarks, strict=True))


def test_what_counts_is_what_the_card_chose_for_such_a_prompt() -> None:
    detector = GLIPDetector(tiny(), card=CARD)
    for text, score, twice in (
        ("sheep, goat", 0.61, False), (CHINESE, 0.35, True), ("羊、黑山羊", 0.5, False),
        (SENTENCE, 0.5, True), (f"{SENTENCE}. sheep", 0.5, False),
    ):  # fmt: skip
        query = detector.read(read_phrases([text]))
        assert (query.score, query.twice) == (score, twice), text
        assert any("means one thing" in note for note in query.notes) == twice
    assert GLIPDetector(tiny()).read(SENTENCE).twice is False


def test_a_named_side_is_checked(frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[tuple]()
    watched = lambda found, *how: (checked.append(how), agreed(found, *how))[1]  # noqa: E731
    monkeypatch.setattr("cliplab.detection.glip.agreed", watched)
    for text in (SENTENCE, CHINESE, "a [goat] on the [trough]"):
        GLIPDetector(tiny(), card=CARD).detect([open_image(frames / "a.png")], text)
    assert checked == [(2, (0, 1, -1)), (2, (1, 0, -1)), (2, None)]


def test_the_command_counts_by_the_card_and_says_what_that_is_worth(
    frames: Path, shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "carded", tmp_path / "o.json"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(shipped.read_bytes())
    table = {**CARD, "files": {"model.safetensors": sha256(shipped)}}
    (folder / "model_card.json").write_text(json.dumps(table), encoding="utf-8")
    for options, score in (((), 0.61), (("--score", 0.3), 0.3)):
        given = ("--phrases", "sheep", "--out", out, "--force", *options)
        assert ask(frames, *given, model=f"glip:{folder}") == 0
        note = "boxes count from a score of 0.61 on: on validation pictures 0.90 of such boxes were"
        assert (note in capsys.readouterr().err) == (not options)
        assert read(out)["info"]["cut"]["score"] == score
        assert all(one["score"] >= score for one in read(out)["annotations"])


def test_a_relation_is_as_sure_as_its_least_sure_reason() -> None:
    places = torch.tensor([[0.0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    boxes = places[[0, 1, 2, 2, 0, 1, 2]]  # two goats and a trough; then what the list finds
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.4, 0.5, 0.55])
    found = agreed(Found(boxes, scores, labels), 2)
    assert found.labels.tolist() == [0, 1]  # one box a phrase
    assert torch.equal(found.boxes, places[1:])
    assert found.scores.tolist() == pytest.approx([0.5, 0.5])  # of the list's goat, for both
    no_trough = labels != 3
    nothing = agreed(Found(*(x[no_trough] for x in (boxes, scores, labels))), 2)
    assert nothing.scores.tolist() == [0, 0]
    assert len(agreed(Found(boxes[:0], scores[:0], labels[:0]), 2).scores) == 0
    alone = agreed(Found(places[:2], torch.tensor([0.9, 0.4]), torch.tensor([0, 1])), 1)
    assert alone.scores.tolist() == [0]  # the list finds it elsewhere
    for side, kept in (((0, 1, -1), [0.5, 0.5]), ((0, 1, 1), [0, 0]), ((1, 0, 1), [0.5, 0.5])):
        placed = agreed(Found(boxes, scores, labels), 2, side)  # both goats are left of the trough
        assert placed.scores.tolist() == pytest.approx(kept), side
    between = scores[[0, 1, 2, 3, 4, 5, 6]], labels[[0, 1, 2, 3, 4, 5, 6]]
    swapped = places[[0, 1, 2, 1, 0, 2, 1]]  # a goat on each side of the trough
    right = agreed(Found(swapped, *between), 2, (0, 1, 1))
    assert right.boxes[right.labels == 0].tolist() == places[2:].tolist()


def test_no_animal_is_left_of_itself() -> None:
    """A sheep is "the animal", too, and its box as "the sheep" is half a pixel to the right."""
    one = torch.tensor([20.0, 0, 29, 9])
    boxes = torch.stack([one, one, one + torch.tensor([0.5, 0, 0.5, 0])])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 2, 3])
    for side in ((0, 1, -1), (0, 1, 1)):
        assert agreed(Found(boxes, scores, labels), 2, side).scores.tolist() == [0]
    away = torch.stack([one, one, one + torch.tensor([20.0, 0, 20, 0])])
    assert agreed(Found(away, scores, labels), 2, (0, 1, -1)).scores.tolist() == pytest.approx(
        [0.7]
    )


def test_three_thousand_tokens_are_read_in_parts(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"goat {a} {b} {c}" for a in range(10) for b in range(10) for c in range(6)]
    files = ("--json", tmp_path / "r.json", "--html", tmp_path / "g.html")
    assert ask(frames / "a.png", "--phrases", ", ".join(names), "--score", 0, *files) == 0
    printed, complaints = capsys.readouterr()
    assert "note: a long prompt: read in 12 parts" in complaints
    assert len(re.findall(r"^goat \d \d \d +\d", printed, re.M)) == 600
    report = read(tmp_path / "r.json")
    assert (len(report["model"]["phrases"]), report["model"]["prompt_parts"]) == (600, 12)
    assert report["counts"]["boxes"] > 0


# ---- models ------------------------------------------------------------------------------------


def test_another_file_is_named(frames: Path, shipped: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine" / "model.safetensors"
    other.parent.mkdir()
    other.write_bytes(shipped.read_bytes())
    for spec in (other, other.parent):
        options = ("--phrases", SENTENCE, "--json", tmp_path / "r.json", "--force")
        assert ask(frames / "a.png", *options, model=f"glip:{spec}") == 0
        model = read(tmp_path / "r.json")["model"]
        assert model["file"].endswith("mine/model.safetensors")
        assert model["variant"] is None


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Tiny published variants, and a file of glip-t beside its vocabulary."""
    swin = {"body": "swin", "widths": (8, 16, 32, 64), "swin_heads": (1, 1, 2, 2), "window": 3}
    fused = replace(TINY, **swin, unused_classes=3)
    for name in VARIANTS:
        monkeypatch.setitem(VARIANTS, name, fused)
    monkeypatch.setitem(VARIANTS, "glip-t-a", replace(fused, fusion=False))
    path = tmp_path / "zoo" / "tiny.pth"
    path.parent.mkdir()
    torch.save({"model": tiny(fused).state_dict()}, path)
    (path.parent / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return path


def test_published_files_are_named_by_variant(
    frames: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    for name in ("glip-t", "glip-l"):
        options = ("--phrases", SENTENCE, "--json", report, "--force")
        assert ask(frames / "a.png", *options, model=f"{name}:{zoo}") == 0
        assert read(report)["model"]["variant"] == name
        assert read(report)["model"]["sha256"] == sha256(zoo)
    assert capsys.readouterr().err == f"wrote {report.as_posix()}\n" * 2
    assert ask(frames / "a.png", "--phrases", CHINESE, model=f"glip-t:{zoo}") == 0
    remark = "remark: glip-t was trained on English and reads Chinese as single characters"
    assert remark in capsys.readouterr().err


def test_published_files_that_do_not_fit(
    frames: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(model: str) -> str:
        assert ask(frames, "--phrases", SENTENCE, model=model) == 2
        return capsys.readouterr().err

    wrong = said(f"glip-t-a:{zoo}")
    assert "b_attn" in wrong  # a part that only the others have
    assert "before the path of a file say what it holds" in said(str(zoo))
    assert "not a GLIP of this package" in said(f"glip:{zoo}")
    absent = said(f"glip-t:{zoo.parent}/no.pth")
    assert "no.pth: no such file; expected a published checkpoint of GLIP" in absent
    assert "after a colon, glip-t:PATH" in said("glip-t")
    for name in ("glip-x:y", "glpi"):
        assert f"unknown model '{name}'; did you mean 'glip" in said(name)


def test_the_published_variants_are_those_of_the_model() -> None:
    assert set(PUBLISHED) == set(VARIANTS)


def test_a_low_score_lowers_the_models_own_bar() -> None:
    assert selection_of(Settings()) == Selection()
    assert selection_of(Settings(score=0.5)).least == Selection().least
    assert selection_of(Settings(score=0.1)).least == pytest.approx(0.01)
    assert selection_of(Settings(score=0.0)).least == 0


# ---- for notebooks -----------------------------------------------------------------------------


def test_a_prompt_of_ones_own(frames: Path) -> None:
    prompt = sentence_prompt("the black goat left of the trough", ["goat"])
    detector = load_detector("glip", Settings(device="cpu"))
    image = Image.new("L", (50, 30))  # not RGB, as a notebook may give it
    assert detector.detect([image], prompt)[0].phrases == ("goat",)
    assert detector.detect([image], ["goat", "a sheep"])[0].phrases == ("goat", "a sheep")
    with pytest.raises(ValueError, match="a GLIP finds its own, drop them"):
        detector.detect([image], prompt, [torch.tensor([[0.0, 0, 5, 5]])])


# ---- misuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--phrases", "sheep", "。"], "got '。', in which there is no phrase; expected a list"),
        (["--phrases", "the", "goat", "left", "of"], "quote a sentence, so that its words stay"),
        (["--phrases", "a [goat"], "got 'a [goat'; expected words in matching brackets"),
        (["--phrases", "🐑"], "--phrases: '🐑': no word of it is in the model's vocabulary"),
        (["--labels", "goat", "cow=牛"], "--labels: '牛': no word of it is in"),
        (["--phrases", "goat " * 300], "--phrases: no place to cut in the 254 tokens from"),
        (["--phrases", "goat", "--labels", "goat"], "--labels and --phrases: both say what to"),
        (["--labels", "goat", "goat."], "got 'goat', 'goat.', which are the phrases 'goat' alone"),
        (["--labels", "a=the [goat]"], "brackets mark the phrases of a sentence: drop them, or"),
        (["--phrases", "goat", "--boxes", "x"], "--boxes: means nothing to the model glip"),
        (["--phrases", "goat", "--teacher", "pasture"], "--teacher: means nothing to the model gl"),
        (["--phrases", "goat", "--model", "crops"], "--phrases: means nothing to the model crops"),
        ([], "no labels: the source has no boxes with classes; give labels"),
    ],
)
def test_bad_arguments_give_one_clean_line(
    frames: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert ask(frames, *options) == 2
    printed, complaints = capsys.readouterr()
    assert (printed, len(complaints.splitlines())) == ("", 1)
    assert message in complaints


# ---- pictures ----------------------------------------------------------------------------------


def test_pictures_of_any_size(tmp_path: Path) -> None:
    folder, out = tmp_path / "odd", tmp_path / "o.json"
    folder.mkdir()
    sizes = {"dot.png": (1, 1), "row.png": (10000, 1), "column.png": (1, 10000)}
    for name, size in sizes.items():
        Image.new("1", size).save(folder / name)
    files = ("--pictures", tmp_path / "drawn", "--html", tmp_path / "g.html", "--out", out)
    assert ask(folder, "--phrases", SENTENCE, "--score", 0, *files) == 0
    for name, (wide, high) in sizes.items():
        boxes = torch.tensor([box for _, box, _ in told(out)[name]])
        assert len(boxes)
        assert bool((boxes >= 0).all())
        assert bool((boxes[:, :2] + boxes[:, 2:] <= torch.tensor([wide, high]) + 1e-3).all())
    assert len(list((tmp_path / "drawn").iterdir())) == 3


def test_nothing_at_all_is_found(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, html = tmp_path / "o.json", tmp_path / "g.html"
    files = ("--out", out, "--html", html, "--pictures", tmp_path / "drawn")
    assert ask(frames, "--phrases", SENTENCE, "--score", 0.99, *files) == 0
    printed, complaints = capsys.readouterr()
    assert [line.split()[0] for line in complaints.splitlines()] == ["wrote"] * 3
    assert printed.count("nothing") == 3
    assert re.search(r"^black goat +0 +0 +-", printed, re.M)
    assert read(out)["annotations"] == []
    assert html.read_text(encoding="utf-8").count("nothing that counts") == 3
