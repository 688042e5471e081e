"""One door for every way in which people keep labelled pictures."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cliplab.data.boxes import check_scale
from cliplab.data.coco import is_coco, read_coco, split_in
from cliplab.data.files import PHONE_SUFFIXES, SUFFIXES, list_images, shown
from cliplab.data.folders import read_folder
from cliplab.data.manifests import read_csv
from cliplab.data.photo_set import PhotoSet
from cliplab.data.remarks import Remarks, some
from cliplab.data.yolo import NAME_FILES, YAML_NAMES, read_yolo
from cliplab.runtime import unknown_name

KINDS = ("auto", "folder", "csv", "coco", "yolo")
# Tables that lie among pictures are read only under these names: others may be results.
MANIFESTS = tuple(
    f"{stem}{suffix}"
    for stem in ("manifest", "labels", "metadata", "photos")
    for suffix in (".csv", ".tsv")
)
_SUFFIX_KINDS = {
    **{suffix: "csv" for suffix in (".csv", ".tsv", ".txt")},
    ".json": "coco",
    **{suffix: "yolo" for suffix in (".yaml", ".yml")},
}
_EXPECTED = (
    "expected a folder of class folders, a CSV manifest (.csv, .tsv), COCO boxes (.json), or a "
    "YOLO folder or its data.yaml"
)


def read_photos(
    source: str | Path,
    *,
    boxes: str | Path | None = None,
    kind: str = "auto",
    box_scale: float = 1.0,
    images: str | Path | None = None,
) -> PhotoSet:
    """Photos of a folder, a table or a file of boxes, with labels, boxes, groups and splits.

    Args:
        source: a folder of pictures, or a CSV manifest, a COCO JSON, a YOLO data.yaml.
        boxes: for a folder of pictures: the table, JSON or YOLO folder that speaks about them.
        kind: "folder" (classes are sub-folders), "csv", "coco" or "yolo"; "auto" finds out.
        box_scale: 1 cuts out the boxes, 1.5 takes in their surroundings as ViLD does.
        images: folder that paths in `source` are relative to, if not its own.

    Raises:
        FileNotFoundError, NotADirectoryError: a file or folder is missing, or all pictures are.
        ValueError: nothing known is recognised, the source contradicts itself, or box_scale is
            given where there is no box.
    """
    source = Path(source)
    check_scale(box_scale)
    if kind not in KINDS:
        raise ValueError(unknown_name("kind", kind, KINDS))
    if not source.exists():
        raise FileNotFoundError(f"{shown(source)}: no such file or folder; check the name")
    if boxes is not None:
        if not source.is_dir() or images is not None:
            raise ValueError(
                f"boxes={shown(boxes)}: expected with a folder of pictures as the source, and "
                f"without images=; got the source {shown(source)}"
            )
        return read_photos(boxes, kind=kind, box_scale=box_scale, images=source)
    kind, places = recognise(source) if kind == "auto" else places_of(source, kind)
    photos = _read(kind, places, Path(images) if images is not None else None, box_scale)
    if box_scale != 1 and not any(photo.box_xyxy for photo in photos):
        raise ValueError(f"box_scale: got {box_scale}, but {shown(source)} has no boxes; drop it")
    return _with_strays(photos, source) if kind == "csv" and source.is_dir() else photos


def _read(kind: str, places: list[Path], images: Path | None, box_scale: float) -> PhotoSet:
    if kind == "folder":
        if images is not None or not places[0].is_dir():
            raise ValueError(f"{shown(places[0])}: no table and no boxes; {_EXPECTED}")
        return read_folder(places[0])
    if kind == "coco":
        return read_coco(places, images=images, box_scale=box_scale)
    read = read_csv if kind == "csv" else read_yolo
    return read(places[0], images=images, box_scale=box_scale)


def _with_strays(photos: PhotoSet, folder: Path) -> PhotoSet:
    """The same set, with a remark on pictures of the folder that its table does not list."""
    said = strays_of(folder, (photo.path for photo in photos), "table")
    return replace(photos, problems=(*photos.problems, *said))


def strays_of(folder: Path, listed: Iterable[Path], what: str) -> tuple[str, ...]:
    """A remark on pictures of a folder that its table or JSON does not list; () if it lists all."""
    known = {path.resolve() for path in listed}
    strays = [path for path in list_images(folder) if path.resolve() not in known]
    if not strays:
        return ()
    remarks = Remarks()
    names = [shown(path.relative_to(folder)) for path in strays]
    remarks.add(f"pictures of the folder that its {what} does not list, left out", *names)
    return remarks.sentences()


def recognise(source: Path) -> tuple[str, list[Path]]:
    """The kind of a source, and the files to read.

    Raises:
        ValueError: a file of no known kind, or a folder of several kinds.
    """
    if source.is_file():
        suffix = source.suffix.lower()
        if suffix in _SUFFIX_KINDS:
            return _SUFFIX_KINDS[suffix], [source]
        picture = "a single picture; " if suffix in SUFFIXES + PHONE_SUFFIXES else ""
        raise ValueError(f"{shown(source)}: {picture or 'a file of no known kind; '}{_EXPECTED}")
    found = {
        "yolo": [source] if _is_yolo(source) else [],
        "coco": _coco_files(source),
        "csv": [source / name for name in MANIFESTS if (source / name).is_file()],
    }
    if (source / MANIFESTS[0]).is_file():  # write_manifest fixes things for good: it counts
        return "csv", [source / MANIFESTS[0]]
    kinds = [kind for kind, paths in found.items() if paths]
    if len(kinds) > 1 or len(found["csv"]) > 1:
        files = [path.name for kind in ("csv", "coco") for path in found[kind]]
        files += [name for name in YAML_NAMES + NAME_FILES if (source / name).is_file()]
        raise ValueError(
            f"{shown(source)}: labels of several kinds, {', '.join(map(shown, files))}; give the "
            f"one file that counts, or kind=, one of {', '.join(KINDS[1:])}"
        )
    return (kinds[0], found[kinds[0]]) if kinds else ("folder", [source])


def places_of(source: Path, kind: str) -> tuple[str, list[Path]]:
    """The files that a source of this kind consists of.

    Raises:
        ValueError: none or too many.
    """
    if not source.is_dir() or kind in ("folder", "yolo"):
        return kind, [source]
    found = _coco_files(source) if kind == "coco" else []
    if kind == "csv":
        found = sorted(p for p in source.iterdir() if p.suffix.lower() in (".csv", ".tsv"))
    if not found or (kind == "csv" and len(found) > 1):
        got = ", ".join(shown(path.name) for path in found) or "none"
        wanted = (
            "*.csv or *.tsv" if kind == "csv" else "*.json with images, annotations, categories"
        )
        raise ValueError(f"{shown(source)}: looked for one {wanted}; got {got}; give the file")
    return kind, found


def _is_yolo(folder: Path) -> bool:
    """Whether a folder has YOLO's YAML file, or names of classes and label files."""
    if any((folder / name).is_file() for name in YAML_NAMES):
        return True
    labels = folder / "labels"
    if labels.is_dir() and any(labels.rglob("*.txt")):
        return True
    if not any((folder / name).is_file() for name in NAME_FILES):
        return False
    # A list of classes may lie beside class folders, too: text files with the names of pictures
    # are what tells.
    stems = {path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}
    return any(path.stem in stems for path in folder.glob("*.txt"))


def _coco_files(folder: Path) -> list[Path]:
    """The COCO files of a folder: one, or one for each split.

    Raises:
        ValueError: several that do not tell their splits.
    """
    # Where exports put them; the JSON of something else lies about too, so each is looked into.
    places = [folder, folder / "annotations", *(p for p in _folders(folder) if split_in(p / "x"))]
    paths = [path for place in places if place.is_dir() for path in sorted(place.glob("*.json"))]
    found = [path for path in paths if not path.name.startswith(".") and _holds_boxes(path)]
    splits = [split_in(path) for path in found]
    if len(found) > 1 and (None in splits or len(set(splits)) < len(splits)):
        names = some((shown(path.relative_to(folder)) for path in found), 8)
        raise ValueError(
            f"{shown(folder)}: {len(found)} COCO files, {names}; expected one, or names that tell "
            "train, val and test once each: give the one file that counts"
        )
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _holds_boxes(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    if not is_coco(found):
        return False
    return any("bbox" in annotation for annotation in found["annotations"])
