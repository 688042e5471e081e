"""ImageNet's validation pictures on disk: which files there are, and the class of each."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliplab.classification.imagenet.labels import NAMES, find_list, flat_labels
from cliplab.data import SUFFIXES, shown

_WNID = re.compile(r"n\d{8}")
_LAYOUT = (
    "DIR/{split}/n01440764/*.JPEG (one folder per WordNet id), DIR/0 ... DIR/999 (ImageNetV2), or "
    "all files in DIR/{split} and the list of their labels beside it"
)


@dataclass(frozen=True)
class ValidationSet:
    """N pictures with their class, sorted by class and name; nothing is opened to find them."""

    root: Path
    files: tuple[str, ...]  # relative to root, with /
    sizes: tuple[int, ...]  # bytes
    labels: tuple[int, ...]  # class index, 0 to K - 1
    notes: tuple[str, ...] = ()  # what differs from the whole set

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """Where picture `index` lies."""
        return self.root / self.files[index]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of names, sizes and labels: alike on every machine with the same set."""
        rows = list(zip(self.files, self.sizes, self.labels, strict=True))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def spread(self, limit: int | None) -> "ValidationSet":
        """At most `limit` pictures, evenly spread, so that every class keeps its share.

        Raises:
            ValueError: a limit below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise ValueError(f"limit: got {limit}; expected 1 or more images")
        kept = [i * len(self) // limit for i in range(limit)]
        return replace(
            self,
            files=tuple(self.files[i] for i in kept),
            sizes=tuple(self.sizes[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
            notes=(*self.notes, f"{limit:,} of {len(self):,} images, evenly spread"),
        )


def read_validation(
    data: Path, wnids: Sequence[str], *, split: str = "val", label_list: Path | None = None
) -> ValidationSet:
    """The pictures below `data`, in whichever of the usual layouts they lie.

    Args:
        data: the folder above the split, or the split itself.
        wnids: WordNet ids in the order of the class index.
        split: name of the folder below `data`.
        label_list: of a flat folder; default one of the usual lists beside it.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no pictures, a folder of no known class, or no labels.
    """
    root = _root(data, split)
    folders = sorted(entry.name for entry in _visible(root) if entry.is_dir())
    classes = {wnid: i for i, wnid in enumerate(wnids)}
    kind = "wnid"
    if folders and all(name.isdigit() for name in folders):
        classes, kind = {str(i): i for i in range(len(wnids))}, "index"
    images = _images(root, "")
    if images and not any(name in classes for name in folders):
        found = _flat(root, data, images, wnids, label_list)
    elif label_list is not None:
        raise ValueError(f"{shown(root)}: sorted by class already; leave out the list of labels")
    else:
        found = _sorted_by_class(root, folders, classes)
    if not found.files:
        expected = _LAYOUT.format(split=split)
        raise ValueError(f"{shown(root)}: no images of ImageNet; expected {expected}")
    return replace(found, notes=(*found.notes, *_notes(found, len(wnids), kind)))


def _root(data: Path, split: str) -> Path:
    if not data.exists():
        raise FileNotFoundError(f"{shown(data)}: no such folder; expected ImageNet's")
    if not data.is_dir():
        raise NotADirectoryError(f"{shown(data)}: a file; expected the folder of the images")
    for place in (data / split, data / "ILSVRC" / "Data" / "CLS-LOC" / split):
        if place.is_dir():
            return place
    inside = [entry.name for entry in _visible(data)]
    if any(_WNID.fullmatch(name) or name.isdigit() for name in inside) or _images(data, ""):
        return data
    raise FileNotFoundError(
        f"{shown(data)}: no folder {split!r} in it and no classes either; expected "
        + _LAYOUT.format(split=split)
    )


def _visible(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _images(root: Path, folder: str) -> list[tuple[str, int]]:
    """Names relative to root, and sizes, of the image files directly in one folder."""
    return sorted(
        (f"{folder}/{entry.name}" if folder else entry.name, entry.stat().st_size)
        for entry in _visible(root / folder)
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file()
    )


def _sorted_by_class(root: Path, folders: Sequence[str], classes: dict[str, int]) -> ValidationSet:
    unknown = [name for name in folders if name not in classes]
    if unknown:
        raise ValueError(
            f"{shown(root / unknown[0])}: {len(unknown)} of {len(folders)} folders are no class of "
            "ImageNet's 1,000; expected WordNet ids such as n01440764, or 0 to 999: move the others"
        )
    found = sorted(
        (classes[folder], name, size) for folder in folders for name, size in _images(root, folder)
    )
    labels, files, sizes = zip(*found, strict=True) if found else ((), (), ())
    empty = sorted(set(folders) - {name.partition("/")[0] for name in files})
    notes = (f"{len(empty)} class folders hold no image: {', '.join(empty[:5])}",) if empty else ()
    return ValidationSet(root, files, sizes, labels, notes)


def _flat(
    root: Path,
    data: Path,
    images: Sequence[tuple[str, int]],
    wnids: Sequence[str],
    label_list: Path | None,
) -> ValidationSet:
    label_list = label_list or find_list(root, data, root.parent, data.parent)
    if label_list is None:
        raise ValueError(
            f"{shown(root)}: {len(images)} images, but no class folders and no list of labels; "
            f"expected one of {', '.join(NAMES)} beside them, or the list itself"
        )
    names = [name for name, _ in images]
    labels = flat_labels(label_list, names, wnids)
    rows = sorted((label, *image) for label, image in zip(labels, images, strict=True))
    ordered, files, sizes = zip(*rows, strict=True)
    return ValidationSet(root, files, sizes, ordered)


def _notes(found: ValidationSet, classes: int, kind: str) -> Iterator[str]:
    present = len(set(found.labels))
    if present < classes:
        yield (f"pictures of {present:,} classes only, judged among all {classes:,}")
    whole = {"wnid": 50_000, "index": 10_000}[kind]
    if present == classes and len(found) != whole:
        yield f"{len(found):,} images, where the whole set has {whole:,}"
