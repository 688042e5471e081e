"""COCO JSON: pictures, boxes and categories in one file; each box becomes a crop.

Boxes are pixels of the picture whose width and height the file names. Where that is the picture
as stored, and EXIF turns it on its side, the boxes are turned with it; where it is a smaller or
larger copy of the same shape, they are scaled. Both are remarked on.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.data.boxes import Boxed, Headers, check_scale, crops_of, find_file, to_upright
from cliplab.data.files import Header, shown
from cliplab.data.folders import plain, remark_on_classes, split_of
from cliplab.data.photo_set import Box, PhotoSet
from cliplab.data.remarks import Remarks, some

_LISTS = ("images", "annotations", "categories")
_PEEK = 20  # pictures looked for when the folder of the pictures is searched


@dataclass(frozen=True)
class ListedPicture:
    """One entry of `images`, found on disk."""

    name: str
    path: Path
    size: tuple[int, int] | None  # (width, height) that the boxes refer to, if the file says so
    split: str | None


def read_coco(
    sources: str | Path | Sequence[str | Path],
    *,
    images: str | Path | None = None,
    box_scale: float = 1.0,
) -> PhotoSet:
    """Crops of one COCO file, or of several whose names tell their splits.

    Args:
        sources: the JSON; of several, `train`, `val` and `test` in the name are the splits.
        images: folder that the file names are relative to; by default searched near the JSON.
        box_scale: enlarges every box about its centre, then clips it to the picture.

    Raises:
        FileNotFoundError: no such file, or none of its pictures is there.
        ValueError: not JSON, not COCO, unknown categories, an id twice, or no box left.
    """
    check_scale(box_scale)
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(s) for s in sources]
    splits = [split_in(path) if len(paths) > 1 else None for path in paths]
    remarks = Remarks()
    headers = Headers(remarks)
    tables = [load(path) for path in paths]
    roots = [root_of(t, p, images) for t, p in zip(tables, paths, strict=True)]
    root = roots[0] if len(set(roots)) == 1 else _common(roots)
    boxes: list[Boxed] = []
    for path, split, table, folder in zip(paths, splits, tables, roots, strict=True):
        pictures = listed_pictures(table, path, folder, remarks)
        named = {i: _renamed(p, root, split) for i, p in pictures.items()}
        boxes.extend(_boxes(table, path, named, headers, remarks))
    photos = crops_of(boxes, headers, remarks, box_scale=box_scale)
    if not photos:
        raise ValueError(f"{some(map(shown, paths))}: no box to cut out; {_why(remarks)}")
    remark_on_classes(photos, remarks)
    return PhotoSet.of(photos, root, remarks.sentences())


def split_in(path: Path) -> str | None:
    """The split that a name such as instances_val2017.json or train/_annotations.json tells."""
    for text in (path.stem, path.parent.name):
        words = re.findall(r"[^\W\d_]+", text)
        if len(found := {split for word in words if (split := split_of(word))}) == 1:
            return found.pop()
    return None


# ---- the file ------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
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
        return found
    what = f"a list of {len(found)}" if isinstance(found, list) else type(found).__name__
    if isinstance(found, dict):
        what = f"an object with {some(map(repr, found), 6) or 'nothing'}{_odd_list(found)}"
    raise ValueError(
        f"{shown(path)}: {what}; expected COCO's object with the lists {', '.join(_LISTS)}"
        + (": these are detections, not the file they were made for" if _is_results(found) else "")
    )


def _odd_list(found: Mapping[str, Any]) -> str:
    """Which of the lists is there, but is no list of objects."""
    for name in (name for name in _LISTS if name in found):
        if not isinstance(found[name], list):
            return f", where {name} is {type(found[name]).__name__}"
        for i, item in enumerate(found[name]):
            if not isinstance(item, dict):
                return f", where {name}[{i}] is {type(item).__name__}"
    return ""


def is_coco(found: object) -> bool:
    """Whether JSON has COCO's three lists of objects."""
    return isinstance(found, dict) and all(
        isinstance(found.get(name), list) and all(isinstance(x, dict) for x in found[name])
        for name in _LISTS
    )


def _is_results(found: object) -> bool:
    return bool(isinstance(found, list) and found and "image_id" in found[0])


def root_of(table: Mapping[str, Any], path: Path, images: str | Path | None) -> Path:
    """The folder in which most of the pictures are.

    Raises:
        FileNotFoundError: none is anywhere near.
    """
    names = [name for image in table["images"] if isinstance(name := image.get("file_name"), str)]
    if not names:
        raise ValueError(f"{shown(path)}: no picture has a 'file_name'; export it again as COCO")
    places = [Path(images)] if images is not None else list(_places(path))
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


# ---- pictures ------------------------------------------------------------------------------


def listed_pictures(
    table: Mapping[str, Any], source: Path, root: Path, remarks: Remarks
) -> dict[Any, ListedPicture | None]:
    """Id -> picture, None where the file is missing.

    Raises:
        ValueError: an id is there twice with different files, or a picture without id or name.
    """
    found: dict[Any, ListedPicture | None] = {}
    names: dict[Any, str] = {}
    for i, image in enumerate(table["images"]):
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(name, str) or not isinstance(key, int | str):
            raise ValueError(
                f"{shown(source)}: images[{i}] has id {key!r} and file_name {name!r}; expected both"
            )
        if names.setdefault(key, name) != name:
            raise ValueError(
                f"{shown(source)}: image id {key!r} stands for {shown(names[key])} and for "
                f"{shown(name)}; give each picture its own id"
            )
        if path := find_file(root, name):
            split = split_of(image["split"]) if isinstance(image.get("split"), str) else None
            found[key] = ListedPicture(name.replace("\\", "/"), path, size_of(image), split)
        else:
            found[key] = None
            remarks.add("pictures that are missing, left out", shown(name))
    return found


