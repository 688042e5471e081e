"""What is known of the pixels: masks of a COCO JSON, or label PNGs with the names of their numbers.

A source has classes of its own, S of them; `Truth.labels_of` gives a picture's pixels as labels of
the command. A pixel of a class that nobody asked for, or of none, is background where there is a
background, and is not judged where there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.classification import fold
from cliplab.data import UnreadableImage, shown
from cliplab.data.files import read_header
from cliplab.segmentation.words import is_nothing

if TYPE_CHECKING:
    from cliplab.segmentation import Vocabulary

UNSAID, SKIPPED = -1, -2  # of a source's pixels: in no mask; marked as not to be judged
IGNORED = 255  # of a label PNG, and of `cliplab.segmentation`
NAMES = "classes.txt"  # of label PNGs: one name a line, the first is number 0
SUFFIX = "_labels.png"
OURS = "cliplab segment"  # what our own PNGs say that they are
# EXIF orientation -> (whether rows and columns are swapped first, quarter turns to the left).
_TURNS = {5: (True, 0), 6: (False, -1), 7: (True, 2), 8: (False, 1)}

Known = NDArray[np.int16]  # (H, W) numbers of the source's classes, UNSAID or SKIPPED


@dataclass(frozen=True)
class Outlines:
    """Masks of one picture in a COCO file."""

    size: tuple[int, int] | None  # (width, height) that they refer to, if the file says so
    masks: tuple[tuple[int, Any], ...]  # number of the class, COCO's `segmentation`

    def draw(self, size: tuple[int, int]) -> Known:
        """The smaller of two masks is on top. Raises ValueError for one that is no mask."""
        width, height = self.size or size
        found = np.full((height, width), UNSAID, np.int16)
        codes = [(k, run_lengths(mask, height, width)) for k, mask in self.masks]
        for k, code in sorted(codes, key=lambda one: -area(one[1])):
            found[pixels(code)] = k  # one at a time: hundreds of large masks would not fit
        return found


@dataclass(frozen=True)
class Numbers:
    """A PNG whose values are numbers of classes; 255 is not judged."""

    path: Path

    def draw(self, size: tuple[int, int]) -> Known:
        """Raises UnreadableImage, or ValueError for a picture that is no label picture."""
        found = read_numbers(self.path)
        return np.where(found == IGNORED, np.int16(SKIPPED), found.astype(np.int16))


@dataclass(eq=False)
class Truth:
    """What is known of some pictures."""

    names: tuple[str, ...] = ()  # S classes; none: numbers of label PNGs are those of the labels
    by_path: Mapping[Path, Outlines | Numbers] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.by_path)

    def known(self, vocabulary: Vocabulary) -> frozenset[int]:
        """Labels that the source knows, so that they can be judged."""
        table = self._table(vocabulary)[:-2]
        background = {0} if vocabulary.has_background else set()
        return frozenset({int(k) for k in table if k != IGNORED} | background)

    def labels_of(
        self,
        path: Path,
        size: tuple[int, int],
        vocabulary: Vocabulary,
        *,
        at: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8] | None:
        """Labels (height, width) of the upright picture, IGNORED where nothing can be said.

        None if nothing is known of the picture; what is wrong with its truth becomes a problem.

        Args:
            path: of the picture.
            size: width and height of the upright picture.
            vocabulary: whose labels are meant.
            at: another width and height at which to tell; default `size`.
        """
        source = self.by_path.get(path)
        if source is None:
            return None
        table = self._table(vocabulary)
        try:
            found = fitted(source.draw(size), at or size, path)
            if int(found.max()) >= len(table) - 2:
                raise ValueError(
                    f"number {int(found.max())} is no class; expected less than {len(table) - 2}, "
                    f"as many as {NAMES} has lines, or {IGNORED} for what is not judged"
                )
        except ValueError as error:  # of which UnreadableImage is one
            self.problems.append(f"not judged: {shown(path)}: its truth: {error}")
            return None
        return table[found]

    def _table(self, vocabulary: Vocabulary) -> NDArray[np.uint8]:
        """Number of a class -> label, (S + 2,); the last two are SKIPPED and UNSAID."""
        other = 0 if vocabulary.has_background else IGNORED
        if not self.names:
            return np.array([*range(len(vocabulary.names)), IGNORED, other], np.uint8)
        asked = match(vocabulary, self.names)
        classes = [asked.get(name, other) for name in self.names]
        return np.array([*classes, IGNORED, other], np.uint8)


def match(vocabulary: Vocabulary, names: Sequence[str]) -> dict[str, int]:
    """Class of a source -> the label that means it, by name or else by one of its words."""
    pairs = zip(vocabulary.words, vocabulary.label_of, strict=True)
    first = int(vocabulary.has_background)
    index = {fold(word): k for word, k in pairs if k >= first}
    index |= {fold(name): k for k, name in enumerate(vocabulary.names) if k >= first}
    if vocabulary.has_background:
        index |= {fold(name): 0 for name in names if is_nothing(name)}
    return {name: index[fold(name)] for name in names if fold(name) in index}


# ---- one picture ---------------------------------------------------------------------------


def run_lengths(mask: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's polygons, or run lengths of either kind, as pycocotools' run lengths.

    Raises:
        ValueError: neither, or run lengths of another size.
    """
    from pycocotools import mask as coco

    said = tuple(mask.get("size", ())) if isinstance(mask, dict) else (height, width)
    if said != (height, width):
        raise ValueError(f"a mask of {said} (height, width); expected {(height, width)}")
    try:
        if isinstance(mask, dict) and isinstance(mask.get("counts"), str):
            code = {"size": [height, width], "counts": mask["counts"].encode("ascii")}
        elif isinstance(mask, dict) or _are_polygons(mask):
            code = coco.frPyObjects(mask, height, width)
            code = coco.merge(code) if isinstance(code, list) else code
        else:
            raise TypeError(f"{type(mask).__name__}")
        coco.area(code)
        return dict(code)
    except Exception as error:  # pycocotools raises plain ones
        raise ValueError(
            f"a segmentation that is neither polygons nor run lengths ({error}); export it again"
        ) from error


