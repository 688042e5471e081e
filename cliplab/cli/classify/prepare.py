"""What is to be done: which photos, which classes, which examples to learn from."""

import argparse
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliplab.classification.labels import Classes, fold, resolve_classes
from cliplab.data import Photo, PhotoSet, read_photos, read_unlabelled, shown
from cliplab.runtime import sha256, unknown_name

FIT_PARTS = {"train": 0.75, "val": 0.25}  # of examples that are not judged themselves


MISSING = "pictures that are missing"  # how such a problem begins


@dataclass(frozen=True)
class Examples:
    """Labelled photos to learn from; `val` may be empty."""

    train: PhotoSet
    val: PhotoSet


@dataclass(frozen=True)
class Task:
    """Photos to answer for, and what is known before any of them is opened."""

    photos: PhotoSet
    classes: Classes
    true: tuple[int | None, ...]  # one class index per photo
    examples: Examples | None = None
    notes: tuple[str, ...] = ()  # what was assumed, for the user to check

    @property
    def problems(self) -> tuple[str, ...]:
        """What was clipped or skipped, in the source and in other examples."""
        sets = [self.photos, *([self.examples.train] if self.examples else [])]
        return tuple(dict.fromkeys(problem for one in sets for problem in one.problems))

    @property
    def lacks_pictures(self) -> bool:
        """Whether the source names pictures that are not there."""
        return any(problem.startswith(MISSING) for problem in self.problems)


def prepare(args: argparse.Namespace, known_classes: Sequence[str] | None = None) -> Task:
    """Read the source and the examples that the arguments name.

    Args:
        args: of the command.
        known_classes: of a fitted classifier; nothing is left to choose then.

    Raises:
        ValueError, OSError: a source that cannot be read, has no photos, or does not fit.
    """
    source = _read(args, args.source)
    examples, notes = None, list[str]()
    if args.examples:
        source, examples, notes = _split_off(args, source)
        source, examples, copies = _keep_apart(source, examples, same=_is_same(args))
        notes += copies
    elif args.split:
        source = _part(source, args.split)
    if not len(source):
        raise ValueError(f"{shown(args.source)}: no photos left to classify; expected at least one")
    if known_classes is not None:
        classes = Classes(tuple(known_classes), tuple(known_classes))
    else:
        classes = resolve_classes(args.labels, (examples.train if examples else source).class_names)
    if examples:
        _check_every_class(classes, examples)
    learned = bool(examples) or known_classes is not None
    true = true_classes(source, classes, learned=learned)
    notes += [classes.note] if classes.note else []
    return Task(source, classes, true, examples, tuple(notes))


def _read(args: argparse.Namespace, where: Path) -> PhotoSet:
    """Photos at `where`; --kind, --images and --boxes are about SOURCE only."""
    own = where == args.source
    options = {"kind": args.kind, "images": args.images, "boxes": args.boxes} if own else {}
    if own and args.unlabelled and where.is_dir() and args.kind == "auto" and not args.boxes:
        return read_unlabelled(where)
    try:
        photos = read_photos(where, box_scale=args.box_scale if own else 1.0, **options)
        if not own and args.box_scale != 1 and any(photo.box_xyxy for photo in photos):
            photos = read_photos(where, box_scale=args.box_scale)  # as the photos they are for
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error
    if own and args.unlabelled:
        bare = tuple(replace(photo, label=None) for photo in photos)
        return replace(photos, photos=bare, class_names=())
    return photos


def _part(source: PhotoSet, split: str) -> PhotoSet:
    try:
        return source.select(split)
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error


def as_options(message: str) -> str:
    """A message of `read_photos` in the words of the command line."""
    for ours, theirs in (
        ("use read_unlabelled()", "pass --unlabelled"),
        ("call with_splits()", "leave out --split"),
        ("box_scale:", "--box-scale:"),
        *((f"{name}=", f"--{name} ") for name in ("kind", "images", "boxes")),
    ):
        message = message.replace(ours, theirs)
    return message.replace(" , ", ", ")


# ---- examples ------------------------------------------------------------------------------


