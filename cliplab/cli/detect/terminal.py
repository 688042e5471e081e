"""What `detect` shows in a terminal, as lines of text."""

from collections import Counter
from collections.abc import Iterator, Sequence

from cliplab.cli.skeleton import aligned
from cliplab.detection.finding import Found
from cliplab.detection.judging import Judged, Row

MAX_LINES = 60  # of the printed pictures; --out has all


def picture_table(found: Found) -> Iterator[str]:
    """One line per picture: how many boxes, of what."""
    lines = [["file", "boxes", "what"]]
    for picture, one in zip(found.pictures[:MAX_LINES], found.found, strict=False):
        counts = Counter(one.names)
        what = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        lines.append([picture.name, str(len(one)), what or "nothing"])
    for name, boxes, what in zip(*_columns(lines), strict=True):
        yield f"{name}  {boxes}  {what}".rstrip()
    if len(found) > MAX_LINES:
        yield f"... and {len(found) - MAX_LINES} more; --out JSON writes all"


def _columns(lines: Sequence[Sequence[str]]) -> tuple[list[str], list[str], list[str]]:
    """File names padded to the left, numbers to the right, texts as they are."""
    names = list(aligned([[line[0], "|"] for line in lines], text=2))
    width = max(len(line[1]) for line in lines)
    return (
        [name.removesuffix("|").removesuffix("  ") for name in names],
        [line[1].rjust(width) for line in lines],
        [line[2] for line in lines],
    )


def class_table(rows: Sequence[Row], judged: Judged | None) -> Iterator[str]:
    """One line per class: what was found and, where the truth is known, how well."""
    grouped = any(row.group for row in rows)
    head = ["label", *(["group"] * grouped), "boxes", "pictures", "mean score"]
    lines = [head + (["true", "hit", "wrong", "AP50", "AP"] if judged else [])]
    for row in rows:
        cells = [row.name, *([row.group] * grouped), str(row.boxes), str(row.pictures)]
        cells.append(_share(row.score))
        if judged:
            cells += ["-" if n is None else str(n) for n in (row.true, row.hit, row.wrong)]
            cells += [_share(row.ap50), _share(row.ap)]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1 + grouped)


def verdict(judged: Judged) -> Iterator[str]:
    """Average precision of all and of the groups."""
    lines = [["", "classes", "AP50", "AP", "AR"]]
    for name, one in judged.groups.items():
        lines.append([name, str(one.categories), *map(_share, (one.ap50, one.ap, one.ar))])
    yield ""
    yield from aligned(lines, text=1)
    pictures = len(judged.rows)
    yield (
        f"judged in {pictures} picture{'s' * (pictures != 1)}: AP over all answers, 100 a picture; "
        "hit and wrong at IoU 0.5 by the boxes that count"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
