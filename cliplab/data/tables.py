"""Tables as spreadsheets write them: find encoding, separator and columns, name odd rows.

Commas, semicolons or tabs, UTF-8 or (in China) GB18030; the header decides the separator, and a
row that does not fit it is named.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliplab.data.files import shown
from cliplab.data.folders import plain, split_of
from cliplab.data.photo_set import SPLITS, Box
from cliplab.data.remarks import Remarks

COLUMNS = ("image", "label", "group", "split", "x1", "y1", "x2", "y2")
# What each column may be called, the best name first.
ALIASES = {
    "image": (
        "image",
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "图片",
        "文件",
        "文件名",
    ),
    "label": ("label", "class", "category", "标签", "类别"),
    "group": ("group", "animal", "组", "动物"),
    "split": ("split", "划分"),
    **{edge: (edge,) for edge in ("x1", "y1", "x2", "y2")},
}
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_EDGES = COLUMNS[4:]


@dataclass(frozen=True)
class Row:
    """What one line of a manifest says."""

    line: int
    image: str
    label: str | None
    group: str | None
    split: str | None
    box_xyxy: Box | None


def read_rows(source: Path, remarks: Remarks) -> Iterator[Row]:
    """Rows of a table, in order.

    Raises:
        FileNotFoundError, ValueError: as `manifests.read_csv`.
    """
    lines = list(io.StringIO(_text(source, remarks), newline=""))  # as csv wants them
    start = 1 if lines and lines[0].lower().startswith("sep=") else 0  # Excel's own first line
    while start < len(lines) and not lines[start].strip():
        start += 1
    if start == len(lines):
        raise ValueError(f"{shown(source)}: the file is empty; expected a header with image, label")
    separator, places = _header(lines[start], source)
    width = len(next(csv.reader([lines[start]], delimiter=separator)))
    reader = csv.reader(lines[start + 1 :], delimiter=separator, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            line = start + 1 + reader.line_num
            raise ValueError(f"{shown(source)}:{line}: {error}; mend the quotes") from error
        if cells is None:
            return
        line = start + 1 + reader.line_num
        if any(cell.strip() for cell in cells):
            _check_width(cells, width, separator, f"{shown(source)}:{line}")
            yield _row(cells, places, line, source)


def _text(source: Path, remarks: Remarks) -> str:
    """Contents of the file, in the encoding that fits.

    Raises:
        ValueError: no encoding of tables fits.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{shown(source)}: no such file; check the name")
    data = source.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]  # Excel's "Unicode text"
    else:
        encodings = ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding != "utf-8-sig":
            remarks.add(f"{shown(source.name)} is read as {encoding.upper()}, not as UTF-8")
        return text
    raise ValueError(
        f"{shown(source)}: not a text in UTF-8 or GB18030; save the table as CSV UTF-8"
    )


def _header(line: str, source: Path) -> tuple[str, dict[str, int]]:
    """The separator, and the place of each known column.

    Raises:
        ValueError: no column for pictures, a column twice, or boxes with an edge missing.
    """
    tried = []
    for separator in _SEPARATORS:
        names = [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
        folded = [name.casefold() for name in names]
        found = {column: _place(column, folded, source) for column in COLUMNS}
        tried.append((len(names), separator, names, found))
    with_image = [entry for entry in tried if entry[3]["image"] is not None]
    _, separator, names, found = max(with_image or tried, key=lambda entry: entry[0])
    if not with_image:
        raise ValueError(
            f"{shown(source)}: no column for pictures among {', '.join(map(repr, names))}; "
            f"expected {' or '.join(ALIASES['image'][:4])}, and columns apart by comma, semicolon "
            "or tab"
        )
    places = {column: place for column, place in found.items() if place is not None}
    edges = [edge for edge in _EDGES if edge in places]
    if edges and len(edges) < 4:
        raise ValueError(
            f"{shown(source)}: columns {', '.join(edges)} only; expected {', '.join(_EDGES)}"
        )
    return separator, places


def _place(column: str, folded: Sequence[str], source: Path) -> int | None:
    for alias in ALIASES[column]:
        if folded.count(alias) > 1:
            raise ValueError(f"{shown(source)}: column {alias!r} is there twice; rename one")
        if alias in folded:
            return folded.index(alias)
    return None


def _check_width(cells: list[str], width: int, separator: str, where: str) -> None:
    """Refuse a row with more or fewer cells than the header, and say if it has other separators."""
    while len(cells) > width and not cells[-1].strip():
        cells.pop()  # spreadsheets pad with empty cells
    if len(cells) == width:
        return
    text = separator.join(cells)
    for other, name in _SEPARATORS.items():
        if other != separator and len(next(csv.reader([text], delimiter=other))) == width:
            raise ValueError(
                f"{where}: apart by {name}, where the header has {_SEPARATORS[separator]}; "
                "use one separator in the whole file"
            )
    raise ValueError(
        f"{where}: {len(cells)} cells, where the header has {width}; quote cells that contain the "
        f"separator ({_SEPARATORS[separator]}), and leave none out"
    )


def _row(cells: Sequence[str], places: dict[str, int], line: int, source: Path) -> Row:
    cell = {column: cells[place].strip() for column, place in places.items()}
    where = f"{shown(source)}:{line}"
    if not cell["image"]:
        raise ValueError(f"{where}: no picture in this row; expected its path")
    split = split_of(cell.get("split", ""))
    if cell.get("split") and not split:
        raise ValueError(f"{where}: split {cell['split']!r}; expected {', '.join(SPLITS)}")
    label = plain(cell.get("label", "")) or None
    box = _box([cell[edge] for edge in _EDGES], where) if "x1" in cell else None
    return Row(line, cell["image"], label, plain(cell.get("group", "")) or None, split, box)


def _box(cells: Sequence[str], where: str) -> Box | None:
    if not any(cells):
        return None
    try:
        x1, y1, x2, y2 = (float(cell) for cell in cells)
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        raise ValueError(
            f"{where}: box {', '.join(map(repr, cells))}; expected four numbers x1, y1, x2, y2 in "
            "pixels, with a decimal point, or four empty cells"
        )
    if x2 < x1 or y2 < y1:
        raise ValueError(
            f"{where}: box {x1:g}, {y1:g}, {x2:g}, {y2:g}; expected x1 < x2 and y1 < y2 in pixels: "
            "corners, not width and height"
        )
    return x1, y1, x2, y2
