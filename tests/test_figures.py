"""Figures: what is drawn is what was given, on a fixed scale, with Chinese glyphs."""

import logging
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import font_manager, pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from cliplab.classification import metrics
from cliplab.pasture import SEMANTIC_CLASSES
from cliplab.runtime import data_dir
from cliplab.viz import figures, fonts
from cliplab.viz.boxes import BOX_COLOURS, box_colour, ink_on, place_tags, plot_boxes, tag_size
from cliplab.viz.grounding import (
    cells_to_pixels,
    phrase_colours,
    plot_attention,
    plot_cells,
    plot_positive_map,
    plot_token_table,
)
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

LEFT, RIGHT = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]
SEED_LABELS = ("站立的羊", "进食的羊", "躺着的羊", "喝水的羊", "吃饭的羊")


def printed(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_import_alone_changes_no_setting() -> None:
    with mpl.rc_context(rc=mpl.rcParamsDefault):
        before = dict(mpl.rcParams)
        fonts.cjk_fonts()
        assert dict(mpl.rcParams) == before
        figures.use_style()
        assert mpl.rcParams["font.family"][0] == "DejaVu Sans"
        assert mpl.rcParams["figure.dpi"] == 134


def test_shipped_font_holds_the_chinese_we_print_and_is_small() -> None:
    path = data_dir() / "fonts" / fonts.SHIPPED_FONT
    glyphs = font_manager.get_font(str(path)).get_charmap()
    missing = {c for c in "".join(SEED_LABELS) + "，。、：？！（）" if ord(c) not in glyphs}
    assert not missing
    assert path.stat().st_size < 1_600_000
    assert (path.parent / "OFL.txt").read_text("utf-8").count("SIL OPEN FONT LICENSE") == 1


def test_chinese_title_is_drawn_without_a_complaint(ax, caplog, recwarn) -> None:
    ax.set_title("躺着的羊 lying sheep")
    ax.set_xlabel(SEED_LABELS[0])
    with caplog.at_level(logging.WARNING):
        ax.figure.canvas.draw()
    complaints = [str(w.message) for w in recwarn] + [r.message for r in caplog.records]
    assert not [c for c in complaints if "Glyph" in c or "findfont" in c]


def test_the_shipped_font_comes_first_and_the_doctor_is_told_if_there_is_none(
    monkeypatch, tmp_path
) -> None:
    assert fonts.cjk_fonts()[0] == "Noto Sans SC cliplab"
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    monkeypatch.setattr(fonts, "INSTALLED_FONTS", ())
    assert fonts.cjk_fonts() == []


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, list])
def test_similarity_keeps_values_and_scale(ax, make) -> None:
    values = [[0.5, -0.25, 0.125], [0.0, 1.0, -1.0]]
    drawn = figures.plot_similarity(ax, make(values), ["a", "b"], ["x", "y", "z"], limits=(-2, 4))
    mesh = drawn.get_images()[0]
    np.testing.assert_allclose(mesh.get_array(), values)
    assert mesh.get_clim() == (-2, 4)
    assert printed(ax) == ["0.50", "-0.25", "0.12", "0.00", "1.00", "-1.00"]


