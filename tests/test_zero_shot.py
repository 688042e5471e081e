"""Zero-shot in closed form: a fake encoder with known vectors, so that every number is known."""

import math
import re

import matplotlib as mpl
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from PIL import Image

from cliplab import zero_shot
from cliplab.zero_shot import Scores, build_classifier, check_class_names, classify

mpl.use("Agg")

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


def test_order_of_templates_does_not_matter() -> None:
    forth = build_classifier(Known(), ["sheep", "goat"], ["{}", "a {}"])
    back = build_classifier(Known(), ["sheep", "goat"], ["a {}", "{}"])
    torch.testing.assert_close(forth, back)


def test_names_are_stripped_and_braces_in_them_are_only_text() -> None:
    encoder = Known()
    build_classifier(encoder, [" sheep ", "{x}"], ["{}", "一只羊{}"])
    assert encoder.asked == ["sheep", "一只羊sheep", "{x}", "一只羊{x}"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "class_names: got none; expected two or more"),
        (["sheep"], "class_names: got only 'sheep', which would always get 100 %"),
        (["sheep", "goat", "sheep"], "class_names: 'sheep' repeated; expected each once"),
        (["Sheep", "goat", "sheep "], "class_names: 'Sheep', 'sheep' repeated"),
        (["sheep", " "], "class_names: got an empty name"),
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
        ([], "templates: got none; expected at least one"),
        (["{}", "a photo"], r"template 'a photo' has no \{\}, so every class would get the same"),
        (["a {0}"], r"template 'a \{0\}' has no \{\}"),
        ("a {}", r"templates: got the text 'a \{\}'; expected a list: \['a \{\}'\]"),
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


def test_classify_names_classes_by_number_when_told_nothing() -> None:
    scores = classify(Known(), colours((1, 0, 0)), torch.eye(3))
    assert scores.class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("classifier", "names", "message"),
    [
        (torch.eye(2), None, r"classifier: got shape \(2, 2\); expected \(K, 3\) for known"),
        (torch.ones(3), None, r"classifier: got shape \(3,\)"),
        (2 * torch.eye(3), None, "classifier: rows are not of unit length; use F.normalize"),
        (torch.eye(3), ["a", "b"], r"cosine: got shape \(1, 3\); expected \(1, 2\)"),
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


def test_scores_must_fit_together() -> None:
    with pytest.raises(ValueError, match=r"logits: got shape \(2, 3\); expected \(2, 2\), images"):
        Scores(("a", "b"), torch.zeros(2, 3), torch.zeros(2, 2), 1.0, torch.zeros(2, 2))


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
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == [(0, 1), (1, 1)]
    assert table["class"].tolist() == ["c1", "c0"]
    with pytest.raises(ValueError, match="names: got 1; expected one per image, 2"):
        scores.table(names=["x"])


# ---- plot ------------------------------------------------------------------------------------


def panels(ax: plt.Axes) -> list[plt.Axes]:
    """The axes with bars, in the order of the images."""
    return [other for other in ax.figure.axes if other.patches]


def widths(panel: plt.Axes) -> list[float]:
    return [bar.get_width() for bar in panel.patches]


def test_plot_draws_each_probability_with_chance_and_the_image_beside() -> None:
    scores = from_probability([0.2, 0.1, 0.7], [0.5, 0.25, 0.25])
    ax = scores.plot(images=colours((255, 0, 0), (0, 255, 0)))
    first, second = panels(ax)
    assert widths(first) == pytest.approx([0.2, 0.1, 0.7])
    assert widths(second) == pytest.approx([0.5, 0.25, 0.25])
    assert [label.get_text() for label in first.get_yticklabels()] == ["c0", "c1", "c2"]
    assert first.lines[0].get_xdata()[0] == pytest.approx(1 / 3)
    assert [bar.get_alpha() for bar in first.patches] == [0.4, 0.4, 1.0]
    shown = [tuple(other.images[0].get_array()[0, 0]) for other in ax.figure.axes if other.images]
    assert shown == [(255, 0, 0), (0, 255, 0)]
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def test_plot_of_many_classes_shows_the_best_ones_and_the_true_chance() -> None:
    shares = [k / 210 for k in range(1, 21)]
    ax = from_probability(shares).plot()
    (panel,) = panels(ax)
    assert widths(panel) == pytest.approx(shares[:-9:-1])
    assert panel.lines[0].get_xdata()[0] == pytest.approx(1 / 20)
    plt.close(ax.figure)


def test_plot_into_given_axes_stays_in_that_figure() -> None:
    figure, axes = plt.subplots(1, 2)
    before = plt.get_fignums()
    assert from_probability(*[[0.5, 0.5]] * 7).plot(axes[1]) is axes[1]
    assert plt.get_fignums() == before
    assert len(panels(axes[1])) == 7
    left = axes[0].get_position().x1
    figure.canvas.draw()
    assert all(panel.get_position().x0 > left for panel in panels(axes[1]))
    plt.close(figure)


def test_plot_refuses() -> None:
    scores = from_probability([0.5, 0.5])
    with pytest.raises(ValueError, match="images: got 2; expected one per score, 1"):
        scores.plot(images=colours((1, 1, 1), (2, 2, 2)))
    with pytest.raises(ValueError, match=r"plot: got 25 images; expected 1 to 24: use \.subset"):
        from_probability(*[[0.5, 0.5]] * 25).plot()
    with pytest.raises(ValueError, match="plot: got 0 images"):
        scores.subset([]).plot()
    figure = plt.figure()
    with pytest.raises(ValueError, match=re.escape("ax: got one placed by hand")):
        scores.plot(figure.add_axes((0, 0, 1, 1)))
    plt.close(figure)


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
