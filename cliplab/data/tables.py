"""CSV manifests: one row for each picture or box, with label, group and split.

As spreadsheets write them: commas, semicolons or tabs, UTF-8 or (in China) GB18030. The header
decides the separator, and a row that does not fit it is named.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cliplab.data.files import printable, shown
from cliplab.data.reading import Reading, find_file
from cliplab.data.samples import SPLITS, Box, Sample, plain, some, split_of
from cliplab.data.samples import ProblemKind as Kind
from cliplab.runtime import atomic_write

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
    for line, row in _rows(source, reading):
        image, box, said = _parsed(row, f"{shown(source)}:{line}")
        name = _named(image, reading.root)
        before, told = seen.setdefault((name, box), (line, said))
        if told != said:
            raise ValueError(
                f"{shown(source)}: {name} has label, group, split {told} in line {before} and "
                f"{said} in line {line}; keep one"
            )
        if before != line:
            reading.problems[Kind.REPEATED_ROW].append(f"line {line}")
            continue
        if image not in paths:
            paths[image] = find_file(reading.root, image)
            if not paths[image]:
                reading.problems[Kind.MISSING].append(f"{shown(image)} (line {line})")
        if path := paths[image]:
            reading.listed.setdefault(path, said[2])
            reading.add(path, name, said[0], box, group=said[1], split=said[2])
    if not paths:
        raise ValueError(f"{shown(source)}: no rows below the header; expected a picture on each")
    if not reading.listed:
        raise FileNotFoundError(
            f"{shown(source)}: none of its {len(paths)} pictures is in {shown(reading.root)}, such "
            f"as {some(reading.problems[Kind.MISSING])}; paths are relative to the table, or to "
            "images="
        )
    reading.refuse_shares()
    return reading


# ---- the table -----------------------------------------------------------------------------


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
                raise ValueError(
                    f"{shown(source)}:{line}: more or fewer cells than the {len(columns)} of the "
                    f"header, which are apart by {separator!r}; quote cells that contain it"
                )
            if any(map(str.strip, cells.values())):
                yield line, {name: cell.strip() for name, cell in cells.items()}
    except csv.Error as error:
        line = start + 1 + reader.reader.line_num
        raise ValueError(f"{shown(source)}:{line}: {error}; mend the quotes") from error


def _text(source: Path, reading: Reading) -> str:
    """Contents of the file, in the encoding that fits.

    Raises:
        ValueError: no encoding of tables fits.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{shown(source)}: no such file; check the name")
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
    """The separator that gives most columns, and their names, known ones by ours.

    Raises:
        ValueError: no column for pictures, a column twice, or boxes with an edge missing.
    """
    tried = []
    for separator in (",", ";", "\t"):
        cells = [cell.strip().casefold() for cell in next(csv.reader([line], delimiter=separator))]
        columns = [_ALIASES.get(cell, cell) for cell in cells]
        tried.append(("image" in columns, len(columns), separator, columns))
    has_image, _, separator, columns = max(tried, key=lambda one: one[:2])
    if not has_image:
        raise ValueError(
            f"{shown(source)}: no column for pictures among {', '.join(map(repr, columns))}; "
            "expected image, path or file, and columns apart by comma, semicolon or tab"
        )
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise ValueError(f"{shown(source)}: column {name!r} is there twice; rename one")
    edges = [edge for edge in _EDGES if edge in columns]
    if edges and len(edges) < 4:
        raise ValueError(
            f"{shown(source)}: columns {', '.join(edges)} only; expected {', '.join(_EDGES)}"
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


def _named(image: str, root: Path) -> str:
    """A row's path, relative to the root if it lies in it."""
    name = os.path.normpath(image.replace("\\", "/"))
    if os.path.isabs(name) and Path(name).is_relative_to(root.absolute()):
        name = str(Path(name).relative_to(root.absolute()))
    return printable(name.replace(os.sep, "/"))


# ---- writing -------------------------------------------------------------------------------


def write_csv(samples: Iterable[Sample], target: Path, *, force: bool) -> Path:
    """See `SampleSet.write_manifest`."""
    samples = list(samples)
    if target.exists() and not force:
        raise FileExistsError(f"{shown(target)}: exists already; choose another or give force=True")
    columns = COLUMNS if any(sample.box_xyxy for sample in samples) else COLUMNS[:4]
    with atomic_write(target, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for one in samples:
            edges = [repr(value).removesuffix(".0") for value in one.box_xyxy or ()] or [""] * 4
            cells = [_path_from(one, target.parent), one.label, one.group, one.split, *edges]
            writer.writerow(cells[: len(columns)])
    return target


def _path_from(sample: Sample, folder: Path) -> str:
    """Path of a picture from `folder`, with /."""
    try:
        path = Path(os.path.relpath(sample.path, folder)).as_posix()
    except ValueError:  # Windows: on another drive
        path = sample.path.absolute().as_posix()
    if printable(path) != path:
        raise ValueError(f"{sample.name}: its path is not text in UTF-8; rename the file")
    return path
