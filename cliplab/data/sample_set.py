"""Samples of one source, their classes and problems; and their splits: train, val and test.

Splits keep whole groups and near-duplicates together, and classes in proportion.

A group is what its owner named (an animal, a farm), else a file with all its boxes; groups whose
pictures are copies or near-duplicates become one. Groups are dealt out one by one, the largest
first and equal ones in the order of a hash of seed and name, each to the split that its classes
are furthest from having their share of. The last groups of a class go to splits that have none of
it; a class with a single group is in train only, which is told.

Near-duplicates: a difference hash (64 signs of horizontal brightness steps on a 9 x 8 thumbnail)
finds candidates, thumbnails of 16 x 16 colours decide. Thresholds were chosen on the pasture (1,500
portraits, 800 crops, 300 herds) and 33 photographs and plots: of 1.5 million distinct pairs one
passes, and 97 to 100 % of the copies saved as JPEG 30, halved, darkened, with noise, shifted by 2 %
or zoomed by 3 % do. The hash alone joins 30 pairs of different animals, and through them half a
class. Mirrored copies and those with a logo are not seen: give such pictures a group.
"""

import csv
import hashlib
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data.files import UnreadableImage, open_image, printable, shown
from cliplab.data.reading import COLUMNS
from cliplab.data.samples import (
    SPLITS,
    Ids,
    Problem,
    ProblemKind as Kind,
    Problems,
    Sample,
    lacked,
    problems_of,
    some,
)
from cliplab.runtime import atomic_write, unknown_name

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
MAX_BITS = 10  # of 64 that two hashes may differ in
MIN_CORRELATION = 0.9  # of two thumbnails, brightness and contrast taken out
MAX_DIFFERENCE = 4.0  # mean, of 255: for flat pictures, in which nothing correlates
_SIDE = 16  # pixels of a thumbnail
_VALUES = _SIDE * _SIDE * 3
_DECODED = 64  # pixels to which JPEG may be decoded before it is shrunk
_PREFERENCE = ("train", "test", "val")  # who comes first when a class is short of groups


@dataclass(frozen=True)
class SampleSet:
    """Samples in a fixed order, the names of their classes, and what was wrong with the source."""

    samples: tuple[Sample, ...]
    root: Path
    class_names: tuple[str, ...] = ()  # sorted; none if nothing is labelled
    problems: tuple[Problem, ...] = ()  # what was clipped, skipped or guessed, and why
    are_answers: bool = False  # its boxes or masks have scores: a model drew them, no truth
    ids: Ids = field(default_factory=Ids)  # of a COCO file

    @classmethod
    def of(
        cls, samples: Iterable[Sample], root: Path, problems: Iterable[Problem] = ()
    ) -> "SampleSet":
        """A set whose classes are the labels that occur, of samples and of their regions."""
        samples = tuple(samples)
        labels = {label for one in samples for label in (one.label, *one.labels)}
        names = sorted(label for label in labels if label is not None)
        return cls(samples, root, tuple(names), tuple(problems))

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]

    @property
    def labels(self) -> list[int | None]:
        """For each sample the index of its class in `class_names`, None if it is not labelled."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return [None if p.label is None else index[p.label] for p in self.samples]

    @property
    def splits(self) -> dict[str, int]:
        """How many samples each split has; {} if there are no splits."""
        found = Counter(sample.split for sample in self.samples)
        return {split: found[split] for split in SPLITS if found[split]}

    def select(self, split: str) -> "SampleSet":
        """The samples of one split, maybe none; the classes stay those of the whole set."""
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
        return replace(self, samples=tuple(p for p in self.samples if p.split == split))

    def with_splits(
        self,
        fractions: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        previous: "SampleSet | None" = None,
    ) -> "SampleSet":
        """The same samples, each in train, val or test; splits that are there already stay.

        How, says the head of this module. Every picture is looked at (0.06 s for a JPEG of 12
        megapixels), so that copies stay together.

        Args:
            fractions: share of train, val and test; default 0.6, 0.2 and 0.2.
            seed: another one gives other splits.
            previous: pictures of this set keep the split that they have there.

        Raises:
            ValueError: fractions of other splits or with another sum than 1; or so few groups
                that a split would be empty.
        """
        shares = _checked(FRACTIONS if fractions is None else fractions)
        before = {one.path.absolute(): one.split for one in previous or ()}
        given = [one.split or before.get(one.path.absolute()) for one in self]
        problems: Problems = defaultdict(list)
        splits = _dealt(self.samples, given, shares, seed, problems) if None in given else given
        pairs = zip(self.samples, splits, strict=True)
        samples = tuple(replace(one, split=split) for one, split in pairs)
        if None in given:
            problems[Kind.LACKED] += lacked(samples)
        said = tuple(dict.fromkeys([*self.problems, *problems_of(problems)]))
        return replace(self, samples=samples, problems=said)

    def write_manifest(self, target: str | Path, force: bool = False) -> Path:
        """Write these samples as a CSV table that `read_photos` reads back as the same set.

        It fixes labels, boxes, groups and splits for good; paths are relative to the table. A file
        that is there already is overwritten only if `force` is given.
        """
        path = Path(target)
        if path.exists() and not force:
            raise FileExistsError(
                f"{shown(path)}: exists already; choose another or give force=True"
            )
        columns = COLUMNS if any(one.box_xyxy for one in self) else COLUMNS[:4]
        with atomic_write(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for one in self:
                edges = [repr(value).removesuffix(".0") for value in one.box_xyxy or ()] or [""] * 4
                cells = [_path_from(one, path.parent), one.label, one.group, one.split, *edges]
                writer.writerow(cells[: len(columns)])
        return path


def _path_from(sample: Sample, folder: Path) -> str:
    """Path of a picture from `folder`, with /."""
    try:
        path = Path(os.path.relpath(sample.path, folder)).as_posix()
    except ValueError:  # Windows: on another drive
        path = sample.path.absolute().as_posix()
    if printable(path) != path:
        raise ValueError(f"{sample.name}: its path is not text in UTF-8; rename the file")
    return path


# ---- splits --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Photos that stay together."""

    members: tuple[int, ...]
    counts: Counter[str | None]  # samples of each class
    there: Mapping[str, str]  # splits that some of it are in already, with the name of one
    order: str  # hash of seed and name


