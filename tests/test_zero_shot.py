"""Zero-shot in closed form: a fake encoder with known vectors, so that every number is known."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cliplab.classification import prompts, zero_shot
from cliplab.classification.prompts import UnreadPromptWarning
from cliplab.classification.zero_shot import Scores, build_classifier, classify
from cliplab.models.tokenizers import BytePairTokenizer, Tokenizer, WordPieceTokenizer

PROMPTS = {
    "sheep": [1.0, 0.0, 0.0],
    "goat": [0.0, 1.0, 0.0],
    "a sheep": [0.6, 0.0, 0.8],
    "a goat": [0.0, 0.6, 0.8],
    "{x}": [0.0, 0.0, 1.0],
    "一只羊sheep": [0.0, 0.0, 1.0],
    "一只羊{x}": [0.0, 0.0, 1.0],
}


class Known:
    """Encoder with given vectors: texts from PROMPTS, images by their top-left colour."""

    name, dim, languages, logit_scale = "known", 3, ("en",), 10.0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_text(self, texts: list[str], *, truncate: bool) -> torch.Tensor:
        self.asked += texts
        return torch.tensor([PROMPTS[text] for text in texts])

    def encode_image(self, images: list[Image.Image]) -> torch.Tensor:
        rows = [torch.tensor(image.getpixel((0, 0))).float() for image in images]
        return F.normalize(torch.stack(rows), dim=-1)


def colours(*pixels: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (4, 3), pixel) for pixel in pixels]


# ---- build_classifier, classify ----------------------------------------------------------------


def test_templates_are_averaged_as_unit_rows_then_normalised() -> None:
    encoder = Known()
    bare = build_classifier(encoder, [" sheep ", "goat"])
    torch.testing.assert_close(bare, torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
    classifier = build_classifier(encoder, ["sheep", "goat"], ["{}", "a {}"])
    assert encoder.asked[2:] == ["sheep", "a sheep", "goat", "a goat"]  # class-major
    mean = torch.tensor([[0.8, 0.0, 0.4], [0.0, 0.8, 0.4]])
    torch.testing.assert_close(classifier, mean / math.sqrt(0.8))
    build_classifier(encoder, ["sheep", "{x}"], ["一只羊{}"])  # braces in a name are only text
    assert encoder.asked[-2:] == ["一只羊sheep", "一只羊{x}"]


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ([], ["{}"], "class_names: got none; expected texts"),
        (["sheep"], ["{}"], "class_names: got only 'sheep', which would"),
        (["Sheep", "goat", "sheep "], ["{}"], "class_names: 'Sheep', 'sheep' repeated"),
        (["sheep", " "], ["{}"], r"class_names: got .*; expected texts"),
        ("sheep", ["{}"], r"class_names: got the text 'sheep'; expected a list"),
        (["sheep", "goat"], [], r"templates: got \[\]; expected a list"),
        (["sheep", "goat"], ["{}", "a {0}"], r"template 'a \{0\}' has no \{\}"),
        (["sheep", "goat"], "a {}", r"templates: got 'a \{\}'; expected a list"),
    ],
)
def test_what_cannot_be_chosen_between_or_filled(
    names: list[str], templates: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_classifier(Known(), names, templates)


def test_classify_gives_cosine_times_scale_and_its_softmax() -> None:
    encoder = Known()
    classifier = build_classifier(encoder, ["sheep", "goat"])
    images = colours((255, 0, 0), (0, 4, 3))
    scores = classify(encoder, images, classifier, class_names=["sheep", "goat"])
    torch.testing.assert_close(scores.cosine, torch.tensor([[1.0, 0.0], [0.0, 0.8]]))
    torch.testing.assert_close(scores.logits, torch.tensor([[10.0, 0.0], [0.0, 8.0]]))
    torch.testing.assert_close(scores.probability, scores.logits.softmax(1))
    assert scores.class_names == ("sheep", "goat")
    assert scores.predicted_names == ["sheep", "goat"]
    encoder.logit_bias = -5.0
    unnamed = classify(encoder, images[:1], torch.eye(3))
    assert unnamed.class_names == ("class 0", "class 1", "class 2")
    torch.testing.assert_close(unnamed.logits, torch.tensor([[5.0, -5.0, -5.0]]))
    assert unnamed.logit_bias == -5
    with pytest.raises(ValueError, match=r"rows are not of unit length; use F\.normalize"):
        classify(encoder, images, 2 * torch.eye(3))
    with pytest.raises(ValueError, match=r"got shape \(2, 3\), .* \(2, 2\)"):
        classify(encoder, images, torch.eye(3), class_names=["a", "b"])


# ---- Scores ----------------------------------------------------------------------------------


def from_probability(*rows: list[float]) -> Scores:
    """Scores with these probabilities, at scale 1."""
    names = [f"c{k}" for k in range(len(rows[0]))]
    return Scores.from_cosine(names, torch.tensor(rows).log(), 1.0)


def test_margin_and_entropy_in_closed_form() -> None:
    scores = from_probability([0.5, 0.25, 0.25], [1 / 3] * 3, [0.2, 0.1, 0.7])
    torch.testing.assert_close(scores.margin, torch.tensor([0.25, 0.0, 0.5]))
    expected = [1.5 * math.log(2), math.log(3)]
    torch.testing.assert_close(scores.entropy[:2], torch.tensor(expected))
    torch.testing.assert_close(scores.relative_entropy[1], torch.tensor(1.0))
    assert scores.prediction.tolist() == [0, 0, 2]  # a tie goes to the first
    sure = Scores.from_cosine(["a", "b"], torch.tensor([[1.0, -1.0]]), 1000.0)
    assert sure.probability[0, 1] == 0  # it underflows
    assert (sure.entropy.tolist(), sure.margin.tolist()) == ([0.0], [1.0])
    alone = Scores.from_cosine(["a"], torch.tensor([[0.3]]), 10.0)
    assert (alone.margin.tolist(), alone.relative_entropy.tolist()) == ([1.0], [0.0])
    none = Scores.from_cosine(["a", "b"], torch.zeros(0, 2), 10.0)
    assert len(none) == len(none.table([])) == len(none.margin) == len(none.entropy) == 0


@pytest.mark.parametrize(
    ("which", "rows"), [(1, [1]), ([2, 0], [2, 0]), (torch.tensor([True, False, True]), [0, 2])]
)
def test_subset(which: object, rows: list[int]) -> None:
    scores = from_probability([0.5, 0.5], [0.9, 0.1], [0.3, 0.7])
    part = scores.subset(which)
    assert len(part) == len(rows)
    assert part.probability.equal(scores.probability[rows])
    assert part.cosine.equal(scores.cosine[rows])


def test_scores_refuse_what_are_none() -> None:
    nan = math.nan
    for logits, scale, message in (
        (torch.zeros(2, 2), 0.0, "logit_scale: got 0.0; expected 1 / temperature, above 0"),
        (torch.zeros(2, 2), math.inf, "logit_scale: got inf"),
        (torch.zeros(2, 3), 1.0, r"logits: got shape \(2, 3\)"),
        (torch.tensor([[nan, 1.0], [0.0, nan]]), 1.0, "2 of it NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            Scores.from_logits("ab", logits, logit_scale=scale)
    for row in ([0.5, 0.6], [0.5, 0.4], [1.5, -0.5]):
        with pytest.raises(ValueError, match=r"probability: row 1 is .* use Scores\.from_logits"):
            Scores.from_probability("ab", torch.tensor([[0.5, 0.5], row]), logit_scale=100)


def test_logits_of_a_fitted_classifier_need_no_cosine() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    scores = Scores.from_logits("abc", logits, logit_scale=4.0)
    assert not scores.probability.requires_grad
    torch.testing.assert_close(scores.probability, logits.detach().softmax(1))
    assert scores.gap.tolist() == [0.5, 0.0]
    assert scores.subset([1]).cosine is None
    assert scores.subset([1]).logit_scale == 4
    assert "cosine" not in scores.table(["x", "y"])
    assert scores.table(["x", "y"])["logit"].tolist() == [2, 1, 0, 0, 0, 0]


def test_printed_probabilities_give_back_what_a_softmax_keeps() -> None:
    cosine = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    model = Scores.from_cosine("abcde", cosine, 30.0)
    read = Scores.from_probability("abcde", model.probability, logit_scale=30.0)
    for name in ("probability", "gap", "entropy", "margin"):
        torch.testing.assert_close(getattr(read, name), getattr(model, name), rtol=1e-4, atol=1e-5)
    third = Scores.from_probability("abc", torch.tensor([[0.33, 0.33, 0.33]]), logit_scale=1)
    torch.testing.assert_close(third.probability, torch.full((1, 3), 1 / 3))  # digits are cut
    zero = Scores.from_probability("abc", torch.tensor([[0.5, 0.5, 0.0]]), logit_scale=1)
    assert zero.gap.tolist() == [math.inf]
    assert zero.entropy.tolist() == pytest.approx([math.log(2)])


def test_independent_answers_are_those_of_a_sigmoid_loss() -> None:
    cosine = torch.tensor([[0.2, 0.1, -0.1]])
    scores = Scores.from_cosine("abc", cosine, 100.0, -10.0)
    torch.testing.assert_close(scores.logits, torch.tensor([[10.0, 0.0, -20.0]]))
    torch.testing.assert_close(scores.subset(0).independent, scores.logits.sigmoid())
    assert scores.independent[0, 1] == 0.5
    plain = Scores.from_cosine("abc", cosine, 100.0)
    torch.testing.assert_close(scores.probability, plain.probability)  # a softmax cannot see it
    with pytest.raises(ValueError, match=r"no logit bias.*use \.probability"):
        assert plain.independent


def test_table_ranks_every_class_of_every_image() -> None:
    scores = from_probability([0.2, 0.1, 0.7], [0.5, 0.25, 0.25])
    table = scores.table(["x.jpg", "y.jpg"])
    assert list(table.index) == [(i, r) for i in ("x.jpg", "y.jpg") for r in (1, 2, 3)]
    assert table["class"].tolist() == ["c2", "c0", "c1", "c0", "c1", "c2"]
    assert table["probability %"].tolist() == [70.0, 20.0, 10.0, 50.0, 25.0, 25.0]
    assert table.loc["x.jpg", "margin %"].tolist() == [50.0] * 3
    assert table.loc[("y.jpg", 1), "entropy %"] == round(150 * math.log(2) / math.log(3), 1)
    assert table.loc[("x.jpg", 1), "cosine"] == round(math.log(0.7), 4)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_shipped_templates_have_one_gap_each(language: str) -> None:
    chosen = zero_shot.templates("pasture", language)
    assert len(chosen) == len(set(chosen)) == 7
    assert all(template.count("{}") == 1 for template in chosen)
    with pytest.raises(ValueError, match="unknown language 'fr'; valid: en, zh"):
        zero_shot.templates("pasture", "fr")


# ---- prompts that cannot be read -----------------------------------------------------------


class Reading(Known):
    """The known encoder with a real tokenizer, and vectors for any text."""

    def __init__(self, tokenizer: Tokenizer, name: str, language: str) -> None:
        super().__init__()
        self.tokenizer, self.name, self.languages = tokenizer, name, (language,)

    def encode_text(self, texts: list[str], *, truncate: bool) -> torch.Tensor:
        return F.normalize(torch.ones(len(texts), 3), dim=-1)


@pytest.fixture(scope="module")
def english() -> Reading:
    pytest.importorskip("clip", reason="needs openai-clip")
    return Reading(BytePairTokenizer(), "openai:ViT-B/32", "en")


@pytest.fixture(scope="module")
def chinese() -> Reading:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    return Reading(WordPieceTokenizer([*special, *"一只站躺着的羊牛"]), "pasture-zh", "zh")


EN, ZH = ("a photo of a {}", "{}"), ("一只{}", "{}")


@pytest.mark.filterwarnings("error")
def test_no_warning_where_the_tower_reads(english: Reading, chinese: Reading) -> None:
    build_classifier(english, ["lying sheep", "schwarzes Schaf"], ("{}",))
    build_classifier(english, ["mouton couché", "🐑"], EN)
    build_classifier(english, ["mouton", "Hütte"], ("voici {}, dans la neige",))
    build_classifier(chinese, ["躺着的羊", "站着的羊"], ZH)


@pytest.mark.parametrize("name", ["羊", "овца", "خروف", "แกะ", "źrebię"])
def test_a_name_in_an_unread_script_is_seen_in_an_english_template(
    english: Reading, name: str
) -> None:
    with pytest.warns(UnreadPromptWarning, match=f"cannot read the prompt '.*{name}'"):
        build_classifier(english, ["sheep", name], EN)


def test_the_warning_names_prompt_share_encoder_and_remedy_once(
    english: Reading, chinese: Reading
) -> None:
    with pytest.warns(UnreadPromptWarning) as caught:
        build_classifier(english, ["躺着的羊", "站着的羊"], ["{}", "一张{}的照片"])
    assert len(caught) == 1
    assert caught[0].filename == __file__  # of whoever asked
    said = str(caught[0].message)
    assert "openai:ViT-B/32 cannot read the prompt '一张躺着的羊的照片'" in said
    assert "0% of the 12 tokens of '躺着的羊'" in said
    assert "write prompts in English" in said
    assert "pasture-zh, modelscope: (Chinese-CLIP), hf: with SigLIP 2" in said
    for encoder, names, templates, message in (
        (english, ["sheep", "goat"], ["{}", "一张{}的照片"], "prompt '一张sheep的照片'"),
        (chinese, ["sheep", "goat"], ["{}"], r"0% of .*write prompts in Chinese.*pasture, open"),
        (chinese, ["海豚", "鲨鱼"], ZH, r"use words it knows, or .* of Chinese: modelscope"),
        (chinese, ["黑的羊", "白的羊"], ZH, "tell '一只黑的羊' and '一只白的羊' apart: both are"),
    ):
        with pytest.warns(UnreadPromptWarning, match=message):
            build_classifier(encoder, names, templates)


def test_a_text_is_called_unread_before_it_is_refused_as_too_long(
    english: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = pytest.raises(ValueError, match="too long")
    monkeypatch.setattr(english, "encode_text", lambda *_, **__: english.tokenizer(["羊" * 50]))
    with pytest.warns(UnreadPromptWarning, match="write prompts in English"), refused:
        build_classifier(english, ["羊" * 50, "牛"])


def test_words_without_a_caption_are_unread_where_the_weights_tell(english: Reading) -> None:
    tower = Reading(english.tokenizer, "pasture", "en")
    rows = torch.zeros(tower.tokenizer.vocab_size, 2)
    rows[tower.tokenizer.encode("a sheep goat")] = 1.0
    tower.model = SimpleNamespace(token_embedding=SimpleNamespace(weight=rows))
    assert prompts.complain_of_unread(tower, ["a sheep", "a goat"]) == []
    (said,) = prompts.complain_of_unread(tower, ["a sheep", "zebra"], ["a {}"])
    assert "'a zebra': it knows 0% of the 1 token of 'zebra', the rest were in no caption" in said
    table = prompts.token_coverage(tower, ["a zebra", "a sheep"])
    assert table["coverage"].tolist() == [0.5, 1]
    assert table["pieces"].tolist() == ["a zebra", "a sheep"]
    alone = prompts.token_coverage(english.tokenizer, ["羊", "a zebra"])
    assert alone["coverage"].tolist() == [0, 1]