def test_signed_matrix_is_white_at_zero_and_keeps_the_sign(ax) -> None:
    figures.plot_signed(ax, [[-0.001, 0.0], [-0.006, -0.1]], limit=0.5)
    assert printed(ax) == ["0.00", "0.00", "-0.01", "-0.10"]
    mesh = ax.get_images()[0]
    assert mesh.get_clim() == (-0.5, 0.5)
    white, red, blue = (mesh.cmap(mesh.norm(v)) for v in (0.0, -0.5, 0.5))
    assert min(white[:3]) > 0.95
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_similarity_draws_one_thumbnail_per_row(ax) -> None:
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    figures.plot_similarity(ax, np.eye(3), images)
    extents = [image.get_extent() for image in ax.get_images()[1:]]
    assert [np.mean(extent[2:]) for extent in extents] == pytest.approx([0, 1, 2], abs=1e-9)
    assert ax.get_xlim()[0] < -1
    assert ax.get_ylim() == (2.5, -0.5)


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"]])
def test_wrong_number_of_names_is_refused(ax, names) -> None:
    with pytest.raises(ValueError, match=f"rows: got {len(names)} for 2 rows"):
        figures.plot_similarity(ax, np.eye(2), names)
    for plot, given in (
        (figures.plot_confusion, (ax, np.eye(2), names)),
        (figures.plot_probabilities, (ax, names, [0.5, 0.5])),
        (figures.show_images, ([Image.new("RGB", (4, 4))] * 2, names)),
        (plot_boxes, (ax, np.zeros((4, 6, 3)), [[1.0, 1, 3, 3]] * 2, names)),
    ):
        with pytest.raises(ValueError, match=f"got {len(names)} for 2"):
            plot(*given)


def test_confusion_colours_rows_and_prints_counts(ax) -> None:
    figures.plot_confusion(ax, [[3, 1], [0, 0]], ["sheep", "goat"], chance=0.5)
    np.testing.assert_allclose(ax.get_images()[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert printed(ax) == ["3", "1", "0", "0"]
    assert "50.0%" in ax.get_xlabel()
    counts = [[60, 36, 4], [0, 0, 0], [1, 0, 1]]
    figures.plot_confusion(plt.figure().add_subplot(), counts, ["sky", "hill", "hay"], least=0.05)
    shown = [(*text.get_position(), text.get_text()) for text in plt.gca().texts]
    assert shown == [(0, 0, "60"), (1, 0, "36"), (0, 2, "50"), (2, 2, "50")]  # per cent of the row


def test_training_draws_recalls_at_their_own_steps() -> None:
    history = {"step": range(5), "loss": [5, 4, 3, 2, 1], "recall_step": [0, 4], "R@1": [0.1, 0.6]}
    fig, axes = plt.subplots(1, 2)
    figures.plot_training(axes, history, floor=4.5, chance=0.01)
    loss, recall = axes[0].get_lines()[0], axes[1].get_lines()[0]
    np.testing.assert_allclose(loss.get_xydata()[:, 1], [5, 4, 3, 2, 1])
    np.testing.assert_allclose(recall.get_xydata(), [[0, 0.1], [4, 0.6]])
    assert axes[0].get_lines()[1].get_ydata()[0] == 4.5
    assert axes[1].get_lines()[1].get_ydata()[0] == 0.01
    plt.close(fig)


def test_bars_span_their_intervals(ax) -> None:
    figures.plot_bars_with_intervals(ax, ["a", "b"], [(0.5, 0.4, 0.7), (1, 0.9, 1)], chance=0.25)
    assert [patch.get_width() for patch in ax.patches] == [0.5, 1.0]
    whiskers = ax.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose([w[:, 0] for w in whiskers], [[0.4, 0.7], [0.9, 1.0]])
    assert "50.0%" in printed(ax)


@pytest.mark.parametrize(("hits", "n"), [(400, 400), (0, 400), (197, 197), (0, 7)])
def test_bars_draw_certain_outcomes(ax, hits: int, n: int) -> None:
    certain = metrics.rate([True] * hits + [False] * (n - hits))
    figures.plot_bars_with_intervals(ax, ["a"], [certain])
    assert ax.patches[0].get_width() == certain.value


def test_probabilities_mark_truth_and_chance(ax) -> None:
    figures.plot_probabilities(ax, SEED_LABELS[:3], [0.2, 0.5, 0.3], truth="躺着的羊")
    assert [patch.get_width() for patch in ax.patches] == [0.2, 0.5, 0.3]
    green = mpl.colors.to_rgba(figures.GREEN)
    assert [patch.get_facecolor() == green for patch in ax.patches] == [False, False, True]
    assert ax.get_lines()[0].get_xdata()[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("n", "columns", "shape"), [(1, 6, (1, 1)), (7, 3, (3, 3)), (4, 4, (1, 4))]
)
def test_images_fill_rows(n: int, columns: int, shape: tuple[int, int]) -> None:
    with mpl.rc_context():
        figures.use_style()
        axes = figures.show_images([Image.new("RGB", (4, 4))] * n, columns=columns)
    assert axes.shape == shape
    assert sum(bool(ax.get_images()) for ax in axes.flat) == n
    plt.close(axes[0, 0].figure)


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (torch.zeros(3, 5, 7), (5, 7, 3)),
        (torch.zeros(1, 5, 7), (5, 7)),
        (np.zeros((5, 7, 3)), (5, 7, 3)),
        (np.zeros((5, 7)), (5, 7)),
        (Image.new("RGB", (7, 5)), (5, 7, 3)),
    ],
)
def test_every_form_of_image_is_understood(image, shape) -> None:
    assert figures.as_pixels(image).shape == shape
    with pytest.raises(ValueError, match="not a batch"):
        figures.as_pixels(torch.zeros(2, 3, 5, 7))


