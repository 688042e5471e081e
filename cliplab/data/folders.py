"""Folders of pictures: a sub-folder is a class, and train/, val/ and test/ are fixed splits."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cliplab.data.files import image_names, printable, shown
from cliplab.data.photo_set import SPLITS, Photo, PhotoSet
from cliplab.data.remarks import Remarks, some

# What people call the three splits.
SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training", "训练", "训练集")},
    **{name: "val" for name in ("val", "valid", "validation", "dev", "验证", "验证集")},
    **{name: "test" for name in ("test", "testing", "测试", "测试集")},
}


def read_unlabelled(folder: str | Path) -> PhotoSet:
    """Every picture below `folder`, whatever its sub-folders are called, without labels.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: as `list_images`.
    """
    root = Path(folder)
    return PhotoSet.of((Photo(root / n, name=printable(n)) for n in image_names(root)), root)


def read_folder(folder: str | Path) -> PhotoSet:
    """Pictures of a folder, labelled by the sub-folder they lie in.

    Pictures of `sheep/`, and of folders below it, are labelled "sheep". If the sub-folders are
    train, val (valid, validation) and test, they are the splits and theirs are the classes.
    Pictures without any sub-folder have no label.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no pictures, or pictures both beside and in class folders.
    """
    root, remarks = Path(folder), Remarks()
    names = image_names(root)
    splits = _split_folders(names, root)
    rows = [_row(name, splits) for name in names]
    for part in {split for _, split, _ in rows}:
        inside = [(name, label) for name, split, label in rows if split == part]
        _refuse_mixture(inside, root, part or "")
    photos = [
        Photo(root / name, label, None, None, split, printable(name)) for name, split, label in rows
    ]
    _remark_on_folders(root, splits, photos, remarks)
    remark_on_classes(photos, remarks)
    return PhotoSet.of(photos, root, remarks.sentences())


def split_of(name: str) -> str | None:
    """The split that a folder or a cell names, None if it names none."""
    return SPLIT_NAMES.get(name.strip().casefold())


def plain(text: str) -> str:
    """Text of a label as it is compared: composed characters (macOS stores them apart), trimmed."""
    return unicodedata.normalize("NFC", printable(text)).strip()


def _split_folders(names: list[str], root: Path) -> dict[str, str]:
    """Folder -> split, if the folders at the top are splits; {} if they are classes.

    Raises:
        ValueError: some are called like splits, others are not.
    """
    tops = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    found = {top: split for top in tops if (split := split_of(top))}
    others = [top for top in tops if top not in found]
    if found and not others:
        return found
    if len(set(found.values())) > 1:
        raise ValueError(
            f"{shown(root)}: got the splits {some(found)} beside other folders ({some(others)}); "
            "expected either splits with class folders in them, or class folders: move or rename"
        )
    return {}  # one class may well be called "train"


def _row(name: str, splits: dict[str, str]) -> tuple[str, str | None, str | None]:
    """(name, split, label) of a picture."""
    folders = name.split("/")[:-1]
    split = splits[folders.pop(0)] if splits and folders else None
    return name, split, plain(folders[0]) if folders else None


def _refuse_mixture(inside: list[tuple[str, str | None]], root: Path, part: str) -> None:
    loose = [name for name, label in inside if label is None]
    if loose and len(loose) < len(inside):
        classes = dict.fromkeys(label for _, label in inside if label is not None)
        raise ValueError(
            f"{shown(root / part)}: {len(loose)} pictures ({some(map(shown, loose))}) lie beside "
            f"the class folders {some(classes)}; expected all pictures in class folders, or none: "
            "move them, or use read_unlabelled() to ignore the folders"
        )


def _remark_on_folders(
    root: Path, splits: dict[str, str], photos: list[Photo], remarks: Remarks
) -> None:
    used = {tuple(photo.name.split("/")[:-1]) for photo in photos}
    tops = {names[:depth] for names in used for depth in range(1, len(names) + 1)}
    for base in [(), *((top,) for top in splits)]:
        for path in sorted(root.joinpath(*base).iterdir()):
            hidden = path.name.startswith((".", "@"))
            if path.is_dir() and not hidden and (*base, shown(path.name)) not in tops:
                remarks.add("folders without pictures", shown(path.relative_to(root)))


def remark_on_classes(photos: Iterable[Photo], remarks: Remarks) -> None:
    """Note classes that are likely mistakes, too small, or missing from a split."""
    photos = list(photos)
    counts = Counter(photo.label for photo in photos if photo.label is not None)
    if counts and (missing := len(photos) - counts.total()):
        remarks.add(f"pictures without a label: {missing} of {len(photos)}")
    if len(counts) == 1:
        remarks.add(f"all labelled pictures are {next(iter(counts))!r}: nothing to tell apart")
    for name in sorted(name for name, count in counts.items() if count == 1):
        remarks.add("classes with a single picture, which only one split can have", name)
    folded = Counter(name.casefold() for name in counts)
    for name in sorted(name for name in counts if folded[name.casefold()] > 1):
        remarks.add("classes that differ only in upper and lower case", name)
    remark_on_splits(photos, remarks)


def remark_on_splits(photos: Iterable[Photo], remarks: Remarks) -> None:
    """Note classes that a split lacks, so that it says nothing about them."""
    present = {(photo.label, photo.split) for photo in photos if photo.label is not None}
    splits = [split for split in SPLITS if any(part == split for _, part in present)]
    for label in sorted({label for label, _ in present if label is not None}):
        absent = [split for split in splits if (label, split) not in present]
        if absent:
            remarks.add("classes that a split lacks", f"{label} ({', '.join(absent)})")
