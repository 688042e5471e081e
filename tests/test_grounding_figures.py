"""Words against pictures: what is drawn is what was given, each thing in its place."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from cliplab.viz.boxes import BOX_COLOURS
from cliplab.viz.grounding import (
    cells_to_pixels,
    phrase_colours,
    plot_attention,
    plot_cells,
    plot_positive_map,
    plot_token_table,
)

TOKENS = ["[CLS]", "黑", "山", "羊", ".", "barn", "[SEP]"]
PHRASES = ["黑山羊", "barn"]
POSITIVE = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]]).bool()


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


# ---- words ---------------------------------------------------------------------------------


def test_each_token_of_a_phrase_is_a_cell_in_its_colour(ax: Axes) -> None:
    assert plot_positive_map(ax, POSITIVE, PHRASES, TOKENS) is ax
    cells = [p for p in ax.patches if isinstance(p, Rectangle)]
    middles = [(round(p.get_x() + 0.46), round(p.get_y() + 0.42)) for p in cells]
    assert middles == [(1, 0), (2, 0), (3, 0), (5, 1)]
    assert [to_hex(p.get_facecolor()).upper() for p in cells] == [BOX_COLOURS[0]] * 3 + [
        BOX_COLOURS[1]
    ]
    assert [text.get_text() for text in ax.texts] == ["黑", "山", "羊", "barn"]
    assert ticks(ax.xaxis) == TOKENS
    assert ticks(ax.yaxis) == PHRASES


def test_phrases_keep_their_colours_and_may_be_given_others(ax: Axes) -> None:
    assert phrase_colours(["a", "b", "a"]) == {"a": BOX_COLOURS[0], "b": BOX_COLOURS[1]}
    plot_positive_map(ax, POSITIVE, PHRASES, TOKENS, colours={"barn": "#123456"})
    assert to_hex(ax.patches[-1].get_facecolor()) == "#123456"
    assert to_hex(ax.patches[0].get_facecolor()).upper() == BOX_COLOURS[0]


@pytest.mark.parametrize("plot", [plot_positive_map, plot_token_table])
def test_another_shape_is_refused(ax: Axes, plot) -> None:
    with pytest.raises(ValueError, match=r"got shape \(2, 6\); expected \(2, 7\), a row for each"):
        plot(ax, POSITIVE[:, 1:], PHRASES, TOKENS)


def test_token_table_prints_every_number_on_a_fixed_scale(ax: Axes) -> None:
    values = np.array([[0.3, 0.456, 1.0], [0.994, 0.204, 0.2]])
    assert plot_token_table(ax, values, ["x", "y"], ["a", "b", "c"], limit=2.0) is ax
    assert [t.get_text() for t in ax.texts] == [".30", ".46", "1.0", ".99", ".20", ".20"]
    (mesh,) = ax.images
    assert mesh.get_clim() == (0.0, 2.0)
    np.testing.assert_allclose(mesh.get_array(), values)
    assert len(ax.figure.axes) == 1
    plot_token_table(ax, values, ["x", "y"], ["a", "b", "c"], label="share")
    assert ax.figure.axes[1].get_ylabel() == "share"


def test_long_tokens_are_slanted_and_short_ones_are_not(ax: Axes) -> None:
    plot_token_table(ax, np.zeros((1, 9)), ["x"], ["羊"] * 9)
    assert ax.get_xticklabels()[0].get_rotation() == 0
    plot_token_table(ax, np.zeros((1, 10)), ["x"], ["drinking"] * 10)
    assert ax.get_xticklabels()[0].get_rotation() == 40


# ---- pictures ------------------------------------------------------------------------------


def test_cells_are_spread_over_their_pixels_and_keep_their_sum() -> None:
    weights = torch.tensor([1.0, 2, 3, 4, 5, 6, 0, 16])  # 2 x 3 cells, then 1 x 2... of 4 x 6 px
    heat = cells_to_pixels(weights, [(2, 3), (1, 2)], (4, 6))
    assert heat.sum() == pytest.approx(float(weights.sum()))
    expected = np.array([[1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]]).repeat(2, axis=0) / 4
    expected[:, 3:] += 16 / 12
    np.testing.assert_allclose(heat, expected)


def test_weights_and_cells_have_to_fit() -> None:
    with pytest.raises(ValueError, match=r"weights: got shape \(5,\); expected \(6,\), one a cell"):
        cells_to_pixels(np.ones(5), [(2, 3)], (4, 6))
    with pytest.raises(ValueError, match=r"shape: got \(5, 6\); expected multiples of 2 and 3"):
        cells_to_pixels(np.ones(6), [(2, 3)], (5, 6))


def test_attention_covers_the_picture_with_what_was_given(ax: Axes) -> None:
    image = torch.zeros(3, 4, 6)
    heat = np.zeros((8, 8))  # filled up, as a model takes pictures
    heat[1, 2], heat[3, 5], heat[7, 7] = 1.0, 9.0, 5.0
    assert plot_attention(ax, image, heat, limit=2.0) is ax
    grey, shown = ax.images
    assert grey.get_array().shape == shown.get_array().shape == (4, 6)
    assert shown.get_array()[1, 2] == 0.5
    assert shown.get_array()[3, 5] == 1.0  # as bright as it gets
    assert shown.get_array().sum() == 1.5
    assert shown.get_alpha()[1, 2] == pytest.approx(0.8)
    assert shown.get_alpha()[0, 0] == 0.0
    np.testing.assert_allclose(grey.get_array(), 0.35, rtol=1e-6)


@pytest.mark.parametrize(("shape", "limit"), [((3, 6), 1.0), ((4,), 1.0), ((4, 6), 0.0)])
def test_attention_that_does_not_cover_the_picture_is_refused(ax: Axes, shape, limit) -> None:
    with pytest.raises(ValueError, match=r"expected at least \(4, 6\) and a limit above 0"):
        plot_attention(ax, torch.zeros(3, 4, 6), np.zeros(shape), limit=limit)


def test_cells_are_points_in_their_places(ax: Axes) -> None:
    points = {"fine": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "coarse": np.zeros((0, 2))}
    assert plot_cells(ax, np.zeros((8, 8, 3), np.uint8), points, colours={"fine": "#ff0000"}) is ax
    fine, coarse = ax.collections
    np.testing.assert_allclose(fine.get_offsets(), [[1, 2], [3, 4]])
    assert to_hex(fine.get_facecolor()[0]) == "#ff0000"
    assert len(coarse.get_offsets()) == 0
    assert fine.get_sizes()[0] < coarse.get_sizes()[0]
    assert fine.get_label() == "fine"
