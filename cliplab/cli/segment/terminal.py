"""What `segment` shows in a terminal, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cliplab.cli.segment.summary import Row, percent
from cliplab.cli.skeleton import aligned
from cliplab.segmentation.finding import Found
from cliplab.segmentation.judging import Judged

MAX_LINES = 60  # of the printed pictures; --out has all
MAX_LABELS = 5  # named for one picture
_NUMBERS = {
    "miou": "mean IoU",
    "oracle_miou": "oracle mean IoU",
    "boundary_miou": "boundary mean IoU",
    "pixel_accuracy": "pixels right",
}
ORACLE = "every group with its best true label: what the masks are worth, whatever they are called"


def picture_table(found: Found, judged: Judged | None) -> Iterator[str]:
    """One line per picture: groups in use, mean IoU where the truth is known, labels by share."""
    lines = [["file", "|", "groups", *(["IoU"] if judged else [])]]
    ends = ["labels"]
    for i, picture in enumerate(found.pictures[:MAX_LINES]):
        value = judged.of(picture.path) if judged else None
        lines.append([picture.name, "|", str(found.groups[i]), *([share(value)] * bool(judged))])
        ends.append(shares_text(found.names, found.shares[i]))
    for line, end in zip(aligned(lines, text=2), ends, strict=True):
        yield f"{line.replace('  |', '', 1)}  {end}"
    if len(found) > MAX_LINES:
        yield f"... and {len(found) - MAX_LINES} more; --out FOLDER has all"


def shares_text(names: Sequence[str], shares: Sequence[float]) -> str:
    """ "grass 61 %, sheep 12 %": the largest first."""
    order = sorted(range(len(names)), key=lambda k: -shares[k])
    there = [k for k in order if shares[k] > 0]
    said = [f"{names[k]} {percent(shares[k])}" for k in there[:MAX_LABELS]]
    more = len(there) - MAX_LABELS
    return ", ".join(said) + (f" and {more} more" if more > 0 else "")


def label_table(rows: Sequence[Row], judged: Judged | None) -> Iterator[str]:
    """One line per label: how much of it and, where the truth is known, how well."""
    lines = [["label", "pixels", "pictures", *(_HEAD if judged else [])]]
    for row in rows:
        cells = [row.name, f"{row.share:.1%}", str(row.pictures)]
        if judged:
            true = "-" if row.true_share is None else f"{row.true_share:.1%}"
            cells += [true, *map(share, (row.iou, row.oracle_iou, row.boundary_iou))]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1)


_HEAD = ("truly", "IoU", "oracle", "boundary")


def verdict(judged: Judged) -> Iterator[str]:
    """Means over the labels, and the worst confusions."""
    means = judged.means()
    lines = [[text, share(means[key])] for key, text in _NUMBERS.items()]
    notes = {1: f"   {ORACLE}"}
    yield ""
    for i, line in enumerate(aligned(lines, text=1)):
        yield line + notes.get(i, "")
    pictures = len(judged.pictures)
    known = sum(judged.value(judged.quality.iou, k) is not None for k in judged.known)
    yield (
        f"judged in {pictures} picture{'s' * (pictures != 1)}, over {known} "
        f"label{'s' * (known != 1)} that the truth knows and that occur"
    )
    for true, called, part in judged.quality.confusions(5):
        yield f"  {part:.0%} of {true} is called {called}"


def share(value: float | None) -> str:
    """Three decimals, or a dash for what is not known."""
    return "-" if value is None else f"{value:.3f}"
