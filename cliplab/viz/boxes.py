"""Boxes on pictures: outlines and name tags that can be read, in figures, files and pages alike.

Where the tags go is decided without matplotlib (`place_tags`), so that a page in SVG and a figure
agree.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by colour-blind readers, from the one that stands out most on
# grass to the one that does least; no black, which is the outlines' own edge.
BOX_COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#CC79A7", "#56B4E9", "#009E73", "#F0E442")
_DARK = "#10161B"
_EMS = {"W": 1.0, "F": 1.0}  # width of a character in font sizes; of others _NARROW
_NARROW = 0.6
MAX_TAGS = 200  # in a figure, of the first boxes; more would hide it
_POINTS = 8.0  # font size of tags in figures
_HEIGHT = 1.5  # of a tag, in font sizes
_PADDING = 0.7  # left and right of its text together, in font sizes

Corner = tuple[float, float]


def box_colour(k: int) -> str:
    """Colour of class k; past the palette its shades, darker, then paler, then darker again."""
    again, place = divmod(k, len(BOX_COLOURS))
    share, towards = ((0.0, 0), (0.4, 0), (0.5, 255))[again if again < 3 else 1 + again % 2]
    values = (int(BOX_COLOURS[place][i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(v + share * (towards - v)):02X}" for v in values)


def ink_on(colour: str) -> str:
    """White or nearly black, whichever is easier to read on `colour` ("#rrggbb")."""
    red, green, blue = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    # Contrast (light + 0.05) / (dark + 0.05) of WCAG 2.1 is equal for both inks at 0.179.
    return "#FFFFFF" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.22 else _DARK


def _linear(value: float) -> float:
    """Light that an sRGB value stands for, 0 to 1."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


# ---- tags ----------------------------------------------------------------------------------


def tag_texts(names: Sequence[str] | None, scores: Any = None) -> list[str]:
    """What is written on the tags: "goat 0.87", "goat", or "0.87"."""
    shares = None if scores is None else [f"{float(score):.2f}" for score in scores]
    if names is None:
        return shares or []
    return [" ".join(pair) for pair in zip(names, shares, strict=True)] if shares else list(names)


def tag_size(text: str, font_size: float) -> tuple[float, float]:
    """Width and height that a tag with this text needs, in the unit of `font_size`.

    An estimate on the safe side: Chinese is as wide as high, other letters 0.6 of that.
    """
    ems = sum(_EMS.get(unicodedata.east_asian_width(c), _NARROW) for c in text)
    return (ems + _PADDING) * font_size, _HEIGHT * font_size


def place_tags(
    boxes_xyxy: Iterable[Sequence[float]],
    sizes: Iterable[tuple[float, float]],
    frame: tuple[float, float],
) -> list[Corner]:
    """Upper left corners of R tags: at their box, inside the frame, off each other where possible.

    Args:
        boxes_xyxy: R boxes; the first choose first.
        sizes: R pairs of width and height.
        frame: width and height of the picture.
    """
    taken: list[tuple[float, float, float, float]] = []
    corners = []
    for box, (width, height) in zip(boxes_xyxy, sizes, strict=True):
        places = [_within(at, (width, height), frame) for at in _places(box, width, height)]
        areas = [(x, y, x + width, y + height) for x, y in places]
        free = (i for i, area in enumerate(areas) if not any(_meet(area, t) for t in taken))
        best = next(free, 0)
        taken.append(areas[best])
        corners.append(places[best])
    return corners


def _places(box: Sequence[float], width: float, height: float) -> list[Corner]:
    """Above the box, inside it, below it, further off; at its left edge, right edge, middle."""
    x0, y0, x1, y1 = box
    rows = (y0 - height, y0, y1, y1 - height, y0 - 2 * height, y1 + height)
    return [(x, y) for x in (x0, x1 - width, (x0 + x1 - width) / 2) for y in rows]


def _within(at: Corner, size: tuple[float, float], frame: tuple[float, float]) -> Corner:
    x, y = (max(0.0, min(v, f - s)) for v, s, f in zip(at, size, frame, strict=True))
    return x, y


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ---- figures -------------------------------------------------------------------------------


def plot_boxes(
    ax: Axes, image: Any, boxes_xyxy: Any, names: Sequence[str] | None = None, scores: Any = None,
    *, colours: Mapping[str, str] | None = None,
) -> Axes:  # fmt: skip
    """A picture with its boxes, each under a tag with its name and score.

    Args:
        ax: emptied of its ticks; a tag keeps its size, whatever that of the picture.
        image: PIL image, (H, W, 3) array or (3, H, W) tensor.
        boxes_xyxy: (R, 4) px of the picture, half-open; none at all are fine; the first 200 get
            their tags.
        names: R names, Chinese too; None draws outlines only (or the scores).
        scores: (R,), shown with two decimals.
        colours: name -> "#rrggbb"; default: Okabe and Ito's in the order of first appearance.
    """
    from cliplab.viz.figures import as_array, as_pixels, bare, check_names

    pixels, boxes = as_pixels(image), as_array(boxes_xyxy).reshape(-1, 4)
    check_names("names", names, len(boxes))
    check_names("scores", scores, len(boxes))
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None)
    bare(ax)
    known = dict.fromkeys(names or [""])
    chosen = {name: box_colour(k) for k, name in enumerate(known)} | dict(colours or {})
    paints = [chosen[name] for name in names or [""] * len(boxes)]
    for box, paint in zip(boxes, paints, strict=True):
        _outline(ax, box, paint)
    _tags(ax, boxes, tag_texts(names, scores)[:MAX_TAGS], paints, frame=pixels.shape[1::-1])
    return ax


def _outline(ax: Axes, box: Any, paint: str) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    # A pixel's middle is at a whole number in matplotlib, its edges half a pixel to the sides.
    at, width, height = (box[0] - 0.5, box[1] - 0.5), box[2] - box[0], box[3] - box[1]
    edge = [withStroke(linewidth=3.4, foreground=_DARK, alpha=0.55)]
    ax.add_patch(
        Rectangle(at, width, height, fill=False, linewidth=1.8, edgecolor=paint, path_effects=edge)
    )


def _tags(
    ax: Axes, boxes: Any, texts: Sequence[str], paints: Sequence[str], *, frame: tuple[int, int]
) -> None:
    from cliplab.viz.fonts import cjk_fonts

    figure = ax.get_figure(root=True)
    if figure and (engine := figure.get_layout_engine()):
        engine.execute(figure)  # else the tags are measured on axes of another size
    extent, points = ax.get_window_extent(), ax.figure.dpi / 72
    per_pixel = max(frame[0] / extent.width, frame[1] / extent.height)  # aspect is kept
    font = _POINTS * points * per_pixel  # in pixels of the picture
    sizes = [tag_size(text, font) for text in texts]
    corners = place_tags(boxes[: len(texts)].tolist(), sizes, frame)
    family = ["DejaVu Sans", *cjk_fonts()]
    for (x, y), (_, height), text, paint in zip(corners, sizes, texts, paints, strict=False):
        plate = {"boxstyle": "square,pad=0.2", "facecolor": paint, "edgecolor": "none"}
        ax.text(
            x - 0.5 + 0.2 * font, y - 0.5 + height / 2, text, color=ink_on(paint), bbox=plate,
            fontsize=_POINTS, family=family, zorder=4, ha="left", va="center", clip_on=True,
        )  # fmt: skip
