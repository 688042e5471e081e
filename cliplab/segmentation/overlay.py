"""Labels as colours over their picture, with the borders drawn and a legend that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cliplab.cli.segment.summary import percent
from cliplab.segmentation.colours import NOTHING, rgb
from cliplab.segmentation.finding import count_labels
from cliplab.segmentation.truth import nearest
from cliplab.viz.boxes import tag_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

TINT = 0.62  # how much of a pixel is the colour of its label
_LONGEST, _SHORTEST = 720, 480  # pixels of the longer side of a panel
_LEAST = 24  # pixels that a panel is high and wide at least, so that a panorama can be seen
_GAP = 12  # pixels between and around the panels
_FONT = 15.0  # pixels
_LINE = 26  # pixels from one row of the legend to the next
_INK = "#1B2733"


def paint(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[str]
) -> NDArray[np.uint8]:
    """A picture (H, W, 3) under the colours of its labels (H, W) -> (H, W, 3).

    The background, black in `colours`, is left bare and loses its own colours instead. Borders
    between labels are dark lines.
    """
    table = np.array([rgb(colour) for colour in colours], np.float32)  # (K, 3)
    own = pixels.astype(np.float32)
    grey = own @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W)
    tinted = (1 - TINT) * (0.5 * own + 0.5 * grey[..., None]) + TINT * table[labels]
    bare = np.array([colour == NOTHING for colour in colours])[labels]
    mixed = np.where(bare[..., None], 0.85 * grey[..., None] + 30, tinted)
    mixed[borders(labels)] *= 0.35
    return mixed.clip(0, 255).astype(np.uint8)


def borders(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels (H, W) whose right or lower neighbour has another label."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found


# ---- the figure ----------------------------------------------------------------------------


def figure(
    image: Image, labels: NDArray[np.uint8], names: Sequence[str], colours: Sequence[str]
) -> Image:
    """The picture beside itself in colours, above a legend with the shares of its pixels.

    A wide picture stands above its colours. Small ones are enlarged, large ones made smaller, so
    that it fits a slide.

    Args:
        image: upright RGB.
        labels: (height, width) of the picture, indices into names.
        names: K labels.
        colours: K of "#rrggbb".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image as Pillow

    width, height = _panel(image.size)
    stacked = width > 1.9 * height
    small = np.asarray(image.resize((width, height), Pillow.Resampling.LANCZOS).convert("RGB"))
    coloured = paint(small, nearest(labels, (width, height)), colours)
    across, down = (1, 2) if stacked else (2, 1)
    total = across * width + (across + 1) * _GAP
    entries, rows = _legend(labels, names, total)
    high = down * (height + _GAP) + _GAP + rows * _LINE + _GAP // 2
    dpi = 100
    # axes are placed by hand, whatever layout the settings ask for
    size = (total / dpi, high / dpi)
    drawn = Figure(figsize=size, dpi=dpi, facecolor="white", layout="none")
    canvas = FigureCanvasAgg(drawn)
    ax = drawn.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, total), ylim=(high, 0))
    ax.axis("off")
    for x, y, k, text in entries:
        _entry(ax, (x, high - rows * _LINE - _GAP // 2 + y), colours[k], text)
    canvas.draw()
    sheet = Pillow.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    for i, panel in enumerate((small, coloured)):
        column, row = (0, i) if stacked else (i, 0)
        at = (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP))
        sheet.paste(Pillow.fromarray(panel), at)
    return sheet


def _panel(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a picture is shown."""
    longer = max(size)
    scale = min(max(longer, _SHORTEST), _LONGEST) / longer
    width, height = (max(_LEAST, round(side * scale)) for side in size)
    return width, height


def _legend(
    labels: NDArray[np.uint8], names: Sequence[str], width: int
) -> tuple[list[tuple[float, float, int, str]], int]:
    """Places (x, y), label and text of the labels that occur, largest first; how many rows."""
    counts = count_labels(labels, len(names))
    order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    entries, x, row = [], float(_GAP), 0
    for k in order:
        text = f"{names[k]}  {percent(counts[k] / labels.size)}"
        extent = _LINE + tag_size(text, _FONT)[0] + _GAP
        if x > _GAP and x + extent > width:
            x, row = float(_GAP), row + 1
        entries.append((x, row * float(_LINE), k, text))
        x += extent
    return entries, row + 1


def _entry(ax: Axes, at: tuple[float, float], colour: str, text: str) -> None:
    from matplotlib.patches import Rectangle

    from cliplab.viz.fonts import cjk_fonts

    x, y = at
    bare = colour == NOTHING  # shown as it is: grey
    face = "#B8BEC4" if bare else colour
    ax.add_patch(Rectangle((x, y + 4), 18, 18, facecolor=face, edgecolor=_INK, linewidth=0.8))
    ax.text(
        x + _LINE, y + 13, text, color=_INK, fontsize=_FONT * 0.72, va="center_baseline",
        family=["DejaVu Sans", *cjk_fonts()],
    )  # fmt: skip