# ---- calibration -----------------------------------------------------------------------------


def test_reliability_draws_filled_bins_with_their_error() -> None:
    shares = [[0.9, 0.1]] * 8 + [[0.6, 0.4]] * 2
    bins = metrics.reliability(shares, [0] * 6 + [1] * 2 + [0, 1], bins=10)
    ax = figures.plot_reliability(plt.figure().add_subplot(), bins, label="before")
    dots = ax.collections[-1]
    np.testing.assert_allclose(dots.get_offsets(), [[0.6, 0.5], [0.9, 0.75]])
    small, large = dots.get_sizes()
    assert large - 14 == pytest.approx(4 * (small - 14))  # as 8 images to 2
    assert dots.get_label() == f"before, ECE {0.8 * 0.15 + 0.2 * 0.1:.3f}"
    figures.plot_reliability(ax, bins, label="again")
    assert sum(line.get_linestyle() == "--" for line in ax.lines) == 1  # one diagonal
    first, second = (c.get_facecolor() for c in ax.collections if c.get_label().endswith("0.140"))
    assert not np.allclose(first, second)


# ---- tags --------------------------------------------------------------------------------------


def test_tags_keep_off_each_other_and_inside() -> None:
    boxes = [[10.0, 20, 60, 60]] * 4 + [[-5.0, -5, 200, 200]]
    sizes = [(30.0, 8.0)] * 5
    corners = place_tags(boxes, sizes, (100, 80))
    assert corners[0] == (10, 12)  # above its box
    areas = [(x, y, x + 30, y + 8) for x, y in corners]
    for i, a in enumerate(areas):
        assert min(a) >= 0
        assert a[2] <= 100
        assert a[3] <= 80
        for b in areas[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert place_tags([[0.0, 0, 5, 5]], [(300.0, 90.0)], (100, 80)) == [(0, 0)]


def test_chinese_is_wider() -> None:
    latin, chinese = tag_size("ab", 10.0)[0], tag_size("羊群", 10.0)[0]
    assert chinese - latin == pytest.approx(8)
    assert tag_size("a", 10.0)[1] == 15


@pytest.mark.parametrize("paint", [*BOX_COLOURS, "#000000", "#FFFFFF"])
def test_tags_can_be_read(paint: str) -> None:
    def light(colour: str) -> float:
        values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(paint), light(ink_on(paint))))
    assert (high + 0.05) / (low + 0.05) >= 3  # WCAG: large or bold text


# ---- boxes -----------------------------------------------------------------------------------


