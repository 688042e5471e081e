"""Train, val and test: whole groups, near-duplicates together, classes in proportion.

A group is what its owner named (an animal, a farm), else a file with all its boxes; groups whose
pictures are copies or near-duplicates become one. Groups are dealt out one by one, the largest
first and equal ones in the order of a hash of seed and name, each to the split that its classes
are furthest from having their share of. So the same pictures and seed give the same splits on
every platform; only near-duplicates at the edge of the threshold hang on the decoder. Each split
gets a group of every class that has as many; a class with a single group is in train only, which
is told. More pictures may shift the shares and with them old pictures, unless those come
with their split: in a manifest, or as `previous`.
"""

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliplab.data.folders import lacked
from cliplab.data.near_duplicates import near_pairs
from cliplab.data.samples import SPLITS, Places, Problem, Sample, problems_of, some
from cliplab.data.samples import ProblemKind as Kind
from cliplab.runtime import unknown_name

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
_PREFERENCE = ("train", "test", "val")  # who comes first when a class is short of groups


@dataclass(frozen=True)
class _Group:
    """Photos that stay together."""

    members: tuple[int, ...]
    counts: Counter[str | None]  # samples of each class
    order: str  # hash of seed and name


def deal(
    samples: Sequence[Sample],
    fractions: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    near_duplicates: bool = True,
    previous: Iterable[Sample] = (),
) -> tuple[Sequence[Sample], tuple[Problem, ...]]:
    """See `SampleSet.with_splits`: the samples with their splits, and what is to be said."""
    shares = _checked(FRACTIONS if fractions is None else fractions)
    before: dict[Path, str | None] = {}
    for one in previous:
        before.setdefault(one.path.absolute(), one.split)
    fixed = [one.split or before.get(one.path.absolute()) for one in samples]
    if None not in fixed:
        return list(map(_with_split, samples, fixed)), ()
    problems: Places = defaultdict(list)
    groups = _groups(samples, seed, near_duplicates, problems)
    given = [_given(group, fixed, samples, problems) for group in groups]
    chosen = _repaired(_greedy(groups, given, shares), groups, given, list(shares))
    _check_all_filled(chosen, groups, shares, samples)
    splits = list(fixed)
    for group, split in zip(groups, chosen, strict=True):
        for i in group.members:
            splits[i] = fixed[i] or split
    dealt = list(map(_with_split, samples, splits))
    if missing := lacked(dealt):
        problems[Kind.LACKED].extend(missing)
    return dealt, problems_of(problems)


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


def _with_split(sample: Sample, split: str | None) -> Sample:
    return sample if sample.split == split else replace(sample, split=split)


# ---- groups --------------------------------------------------------------------------------


def _groups(
    samples: Sequence[Sample], seed: int, near_duplicates: bool, problems: Places
) -> list[_Group]:
    """Photos that belong together, in the order in which they are dealt."""
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(range(len(samples)))
    first: dict[str, int] = {}
    for i, one in enumerate(samples):
        key = f"file {one.path.absolute()}" if one.group is None else f"group {one.group}"
        together.merge(first.setdefault(key, i), i)
    for i, j in near_pairs(samples) if near_duplicates else ():
        if together.merge(i, j):
            problems[Kind.NEAR_DUPLICATE].append(f"{samples[i].name} = {samples[j].name}")
    groups = [_group(sorted(indices), samples, seed) for indices in together.subsets()]
    return sorted(groups, key=lambda group: (-len(group.members), group.order))


def _group(indices: Sequence[int], samples: Sequence[Sample], seed: int) -> _Group:
    names = {samples[i].group or _file_name(samples[i]) for i in indices}
    order = min(hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest() for name in names)
    return _Group(tuple(indices), Counter(samples[i].label for i in indices), order)


def _file_name(sample: Sample) -> str:
    """The name without the number of a box, as composed characters: macOS stores them apart."""
    name = re.sub(r"#\d+$", "", sample.name) if sample.box_xyxy else sample.name
    return unicodedata.normalize("NFC", name)


# ---- dealing -------------------------------------------------------------------------------


def _given(
    group: _Group, fixed: Sequence[str | None], samples: Sequence[Sample], problems: Places
) -> str | None:
    """The split that a group must join, since some of its samples are there already."""
    there = {fixed[i]: samples[i].name for i in group.members if fixed[i]}
    if len(there) > 1:
        places = (f"{name} ({split})" for split, name in there.items())
        problems[Kind.STRADDLING].append(" = ".join(places))
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
    chosen: Sequence[str],
    groups: Sequence[_Group],
    shares: Mapping[str, float],
    samples: Sequence[Sample],
) -> None:
    """Refuse splits without a sample.

    Raises:
        ValueError: there are too few groups.
    """
    empty = [split for split in shares if split not in chosen]
    if not empty:
        return
    largest = some((samples[i].name for i in groups[0].members), 4)
    raise ValueError(
        f"nothing left for {' and '.join(empty)}: {len(samples)} pictures are "
        f"{len(groups)} groups (same group or file, or near-duplicates), the largest has "
        f"{len(groups[0].members)}: {largest}; add pictures, or ask for fewer splits"
    )
