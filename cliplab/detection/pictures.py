"""Whole pictures with the boxes that are known of them, from any source that photos come from.

`cliplab.data` cuts boxes out; a detector needs the picture around them, and the pictures that
have no box too: what is found there is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cliplab.data import Photo, PhotoSet, read_photos, read_unlabelled, shown
from cliplab.data.coco import listed_pictures, load, root_of, split_in
from cliplab.data.files import PHONE_SUFFIXES, SUFFIXES
from cliplab.data.photo_set import SPLITS
from cliplab.data.remarks import Remarks
from cliplab.data.source import KINDS, places_of, recognise, strays_of
from cliplab.data.yolo import find_layout
from cliplab.runtime import unknown_name

# Remarks on classes to be told apart, and on pictures that only a classifier leaves out.
_NOT_HERE = (
    "all labelled pictures are", "categories without a box", "classes that", "classes with",
    "names without a box", "pictures without",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, and the boxes that its source gives it."""

    path: Path
    name: str  # for people and files, no other's: path relative to the root
    boxes_xyxy: Tensor  # (A, 4) px of the upright picture, inside it
    labels: tuple[str | None, ...] = ()  # A
    split: str | None = None
    judged: bool = False  # True: its boxes are all there are


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in the order of their names, and what was wrong with the source."""

    pictures: tuple[Picture, ...]
    root: Path
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was assumed

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    def __getitem__(self, i: int) -> Picture:
        return self.pictures[i]

    @property
    def class_names(self) -> list[str]:
        """Labels of the boxes, sorted."""
        return sorted({name for one in self for name in one.labels if name is not None})

    @property
    def boxes(self) -> int:
        """How many boxes there are."""
        return sum(len(one.boxes_xyxy) for one in self)

    def select(self, split: str) -> "Pictures":
        """The pictures of one split.

        Raises:
            ValueError: no such split, or no picture in it.
        """
        if split not in SPLITS:
            raise ValueError(unknown_name("split", split, SPLITS))
        kept = tuple(one for one in self if one.split == split)
        if not kept:
            raise ValueError(
                f"--split: no picture of {shown(self.root)} is in {split}; expected a source whose "
                "folders, JSON names or split column tell: leave out --split"
            )
        return replace(self, pictures=kept)


def read_pictures(
    source: str | Path, *, kind: str = "auto", images: str | Path | None = None
) -> Pictures:
    """Pictures of a folder, whatever its sub-folders are called, of a box file, or a single one.

    Args:
        source: a folder, a COCO JSON, a CSV manifest, a YOLO folder or data.yaml, or one picture.
        kind: of `read_photos`; "auto" finds out.
        images: folder that file names in `source` are relative to, if not its own.

    Raises:
        FileNotFoundError, NotADirectoryError: a file or folder is missing.
        ValueError: no pictures, or a source that contradicts itself.
    """
    source, images = Path(source), Path(images) if images is not None else None
    if kind not in KINDS:
        raise ValueError(unknown_name("kind", kind, KINDS))
    if not source.exists():
        raise FileNotFoundError(f"{shown(source)}: no such file or folder; check the name")
    single = source.is_file() and source.suffix.lower() in SUFFIXES + PHONE_SUFFIXES
    places = [source]
    if not single:
        kind, places = recognise(source) if kind == "auto" else places_of(source, kind)
    if single or kind == "folder":
        if images is not None:
            raise ValueError(
                f"{shown(source)}: pictures without boxes; drop images=, which is for a COCO JSON, "
                "a CSV or a YOLO file that speaks of pictures elsewhere"
            )
        one = Picture(source, shown(source.name), torch.zeros(0, 4))
        return Pictures((one,), source.parent) if single else _grouped(read_unlabelled(source), {})
    if kind == "coco":
        found = _read_coco(places, images)
        if not source.is_dir() or images is not None:
            return found
        # Such as the --out of an earlier run, which knows nothing of pictures that came later.
        said = strays_of(source, (one.path for one in found), "JSON")
        return replace(found, problems=(*found.problems, *said))
    photos = read_photos(source, kind=kind, images=images)
    extra = dict(find_layout(places[0], images).images) if kind == "yolo" else {}
    return _grouped(photos, {path: split for path, split in extra.items() if path.is_file()})


def read_boxes(source: str | Path, pictures: Pictures) -> tuple[dict[Path, Tensor], Pictures]:
    """Boxes of a file for pictures that are there: path -> (R, 4) px, and all that it tells.

    Raises:
        FileNotFoundError, ValueError: no such file, no boxes, or boxes of other pictures only.
    """
    told = read_pictures(source, images=pictures.root)
    given = {one.path.resolve(): one.boxes_xyxy for one in told}
    found = {one.path: given[one.path.resolve()] for one in pictures if one.path.resolve() in given}
    if not sum(map(len, found.values())):
        raise ValueError(
            f"{shown(source)}: no box for any of the {len(pictures)} pictures of "
            f"{shown(pictures.root)}; expected boxes in pixels for file names relative to it"
        )
    return found, told


# ---- kinds of sources ------------------------------------------------------------------------


def _read_coco(paths: Sequence[Path], images: Path | None) -> Pictures:
    """Pictures of COCO files, those without a box included."""
    tables, remarks = [load(path) for path in paths], Remarks()
    extra: dict[Path, str | None] = {}
    roots = [root_of(table, path, images) for table, path in zip(tables, paths, strict=True)]
    for table, path, root in zip(tables, paths, roots, strict=True):
        split = split_in(path) if len(paths) > 1 else None
        for found in listed_pictures(table, path, root, remarks).values():
            if found is not None:
                extra[found.path] = split or found.split
    if any(table["annotations"] for table in tables):
        kept = list(paths) if len(paths) > 1 else paths[0]
        photos = _crops(kept, images)
    else:
        photos = PhotoSet((), roots[0], problems=remarks.sentences())
    pictures = _grouped(photos, extra)
    return _without_answers(pictures) if any(map(_are_answers, tables)) else pictures


def _crops(paths: "Path | list[Path]", images: Path | None) -> PhotoSet:
    from cliplab.data.coco import read_coco

    return read_coco(paths, images=images)


def _are_answers(table: Mapping[str, list[Mapping[str, object]]]) -> bool:
    """Whether the boxes have scores: then a detector drew them."""
    return any("score" in annotation for annotation in table["annotations"])


def _without_answers(pictures: Pictures) -> Pictures:
    """The same boxes without their classes, which are another detector's answers, no truth."""
    bare = tuple(replace(one, labels=(None,) * len(one.labels), judged=False) for one in pictures)
    note = (
        "the boxes have scores, so a detector drew them: their classes are its answers, not the "
        "truth, and nothing is judged by them"
    )
    return replace(pictures, pictures=bare, notes=(note,))