def _dealt(
    samples: Sequence[Sample], given: Sequence[str | None], shares: Mapping[str, float], seed: int,
    to: Problems,
) -> list[str | None]:  # fmt: skip
    """The split of each sample: the given one, else that of its group."""
    groups = _groups(samples, given, seed, to)
    to[Kind.STRADDLING] += [
        " = ".join(f"{name} ({split})" for split, name in group.there.items())
        for group in groups
        if len(group.there) > 1
    ]
    chosen = _greedy(groups, shares)
    if empty := [split for split in shares if split not in chosen.values()]:
        largest = some((samples[i].name for i in groups[0].members), 4)
        raise ValueError(
            f"nothing left for {' and '.join(empty)}: {len(samples)} pictures are "
            f"{len(groups)} groups (same group or file, or near-duplicates), the largest has "
            f"{len(groups[0].members)}: {largest}; add pictures, or ask for fewer splits"
        )
    splits = list(given)
    for members, split in chosen.items():
        for i in members:
            splits[i] = given[i] or split
    return splits


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    """The splits that get anything, and how much."""
    known, shares = fractions.keys() <= set(SPLITS), fractions.values()
    if not (known and abs(math.fsum(shares) - 1) < 1e-6 and min(shares) >= 0):  # NaN fails, too
        raise ValueError(
            f"fractions: got {dict(fractions)}; expected shares of {', '.join(SPLITS)} from 0 to "
            "1, which sum to 1"
        )
    return {name: fractions[name] for name in SPLITS if fractions.get(name)}


# ---- groups --------------------------------------------------------------------------------


def _groups(
    samples: Sequence[Sample], given: Sequence[str | None], seed: int, to: Problems
) -> list[_Group]:
    """Photos that belong together, in the order in which they are dealt."""
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(range(len(samples)))
    first: dict[str, int] = {}
    for i, one in enumerate(samples):
        key = f"file {one.path.absolute()}" if one.group is None else f"group {one.group}"
        together.merge(first.setdefault(key, i), i)
    for i, j in near_pairs(samples):
        if together.merge(i, j):
            to[Kind.NEAR_DUPLICATE].append(f"{samples[i].name} = {samples[j].name}")
    groups = []
    for indices in map(sorted, together.subsets()):
        names = {samples[i].group or _file_name(samples[i]) for i in indices}
        order = min(hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest() for name in names)
        counts = Counter(samples[i].label for i in indices)
        there = {split: samples[i].name for i in indices if (split := given[i])}
        groups.append(_Group(tuple(indices), counts, there, order))
    return sorted(groups, key=lambda group: (-len(group.members), group.order))


