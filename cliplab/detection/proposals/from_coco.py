"""Proposals from COCO JSON: a data set or a list of results, for pictures that are at hand."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cliplab.data.boxes import Headers
from cliplab.data.coco import ListedPicture, box_of, size_of, upright_box
from cliplab.data.files import shown
from cliplab.data.remarks import Remarks, some
from cliplab.detection.proposals.proposed import Proposals

Key = Path | int | str


def read_proposals(
    source: str | Path, pictures: Sequence[Key], *, data_set: str | Path | None = None
) -> tuple[list[Proposals], tuple[str, ...]]:
    """Boxes that somebody else found, from COCO JSON: N proposals, and remarks on what was left.

    The file is a data set (images and annotations, with or without scores) or a list of results
    (image_id, bbox and maybe score). Categories are not looked at, so they may be missing or wrong.

    Args:
        source: the JSON.
        pictures: N files, whose boxes are scaled or turned where the JSON was made for another size
            of them; or N ids or file names, as the JSON has them.
        data_set: COCO JSON that tells the file names of the ids in a list of results; not needed if
            these ids are file names, or the numbers that files are called by, as COCO's own are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not COCO, boxes of none of the pictures, boxes as shares of the picture, or
            scores of some boxes only or outside 0 to 1.
    """
    source, remarks = Path(source), Remarks()
    images, rows = _load(source)
    if data_set is not None:
        images = _load(Path(data_set))[0]
    told = {key: image for image in images if (key := _key(image, "id")) is not None}
    keys = {key for row in rows if (key := _key(row, "image_id")) is not None}
    index = _index(source, pictures, keys, told)
    places = {key: _place(pictures[n], told.get(key, {})) for key, n in index.items()}
    headers, found = Headers(remarks), defaultdict(list)
    for number, row in enumerate(rows):
        key = _key(row, "image_id")
        if key not in index:
            remarks.add("boxes of other pictures, left out", f"image_id {row.get('image_id')!r}")
        elif box := _placed(row, f"box {number}", places[key], headers, remarks):
            found[index[key]].append(box)
    if empty := [_shown(picture) for n, picture in enumerate(pictures) if n not in found]:
        remarks.add("pictures without a proposal", *empty)
    _check_found(source, [box for boxes in found.values() for box in boxes])
    return [_collected(found[n]) for n in range(len(pictures))], remarks.sentences()


def _load(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images and boxes of a data set, or no images and the boxes of a list of results."""
    try:
        loaded = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown(path)}: no such file; check the name") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)}: not JSON ({error}); export it again as COCO") from error
    images: Any = []
    boxes = loaded
    if isinstance(loaded, dict):
        images, boxes = loaded.get("images"), loaded.get("annotations", [])
    for part in (images, boxes):
        if not isinstance(part, list) or not all(isinstance(row, dict) for row in part):
            raise ValueError(
                f"{shown(path)}: neither COCO's data set (an object with the lists images and "
                "annotations) nor its results (a list of objects with image_id, bbox and score)"
            )
    return images, boxes


def _key(row: Mapping[str, Any], name: str) -> int | str | None:
    return key if isinstance(key := row.get(name), int | str) else None


def _index(
    source: Path, pictures: Sequence[Key], keys: set[int | str], told: Mapping[Any, Mapping]
) -> dict[int | str, int]:
    """Image id of the JSON -> number of its picture; ids of other pictures are left out."""
    by_name: dict[str, set[int]] = defaultdict(set)
    for n, picture in enumerate(pictures):
        for name in _called(picture, numbers=not told):
            by_name[name].add(n)
    index: dict[int | str, int] = {}
    for whole in (True, False):  # folders count as long as they tell one picture from another
        taken = set(index.values())
        for key in sorted(keys - index.keys(), key=str):
            name = str(told.get(key, {}).get("file_name", key)).replace("\\", "/")
            asked = {name, str(key)} if whole else {name.rpartition("/")[2]}
            if found := set().union(*(by_name.get(one, ()) for one in asked)) - taken:
                index[key] = _only(found, name, pictures)
    if twice := [n for n, count in Counter(index.values()).items() if count > 1]:
        ids = some(repr(key) for key, n in index.items() if n == twice[0])
        raise ValueError(
            f"{shown(source)}: image ids {ids} all seem to be {_shown(pictures[twice[0]])}; "
            "expected one id for each picture: name them with their folders"
        )
    if keys and pictures and not index:
        raise ValueError(
            f"{shown(source)}: its boxes are of {some(sorted(map(repr, keys)))}; expected some of "
            f"{some(map(_shown, pictures))}: give data_set=, the COCO JSON that tells which file "
            "each image_id is"
        )
    return index