def test_a_figure_shows_boxes_under_their_names(ax) -> None:
    boxes = torch.tensor([LEFT, RIGHT, RIGHT])
    names, scores = ["躺着的羊", "goat", "躺着的羊"], torch.tensor([0.876, 0.5, 0.25])
    assert plot_boxes(ax, torch.rand(3, 40, 60), boxes, names, scores) is ax
    assert [text.get_text() for text in ax.texts] == ["躺着的羊 0.88", "goat 0.50", "躺着的羊 0.25"]
    frames = [patch for patch in ax.patches if not patch.get_fill()]
    assert [patch.get_bbox().bounds for patch in frames] == [
        (4.5, 4.5, 20, 30), (29.5, 4.5, 25, 30), (29.5, 4.5, 25, 30),
    ]  # fmt: skip
    paints = [to_hex(patch.get_edgecolor()).upper() for patch in frames]
    assert paints == [BOX_COLOURS[0], BOX_COLOURS[1], BOX_COLOURS[0]]


def test_a_figure_without_boxes_names_or_scores() -> None:
    _, axes = plt.subplots(1, 3)
    plot_boxes(axes[0], torch.rand(3, 4, 6), torch.zeros(0, 4))
    assert not axes[0].patches
    plot_boxes(axes[1], torch.rand(3, 4, 6), [[1.0, 1, 3, 3]])
    assert (len(axes[1].patches), len(axes[1].texts)) == (1, 0)
    plot_boxes(axes[2], torch.rand(3, 4, 6), [[1.0, 1, 3, 3]], ["a"], colours={"a": "#112233"})
    assert to_hex(axes[2].patches[0].get_edgecolor()) == "#112233"
    assert len({box_colour(k) for k in range(21)}) == 21
    plt.close("all")


def test_a_tag_is_as_wide_as_its_text_and_at_its_box() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(6.3, 2.4), layout="constrained")
    for ax in axes:
        plot_boxes(ax, torch.rand(3, 128, 171), [[20.0, 60, 120, 100]], ["sheep standing"])
    figure.draw_without_rendering()
    (text,) = axes[0].texts
    plate, font = text.get_bbox_patch().get_window_extent(), text.get_fontsize() / 72 * figure.dpi
    assert 0 < plate.width - text.get_window_extent().width <= font
    left, top = axes[0].transData.transform((19.5, 59.5))  # the corner of the box
    assert (plate.x0, plate.y0) == pytest.approx((left, top), abs=0.25 * font)
    plt.close(figure)


def test_of_hundreds_of_boxes_the_first_have_tags(ax) -> None:
    plot_boxes(ax, torch.rand(3, 40, 60), [LEFT] * 201, ["goat"] * 201)
    assert len(ax.texts) == 200


# ---- words against pictures ------------------------------------------------------------------

TOKENS = ["[CLS]", "黑", "山", "羊", ".", "barn", "[SEP]"]
PHRASES = ["黑山羊", "barn"]
POSITIVE = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0]]).bool()


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_each_token_of_a_phrase_is_a_cell_in_its_colour(ax) -> None:
    assert plot_positive_map(ax, POSITIVE, PHRASES, TOKENS) is ax
    cells = ax.patches
    middles = [(round(p.get_x() + 0.46), round(p.get_y() + 0.42)) for p in cells]
    assert middles == [(1, 0), (2, 0), (3, 0), (5, 1)]
    paints = [to_hex(p.get_facecolor()).upper() for p in cells]
    assert paints == [BOX_COLOURS[0]] * 3 + [BOX_COLOURS[1]]
    assert phrase_colours(["a", "b", "a"]) == {"a": BOX_COLOURS[0], "b": BOX_COLOURS[1]}
    assert [text.get_text() for text in ax.texts] == ["黑", "山", "羊", "barn"]
    assert ticks(ax.xaxis) == TOKENS
    assert ticks(ax.yaxis) == PHRASES


@pytest.mark.parametrize("plot", [plot_positive_map, plot_token_table])
def test_another_shape_is_refused(ax, plot) -> None:
    with pytest.raises(ValueError, match="tokens: got 7 for 6"):
        plot(ax, POSITIVE[:, 1:], PHRASES, TOKENS)


