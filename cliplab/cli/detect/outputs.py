"""Files that `detect` leaves: COCO boxes, annotated pictures, the report as JSON."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cliplab.cli.detect.prepare import Task
from cliplab.cli.files import describe, finite
from cliplab.cli.legacy import parameters
from cliplab.data import shown
from cliplab.detection.boxes import Detections
from cliplab.detection.finding import Detector, Found
from cliplab.detection.judging import Judged, summarise
from cliplab.detection.pictures import Picture
from cliplab.detection.words import Query
from cliplab.runtime import atomic_write, write_json
from cliplab.viz.boxes import box_colour, plot_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

_SHORTEST, _LONGEST = 800, 1600  # pixels of the longer side of an annotated picture
_INCHES = 8.0  # of it, so that tags grow with the picture


# ---- annotated pictures ----------------------------------------------------------------------


def picture_targets(folder: Path, pictures: Sequence[Picture]) -> dict[Path, Path]:
    """Path of a picture -> file of its annotated copy, a JPEG of the same name below `folder`.

    Raises:
        ValueError: a copy would replace a picture that it is made from.
    """
    own = {one.path.resolve() for one in pictures}
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for one in pictures:
        # ".." and "/" in the names of a JSON must not lead out of the folder
        parts = [part for part in PurePosixPath(one.name).parts if part not in ("/", "..")]
        whole = folder.joinpath(*parts)
        target, count = whole.with_suffix(".jpg"), 1
        while target in taken:  # a.png beside a.jpg, or names that were equal but for the ".."
            target = whole.with_name(f"{whole.name}{f'-{count}' if count > 1 else ''}.jpg")
            count += 1
        if target.resolve() in own:
            raise ValueError(
                f"--pictures {shown(folder)}: would overwrite {shown(target)}, a picture of "
                "SOURCE; give another folder"
            )
        targets[one.path] = target
        taken.add(target)
    return targets


def annotated(image: "Image", found: Detections) -> "Image":
    """The picture with its boxes and tags, 800 to 1,600 pixels long."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    longer = max(image.size)
    scale = min(max(longer, _SHORTEST), _LONGEST) / longer
    size = [max(1, round(side * scale)) for side in image.size]
    large = image.resize(size, Image.Resampling.LANCZOS)
    dpi = max(size) / _INCHES
    # axes are placed by hand, whatever layout the settings ask for
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi, layout="none")
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    colours = {name: box_colour(k) for k, name in enumerate(found.phrases)}
    boxes = (found.boxes_xyxy * scale).tolist()
    plot_boxes(ax, large, boxes, found.names, found.scores.tolist(), colours=colours)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_jpeg(image: "Image", path: Path) -> None:
    """Write one picture, whole or not at all."""
    with atomic_write(path) as file:
        image.save(file, "JPEG", quality=90, optimize=True)


# ---- report ----------------------------------------------------------------------------------


def write_report(
    args: argparse.Namespace,
    task: Task,
    detector: Detector,
    query: Query,
    found: Found,
    judged: Judged | None,
) -> None:
    """Parameters, provenance, counts and numbers of each class to --json."""
    from cliplab.report.provenance import versions

    teacher = getattr(detector, "teacher", None)
    report = {
        "command": "detect",
        "versions": versions(),
        "parameters": parameters(args),
        "model": detector.describe(query),
        "cut": asdict(found.cut),
        "teacher": describe(teacher) if teacher is not None else None,
        "classes": [
            {"name": name, "prompt": prompt}
            for name, prompt in zip(task.classes.names, task.classes.prompts, strict=True)
        ],
        "counts": {
            "pictures": len(task.pictures),
            "read": len(found),
            "unreadable": len(found.unreadable),
            "boxes": found.boxes,
            "judged": len(judged.rows) if judged else 0,
        },
        "summary": [row.as_dict() for row in summarise(found, query, judged)],
        "precision": _precision(judged) if judged else None,
        "notes": [*task.notes, *query.notes],
        "remarks": list(query.remarks),
        "problems": list(map(str, task.problems)),
        "unreadable": [
            {"file": shown(error.path), "cause": error.cause, "remedy": error.remedy}
            for error in found.unreadable
        ],
    }
    write_json(args.json, finite(report))


def _precision(judged: Judged) -> Mapping[str, Any]:
    return {name: one.as_dict() for name, one in judged.groups.items()}
