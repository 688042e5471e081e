"""CSV manifests: one row for each picture or box, with label, group and split.

As spreadsheets write them: commas, semicolons or tabs, UTF-8 or (in China) GB18030. The header
decides the separator, and a row that does not fit it is named.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from cliplab.data.files import shown
from cliplab.data.reading import Reading, find_file
from cliplab.data.samples import SPLITS, Box, ProblemKind as Kind, plain, some, split_of

COLUMNS = ("image", "label", "group", "split", "x1", "y1", "x2", "y2")
_EDGES = COLUMNS[4:]
_ALIASES = {  # what else a column may be called
    **dict.fromkeys(("path", "file", "filename", "file_name", "filepath"), "image"),
    **dict.fromkeys(("图片", "文件", "文件名"), "image"),
    **dict.fromkeys(("class", "category", "标签", "类别"), "label"),
    **dict.fromkeys(("animal", "组", "动物"), "group"),
    "划分": "split",
}


def read_csv(source: Path, images: Path | None, box_scale: float) -> Reading:
    """Pictures and boxes of a table with the columns image, label, group, split, x1, y1, x2, y2.

    Only `image` must be there: a path relative to `images`, by default the file's folder. Boxes
    are pixels of the upright picture, half-open. Further columns are ignored.

    Raises:
        FileNotFoundError: no such file, or none of its pictures exists.
        ValueError: it is not a table, has no column for pictures, or a row contradicts the
            header or another row; with the line.
    """
    reading = Reading(images if images is not None else source.parent, box_scale)
    seen: dict[tuple[str, Box | None], tuple[int, tuple[str | None, ...]]] = {}
    paths: dict[str, Path | None] = {}
    edges: list[float] = []
    for line, row in _rows(source, reading):
        image, box, said = _parsed(row, f"{shown(source)}:{line}")
        if image not in paths:
            paths[image] = find_file(reading.root, image)
            if not paths[image]:
                reading.problems[Kind.MISSING].append(f"{shown(image)} (line {line})")
        path = paths[image]
        name = reading.name(path) if path else shown(image)
        before, told = seen.setdefault((name, box), (line, said))
        if told != said:
            raise ValueError(
                f"{shown(source)}: {name} has label, group, split {told} in line {before} and "
                f"{said} in line {line}; keep one"
            )
        edges += box or ()
        if before != line:
            reading.problems[Kind.REPEATED_ROW].append(f"line {line}")
        elif path:
            label, group, split = said
            reading.listed.setdefault(path, split)
            reading.add(path, label, box, group, split)
    if not paths:
        raise ValueError(f"{shown(source)}: no rows below the header; expected a picture on each")
    if not reading.listed:
        raise FileNotFoundError(
            f"{shown(source)}: none of its {len(paths)} pictures is in {shown(reading.root)}, such "
            f"as {some(reading.problems[Kind.MISSING])}; paths are relative to the table, or to "
            "images="
        )
    if edges and max(map(abs, edges)) <= 1.01:
        raise ValueError(
            f"{shown(source)}: all boxes lie between 0 and 1, the first is {tuple(edges[:4])}; "
            "expected pixels: multiply by the picture's width and height"
        )
    return reading


def _rows(source: Path, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells by column of the rows with something in them."""
    lines = list(io.StringIO(_text(source, reading), newline=""))  # as csv wants them
    start = 1 if lines and lines[0].lower().startswith("sep=") else 0  # Excel's own first line
    while start < len(lines) and not lines[start].strip():
        start += 1
    if start == len(lines):
        raise ValueError(f"{shown(source)}: the file is empty; expected a header with image, label")
    separator, columns = _header(lines[start], source)
    reader = csv.DictReader(lines[start + 1 :], columns, delimiter=separator, strict=True)
    try:
        for cells in reader:
            line = start + 1 + reader.line_num
            extra = cells.pop(None, [])  # spreadsheets pad rows with empty cells
            if any(map(str.strip, extra)) or None in cells.values():
                raise csv.Error(
                    f"more or fewer cells than the {len(columns)} of the header, which are apart "
                    f"by {separator!r}"
                )
            if any(map(str.strip, cells.values())):
                yield line, {name: cell.strip() for name, cell in cells.items()}
    except csv.Error as error:
        line = start + 1 + reader.reader.line_num
        raise ValueError(
            f"{shown(source)}:{line}: {error}; mend the quotes, and quote cells with {separator!r}"
        ) from error


def _text(source: Path, reading: Reading) -> str:
    """Contents of the file, in the encoding that fits."""
    data = source.read_bytes()
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
    for encoding in ["utf-16"] if utf16 else ["utf-8-sig", "gb18030"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding != "utf-8-sig":
            said = f"{shown(source.name)} is read as {encoding.upper()}"
            reading.problems[Kind.ENCODING].append(said)
        return text
    raise ValueError(f"{shown(source)}: not a text in UTF-8 or GB18030; save it as CSV UTF-8")


def _header(line: str, source: Path) -> tuple[str, list[str]]:
    """The separator that gives most columns, and their names, known ones by ours."""
    tried = []
    for separator in (",", ";", "\t"):
        cells = [cell.strip().casefold() for cell in next(csv.reader([line], delimiter=separator))]
        columns = [_ALIASES.get(cell, cell) for cell in cells]
        tried.append(("image" in columns, len(columns), separator, columns))
    has_image, _, separator, columns = max(tried, key=lambda one: one[:2])
    count = {name: columns.count(name) for name in COLUMNS}
    if not has_image or max(count.values()) > 1 or len({count[edge] for edge in _EDGES}) > 1:
        raise ValueError(
            f"{shown(source)}: got the columns {', '.join(map(repr, columns))}; expected image (or "
            f"path, file), maybe {', '.join(COLUMNS[1:4])} and {', '.join(_EDGES)}, each once, "
            "apart by comma, semicolon or tab"
        )
    return separator, [name if name in COLUMNS else str(i) for i, name in enumerate(columns)]


def _parsed(row: Mapping[str, str], where: str) -> tuple[str, Box | None, tuple[str | None, ...]]:
    """What one row says: picture, box, and (label, group, split)."""
    if not row["image"]:
        raise ValueError(f"{where}: no picture in this row; expected its path")
    cell = row.get("split", "")
    if cell and not split_of(cell):
        raise ValueError(f"{where}: split {cell!r}; expected {', '.join(SPLITS)}")
    texts = [plain(row.get(column, "")) or None for column in ("label", "group")]
    edges = [row.get(edge, "") for edge in _EDGES]
    return row["image"], _box(edges, where) if any(edges) else None, (*texts, split_of(cell))


def _box(cells: list[str], where: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(cell) for cell in cells)
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        raise ValueError(
            f"{where}: box {', '.join(map(repr, cells))}; expected four numbers x1 < x2 and "
            "y1 < y2 in pixels, with a decimal point, corners, not width and height; or four "
            "empty cells"
        )
    return x1, y1, x2, y2