def test_token_table_prints_every_number_on_a_fixed_scale(ax) -> None:
    values = np.array([[0.3, 0.456, 1.0], [0.994, 0.204, 0.2]])
    assert plot_token_table(ax, values, ["x", "y"], ["a", "b", "c"], limit=2.0) is ax
    assert [t.get_text() for t in ax.texts] == [".30", ".46", "1.0", ".99", ".20", ".20"]
    (mesh,) = ax.images
    assert mesh.get_clim() == (0.0, 2.0)
    np.testing.assert_allclose(mesh.get_array(), values)
    assert len(ax.figure.axes) == 1
    plot_token_table(ax, values, ["x", "y"], ["a", "b", "c"], label="share")
    assert ax.figure.axes[1].get_ylabel() == "share"


def test_long_tokens_are_slanted_and_short_ones_are_not(ax) -> None:
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


def test_attention_covers_the_picture_with_what_was_given(ax) -> None:
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


def test_cells_are_points_in_their_places(ax) -> None:
    points = {"fine": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "coarse": np.zeros((0, 2))}
    paints = {"fine": "#ff0000", "coarse": "#0000ff"}
    assert plot_cells(ax, np.zeros((8, 8, 3), np.uint8), points, colours=paints) is ax
    fine, coarse = ax.collections
    np.testing.assert_allclose(fine.get_offsets(), [[1, 2], [3, 4]])
    assert to_hex(fine.get_facecolor()[0]) == "#ff0000"
    assert len(coarse.get_offsets()) == 0
    assert fine.get_sizes()[0] < coarse.get_sizes()[0]
    assert fine.get_label() == "fine"


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


def test_patches_have_the_colour_of_their_groups_and_owners_are_outlined(ax) -> None:
    own = [np.array(rgb(colour)) / 255 for colour in BOX_COLOURS]
    maps = torch.zeros(2, 2, 4)
    maps[0, :, :2] = maps[1, :, 2:] = 1.0
    maps[:, :, 3] = 0.5
    assert plot_groups(ax, maps) is ax
    expected = [own[0], 0.35 * own[0], 0.35 * own[1], (own[0] + own[1]) / 2]
    np.testing.assert_allclose(ax.images[0].get_array()[0], expected)


def test_labels_tint_the_picture(ax) -> None:
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
    (legend,) = axes[0, 0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "hay"]
    for ax in axes.flat:
        ax.imshow(np.zeros((4, 4)))
    axes[0, 0].figure.canvas.draw()
    assert legend.get_window_extent().y1 < axes[1, 0].get_window_extent().y0
    plt.close(axes[0, 0].figure)


# ---- numbers -------------------------------------------------------------------------------


def test_spans_join_the_measures_of_a_name(ax) -> None:
    values = {"text": [0.2, 0.5, np.nan], "oracle": [0.8, np.nan, np.nan]}
    assert plot_spans(ax, ["a", "b", "c"], values) is ax
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0.2, 0.8], [0.5, 0.5]]
    text, oracle = ax.collections
    np.testing.assert_allclose(text.get_offsets()[:2], [[0.2, 0], [0.5, 1]])
    assert oracle.get_label() == "oracle"
    assert to_hex(oracle.get_facecolor()[0]).upper() == figures.VERMILION
    assert ax.get_ylim() == (2.5, -0.5)


def test_what_beat_all_before_it_is_blue(ax) -> None:
    assert plot_tries(ax, ["plain", "a", "b", "c"], [0.3, 0.25, 0.4, 0.4]) is ax
    blue, pale = figures.BLUE, figures.HAIRLINE
    assert [to_hex(p.get_facecolor()).upper() for p in ax.patches] == [blue, pale, blue, pale]
    assert [text.get_text() for text in ax.texts] == [" 0.300", " 0.250", " 0.400", " 0.400"]
    assert ticks(ax.yaxis) == ["plain", "a", "b", "c"]


def test_every_training_is_a_mark_and_a_dash_is_their_mean(ax) -> None:
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
