"""A picture with what is known of it: label, box, masks; and the problems that its source had."""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cliplab.data.files import MAX_PIXELS, open_image, opened, printable, read_header, shown

SPLITS = ("train", "val", "test")
# What people call the three splits.
SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training", "训练", "训练集")},
    **{name: "val" for name in ("val", "valid", "validation", "dev", "验证", "验证集")},
    **{name: "test" for name in ("test", "testing", "测试", "测试集")},
}
Box = tuple[float, float, float, float]
Written = Mapping[Path, Sequence[tuple[str, Box, bool]]]  # picture -> class, xyxy, whether a crowd


def split_of(name: str) -> str | None:
    """The split that a folder or a cell names, None if it names none."""
    return SPLIT_NAMES.get(name.strip().casefold())


def plain(text: str) -> str:
    """Text of a label as it is compared: composed characters (macOS stores them apart), trimmed."""
    return unicodedata.normalize("NFC", printable(text)).strip()


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


# ---- problems ------------------------------------------------------------------------------


class ProblemKind(Enum):
    """What a reader clipped, skipped or guessed; the value is the beginning of the sentence."""

    MISSING = "pictures that are missing, left out"
    UNREADABLE = "unreadable pictures, whose boxes are left out"
    OTHER_FORMAT = "pictures in formats that are not read, left out; export them as JPEG"
    STRAY_PICTURES = "pictures of the folder that its table, JSON or YAML does not list, left out"
    STRAY_LABELS = "label files without a picture"
    UNREAD_LABELS = "files beside pictures that are not read as labels; export them as COCO"
    UNREAD_COLUMNS = "columns of a table without labels that are not read"
    ANSWERS = "JSON files with scores, which a model wrote: no truth, passed over"
    TWO_CLASSES = "pictures whose bytes lie under two classes, taken as unlabelled"
    MISSING_SPLIT = "splits that are named and not there, left out"
    MALFORMED = "malformed lines of labels, skipped"
    GUESSED = "files that only the end of their path leads to"
    ENCODING = "tables that are not UTF-8"
    UNLISTED = "boxes of pictures that the file does not list, skipped"
    CROWD = "boxes of crowds (iscrowd), skipped"
    NO_BOX = "annotations without four finite numbers in 'bbox', skipped"
    OUTSIDE = "boxes without area or outside their picture, skipped"
    CLIPPED = "boxes clipped to their picture"
    TURNED = "boxes turned with their picture, since EXIF lays it on its side"
    AS_SEEN = "boxes of pictures that EXIF turns, taken as of the upright picture"
    SCALED = "boxes scaled, since their file was made for another size"
    OTHER_SHAPE = "boxes of pictures of another shape than their file says, skipped"
    NOT_BOXED = "pictures without boxes, left out"
    UNLABELLED = "pictures without a label"
    ONE_CLASS = "all labelled pictures are of one class: nothing to tell apart"
    LACKED = "classes that a split lacks"
    NEAR_DUPLICATE = "near-duplicates, kept in one split"
    STRADDLING = "groups or near-duplicates that straddle the given splits"
    NOT_JUDGED = "pictures whose truth cannot be used, not judged"


Problems = dict[ProblemKind, list[str]]  # where each kind was met, while a source is read


