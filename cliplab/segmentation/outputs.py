"""What a run leaves: label PNGs, overlays, COCO's panoptic segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data import SampleSet, resized, shown
from cliplab.runtime import atomic_write, write_json
from cliplab.segmentation.judging import label_shares, percent
from cliplab.viz import NOTHING, cjk_fonts, paint, rgb, tag_size

MAX_LABELS = 255  # with the background: a label is a byte of a PNG, and 255 means "not judged"

# The sheet of an overlay, in pixels.
_LONGEST, _SHORTEST = 720, 480  # the longer side of a panel
_LEAST = 24  # that a panel is high and wide at least, so that a panorama can be seen
_GAP = 12  # between and around the panels
_FONT = 15.0
_LINE = 26  # from one row of the legend to the next
_INK = "#1B2733"


# ---- label PNGs and panoptic segments ------------------------------------------------------


def label_image(labels: NDArray[np.uint8], colours: Sequence[str]) -> Image.Image:
    """Label numbers (H, W) as a picture with a palette: the labels' colours, then white."""
    image = Image.fromarray(labels)
    flat = [value for colour in colours for value in rgb(colour)]
    image.putpalette(flat + [255] * (768 - len(flat)))
    return image


def save_png(path: Path, image: Image.Image) -> None:
    """Write one picture, whole or not at all."""
    with atomic_write(path) as file:
        image.save(file, "PNG")


def panoptic_folder(path: Path) -> Path:
    """Where the PNGs of a panoptic JSON are: masks/ for masks.json, as COCO has them."""
    return path.with_suffix("") if path.suffix else path.with_name(f"{path.name}_pngs")


class Panoptic:
    """COCO's panoptic format: one segment for each label of a picture, its id written as a colour.

    Writes the PNG of each picture at once and the JSON at the end. The labels are "stuff": all
    pixels of a label in a picture are one segment. The background is no segment.

    Source: https://cocodataset.org/#format-data, 4. Panoptic Segmentation.
    """

    def __init__(
        self, path: Path, names: Sequence[str], colours: Sequence[str], pictures: SampleSet
    ) -> None:
        self.path, self.names, self.colours = path, tuple(names), tuple(colours)
        keys = pictures.ids.of_images(pictures)
        self.keys = {one.path: key for one, key in zip(pictures, keys, strict=True)}
        self.categories = pictures.ids.of_categories(names, first=0)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, picture: Path, labels: NDArray[np.uint8], target: Path) -> None:
        """Write the segments of a picture, labels (H, W), to a PNG in the folder."""
        save_png(target, label_image(labels, self.colours).convert("RGB"))
        (key, name), (height, width) = self.keys[picture], labels.shape
        self.images.append({"id": key, "file_name": name, "width": width, "height": height})
        segments = [self._segment(labels, k) for k in np.unique(labels).tolist()]
        self.annotations.append(
            {
                "image_id": key,
                "file_name": shown(target.relative_to(panoptic_folder(self.path))),
                "segments_info": [one for one in segments if one["id"]],
            }
        )

    def _segment(self, labels: NDArray[np.uint8], k: int) -> dict[str, Any]:
        from pycocotools import mask as coco

        code = coco.encode(np.asfortranarray(labels == k))
        red, green, blue = rgb(self.colours[k])  # black is 0, which belongs to no segment
        return {
            "id": red + 256 * green + 256**2 * blue,
            "category_id": self.categories[k],
            "iscrowd": 0,
            "area": int(coco.area(code)),
            "bbox": [int(value) for value in coco.toBbox(code)],
        }

    def write(self) -> None:
        """The JSON, when all pictures are done."""
        categories = [
            {"id": k, "name": name, "supercategory": "label", "isthing": 0, "color": list(rgb(c))}
            for k, name, c in zip(self.categories, self.names, self.colours, strict=True)
            if c != NOTHING
        ]
        info = {"description": "labels found by cliplab segment; black is background"}
        lists = {"images": self.images, "annotations": self.annotations, "categories": categories}
        write_json(self.path, {"info": info, "licenses": [], **lists})


# ---- overlays ------------------------------------------------------------------------------


def overlay_sheet(
    image: Image.Image, labels: NDArray[np.uint8], names: Sequence[str], colours: Sequence[str]
) -> Image.Image:
    """The picture beside itself in colours, above a legend with the shares of its pixels.

    A wide picture stands above its colours. Small ones are enlarged, large ones made smaller, so
    that it fits a slide. `labels` (height, width) are indices into `names` and `colours`.
    """
    width, height = _panel(image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS).convert("RGB"))
    both = (small, paint(small, resized(labels, (width, height)), colours))
    framed = [np.pad(one, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=255) for one in both]
    board = np.concatenate(framed, axis=0 if width > 1.9 * height else 1)
    board = np.pad(board, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    shares = label_shares(labels, len(names))
    order = [k for k in np.argsort(-shares, kind="stable").tolist() if shares[k]]
    entries = {f"{names[k]}  {percent(shares[k])}": colours[k] for k in order}
    return Image.fromarray(np.concatenate([board, _legend(entries, board.shape[1])]))


def _panel(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a picture is shown."""
    longer = max(size)
    scale = min(max(longer, _SHORTEST), _LONGEST) / longer
    width, height = (max(_LEAST, round(side * scale)) for side in size)
    return width, height


def _legend(entries: Mapping[str, str], width: int) -> NDArray[np.uint8]:
    """Texts and their colours, in as many columns as fit into `width` px: (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    widest = max(tag_size(text, _FONT)[0] for text in entries) + _LINE + _GAP
    columns = min(len(entries), max(1, int(width / widest)))
    rows, dpi = -(-len(entries) // columns), 100
    drawn = Figure(figsize=(width / dpi, (rows * _LINE + _GAP) / dpi), dpi=dpi, facecolor="white")
    drawn.set_layout_engine("none")  # whatever the settings ask for
    faces = ["#B8BEC4" if colour == NOTHING else colour for colour in entries.values()]
    drawn.legend(
        handles=[Patch(facecolor=c, edgecolor=_INK, linewidth=0.8) for c in faces],
        labels=[*entries], ncols=columns, loc="upper left", frameon=False, labelcolor=_INK,
        prop={"family": ["DejaVu Sans", *cjk_fonts()], "size": 0.72 * _FONT},
        handlelength=1.6, handleheight=1.6, labelspacing=0.45, borderpad=0.0,
    )  # fmt: skip
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
