"""A picture with what is known of it, and a set of them with their classes and splits."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from PIL import Image

from cliplab.data.files import UnreadableImage, open_image, shown
from cliplab.runtime import unknown_name

SPLITS = ("train", "val", "test")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """One picture: a file, or a box of it, and what its owner knows about it.

    Raises:
        ValueError: a box without area or with values that are not finite, or an unknown split.
    """

    path: Path
    label: str | None = None
    box_xyxy: Box | None = None  # pixels of the upright image, half-open: x2 and y2 are outside
    group: str | None = None  # pictures of one group (an animal, a farm) never straddle splits
    split: str | None = None  # one of SPLITS
    name: str = ""  # for people: path relative to the set's root, "#3" for its third box

    def __post_init__(self) -> None:
        if not isinstance(self.path, Path):
            object.__setattr__(self, "path", Path(self.path))
        if not self.name:
            object.__setattr__(self, "name", shown(self.path.name))
        if self.split is not None and self.split not in SPLITS:
            raise ValueError(unknown_name("split", self.split, SPLITS))
        if self.box_xyxy is not None:
            object.__setattr__(self, "box_xyxy", _checked(self.box_xyxy, self.name))

    def open(self) -> Image.Image:
        """The picture as 8-bit RGB, upright, cut to its box.

        Raises:
            UnreadableImage: as `open_image`, or the box lies outside the picture.
        """
        return self.crop(open_image(self.path))

    def crop(self, image: Image.Image) -> Image.Image:
        """The box cut out of the whole upright picture, which may serve many boxes.

        Edges go to the nearest pixel border, and the box is clipped to the picture.

        Raises:
            UnreadableImage: the box lies outside the picture.
        """
        if self.box_xyxy is None:
            return image
        left, right = _pixels(self.box_xyxy[0], self.box_xyxy[2], image.width)
        top, bottom = _pixels(self.box_xyxy[1], self.box_xyxy[3], image.height)
        if left >= right or top >= bottom:
            box = ", ".join(f"{value:g}" for value in self.box_xyxy)
            raise UnreadableImage(
                self.path,
                f"box ({box}) lies outside the picture of {image.width} x {image.height} pixels",
                "mend the box: x1, y1, x2, y2 in pixels of the upright picture",
            )
        return image.crop((left, top, right, bottom))


def _checked(box: Sequence[float], name: str) -> Box:
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"{name}: box_xyxy is {box}; expected four finite numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"{name}: box_xyxy is {box}; expected x1 < x2 and y1 < y2 in pixels")
    return x1, y1, x2, y2


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels of [low, high) within [0, size), at least one where they overlap at all."""
    if high <= 0 or low >= size:
        return 0, 0
    first = min(max(math.floor(low + 0.5), 0), size - 1)
    return first, min(max(math.floor(high + 0.5), first + 1), size)


@dataclass(frozen=True)
class PhotoSet:
    """Photos in a fixed order, the names of their classes, and what was wrong with the source."""

    photos: tuple[Photo, ...]
    root: Path
    class_names: tuple[str, ...] = ()  # sorted; none if nothing is labelled
    problems: tuple[str, ...] = ()  # sentences: what was clipped, skipped or guessed, and why
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "photos", tuple(self.photos))
        object.__setattr__(self, "root", Path(self.root))
        index = {name: i for i, name in enumerate(self.class_names)}
        object.__setattr__(self, "_index", index)
        if unknown := {p.label for p in self.photos if p.label is not None} - index.keys():
            raise ValueError(unknown_name("label", min(unknown), self.class_names))

    @classmethod
    def of(cls, photos: Iterable[Photo], root: Path, problems: Iterable[str] = ()) -> "PhotoSet":
        """A set whose classes are the labels that occur."""
        photos = tuple(photos)
        names = sorted({photo.label for photo in photos if photo.label is not None})
        return cls(photos, root, tuple(names), tuple(problems))

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Photo]:
        return iter(self.photos)

    @overload
    def __getitem__(self, i: int) -> Photo: ...
    @overload
    def __getitem__(self, i: slice) -> "PhotoSet": ...
    def __getitem__(self, i: int | slice) -> "Photo | PhotoSet":
        return replace(self, photos=self.photos[i]) if isinstance(i, slice) else self.photos[i]

    @property
    def labels(self) -> list[int | None]:
        """For each photo the index of its class in `class_names`, None if it is not labelled."""
        return [None if p.label is None else self._index[p.label] for p in self.photos]

    @property
    def is_labelled(self) -> bool:
        """Whether every photo has a label."""
        return bool(self.photos) and all(photo.label is not None for photo in self.photos)

    @property
    def splits(self) -> dict[str, int]:
        """How many photos each split has; {} if there are no splits."""
        found = Counter(photo.split for photo in self.photos)
        return {split: found[split] for split in SPLITS if found[split]}

    def select(self, split: str) -> "PhotoSet":
        """The photos of one split, maybe none; the classes stay those of the whole set.

        Raises:
            ValueError: no such split, or nothing in this set has been split.
        """
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
        if self.photos and not self.splits:
            raise ValueError(
                f"no photo of {shown(self.root)} has a split; call with_splits(), or give a split "
                "column or train/, val/ and test/ folders"
            )
        return replace(self, photos=tuple(p for p in self.photos if p.split == split))

    def with_splits(
        self,
        fractions: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        near_duplicates: bool = True,
        previous: "PhotoSet | None" = None,
    ) -> "PhotoSet":
        """The same photos, each in train, val or test; splits that are there already stay.

        Photos of one group (without groups: of one file) stay together, and so do copies and
        near-duplicates. Classes are shared out in proportion as far as groups permit: each split
        gets a group of every class that has as many; a class with a single group is in train
        only, which `problems` says. The same photos, fractions and seed give the same splits on
        every machine (only near-duplicates at the edge of the threshold hang on the decoder).

        Args:
            fractions: share of train, val and test; default 0.6, 0.2 and 0.2.
            seed: another one gives other splits.
            near_duplicates: look at every picture (0.06 s for a JPEG of 12 megapixels); False
                joins only files with equal bytes.
            previous: photos of this set keep the split they have there, so that adding pictures
                moves no old one. A manifest with empty cells in its split column does the same.

        Raises:
            ValueError: fractions of other splits or with another sum than 1; or so few groups
                that a split would be empty.
        """
        from cliplab.data.splits import deal

        return deal(self, fractions, seed=seed, near_duplicates=near_duplicates, previous=previous)

    def without_splits(self) -> "PhotoSet":
        """The same photos, all splits forgotten."""
        return replace(self, photos=tuple(replace(photo, split=None) for photo in self.photos))

    def write_manifest(self, target: str | Path, force: bool = False) -> Path:
        """Write these photos as a CSV table that `read_photos` reads back as the same set.

        It fixes labels, boxes, groups and splits for good; paths are relative to the table.

        Raises:
            FileExistsError: the file is there already and `force` is not given.
            ValueError: a path that is not text.
        """
        from cliplab.data.manifests import write_csv

        return write_csv(self, target, force=force)