def _file_name(sample: Sample) -> str:
    """The name without the number of a box, as composed characters: macOS stores them apart."""
    name = re.sub(r"#\d+$", "", sample.name) if sample.box_xyxy else sample.name
    return unicodedata.normalize("NFC", name)


# ---- dealing -------------------------------------------------------------------------------


def _greedy(groups: Sequence[_Group], shares: Mapping[str, float]) -> dict[tuple[int, ...], str]:
    """A split for the members of each group: where its classes lack most of their share."""
    totals = sum((group.counts for group in groups), Counter[str | None]())
    owners = Counter(label for group in groups for label in group.counts)
    left, have = owners.copy(), Counter[tuple[str, str | None]]()  # groups; samples dealt
    splits = [split for split in _PREFERENCE if split in shares]
    chosen: dict[tuple[int, ...], str] = {}
    # What is given comes first, for the rest has to make up for it.
    for group in sorted(groups, key=lambda group: not group.there):
        counts = group.counts

        def cost(split: str, counts: Counter[str | None] = counts) -> float:
            """By how much the squared distance of the classes from their shares grows."""
            off = (
                (have[split, c] - shares[split] * totals[c], n, totals[c])
                for c, n in counts.items()
            )
            return sum(n * (n + 2 * away) / total for away, n, total in off)

        bare = {c: [split for split in splits if not have[split, c]] for c in counts}
        short = [split for c, lack in bare.items() if left[c] <= len(lack) for split in lack]
        if any(owners[label] == 1 for label in counts):
            short = splits[:1]  # what is never trained on cannot be tested
        wanted = [split for split in splits if split in short] or splits
        given = next((split for split in SPLITS if split in group.there), None)
        chosen[group.members] = found = given or min(wanted, key=cost)
        for label, n in counts.items():
            have[found, label] += n
            left[label] -= 1
    return chosen


# ---- near-duplicates -----------------------------------------------------------------------

Print = tuple[int, NDArray[np.uint8]]  # 64 signs row by row, and _VALUES colours


def print_of(image: Image.Image) -> Print:
    """Difference hash (is a pixel brighter than its left neighbour?) and thumbnail."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    values = np.asarray(grey).astype(np.int16)  # (8, 9)
    signs = np.packbits(values[:, 1:] > values[:, :-1])
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return int.from_bytes(signs.tobytes(), "big"), np.asarray(small).ravel()


def near_pairs(photos: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Pairs of indices (i, j) of photos that look the same; unreadable photos are in none.

    Files are compared, each once; boxes whose owner named their group are not.
    """
    from tqdm import tqdm

    first: dict[Path, int] = {}
    for i, photo in enumerate(photos):
        if not (photo.box_xyxy and photo.group):
            first.setdefault(photo.path, i)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(_print_in, first)
        bar = tqdm(jobs, "comparing", len(first), leave=False, unit="image", disable=None)
        prints = [(i, found) for i, found in zip(first.values(), bar, strict=True) if found]
    for i, j in _similar([found for _, found in prints]):
        yield prints[i][0], prints[j][0]


def _print_in(path: Path) -> Print | None:
    try:
        return print_of(open_image(path, side=_DECODED))
    except UnreadableImage:  # whoever opens it later will report it
        return None


def _similar(prints: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """Pairs of similar prints, i < j; of equal ones only each with the first."""
    first: dict[tuple[int, bytes], int] = {}
    for i, (sign, colour) in enumerate(prints):
        if (before := first.setdefault((sign, colour.tobytes()), i)) != i:
            yield before, i
    places = list(first.values())
    bits = np.array([prints[i][0] for i in places], np.uint64)  # (M,)
    colours = np.array([prints[i][1] for i in places], np.uint8)  # (M, _VALUES)
    for row, place in enumerate(places):  # quadratic, but one XOR a pair
        close = np.bitwise_count(bits[row] ^ bits[row + 1 :]) <= MAX_BITS
        others = row + 1 + np.flatnonzero(close)
        same = _alike(colours[row], colours[others])
        yield from ((place, places[other]) for other in others[same])


def _alike(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether thumbnails (P, 768) show the same as one (768,) -> (P,)."""
    a, b = one.astype(np.float32), others.astype(np.float32)
    difference = np.abs(a - b).mean(axis=1)
    a -= a.mean()
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum() * (b * b).sum(axis=1))
    correlation = b @ a / np.maximum(norm, 1e-6)
    return (correlation > MIN_CORRELATION) | (difference < MAX_DIFFERENCE)
