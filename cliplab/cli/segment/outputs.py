"""Files that `segment` leaves: label PNGs, overlays, the summary as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cliplab.cli.files import finite
from cliplab.cli.legacy import parameters
from cliplab.cli.segment.prepare import truth_note
from cliplab.data import shown
from cliplab.runtime import atomic_write
from cliplab.segmentation.colours import palette
from cliplab.segmentation.truth import OURS, SUFFIX, is_ours
from cliplab.segmentation.truth_sources import OVERLAY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from cliplab.cli.segment.plan import Plan
    from cliplab.cli.segment.summary import Row
    from cliplab.detection.pictures import Picture
    from cliplab.segmentation.finding import Found
    from cliplab.segmentation.judging import Judged

SUMMARY = "summary.json"
_FILES = ("labels", "overlay")  # how the summary calls those of a picture
Files = tuple[Path, ...]  # of one picture: labels and overlay, or panoptic segments


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found, for everything that is written about it."""

    plan: Plan
    found: Found
    rows: Sequence[Row]
    judged: Judged | None
    folder: Path = Path()  # of --out
    targets: Mapping[Path, Files] = field(default_factory=dict)  # path of a picture -> its files

    @property
    def notes(self) -> list[str]:
        """What was assumed, for the user to check."""
        return [*filter(None, (*self.plan.task.notes, self.truth_note)), *self.plan.notes]

    @property
    def truth_note(self) -> str:
        """How many pictures are judged; "" if of none the masks are known."""
        return truth_note(self.plan.task, len(self.judged.pictures) if self.judged else 0)


def picture_targets(
    folder: Path,
    pictures: Sequence[Picture],
    *,
    option: str,
    endings: Sequence[str] = (SUFFIX, OVERLAY),
) -> dict[Path, Files]:
    """Path of a picture -> its files below `folder`, in the sub-folder that the picture is in.

    Raises:
        ValueError: a file would replace a picture that it is made from.
    """
    own = {one.path.resolve() for one in pictures}
    found: dict[Path, Files] = {}
    stems: set[Path] = set()
    for one in pictures:
        # ".." and "/" in the names of a JSON must not lead out of the folder
        parts = [part for part in PurePosixPath(one.name).parts if part not in ("/", "..")]
        whole = folder.joinpath(*parts)
        stem = whole.with_suffix("")
        stem = whole if stem in stems else stem  # a.png beside a.jpg
        stems.add(stem)
        found[one.path] = tuple(stem.with_name(stem.name + end) for end in endings)
        for path in found[one.path]:
            if path.resolve() in own:
                raise ValueError(
                    f"{option} {shown(folder)}: would overwrite {shown(path)}, a picture of "
                    "SOURCE; choose another name"
                )
    return found


def check_targets(folder: Path, targets: Mapping[Path, Files], option: str, *, force: bool) -> None:
    """Find out before the long work that a folder cannot be written to, or holds results.

    Raises:
        OSError: a file in its place, files that exist already, no permission.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: a file; expected a folder to write to")
    summary = folder / SUMMARY
    files = [path for some in targets.values() for path in some]
    taken = [path for path in (summary, *files) if path.exists()]
    if taken and not force:
        half = "" if summary.exists() else f" (of a run that did not finish: no {SUMMARY})"
        raise FileExistsError(
            f"{taken[0]}: exists already{half if option == '--out' else ''}; choose another "
            f"{option}, or pass --force to begin anew and overwrite"
        )
    with suppress(_ProbeError), atomic_write(summary):
        raise _ProbeError


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def remove_former(folder: Path, *, keep: Container[Path]) -> None:
    """Remove the summary of a former run, and those of its PNGs that say that they are ours.

    Left there, masks of pictures that are asked for no longer would pass for this run's, whose
    numbers mean other labels.

    Args:
        folder: of --out.
        keep: pictures that are still to be read, resolved.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["command"] != "segment":
            return
        names = [one[key] for one in summary["pictures"] for key in _FILES if key in one]
        paths = [(folder / name).resolve() for name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # none, or of something else
    for path in paths:
        inside = path.is_relative_to(folder.resolve())
        if inside and path.is_file() and path not in keep and is_ours(path):
            path.unlink()
    (folder / SUMMARY).unlink()


# ---- pictures ------------------------------------------------------------------------------


def save_labels(path: Path, labels: NDArray[np.uint8], colours: Sequence[str]) -> None:
    """Label numbers (H, W) as a PNG with a palette."""
    from PIL import Image

    image = Image.fromarray(labels)
    image.putpalette(palette(colours))
    save_png(path, image)


def save_png(path: Path, image: Image) -> None:
    """Write one picture, which says whose work it is, whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", OURS)
    with atomic_write(path) as file:
        image.save(file, "PNG", pnginfo=about)


# ---- summary -------------------------------------------------------------------------------


def report(args: argparse.Namespace, result: Result) -> dict[str, Any]:
    """Labels and their numbers and colours, provenance, shares of every picture, how good it is."""
    from cliplab.report.provenance import versions

    plan, judged, found = result.plan, result.judged, result.found
    return finite(
        {
            "command": "segment",
            "versions": versions(),
            "parameters": parameters(args),
            "model": dict(plan.model),
            "settings": _plain(asdict(plan.settings)),
            "background": plan.words[0] if plan.vocabulary.has_background else None,
            "labels": [_plain(row.as_dict()) for row in result.rows],
            "counts": {
                "pictures": len(plan.task.pictures),
                "read": len(found),
                "unreadable": len(found.unreadable),
                "judged": len(judged.pictures) if judged else 0,
            },
            "quality": judged.as_dict() if judged else None,
            "pictures": [_picture(result, i) for i in range(len(found))],
            "notes": result.notes,
            "remarks": list(plan.remarks),
            "problems": [*map(str, plan.task.problems), *plan.task.truth.problems],
            "unreadable": [
                {"file": shown(error.path), "cause": error.cause, "remedy": error.remedy}
                for error in found.unreadable
            ],
        }
    )


def _picture(result: Result, i: int) -> dict[str, Any]:
    """One picture: its size, files, groups, shares and, where it was judged, its mean IoU."""
    found = result.found
    picture = found.pictures[i]
    pairs = zip(found.names, found.shares[i], strict=True)
    known: dict[str, Any] = {
        "file": picture.name,
        "width": found.sizes[i][0],
        "height": found.sizes[i][1],
        "groups": found.groups[i],
        "shares": {name: round(share, 5) for name, share in pairs if share > 0},
    }
    if files := result.targets.get(picture.path):
        base = result.folder
        known |= {
            key: shown(path.relative_to(base)) for key, path in zip(_FILES, files, strict=True)
        }
    if result.judged and (value := result.judged.of(picture.path)) is not None:
        known["miou"] = round(value, 4)
    return known


def _plain(value: Any) -> Any:
    """The same with lists for tuples, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
