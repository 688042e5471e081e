"""What every reader needs: files found, boxes brought inside pictures; and folders of classes."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cliplab.data.files import Header, UnreadableImage, image_names, is_hidden, read_header, shown
from cliplab.data.samples import Box, Masks, ProblemKind as Kind, Sample, plain, some, split_of

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
        self.classes: Sequence[str] = ()  # that the source names, boxed or not
        self.are_answers = False  # boxes and masks have scores: a model drew them
        self.problems: dict[Kind, list[str]] = defaultdict(list)
        self._box_scale = box_scale
        self._headers: dict[Path, Header | None] = {}
        self._names: dict[Path, str] = {}
        self._numbers: Counter[Path] = Counter()
        self._seen: set[tuple[Path, Box, str | None]] = set()

    def name(self, path: Path) -> str:
        """For people: relative to the root if it is in there."""
        if path not in self._names:
            own, base = path.absolute(), self.root.absolute()
            inside = os.path.normpath(own.relative_to(base)) if own.is_relative_to(base) else path
            self._names[path] = shown(inside)
        return self._names[path]

    def header(self, path: Path) -> Header | None:
        """Size and orientation, read once; None if the picture cannot be read."""
        if path not in self._headers:
            self._headers[path] = None
            try:
                self._headers[path] = read_header(path)
            except UnreadableImage as error:
                self.problems[Kind.UNREADABLE].append(str(error))
        return self._headers[path]

    def add(
        self, path: Path, label: str | None, box: Box | None, group: str | None, split: str | None
    ) -> None:
        """Keep a box, in pixels of the upright picture, or a whole picture where there is none.

        Boxes are enlarged about their centre by `box_scale` (ViLD, arXiv:2104.13921, section 3.2,
        embeds each region at 1 and at 1.5) and clipped to the picture; those without area,
        outside, or given twice are skipped and counted.
        """
        name = self.name(path)
        if box is not None:
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


def find_file(root: Path, name: str) -> Path | None:
    """The file that a table or JSON calls `name`, maybe with \\ from Windows; None if absent."""
    for text in dict.fromkeys([name, name.replace("\\", "/")]):
        # os.path: a Path for each of 100,000 names that are then joined and asked takes seconds
        if os.path.isfile(os.path.join(root, text)):  # False, too, for names no system allows
            return root / text
    return None


# ---- class folders -------------------------------------------------------------------------


def read_folder(root: Path) -> Reading:
    """Pictures of a folder, labelled by the sub-folder they lie in.

    Pictures of `sheep/`, and of folders below it, are labelled "sheep". If the sub-folders are
    train, val (valid, validation) and test, they are the splits and theirs are the classes.
    Pictures without any sub-folder have no label.
    """
    reading, names = Reading(root), image_names(root)
    splits = _split_folders(names, root)
    for name in names:
        folders = name.split("/")[:-1]
        split = splits[folders.pop(0)] if splits and folders else None
        reading.add(root / name, plain(folders[0]) if folders else None, None, None, split)
    _refuse_mixture(reading)
    used = {root / parent for name in names for parent in Path(name).parents}
    for base in (root, *(root / name for name in splits)):
        for path in sorted(path for path in base.iterdir() if path.is_dir()):
            if path not in used and not is_hidden(path.name):
                reading.problems[Kind.EMPTY_FOLDER].append(reading.name(path))
    return reading


def _split_folders(names: Iterable[str], root: Path) -> dict[str, str]:
    """Folder -> split, if the folders at the top are splits; {} if they are classes."""
    tops = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    found = {top: split for top in tops if (split := split_of(top))}
    others = [top for top in tops if top not in found]
    if others and len(set(found.values())) > 1:
        raise ValueError(
            f"{shown(root)}: got the splits {some(found)} beside other folders ({some(others)}); "
            "expected either splits with class folders in them, or class folders: move or rename"
        )
    return {} if others else found  # one class may well be called "train"


def _refuse_mixture(reading: Reading) -> None:
    for part in {sample.split for sample in reading.samples}:
        inside = [sample for sample in reading.samples if sample.split == part]
        loose = [sample.name for sample in inside if sample.label is None]
        if loose and len(loose) < len(inside):
            classes = dict.fromkeys(sample.label for sample in inside if sample.label)
            raise ValueError(
                f"{shown(reading.root / (part or ''))}: {len(loose)} pictures ({some(loose)}) lie "
                f"beside the class folders {some(classes)}; expected all pictures in class "
                "folders, or none: move them, or use read_unlabelled() to ignore the folders"
            )