@dataclass(frozen=True)
class Problem:
    """One kind of problem, the places where it was met, and what else is to be said of it."""

    kind: ProblemKind
    where: tuple[str, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        places = f" ({len(self.where)}): {some(dict.fromkeys(self.where))}" if self.where else ""
        return f"{self.kind.value}{places}{self.detail and f': {self.detail}'}"


def problems_of(places: Problems) -> tuple[Problem, ...]:
    """One problem for each kind that was met anywhere."""
    return tuple(Problem(kind, tuple(where)) for kind, where in places.items() if where)


def lacked(samples: Iterable["Sample"]) -> list[str]:
    """Classes that a split lacks, so that it says nothing about them."""
    present = defaultdict[str, set[str | None]](set)  # splits of each class
    for sample in samples:
        if sample.label is not None:
            present[sample.label].add(sample.split)
    there = set[str | None]().union(*present.values())
    absent = {
        label: ", ".join(split for split in SPLITS if split in there - splits)
        for label, splits in sorted(present.items())
    }
    return [f"{label} ({splits})" for label, splits in absent.items() if splits]


# ---- masks ---------------------------------------------------------------------------------

UNSAID, SKIPPED = -1, -2  # of a picture's pixels: in no mask; marked as not to be judged
IGNORED = 255  # in a label PNG: not to be judged


@dataclass(frozen=True)
class Masks:
    """The masks of one picture: a label PNG, or COCO's `segmentation`s with their class names."""

    names: tuple[str, ...]  # S classes, that the numbers stand for; (): nobody says
    png: Path | None = None
    outlines: tuple[tuple[str, Any], ...] = ()  # (class, COCO's polygons or run lengths)
    size: tuple[int, int] | None = None  # (width, height) that outlines refer to, if told

    def draw(self, path: Path, size: tuple[int, int] | None = None) -> NDArray[np.int16]:
        """Number of each pixel's class, UNSAID or SKIPPED (H, W), turned as EXIF turns the picture.

        `size` is the (width, height) wanted, by default that of the upright picture at `path`.

        Raises:
            UnreadableImage: the picture or the PNG.
            ValueError: masks of another shape than the picture's, or that are none.
        """
        header = read_header(path)
        numbers = _numbers(self.png) if self.png else None
        width, height = numbers.shape[::-1] if numbers is not None else self.size or header.size
        turns = (width, height) == header.stored != header.size
        fits = turns or same_shape((width, height), header.size)
        if not fits or width * height > MAX_PIXELS:
            raise ValueError(
                f"{width} x {height} px for a picture of {header.size[0]} x {header.size[1]}; "
                "expected the same shape"
            )
        found = self._drawn(width, height) if numbers is None else numbers
        if turns:
            picture = Image.fromarray(found.astype(np.int32))
            picture.getexif()[0x0112] = header.orientation
            found = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int16)
        return resized(found, size or header.size)

    def _drawn(self, width: int, height: int) -> NDArray[np.int16]:
        """The smaller of two masks is on top."""
        from pycocotools import mask as coco

        found = np.full((height, width), UNSAID, np.int16)
        codes = [(name, run_lengths(mask, height, width)) for name, mask in self.outlines]
        for name, code in sorted(codes, key=lambda one: -int(coco.area(one[1]))):
            # One at a time: hundreds of large masks would not fit into memory.
            found[coco.decode(code).astype(bool)] = self.names.index(name)
        return found


