"""COCO JSON: pictures, boxes, masks and categories in one file.

Boxes are pixels of the picture whose width and height the file names. Where that is the picture
as stored, and EXIF turns it on its side, the boxes are turned with it; where it is a smaller or
larger copy of the same shape, they are scaled. Both are told.
"""

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliplab.data.files import shown
from cliplab.data.masks import Masks
from cliplab.data.reading import Reading, find_file, to_upright
from cliplab.data.samples import Box, plain, some, split_of
from cliplab.data.samples import ProblemKind as Kind

_LISTS = ("images", "annotations", "categories")
Table = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class _Picture:
    """One entry of `images`, found on disk."""

    name: str
    path: Path
    size: tuple[int, int] | None  # (width, height) that the boxes refer to, if the file says so
    split: str | None


_Pictures = Mapping[Any, _Picture | None]  # by id; None where the file is missing


def read_coco(paths: Sequence[Path], images: Path | None, box_scale: float) -> Reading:
    """Pictures, boxes and masks of one COCO file, or of several whose names tell their splits.

    Args:
        paths: the JSON; of several, `train`, `val` and `test` in the name are the splits.
        images: folder that the file names are relative to; by default searched near the JSON.
        box_scale: enlarges every box about its centre, then clips it to the picture.

    Raises:
        FileNotFoundError: no such file, or none of its pictures is there.
        ValueError: not JSON, not COCO, unknown categories, or an id twice.
    """
    tables = [load(path) for path in paths]
    roots = [_root_of(t, p, images) for t, p in zip(tables, paths, strict=True)]
    root = roots[0] if len(set(roots)) == 1 else Path(os.path.commonpath(map(Path.absolute, roots)))
    reading = Reading(root, box_scale)
    used: set[str] = set()
    for path, table, folder in zip(paths, tables, roots, strict=True):
        split = split_in(path) if len(paths) > 1 else None
        pictures = _listed(table, path, folder, split, reading)
        names = _category_names(table, path)
        _add_boxes(table, pictures, names, reading)
        used |= _add_masks(table, pictures, names, reading)
        reading.are_answers |= any("score" in one for one in table["annotations"])
    known = tuple(sorted(used))
    reading.masks = {path: replace(m, names=known) for path, m in reading.masks.items() if known}
    return reading


def split_in(path: Path) -> str | None:
    """The split that a name such as instances_val2017.json or train/_annotations.json tells."""
    for text in (path.stem, path.parent.name):
        words = re.findall(r"[^\W\d_]+", text)
        if len(found := {split for word in words if (split := split_of(word))}) == 1:
            return found.pop()
    return None


# ---- the file ------------------------------------------------------------------------------


def load(path: Path) -> Table:
    """The three lists of a COCO file.

    Raises:
        ValueError: not JSON, or JSON of another kind.
    """
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: not JSON ({error}); export it again as COCO") from error
    lists = found if isinstance(found, dict) else {}
    for name in _LISTS:
        if not isinstance(lists.get(name), list) or not all(
            isinstance(x, dict) for x in lists[name]
        ):
            has = some(map(repr, lists), 6) or type(found).__name__
            results = isinstance(found, list) and found and "image_id" in found[0]
            raise ValueError(
                f"{shown(path)}: got {has}; expected COCO's object with the lists "
                f"{', '.join(_LISTS)}, all of objects"
                + (": these are detections, not the file they were made for" if results else "")
            )
    return lists


