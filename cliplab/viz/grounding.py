"""Words against pictures: which tokens mean a phrase, and who looks at what.

Helpers draw into the `ax` they are given and return it. A phrase keeps its colour from the prompt
to the boxes (`phrase_colours`).

Letters: K phrases, L tokens, P cells of all levels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cliplab.viz.boxes import box_colour, ink_on
from cliplab.viz.figures import HAIRLINE, INK, MUTED, as_array, as_pixels, bare, check_names

_PAPER = "#FFFFFF"
_FLAT = 75  # letters of all columns together, each as wide as the widest, that fit side by side


def phrase_colours(phrases: Sequence[str]) -> dict[str, str]:
    """Phrase -> "#rrggbb", the colours that `plot_boxes` gives names in this order."""
    return {phrase: box_colour(k) for k, phrase in enumerate(dict.fromkeys(phrases))}


# ---- words ---------------------------------------------------------------------------------


def plot_positive_map(
    ax: Axes, positive: Any, phrases: Sequence[str], tokens: Sequence[str]
) -> Axes:
    """Which tokens, [CLS] and [SEP] too, speak of each phrase, (K, L): filled cells of a grid."""
    table = as_array(positive)
    paints = phrase_colours(phrases)
    _grid(ax, table, phrases, tokens)
    for (row, column), value in np.ndenumerate(table):
        if value:
            paint = paints[phrases[row]]
            ax.add_patch(Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, facecolor=paint,
                                   edgecolor="none", zorder=2))  # fmt: skip
            ax.text(column, row, tokens[column], ha="center", va="center", color=ink_on(paint),
                    size=_size_for(tokens[column]))  # fmt: skip
    return ax


def plot_token_table(
    ax: Axes, values: Any, rows: Sequence[str], tokens: Sequence[str], *,
    limit: float = 1.0, label: str | None = None,
) -> Axes:  # fmt: skip
    """A number for each row and token, (R, L), on a fixed scale from 0 to `limit`, in its cell.

    Without `label` there is no colour bar.
    """
    table = as_array(values)
    _grid(ax, table, rows, tokens)
    mesh = ax.imshow(table, vmin=0.0, vmax=limit, cmap="viridis", aspect="auto", zorder=2)
    for (row, column), value in np.ndenumerate(table):
        bright = value > 0.62 * limit
        text = f"{value:.2f}".removeprefix("0") if value < 0.995 else f"{value:.1f}"
        ax.text(column, row, text, ha="center", va="center", color=INK if bright else "white",
                size=7.5, zorder=3)  # fmt: skip
    if label is not None:
        bar = ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.02, fraction=0.04)
        bar.outline.set_visible(False)
    return ax


def _grid(ax: Axes, table: NDArray[Any], rows: Sequence[str], tokens: Sequence[str]) -> None:
    """An empty table with its names: rows on the left, tokens above."""
    check_names("rows", rows, table.shape[0])
    check_names("tokens", tokens, table.shape[1])
    ax.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(range(len(rows)), rows)
    slant: dict[str, Any] = {}
    if max(map(_width, tokens)) * len(tokens) > _FLAT:
        slant = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(tokens)), tokens, size=8, **slant)
    for k in range(len(tokens) + 1):
        ax.axvline(k - 0.5, color=HAIRLINE, lw=0.7, zorder=1)
    for k in range(len(rows) + 1):
        ax.axhline(k - 0.5, color=HAIRLINE, lw=0.7, zorder=1)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _width(token: str) -> float:
    """Of a token in letters; Chinese ones count twice."""
    return sum(1.0 if char.isascii() else 2.0 for char in token)


def _size_for(token: str) -> float:
    return float(np.clip(40.0 / max(_width(token), 1.0), 5.0, 8.5))


# ---- pictures ------------------------------------------------------------------------------


def cells_to_pixels(
    weights: Any, sizes: Sequence[tuple[int, int]], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Weights of the cells of all levels (P,) -> (H, W) with the same sum, each spread evenly.

    Args:
        weights: row by row, finest level first.
        sizes: cells (h, w) of each level.
        shape: (H, W) px that every level covers; multiples of all its h and w.
    """
    ends = np.cumsum([h * w for h, w in sizes])
    total = np.zeros(shape)
    for part, (h, w) in zip(np.split(as_array(weights), ends[:-1]), sizes, strict=True):
        high, wide = shape[0] // h, shape[1] // w
        total += np.kron(part.reshape(h, w), np.ones((high, wide))) / (high * wide)
    return total


def plot_attention(ax: Axes, image: Any, heat: Any, *, limit: float) -> Axes:
    """A picture in grey under a map of where something looks; bright is much, clear is nothing.

    `heat` is (H', W'), with H' >= H and W' >= W: what lies outside of the picture is cut off. Its
    brightest colour is `limit`; give compared panels the same.
    """
    pixels, values = as_pixels(image), as_array(heat)
    height, width = pixels.shape[:2]
    grey = pixels[..., :3].mean(axis=2) if pixels.ndim == 3 else pixels
    scale = 255.0 if pixels.dtype == np.uint8 else 1.0
    ax.imshow(0.35 + 0.65 * grey / scale, cmap="gray", vmin=0, vmax=1)
    share = np.clip(values[:height, :width] / limit, 0, 1)
    ax.imshow(share, cmap="viridis", vmin=0, vmax=1, alpha=np.clip(1.6 * share, 0, 0.8))
    return bare(ax)


def plot_cells(
    ax: Axes, image: Any, points: Mapping[str, Any], *, colours: Mapping[str, str]
) -> Axes:
    """A pale picture with named sets of points on it, (N, 2) px as (x, y), each in its colour."""
    ax.imshow(as_pixels(image), alpha=0.6)
    sizes = np.linspace(9, 40, len(points)) if len(points) > 1 else [20.0]
    for (name, places), size in zip(points.items(), sizes, strict=True):
        x, y = as_array(places).reshape(-1, 2).T
        ax.scatter(x, y, s=size, color=colours[name], edgecolor=_PAPER, linewidth=0.4, label=name)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color(MUTED)
    return ax
