"""Train, val and test: whole groups, near-duplicates together, classes in proportion.

A group is what its owner named (an animal, a farm), else a file with all its boxes; groups whose
pictures are copies or near-duplicates become one. Groups are dealt out one by one, the largest
first and equal ones in the order of a hash of seed and name, each to the split that its classes
are furthest from having their share of. Each split gets a group of every class that has as many; a
class with a single group is in train only, which is told.

Near-duplicates: a difference hash (64 signs of horizontal brightness steps on a 9 x 8 thumbnail)
finds candidates, thumbnails of 16 x 16 colours decide. Thresholds were chosen on the pasture (1,500
portraits, 800 crops, 300 herds) and 33 photographs and plots: of 1.5 million distinct pairs one
passes, and 97 to 100 % of the copies saved as JPEG 30, halved, darkened, with noise, shifted by 2 %
or zoomed by 3 % do. The hash alone joins 30 pairs of different animals, and through them half a
class. Mirrored copies and those with a logo are not seen: give such pictures a group.
"""

import hashlib
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data.files import UnreadableImage, open_image
from cliplab.data.samples import (
    SPLITS,
    Problem,
    ProblemKind as Kind,
    Sample,
    lacked,
    problems_of,
    some,
)
from cliplab.runtime import unknown_name

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
MAX_BITS = 10  # of 64 that two hashes may differ in
MIN_CORRELATION = 0.9  # of two thumbnails, brightness and contrast taken out
MAX_DIFFERENCE = 4.0  # mean, of 255: for flat pictures, in which nothing correlates
_SIDE = 16  # pixels of a thumbnail
_VALUES = _SIDE * _SIDE * 3
_DECODED = 64  # pixels to which JPEG may be decoded before it is shrunk
_ROWS = 256  # hashes compared with all others at a time
_PAIRS = 1 << 15  # thumbnails compared at a time: 2 x 100 MB as float
Places = dict[Kind, list[str]]
_PREFERENCE = ("train", "test", "val")  # who comes first when a class is short of groups


@dataclass(frozen=True)
class _Group:
    """Photos that stay together."""

    members: tuple[int, ...]
    counts: Counter[str | None]  # samples of each class
    order: str  # hash of seed and name


def deal(
    samples: Sequence[Sample],
    fractions: Mapping[str, float] | None,
    seed: int,
    previous: Iterable[Sample],
) -> tuple[Sequence[Sample], tuple[Problem, ...]]:
    """See `SampleSet.with_splits`: the samples with their splits, and what is to be said."""
    shares = _checked(FRACTIONS if fractions is None else fractions)
    before: dict[Path, str | None] = {}
    for one in previous:
        before.setdefault(one.path.absolute(), one.split)
    fixed = [one.split or before.get(one.path.absolute()) for one in samples]
    if None not in fixed:
        return _with_splits(samples, fixed), ()
    problems: Places = defaultdict(list)
    groups = _groups(samples, seed, problems)
    given = [_given(group, fixed, samples, problems) for group in groups]
    chosen = _repaired(_greedy(groups, given, shares), groups, given, list(shares))
    if empty := [split for split in shares if split not in chosen]:
        largest = some((samples[i].name for i in groups[0].members), 4)
        raise ValueError(
            f"nothing left for {' and '.join(empty)}: {len(samples)} pictures are "
            f"{len(groups)} groups (same group or file, or near-duplicates), the largest has "
            f"{len(groups[0].members)}: {largest}; add pictures, or ask for fewer splits"
        )
    splits = list(fixed)
    for group, split in zip(groups, chosen, strict=True):
        for i in group.members:
            splits[i] = fixed[i] or split
    dealt = _with_splits(samples, splits)
    problems[Kind.LACKED] += lacked(dealt)
    return dealt, problems_of(problems)


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    """The splits that get anything, and how much."""
    for name, share in fractions.items():
        if name not in SPLITS:
            raise ValueError(unknown_name("split", name, SPLITS))
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise ValueError(f"fractions: {name} is {share}; expected a number from 0 to 1")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"fractions: {dict(fractions)} sum to {total:g}; expected 1")
    return {name: fractions[name] for name in SPLITS if fractions.get(name)}


def _with_splits(samples: Sequence[Sample], splits: Sequence[str | None]) -> list[Sample]:
    return [replace(one, split=split) for one, split in zip(samples, splits, strict=True)]


# ---- groups --------------------------------------------------------------------------------


def _groups(samples: Sequence[Sample], seed: int, to: Places) -> list[_Group]:
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
        groups.append(_Group(tuple(indices), Counter(samples[i].label for i in indices), order))
    return sorted(groups, key=lambda group: (-len(group.members), group.order))


def _file_name(sample: Sample) -> str:
    """The name without the number of a box, as composed characters: macOS stores them apart."""
    name = re.sub(r"#\d+$", "", sample.name) if sample.box_xyxy else sample.name
    return unicodedata.normalize("NFC", name)


# ---- dealing -------------------------------------------------------------------------------


