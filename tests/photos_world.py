"""Folders as users have them, written in a few words, and what is read of them in as few."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from cliplab.data import ProblemKind as Kind, SampleSet

Tree = Mapping[str, Any]
BLOCK = (10.0, 5.0, 20.0, 10.0)  # where pictures of a tree are red, in their stored pixels


def tree(root: Path, files: Tree) -> Path:
    """Files of a text, bytes, JSON, or a picture: "6 blue" is 40 x 20, blue, turned by EXIF."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str) and path.suffix in (".jpg", ".png", ".ppm", ".tga", ".jp2"):
            *turn, colour = content.split()
            image, exif = Image.new("RGB", (40, 20), colour), Image.Exif()
            image.paste("red", tuple(map(int, BLOCK)))
            exif[0x0112] = int(*turn) if turn else 1
            image.save(path, quality=100, subsampling=0, **({"exif": exif} if turn else {}))
        else:
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            path.write_text(text, encoding="utf-8")
    return root


def told(found: SampleSet) -> list[tuple[Any, ...]]:
    """Name and label of each sample, then its box and its split, so far as it has them."""
    return [(one.name, one.label, *filter(None, (one.box_xyxy, one.split))) for one in found]


def said(found: SampleSet) -> dict[Kind, tuple[str, ...]]:
    """Where each kind of problem was met."""
    return {problem.kind: problem.where for problem in found.problems}


def coco(*boxes: Any, name: str = "a.jpg", key: Any = 1, **changes: Any) -> dict[str, Any]:
    """A picture of 40 x 20 with boxes (x, y, width, height) of "x", or annotations of it."""
    annotations = [
        {"id": i, "image_id": key, "category_id": key}
        | (one if isinstance(one, dict) else {"bbox": one})
        for i, one in enumerate(boxes or [[10, 5, 10, 5]])
    ]
    image = {"id": key, "file_name": name, "width": 40, "height": 20}
    kinds = [{"id": key, "name": "x"}]
    return {"images": [image], "categories": kinds, "annotations": annotations} | changes
