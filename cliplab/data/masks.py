"""Which class each pixel of a picture shows: masks of a COCO file, or a PNG of class numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data.files import read_header, shown

UNSAID, SKIPPED = -1, -2  # of a picture's pixels: in no mask; marked as not to be judged
IGNORED = 255  # in a label PNG: not to be judged
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Numbers = NDArray[np.int16]  # (H, W): numbers of classes, UNSAID or SKIPPED


@dataclass(frozen=True)
class Masks:
    """The masks of one picture: a label PNG, or COCO's `segmentation`s with their class names."""

    names: tuple[str, ...]  # S classes, that the numbers stand for; (): nobody says
    png: Path | None = None
    outlines: tuple[tuple[str, Any], ...] = ()  # (class, COCO's polygons or run lengths)
    size: tuple[int, int] | None = None  # (width, height) that outlines refer to, if told

    def draw(self, path: Path, size: tuple[int, int] | None = None) -> Numbers:
        """Numbers of classes (H, W), turned as EXIF turns the picture.

        Args:
            path: of the picture.
            size: (width, height) wanted; default that of the upright picture.

        Raises:
            UnreadableImage: the picture or the PNG.
            ValueError: masks of another shape than the picture's, or that are none.
        """
        header = read_header(path)
        found = self._read() if self.png else self._drawn(self.size or header.size)
        if found.shape == header.stored[::-1] != header.size[::-1]:
            turned = Image.fromarray(found.astype(np.int32)).transpose(_TURNS[header.orientation])
            found = np.asarray(turned).astype(np.int16)
        (height, width), (true_width, true_height) = found.shape, header.size
        if abs(width * true_height - height * true_width) > max(*found.shape, *header.size):
            raise ValueError(
                f"{width} x {height} px for a picture of {true_width} x {true_height}; expected "
                "the same shape"
            )
        return resized(found, size or header.size)

    def _read(self) -> Numbers:
        found = read_numbers(self.png or Path())
        return np.where(found == IGNORED, np.int16(SKIPPED), found.astype(np.int16))

    def _drawn(self, size: tuple[int, int]) -> Numbers:
        """The smaller of two masks is on top."""
        from pycocotools import mask as coco

        width, height = size
        found = np.full((height, width), UNSAID, np.int16)
        codes = [(name, run_lengths(mask, height, width)) for name, mask in self.outlines]
        for name, code in sorted(codes, key=lambda one: -int(coco.area(one[1]))):
            # One at a time: hundreds of large masks would not fit into memory.
            found[coco.decode(code).astype(bool)] = self.names.index(name)
        return found


def run_lengths(mask: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's polygons, or run lengths of either kind, as pycocotools' compressed run lengths.

    Raises:
        ValueError: neither, or run lengths of another size.
    """
    from pycocotools import mask as coco

    if isinstance(mask, dict) and tuple(mask.get("size", ())) != (height, width):
        raise ValueError(
            f"a mask of {tuple(mask.get('size', ()))} (height, width); expected {(height, width)}"
        )
    try:
        if isinstance(mask, dict) and isinstance(mask["counts"], str):
            code = {"size": [height, width], "counts": mask["counts"].encode("ascii")}
        elif isinstance(mask, dict):
            code = coco.frPyObjects(mask, height, width)
        elif mask and all(len(p) >= 6 and len(p) % 2 == 0 for p in mask):
            code = coco.merge(coco.frPyObjects(mask, height, width))
        else:
            raise TypeError(type(mask).__name__)
        coco.area(code)
        return dict(code)
    except Exception as error:  # pycocotools raises plain ones
        raise ValueError(
            f"a segmentation that is neither polygons nor run lengths ({error}); export it again"
        ) from error


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """The numbers of a label PNG (H, W), palette or grey.

    Raises:
        UnreadableImage: no image.
        ValueError: an image of colours, or of more than 8 bits.
    """
    read_header(path)  # refuses what is no picture, and bombs
    with Image.open(path) as image:
        if image.mode in ("P", "L", "1"):
            return np.asarray(image).astype(np.uint8)
        raise ValueError(
            f"{shown(path)} has colours or more than 8 bits ({image.mode}); expected a palette or "
            "8-bit grey whose values are numbers of classes"
        )


def resized(numbers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Numbers (H, W) at another size (width, height): the one at the middle of each new pixel."""
    height, width = numbers.shape
    if (width, height) == size:
        return numbers
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    return numbers[rows[:, None], columns]
