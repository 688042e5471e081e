"""YOLO folders: one text file of boxes for each picture, class names beside them.

`images/a.jpg` has its boxes in `labels/a.txt`, or beside itself in `a.txt`: lines of a class
number and centre, width and height as shares of the upright picture, or a polygon in shares.
The names are in `data.yaml` (`dataset.yaml`) or Darknet's `obj.data`, which may name the splits
too, or in `classes.txt`. Where `kpt_shape` says that key points follow a box, they are not read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.data.files import file_names, image_names, shown
from cliplab.data.reading import Reading, find_files, text_of
from cliplab.data.samples import Box, ProblemKind as Kind, Problems, plain, split_of

SETTINGS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml", "obj.data")
NAME_FILES = ("classes.txt", "obj.names")
_Names = Mapping[int, str]
_Listed = dict[Path, str | None]  # picture -> split


def read_yolo(source: Path, images: Path | None, box_scale: float) -> Reading:
    """Pictures and boxes of a YOLO data set: a folder, its YAML file or its obj.data.

    `images` is the folder of the pictures, where neither the settings nor the layout tell it.
    Malformed lines and unknown classes are skipped and counted, each with file and line.
    """
    path = _settings_file(source)
    root = path.parent.parent if path.parent.name == "labels" else path.parent
    reading, used = Reading(root, box_scale), {path}
    said = _settings(path, reading.problems)
    if isinstance(base := said.get("path"), str) and (root / base).is_dir():
        reading.root = root = root / base
    names, points = _names(said, path), _points(said, path)
    listed = {} if images is not None else _splits(said, path, reading)
    for picture, split in (listed or _by_folder(root, images)).items():
        if not picture.is_file():
            reading.problems[Kind.MISSING].append(reading.name(picture))
            continue
        reading.listed[picture] = split
        if label_file := _label_file(picture):
            used.add(label_file)
            _add_boxes(picture, label_file, names, points, reading)
    strays = sorted(set((root / "labels").rglob("*.txt")) - used)
    reading.problems[Kind.STRAY_LABELS] += map(reading.name, strays)
    return reading


# ---- where things are ----------------------------------------------------------------------


def _settings_file(source: Path) -> Path:
    """The file with the names of the classes."""
    lists = [base / name for base in (source, source / "labels") for name in NAME_FILES]
    places = [source, *(source / name for name in SETTINGS), *lists]
    if path := next(filter(Path.is_file, places), None):
        return path
    raise FileNotFoundError(
        f"{shown(source)}: no names of classes; looked for {', '.join(SETTINGS[:2])}, obj.data, "
        f"{', '.join(NAME_FILES)} there and in labels: write classes.txt with a name on each line"
    )


def _settings(path: Path, problems: Problems) -> Mapping[str, Any]:
    """What a settings file says: path, train, val, test, names and kpt_shape, all as text."""
    import yaml

    text = text_of(path, problems).rstrip()
    if path.name in NAME_FILES:
        return {"names": text.splitlines()}
    if path.suffix == ".data":  # Darknet's, which CVAT writes: key = value
        pairs = [line.partition("=")[::2] for line in text.splitlines()]
        found = {key.strip(): value.strip() for key, value in pairs}
        files, guessed = find_files(path.parent, [found.get("names", "")])
        lists = [*files.values(), *guessed.values()]
        return {**found, "names": _settings(lists[0], problems)["names"] if lists else []}
    try:
        found = yaml.load(text, yaml.BaseLoader)  # where `no` is a name, and no False
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict) or not isinstance(found.get("names"), list | dict):
        raise ValueError(f"{shown(path)}: no list 'names'; expected names of classes")
    return found


def _names(said: Mapping[str, Any], path: Path) -> _Names:
    names = said["names"]
    numbered = names if isinstance(names, dict) else {str(i): n for i, n in enumerate(names)}
    for key, name in numbered.items() or [("0", "")]:
        if not key.isdecimal() or not isinstance(name, str) or not plain(name):
            raise ValueError(f"{shown(path)}: class {key!r} is {name!r}; expected number and name")
    return {int(key): plain(name) for key, name in numbered.items()}


def _points(said: Mapping[str, Any], path: Path) -> int:
    """How many values of key points follow each box."""
    shape = said.get("kpt_shape") or ["0"]
    if not isinstance(shape, list) or not all(isinstance(n, str) and n.isdecimal() for n in shape):
        raise ValueError(f"{shown(path)}: kpt_shape is {shape!r}; expected two numbers, as [17, 3]")
    return math.prod(map(int, shape))


def _splits(said: Mapping[str, Any], path: Path, reading: Reading) -> _Listed:
    """Pictures of train, val and test: each a folder, a text file of paths, or a list of those."""
    listed: _Listed = {}
    named = [
        (split, place)
        for key, value in said.items()
        if (split := split_of(str(key))) and value
        for place in (value if isinstance(value, list) else [value])
    ]
    absent, root = [], reading.root
    for split, place in named:
        if not isinstance(place, str):
            raise ValueError(f"{shown(path)}: {split} is {place!r}; expected a folder or file")
        tries = [root / place, root / place.removeprefix("../"), root.parent / place]
        hits = [*filter(Path.exists, tries), *reading.find([place]).values()]
        if not hits:
            absent.append(f"{split}: {place}")
            continue
        pictures = _pictures_of(hits[0], reading)
        own = [picture for picture in pictures if listed.setdefault(picture, split) == split]
        if pictures and not own:
            absent.append(f"{split}: {place} (all in {listed[pictures[0]]})")
    if absent and len(absent) == len(named):
        raise FileNotFoundError(
            f"{shown(path)}: none of {', '.join(absent)} is in {shown(root)}; mend path, train, "
            "val and test (or name the folder of the pictures: `images`)"
        )
    reading.problems[Kind.MISSING_SPLIT] += absent
    return listed


def _pictures_of(place: Path, reading: Reading) -> list[Path]:
    """Pictures of a folder, or those that a text file lists."""
    if place.is_dir():
        return [place / name for name in sorted(file_names(place))]
    lines = filter(None, map(str.strip, text_of(place, reading.problems).splitlines()))
    names = [str(place.parent / line) if line.startswith("./") else line for line in lines]
    found = reading.find(names)
    return [found.get(name, reading.root / name) for name in names]


def _by_folder(root: Path, images: Path | None) -> _Listed:
    """Pictures below `images`, else root/images, else root; split by a folder named so."""
    place = images or (root / "images" if (root / "images").is_dir() else root)
    splits: _Listed = {}
    for name in image_names(place):
        folders = name.split("/")[:-1]
        splits[place / name] = next(filter(None, map(split_of, folders)), None)
    return splits if all(splits.values()) else dict.fromkeys(splits)


# ---- boxes ---------------------------------------------------------------------------------


def _add_boxes(path: Path, label_file: Path, names: _Names, points: int, reading: Reading) -> None:
    """Keep the boxes of one picture; name the lines that are none."""
    lines = label_file.read_text("utf-8-sig", "replace").splitlines()
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            number, share = _parse(text, names, points)
        except ValueError as error:
            reading.problems[Kind.MALFORMED].append(f"{reading.name(label_file)}:{line}: {error}")
            continue
        if header := reading.header(path):
            # Files have six decimals: without rounding, an edge at 10 would become 10.0000004.
            x1, y1, x2, y2 = (round(v * header.size[i % 2], 2) for i, v in enumerate(share))
            reading.add(path, (names[number], None, reading.listed[path]), (x1, y1, x2, y2))


def _label_file(picture: Path) -> Path | None:
    """labels/…/x.txt for images/…/x.jpg (the last such folder), else x.txt beside it, else None."""
    parts, tries = list(picture.with_suffix(".txt").parts), [picture.with_suffix(".txt")]
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        tries.insert(0, Path(*parts))
    return next(filter(Path.is_file, tries), None)


def _parse(line: str, names: _Names, points: int) -> tuple[int, Box]:
    """Class number, and the box as shares (x1, y1, x2, y2) of the picture."""
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError(f"{line[:40]!r} are not numbers") from None
    if number not in names:  # 2.0 is 2, 2.5 is nothing
        raise ValueError(f"class {number:g}, where there are {min(names)} to {max(names)}")
    if points and len(values) in (4, 4 + points):
        values = values[:4]
    elif points or (len(values) != 4 and (len(values) < 6 or len(values) % 2)):
        others = f"{5 + points} with key points" if points else "a polygon 7, 9, ..."
        raise ValueError(f"{1 + len(values)} values, where a box has 5 and {others}")
    if not all(-1 <= value <= 2 for value in values):  # which NaN is not
        raise ValueError(f"{line[:40]!r} has values far outside 0 to 1, such as pixels")
    if len(values) == 4:
        x, y, width, height = values
        return int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    across, down = values[::2], values[1::2]
    return int(number), (min(across), min(down), max(across), max(down))
