"""CSV manifests: one row for each picture or box, with label, group and split."""

import csv
import os
from pathlib import Path

from cliplab.data.boxes import Boxed, Headers, check_scale, crops_of, find_file
from cliplab.data.files import printable, shown
from cliplab.data.folders import remark_on_classes
from cliplab.data.photo_set import Box, Photo, PhotoSet
from cliplab.data.remarks import Remarks, some
from cliplab.data.tables import COLUMNS, Row, read_rows
from cliplab.runtime import atomic_write


def read_csv(
    source: str | Path, *, images: str | Path | None = None, box_scale: float = 1.0
) -> PhotoSet:
    """Photos of a CSV file with the columns image, label, group, split, x1, y1, x2, y2.

    Only `image` must be there: a path relative to `images`, by default the file's folder. Boxes
    are pixels of the upright picture, half-open. Further columns are ignored.

    Raises:
        FileNotFoundError: no such file, or none of its pictures exists.
        ValueError: it is not a table, has no column for pictures, or a row contradicts the
            header or another row; with the line.
    """
    source, remarks = Path(source), Remarks()
    root = Path(images) if images is not None else source.parent
    check_scale(box_scale)
    rows = list(read_rows(source, remarks))
    if not rows:
        raise ValueError(f"{shown(source)}: no rows below the header; expected a picture on each")
    rows = _without_repeats(rows, root, source, remarks)
    paths = _existing(rows, root, source, remarks)
    boxes = [
        Boxed(path, _named(row.image, root), row.label, row.box_xyxy, row.group, row.split)
        for row in rows
        if (path := paths.get(row.image))
    ]
    photos = crops_of(boxes, Headers(remarks), remarks, box_scale=box_scale)
    if not photos:
        raise ValueError(f"{shown(source)}: no picture left; {'; '.join(remarks.sentences())}")
    remark_on_classes(photos, remarks)
    return PhotoSet.of(photos, root, remarks.sentences())


# ---- rows among each other -----------------------------------------------------------------


def _without_repeats(rows: list[Row], root: Path, source: Path, remarks: Remarks) -> list[Row]:
    """Each picture or box once.

    Raises:
        ValueError: two rows about the same one contradict each other.
    """
    first: dict[tuple[str, Box | None], Row] = {}
    for row in rows:
        before = first.setdefault((_named(row.image, root), row.box_xyxy), row)
        if before is row:
            continue
        for field in ("label", "group", "split"):
            old, new = getattr(before, field), getattr(row, field)
            if old != new:
                raise ValueError(
                    f"{shown(source)}: {shown(row.image)} has {field} {old!r} in line "
                    f"{before.line} and {new!r} in line {row.line}; keep one"
                )
        remarks.add("rows that repeat another, kept once", f"line {row.line}")
    return list(first.values())


def _existing(rows: list[Row], root: Path, source: Path, remarks: Remarks) -> dict[str, Path]:
    """Where each picture lies; missing ones are remarked on.

    Raises:
        FileNotFoundError: all are missing.
    """
    paths: dict[str, Path] = {}
    missing: list[str] = []
    for row in rows:
        if row.image in paths:
            continue
        if found := find_file(root, row.image):
            paths[row.image] = found
        else:
            missing.append(f"{shown(row.image)} (line {row.line})")
    if not paths:
        raise FileNotFoundError(
            f"{shown(source)}: none of its {len(missing)} pictures is in {shown(root)}, such as "
            f"{some(missing)}; paths are relative to the table, or to images="
        )
    if missing:
        remarks.add("pictures that are missing, left out", *missing)
    return paths


def _named(image: str, root: Path) -> str:
    """A row's path, relative to the root if it lies in it."""
    name = os.path.normpath(image.replace("\\", "/"))
    if os.path.isabs(name) and Path(name).is_relative_to(root.absolute()):
        name = str(Path(name).relative_to(root.absolute()))
    return name.replace(os.sep, "/")


# ---- writing -------------------------------------------------------------------------------


def write_csv(photos: PhotoSet, target: str | Path, *, force: bool = False) -> Path:
    """Write photos as a table that `read_csv` reads back as the same set.

    Paths are relative to the table, so that folder and table can move together; pictures on
    another drive keep their absolute path. Boxes are written as they are, already enlarged.

    Raises:
        FileExistsError: the file is there already and `force` is not given.
        ValueError: a path that is not text.
    """
    target = Path(target)
    if target.exists() and not force:
        raise FileExistsError(f"{shown(target)}: exists already; choose another or give force=True")
    has_boxes = any(photo.box_xyxy for photo in photos)
    columns = COLUMNS if has_boxes else COLUMNS[:4]
    rows = [_cells(photo, target.parent)[: len(columns)] for photo in photos]
    with atomic_write(target, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return target


def _cells(photo: Photo, folder: Path) -> list[str]:
    path = _relative(photo.path, folder)
    if printable(path) != path:
        raise ValueError(f"{photo.name}: its path is not text in UTF-8; rename the file")
    edges = ["" for _ in range(4)] if photo.box_xyxy is None else map(_number, photo.box_xyxy)
    return [path, photo.label or "", photo.group or "", photo.split or "", *edges]


def _relative(path: Path, folder: Path) -> str:
    """Path from `folder`, with /."""
    text, start = str(path), os.path.join(folder, "")
    if text.startswith(start):  # nearly always, and os.path.relpath is slow
        return text[len(start) :].replace(os.sep, "/")
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows: on another drive
        return path.absolute().as_posix()


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")