def _split_off(args: argparse.Namespace, source: PhotoSet) -> tuple[PhotoSet, Examples, list[str]]:
    """What is judged, what is learned from, and how they were told apart."""
    if not args.examples.exists():
        raise FileNotFoundError(f"{shown(args.examples)}: no such examples; check the name")
    same = _is_same(args)
    whole = _labelled(source if same else _read(args, args.examples), args.examples)
    made = any(photo.split is None for photo in whole)
    if made:
        whole = whole.with_splits(None if same else FIT_PARTS, seed=args.seed)
    parts = ", ".join(f"{name} {count}" for name, count in whole.splits.items())
    how = f"made with seed {args.seed}" if made else "as the source gives them"
    notes = [f"splits of {shown(args.examples)} {how}: {parts}"]
    if not whole.splits.get("train"):
        raise ValueError(f"{shown(args.examples)}: no photo is in train; expected some to fit on")
    if not same:
        judged = _part(source, args.split) if args.split else source
    elif args.split in (None, "test"):
        judged = whole.select("test")
        if not len(judged):
            raise ValueError(f"{shown(args.source)}: no photo is in test; expected some to judge")
        notes.append(f"{shown(args.source)} is judged by its {len(judged)} test photos only")
    else:
        raise ValueError(
            f"--split: got {args.split!r}; expected test, since the classifier is fitted on the "
            "others of the same source"
        )
    return judged, Examples(whole.select("train"), whole.select("val")), notes


def _is_same(args: argparse.Namespace) -> bool:
    return bool(args.examples.resolve() == args.source.resolve())


def _labelled(photos: PhotoSet, where: Path) -> PhotoSet:
    kept = tuple(photo for photo in photos if photo.label is not None)
    if not kept:
        raise ValueError(
            f"{shown(where)}: examples without classes; expected one sub-folder per class, a label "
            "column or categories"
        )
    return replace(photos, photos=kept)


def _check_every_class(classes: Classes, examples: Examples) -> None:
    present = {photo.label for photo in examples.train}
    for name in classes.names:
        if name not in present:
            there = ", ".join(sorted(map(str, present)))
            raise ValueError(
                f"no example of {name!r} to fit on, only of {there}; add some, or drop the class"
            )


def twins(judged: Iterable[Photo], learned: Iterable[Photo]) -> dict[str, str]:
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


def _keep_apart(
    source: PhotoSet, examples: Examples, *, same: bool
) -> tuple[PhotoSet, Examples, list[str]]:
    """No file on two sides: copies in splits of one source are left out, others are refused."""
    copies = twins(examples.val, examples.train)
    examples = replace(examples, val=_without(examples.val, copies))
    found = twins(source, (*examples.train, *examples.val))
    if found and not same:
        raise ValueError(
            f"{len(found)} of the {len(source)} photos to classify are among the examples, first "
            f"{_first(found)}; accuracy on what was learned says nothing: remove them from either, "
            "or give one source as both SOURCE and --examples, and its test part is judged"
        )
    notes = [
        f"{len(some)} {part} photos left out, being copies of examples: first {_first(some)}"
        for part, some in (("val", copies), ("test", found))
        if some
    ]
    return _without(source, found), examples, notes


def _first(found: Mapping[str, str]) -> str:
    return "{} (= {})".format(*next(iter(found.items())))


def _without(photos: PhotoSet, names: Container[str]) -> PhotoSet:
    return replace(photos, photos=tuple(photo for photo in photos if photo.name not in names))


# ---- truth ---------------------------------------------------------------------------------


def true_classes(photos: PhotoSet, classes: Classes, *, learned: bool) -> tuple[int | None, ...]:
    """Class index of each photo, None where it is not labelled.

    Raises:
        ValueError: a label that is none of the classes.
    """
    index = {fold(name): k for k, name in enumerate(classes.names)}
    for name in sorted({photo.label for photo in photos if photo.label is not None}):
        if fold(name) not in index:
            where = "the examples" if learned else "the labels"
            raise ValueError(
                f"{shown(photos.root)}: {unknown_name('class', name, classes.names)}; expected the "
                f"classes of {where}: rename it, or pass --unlabelled"
            )
    return tuple(None if p.label is None else index[fold(p.label)] for p in photos)