def _called(picture: Key, *, numbers: bool) -> set[str]:
    """What a JSON may call a picture: an id; a path from any folder on, maybe only its number."""
    if not isinstance(picture, Path):
        return {str(picture)}
    parts = picture.as_posix().split("/")
    names = {"/".join(parts[i:]) for i in range(len(parts))}
    if numbers:
        names |= (
            {picture.stem, picture.stem.lstrip("0")} if picture.stem.isdigit() else {picture.stem}
        )
    return names


def _only(found: set[int], name: str, pictures: Sequence[Key]) -> int:
    if len(found) > 1:
        raise ValueError(
            f"{shown(name)}: may be {some(_shown(pictures[n]) for n in sorted(found))}; expected "
            "names in the JSON with the folders that tell them apart, and each picture once"
        )
    return min(found)


def _shown(picture: Key) -> str:
    return shown(picture) if isinstance(picture, Path) else repr(picture)


def _place(picture: Key, told: Mapping[str, Any]) -> ListedPicture | None:
    """The file and the size that its boxes refer to; None where there is no file to look at."""
    if not isinstance(picture, Path):
        return None
    return ListedPicture(picture.as_posix(), picture, size_of(told), None)


Scored = tuple[tuple[float, ...], float | None]  # x0, y0, x1, y1 and the score


def _placed(
    row: Mapping[str, Any],
    where: str,
    place: ListedPicture | None,
    headers: Headers,
    remarks: Remarks,
) -> Scored | None:
    """Box and score of a row in pixels of the upright picture; None if it is no use."""
    box, score = box_of(row), row.get("score")
    if box is None:
        remarks.add("rows without four finite numbers in 'bbox', skipped", where)
    elif not (box[0] < box[2] and box[1] < box[3]):
        remarks.add("boxes without area, skipped", where)
    elif row.get("iscrowd") == 1:
        remarks.add("boxes of crowds (iscrowd), skipped", where)
    elif score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
        remarks.add("boxes whose score is no finite number, skipped", f"{where}: {score!r}")
    else:
        upright = upright_box(box, place, headers.of(place.path), remarks) if place else box
        return None if upright is None else (upright, score)
    return None


def _check_found(source: Path, found: Sequence[Scored]) -> None:
    """Refuse boxes in another unit, and scores that are no objectness."""
    if found and all(-0.01 <= value <= 1.01 for box, _ in found for value in box):
        raise ValueError(
            f"{shown(source)}: all boxes lie between 0 and 1, the first is {found[0][0]}; expected "
            "pixels: multiply by the picture's width and height"
        )
    scores = [score for _, score in found if score is not None]
    if 0 < len(scores) < len(found):
        raise ValueError(
            f"{shown(source)}: {len(scores)} of {len(found)} boxes have a score; expected all, or "
            "none"
        )
    if wrong := [score for score in scores if not 0 <= score <= 1]:
        raise ValueError(
            f"{shown(source)}: {len(wrong)} scores are not within 0 to 1, such as {wrong[0]:g}; "
            "expected objectness: pass logits through a sigmoid, or leave the scores out"
        )


def _collected(found: Sequence[Scored]) -> Proposals:
    boxes = torch.tensor([box for box, _ in found], dtype=torch.float32).reshape(-1, 4)
    scored = bool(found) and found[0][1] is not None
    return Proposals(boxes, torch.tensor([s for _, s in found]).float() if scored else None).best(
        len(found)
    )
