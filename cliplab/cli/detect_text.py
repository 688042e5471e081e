"""What `detect` shows in a terminal, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cliplab.cli.skeleton import MAX_LINES, aligned, decimals

if TYPE_CHECKING:
    from cliplab.detection import Found, Judged, Row


def picture_table(found: Found) -> Iterator[str]:
    """One line per picture: how many boxes, of what."""
    rows, ends = [["file", "boxes"]], ["what"]
    for picture, one in zip(found.pictures[:MAX_LINES], found.found, strict=False):
        counts = Counter(one.names).most_common()
        rows.append([picture.name, str(len(one))])
        ends.append(", ".join(f"{count} {name}" for name, count in counts) or "nothing")
    for line, end in zip(aligned(rows, text=1), ends, strict=True):
        yield f"{line}  {end}"
    if len(found) > MAX_LINES:
        yield f"... and {len(found) - MAX_LINES} more; --out JSON writes all"


def class_table(rows: Sequence[Row], judged: Judged | None) -> Iterator[str]:
    """One line per class: what was found and, where the truth is known, how well."""
    grouped = any(row.group for row in rows)
    head = ["label", *(["group"] * grouped), "boxes", "pictures", "mean score"]
    lines = [head + (["true", "hit", "wrong", "AP50", "AP"] if judged else [])]
    for row in rows:
        cells = [row.name, *([row.group] * grouped), str(row.boxes), str(row.pictures)]
        cells.append(decimals(row.score))
        if judged:
            cells += ["-" if n is None else str(n) for n in (row.true, row.hit, row.wrong)]
            cells += [decimals(row.ap50), decimals(row.ap)]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1 + grouped)


def verdict(judged: Judged) -> Iterator[str]:
    """Average precision of all and of the groups."""
    lines = [["", "classes", "AP50", "AP", "AR"]]
    for name, one in judged.groups.items():
        lines.append([name, str(one.categories), *map(decimals, (one.ap50, one.ap, one.ar))])
    yield ""
    yield from aligned(lines, text=1)
    pictures = len(judged.rows)
    yield (
        f"judged in {pictures} picture{'s' * (pictures != 1)}: AP over all answers, 100 a picture; "
        "hit and wrong at IoU 0.5 by the boxes that count"
    )
