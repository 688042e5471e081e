"""Segments in pictures: groups that have no names yet, labels, and how good both are.

Helpers draw into the `ax` they are given and return it. The colour of a class depends on the
classes alone, so that the files, the pages and the figures of one run agree; a group, which has no
name, has the colour of its number.

Letters: K classes, G groups, H W pixels, h w patches.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cliplab.viz.boxes import BOX_COLOURS, box_colour
from cliplab.viz.figures import (
    BLUE,
    HAIRLINE,
    INK,
    MUTED,
    PALETTE,
    as_array,
    as_pixels,
    bare,
    name_lines,
)

NOTHING = "#000000"  # the colour of the background; in pictures it is left bare
# The ground, the sky and what stands there as one expects them, the animals in the colours that
# stand out on them. Okabe and Ito's, or shades of them, kept apart in lightness, too.
_THINGS = {
    "#009E73": ("grass", "meadow", "field", "pasture", "草", "草地", "田野", "牧场"),
    "#56B4E9": ("sky", "天空", "天"),
    "#0072B2": ("water", "pond", "river", "sea", "lake", "水", "水面", "池塘"),
    "#E3EDF5": ("snow", "雪", "雪地"),
    "#004D38": ("tree", "trees", "forest", "树", "大树"),
    "#A3B86C": ("hill", "hills", "mountain", "山", "山丘", "小山"),
    "#8C2D04": ("barn", "house", "building", "谷仓", "房子"),
    "#7A6A5A": ("fence", "栅栏"),
    "#8899AA": ("trough", "水槽"),
    "#EBCFA0": ("hay", "hay bale", "干草", "干草垛"),
    "#D55E00": ("sheep", "羊", "绵羊"),
    "#F0E442": ("goat", "山羊"),
    "#CC79A7": ("cow", "牛", "奶牛"),
    "#E69F00": ("dog", "狗"),
    "#5B2A86": ("horse", "马"),
}
_COLOUR_OF = {word: colour for colour, words in _THINGS.items() for word in words}
_TINT = 0.62  # how much of a pixel is the colour of its label
_PAPER = "#FFFFFF"
_MARKS = "osD^v"  # of measures, in their order: told apart without colours, too
_DARK = 0.35  # of its light a pixel keeps where a border is drawn


# ---- colours -------------------------------------------------------------------------------


def class_colours(
    names: Sequence[str],
    words: Sequence[Sequence[str]] | None = None,
    *,
    has_background: bool = False,
) -> dict[str, str]:
    """Class -> "#RRGGBB", in the order given, never one twice; names[0] is black if background.

    Args:
        names: K different ones.
        words: K lists of what stands for each, besides the names.
        has_background: whether names[0] is the background.
    """
    found = {names[0]: NOTHING} if has_background else {}
    for name, own in zip(names, words or [()] * len(names), strict=True):
        said = (_COLOUR_OF.get(text.strip().casefold(), NOTHING) for text in (name, *own))
        colour = next((c for c in said if c != NOTHING), NOTHING)
        if name not in found and colour not in (NOTHING, *found.values()):
            found[name] = colour  # a second word for grass takes another
    shades = map(_shade, count())
    for name in (name for name in names if name not in found):
        found[name] = next(c for c in shades if c not in (NOTHING, *found.values()))
    return {name: found[name] for name in names}


def _shade(place: int) -> str:
    """Okabe and Ito's colours and their shades; from where they repeat, the next blue of each."""
    red, green, blue = rgb(box_colour(place))
    again = place // (3 * len(BOX_COLOURS))
    return f"#{red:02X}{green:02X}{(blue + again) % 256:02X}"


