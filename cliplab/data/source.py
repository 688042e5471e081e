"""One door for every way in which people keep labelled pictures."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cliplab.data.coco import load, read_coco, split_in
from cliplab.data.files import file_names, is_hidden, is_image_name, is_other, printable, shown
from cliplab.data.reading import Reading, read_csv, read_folder
from cliplab.data.sample_set import SampleSet
from cliplab.data.samples import ProblemKind as Kind, Sample, lacked, problems_of, some
from cliplab.data.yolo import NAME_FILES, SETTINGS, read_yolo
from cliplab.runtime import ArgumentError, sha256, unknown_name

KINDS = ("auto", "folder", "csv", "coco", "yolo")
# Tables that lie among pictures are read only under these names: others may be results.
_STEMS = ("manifest", "labels", "metadata", "photos", "annotations", "_annotations")
MANIFESTS = tuple(f"{stem}{suffix}" for stem in _STEMS for suffix in (".csv", ".tsv"))
_SUFFIX_KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".yaml", ".yml", ".data"), "yolo"),
    ".json": "coco",
}
_EXPECTED = (
    "expected a folder of pictures or of class folders, a CSV manifest (.csv, .tsv), "
    "COCO boxes (.json), or a YOLO folder or its data.yaml"
)
_LOSSES = (Kind.NO_BOX, Kind.OUTSIDE, Kind.OTHER_SHAPE, Kind.UNREADABLE, Kind.MALFORMED)


def read_photos(
    source: str | Path,
    *,
    boxes: str | Path | None = None,
    kind: str = "auto",
    box_scale: float = 1.0,
    images: str | Path | None = None,
) -> SampleSet:
    """Samples to be classified, of a folder, a table or a file of boxes: pictures, or their boxes.

    Args:
        source: a folder of pictures, or a CSV manifest, a COCO JSON, a YOLO data.yaml.
        boxes: for a folder of pictures: the table, JSON or YOLO folder that speaks about them.
        kind: "folder" (classes are sub-folders), "csv", "coco" or "yolo"; "auto" finds out.
        box_scale: 1 cuts out the boxes, 1.5 takes in their surroundings as ViLD does.
        images: folder that paths in `source` are relative to, if not its own.

    Raises:
        OSError: a file or folder is missing, or all pictures are.
        ValueError: nothing known, a source that contradicts itself, box_scale without boxes.
    """
    source = _existing(Path(source), kind)
    if not 0 < box_scale < math.inf:
        raise ArgumentError("box_scale", f"got {box_scale}; expected a number above 0, as in 1.5")
    if boxes is not None:
        if not source.is_dir() or images is not None:
            what = "goes with a folder of pictures as the source, and without another of images"
            raise ArgumentError("boxes", f"{shown(boxes)} {what}; got {shown(source)}")
        return read_photos(boxes, kind=kind, box_scale=box_scale, images=source)
    kind, reading = _read(source, kind, images, box_scale)
    if box_scale != 1 and not any(one.box_xyxy for one in reading.samples):
        what = f"got {box_scale}, but {shown(source)} has no boxes; drop it"
        raise ArgumentError("box_scale", what)
    if kind in ("coco", "yolo"):
        bare = reading.listed.keys() - {one.path for one in reading.samples}
        reading.problems[Kind.NOT_BOXED] += sorted(map(reading.name, bare))
    if not reading.samples:
        raise ValueError(_nothing_left(source, reading))
    _drop_contradictions(reading)
    _tell_of_classes(reading)
    return SampleSet.of(reading.samples, reading.root, problems_of(reading.problems))


def read_pictures(
    source: str | Path, *, kind: str = "auto", images: str | Path | None = None
) -> SampleSet:
    """Whole pictures in the order of their names, each with its `regions` and `masks`.

    Of a folder, whatever its sub-folders are called, of a file of boxes, or a single picture.
    Pictures that a COCO file or YOLO folder lists without a box are in it, and `judged`: nothing
    is there. Boxes with scores are a model's answers (`are_answers`): they stay, without labels.

    Arguments are those of `read_photos`; the source may be a single picture, too.

    Raises:
        OSError: a file or folder is missing.
        ValueError: no pictures, or a source that contradicts itself.
    """
    source = _existing(Path(source), kind)
    if source.is_file() and is_image_name(source) and images is None:
        return SampleSet((Sample(source),), source.parent)
    kind, reading = _read(source, kind, images, labelled=False)
    if any(map(reading.problems.get, _LOSSES)) and not reading.samples and not reading.masks:
        raise ValueError(_nothing_left(source, reading))  # else all would be judged to be empty
    found = SampleSet.of(_wholes(reading, kind), reading.root, problems_of(reading.problems))
    return replace(found, are_answers=reading.are_answers, ids=reading.ids)


def _nothing_left(source: Path, reading: Reading) -> str:
    said = "; ".join(map(str, problems_of(reading.problems))) or "it holds none"
    return f"{shown(source)}: no picture and no box left; {said}"


def _wholes(reading: Reading, kind: str) -> list[Sample]:
    """Box after box as whole pictures, with those that are listed and have none."""
    regions: dict[Path, list[Sample]] = {path: [] for path in reading.listed}
    for sample in reading.samples:
        if sample.box_xyxy is not None:
            regions[sample.path].append(sample)
    found = [
        Sample(
            path,
            split=reading.listed[path],
            name=reading.name(path),
            regions=tuple(inside),
            judged=(bool(inside) or kind in ("coco", "yolo")) and not reading.are_answers,
            masks=reading.masks.get(path),
        )
        for path, inside in regions.items()
    ]
    return sorted(found, key=lambda one: one.name)


def _existing(source: Path, kind: str) -> Path:
    if kind not in KINDS:
        raise ValueError(unknown_name("kind", kind, KINDS))
    if not source.exists():
        raise FileNotFoundError(f"{shown(source)}: no such file or folder; check the name")
    inner = source / source.resolve().name  # of a zip that was unpacked into a folder of its name
    if not inner.is_dir() or [p for p in source.iterdir() if not is_hidden(p.name)] != [inner]:
        return source
    only_pictures = all(is_image_name(p) or is_hidden(p.name) for p in inner.iterdir())
    return source if only_pictures else inner  # a class may be called as its set


def _read(
    source: Path,
    kind: str,
    images: str | Path | None = None,
    box_scale: float = 1.0,
    *,
    labelled: bool = True,
) -> tuple[str, Reading]:
    """The kind of a source, and all that it says; folders are classes if it is `labelled`."""
    kind, places, passed = _places_of(source, kind)
    where = None if images is None else Path(images)
    if kind == "folder":
        if where is not None or not source.is_dir():
            raise ValueError(f"{shown(source)}: no table and no boxes; {_EXPECTED}")
        reading = read_folder(source, labelled)
    elif kind == "coco":
        reading = read_coco(places, where, box_scale)
        if reading.are_answers:
            reading.samples = [replace(sample, label=None) for sample in reading.samples]
    else:
        reading = (read_csv if kind == "csv" else read_yolo)(places[0], where, box_scale)
    if where is None and source.is_dir():
        _tell_of_unread(source, kind, reading, passed)
    return kind, reading


def _tell_of_unread(folder: Path, kind: str, reading: Reading, passed: Iterable[Path]) -> None:
    """Note what lies in a folder and is not read: pictures, and what may be labels."""
    problems = reading.problems
    problems[Kind.ANSWERS] += map(reading.name, passed)
    names = sorted(file_names(folder, bool))
    problems[Kind.OTHER_FORMAT] += [printable(name) for name in names if is_other(name)]
    if kind != "folder":
        known = {path.resolve() for path in reading.listed}
        strays = [n for n in filter(is_image_name, names) if (folder / n).resolve() not in known]
        problems[Kind.STRAY_PICTURES] += map(printable, strays)
        return
    stems = {Path(name).stem for name in names if is_image_name(name)}
    for name in map(Path, names):
        ending = name.suffix.lower()
        if ending == ".xml" or (ending in (".json", ".txt") and name.stem in stems):
            problems[Kind.UNREAD_LABELS].append(shown(name))


def _drop_contradictions(reading: Reading) -> None:
    """Take the label off whole pictures whose bytes are also there under another label."""
    alike = [one for one in reading.samples if one.label and not one.box_xyxy]
    alike = [one for one in alike if os.access(one.path, os.R_OK) and os.path.getsize(one.path)]
    for key in (os.path.getsize, sha256):  # what is quick first
        keys, labels = {one.path: key(one.path) for one in alike}, defaultdict[Any, set[Any]](set)
        for one in alike:
            labels[keys[one.path]].add(one.label)
        alike = [one for one in alike if len(labels[keys[one.path]]) > 1]
    reading.problems[Kind.TWO_CLASSES] += [f"{one.name} ({one.label})" for one in alike]
    bare = {one.path: replace(one, label=None) for one in alike}
    reading.samples = [bare.get(one.path, one) for one in reading.samples]


def _tell_of_classes(reading: Reading) -> None:
    """Note pictures without a class, and classes that are alone or missing from a split."""
    samples, problems = reading.samples, reading.problems
    classes = {sample.label for sample in samples if sample.label is not None}
    problems[Kind.UNLABELLED] += [s.name for s in samples if s.label is None] if classes else []
    problems[Kind.ONE_CLASS] += classes if len(classes) == 1 else []
    problems[Kind.LACKED] += lacked(samples)


# ---- recognising ---------------------------------------------------------------------------


def _places_of(source: Path, kind: str = "auto") -> tuple[str, list[Path], list[Path]]:
    """The kind of a source, the files that it consists of, and answers that are no part of it."""
    if source.is_file():
        kind = _SUFFIX_KINDS.get(source.suffix.lower(), "") if kind == "auto" else kind
        if not kind:
            what = "a single picture" if is_image_name(source) else "a file of no known kind"
            raise ValueError(f"{shown(source)}: {what}; {_EXPECTED}")
        return kind, [source], []
    if kind in ("folder", "yolo"):
        return kind, [source], []
    if kind == "auto" and (source / MANIFESTS[0]).is_file():
        return "csv", [source / MANIFESTS[0]], []  # write_manifest fixes things for good: it counts
    tables = [source / name for name in MANIFESTS]
    if kind == "csv":
        tables = sorted(p for p in source.iterdir() if p.suffix.lower() in (".csv", ".tsv"))
    truth, answers = _coco_files(source) if kind in ("auto", "coco") else ([], [])
    found = {
        "coco": truth,
        "csv": [path for path in tables if path.is_file()] if kind in ("auto", "csv") else [],
        "yolo": [source] if kind == "auto" and _is_yolo(source) else [],
    }
    kinds = [name for name, paths in found.items() if paths]
    if len(kinds) == 1 and len(found["csv"]) < 2:
        return kinds[0], found[kinds[0]], answers
    if kind == "auto" and not kinds:
        return "folder", [source], answers
    files = [path.name for name in ("csv", "coco") for path in found[name]]
    files += [name for name in SETTINGS + NAME_FILES if (source / name).is_file()]
    raise ValueError(
        f"{shown(source)}: got the labels {', '.join(map(shown, files)) or '(none)'}; expected one "
        f"file or kind ({kind}): give the file that counts (or the `kind`: {', '.join(KINDS[1:])})"
    )


def is_read_of(path: Path, folder: Path) -> bool:
    """Whether a file is a picture, a table or a list of classes that a folder is read from."""
    if is_image_name(path) or path.name in NAME_FILES + SETTINGS:
        return path.is_relative_to(folder)
    return path in [place.resolve() for place in _places_of(folder)[1]]


def _is_yolo(folder: Path) -> bool:
    """Whether a folder has YOLO's YAML file or obj.data, or names of classes and label files."""
    if any((folder / name).is_file() for name in SETTINGS):
        return True
    # A list of classes may lie beside class folders, too: text files with the names of pictures
    # are what tells.
    stems = {path.stem for path in folder.iterdir() if is_image_name(path)}
    beside = any(path.stem in stems for path in folder.glob("*.txt"))
    has_names = any((folder / name).is_file() for name in NAME_FILES)
    return any((folder / "labels").rglob("*.txt")) or (has_names and beside)


def _coco_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The COCO files of a folder: one, or one for each split; and those with scores: answers."""
    # Where exports put them; the JSON of something else lies about too, so each is looked into.
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    places = [folder, folder / "annotations", *(p for p in inside if split_in(p / "x"))]
    paths = [path for place in places for path in sorted(place.glob("*.json"))]
    boxes = {path: _boxes_in(path) for path in paths if not path.name.startswith(".")}
    answers = [path for path, inside in boxes.items() if any("score" in box for box in inside)]
    found = [path for path, inside in boxes.items() if inside and path not in answers]
    splits = [split_in(path) for path in found]
    if len(found) > 1 and (None in splits or len(set(splits)) < len(splits)):
        names = some((shown(path.relative_to(folder)) for path in found), 8)
        raise ValueError(
            f"{shown(folder)}: {len(found)} COCO files, {names}; expected one, or names that tell "
            "train, val and test once each: give the one file that counts"
        )
    return found, answers


def _boxes_in(path: Path) -> list[dict[str, Any]]:
    """Annotations with a box of a file that may be COCO's."""
    try:
        return [annotation for annotation in load(path)["annotations"] if "bbox" in annotation]
    except (OSError, ValueError):
        return []
