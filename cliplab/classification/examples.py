"""Labelled photos to learn from, kept apart from those that are judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliplab.data import Sample, SampleSet, shown
from cliplab.runtime import sha256

FIT_PARTS = {"train": 0.75, "val": 0.25}  # of examples that are not judged themselves


@dataclass(frozen=True)
class Division:
    """Photos to judge, to fit on and to tune on; no file is in two of them."""

    judged: SampleSet
    train: SampleSet
    val: SampleSet  # may be empty
    notes: tuple[str, ...] = ()  # how they were told apart


def divide(examples: SampleSet, judged: SampleSet | None = None, *, seed: int = 0) -> Division:
    """Examples as train and val, beside what is judged by what is learned from them.

    Splits that the examples have are used; without them some are made, groups and near-duplicates
    together.

    Args:
        examples: photos of which those with a label count.
        judged: other photos; None: the test part of the examples.
        seed: of splits that are made.

    Raises:
        ValueError: no label, nothing to fit on, nothing to judge, or judged photos that are also
            among the examples.
    """
    own, where = judged is None, shown(examples.root)
    labelled = tuple(photo for photo in examples if photo.label is not None)
    if not labelled:
        raise ValueError(
            f"{where}: examples without classes; expected one sub-folder per class, a label column "
            "or categories"
        )
    whole = replace(examples, samples=labelled)
    how = "as the source gives them"
    if any(photo.split is None for photo in whole):
        whole = whole.with_splits(None if own else FIT_PARTS, seed=seed)
        how = f"made with seed {seed}"
    train, val = whole.select("train"), whole.select("val")
    parts = ", ".join(f"{name} {count}" for name, count in whole.splits.items())
    notes = [f"splits of {where} {how}: {parts}"]
    if judged is None:
        judged = whole.select("test")
        notes.append(f"{where} is judged by its {len(judged)} test photos only")
    for name, part in (("train", train), ("test", judged)):
        if not len(part):
            raise ValueError(f"{where}: no photo is in {name}; expected some")
    return _keep_apart(Division(judged, train, val, tuple(notes)), own=own)


def check_classes(division: Division, class_names: Sequence[str]) -> None:
    """Refuse a class that no example shows.

    Raises:
        ValueError: the class, and those that there are.
    """
    present = {photo.label for photo in division.train}
    for name in class_names:
        if name not in present:
            there = ", ".join(sorted(map(str, present)))
            raise ValueError(
                f"no example of {name!r} to fit on, only of {there}; add some, or drop the class"
            )


def _keep_apart(division: Division, *, own: bool) -> Division:
    """No file on two sides: copies in splits of one source are left out, others are refused."""
    copies = twins(division.val, division.train)
    val = _without(division.val, copies)
    found = twins(division.judged, (*division.train, *val))
    if found and not own:
        raise ValueError(
            f"{len(found)} of the {len(division.judged)} photos to classify are among the "
            f"examples, first {_first(found)}; accuracy on what was learned says nothing: remove "
            "them from either, or give the examples as what is to be classified, too, and their "
            "test part is judged"
        )
    judged, notes = _without(division.judged, found), list(division.notes)
    for part, some in (("val", copies), ("test", found)):
        if some:
            notes.append(
                f"{len(some)} {part} photos left out, being copies of examples: first "
                f"{_first(some)}"
            )
    return replace(division, judged=judged, val=val, notes=tuple(notes))


def twins(judged: Iterable[Sample], learned: Iterable[Sample]) -> dict[str, str]:
    """Names of judged photos whose file is also among `learned`, whatever it is called there."""
    by_size: dict[int, dict[Path, str]] = defaultdict(dict)
    for photo in learned:
        if photo.path.is_file():
            by_size[photo.path.stat().st_size][photo.path] = photo.name
    hashes: dict[int, dict[str, str]] = {}  # made only for sizes that occur on both sides
    by_path: dict[Path, str | None] = {}  # many boxes may share a file
    for photo in judged:
        path = photo.path
        size = path.stat().st_size if path.is_file() else -1
        if path in by_path or size not in by_size:
            continue
        if size not in hashes:
            hashes[size] = {sha256(p): n for p, n in by_size[size].items()}
        by_path[path] = hashes[size].get(sha256(path))
    return {p.name: twin for p in judged if (twin := by_path.get(p.path))}


def _first(found: Mapping[str, str]) -> str:
    return "{} (= {})".format(*next(iter(found.items())))


def _without(photos: SampleSet, names: Container[str]) -> SampleSet:
    return replace(photos, samples=tuple(photo for photo in photos if photo.name not in names))
