"""What `segment` shows in a terminal, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.cli.skeleton import MAX_LINES, aligned, decimals

if TYPE_CHECKING:
    from cliplab.segmentation import Judge, LabelRow, PictureRow, Quality

_MAX_LABELS = 5  # named for one picture
_MEANS = {
    "miou": "mean IoU",
    "oracle_miou": "oracle mean IoU",
    "boundary_miou": "boundary mean IoU",
    "pixel_accuracy": "pixels right",
}
_ORACLE = "every group with its best true label: what the masks are worth, whatever they are called"


def picture_table(
    pictures: Sequence[PictureRow], names: Sequence[str], judge: Judge
) -> Iterator[str]:
    """One line per picture: groups in use, mean IoU where the truth is known, labels by share."""
    from cliplab.segmentation import percent

    judged = bool(judge.pictures)
    lines, ends = [["file", "|", "groups", *(["IoU"] * judged)]], ["labels"]
    for one in pictures[:MAX_LINES]:
        value = judge.pictures.get(one.path)
        lines.append([one.name, "|", str(one.groups), *([decimals(value)] * judged)])
        order = [
            k for k in sorted(range(len(names)), key=lambda k: -one.shares[k]) if one.shares[k]
        ]
        said = [f"{names[k]} {percent(one.shares[k])}" for k in order[:_MAX_LABELS]]
        more = len(order) - _MAX_LABELS
        ends.append(", ".join(said) + (f" and {more} more" if more > 0 else ""))
    for line, end in zip(aligned(lines, text=2), ends, strict=True):
        yield f"{line.replace('  |', '', 1)}  {end}"
    if len(pictures) > MAX_LINES:
        yield f"... and {len(pictures) - MAX_LINES} more; --out FOLDER has all"


def label_table(rows: Sequence[LabelRow], *, judged: bool) -> Iterator[str]:
    """One line per label: how much of it and, where the truth is known, how well."""
    head = ["label", "pixels", "pictures"]
    lines = [[*head, *(["truly", "IoU", "oracle", "boundary"] if judged else [])]]
    for row in rows:
        cells = [row.name, f"{row.share:.1%}", str(row.pictures)]
        if judged:
            true = "-" if row.true_share is None else f"{row.true_share:.1%}"
            cells += [true, *map(decimals, (row.iou, row.oracle_iou, row.boundary_iou))]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1)


def verdict(quality: Quality, pictures: Mapping[Path, float]) -> Iterator[str]:
    """Means over the labels, and the worst confusions."""
    means = quality.means()
    lines = [[text, decimals(means[key])] for key, text in _MEANS.items()]
    yield ""
    for i, line in enumerate(aligned(lines, text=1)):
        yield line + (f"   {_ORACLE}" if i == 1 else "")
    known = sum(quality.of(k)["iou"] is not None for k in quality.known)
    yield (
        f"judged in {len(pictures)} picture{'s' * (len(pictures) != 1)}, over {known} "
        f"label{'s' * (known != 1)} that the truth knows and that occur"
    )
    for true, called, part in quality.confusions(5):
        yield f"  {part:.0%} of {true} is called {called}"
