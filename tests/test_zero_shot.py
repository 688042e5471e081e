"""Zero-shot in closed form: a fake encoder with known vectors, so that every number is known."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cliplab.classification import prompts, zero_shot
from cliplab.classification.prompts import UnreadPromptWarning, check_class_names
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
        self.truncated: bool | None = None
        self.batch_sizes: list[int] = []

    def encode_text(self, texts: list[str], *, truncate: bool) -> torch.Tensor:
        self.asked += texts
        self.truncated = truncate
        return torch.tensor([PROMPTS[text] for text in texts])

    def encode_image(
        self, images: list[Image.Image], *, batch_size: int, progress: bool
    ) -> torch.Tensor:
        self.batch_sizes.append(batch_size)
        rows = [torch.tensor(image.getpixel((0, 0))).float() for image in images]
        return F.normalize(torch.stack(rows), dim=-1)


def colours(*pixels: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (4, 3), pixel) for pixel in pixels]


# ---- build_classifier ------------------------------------------------------------------------


def test_bare_names_are_the_encoders_own_rows() -> None:
    classifier = build_classifier(Known(), ["sheep", "goat"])
    torch.testing.assert_close(classifier, torch.tensor([[1.0, 0, 0], [0, 1, 0]]))


def test_templates_are_averaged_as_unit_rows_then_normalised() -> None:
    encoder = Known()
    classifier = build_classifier(encoder, ["sheep", "goat"], ["{}", "a {}"])
    assert encoder.asked == ["sheep", "a sheep", "goat", "a goat"]  # class-major
    mean = torch.tensor([[0.8, 0.0, 0.4], [0.0, 0.8, 0.4]])
    torch.testing.assert_close(classifier, mean / math.sqrt(0.8))


@pytest.mark.parametrize("truncate", [False, True])
def test_prompts_are_cut_only_when_asked(truncate: bool) -> None:
    encoder = Known()
    build_classifier(encoder, ["sheep", "goat"], truncate=truncate)
    assert encoder.truncated is truncate


def test_names_are_stripped_and_braces_in_them_are_only_text() -> None:
    encoder = Known()
    build_classifier(encoder, [" sheep ", "{x}"], ["{}", "一只羊{}"])
    assert encoder.asked == ["sheep", "一只羊sheep", "{x}", "一只羊{x}"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "class_names: got none; expected texts"),
        (["sheep"], "class_names: got only 'sheep', which would always get 100 %"),
        (["sheep", "goat", "sheep"], "class_names: 'sheep' repeated; expected each once"),
        (["Sheep", "goat", "sheep "], "class_names: 'Sheep', 'sheep' repeated"),
        (["sheep", " "], r"class_names: got .*; expected texts"),
        ("sheep", r"class_names: got the text 'sheep'; expected a list"),
    ],
)
def test_class_names_that_cannot_be_chosen_between(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_classifier(Known(), names)
    with pytest.raises(ValueError, match=message):
        check_class_names(names)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ([], r"templates: got \[\]; expected a list"),
        (["{}", "a photo"], r"template 'a photo' has no \{\}, so every class would get the same"),
        (["a {0}"], r"template 'a \{0\}' has no \{\}"),
        ("a {}", r"templates: got 'a \{\}'; expected a list"),
    ],
)
def test_templates_that_cannot_be_filled(templates: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_classifier(Known(), ["sheep", "goat"], templates)


# ---- classify --------------------------------------------------------------------------------


def test_classify_gives_cosine_times_scale_and_its_softmax() -> None:
    encoder = Known()
    classifier = build_classifier(encoder, ["sheep", "goat"])
    images = colours((255, 0, 0), (0, 4, 3))
    scores = classify(encoder, images, classifier, class_names=["sheep", "goat"], batch_size=7)
    torch.testing.assert_close(scores.cosine, torch.tensor([[1.0, 0.0], [0.0, 0.8]]))
    torch.testing.assert_close(scores.logits, torch.tensor([[10.0, 0.0], [0.0, 8.0]]))
    torch.testing.assert_close(scores.probability, scores.logits.softmax(1))
    assert scores.class_names == ("sheep", "goat")
    assert scores.prediction.tolist() == [0, 1]
    assert scores.predicted_names == ["sheep", "goat"]
    assert encoder.batch_sizes == [7]
    unnamed = classify(encoder, images, torch.eye(3))
    assert unnamed.class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("classifier", "names", "message"),
    [
        (torch.eye(2), None, r"classifier: got shape \(2, 2\); expected \(K, 3\) for known"),
        (torch.ones(3), None, r"classifier: got shape \(3,\)"),
        (2 * torch.eye(3), None, "classifier: rows are not of unit length; use F.normalize"),
        (torch.eye(3), ["a", "b"], r"cosine: got shape \(1, 3\), .* \(1, 2\)"),
    ],
)
def test_classify_refuses(classifier: torch.Tensor, names: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classify(Known(), colours((1, 0, 0)), classifier, class_names=names)


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
    assert scores.prediction.tolist() == [0, 0, 2]


def test_entropy_stays_finite_when_a_probability_underflows() -> None:
    scores = Scores.from_cosine(["a", "b"], torch.tensor([[1.0, -1.0]]), 1000.0)
    assert scores.probability[0, 1] == 0
    assert scores.entropy.tolist() == [0.0]
    assert scores.margin.tolist() == [1.0]


@pytest.mark.parametrize("scale", [1.0, 7.0, 100.0])
def test_temperature_changes_probabilities_not_the_order(scale: float) -> None:
    cosine = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    scores = Scores.from_cosine("abcd", cosine, scale)
    assert scores.prediction.equal(cosine.argmax(1))
    torch.testing.assert_close(scores.probability.sum(1), torch.ones(5))
    assert (scores.entropy <= math.log(4) + 1e-6).all()


def test_one_class_and_no_images() -> None:
    alone = Scores.from_cosine(["a"], torch.tensor([[0.3]]), 10.0)
    assert alone.margin.tolist() == [1.0]
    assert alone.relative_entropy.tolist() == [0.0]
    none = Scores.from_cosine(["a", "b"], torch.zeros(0, 2), 10.0)
    assert len(none) == len(none.table()) == len(none.margin) == len(none.entropy) == 0


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (1, [1]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
    ],
)
def test_subset(which: object, rows: list[int]) -> None:
    scores = from_probability([0.5, 0.5], [0.9, 0.1], [0.3, 0.7])
    part = scores.subset(which)
    assert len(part) == len(rows)
    assert part.probability.equal(scores.probability[rows])
    assert part.cosine.equal(scores.cosine[rows])


@pytest.mark.parametrize(
    ("shape", "scale", "message"),
    [
        ((2, 2), 0.0, "logit_scale: got 0.0; expected 1 / temperature, above 0"),
        ((2, 2), math.inf, "logit_scale: got inf"),
        ((2,), 1.0, r"logits: got \(2,\); expected a tensor \(N, K\)"),
        ((2, 3), 1.0, r"logits: got shape \(2, 3\)"),
    ],
)
def test_scores_refuse(shape: tuple[int, ...], scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores.from_logits("ab", torch.zeros(shape), logit_scale=scale)


def test_nan_is_refused() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [0.0, math.nan]])
    with pytest.raises(ValueError, match=r"logits: got shape \(3, 2\), 2 of it NaN"):
        Scores.from_logits("ab", logits)
    with pytest.raises(ValueError, match=r"cosine: got shape \(1, 2\), 1 of it NaN"):
        Scores.from_cosine("ab", torch.tensor([[math.nan, 0]]), 1.0)


def test_logits_of_a_fitted_classifier_need_no_cosine() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    scores = Scores.from_logits("abc", logits, logit_scale=4.0)
    assert scores.cosine is None
    assert not scores.probability.requires_grad
    torch.testing.assert_close(scores.probability, logits.detach().softmax(1))
    assert scores.gap.tolist() == [0.5, 0.0]
    assert scores.prediction.tolist() == [0, 0]  # a tie goes to the first
    assert scores.margin[1] == 0
    assert scores.subset([1]).cosine is None
    assert scores.subset([1]).logit_scale == 4
    assert "cosine" not in scores.table()
    assert scores.table()["logit"].tolist() == [2, 1, 0, 0, 0, 0]


def test_printed_probabilities_give_back_what_a_softmax_keeps() -> None:
    cosine = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    model = Scores.from_cosine("abcde", cosine, 30.0)
    read = Scores.from_probability("abcde", model.probability, logit_scale=30.0)
    for name in ("probability", "gap", "entropy", "margin"):
        torch.testing.assert_close(getattr(read, name), getattr(model, name), rtol=1e-4, atol=1e-5)
    assert read.cosine is None


def test_a_printed_zero_has_an_infinite_gap_and_a_finite_entropy() -> None:
    third = Scores.from_probability("abc", torch.tensor([[0.33, 0.33, 0.33]]), logit_scale=1)
    torch.testing.assert_close(third.probability, torch.full((1, 3), 1 / 3))  # digits are cut
    scores = Scores.from_probability("abc", torch.tensor([[0.5, 0.5, 0.0]]), logit_scale=1)
    assert scores.gap.tolist() == [math.inf]
    assert scores.entropy.tolist() == pytest.approx([math.log(2)])


@pytest.mark.parametrize("row", [[0.5, 0.6], [0.5, 0.4], [1.5, -0.5]])
def test_what_is_no_probability_is_refused(row: list[float]) -> None:
    shares = torch.tensor([[0.5, 0.5], row])
    with pytest.raises(ValueError, match=r"probability: row 1 is .* use Scores\.from_logits"):
        Scores.from_probability("ab", shares, logit_scale=100)


def test_independent_answers_are_those_of_a_sigmoid_loss() -> None:
    cosine = torch.tensor([[0.2, 0.1, -0.1]])
    scores = Scores.from_cosine("abc", cosine, 100.0, -10.0)
    torch.testing.assert_close(scores.logits, torch.tensor([[10.0, 0.0, -20.0]]))
    torch.testing.assert_close(scores.independent, scores.logits.sigmoid())
    assert scores.independent[0, 1] == 0.5
    plain = Scores.from_cosine("abc", cosine, 100.0)
    torch.testing.assert_close(scores.probability, plain.probability)  # a softmax cannot see it
    torch.testing.assert_close(scores.subset(0).independent, scores.independent)
    with pytest.raises(ValueError, match=r"no logit bias.*use \.probability"):
        assert plain.independent


def test_classify_takes_the_bias_of_the_encoder() -> None:
    encoder = Known()
    encoder.logit_bias = -5.0
    scores = classify(encoder, colours((255, 0, 0)), torch.eye(3))
    torch.testing.assert_close(scores.logits, torch.tensor([[5.0, -5.0, -5.0]]))
    assert scores.logit_bias == -5


# ---- table -----------------------------------------------------------------------------------


def test_table_ranks_every_class_of_every_image() -> None:
    scores = from_probability([0.2, 0.1, 0.7], [0.5, 0.25, 0.25])
    table = scores.table(names=["x.jpg", "y.jpg"])
    assert list(table.index) == [(i, r) for i in ("x.jpg", "y.jpg") for r in (1, 2, 3)]
    assert table["class"].tolist() == ["c2", "c0", "c1", "c0", "c1", "c2"]
    assert table["probability %"].tolist() == [70.0, 20.0, 10.0, 50.0, 25.0, 25.0]
    assert table.loc["x.jpg", "margin %"].tolist() == [50.0] * 3
    assert table.loc[("y.jpg", 1), "entropy %"] == round(150 * math.log(2) / math.log(3), 1)
    assert table.loc[("x.jpg", 1), "cosine"] == round(math.log(0.7), 4)


def test_table_with_one_line_per_image() -> None:
    scores = from_probability([0.2, 0.8], [0.9, 0.1])
    table = scores.table(top=1)
    assert list(table.index) == [(0, 1), (1, 1)]
    assert table["class"].tolist() == ["c1", "c0"]
    with pytest.raises(ValueError, match="names: got 1; expected one per image, 2"):
        scores.table(names=["x"])


# ---- prompt sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_shipped_templates_have_one_gap_each(language: str) -> None:
    chosen = zero_shot.templates("pasture", language)
    assert len(chosen) == len(set(chosen)) == 7
    assert all(template.count("{}") == 1 for template in chosen)


def test_unknown_prompts_are_named() -> None:
    with pytest.raises(FileNotFoundError, match="unknown prompt set 'pastur'; did you mean 'past"):
        zero_shot.templates("pastur", "en")
    with pytest.raises(ValueError, match="unknown language 'fr'; valid: en, zh"):
        zero_shot.templates("pasture", "fr")
    with pytest.raises(ValueError, match="unknown language 'provenance'"):
        zero_shot.templates("pasture", "provenance")


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


@pytest.mark.parametrize(
    ("names", "wording"),
    [
        (["sheep", "goat"], EN),
        (["lying sheep", "schwarzes Schaf"], ("{}",)),
        (["mouton couché", "🐑"], EN),
        (["mouton", "Hütte"], ("voici {}, dans la neige",)),
    ],
)
def test_no_warning_where_the_tower_reads(
    english: Reading, names: list[str], wording: tuple[str, ...]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_classifier(english, names, wording)


@pytest.mark.parametrize("name", ["羊", "овца", "πρόβατο", "خروف", "แกะ", "양", "ひつじ", "źrebię"])
def test_a_name_in_an_unread_script_is_seen_in_an_english_template(
    english: Reading, name: str
) -> None:
    with pytest.warns(UnreadPromptWarning, match=f"cannot read the prompt '.*{name}'"):
        build_classifier(english, ["sheep", name], EN)


def test_warning_names_prompt_share_encoder_and_remedy_once(english: Reading) -> None:
    with pytest.warns(UnreadPromptWarning) as caught:
        build_classifier(english, ["躺着的羊", "站着的羊"], ["{}", "一张{}的照片"])
    assert len(caught) == 1
    assert caught[0].filename == __file__  # of whoever asked
    said = str(caught[0].message)
    assert "openai:ViT-B/32 cannot read the prompt '一张躺着的羊的照片'" in said
    assert "0% of the 12 tokens of '躺着的羊'" in said
    assert "write prompts in English" in said
    assert "pasture-zh, modelscope: (Chinese-CLIP), hf: with SigLIP 2" in said


def test_a_template_alone_may_be_unread(english: Reading) -> None:
    with pytest.warns(UnreadPromptWarning, match="prompt '一张sheep的照片'"):
        build_classifier(english, ["sheep", "goat"], ["{}", "一张{}的照片"])


def test_chinese_model_is_asked_in_chinese(chinese: Reading) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_classifier(chinese, ["躺着的羊", "站着的羊"], ZH)
    with pytest.warns(
        UnreadPromptWarning, match=r"0% of .*write prompts in Chinese.*pasture, open"
    ):
        build_classifier(chinese, ["sheep", "goat"])
    with pytest.warns(UnreadPromptWarning) as caught:
        build_classifier(chinese, ["海豚", "鲨鱼"], ZH)
    assert "use words it knows" in str(caught[0].message)
    assert "pasture-zh," not in str(caught[0].message)  # not itself


def test_two_names_with_the_same_tokens_are_named(chinese: Reading) -> None:
    with pytest.warns(
        UnreadPromptWarning, match="tell '一只黑的羊' and '一只白的羊' apart: both are"
    ):
        build_classifier(chinese, ["黑的羊", "白的羊"], ZH)  # three of five tokens are known


def test_words_without_a_caption_are_unread_where_the_weights_tell(english: Reading) -> None:
    tower = Reading(english.tokenizer, "pasture", "en")
    rows = torch.zeros(tower.tokenizer.vocab_size, 2)
    rows[tower.tokenizer.encode("a sheep goat")] = 1.0
    tower.model = SimpleNamespace(token_embedding=SimpleNamespace(weight=rows))
    assert prompts.complain_of_unread(tower, ["a sheep", "a goat"]) is None
    said = prompts.complain_of_unread(tower, ["a sheep", "zebra"], ["a {}"])
    assert said is not None
    assert "'a zebra': it knows 0% of the 1 token of 'zebra', the rest were in no caption" in said
    assert prompts.PromptReader.of(tower).coverage("a zebra") == 0.5
    assert prompts.token_coverage(tower, ["a zebra"])["coverage"].tolist() == [0.5]


def test_token_table_shows_what_prompts_share(english: Reading) -> None:
    table = prompts.token_coverage(english, ["躺着的羊", "站着的羊", "a sheep"])
    assert table["tokens"].tolist() == [12, 12, 2]
    assert table["coverage"].tolist() == [0, 0, 1]
    assert table["shared"].tolist() == [0.75, 0.75, 0]
    assert table["pieces"].iloc[2] == "a sheep"
    alone = prompts.token_coverage(english.tokenizer, "a sheep")
    assert alone["shared"].tolist() == [0]
    assert len(prompts.token_coverage(english, [])) == 0
