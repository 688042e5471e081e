"""Where truth comes from: masks of a COCO JSON, label PNGs beside pictures or in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cliplab import data
from cliplab.data import places_of, shown
from cliplab.detection.pictures import Pictures
from cliplab.segmentation.truth import NAMES, OURS, SUFFIX, Numbers, Outlines, Truth, is_ours

OVERLAY = "_overlay.png"


def without_outputs(pictures: Pictures, *, chosen: Path | None = None) -> Pictures:
    """Without PNGs of ours, wherever, and what lies like labels or overlays beside its picture.

    Args:
        pictures: of a source.
        chosen: a picture that is meant, whatever it is: a source of one.

    Raises:
        ValueError: nothing else is there.
    """
    stems = {one.path.with_suffix("") for one in pictures}

    def is_output(path: Path) -> bool:
        if path == chosen:
            return False
        if is_ours(path):
            return True
        ends = [end for end in (SUFFIX, OVERLAY) if path.name.endswith(end)]
        return any(path.with_name(path.name.removesuffix(end)) in stems for end in ends)

    kept = tuple(one for one in pictures if not is_output(one.path))
    if len(pictures) and not kept:
        raise ValueError(
            f"{shown(pictures.root)}: got only pictures that `{OURS}` wrote; expected the pictures "
            "that they are about"
        )
    return replace(pictures, pictures=kept)


def read_truth(
    source: Path, pictures: Pictures, *, kind: str, images: Path | None, truth: Path | None
) -> Truth:
    """What is known of the pixels of `pictures`; of nothing, an empty one.

    Args:
        source: that the pictures are of.
        pictures: to be known.
        kind: of the source.
        images: folder that a COCO file's names are relative to.
        truth: a COCO JSON or a folder of label PNGs; None: what the source itself has.

    Raises:
        FileNotFoundError, ValueError: no such truth, or of none of the pictures.
    """
    if truth is None:
        may_be = source.is_dir() or source.suffix.lower() == ".json"
        if may_be and places_of(source, kind)[0] == "coco":
            return from_coco(source, images, pictures)
        return from_pngs(pictures.root, pictures, beside=True)
    if not truth.exists():
        raise FileNotFoundError(f"--truth {shown(truth)}: no such file or folder; check the name")
    found = (
        from_pngs(truth, pictures, beside=False)
        if truth.is_dir()
        else from_coco(truth, pictures.root, pictures)
    )
    if not found and not found.notes:
        raise ValueError(
            f"--truth {shown(truth)}: nothing about any of the {len(pictures)} pictures of "
            f"{shown(pictures.root)}; expected NAME.png or NAME{SUFFIX} of the same name, or a "
            "COCO JSON with masks"
        )
    return found


# ---- COCO ----------------------------------------------------------------------------------


def from_coco(source: Path, images: Path | None, pictures: Pictures) -> Truth:
    """Masks of COCO files for the pictures; those without a mask are known to show none."""
    told = data.read_pictures(source, kind="coco", images=images)
    known = {one.path.resolve(): one.masks for one in told if one.masks}
    if not known:
        return Truth()
    if told.are_answers:
        note = "the masks have scores, so a model drew them: nothing is judged by them"
        return Truth(notes=[note])
    names = next(iter(known.values())).names
    by_path = {
        one.path: Outlines(masks.size, tuple((names.index(k), m) for k, m in masks.outlines))
        for one in pictures
        if (masks := known.get(one.path.resolve()))
    }
    return Truth(names, by_path)


# ---- label PNGs ----------------------------------------------------------------------------


def from_pngs(folder: Path, pictures: Pictures, *, beside: bool) -> Truth:
    """Label PNGs of the same names, beside the pictures or in a folder of their own."""
    known, answers = {}, 0
    for one in pictures:
        places = _beside(one.path) if beside else _inside(folder, one.name)
        path = next((p for p in places if p.is_file() and p != one.path), None)
        if path is not None and is_ours(path):
            answers += 1
        elif path is not None:
            known[one.path] = Numbers(path)
    truth = Truth(_read_names(folder), known)
    if answers:
        truth.notes.append(
            f"{answers} label PNGs were written by `{OURS}`: answers, no truth; nothing is judged "
            "by them"
        )
    if known and not truth.names:
        truth.notes.append(
            f"{shown(folder)} has no {NAMES}, which tells what the numbers of label PNGs mean: "
            "they are taken as the labels in their order, the background first if there is one"
        )
    return truth


def _beside(path: Path) -> Iterable[Path]:
    return [path.with_name(path.stem + SUFFIX)]


def _inside(folder: Path, name: str) -> Iterable[Path]:
    """Candidates for the picture `name`, in the same sub-folder or in none."""
    whole = PurePosixPath(name).with_suffix("")
    stems = [folder / whole, folder / whole.name]
    return [stem.with_name(stem.name + end) for stem in stems for end in (SUFFIX, ".png")]


def _read_names(folder: Path) -> tuple[str, ...]:
    """Lines of classes.txt.

    Raises:
        ValueError: not UTF-8, an empty line between others, or a name twice.
    """
    path = folder / NAMES
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}: not UTF-8 ({error}); save it as UTF-8") from error
    names = tuple(line.strip() for line in lines)
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(
            f"{shown(path)}: got an empty line or a name twice; expected one name a line, the "
            "first of which is number 0"
        )
    return names
