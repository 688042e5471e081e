"""Whole pictures with the boxes that are known of them, from any source that photos come from.

`cliplab.data` cuts boxes out; a detector needs the picture around them, and the pictures that
have no box too: what is found there is wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cliplab import data
from cliplab.data import SPLITS, Problem, shown
from cliplab.runtime import unknown_name


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, and the boxes that its source gives it."""

    path: Path
    name: str  # for people and files, no other's: path relative to the root
    boxes_xyxy: Tensor  # (A, 4) px of the upright picture, inside it
    labels: tuple[str | None, ...] = ()  # A
    split: str | None = None
    judged: bool = False  # True: its boxes are all there are


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in the order of their names, and what was wrong with the source."""

    pictures: tuple[Picture, ...]
    root: Path
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()  # what was assumed

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    def __getitem__(self, i: int) -> Picture:
        return self.pictures[i]

    @property
    def class_names(self) -> list[str]:
        """Labels of the boxes, sorted."""
        return sorted({name for one in self for name in one.labels if name is not None})

    @property
    def boxes(self) -> int:
        """How many boxes there are."""
        return sum(len(one.boxes_xyxy) for one in self)

    def select(self, split: str) -> "Pictures":
        """The pictures of one split.

        Raises:
            ValueError: no such split, or no picture in it.
        """
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
        kept = tuple(one for one in self if one.split == split)
        if not kept:
            raise ValueError(
                f"--split: no picture of {shown(self.root)} is in {split}; expected a source whose "
                "folders, JSON names or split column tell: leave out --split"
            )
        return replace(self, pictures=kept)


def read_pictures(
    source: str | Path, *, kind: str = "auto", images: str | Path | None = None
) -> Pictures:
    """Pictures of a folder, whatever its sub-folders are called, of a box file, or a single one.

    Args:
        source: a folder, a COCO JSON, a CSV manifest, a YOLO folder or data.yaml, or one picture.
        kind: of `read_photos`; "auto" finds out.
        images: folder that file names in `source` are relative to, if not its own.

    Raises:
        FileNotFoundError, NotADirectoryError: a file or folder is missing.
        ValueError: no pictures, or a source that contradicts itself.
    """
    found = data.read_pictures(source, kind=kind, images=images)
    pictures = (
        Picture(
            one.path, one.name, torch.from_numpy(one.boxes_xyxy), one.labels, one.split, one.judged
        )
        for one in found
    )
    note = (
        "the boxes have scores, so a detector drew them: their classes are its answers, not the "
        "truth, and nothing is judged by them"
    )
    notes = (note,) if found.are_answers else ()
    return Pictures(tuple(pictures), found.root, found.problems, notes)


def read_boxes(source: str | Path, pictures: Pictures) -> tuple[dict[Path, Tensor], Pictures]:
    """Boxes of a file for pictures that are there: path -> (R, 4) px, and all that it tells.

    Raises:
        FileNotFoundError, ValueError: no such file, no boxes, or boxes of other pictures only.
    """
    told = read_pictures(source, images=pictures.root)
    given = {one.path.resolve(): one.boxes_xyxy for one in told}
    found = {one.path: given[one.path.resolve()] for one in pictures if one.path.resolve() in given}
    if not sum(map(len, found.values())):
        raise ValueError(
            f"{shown(source)}: no box for any of the {len(pictures)} pictures of "
            f"{shown(pictures.root)}; expected boxes in pixels for file names relative to it"
        )
    return found, told