def _root_of(table: Table, path: Path, images: Path | None) -> Path:
    """The folder in which most of the pictures are.

    Raises:
        FileNotFoundError: none is anywhere near.
    """
    names = [name for image in table["images"] if isinstance(name := image.get("file_name"), str)]
    if not names:
        raise ValueError(f"{shown(path)}: no picture has a 'file_name'; export it again as COCO")
    places = [images] if images is not None else list(_places(path))
    for sample in (names[:: max(1, len(names) // 20)], names):  # all only if the few are missing
        counts = [sum(find_file(place, name) is not None for name in sample) for place in places]
        if max(counts):
            return places[counts.index(max(counts))]
    raise FileNotFoundError(
        f"{shown(path)}: none of its {len(names)} pictures is there, such as {shown(names[0])}; "
        f"looked in {', '.join(map(shown, places))}; give images=, the folder they are in"
    )


def _places(path: Path) -> Iterator[Path]:
    """Where pictures of a COCO file usually lie: beside it, or one folder up."""
    words = re.findall(r"[^\W_]+", path.stem)
    parts = [word for word in words if split_of(re.sub(r"\d+", "", word))]  # such as val2017
    for base in (path.parent, path.parent.parent):
        yield from (base, base / "images")
        yield from (base / inside / word for word in parts for inside in ("", "images"))


def _named(table: Table, what: str, field: str, path: Path) -> dict[Any, str]:
    """Id -> name of images or categories.

    Raises:
        ValueError: one without id or name, or one id for two names.
    """
    names: dict[Any, str] = {}
    for i, one in enumerate(table[what]):
        key, name = one.get("id"), one.get(field)
        if not isinstance(key, int | str) or not isinstance(name, str) or not plain(name):
            raise ValueError(
                f"{shown(path)}: {what}[{i}] has id {key!r} and {field} {name!r}; expected both"
            )
        if names.setdefault(key, name) != name:
            raise ValueError(
                f"{shown(path)}: {what}: id {key!r} stands for {names[key]!r} and for {name!r}; "
                "give each its own id"
            )
    return names


def _category_names(table: Table, path: Path) -> dict[Any, str]:
    """The name of each category id.

    Raises:
        ValueError: as `_named`, or annotations of an unknown category.
    """
    names = {key: plain(name) for key, name in _named(table, "categories", "name", path).items()}
    known = set(map(repr, names))
    used = Counter(repr(one.get("category_id")) for one in table["annotations"])
    if unknown := sorted(used.keys() - known):
        listed = some((f"{key!r} {name}" for key, name in names.items()), 10) or "none"
        raise ValueError(
            f"{shown(path)}: unknown category ids {some(unknown, 10)} in "
            f"{sum(used[key] for key in unknown)} annotations; categories lists {listed}"
        )
    return names


def _listed(
    table: Table, path: Path, root: Path, split: str | None, reading: Reading
) -> _Pictures:  # fmt: skip
    """The pictures that the file names."""
    entries = {image.get("id"): image for image in table["images"]}
    found: dict[Any, _Picture | None] = {}
    for key, name in _named(table, "images", "file_name", path).items():
        found[key] = None
        if (file := find_file(root, name)) is None:
            reading.problems[Kind.MISSING].append(shown(name))
            continue
        part = split or split_of(str(entries[key].get("split", "")))
        own, base = file.absolute(), reading.root.absolute()
        name = own.relative_to(base).as_posix() if own.is_relative_to(base) else name
        found[key] = _Picture(shown(name), file, _size_of(entries[key]), part)
        reading.listed[file] = part
    return found


def _size_of(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) as the file has it, in pixels; None if it has no usable one."""
    size = [image.get("width"), image.get("height")]
    width, height = (int(n) if isinstance(n, int | float) and 0 < n < 1e9 else 0 for n in size)
    return (width, height) if width and height else None


# ---- boxes and masks -----------------------------------------------------------------------


def _add_boxes(
    table: Table, pictures: _Pictures, names: Mapping[Any, str], reading: Reading
) -> None:
    """Keep the boxes of the pictures that are there."""
    used = {one["category_id"] for one in table["annotations"]}
    if unused := [name for key, name in names.items() if key not in used]:
        reading.problems[Kind.UNUSED_CLASS].extend(unused)
    for one in table["annotations"]:
        where, key = f"annotation {one.get('id')!r}", one.get("image_id")
        if not isinstance(key, int | str) or key not in pictures:
            reading.problems[Kind.UNLISTED].append(where)
        elif one.get("iscrowd") == 1:
            reading.problems[Kind.CROWD].append(where)
        elif (box := _box_of(one.get("bbox"))) is None:
            reading.problems[Kind.NO_BOX].append(where)
        elif (picture := pictures[key]) and (upright := _upright(box, picture, reading)):
            label = names[one["category_id"]]
            reading.add(picture.path, picture.name, label, upright, split=picture.split)


def _box_of(box: Any) -> Box | None:
    """xyxy of COCO's x, y, width, height; None if it is not four finite numbers."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in box):
        return None
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def _upright(box: Box, picture: _Picture, reading: Reading) -> Box | None:
    """The box in pixels of the upright picture; None if nobody can tell where it is."""
    if (header := reading.header(picture.path)) is None:
        return None
    if picture.size is None or picture.size == header.size:
        # A picture upside down or mirrored has the same size: what people see is what counts.
        if header.orientation > 1 and header.stored == header.size:
            reading.problems[Kind.AS_SEEN].append(picture.name)
        return box
    if picture.size == header.stored:
        reading.problems[Kind.TURNED].append(picture.name)
        return to_upright(box, header)
    (width, height), (true_width, true_height) = picture.size, header.size
    sizes = f"{picture.name} ({width} x {height}, the file has {true_width} x {true_height})"
    if abs(width * true_height - height * true_width) > max(*picture.size, *header.size):
        reading.problems[Kind.OTHER_SHAPE].append(sizes)
        return None
    reading.problems[Kind.SCALED].append(sizes)
    x1, y1, x2, y2 = box
    across, down = true_width / width, true_height / height
    return x1 * across, y1 * down, x2 * across, y2 * down


def _add_masks(
    table: Table, pictures: _Pictures, names: Mapping[Any, str], reading: Reading
) -> set[str]:
    """Keep the masks, of crowds as well as of single things -> their classes."""
    inside: dict[Any, list[tuple[str, Any]]] = defaultdict(list)
    for one in table["annotations"]:
        if one.get("segmentation"):
            inside[one.get("image_id")].append((names[one["category_id"]], one["segmentation"]))
    for key, picture in pictures.items():
        if picture is not None:
            masks = Masks((), outlines=tuple(inside[key]), size=picture.size)
            reading.masks[picture.path] = masks
    return {name for masks in inside.values() for name, _ in masks}
