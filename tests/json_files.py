"""JSON that commands read and write in tests, and COCO data sets among it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return path


def coco(
    names: Sequence[str],
    pictures: Mapping[str, Sequence[tuple[str, Any]]],
    size: tuple[int, int] = (60, 40),
    **changes: Any,
) -> dict[str, Any]:
    """File name -> (class, x, y, width and height), or (class, segmentation) with a box for all."""
    width, height = size
    images = [
        {"id": i, "file_name": name, "width": width, "height": height}
        for i, name in enumerate(pictures, 1)
    ]
    rows = [(i, *row) for i, inside in enumerate(pictures.values(), 1) for row in inside]
    annotations = [
        {"id": n, "image_id": i, "category_id": names.index(name) + 1, "iscrowd": 0}
        | ({"bbox": at} if is_box(at) else {"bbox": [0, 0, 5, 5], "segmentation": at})
        for n, (i, name, at) in enumerate(rows, 1)
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def is_box(at: Any) -> bool:
    return isinstance(at, list) and not isinstance(at[0], list)
