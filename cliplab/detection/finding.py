"""Picture after picture through a detector: what it said, and what of that counts as found."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cliplab.data import UnreadableImage, open_image
from cliplab.detection.boxes import Detections
from cliplab.detection.detectors import MOST, SCORE, Detector
from cliplab.detection.pictures import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

OVERLAP = 0.5  # IoU above which two boxes are one place

OnFound = Callable[[Picture, "Image", Detections], None]


@dataclass(frozen=True)
class Cut:
    """Which of a detector's answers count as found.

    Raises:
        ValueError: a score or an overlap that is none, or no boxes at all.
    """

    score: float = SCORE
    overlap: float | None = OVERLAP  # IoU above which two boxes are one place; None: never
    all_names: bool = False  # a place may have several names
    top: int | None = MOST  # boxes of a picture; None: all

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"--score: got {self.score:g}; expected 0 to 1")
        if self.overlap is not None and not 0 < self.overlap <= 1:
            raise ValueError(f"--iou: got {self.overlap:g}; expected more than 0, at most 1")
        if self.top is not None and self.top < 1:
            raise ValueError(f"--top: got {self.top}; expected 1 or more")

    def __call__(self, said: Detections) -> Detections:
        """Those that count, best first."""
        found = said.above(self.score)
        if self.overlap is not None and not self.all_names and len(found):
            from torchvision.ops import nms

            found = found.select(nms(found.boxes_xyxy.float(), found.scores, self.overlap))
        kept = len(found) if self.top is None else min(self.top, len(found))
        return found.select(torch.arange(kept))


@dataclass(frozen=True, eq=False)
class Found:
    """What came of N readable pictures."""

    pictures: tuple[Picture, ...]  # N
    sizes: tuple[tuple[int, int], ...]  # N of (width, height)
    said: tuple[Detections, ...]  # N: everything, for average precision
    found: tuple[Detections, ...]  # N: what counts
    unreadable: tuple[UnreadableImage, ...]  # the others
    cut: Cut  # what counts

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def boxes(self) -> int:
        """How many boxes count as found."""
        return sum(map(len, self.found))


def find(
    detector: Detector,
    pictures: Iterable[Picture],
    cut: Cut | None = None,
    *,
    given: Mapping[Path, Tensor] | None = None,
    on_found: OnFound | None = None,
    progress: bool = False,
) -> Found:
    """Every picture once; in memory are as many as the detector takes at a time, mostly one.

    Args:
        detector: of `load_detector`.
        pictures: of `read_pictures`.
        cut: what counts as found; default `Cut()`.
        given: path -> boxes (R, 4) px to name instead of finding some; a picture that is not
            there has none.
        on_found: called for every readable one, with its pixels and what counts as found.
        progress: show a bar on stderr.
    """
    from tqdm import tqdm

    cut, unreadable = cut or Cut(), list[UnreadableImage]()
    kept, sizes = list[Picture](), list[tuple[int, int]]()
    said, found = list[Detections](), list[Detections]()
    bar = tqdm(list(pictures), unit="picture", disable=not progress)
    for picture, image, answer in _answered(detector, bar, given, unreadable):
        counted = cut(answer)
        if on_found is not None:
            on_found(picture, image, counted)
        kept.append(picture)
        sizes.append(image.size)
        said.append(answer)
        found.append(counted)
    return Found(tuple(kept), tuple(sizes), tuple(said), tuple(found), tuple(unreadable), cut)


def _answered(
    detector: Detector,
    pictures: Iterable[Picture],
    given: Mapping[Path, Tensor] | None,
    unreadable: list[UnreadableImage],
) -> "Iterator[tuple[Picture, Image, Detections]]":
    """Readable pictures with their pixels and all that was said; the others go to `unreadable`."""
    readable = _readable(pictures, unreadable)
    while block := list(islice(readable, getattr(detector, "together", 1))):
        if len(block) > 1 and given is None:
            said = detector.find_all([image for _, image in block])  # type: ignore[attr-defined]
        elif given is None:
            said = [detector.find(image) for _, image in block]
        else:
            said = [detector.find(i, given.get(p.path, p.boxes_xyxy[:0])) for p, i in block]
        for (picture, image), answer in zip(block, said, strict=True):
            yield picture, image, answer


def _readable(
    pictures: Iterable[Picture], unreadable: list[UnreadableImage]
) -> "Iterator[tuple[Picture, Image]]":
    for picture in pictures:
        try:
            yield picture, open_image(picture.path)
        except UnreadableImage as error:
            unreadable.append(error)