def _given(
    group: _Group, fixed: Sequence[str | None], samples: Sequence[Sample], to: Places
) -> str | None:
    """The split that a group must join, since some of its samples are there already."""
    there = {fixed[i]: samples[i].name for i in group.members if fixed[i]}
    if len(there) > 1:
        places = (f"{name} ({split})" for split, name in there.items())
        to[Kind.STRADDLING].append(" = ".join(places))
    return next((split for split in SPLITS if split in there), None)


def _greedy(
    groups: Sequence[_Group], given: Sequence[str | None], shares: Mapping[str, float]
) -> list[str]:
    """A split for each group: where its classes lack most of their share."""
    totals = sum((group.counts for group in groups), Counter[str | None]())
    owners = Counter(label for group in groups for label in group.counts)
    have: Counter[tuple[str, str | None]] = Counter()
    chosen: dict[int, str] = {}
    # What is given comes first, for the rest has to make up for it.
    for i in sorted(range(len(groups)), key=lambda i: given[i] is None):
        counts = groups[i].counts

        def cost(split: str, counts: Counter[str | None] = counts) -> float:
            """By how much the squared distance of the classes from their shares grows."""
            off = (
                (have[split, c] - shares[split] * totals[c], n, totals[c])
                for c, n in counts.items()
            )
            return sum(n * (n + 2 * away) / total for away, n, total in off)

        splits = [split for split in _PREFERENCE if split in shares]
        if any(owners[label] == 1 for label in counts):
            splits = splits[:1]  # what is never trained on cannot be tested
        chosen[i] = given[i] or min(splits, key=cost)
        for label, n in counts.items():
            have[chosen[i], label] += n
    return [chosen[i] for i in range(len(groups))]


def _repaired(
    chosen: list[str], groups: Sequence[_Group], given: Sequence[str | None], splits: list[str]
) -> list[str]:
    """Give each split a group of each class that has enough of them, smallest groups first."""
    chosen = list(chosen)
    owners: dict[str | None, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        for label in group.counts:
            owners[label].append(i)
    held = Counter((chosen[i], label) for i, group in enumerate(groups) for label in group.counts)
    for label in sorted(owners, key=lambda label: (len(owners[label]), label or "")):
        for split in (split for split in _PREFERENCE if split in splits):
            if held[split, label]:
                continue
            movable = [
                i
                for i in owners[label]
                if given[i] is None and all(held[chosen[i], c] > 1 for c in groups[i].counts)
            ]
            if not movable:
                break
            i = min(movable, key=lambda i: (-held[chosen[i], label], len(groups[i].members), i))
            for c in groups[i].counts:
                held[chosen[i], c] -= 1
                held[split, c] += 1
            chosen[i] = split
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

    A box of a photo with a group of its own is compared as a crop, since its owner tells the
    animals of one picture apart; all else is compared as whole pictures.
    """
    from tqdm import tqdm

    wanted: dict[Path, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        wanted[photo.path].append(i)
    prints: list[tuple[int, Print]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(lambda at: _prints(at, photos), wanted.values())
        for found in tqdm(jobs, "comparing", len(wanted), leave=False, unit="image", disable=None):
            prints.extend(found)
    places = [i for i, _ in prints]
    for i, j in _similar([p for _, p in prints]):
        yield places[i], places[j]


def _prints(places: Sequence[int], photos: Sequence[Sample]) -> list[tuple[int, Print]]:
    """Prints of the photos of one file."""
    crops = [i for i in places if photos[i].box_xyxy and photos[i].group]
    wholes = [i for i in places if i not in set(crops)]
    try:
        if not crops:
            return [(wholes[0], print_of(open_image(photos[wholes[0]].path, side=_DECODED)))]
        image = open_image(photos[crops[0]].path)
        found = [(i, print_of(photos[i].crop(image))) for i in crops]
        return found + [(i, print_of(image)) for i in wholes[:1]]
    except UnreadableImage:  # whoever opens it later will report it
        return []


def _similar(prints: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """Pairs of similar prints, i < j; of equal ones only each with the first."""
    first: dict[tuple[int, bytes], int] = {}
    places = []
    for i, (sign, colour) in enumerate(prints):
        before = first.setdefault((sign, colour.tobytes()), i)
        if before == i:
            places.append(i)
        else:
            yield before, i
    bits = np.array([prints[i][0] for i in places], np.uint64)  # (M,)
    colours = np.array([prints[i][1] for i in places], np.uint8).reshape(-1, _VALUES)
    for start in range(0, len(bits), _ROWS):
        rows = bits[start : start + _ROWS, None]
        # Quadratic, but one XOR a pair: 0.24 s for 10,000 pictures.
        close = np.bitwise_count(rows ^ bits[None, start:]) <= MAX_BITS  # (rows, M - start)
        left, right = np.nonzero(np.triu(close, 1))
        for at in range(0, len(left), _PAIRS):
            a, b = left[at : at + _PAIRS] + start, right[at : at + _PAIRS] + start
            same = _alike(colours[a], colours[b])
            yield from ((places[i], places[j]) for i, j in zip(a[same], b[same], strict=True))


def _alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether thumbnails (P, 768), (P, 768) show the same -> (P,)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    difference = np.abs(a - b).mean(axis=1)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    correlation = (a * b).sum(axis=1) / np.maximum(norm, 1e-6)
    return (correlation > MIN_CORRELATION) | (difference < MAX_DIFFERENCE)
