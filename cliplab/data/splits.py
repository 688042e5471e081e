"""Train, val and test: whole groups, near-duplicates together, classes in proportion.

A group is what its owner named (an animal, a farm), else a file with all its boxes; groups whose
pictures are copies or near-duplicates become one. Groups are dealt out one by one, the largest
first and equal ones in the order of a hash of seed and name, each to the split that its classes
are furthest from having their share of. So the same pictures and seed give the same splits on
every platform. More pictures may shift the shares and with them old pictures, unless those come
with their split: in a manifest, or as `previous`.
"""

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cliplab.data.files import shown
from cliplab.data.folders import remark_on_splits
from cliplab.data.near_duplicates import copies, near_pairs
from cliplab.data.photo_set import SPLITS, Photo, PhotoSet
from cliplab.data.remarks import Remarks, some
from cliplab.runtime import unknown_name

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
_PREFERENCE = ("train", "test", "val")  # who comes first when a class is short of groups


@dataclass(frozen=True)
class _Group:
    """Photos that stay together."""

    members: tuple[int, ...]
    counts: Counter[str | None]  # photos of each class
    order: str  # hash of seed and name


def deal(
    photos: PhotoSet,
    fractions: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    near_duplicates: bool = True,
    previous: PhotoSet | None = None,
) -> PhotoSet:
    """See `PhotoSet.with_splits`."""
    shares = _checked(FRACTIONS if fractions is None else fractions)
    remarks = Remarks()
    fixed = _fixed(photos, previous)
    if None not in fixed:
        return replace(photos, photos=tuple(map(_with_split, photos, fixed)))
    groups = _groups(photos, seed, near_duplicates, remarks)
    given = [_given(group, fixed, photos, remarks) for group in groups]
    chosen = _repaired(_greedy(groups, given, shares), groups, given, list(shares))
    _check_all_filled(chosen, groups, shares, photos)
    splits = list(fixed)
    for group, split in zip(groups, chosen, strict=True):
        for i in group.members:
            splits[i] = fixed[i] or split
    dealt = tuple(map(_with_split, photos, splits))
    remark_on_splits(dealt, remarks)
    return replace(photos, photos=dealt, problems=_joined(photos.problems, remarks.sentences()))


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    """The splits that get anything, and how much.

    Raises:
        ValueError: an unknown split, a share outside 0..1, or another sum than 1.
    """
    for name, share in fractions.items():
        if name not in SPLITS:
            raise ValueError(unknown_name("split", name, SPLITS))
        if not (math.isfinite(share) and 0 <= share <= 1):
            raise ValueError(f"fractions: {name} is {share}; expected a number from 0 to 1")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"fractions: {dict(fractions)} sum to {total:g}; expected 1")
    return {name: fractions[name] for name in SPLITS if fractions.get(name)}


def _with_split(photo: Photo, split: str | None) -> Photo:
    return photo if photo.split == split else replace(photo, split=split)


def _fixed(photos: PhotoSet, previous: PhotoSet | None) -> list[str | None]:
    """Splits that photos have already, or had in `previous`."""
    before: dict[str, str | None] = {}
    for photo in previous or ():
        before.setdefault(str(photo.path.absolute()), photo.split)
    return [p.split or before.get(str(p.path.absolute())) for p in photos]


def _joined(old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*old, *new]))


# ---- groups --------------------------------------------------------------------------------


class _Union:
    """Disjoint sets of 0..n-1; the smallest member stands for its set."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, i: int, j: int) -> bool:
        """Make one set of two; False if they are one already."""
        a, b = self.find(i), self.find(j)
        self._parent[max(a, b)] = min(a, b)
        return a != b


def _groups(photos: PhotoSet, seed: int, near_duplicates: bool, remarks: Remarks) -> list[_Group]:
    """Photos that belong together, in the order in which they are dealt."""
    union = _Union(len(photos))
    first: dict[str, int] = {}
    for i, photo in enumerate(photos):
        union.join(first.setdefault(_key(photo), i), i)
    for i, j in [*_copies(photos), *(near_pairs(photos.photos) if near_duplicates else ())]:
        if union.join(i, j):
            remarks.add(
                "near-duplicates, kept in one split", f"{photos[i].name} = {photos[j].name}"
            )
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(photos)):
        members[union.find(i)].append(i)
    groups = [_group(indices, photos, seed) for indices in members.values()]
    return sorted(groups, key=lambda group: (-len(group.members), group.order))


def _key(photo: Photo) -> str:
    """What a photo is grouped by, before pictures are compared."""
    return f"file {photo.path.absolute()}" if photo.group is None else f"group {photo.group}"


def _copies(photos: PhotoSet) -> list[tuple[int, int]]:
    """Pairs of photos whose files have the same bytes."""
    places: dict[object, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        places[photo.path].append(i)
    found = []
    for equal in copies(photo.path for photo in photos):
        by_box: dict[object, int] = {}
        for i in (i for path in equal for i in places[path]):
            # Boxes with groups of their own are told apart by their owner; equal boxes are not.
            part = photos[i].box_xyxy if photos[i].group else None
            found.append((by_box.setdefault(part, i), i))
    return [(i, j) for i, j in found if i != j]


def _group(indices: Sequence[int], photos: PhotoSet, seed: int) -> _Group:
    names = {photos[i].group or _file_name(photos[i]) for i in indices}
    order = min(hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest() for name in names)
    return _Group(tuple(indices), Counter(photos[i].label for i in indices), order)


def _file_name(photo: Photo) -> str:
    """The name without the number of a box, as composed characters: macOS stores them apart."""
    name = re.sub(r"#\d+$", "", photo.name) if photo.box_xyxy else photo.name
    return unicodedata.normalize("NFC", name)


# ---- dealing -------------------------------------------------------------------------------


def _given(
    group: _Group, fixed: Sequence[str | None], photos: PhotoSet, remarks: Remarks
) -> str | None:
    """The split that a group must join, since some of its photos are there already."""
    there = {fixed[i]: photos[i].name for i in group.members if fixed[i]}
    if len(there) > 1:
        places = (f"{name} ({split})" for split, name in there.items())
        remarks.add("groups or near-duplicates that straddle the given splits", " = ".join(places))
    return next((split for split in SPLITS if split in there), None)


def _greedy(
    groups: Sequence[_Group], given: Sequence[str | None], shares: Mapping[str, float]
) -> list[str]:
    """A split for each group: where its classes lack most of their share."""
    totals: Counter[str | None] = Counter()
    owners: Counter[str | None] = Counter()
    for group in groups:
        totals.update(group.counts)
        owners.update(group.counts.keys())
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


def _check_all_filled(
    chosen: Sequence[str], groups: Sequence[_Group], shares: Mapping[str, float], photos: PhotoSet
) -> None:
    """Refuse splits without a photo.

    Raises:
        ValueError: there are too few groups.
    """
    empty = [split for split in shares if split not in chosen]
    if not empty:
        return
    largest = some((photos[i].name for i in groups[0].members), 4)
    raise ValueError(
        f"{shown(photos.root)}: nothing left for {' and '.join(empty)}: {len(photos)} photos are "
        f"{len(groups)} groups (same group or file, or near-duplicates), the largest has "
        f"{len(groups[0].members)}: {largest}; add pictures, or ask for fewer splits"
    )
