"""One calm look for every figure: white ground, dark ink, Okabe-Ito colours, Chinese glyphs.

Helpers draw into the `ax` they are given and return it; none of them shows, saves or closes a
figure, and only `use_style` touches matplotlib's settings. Numbers may be numpy arrays, torch
tensors (any device) or lists.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from cliplab.viz.fonts import cjk_fonts

# Okabe & Ito 2008, "Color Universal Design": eight colours that colour-blind readers can tell
# apart. Yellow comes last but one: it is too pale for lines and good enough for areas.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK)
INK, MUTED, HAIRLINE = "#1B2733", "#5C6B7A", "#D5DCE3"

_SLANT: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
_STYLE = Path(__file__).with_name("house.mplstyle")


def use_style() -> None:
    """Apply the house style: the only function here that changes matplotlib's settings.

    Latin letters are drawn in DejaVu Sans, which matplotlib brings along, so figures look the
    same on every machine; Chinese falls back, glyph by glyph, to the fonts of `cjk_fonts`.
    """
    mpl.rcParams.update(mpl.rc_params_from_file(_STYLE, use_default_template=False))
    mpl.rcParams["font.family"] = ["DejaVu Sans", *cjk_fonts()]


def show_images(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    width: float = 7.0,
    size: float = 8.0,
) -> np.ndarray:
    """A new figure with images in rows of `columns`, titles underneath -> axes (rows, columns).

    Images are as `as_pixels` takes them; `width` is the figure's in inches, `size` the titles' in
    points.
    """
    check_names("titles", titles, len(images))
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    lines = 1 + max((t.count("\n") for t in titles), default=0) if titles else 0
    height = rows * (width / columns + 0.17 * lines * size / 8 + 0.05)
    _, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(as_pixels(image), cmap="gray", interpolation="nearest")
        if titles is not None:
            ax.text(0.5, -0.04, titles[i], ha="center", va="top", size=size, transform=ax.transAxes)
    return axes


def plot_similarity(
    ax: Axes,
    sim: Any,
    rows: Sequence[Any] | None = None,
    cols: Sequence[str] | None = None,
    *,
    limits: tuple[float, float] = (-1.0, 1.0),
    label: str | None = "cosine similarity",
    cmap: str = "viridis",
) -> Axes:
    """Matrix (N, M) on a fixed colour scale, so that panels can be compared.

    Up to 8 x 8 numbers are also printed; rows are texts, or images, drawn as thumbnails; `limits`
    are the values of the first and the last colour; without `label` there is no colour bar.
    """
    values = as_array(sim)
    check_names("rows", rows, values.shape[0])
    check_names("cols", cols, values.shape[1])
    mesh = ax.imshow(values, vmin=limits[0], vmax=limits[1], cmap=cmap, aspect="equal")
    bare(ax).tick_params(length=0)
    if max(values.shape) <= 8:
        _print_values(ax, mesh, values)
    if cols is not None:
        flat = max(len(name) for name in cols) * len(cols) <= 40
        ax.set_xticks(range(len(cols)), cols, **({} if flat else _SLANT))
    if rows is not None and all(isinstance(row, str) for row in rows):
        ax.set_yticks(range(len(rows)), rows)
    elif rows is not None:
        _thumbnails(ax, rows)
    if label is not None:
        bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)), label=label)
        bar.outline.set_visible(False)
    return ax


def _print_values(ax: Axes, mesh: AxesImage, values: np.ndarray) -> None:
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.55
        colour = INK if bright else "white"
        text = f"{value:.2f}".replace("-0.00", "0.00")
        ax.text(j, i, text, ha="center", va="center", color=colour, size=8.5)


def _thumbnails(ax: Axes, images: Sequence[Any]) -> None:
    # in the data coordinates of the matrix, so that they follow its rows through any layout
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    for i, image in enumerate(images):
        place = (-1.62, -0.7, i + 0.46, i - 0.46)
        ax.imshow(as_pixels(image), extent=place, cmap="gray", interpolation="antialiased")
    ax.set(xlim=(-1.65, right), ylim=(bottom, -0.5))


def plot_signed(ax: Axes, values: Any, rows: Any = None, cols: Any = None, *, limit: float) -> Axes:
    """Matrix of signed numbers: blue above zero, white at zero, red below; -limit to limit.

    The arguments are those of `plot_similarity`.
    """
    limits = (-limit, limit)
    return plot_similarity(ax, values, rows, cols, limits=limits, label=None, cmap="RdBu")


def plot_confusion(
    ax: Axes, counts: Any, names: Sequence[str], *, chance: float | None = None,
    least: float | None = None,
) -> Axes:  # fmt: skip
    """Counts (K, K), true class in rows; the colour is the share of the row, the text the count.

    With `least` the text is the share in per cent, where it is `least` or more.
    """
    table = as_array(counts)
    check_names("names", names, table.shape[0])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, vmin=0.0, vmax=1.0, cmap="Blues", aspect="equal" if least is None else "auto")
    for (i, j), count in np.ndenumerate(table):
        colour = "white" if share[i, j] > 0.55 else (INK if count else HAIRLINE)
        if least is None or share[i, j] >= least:
            text = f"{int(count)}" if least is None else f"{100 * share[i, j]:.0f}"
            ax.text(j, i, text, ha="center", va="center", color=colour, size=8)
    ax.set_xticks(range(len(names)), names, **(_SLANT if len(names) > 4 else {}))
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="predicted", ylabel="true")
    if chance is not None:
        ax.set_xlabel(f"predicted   (by chance, {chance:.1%} of a row on the diagonal)", size=8.5)
    return ax


def plot_curves(
    ax: Axes,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    reference: Mapping[str, float] | None = None,
) -> Axes:
    """Named lines over the same x, each labelled at its right end; references are dashed."""
    for i, (name, y) in enumerate(curves.items()):
        ax.plot(as_array(x), as_array(y), color=PALETTE[i % len(PALETTE)], label=name)
    for name, level in (reference or {}).items():
        ax.axhline(level, color=MUTED, lw=1.2, ls=(0, (4, 3)), zorder=1)
        ax.annotate(
            name, (0.99, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", color=MUTED, size=8,
        )  # fmt: skip
    ax.grid(axis="y")
    if len(curves) > 1:
        ax.legend()
    return ax


def plot_training(
    axes: Sequence[Axes],
    history: Mapping[str, Sequence[float]],
    *,
    floor: float | None = None,
    chance: float | None = None,
) -> Sequence[Axes]:
    """Loss on the first axes and retrieval on the second, over training steps.

    Args:
        history: `step` and `loss`; every other key is a recall in [0, 1]. Recalls may be measured
            less often than the loss: `recall_step` then holds their steps.
        floor: loss of a model that knows nothing, log N; `chance`: recall of a random ranking.
    """
    recalls = {k: v for k, v in history.items() if k not in ("step", "loss", "recall_step")}
    known_nothing = None if floor is None else {f"knows nothing: {floor:.2f}": floor}
    plot_curves(axes[0], history["step"], {"loss": history["loss"]}, reference=known_nothing)
    axes[0].set(xlabel="training step", ylabel="contrastive loss (nats)", ylim=(0, None))
    by_luck = None if chance is None else {f"chance {chance:.1%}": chance}
    steps = history.get("recall_step", history["step"])
    plot_curves(axes[1], steps, recalls, reference=by_luck)
    axes[1].set(xlabel="training step", ylabel="test pairs found", ylim=(0, 1.02))
    axes[1].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    return axes


def plot_bars_with_intervals(
    ax: Axes,
    names: Sequence[str],
    intervals: Sequence[Sequence[float]],
    *,
    chance: float | None = None,
    colours: Sequence[str] | None = None,
) -> Axes:
    """Horizontal bars of shares in [0, 1], first name on top, with interval whiskers.

    `intervals` are (value, low, high) per bar; a `metrics.Rate` is one too. `chance` is a dashed
    line.
    """
    check_names("intervals", intervals, len(names))
    value, low, high = as_array([row[:3] for row in intervals]).T
    place = range(len(names))
    ax.barh(place, value, height=0.62, color=list(colours or [BLUE] * len(names)), alpha=0.9)
    # an interval whose end is its value may miss it by a rounding error; a whisker cannot
    whiskers = np.maximum([value - low, high - value], 0.0)
    ax.errorbar(value, place, xerr=whiskers, fmt="none", ecolor=INK, capsize=3)
    for y, v, h in zip(place, value, high, strict=True):
        at = h if chance is None or not chance - 0.18 < h < chance else chance
        ax.text(at + 0.015, y, f"{round(float(v), 3):.1%}", va="center", size=8.5)
    name_lines(ax, names).set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    ax.grid(axis="x")
    if chance is not None:
        ax.axvline(chance, color=MUTED, lw=1.2, ls=(0, (4, 3)))
        ax.text(chance, -0.62, f" chance {chance:.1%}", color=MUTED, size=8, va="bottom")
        ax.set(ylim=(len(names) - 0.5, -0.75))
    return ax


def name_lines(ax: Axes, names: Sequence[str], **text: Any) -> Axes:
    """A name for each line, the first on top."""
    ax.set_yticks(range(len(names)), names, **text)
    ax.set(ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    return ax


def plot_probabilities(
    ax: Axes, names: Sequence[str], probability: Any, *, truth: str | None = None
) -> Axes:
    """Probabilities (K,) of one image as bars, the true class (when given) in green.

    Chance, 1 / K, is drawn as a dashed line: a flat answer is then visible at once.
    """
    shares = as_array(probability).reshape(-1)
    check_names("names", names, len(shares))
    colours = [GREEN if name == truth else (SKY if truth else BLUE) for name in names]
    chance = 1 / len(names)
    ax.barh(range(len(names)), shares, height=0.66, color=colours)
    for y, share in enumerate(shares):
        at = chance if chance - 0.22 < share < chance else share  # right of the dashed line
        ax.text(at + 0.02, y, f"{share:.2f}", va="center", size=8.5)
    ax.axvline(chance, color=MUTED, lw=1.2, ls=(0, (4, 3)))
    name_lines(ax, names).set(xlim=(0, 1.15), xticks=[0, 0.5, 1])
    return ax


def plot_reliability(ax: Axes, bins: Any, *, label: str | None = None) -> Axes:
    """Accuracy against confidence, one dot per bin, as large as the share of images in it.

    The whiskers are Wilson intervals; on the diagonal confidence and accuracy agree, below it the
    model is surer than it may be. Several may be drawn into one plot. `bins` are those of
    `metrics.reliability`; the calibration error is added to the legend.
    """
    first = not ax.lines
    if first:
        ax.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)), zorder=1)
    full = bins.count > 0
    x, y, (low, high) = bins.confidence[full], bins.accuracy[full], bins.intervals[full].T
    whiskers = np.maximum([y - low, high - y], 0.0)
    colour = PALETTE[(len(ax.collections) // 2) % len(PALETTE)]
    ax.errorbar(x, y, yerr=whiskers, fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.55)
    share = bins.count[full] / bins.count.sum()
    name = None if label is None else f"{label}, ECE {bins.error:.3f}"
    ax.plot(x, y, color=colour, lw=1.0, alpha=0.6)
    ax.scatter(x, y, s=14 + 170 * share, color=colour, alpha=0.9, label=name, zorder=3)
    if first:
        percent = mpl.ticker.PercentFormatter(1.0, decimals=0)
        ax.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", ylabel="accuracy")
        ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        ax.xaxis.set_major_formatter(percent)
        ax.yaxis.set_major_formatter(percent)
    return ax


def bare(ax: Axes) -> Axes:
    """Axes without ticks and frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def as_array(x: Any) -> np.ndarray:
    """Numbers of a tensor on any device, of an array or of nested lists, as float64."""
    x = x.detach().cpu() if hasattr(x, "detach") else x
    return np.asarray(x.float() if hasattr(x, "bfloat16") else x, dtype=np.float64)


def as_pixels(image: Any) -> np.ndarray:
    """An image in any of our forms as (H, W) or (H, W, 3), uint8 or float clipped to [0, 1]."""
    image = image.detach().cpu() if hasattr(image, "detach") else image
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"image: got an array of shape {pixels.shape}; "
            "expected (H, W), (H, W, 3) or (3, H, W): pass one image, not a batch"
        )
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0.0, 1.0)


def check_names(what: str, names: Sequence[Any] | None, expected: int) -> None:
    """Raise ValueError unless there are as many names as things."""
    if names is not None and len(names) != expected:
        raise ValueError(
            f"{what}: got {len(names)} for {expected} rows, columns, bars or images; "
            "expected one for each"
        )
