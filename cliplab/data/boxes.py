"""Boxes of pictures: from whatever a file says to crops that lie inside the upright picture."""

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cliplab.data.files import Header, UnreadableImage, printable, read_header
from cliplab.data.photo_set import Box, Photo
from cliplab.data.remarks import Remarks

_TOLERANCE = 1.0  # pixels that a box may stick out before it is worth a word


@dataclass(frozen=True)
class Boxed:
    """One box as its file gave it, or a whole picture if there is no box."""

    path: Path
    name: str  # path relative to the root, with /
    label: str | None
    box_xyxy: Box | None  # pixels of the upright picture; may leave it, may lack an area
    group: str | None = None
    split: str | None = None


class Headers:
    """Sizes of pictures, each read once; an unreadable picture is remarked on once."""

    def __init__(self, remarks: Remarks) -> None:
        self._known: dict[Path, Header | None] = {}
        self._remarks = remarks

    def of(self, path: Path) -> Header | None:
        """Size and orientation, None if the picture cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = read_header(path)
            except UnreadableImage as error:
                self._known[path] = None
                self._remarks.add("unreadable pictures, whose boxes are left out", str(error))
        return self._known[path]


def check_scale(box_scale: float) -> None:
    """Refuse a factor that is not a positive number.

    Raises:
        ValueError: with the usual values.
    """
    if not (math.isfinite(box_scale) and box_scale > 0):
        raise ValueError(f"box_scale: got {box_scale}; expected a number above 0, such as 1 or 1.5")


def crops_of(
    boxes: Iterable[Boxed], headers: Headers, remarks: Remarks, *, box_scale: float = 1.0
) -> list[Photo]:
    """One photo for each box that covers some of its picture, in the given order.

    A row without a box is the whole picture.

    Boxes are clipped to the picture; those without area, outside, or given twice are skipped
    and counted. `box_scale` enlarges a box about its centre before it is clipped: ViLD
    (arXiv:2104.13921, section 3.2) embeds each region at 1 and at 1.5.

    Raises:
        ValueError: box_scale is not above 0, or all boxes look like shares of the picture.
    """
    check_scale(box_scale)
    boxes = list(boxes)
    _refuse_shares(boxes)
    numbers: Counter[Path] = Counter()
    photos, seen = [], set()
    for boxed in boxes:
        if boxed.box_xyxy is None:
            photos.append(_photo(boxed, None, printable(boxed.name)))
            continue
        header = headers.of(boxed.path)
        inside = header and _inside(boxed, boxed.box_xyxy, header.size, box_scale, remarks)
        if not inside:
            continue
        if (key := (boxed.path, inside, boxed.label)) in seen:
            remarks.add("boxes given twice, kept once", printable(boxed.name))
            continue
        seen.add(key)
        numbers[boxed.path] += 1
        photos.append(_photo(boxed, inside, f"{printable(boxed.name)}#{numbers[boxed.path]}"))
    return photos


def _photo(boxed: Boxed, box: Box | None, name: str) -> Photo:
    return Photo(boxed.path, boxed.label, box, boxed.group, boxed.split, name)


def _inside(
    boxed: Boxed, box: Box, size: tuple[int, int], scale: float, remarks: Remarks
) -> Box | None:
    """The box enlarged and clipped to a picture of (width, height), None if nothing is left."""
    x1, y1, x2, y2 = box
    where = f"{printable(boxed.name)} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if not (x1 < x2 and y1 < y2):
        remarks.add("boxes without area, skipped", where)
        return None
    if x1 >= size[0] or y1 >= size[1] or x2 <= 0 or y2 <= 0:
        remarks.add("boxes outside their picture, skipped", f"{where} of {size[0]} x {size[1]}")
        return None
    if min(x1, y1, size[0] - x2, size[1] - y2) < -_TOLERANCE:
        remarks.add("boxes clipped to their picture", f"{where} of {size[0]} x {size[1]}")
    x1, x2 = _grown(x1, x2, scale, size[0])
    y1, y2 = _grown(y1, y2, scale, size[1])
    return x1, y1, x2, y2


def _grown(low: float, high: float, scale: float, size: int) -> tuple[float, float]:
    if scale != 1:  # else the numbers stay as they are written
        centre, half = (low + high) / 2, scale * (high - low) / 2
        low, high = centre - half, centre + half
    return float(max(low, 0)), float(min(high, size))


def _refuse_shares(boxes: list[Boxed]) -> None:
    """Boxes whose every edge is at most 1 are shares of the picture, as YOLO writes them."""
    given = [(boxed.name, boxed.box_xyxy) for boxed in boxes if boxed.box_xyxy]
    if given and all(-0.01 <= value <= 1.01 for _, box in given for value in box):
        name, box = given[0]
        raise ValueError(
            f"{printable(name)}: all boxes lie between 0 and 1, the first is {box}; "
            "expected pixels: multiply by the picture's width and height"
        )


def to_upright(box: Box, header: Header) -> Box:
    """A box in pixels of the stored picture as pixels of the upright one.

    Where EXIF turns a picture on its side (orientation 5 to 8), editors that ignore it count
    pixels along the stored rows.
    """
    x1, y1, x2, y2 = box
    width, height = header.stored
    across = {5: (y1, y2), 6: (height - y2, height - y1)}
    across |= {7: across[6], 8: across[5]}
    down = {5: (x1, x2), 7: (width - x2, width - x1)}
    down |= {6: down[5], 8: down[7]}
    if header.orientation < 5:
        return box
    (left, right), (top, bottom) = across[header.orientation], down[header.orientation]
    return left, top, right, bottom


def find_file(root: Path, name: str) -> Path | None:
    """The file that a table or JSON calls `name`, maybe with \\ from Windows; None if absent."""
    for text in dict.fromkeys([name, name.replace("\\", "/")]):
        # os.path: a Path for each of 100,000 names that are then joined and asked takes seconds
        if os.path.isfile(os.path.join(root, text)):  # False, too, for names no system allows
            return root / text
    return None
