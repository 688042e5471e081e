"""Segments in pictures: what is drawn is what was given, each thing in its place and colour."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from cliplab.pasture import SEMANTIC_CLASSES
from cliplab.viz import BOX_COLOURS, figures
from cliplab.viz.segmentation import (
    NOTHING,
    class_colours,
    label_panels,
    plot_groups,
    plot_labels,
    plot_spans,
    plot_trainings,
    plot_tries,
    rgb,
)


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


# ---- pictures ------------------------------------------------------------------------------


def test_the_pasture_has_colours_that_can_be_told_apart() -> None:
    colours = class_colours(SEMANTIC_CLASSES)
    lab = {name: rgb2lab(np.array(rgb(colour)) / 255) for name, colour in colours.items()}
    apart = {(a, b): deltaE_ciede2000(lab[a], lab[b]) for a, b in combinations(lab, 2)}
    assert min(apart.values()) > 14, min(apart, key=apart.__getitem__)
    chinese = ("草地", "雪", "天空", "山丘", "水面", "树", "谷仓", "栅栏", "水槽", "干草",
               "羊", "山羊", "牛", "狗", "马")  # fmt: skip
    assert list(class_colours(chinese).values()) == list(colours.values())


def test_other_classes_have_okabe_and_itos_colours_and_never_the_same_twice() -> None:
    names = ("background", *(f"x{i}" for i in range(254)))
    colours = list(class_colours(names, has_background=True).values())
    assert colours[:3] == [NOTHING, "#0072B2", "#D55E00"]
    assert len(set(colours)) == 255
    both = class_colours(("sheep", "x", "羊", "cow"))
    assert both["sheep"] == "#D55E00"
    assert len(set(both.values())) == 4
    assert class_colours(("动物", "x"), [("sheep",), ()]) == {"动物": "#D55E00", "x": "#0072B2"}
    assert NOTHING not in class_colours(("background", "grass")).values()  # only called so


def test_a_patch_has_the_colour_of_its_groups(ax: Axes) -> None:
    maps = torch.zeros(3, 1, 1)
    maps[:2] = 0.5
    (shown,) = plot_groups(ax, maps).images
    own = [np.array(rgb(colour)) / 255 for colour in BOX_COLOURS]
    np.testing.assert_allclose(shown.get_array()[0], [(own[0] + own[1]) / 2])


def test_owners_are_outlined(ax: Axes) -> None:
    maps = torch.zeros(2, 2, 4)
    maps[0, :, :2] = maps[1, :, 2:] = 1.0
    assert plot_groups(ax, maps) is ax
    (shown,) = ax.images
    own = [np.array(rgb(colour)) / 255 for colour in BOX_COLOURS]
    expected = [own[0], 0.35 * own[0], own[1], own[1]]
    np.testing.assert_allclose(shown.get_array()[0], expected)
    assert ax.get_xticks().tolist() == []


def test_labels_tint_the_picture(ax: Axes) -> None:
    colours = {"background": "#000000", "sheep": "#D55E00"}
    grey = torch.full((3, 2, 5), 100 / 255)
    labels = torch.tensor([[0, 0, 1, 1, 1]] * 2)
    assert plot_labels(ax, grey, labels, colours) is ax
    shown = ax.images[0].get_array()
    assert shown.shape == (2, 5, 3)
    assert shown[0, 0].tolist() == [115, 115, 115]  # bare
    np.testing.assert_allclose(shown[0, 3], 0.38 * 100 + 0.62 * np.array([213, 94, 0]), atol=1)
    assert shown[0, 1].tolist() == [40, 40, 40]  # the border
    plot_labels(ax, Image.new("RGB", (5, 2), (100, 100, 100)), labels, colours)
    np.testing.assert_array_equal(ax.images[1].get_array(), shown)


def test_panels_stand_above_their_legend() -> None:
    with mpl.rc_context():
        figures.use_style()
        axes = label_panels(2, ["picture", "truth", "named"], {"sky": "#56B4E9", "hay": "#EBCFA0"})
    assert axes.shape == (2, 3)
    assert [ax.get_title(loc="left") for ax in axes[0]] == ["picture", "truth", "named"]
    assert [ax.get_title(loc="left") for ax in axes[1]] == ["", "", ""]
    (legend,) = axes[0, 0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "hay"]
    for ax in axes.flat:
        ax.imshow(np.zeros((4, 4)))
    axes[0, 0].figure.canvas.draw()
    assert legend.get_window_extent().y1 < axes[1, 0].get_window_extent().y0
    plt.close(axes[0, 0].figure)


# ---- numbers -------------------------------------------------------------------------------


def test_confusion_is_printed_in_per_cent_of_the_row(ax: Axes) -> None:
    counts = torch.tensor([[60, 36, 4], [0, 0, 0], [1, 0, 1]])
    assert figures.plot_confusion(ax, counts, ["sky", "hill", "hay"], least=0.05) is ax
    np.testing.assert_allclose(ax.images[0].get_array()[0], [0.6, 0.36, 0.04])
    assert ax.images[0].get_clim() == (0, 1)
    shown = [(*t.get_position(), t.get_text()) for t in ax.texts]
    assert shown == [(0, 0, "60"), (1, 0, "36"), (0, 2, "50"), (2, 2, "50")]
    assert ticks(ax.yaxis) == ticks(ax.xaxis) == ["sky", "hill", "hay"]


def test_spans_join_the_measures_of_a_name(ax: Axes) -> None:
    values = {"text": [0.2, 0.5, np.nan], "oracle": [0.8, np.nan, np.nan]}
    assert plot_spans(ax, ["a", "b", "c"], values) is ax
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0.2, 0.8], [0.5, 0.5]]
    text, oracle = ax.collections
    np.testing.assert_allclose(text.get_offsets()[:2], [[0.2, 0], [0.5, 1]])
    assert oracle.get_label() == "oracle"
    assert to_hex(oracle.get_facecolor()[0]).upper() == figures.VERMILION
    assert ax.get_ylim() == (2.5, -0.5)


def test_what_beat_all_before_it_is_blue(ax: Axes) -> None:
    assert plot_tries(ax, ["plain", "a", "b", "c"], [0.3, 0.25, 0.4, 0.4]) is ax
    blue, pale = figures.BLUE, figures.HAIRLINE
    assert [to_hex(p.get_facecolor()).upper() for p in ax.patches] == [blue, pale, blue, pale]
    assert [text.get_text() for text in ax.texts] == [" 0.300", " 0.250", " 0.400", " 0.400"]
    assert ticks(ax.yaxis) == ["plain", "a", "b", "c"]
    assert ax.get_ylim() == (3.5, -0.5)


def test_every_training_is_a_mark_and_a_dash_is_their_mean(ax: Axes) -> None:
    rows = {"soft": {"mIoU": [0.4, 0.5, 0.6], "oracle": [0.8]}, "majority": {"mIoU": [0.1]}}
    colours = {"mIoU": figures.BLUE, "oracle": figures.ORANGE}
    assert plot_trainings(ax, rows, colours=colours, printed="mIoU") is ax
    first = ax.collections[0]
    np.testing.assert_allclose(first.get_offsets(), [[0.4, 0], [0.5, 0], [0.6, 0]])
    assert to_hex(first.get_facecolor()[0]).upper() == figures.BLUE
    dashes = [line.get_xdata() for line in ax.lines if line.get_color() in colours.values()]
    np.testing.assert_allclose(dashes, [[0.5, 0.5], [0.8, 0.8], [0.1, 0.1]])
    assert [text.get_text() for text in ax.texts] == ["0.50", "0.10"]
    assert ticks(ax.yaxis) == ["soft", "majority"]
    assert ax.get_legend_handles_labels()[1] == ["mIoU", "oracle"]
