"""COCO's panoptic format: one segment for each label of a picture, its id written as a colour.

Source: https://cocodataset.org/#format-data, 4. Panoptic Segmentation: id = R + 256 G + 256^2 B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliplab.cli.segment.outputs import save_png
from cliplab.data import shown
from cliplab.runtime import write_json
from cliplab.segmentation.colours import NOTHING, palette, rgb

if TYPE_CHECKING:
    from cliplab.detection.pictures import Picture


def segment_id(colour: str) -> int:
    """The id that a colour "#rrggbb" stands for; 0, black, is what belongs to no segment."""
    red, green, blue = rgb(colour)
    return red + 256 * green + 256**2 * blue


def folder_of(path: Path) -> Path:
    """Where the PNGs of a panoptic JSON are: masks/ for masks.json, as COCO has them."""
    return path.with_suffix("") if path.suffix else path.with_name(f"{path.name}_pngs")


class Panoptic:
    """Collects pictures, writes the PNG of each at once and the JSON at the end.

    The labels are "stuff": all pixels of a label in a picture are one segment. The background is
    no segment.
    """

    def __init__(self, path: Path, names: Sequence[str], colours: Sequence[str]) -> None:
        self.path, self.names, self.colours = path, tuple(names), tuple(colours)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, picture: Picture, labels: NDArray[np.uint8], target: Path) -> None:
        """Write the segments of one picture."""
        from PIL import Image

        image = Image.fromarray(labels)
        image.putpalette(palette(self.colours))
        save_png(target, image.convert("RGB"))
        key, (height, width) = len(self.images) + 1, labels.shape
        about = {"id": key, "file_name": picture.name, "width": width, "height": height}
        self.images.append(about)
        name = shown(target.relative_to(folder_of(self.path)))
        segments = [self._segment(labels, k) for k in np.unique(labels).tolist()]
        self.annotations.append(
            {
                "image_id": key,
                "file_name": name,
                "segments_info": [one for one in segments if one["id"]],
            }
        )

    def _segment(self, labels: NDArray[np.uint8], k: int) -> dict[str, Any]:
        mask = labels == k
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        x, y = int(columns[0]), int(rows[0])
        return {
            "id": segment_id(self.colours[k]),
            "category_id": k,
            "area": int(mask.sum()),
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "iscrowd": 0,
        }

    def write(self) -> None:
        """The JSON, when all pictures are done."""
        categories = [
            {"id": k, "name": name, "supercategory": "label", "isthing": 0, "color": list(rgb(c))}
            for k, (name, c) in enumerate(zip(self.names, self.colours, strict=True))
            if c != NOTHING
        ]
        info = {"description": "labels found by cliplab segment; black is background"}
        write_json(
            self.path,
            {
                "info": info,
                "images": self.images,
                "annotations": self.annotations,
                "categories": categories,
            },
        )