def rgb(colour: str) -> tuple[int, int, int]:
    """ "#rrggbb" -> red, green and blue, 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


# ---- pictures ------------------------------------------------------------------------------


def paint(
    pixels: NDArray[np.uint8], labels: NDArray[Any], colours: Sequence[str]
) -> NDArray[np.uint8]:
    """A picture (H, W, 3) under the colours of its labels (H, W) -> (H, W, 3).

    The background, black in `colours`, is left bare and loses its own colours instead. Borders
    between labels are dark lines.
    """
    table = np.array([rgb(colour) for colour in colours], np.float32)  # (K, 3)
    own = pixels.astype(np.float32)
    grey = own @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W)
    tinted = (1 - _TINT) * (0.5 * own + 0.5 * grey[..., None]) + _TINT * table[labels]
    bare = np.array([colour == NOTHING for colour in colours])[labels]
    mixed = np.where(bare[..., None], 0.85 * grey[..., None] + 30, tinted)
    mixed[_borders(labels)] *= _DARK
    return mixed.clip(0, 255).astype(np.uint8)


def _borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels (H, W) whose right or lower neighbour has another label."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


def plot_groups(ax: Axes, maps: Any) -> Axes:
    """Which group owns what, shares (G, h, w): the mix of their colours, dark lines between owners.

    Where every group has an equal part, the mix is the same dull colour everywhere; where groups
    have parted, theirs are seen. Neighbours in number differ most.
    """
    shares = as_array(maps)
    own = np.array([rgb(box_colour(k)) for k in range(len(shares))]) / 255  # (G, 3)
    mixed = np.einsum("gyx,gc->yxc", shares, own).clip(0, 1)
    mixed[_borders(shares.argmax(axis=0))] *= _DARK
    ax.imshow(mixed, interpolation="nearest")
    return bare(ax)


def plot_labels(ax: Axes, image: Any, labels: Any, colours: Mapping[str, str]) -> Axes:
    """A picture under the colours of its labels (H, W), dark lines between them.

    `colours` are class -> "#rrggbb", in the order of the classes that the labels count.
    """
    pixels, table = as_pixels(image), as_array(labels).astype(int)
    if pixels.dtype != np.uint8:
        pixels = (255 * pixels).round().astype(np.uint8)
    ax.imshow(paint(pixels, table, list(colours.values())), interpolation="nearest")
    return bare(ax)


def label_panels(
    rows: int, titles: Sequence[str], colours: Mapping[str, str], *, width: float = 7.0
) -> NDArray[Any]:
    """A new figure of empty panels above a legend of the classes -> axes (rows, panels).

    `titles`, one a panel, stand above the first row; `width` is the figure's in inches.
    """
    columns = 8  # of the legend
    lines = -(-len(colours) // columns)
    size = width, rows * width / len(titles) + 0.22 * lines + 0.3
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for ax in axes.flat:
        bare(ax)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, size=9)
    faces = {name: "#B8BEC4" if c == NOTHING else c for name, c in colours.items()}
    patches = [Patch(facecolor=c, ec=INK, linewidth=0.6, label=n) for n, c in faces.items()]
    figure.legend(
        handles=patches, ncols=min(columns, len(faces)), loc="outside lower center", frameon=False,
        fontsize=8, handlelength=1.1, handleheight=1.0, columnspacing=1.1, borderpad=0.0,
    )  # fmt: skip
    return axes


# ---- numbers -------------------------------------------------------------------------------


def plot_spans(
    ax: Axes, names: Sequence[str], values: Mapping[str, Sequence[float]], *,
    colours: Sequence[str] = PALETTE,
) -> Axes:  # fmt: skip
    """Several measures of each name as marks on one line, so that the gaps between them are seen.

    `values` are measure -> R numbers, 0 to 1; NaN draws no mark.
    """
    columns = {name: as_array(column) for name, column in values.items()}
    table = np.array(list(columns.values()))  # (M, R)
    for y, column in enumerate(table.T):
        if np.isfinite(column).any():
            ends = np.nanmin(column), np.nanmax(column)
            ax.plot(ends, (y, y), color=HAIRLINE, lw=4, solid_capstyle="round", zorder=1)
    for k, (name, column) in enumerate(columns.items()):
        ax.scatter(column, range(len(names)), s=34, color=colours[k], marker=_MARKS[k], label=name,
                   edgecolor=_PAPER, linewidth=0.5, zorder=3)  # fmt: skip
    ax.set(xlim=(-0.02, 1.02))
    ax.grid(axis="x")
    return name_lines(ax, names)


def plot_tries(ax: Axes, names: Sequence[str], values: Sequence[float]) -> Axes:
    """What was tried, N numbers from 0 to 1, from the top: blue where one beat all before it."""
    tried = as_array(values)
    before = np.maximum.accumulate(np.concatenate([[-np.inf], tried[:-1]]))
    tints = [BLUE if better else HAIRLINE for better in tried > before]
    ax.barh(range(len(names)), tried, color=tints, height=0.7)
    for y, value in enumerate(tried):
        ax.text(value, y, f" {value:.3f}", va="center", size=7.5)
    ax.set(xlim=(0, 1))
    return name_lines(ax, names, size=8)


def plot_trainings(
    ax: Axes, rows: Mapping[str, Mapping[str, Sequence[float]]], *,
    colours: Mapping[str, str], printed: str,
) -> Axes:  # fmt: skip
    """Every training as a mark, a row for each kind of training, a dash at the mean of its seeds.

    `rows` are kind -> measure -> a number for each seed; `colours`, measure -> "#rrggbb", also
    order the legend; the mean of the measure `printed` is written at the right.
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
    ax.spines["left"].set_color(MUTED)
    return name_lines(ax, list(rows))
