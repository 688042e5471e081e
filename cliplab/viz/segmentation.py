"""Segments in pictures: groups that have no names yet, labels, and how good both are.

Helpers draw into the `ax` they are given and return it. A class has the colour that
`python -m cliplab segment` gives it; a group, which has no name, that of its number.

Letters: K classes, G groups, H W pixels, h w patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliplab.segmentation.colours import label_colours, rgb
from cliplab.segmentation.overlay import borders, paint
from cliplab.viz.boxes import box_colour
from cliplab.viz.figures import BLUE, HAIRLINE, INK, MUTED, PALETTE, as_array, as_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAPER = "#FFFFFF"
_MARKS = "osD^v"  # of measures, in their order: told apart without colours, too
_DARK = 0.35  # of its light a pixel keeps where a border is drawn


def class_colours(names: Sequence[str], *, has_background: bool = False) -> dict[str, str]:
    """Class -> "#rrggbb", in the order given; names[0] is black if it is the background."""
    none: list[tuple[str, ...]] = [()] * len(names)  # besides the names themselves
    return dict(zip(names, label_colours(names, none, has_background=has_background), strict=True))


def group_colours(count: int) -> NDArray[np.float64]:
    """Colours of groups, (G, 3) RGB in [0, 1]; neighbours in number differ most."""
    return np.array([rgb(box_colour(k)) for k in range(count)]) / 255


# ---- pictures ------------------------------------------------------------------------------


def blend_groups(maps: Any) -> NDArray[np.float64]:
    """Shares of groups (G, h, w) -> colours (h, w, 3): a patch is the mix of its groups' colours.

    Where every group has an equal part, the mix is the same dull colour everywhere; where groups
    have parted, theirs are seen.

    Raises:
        ValueError: shares that do not add up to 1; rounded ones may miss it by 0.04.
    """
    shares = as_array(maps)
    if shares.ndim != 3 or not np.allclose(shares.sum(axis=0), 1, atol=0.04):
        raise ValueError(
            f"maps: got shape {shares.shape}; expected (G, h, w) of shares that add up to 1 over "
            "the groups in every patch"
        )
    return np.einsum("gyx,gc->yxc", shares, group_colours(len(shares))).clip(0, 1)


def plot_groups(ax: Axes, maps: Any, *, outlined: bool = True) -> Axes:
    """Which group owns what: the mix of the groups' colours, dark lines between owners.

    Args:
        ax: emptied of its ticks.
        maps: (G, h, w) shares that add up to 1 over the groups.
        outlined: whether there are lines.

    Raises:
        ValueError: as `blend_groups`.
    """
    mixed = blend_groups(maps)
    if outlined:
        mixed[borders(as_array(maps).argmax(axis=0))] *= _DARK
    ax.imshow(mixed, interpolation="nearest")
    return _bare(ax)


def plot_labels(ax: Axes, image: Any, labels: Any, colours: Mapping[str, str]) -> Axes:
    """A picture under the colours of its labels, dark lines between them.

    Args:
        ax: emptied of its ticks.
        image: (H, W, 3) uint8, PIL image or (3, H, W) tensor.
        labels: (H, W) integers, indices into the classes.
        colours: class -> "#rrggbb", in the order of the classes.

    Raises:
        ValueError: labels of another size, or of a class that has no colour.
    """
    pixels, table = as_pixels(image), as_array(labels).astype(int)
    if table.shape != pixels.shape[:2] or not 0 <= table.min() <= table.max() < len(colours):
        raise ValueError(
            f"labels: got shape {table.shape} with values {table.min()} to {table.max()}; expected "
            f"{pixels.shape[:2]} and 0 to {len(colours) - 1}, an index into the classes"
        )
    if pixels.dtype != np.uint8:
        pixels = (255 * pixels).round().astype(np.uint8)
    ax.imshow(paint(pixels, table, list(colours.values())), interpolation="nearest")
    return _bare(ax)


def label_panels(
    rows: int, titles: Sequence[str], colours: Mapping[str, str], *, width: float = 7.0,
    aspect: float = 1.0, columns: int = 8,
) -> NDArray[Any]:  # fmt: skip
    """A new figure of empty panels above a legend of the classes -> axes (rows, panels).

    Args:
        rows: of panels.
        titles: one a panel, above the first row.
        colours: class -> "#rrggbb", as `plot_labels` takes them.
        width: of the figure, in inches.
        aspect: height of a panel over its width.
        columns: of the legend.
    """
    from matplotlib import pyplot as plt

    lines = -(-len(colours) // columns)
    high, low = aspect * width / len(titles), 0.22 * lines
    figure = plt.figure(figsize=(width, rows * high + low + 0.3))
    whole = figure.add_gridspec(rows + 1, len(titles), height_ratios=[high] * rows + [low])
    axes = np.array([[figure.add_subplot(whole[r, c]) for c in range(len(titles))]
                     for r in range(rows)])  # fmt: skip
    for ax in axes.flat:
        _bare(ax)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, size=9)
    plot_legend(figure.add_subplot(whole[rows, :]), colours, columns=columns)
    return axes


def plot_legend(ax: Axes, colours: Mapping[str, str], *, columns: int = 8) -> Axes:
    """Only the names of classes beside their colours, row by row; the background is grey."""
    from matplotlib.patches import Patch

    faces = {name: "#B8BEC4" if c == "#000000" else c for name, c in colours.items()}
    columns = min(columns, len(faces))
    rows = -(-len(faces) // columns)
    order = [r * columns + c for c in range(columns) for r in range(rows)]  # legends go by columns
    items = list(faces.items())
    patches = [
        Patch(facecolor=items[k][1], edgecolor=INK, linewidth=0.6, label=items[k][0])
        if k < len(items) else Patch(alpha=0, label="")
        for k in order
    ]  # fmt: skip
    ax.legend(handles=patches, ncols=columns, loc="center", frameon=False, fontsize=8,
              handlelength=1.1, handleheight=1.0, columnspacing=1.1, borderpad=0.0)  # fmt: skip
    ax.axis("off")
    return ax


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


# ---- numbers -------------------------------------------------------------------------------


def plot_confusion_shares(
    ax: Axes, counts: Any, names: Sequence[str], *, least: float = 0.05
) -> Axes:
    """Of the pixels of each true class (rows), the per cent that got each name (columns).

    Args:
        ax: where to draw.
        counts: (K, K) pixels, true class in rows.
        names: K.
        least: shares below are coloured, but not printed.

    Raises:
        ValueError: counts of another shape.
    """
    table = as_array(counts)
    if table.shape != (len(names), len(names)):
        raise ValueError(
            f"counts: got shape {table.shape}; expected ({len(names)}, {len(names)}), a row and a "
            "column for each name"
        )
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(share):
        if value >= least:
            ink = "white" if value > 0.55 else INK
            ax.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=ink, size=7.5)
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(names)), names, **slant)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    for k in range(1, len(names)):
        ax.axhline(k - 0.5, color=HAIRLINE, lw=0.5)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="named", ylabel="true")
    return ax


def plot_spans(
    ax: Axes, names: Sequence[str], values: Mapping[str, Sequence[float]], *,
    colours: Sequence[str] = PALETTE,
) -> Axes:  # fmt: skip
    """Several measures of each name as marks on one line, so that the gaps between them are seen.

    Args:
        ax: where to draw; the first name is on top.
        names: R, one a line.
        values: measure -> R numbers, 0 to 1; NaN draws no mark.
        colours: one a measure.

    Raises:
        ValueError: a measure with another number of values.
    """
    columns = {name: as_array(column) for name, column in values.items()}
    if odd := [name for name, column in columns.items() if column.shape != (len(names),)]:
        raise ValueError(f"values: {odd[0]!r} has another length; expected {len(names)} numbers")
    table = np.array(list(columns.values()))  # (M, R)
    for y, column in enumerate(table.T):
        if np.isfinite(column).any():
            ends = np.nanmin(column), np.nanmax(column)
            ax.plot(ends, (y, y), color=HAIRLINE, lw=4, solid_capstyle="round", zorder=1)
    for k, (name, column) in enumerate(columns.items()):
        ax.scatter(column, range(len(names)), s=34, color=colours[k], marker=_MARKS[k], label=name,
                   edgecolor=_PAPER, linewidth=0.5, zorder=3)  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return ax


def plot_tries(ax: Axes, names: Sequence[str], values: Sequence[float]) -> Axes:
    """What was tried one after the other, from the top: blue where it beat all before it.

    Args:
        ax: where to draw.
        names: N, what was tried.
        values: N numbers, 0 to 1; the first is where one started.

    Raises:
        ValueError: another number of values.
    """
    tried = as_array(values)
    if tried.shape != (len(names),):
        raise ValueError(f"values: got shape {tried.shape}; expected ({len(names)},), one a name")
    before = np.maximum.accumulate(np.concatenate([[-np.inf], tried[:-1]]))
    tints = [BLUE if better else HAIRLINE for better in tried > before]
    ax.barh(range(len(names)), tried, color=tints, height=0.7)
    for y, value in enumerate(tried):
        ax.text(value, y, f" {value:.3f}", va="center", size=7.5)
    ax.set_yticks(range(len(names)), names, size=8)
    ax.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    return ax


def plot_trainings(
    ax: Axes, rows: Mapping[str, Mapping[str, Sequence[float]]], *,
    colours: Mapping[str, str], printed: str | None = None,
) -> Axes:  # fmt: skip
    """Every training as a mark, a row for each kind of training, a dash at the mean of its seeds.

    Args:
        ax: where to draw; the first row is on top.
        rows: kind -> measure -> a number for each seed; kinds may lack measures.
        colours: measure -> "#rrggbb", which also orders the legend.
        printed: the measure whose mean is written at the right.
    """
    marks = dict(zip(colours, _MARKS, strict=False))
    for y, row in enumerate(rows.values()):
        for measure, numbers in row.items():
            mean, tint = float(np.mean(numbers)), colours[measure]
            ax.scatter(numbers, [y] * len(numbers), s=26, color=tint, marker=marks[measure],
                       edgecolor=_PAPER, linewidth=0.4, alpha=0.9, zorder=3)  # fmt: skip
            ax.plot([mean, mean], [y - 0.32, y + 0.32], color=tint, lw=1.6, zorder=2)
            if measure == printed:
                ax.text(1.01, y, f"{mean:.2f}", transform=ax.get_yaxis_transform(), va="center",
                        size=8, color=tint)  # fmt: skip
        ax.axhline(y + 0.5, color=HAIRLINE, lw=0.7, zorder=0)
    for measure, tint in colours.items():
        ax.scatter([], [], s=26, color=tint, marker=marks[measure], label=measure)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(MUTED)
    return ax
