"""COCO JSON: pictures, boxes, masks and categories in one file.

Boxes are pixels of the picture whose width and height the file names. Where that is the picture
as stored, and EXIF turns it on its side, the boxes are turned with it; where it is a smaller or
larger copy of the same shape, they are scaled. Both are told.
"""

import json
import math
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
_PEEK = 20  # pictures looked for when the folder of the pictures is searched
Table = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class _Picture:
    """One entry of `images`, found on disk."""

    name: str
    path: Path
    size: tuple[int, int] | None  # (width, height) that the boxes refer to, if the file says so
    split: str | None


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
    root = roots[0] if len(set(roots)) == 1 else _common(roots)
    reading = Reading(root, box_scale)
    used: set[str] = set()
    for path, table, folder in zip(paths, tables, roots, strict=True):
        split = split_in(path) if len(paths) > 1 else None
        pictures = _listed(table, path, folder, split, reading)
        names = _category_names(table, path)
        _add_boxes(table, pictures, names, reading)
        _add_masks(table, pictures, names, reading)
        used |= {names[a["category_id"]] for a in table["annotations"] if a.get("segmentation")}
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
        FileNotFoundError: no such file.
        ValueError: not JSON, or JSON of another kind.
    """
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown(path)}: no such file; check the name") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: not JSON ({error}); export it again as COCO") from error
    if is_coco(found):
        return dict(found)
    what = f"an object with {some(map(repr, found), 6)}" if isinstance(found, dict) else "no object"
    are_results = isinstance(found, list) and found and "image_id" in found[0]
    raise ValueError(
        f"{shown(path)}: {what}; expected COCO's object with the lists {', '.join(_LISTS)}"
        + (": these are detections, not the file they were made for" if are_results else "")
    )


def is_coco(found: object) -> bool:
    """Whether JSON has COCO's three lists of objects."""
    return isinstance(found, dict) and all(
        isinstance(found.get(name), list) and all(isinstance(x, dict) for x in found[name])
        for name in _LISTS
    )