def size_of(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) as the table has it, in pixels; None if it has no usable one."""
    size = image.get("width"), image.get("height")
    if all(isinstance(n, int | float) and 0 < n < math.inf for n in size):
        return int(size[0]), int(size[1])  # type: ignore[arg-type]
    return None


def _renamed(picture: ListedPicture | None, root: Path, split: str | None) -> ListedPicture | None:
    """The picture with its name relative to `root`, and the split of its JSON."""
    if picture is None:
        return None
    path = picture.path.absolute()
    base = root.absolute()
    name = path.relative_to(base).as_posix() if path.is_relative_to(base) else picture.name
    return ListedPicture(name, picture.path, picture.size, split or picture.split)


# ---- boxes ---------------------------------------------------------------------------------


def _boxes(
    table: Mapping[str, Any],
    source: Path,
    pictures: Mapping[Any, ListedPicture | None],
    headers: Headers,
    remarks: Remarks,
) -> Iterator[Boxed]:
    """Boxes of the pictures that are there, in pixels of the upright pictures."""
    categories = category_names(table, source)
    _check_categories(table, source, categories)
    _remark_on_ids(table, pictures, categories, remarks)
    for annotation in table["annotations"]:
        where = f"annotation {annotation.get('id')!r}"
        key = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in pictures:
            remarks.add("boxes of pictures that the file does not list, skipped", where)
        elif annotation.get("iscrowd") == 1:
            remarks.add("boxes of crowds (iscrowd), skipped", where)
        elif (box := box_of(annotation)) is None:
            remarks.add("annotations without four finite numbers in 'bbox', skipped", where)
        elif picture := pictures[key]:
            upright = upright_box(box, picture, headers.of(picture.path), remarks)
            if upright is not None:
                label = categories[annotation["category_id"]]
                yield Boxed(picture.path, picture.name, label, upright, None, picture.split)


def category_names(table: Mapping[str, Any], source: Path) -> dict[Any, str]:
    """The name of each category id.

    Raises:
        ValueError: a category without id or name, or one id for two names.
    """
    names: dict[Any, str] = {}
    for i, category in enumerate(table["categories"]):
        key, name = category.get("id"), category.get("name")
        if not isinstance(key, int | str) or not isinstance(name, str) or not plain(name):
            raise ValueError(
                f"{shown(source)}: categories[{i}] has id {key!r} and name {name!r}; expected both"
            )
        if names.setdefault(key, plain(name)) != plain(name):
            raise ValueError(
                f"{shown(source)}: category id {key!r} stands for {names[key]!r} and for "
                f"{plain(name)!r}; give each category its own id"
            )
    return names


def _check_categories(
    table: Mapping[str, Any], source: Path, categories: Mapping[Any, str]
) -> None:
    used = Counter(repr(a.get("category_id")) for a in table["annotations"])
    if unknown := sorted(used.keys() - {repr(key) for key in categories}):
        raise ValueError(
            f"{shown(source)}: unknown category ids {some(unknown, 10)} in "
            f"{sum(used[key] for key in unknown)} annotations; categories lists "
            f"{some((f'{key!r} {name}' for key, name in categories.items()), 10) or 'none'}"
        )


def _remark_on_ids(
    table: Mapping[str, Any],
    pictures: Mapping[Any, ListedPicture | None],
    categories: Mapping[Any, str],
    remarks: Remarks,
) -> None:
    ids = Counter(repr(annotation.get("id")) for annotation in table["annotations"])
    for key in (key for key, count in ids.items() if count > 1 and key != "None"):
        remarks.add("annotation ids that stand for several boxes, all kept", key)
    used = {repr(annotation.get("category_id")) for annotation in table["annotations"]}
    for key in (key for key in categories if repr(key) not in used):
        remarks.add("categories without a box, no class of this set", categories[key])
    boxed = {repr(annotation.get("image_id")) for annotation in table["annotations"]}
    empty = [p.name for key, p in pictures.items() if p is not None and repr(key) not in boxed]
    if empty:
        remarks.add("pictures without a box, left out", *map(shown, empty))


def box_of(annotation: Mapping[str, Any]) -> Box | None:
    """xyxy of COCO's x, y, width, height; None if it is not four finite numbers."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return None
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in box):
        return None
    x, y, width, height = box
    return float(x), float(y), float(x + width), float(y + height)


def upright_box(
    box: Box, picture: ListedPicture, header: Header | None, remarks: Remarks
) -> Box | None:  # fmt: skip
    """The box in pixels of the upright picture; None if nobody can tell where it is."""
    if header is None:
        return None
    name = shown(picture.name)
    if picture.size in (None, header.size):
        # A picture upside down or mirrored has the same size: what people see is what counts.
        if header.orientation > 1 and header.stored == header.size:
            remarks.add("boxes of pictures that EXIF turns, taken as of the upright picture", name)
        return box
    if picture.size == header.stored:
        remarks.add("boxes turned with their picture, since EXIF lays it on its side", name)
        return to_upright(box, header)
    (width, height), (true_width, true_height) = picture.size, header.size
    sizes = f"{name} ({width} x {height}, the file has {true_width} x {true_height})"
    if abs(width * true_height - height * true_width) > max(*picture.size, *header.size):
        remarks.add("boxes of pictures of another shape than the JSON says, skipped", sizes)
        return None
    remarks.add("boxes scaled, since the JSON was made for another size", sizes)
    x1, y1, x2, y2 = box
    across, down = true_width / width, true_height / height
    return x1 * across, y1 * down, x2 * across, y2 * down


def _why(remarks: Remarks) -> str:
    return "; ".join(remarks.sentences()) or "it holds no annotation"