def _grouped(photos: PhotoSet, extra: Mapping[Path, str | None]) -> Pictures:
    """Box after box as whole pictures, with those of `extra` (path -> split) that have none."""
    by_path: dict[Path, list[Photo]] = defaultdict(list)
    for photo in photos:
        by_path[photo.path].append(photo)
    bare = {path: split for path, split in extra.items() if path not in by_path}
    names = _names([*by_path, *bare], photos.root)
    found = [_picture(path, boxes, names[path]) for path, boxes in by_path.items()]
    found += [
        Picture(path, names[path], torch.zeros(0, 4), (), split, judged=True)
        for path, split in bare.items()
    ]
    problems = tuple(p for p in photos.problems if not p.startswith(_NOT_HERE))
    return Pictures(tuple(sorted(found, key=lambda one: one.name)), photos.root, problems)


def _picture(path: Path, photos: Sequence[Photo], name: str) -> Picture:
    boxed = [photo for photo in photos if photo.box_xyxy is not None]
    boxes = torch.tensor([photo.box_xyxy for photo in boxed], dtype=torch.float32).reshape(-1, 4)
    labels = tuple(photo.label for photo in boxed)
    return Picture(path, name, boxes, labels, photos[0].split, judged=bool(boxed))


def _names(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Paths relative to the root; outside it the file's name, with parents where others share it.

    Two cameras may both have a 1.png, and what is found must not be said of the other's.
    """
    base, names, outside = root.absolute(), dict[Path, str](), dict[Path, list[str]]()
    for path in paths:
        own = path.absolute()
        if own.is_relative_to(base):
            names[path] = own.relative_to(base).as_posix()
        else:
            parts = own.relative_to(own.anchor).parts
            outside[path] = ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    count = Counter([*names.values(), *(tail for tails in outside.values() for tail in tails)])
    for path, tails in outside.items():
        names[path] = next((tail for tail in tails if count[tail] == 1), path.as_posix())
    return {path: shown(name) for path, name in names.items()}
