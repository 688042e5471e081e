"""YOLO folders: one text file of boxes for each picture, class names beside them.

`images/a.jpg` has its boxes in `labels/a.txt`, or beside itself in `a.txt`: lines of a class
number and centre, width and height as shares of the upright picture, or a polygon in shares.
The names are in `data.yaml` (`dataset.yaml`), which may name the splits too, or in `classes.txt`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.data.boxes import Boxed, Headers, check_scale, crops_of
from cliplab.data.files import list_images, shown
from cliplab.data.folders import plain, remark_on_classes, split_of
from cliplab.data.photo_set import SPLITS, Box, PhotoSet
from cliplab.data.remarks import Remarks, some

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names")
_SLACK = 0.01  # of the picture that a rounded share may leave it by


@dataclass(frozen=True)
class Layout:
    """Where a YOLO data set keeps its things."""

    root: Path
    names: Mapping[int, str]  # class number -> name
    images: Sequence[tuple[Path, str | None]]  # picture, split
    source: Path  # the file with the names, for messages


class _MalformedError(ValueError):
    """A line that is no box."""


def read_yolo(
    source: str | Path, *, images: str | Path | None = None, box_scale: float = 1.0
) -> PhotoSet:
    """Crops of a YOLO data set: its folder, or its YAML file.

    Args:
        source: a folder with `data.yaml` or `classes.txt`, or the YAML file.
        images: folder of the pictures, where that is not told by the YAML or the layout.
        box_scale: enlarges every box about its centre, then clips it to the picture.

    Raises:
        FileNotFoundError: no such file or folder, or no names of classes.
        ValueError: malformed lines or unknown classes, each with file and line; no box at all.
    """
    check_scale(box_scale)
    source, remarks = Path(source), Remarks()
    layout = find_layout(source, Path(images) if images is not None else None)
    headers = Headers(remarks)
    boxes, wrong = _read_all(layout, headers, remarks)
    if wrong:
        raise ValueError(
            f"{len(wrong)} malformed lines: {some(wrong, 5)}; expected a class number of "
            f"{shown(layout.source)}, then centre, width and height, or a polygon, as shares of "
            "the picture"
        )
    photos = crops_of(boxes, headers, remarks, box_scale=box_scale)
    if not photos:
        raise ValueError(
            f"{shown(source)}: no box to cut out; "
            + ("; ".join(remarks.sentences()) or "the label files are empty")
        )
    unused = {plain(name) for name in layout.names.values()} - {photo.label for photo in photos}
    if unused:
        remarks.add("names without a box, no class of this set", *sorted(unused))
    remark_on_classes(photos, remarks)
    return PhotoSet.of(photos, layout.root, remarks.sentences())


# ---- where things are ----------------------------------------------------------------------


def find_layout(source: Path, images: Path | None) -> Layout:
    """Where pictures, label files and class names of a source are.

    Raises:
        FileNotFoundError: no such file or folder.
    """
    if not source.exists():
        raise FileNotFoundError(f"{shown(source)}: no such file or folder; check the name")
    if source.is_file():
        return _from_yaml(source, images)
    for name in YAML_NAMES:
        if (source / name).is_file():
            return _from_yaml(source / name, images)
    root = source.parent if source.name == "labels" else source
    places = [base / name for base in (root, root / "labels") for name in NAME_FILES]
    for path in places:
        if path.is_file():
            return Layout(root, _names_in_text(path), _by_folder(root, images), path)
    raise FileNotFoundError(
        f"{shown(root)}: no names of classes; looked for {', '.join(YAML_NAMES[:2])}, "
        f"{', '.join(NAME_FILES)} there and in labels: write classes.txt with a name on each line"
    )


def _names_in_text(path: Path) -> dict[int, str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}: not a text in UTF-8; save it as UTF-8") from error
    return _checked_names(dict(enumerate(lines)), path)


def _checked_names(names: Mapping[Any, Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for key, name in names.items():
        text = plain(str(name))
        if not (isinstance(key, int) or str(key).isdigit()) or not text:
            raise ValueError(f"{shown(path)}: class {key!r} is {name!r}; expected number and name")
        found[int(key)] = text
    if not found:
        raise ValueError(f"{shown(path)}: no names of classes; expected at least one")
    return found


def _from_yaml(path: Path, images: Path | None) -> Layout:
    """Layout of an Ultralytics data set file: path, train, val, test, names."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{shown(path)}: not YAML in UTF-8 ({text})") from error
    names = found.get("names") if isinstance(found, dict) else None
    if not isinstance(names, list | dict):
        keys = some(map(repr, found), 8) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{shown(path)}: no list 'names' among {keys}; expected names of classes")
    numbered = names if isinstance(names, dict) else dict(enumerate(names))
    root = path.parent
    if isinstance(base := found.get("path"), str) and (root / base).is_dir():
        root = root / base
    listed = [] if images is not None else list(_splits_in_yaml(found, root, path))
    if len({picture for picture, _ in listed}) < len(listed):
        raise ValueError(
            f"{shown(path)}: the same pictures in two splits of {', '.join(SPLITS)}; expected "
            "splits that share none"
        )
    return Layout(root, _checked_names(numbered, path), listed or _by_folder(root, images), path)