def same_shape(size: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two (width, height) are of one picture, larger or smaller, edges rounded."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def run_lengths(mask: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's polygons, or run lengths of either kind, as pycocotools' compressed run lengths."""
    from pycocotools import mask as coco

    # Everything is checked here: on what it did not write, pycocotools crashes or makes things up.
    try:
        if not isinstance(mask, dict):
            points = np.concatenate([np.array(polygon, float) for polygon in mask])
            whole = all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in mask)
            if not whole or not (abs(points) <= 10 * max(height, width)).all():
                raise ValueError("points that are no pairs, or far outside")
            return dict(coco.merge(coco.frPyObjects(mask, height, width)))
        if list(mask["size"]) != [height, width]:
            raise ValueError(f"of {mask['size']} (height, width), expected {[height, width]}")
        counts = _unpacked(mask["counts"]) if isinstance(mask["counts"], str) else mask["counts"]
        if min(counts) < 0 or sum(counts) != height * width:
            raise ValueError(f"of {sum(counts)} pixels, expected {height * width}")
        return dict(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    except Exception as error:  # pycocotools raises plain ones
        raise ValueError(
            f"a segmentation that is neither polygons nor run lengths ({error}); export it again"
        ) from error


def _unpacked(text: str) -> list[int]:
    """The run lengths of a COCO string: digits of 5 bits and one that tells whether more follow."""
    runs, run, place = list[int](), 0, 0
    for digit in (code - 48 for code in text.encode("ascii")):
        run |= (digit & 31) << place
        place += 5
        if not digit & 32:
            run -= (digit & 16) << place - 4  # a negative number
            runs.append(run + (runs[-2] if len(runs) > 2 else 0))  # from the fourth on, differences
            run = place = 0
    if place:
        raise ValueError(f"no run lengths: {text[:20]!r}")
    return runs


def _numbers(path: Path) -> NDArray[np.int16]:
    """The numbers of a label PNG, palette or grey, as `Masks.draw` gives them."""
    with opened(path) as image:
        mode, found = image.mode, np.asarray(image).astype(np.int16)
    if mode not in ("P", "L", "1"):
        raise ValueError(
            f"{shown(path)} has colours or more than 8 bits ({mode}); expected a palette or 8-bit "
            "grey whose values are numbers of classes"
        )
    return np.where(found == IGNORED, np.int16(SKIPPED), found)


def resized(numbers: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Numbers (H, W) at another size (width, height): the one at the middle of each new pixel."""
    height, width = numbers.shape
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    return numbers if (width, height) == size else numbers[rows[:, None], columns]


# ---- pictures ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A picture, or a box of it, and what its owner knows about it.

    Boxes that a reader gives have an area and lie inside their picture.
    """

    path: Path
    label: str | None = None
    box_xyxy: Box | None = None  # pixels of the upright image, half-open: x2 and y2 are outside
    group: str | None = None  # pictures of one group (an animal, a farm) never straddle splits
    split: str | None = None  # one of SPLITS
    name: str = ""  # for people: path relative to the set's root, "#3" for its third box
    regions: tuple["Sample", ...] = ()  # of a whole picture: its boxes
    judged: bool = False  # True: its regions are all there are
    masks: Masks | None = None  # of a whole picture: which class each pixel shows

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", shown(self.path.name))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole upright picture, read from the file's first bytes."""
        return read_header(self.path).size

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """Boxes of the regions (A, 4), pixels of the upright picture, inside it."""
        return np.array([one.box_xyxy for one in self.regions], np.float32).reshape(-1, 4)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Labels of the regions, A of them."""
        return tuple(one.label for one in self.regions)

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB, upright, cut to its box; errors as `open_image`."""
        return self.crop(open_image(self.path))

    def crop(self, image: Image.Image) -> Image.Image:
        """The box cut out of the whole upright picture, which may serve many boxes.

        Edges go to the nearest pixel border, and the box is clipped to the picture.
        """
        if self.box_xyxy is None:
            return image
        left, right = _pixels(self.box_xyxy[0], self.box_xyxy[2], image.width)
        top, bottom = _pixels(self.box_xyxy[1], self.box_xyxy[3], image.height)
        return image.crop((left, top, right, bottom))


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels of [low, high) within [0, size), at least one."""
    first = min(max(math.floor(low + 0.5), 0), size - 1)
    return first, min(max(math.floor(high + 0.5), first + 1), size)


# ---- ids -----------------------------------------------------------------------------------

Id = int | str


@dataclass(frozen=True)
class Ids:
    """How a COCO file calls its pictures and classes: what came in with ids goes out with them."""

    images: Mapping[Path, tuple[Id, str]] = field(default_factory=dict)  # id and file_name
    categories: Mapping[str, Id] = field(default_factory=dict)  # of a class name
    boxes: Written = field(default_factory=dict)  # as written: not clipped, crowds too

    def of_images(self, pictures: Iterable[Sample]) -> list[tuple[Id, str]]:
        """Id and file name of each picture; those that have none get free numbers from 1."""
        free = _free(key for key, _ in self.images.values())
        return [self.images.get(one.path) or (next(free), one.name) for one in pictures]

    def of_categories(self, names: Iterable[str], first: int = 1) -> list[Id]:
        """Id of each class; those that have none get free numbers from `first`."""
        free = _free(self.categories.values(), first)
        return [self.categories[n] if n in self.categories else next(free) for n in names]


def _free(taken: Iterable[Id], first: int = 1) -> Iterator[int]:
    used = set(taken)
    return (number for number in count(first) if number not in used)
