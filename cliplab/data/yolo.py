"""YOLO folders: one text file of boxes for each picture, class names beside them.

`images/a.jpg` has its boxes in `labels/a.txt`, or beside itself in `a.txt`: lines of a class
number and centre, width and height as shares of the upright picture, or a polygon in shares.
The names are in `data.yaml` (`dataset.yaml`), which may name the splits too, or in `classes.txt`.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliplab.data.files import list_images, shown
from cliplab.data.reading import Reading
from cliplab.data.samples import Box, ProblemKind as Kind, plain, some, split_of

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names")
_SLACK = 0.01  # of the picture that a rounded share may leave it by
_Names = Mapping[int, str]
_Listed = dict[Path, str | None]  # picture -> split


def read_yolo(source: Path, images: Path | None, box_scale: float) -> Reading:
    """Pictures and boxes of a YOLO data set: a folder, or its YAML file.

    `images` is the folder of the pictures, where neither the YAML nor the layout tells it. All
    malformed lines and unknown classes are refused at once, each with file and line.
    """
    root, names, listed, names_file = _layout(source, images)
    reading, wrong, used = Reading(root, box_scale), list[str](), set[Path]()
    reading.classes = sorted(set(names.values()))
    for path, split in listed.items():
        if not path.is_file():
            reading.problems[Kind.MISSING].append(reading.name(path))
            continue
        reading.listed[path] = split
        if label_file := _label_file(path):
            used.add(label_file)
            wrong += _add_boxes(path, label_file, names, reading)
    if wrong:
        raise ValueError(
            f"{len(wrong)} malformed lines: {some(wrong, 5)}; expected a class number of "
            f"{shown(names_file)}, then centre, width and height, or a polygon, as shares of "
            "the picture"
        )
    strays = sorted(set((root / "labels").glob("*.txt")) - used - {names_file})
    reading.problems[Kind.STRAY_LABELS] += map(reading.name, strays)
    return reading


# ---- where things are ----------------------------------------------------------------------


def _layout(source: Path, images: Path | None) -> tuple[Path, _Names, _Listed, Path]:
    """Root, class names, pictures, and the file with the names."""
    places = [source] if source.is_file() else [source / name for name in YAML_NAMES]
    if path := next(filter(Path.is_file, places), None):
        return _from_yaml(path, images)
    root = source.parent if source.name == "labels" else source
    for path in (base / name for base in (root, root / "labels") for name in NAME_FILES):
        if path.is_file():
            names = _checked_names(dict(enumerate(_text_of(path).splitlines())), path)
            return root, names, _by_folder(root, images), path
    raise FileNotFoundError(
        f"{shown(root)}: no names of classes; looked for {', '.join(YAML_NAMES[:2])}, "
        f"{', '.join(NAME_FILES)} there and in labels: write classes.txt with a name on each line"
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}: not a text in UTF-8; save it as UTF-8") from error


def _checked_names(names: Mapping[Any, Any], path: Path) -> _Names:
    for key, name in names.items() or [("0", "")]:
        if not str(key).isdigit() or not plain(str(name)):
            raise ValueError(f"{shown(path)}: class {key!r} is {name!r}; expected number and name")
    return {int(key): plain(str(name)) for key, name in names.items()}


def _from_yaml(path: Path, images: Path | None) -> tuple[Path, _Names, _Listed, Path]:
    """Layout of an Ultralytics data set file: path, train, val, test, names."""
    import yaml

    try:
        found = yaml.safe_load(_text_of(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{shown(path)}: not YAML ({' '.join(str(error).split())})") from error
    names = found.get("names") if isinstance(found, dict) else None
    if not isinstance(names, list | dict):
        raise ValueError(f"{shown(path)}: no list 'names'; expected names of classes")
    numbered = names if isinstance(names, dict) else dict(enumerate(names))
    root = path.parent
    if isinstance(base := found.get("path"), str) and (root / base).is_dir():
        root = root / base
    listed = {} if images is not None else _splits_in_yaml(found, root, path)
    return root, _checked_names(numbered, path), listed or _by_folder(root, images), path


def _splits_in_yaml(found: Mapping[str, Any], root: Path, source: Path) -> _Listed:
    """Pictures of train, val and test: each a folder, a text file of paths, or a list of those."""
    listed: _Listed = {}
    named = [
        (split_of(str(key)), place)
        for key, value in found.items()
        if split_of(str(key)) and value
        for place in (value if isinstance(value, list) else [value])
    ]
    absent = []
    for split, place in named:
        if not isinstance(place, str):
            raise ValueError(f"{shown(source)}: {split} is {place!r}; expected a folder or file")
        tries = [root / place, root / place.removeprefix("../"), root.parent / place]
        if (hit := next(filter(Path.exists, tries), None)) is None:
            absent.append(place)
            continue
        for picture in _pictures_of(hit, root):
            if listed.setdefault(picture, split) != split:
                raise ValueError(
                    f"{shown(source)}: the same pictures in two splits, such as "
                    f"{shown(picture)}; expected splits that share none"
                )
    if absent and len(absent) == len(named):
        raise FileNotFoundError(
            f"{shown(source)}: none of {', '.join(absent)} is in {shown(root)}; mend path, train, "
            "val and test, or name the folder of the pictures (images)"
        )
    return listed


def _pictures_of(place: Path, root: Path) -> list[Path]:
    """Pictures of a folder, or those that a text file lists."""
    if place.is_dir():
        with suppress(ValueError):  # an empty split is the owner's affair, as long as others aren't
            return list_images(place)
        return []
    lines = filter(None, map(str.strip, _text_of(place).splitlines()))
    return [(place.parent if line.startswith("./") else root) / line for line in lines]


def _by_folder(root: Path, images: Path | None) -> _Listed:
    """Pictures below `images`, else root/images, else root; split by a folder named so."""
    place = images or (root / "images" if (root / "images").is_dir() else root)
    splits: _Listed = {}
    for path in list_images(place):
        folders = path.relative_to(place).parts[:-1]
        splits[path] = next(filter(None, map(split_of, folders)), None)
    return splits if all(splits.values()) else dict.fromkeys(splits)


# ---- boxes ---------------------------------------------------------------------------------


def _add_boxes(path: Path, label_file: Path, names: _Names, reading: Reading) -> list[str]:
    """Keep the boxes of one picture; what is wrong with lines, and where."""
    wrong = []
    lines = label_file.read_bytes().decode("utf-8-sig", "replace").splitlines()
    for line, text in enumerate(map(str.strip, lines), 1):
        if not text:
            continue
        try:
            number, share = _parse(text, names)
        except ValueError as error:
            wrong.append(f"{reading.name(label_file)}:{line}: {error}")
            continue
        if header := reading.header(path):
            # Files have six decimals: without rounding, an edge at 10 would become 10.0000004.
            x1, y1, x2, y2 = (round(v * header.size[i % 2], 2) for i, v in enumerate(share))
            reading.add(path, names[number], (x1, y1, x2, y2), None, reading.listed[path])
    return wrong


def _label_file(picture: Path) -> Path | None:
    """labels/…/x.txt for images/…/x.jpg (the last such folder), else x.txt beside it, else None."""
    parts, tries = list(picture.with_suffix(".txt").parts), [picture.with_suffix(".txt")]
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        tries.insert(0, Path(*parts))
    return next(filter(Path.is_file, tries), None)


def _parse(line: str, names: _Names) -> tuple[int, Box]:
    """Class number, and the box as shares (x1, y1, x2, y2) of the picture."""
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError(f"{line[:40]!r} are not numbers") from None
    if number not in names:  # 2.0 is 2, 2.5 is nothing
        raise ValueError(f"class {number:g}, where there are {min(names)} to {max(names)}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{1 + len(values)} values, where a box has 5 and a polygon 7, 9, ...")
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):  # which NaN is not
        raise ValueError(f"{line[:40]!r} has values outside 0 to 1, such as pixels")
    if len(values) == 4:
        x, y, width, height = values
        return int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    across, down = values[::2], values[1::2]
    return int(number), (min(across), min(down), max(across), max(down))
