"""What every reader of boxes needs: files found, sizes looked up, boxes brought inside pictures."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from cliplab.data.files import Header, UnreadableImage, printable, read_header, shown
from cliplab.data.masks import Masks
from cliplab.data.samples import Box, Places, Sample
from cliplab.data.samples import ProblemKind as Kind

_TOLERANCE = 1.0  # pixels that a box may stick out before it is worth a word


class Reading:
    """What a reader has found so far.

    `samples` are in the order of the source, one for each box that covers some of its picture;
    `listed` are all pictures that the source names and that are there, with their splits.
    """

    def __init__(self, root: Path, box_scale: float = 1.0) -> None:
        self.root = root
        self.samples: list[Sample] = []
        self.listed: dict[Path, str | None] = {}
        self.masks: dict[Path, Masks] = {}
        self.are_answers = False  # boxes and masks have scores: a model drew them
        self.problems: Places = defaultdict(list)
        self._box_scale = box_scale
        self._headers: dict[Path, Header | None] = {}
        self._numbers: Counter[Path] = Counter()
        self._seen: set[tuple[Path, Box, str | None]] = set()
        self._largest, self._first = -math.inf, ("", (0.0, 0.0, 0.0, 0.0))

    def header(self, path: Path) -> Header | None:
        """Size and orientation, read once; None if the picture cannot be read."""
        if path not in self._headers:
            try:
                self._headers[path] = read_header(path)
            except UnreadableImage as error:
                self._headers[path] = None
                self.problems[Kind.UNREADABLE].append(str(error))
        return self._headers[path]

    def add(
        self,
        path: Path,
        name: str,
        label: str | None,
        box: Box | None,
        *,
        group: str | None = None,
        split: str | None = None,
    ) -> None:
        """Keep a box, in pixels of the upright picture, or a whole picture where there is none.

        Boxes are enlarged about their centre by `box_scale` (ViLD, arXiv:2104.13921, section 3.2,
        embeds each region at 1 and at 1.5) and clipped to the picture; those without area,
        outside, or given twice are skipped and counted.
        """
        name = printable(name)
        if box is not None:
            self._first = self._first if self._first[0] else (name, box)
            self._largest = max(self._largest, *map(abs, box))
            header = self.header(path)
            box = self._inside(name, box, header.size) if header else None
            if box is None:
                return
            if (path, box, label) in self._seen:
                self.problems[Kind.REPEATED_BOX].append(name)
                return
            self._seen.add((path, box, label))
            self._numbers[path] += 1
            name = f"{name}#{self._numbers[path]}"
        self.samples.append(Sample(path, label, box, group, split, name))

    def refuse_shares(self) -> None:
        """Boxes whose every edge is at most 1 are shares of the picture, as YOLO writes them.

        Raises:
            ValueError: all boxes are.
        """
        if self._first[0] and self._largest <= 1.01:
            raise ValueError(
                f"{self._first[0]}: all boxes lie between 0 and 1, the first is {self._first[1]}; "
                "expected pixels: multiply by the picture's width and height"
            )

    def _inside(self, name: str, box: Box, size: tuple[int, int]) -> Box | None:
        """The box enlarged and clipped to a picture of (width, height), None if nothing is left."""
        (x1, y1, x2, y2), (width, height) = box, size
        where = f"{name} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if not (x1 < x2 and y1 < y2):
            self.problems[Kind.NO_AREA].append(where)
            return None
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            self.problems[Kind.OUTSIDE].append(f"{where} of {width} x {height}")
            return None
        if min(x1, y1, width - x2, height - y2) < -_TOLERANCE:
            self.problems[Kind.CLIPPED].append(f"{where} of {width} x {height}")
        x1, x2 = _grown(x1, x2, self._box_scale, width)
        y1, y2 = _grown(y1, y2, self._box_scale, height)
        return x1, y1, x2, y2


def _grown(low: float, high: float, scale: float, size: int) -> tuple[float, float]:
    if scale != 1:  # else the numbers stay as they are written
        centre, half = (low + high) / 2, scale * (high - low) / 2
        low, high = centre - half, centre + half
    return float(max(low, 0)), float(min(high, size))


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


def names_of(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Paths relative to the root; outside it the file's name, with parents where others share it.

    Two cameras may both have a 1.png, and what is found must not be said of the other's.
    """
    base, tails = root.absolute(), dict[Path, list[str]]()
    for path in paths:
        own = path.absolute()
        if own.is_relative_to(base):
            tails[path] = [own.relative_to(base).as_posix()]
        else:
            parts = own.relative_to(own.anchor).parts
            tails[path] = ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    count = Counter(tail for some in tails.values() for tail in some)
    return {
        path: shown(next((tail for tail in some if count[tail] == 1), path.as_posix()))
        for path, some in tails.items()
    }