def _root_of(table: Table, path: Path, images: Path | None) -> Path:
    """The folder in which most of the pictures are.

    Raises:
        FileNotFoundError: none is anywhere near.
    """
    names = [name for image in table["images"] if isinstance(name := image.get("file_name"), str)]
    if not names:
        raise ValueError(f"{shown(path)}: no picture has a 'file_name'; export it again as COCO")
    places = [images] if images is not None else list(_places(path))
    step = max(1, len(names) // _PEEK)
    for sample in (names[::step], names):  # all of them only if the few are among the missing
        counts = [sum(find_file(place, name) is not None for name in sample) for place in places]
        if max(counts):
            return places[counts.index(max(counts))]
    raise FileNotFoundError(
        f"{shown(path)}: none of its {len(names)} pictures is there, such as {shown(names[0])}; "
        f"looked in {', '.join(map(shown, places))}; give images=, the folder they are in"
    )


def _places(path: Path) -> Iterator[Path]:
    """Where pictures of a COCO file usually lie: beside it, or one folder up."""
    for base in (path.parent, path.parent.parent):
        yield base
        yield base / "images"
        for word in re.findall(r"[^\W_]+", path.stem):
            if split_of(re.sub(r"\d+", "", word)):  # instances_val2017.json with val2017/
                yield base / word
                yield base / "images" / word


def _common(roots: Sequence[Path]) -> Path:
    """The folder that holds all of several."""
    first = [root.absolute() for root in roots]
    for folder in [first[0], *first[0].parents]:
        if all(root.is_relative_to(folder) for root in first):
            return folder
    return first[0]  # Windows: on different drives


def _named(entries: Sequence[Mapping[str, Any]], key: str, what: str) -> dict[Any, str]:
    """Id -> name of images or categories; `key` is the field with the name.

    Raises:
        ValueError: one without id or name, or one id for two names.
    """
    names: dict[Any, str] = {}
    for i, one in enumerate(entries):
        number, name = one.get("id"), one.get(key)
        if not isinstance(number, int | str) or not isinstance(name, str) or not plain(name):
            raise ValueError(f"{what}[{i}] has id {number!r} and {key} {name!r}; expected both")
        if names.setdefault(number, name) != name:
            raise ValueError(
                f"{what}: id {number!r} stands for {names[number]!r} and for {name!r}; give each "
                "its own id"
            )
    return names


def _category_names(table: Table, path: Path) -> dict[Any, str]:
    """The name of each category id.

    Raises:
        ValueError: as `_named`, or annotations of an unknown category.
    """
    try:
        names = {k: plain(v) for k, v in _named(table["categories"], "name", "categories").items()}
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    keys = [one.get("category_id") for one in table["annotations"]]
    unknown = Counter(
        repr(key) for key in keys if not isinstance(key, int | str) or key not in names
    )
    if unknown:
        known = some((f"{key!r} {name}" for key, name in names.items()), 10) or "none"
        raise ValueError(
            f"{shown(path)}: unknown category ids {some(sorted(unknown), 10)} in "
            f"{unknown.total()} annotations; categories lists {known}"
        )
    return names


def _listed(
    table: Table, path: Path, root: Path, split: str | None, reading: Reading
) -> dict[Any, _Picture | None]:
    """Id -> picture, None where the file is missing.

    Raises:
        ValueError: as `_named`.
    """
    try:
        names = _named(table["images"], "file_name", "images")
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    entries = {image["id"]: image for image in table["images"]}
    found: dict[Any, _Picture | None] = dict.fromkeys(names)
    base = reading.root.absolute()
    for key, name in names.items():
        if (file := find_file(root, name)) is None:
            reading.problems[Kind.MISSING].append(shown(name))
            continue
        own = file.absolute()
        name = own.relative_to(base).as_posix() if own.is_relative_to(base) else name
        said = entries[key].get("split")
        part = split or (split_of(said) if isinstance(said, str) else None)
        found[key] = _Picture(name.replace("\\", "/"), file, _size_of(entries[key]), part)
        reading.listed[file] = part
    return found


def _size_of(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) as the file has it, in pixels; None if it has no usable one."""
    size = image.get("width"), image.get("height")
    if all(isinstance(n, int | float) and 0 < n < math.inf for n in size):
        return int(size[0]), int(size[1])  # type: ignore[arg-type]
    return None


# ---- boxes and masks -----------------------------------------------------------------------


def _add_boxes(
    table: Table,
    pictures: Mapping[Any, _Picture | None],
    names: Mapping[Any, str],
    reading: Reading,
) -> None:
    """Keep the boxes of the pictures that are there."""
    _tell_of_ids(table, names, reading)
    for one in table["annotations"]:
        where, key = f"annotation {one.get('id')!r}", one.get("image_id")
        if not isinstance(key, int | str) or key not in pictures:
            reading.problems[Kind.UNLISTED].append(where)
        elif one.get("iscrowd") == 1:
            reading.problems[Kind.CROWD].append(where)
        elif (box := _box_of(one)) is None:
            reading.problems[Kind.NO_BOX].append(where)
        elif (picture := pictures[key]) and (upright := upright_box(box, picture, reading)):
            label = names[one["category_id"]]
            reading.add(picture.path, picture.name, label, upright, split=picture.split)


def _tell_of_ids(table: Table, names: Mapping[Any, str], reading: Reading) -> None:
    ids = Counter(repr(one.get("id")) for one in table["annotations"])
    twice = [key for key, count in ids.items() if count > 1 and key != "None"]
    used = {one["category_id"] for one in table["annotations"]}
    unused = [name for key, name in names.items() if key not in used]
    for kind, where in ((Kind.REPEATED_ID, twice), (Kind.UNUSED_CLASS, unused)):
        if where:
            reading.problems[kind].extend(where)


def _box_of(annotation: Mapping[str, Any]) -> Box | None:
    """xyxy of COCO's x, y, width, height; None if it is not four finite numbers."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in box):
        return None
    x, y, width, height = box
    return float(x), float(y), float(x + width), float(y + height)


def upright_box(box: Box, picture: _Picture, reading: Reading) -> Box | None:
    """The box in pixels of the upright picture; None if nobody can tell where it is."""
    if (header := reading.header(picture.path)) is None:
        return None
    name = shown(picture.name)
    if picture.size is None or picture.size == header.size:
        # A picture upside down or mirrored has the same size: what people see is what counts.
        if header.orientation > 1 and header.stored == header.size:
            reading.problems[Kind.AS_SEEN].append(name)
        return box
    if picture.size == header.stored:
        reading.problems[Kind.TURNED].append(name)
        return to_upright(box, header)
    (width, height), (true_width, true_height) = picture.size, header.size
    sizes = f"{name} ({width} x {height}, the file has {true_width} x {true_height})"
    if abs(width * true_height - height * true_width) > max(*picture.size, *header.size):
        reading.problems[Kind.OTHER_SHAPE].append(sizes)
        return None
    reading.problems[Kind.SCALED].append(sizes)
    x1, y1, x2, y2 = box
    across, down = true_width / width, true_height / height
    return x1 * across, y1 * down, x2 * across, y2 * down


def _add_masks(
    table: Table,
    pictures: Mapping[Any, _Picture | None],
    names: Mapping[Any, str],
    reading: Reading,
) -> None:
    """Keep the masks; crowds have a class as well as single things."""
    inside: dict[Any, list[tuple[str, Any]]] = defaultdict(list)
    for one in table["annotations"]:
        if one.get("segmentation"):
            mask = names[one["category_id"]], one["segmentation"]
            inside[one.get("image_id")].append(mask)
    for key, picture in pictures.items():
        if picture is not None:
            reading.masks[picture.path] = Masks((), outlines=tuple(inside[key]), size=picture.size)