def _splits_in_yaml(
    found: Mapping[str, Any], root: Path, source: Path
) -> Iterator[tuple[Path, str | None]]:
    """Pictures of train, val and test: each a folder, a text file of paths, or a list of those.

    Raises:
        FileNotFoundError: none of the named places is there.
        ValueError: an entry is neither a text nor a list of texts.
    """
    named = {key: found[key] for key in found if split_of(str(key)) and found[key]}
    looked: list[str] = []
    anything = False
    for key, value in named.items():
        places = value if isinstance(value, list) else [value]
        for place in places:
            if not isinstance(place, str):
                raise ValueError(f"{shown(source)}: {key} is {place!r}; expected a folder or file")
            tries = [root / place, root / place.removeprefix("../"), root.parent / place]
            hit = next((path for path in tries if path.exists()), None)
            if hit is None:
                looked.append(place)
                continue
            anything = True
            for picture in _pictures_of(hit, root):
                yield picture, split_of(key)
    if named and not anything:
        raise FileNotFoundError(
            f"{shown(source)}: none of {', '.join(looked)} is in {shown(root)}; mend path, train, "
            "val and test, or give images=, the folder of the pictures"
        )


def _pictures_of(place: Path, root: Path) -> list[Path]:
    """Pictures of a folder, or those that a text file lists."""
    if place.is_dir():
        try:
            return list_images(place)
        except ValueError:  # an empty split is the owner's affair, as long as others are not
            return []
    lines = place.read_text(encoding="utf-8-sig").splitlines()
    return [
        place.parent / line if line.startswith("./") else root / line
        for line in map(str.strip, lines)
        if line
    ]


def _by_folder(root: Path, images: Path | None) -> list[tuple[Path, str | None]]:
    """Pictures below `images`, else root/images, else root; split by a folder named so."""
    place = images or (root / "images" if (root / "images").is_dir() else root)
    paths = list_images(place)
    inner = [path.relative_to(place).parts[:-1] for path in paths]
    splits = [next(filter(None, map(split_of, folders)), None) for folders in inner]
    return list(zip(paths, splits if all(splits) else [None] * len(paths), strict=True))


# ---- boxes ---------------------------------------------------------------------------------


def _read_all(layout: Layout, headers: Headers, remarks: Remarks) -> tuple[list[Boxed], list[str]]:
    """All boxes, and where lines are malformed and how."""
    boxes: list[Boxed] = []
    wrong: list[str] = []
    labels: set[Path] = set()
    for path, split in layout.images:
        name = _name(path, layout.root)
        if not path.is_file():
            remarks.add("pictures that are missing, left out", name)
            continue
        label_file = _label_file(path)
        if label_file is None or not (lines := list(_lines(label_file))):
            remarks.add("pictures without boxes (background), left out", name)
            labels.update([label_file] if label_file else [])
            continue
        labels.add(label_file)
        header = headers.of(path)
        for line, text in lines:
            try:
                number, share = _parse(text, layout.names)
            except _MalformedError as error:
                wrong.append(f"{_name(label_file, layout.root)}:{line}: {error}")
                continue
            if header is not None:
                box = _in_pixels(share, header.size)
                boxes.append(Boxed(path, name, layout.names[number], box, None, split))
    _remark_on_orphans(layout, labels, remarks)
    return boxes, wrong


def _name(path: Path, root: Path) -> str:
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def _label_file(picture: Path) -> Path | None:
    """labels/…/x.txt for images/…/x.jpg (the last such folder), else x.txt beside it, else None."""
    parts = list(picture.parent.parts)
    tries = [picture.with_suffix(".txt")]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        folder = Path(*parts[:last], "labels", *parts[last + 1 :])
        tries.insert(0, folder / f"{picture.stem}.txt")
    return next((path for path in tries if path.is_file()), None)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something on them, numbered from 1."""
    text = path.read_bytes().decode("utf-8-sig", "replace")
    return ((i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def _parse(line: str, names: Mapping[int, str]) -> tuple[int, Box]:
    """Class number, and the box as shares (x1, y1, x2, y2) of the picture.

    Raises:
        _MalformedError: what is wrong with the line.
    """
    cells = line.split()
    try:
        number, values = float(cells[0]), [float(cell) for cell in cells[1:]]
    except ValueError:
        raise _MalformedError(f"{line[:40]!r} are not numbers") from None
    if number not in names:  # 2.0 is 2, 2.5 is nothing
        known = f"{min(names)} to {max(names)}"
        raise _MalformedError(f"class {cells[0]}, where there are {known}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise _MalformedError(f"{len(cells)} values, where a box has 5 and a polygon 7, 9, ...")
    if not all(math.isfinite(value) and -_SLACK <= value <= 1 + _SLACK for value in values):
        raise _MalformedError(f"{line[:40]!r} has values outside 0 to 1, such as pixels")
    if len(values) == 4:
        x, y, width, height = values
        return int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    across, down = values[::2], values[1::2]
    return int(number), (min(across), min(down), max(across), max(down))


def _in_pixels(share: Box, size: tuple[int, int]) -> Box:
    # Files have six decimals: without rounding, an edge at 10 would become 10.0000004.
    x1, y1, x2, y2 = (round(value * size[i % 2], 2) for i, value in enumerate(share))
    return x1, y1, x2, y2


def _remark_on_orphans(layout: Layout, used: Iterable[Path], remarks: Remarks) -> None:
    """Note label files whose picture is not there."""
    used = set(used)
    folders = {path.parent for path in used} | {layout.root / "labels"}
    for path in sorted(path for folder in folders for path in folder.glob("*.txt")):
        listed = path in used or path.name in NAME_FILES or path.name.startswith(".")
        if not listed and _looks_like_boxes(path):
            remarks.add("label files without a picture", _name(path, layout.root))


def _looks_like_boxes(path: Path) -> bool:
    cells = next((line.split() for _, line in _lines(path)), ["0"] * 5)
    return len(cells) >= 5 and cells[0].replace(".", "", 1).isdigit()
