"""COCO JSON: pictures, boxes, masks and categories in one file.

Boxes are pixels of the picture whose width and height the file names, see `Reading.add`.
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cliplab.data.files import shown
from cliplab.data.reading import Reading, Size, find_files, size_of, where_from
from cliplab.data.samples import Box, Ids, Masks, ProblemKind as Kind, plain, some, split_of

_LISTS = ("images", "annotations", "categories")
_IDS = ("id", "image_id", "category_id")
Table = Mapping[str, list[dict[str, Any]]]
_Pictures = Mapping[Any, tuple[Path, Size | None]]  # by id: file, and what size the boxes refer to


def read_coco(paths: Sequence[Path], images: Path | None, box_scale: float) -> Reading:
    """Pictures, boxes and masks of one COCO file, or of several whose names tell their splits.

    File names are relative to `images`, by default to a folder near the JSON that is searched.
    """
    tables = [load(path) for path in paths]
    roots = [_root_of(t, p, images) for t, p in zip(tables, paths, strict=True)]
    root = roots[0] if len(set(roots)) == 1 else Path(os.path.commonpath(map(Path.absolute, roots)))
    reading = Reading(root, box_scale)
    outlines: dict[Path, list[tuple[str, Any]]] = defaultdict(list)
    for path, table, folder in zip(paths, tables, roots, strict=True):
        split = split_in(path) if len(paths) > 1 else None
        known = _by_id(table, "images", "file_name", path)
        pictures = _listed(table, known, folder, split, reading)
        names = _category_names(table, path)
        if len(paths) == 1:  # several files may use one id for different things
            files = {file: (key, known[key]) for key, (file, _) in pictures.items()}
            reading.ids = Ids(files, {name: key for key, name in names.items()}, reading.written)
        for one in table["annotations"]:
            label = names[one["category_id"]]
            _add(one, label, known, pictures, reading)
            if one.get("segmentation") and (picture := pictures.get(one.get("image_id"))):
                outlines[picture[0]].append((label, one["segmentation"]))
        for file, size in pictures.values():
            reading.masks[file] = Masks((), outlines=tuple(outlines[file]), size=size)
    used = tuple(sorted({name for inside in outlines.values() for name, _ in inside}))
    reading.masks = {path: replace(m, names=used) for path, m in reading.masks.items() if used}
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
    """The three lists of a COCO file."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: not JSON ({error}); export it again as COCO") from error
    lists = [found.get(name) if isinstance(found, dict) else None for name in _LISTS]
    if not all(isinstance(one, list) and all(isinstance(x, dict) for x in one) for one in lists):
        has = some(map(repr, found), 6) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{shown(path)}: got {has or 'an empty object'}; expected COCO's object with the lists "
            f"{', '.join(_LISTS)}, all of objects; where these are detections, give the file that "
            "they were made for"
        )
    for one in (one for name in _LISTS for one in found[name]):
        for key in _IDS:
            if isinstance(number := one.get(key), float) and number % 1 == 0:
                one[key] = int(number)  # pandas makes 1.0 of 1
            elif not isinstance(number, int | str):
                one[key] = None
    return found


def _root_of(table: Table, path: Path, images: Path | None) -> Path:
    """The folder in which most of the pictures are."""
    names = [name for image in table["images"] if isinstance(name := image.get("file_name"), str)]
    few = names[:: max(1, len(names) // 100)]
    if not names:
        raise ValueError(f"{shown(path)}: no picture has a 'file_name'; export it again as COCO")
    places = [images] if images is not None else list(_places(path))
    # Files under their names, then under the end of their names; few of a large set may be there.
    for sample in (few, names):
        counts = [tuple(map(len, find_files(place, sample))) for place in places]
        if any(best := max(counts)):
            return places[counts.index(best)]
    raise FileNotFoundError(
        f"{shown(path)}: none of its {len(names)} pictures is there, such as {shown(names[0])}; "
        f"looked in {', '.join(map(shown, places))}; {where_from(images, 'the JSON')}"
    )


def _places(path: Path) -> Iterator[Path]:
    """Where pictures of a COCO file usually lie: beside it, or one folder up."""
    words = re.findall(r"[^\W_]+", path.stem)
    parts = [word for word in words if split_of(re.sub(r"\d+", "", word))]  # such as val2017
    for base in (path.parent, path.parent.parent):
        yield from (base, base / "images")
        yield from (base / inside / word for word in parts for inside in ("", "images"))


def _by_id(table: Table, what: str, field: str, path: Path) -> dict[Any, str]:
    """Id -> name of images or categories, each with both."""
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
    """The name of each category id; all that annotations name must be known."""
    names = {key: plain(name) for key, name in _by_id(table, "categories", "name", path).items()}
    known = set(map(repr, names))
    used = {repr(one.get("category_id")) for one in table["annotations"]}
    if unknown := sorted(used - known):
        listed = some((f"{key!r} {name}" for key, name in names.items()), 10) or "none"
        raise ValueError(
            f"{shown(path)}: unknown category ids {some(unknown, 10)}; categories lists {listed}"
        )
    return names


def _listed(
    table: Table, known: Mapping[Any, str], root: Path, split: str | None, reading: Reading
) -> _Pictures:
    """The pictures that are there."""
    entries = {image.get("id"): image for image in table["images"]}
    files = reading.find(known.values(), root)
    reading.problems[Kind.MISSING] += [shown(n) for n in known.values() if n not in files]
    found = {}
    for key, name in known.items():
        if file := files.get(name):
            reading.listed[file] = split or split_of(str(entries[key].get("split", "")))
            found[key] = file, size_of(entries[key])
    return found


# ---- boxes ---------------------------------------------------------------------------------


def _add(
    one: Mapping[str, Any], label: str, known: Mapping[Any, str], pictures: _Pictures, to: Reading
) -> None:
    """Keep the box of an annotation, if its picture is there."""
    key, where = one.get("image_id"), f"annotation {one.get('id')!r}"
    to.are_answers |= "score" in one
    if not isinstance(key, int | str) or key not in known:
        to.problems[Kind.UNLISTED].append(where)
        return
    crowd, box = one.get("iscrowd") == 1, _box_of(one.get("bbox"))
    if crowd or box is None:
        to.problems[Kind.CROWD if crowd else Kind.NO_BOX].append(where)
    if box and key in pictures:
        file, size = pictures[key]
        if crowd:
            to.written[file].append((label, box, True))
        else:
            to.add(file, (label, None, to.listed[file]), box, size)


def _box_of(box: Any) -> Box | None:
    """xyxy of COCO's x, y, width, height; None if it is not four finite numbers."""
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        return None
    edges = x, y, x + width, y + height
    return edges if all(map(math.isfinite, edges)) else None