def area(code: dict[str, Any]) -> int:
    """How many pixels run lengths mark."""
    from pycocotools import mask as coco

    return int(coco.area(code))


def pixels(code: dict[str, Any]) -> NDArray[np.bool_]:
    """Run lengths as pixels (height, width)."""
    from pycocotools import mask as coco

    return coco.decode(code).astype(bool)


def _are_polygons(mask: Any) -> bool:
    return (
        isinstance(mask, list)
        and bool(mask)
        and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in mask)
    )


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """The numbers of a label PNG (H, W), palette or grey.

    Raises:
        UnreadableImage: no image.
        ValueError: an image of colours, or of more than 8 bits.
    """
    read_header(path)  # refuses what is no picture, and bombs
    with Image.open(path) as image:
        if image.mode not in ("P", "L", "1"):
            deep = image.mode.startswith(("I", "F"))
            what = "grey of more than 8 bits" if deep else "colours, no numbers"
            raise ValueError(
                f"{shown(path)} has {what} ({image.mode}); expected a palette or 8-bit grey whose "
                "values are numbers of classes"
            )
        return np.asarray(image).astype(np.uint8)


def is_ours(path: Path) -> bool:
    """Whether a PNG is an answer of this command: neither truth nor a picture to be read."""
    if path.suffix.lower() != ".png":
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its size; who reads its pixels will say so
        try:
            with Image.open(path) as image:
                return image.info.get("Software") == OURS
        except (OSError, ValueError, Image.DecompressionBombError):
            return False


def fitted(found: Known, size: tuple[int, int], path: Path) -> Known:
    """Numbers (H, W) at `size`, turned as EXIF turns the picture, made larger or smaller.

    Raises:
        ValueError: of another shape.
    """
    if found.shape == size[::-1]:
        return found
    try:
        header = read_header(path)
    except UnreadableImage as error:
        raise ValueError(str(error)) from error
    if found.shape == header.stored[::-1] and header.orientation in _TURNS:
        swapped, turns = _TURNS[header.orientation]
        found = np.rot90(found.T if swapped else found, turns)
    (height, width), (true_width, true_height) = found.shape, size
    if abs(width * true_height - height * true_width) > max(*found.shape, *size):
        raise ValueError(
            f"{width} x {height} px for a picture of {true_width} x {true_height}; expected the "
            "same shape"
        )
    return nearest(found, size)


def nearest(numbers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Numbers (H, W) at another size (width, height): the one at the middle of each new pixel."""
    height, width = numbers.shape
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    return numbers[rows[:, None], columns]
