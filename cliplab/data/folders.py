"""Folders of pictures: a sub-folder is a class, and train/, val/ and test/ are fixed splits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cliplab.data.files import image_names, is_hidden, printable, shown
from cliplab.data.reading import Reading
from cliplab.data.samples import SPLITS, Places, Sample, plain, some, split_of
from cliplab.data.samples import ProblemKind as Kind


def read_folder(root: Path) -> Reading:
    """Pictures of a folder, labelled by the sub-folder they lie in.

    Pictures of `sheep/`, and of folders below it, are labelled "sheep". If the sub-folders are
    train, val (valid, validation) and test, they are the splits and theirs are the classes.
    Pictures without any sub-folder have no label.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no pictures, or pictures both beside and in class folders.
    """
    reading, names = Reading(root), image_names(root)
    splits = _split_folders(names, root)
    for name in names:
        folders = name.split("/")[:-1]
        split = splits[folders.pop(0)] if splits and folders else None
        label = plain(folders[0]) if folders else None
        reading.samples.append(Sample(root / name, label, split=split, name=printable(name)))
    _refuse_mixture(reading)
    used = {"/".join(name.split("/")[:n]) for name in names for n in range(1, name.count("/") + 1)}
    for base in (root, *(root / name for name in splits)):
        for path in sorted(path for path in base.iterdir() if path.is_dir()):
            if path.relative_to(root).as_posix() not in used and not is_hidden(path.name):
                reading.problems[Kind.EMPTY_FOLDER].append(shown(path.relative_to(root)))
    return reading


def _split_folders(names: Iterable[str], root: Path) -> dict[str, str]:
    """Folder -> split, if the folders at the top are splits; {} if they are classes.

    Raises:
        ValueError: some are called like splits, others are not.
    """
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


def tell_of_classes(samples: Sequence[Sample], problems: Places) -> None:
    """Note classes that are likely mistakes, too small, or missing from a split."""
    counts = Counter(sample.label for sample in samples if sample.label is not None)
    folded = Counter(name.casefold() for name in counts)
    found = {
        Kind.UNLABELLED: [s.name for s in samples if s.label is None] if counts else [],
        Kind.ONE_CLASS: list(counts) if len(counts) == 1 else [],
        Kind.SINGLE: sorted(name for name, count in counts.items() if count == 1),
        Kind.SAME_LETTERS: sorted(name for name in counts if folded[name.casefold()] > 1),
        Kind.LACKED: lacked(samples),
    }
    for kind, names in found.items():
        if names:
            problems[kind].extend(names)


def lacked(samples: Iterable[Sample]) -> list[str]:
    """Classes that a split lacks, so that it says nothing about them."""
    present = {(sample.label, sample.split) for sample in samples if sample.label is not None}
    splits = [split for split in SPLITS if any(part == split for _, part in present)]
    found = []
    for label in sorted({label for label, _ in present if label is not None}):
        absent = [split for split in splits if (label, split) not in present]
        if absent:
            found.append(f"{label} ({', '.join(absent)})")
    return found
