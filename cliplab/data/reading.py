"""What every reader needs: files found, boxes brought inside pictures; class folders, manifests.

A manifest is as spreadsheets write it: commas, semicolons or tabs, UTF-8 or (in China) GB18030.
The header decides the separator, and a row that does not fit it is named.
"""

import csv
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cliplab.data.files import Header, UnreadableImage, image_names, is_hidden, read_header, shown
from cliplab.data.samples import (
    SPLITS,
    Box,
    Ids,
    Masks,
    ProblemKind as Kind,
    Sample,
    plain,
    some,
    split_of,
)

_TOLERANCE = 1.0  # pixels that a box may stick out before it is worth a word


class Reading:
    """What a reader has found so far.

    `samples` are in the order of the source, one for each box that covers some of its picture;
    `listed` are all pictures that the source names and that are there, with their splits.
    """

    def __init__(self, root: Path, box_scale: float = 1.0) -> None:
        self.root = root
        self.samples: list[Sample] = []
        self.listed: dict[Path, str | None] = {}
        self.masks: dict[Path, Masks] = {}
        self.ids = Ids()
        self.written: dict[Path, list[tuple[str, Box, bool]]] = defaultdict(list)
        self.classes: Sequence[str] = ()  # that the source names, boxed or not
        self.are_answers = False  # boxes and masks have scores: a model drew them
        self.problems: dict[Kind, list[str]] = defaultdict(list)
        self._box_scale = box_scale
        self._headers: dict[Path, Header | None] = {}
        self._names: dict[Path, str] = {}
        self._numbers: Counter[Path] = Counter()
        self._seen: set[tuple[Path, Box, str | None]] = set()

    def name(self, path: Path) -> str:
        """For people: relative to the root if it is in there."""
        if path not in self._names:
            own, base = path.absolute(), self.root.absolute()
            inside = os.path.normpath(own.relative_to(base)) if own.is_relative_to(base) else path
            self._names[path] = shown(inside)
        return self._names[path]

    def header(self, path: Path) -> Header | None:
        """Size and orientation, read once; None if the picture cannot be read."""
        if path not in self._headers:
            self._headers[path] = None
            try:
                self._headers[path] = read_header(path)
            except UnreadableImage as error:
                self.problems[Kind.UNREADABLE].append(str(error))
        return self._headers[path]

    def add(
        self, path: Path, label: str | None, box: Box | None, group: str | None, split: str | None
    ) -> None:
        """Keep a box, in pixels of the upright picture, or a whole picture where there is none.

        Boxes are enlarged about their centre by `box_scale` (ViLD, arXiv:2104.13921, section 3.2,
        embeds each region at 1 and at 1.5) and clipped to the picture; those without area,
        outside, or given twice are skipped and counted.
        """
        name = self.name(path)
        if box is not None:
            header = self.header(path)
            box = self._inside(name, box, header.size) if header else None
            if box is None:
                return
            if (path, box, label) in self._seen:
                self.problems[Kind.REPEATED_BOX].append(name)
                return
            self._seen.add((path, box, label))
            self._numbers[path] += 1
            name = f"{name}#{self._numbers[path]}"
        self.samples.append(Sample(path, label, box, group, split, name))

    def _inside(self, name: str, box: Box, size: tuple[int, int]) -> Box | None:
        """The box enlarged and clipped to a picture of (width, height), None if nothing is left."""
        (x1, y1, x2, y2), (width, height) = box, size
        where = f"{name} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if not (x1 < x2 and y1 < y2):
            self.problems[Kind.NO_AREA].append(where)
            return None
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            self.problems[Kind.OUTSIDE].append(f"{where} of {width} x {height}")
            return None
        if min(x1, y1, width - x2, height - y2) < -_TOLERANCE:
            self.problems[Kind.CLIPPED].append(f"{where} of {width} x {height}")
        x1, x2 = _grown(x1, x2, self._box_scale, width)
        y1, y2 = _grown(y1, y2, self._box_scale, height)
        return x1, y1, x2, y2


def _grown(low: float, high: float, scale: float, size: int) -> tuple[float, float]:
    if scale != 1:  # else the numbers stay as they are written
        centre, half = (low + high) / 2, scale * (high - low) / 2
        low, high = centre - half, centre + half
    return float(max(low, 0)), float(min(high, size))


def find_file(root: Path, name: str) -> Path | None:
    """The file that a table or JSON calls `name`, maybe with \\ from Windows; None if absent."""
    for text in dict.fromkeys([name, name.replace("\\", "/")]):
        # os.path: a Path for each of 100,000 names that are then joined and asked takes seconds
        if os.path.isfile(os.path.join(root, text)):  # False, too, for names no system allows
            return root / text
    return None


# ---- class folders -------------------------------------------------------------------------


def read_folder(root: Path) -> Reading:
    """Pictures of a folder, labelled by the sub-folder they lie in.

    Pictures of `sheep/`, and of folders below it, are labelled "sheep". If the sub-folders are
    train, val (valid, validation) and test, they are the splits and theirs are the classes.
    Pictures without any sub-folder have no label.
    """
    reading, names = Reading(root), image_names(root)
    splits = _split_folders(names, root)
    for name in names:
        folders = name.split("/")[:-1]
        split = splits[folders.pop(0)] if splits and folders else None
        reading.add(root / name, plain(folders[0]) if folders else None, None, None, split)
    _refuse_mixture(reading)
    used = {root / parent for name in names for parent in Path(name).parents}
    for base in (root, *(root / name for name in splits)):
        for path in sorted(path for path in base.iterdir() if path.is_dir()):
            if path not in used and not is_hidden(path.name):
                reading.problems[Kind.EMPTY_FOLDER].append(reading.name(path))
    return reading


def _split_folders(names: Iterable[str], root: Path) -> dict[str, str]:
    """Folder -> split, if the folders at the top are splits; {} if they are classes."""
    tops = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    found = {top: split for top in tops if (split := split_of(top))}
    others = [top for top in tops if top not in found]
    if others and len(set(found.values())) > 1:
        raise ValueError(
            f"{shown(root)}: got the splits {some(found)} beside other folders ({some(others)}); "
            "expected either splits with class folders in them, or class folders: move or rename"
        )
    return {} if others else found  # one class may well be called "train"


def _refuse_mixture(reading: Reading) -> None:
    for part in {sample.split for sample in reading.samples}:
        inside = [sample for sample in reading.samples if sample.split == part]
        loose = [sample.name for sample in inside if sample.label is None]
        if loose and len(loose) < len(inside):
            classes = dict.fromkeys(sample.label for sample in inside if sample.label)
            raise ValueError(
                f"{shown(reading.root / (part or ''))}: {len(loose)} pictures ({some(loose)}) lie "
                f"beside the class folders {some(classes)}; expected all pictures in class "
                "folders, or none: move them, or use read_unlabelled() to ignore the folders"
            )


# ---- CSV manifests --------------------------------------------------------------------------
COLUMNS = ("image", "label", "group", "split", "x1", "y1", "x2", "y2")
_EDGES = COLUMNS[4:]
_ALIASES = {  # what else a column may be called, the best name first
    "image": ("path", "file", "filename", "file_name", "filepath", "图片", "文件", "文件名"),
    "label": ("class", "category", "标签", "类别"),
    "group": ("animal", "组", "动物"),
    "split": ("划分",),
}


def read_csv(source: Path, images: Path | None, box_scale: float) -> Reading:
    """Pictures and boxes of a table with the columns image, label, group, split, x1, y1, x2, y2.

    Only `image` must be there: a path relative to `images`, by default the file's folder. Boxes
    are pixels of the upright picture, half-open. Further columns are ignored; a row that
    contradicts the header or another row is refused, with its line.
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
        named = {column: (column, *_ALIASES.get(column, ())) for column in COLUMNS}
        best = {c: next((n for n in names if n in cells), "") for c, names in named.items()}
        tried.append((bool(best["image"]), len(cells), separator, cells, best))
    has_image, _, separator, cells, best = max(tried, key=lambda one: one[:2])
    repeated = any(cells.count(name) > 1 for name in best.values() if name)
    if not has_image or repeated or len({bool(best[edge]) for edge in _EDGES}) > 1:
        raise ValueError(
            f"{shown(source)}: got the columns {', '.join(map(repr, cells))}; expected image (or "
            f"path, file), maybe {', '.join(COLUMNS[1:4])} and {', '.join(_EDGES)}, each once, "
            "apart by comma, semicolon or tab"
        )
    ours = {name: column for column, name in best.items() if name}
    return separator, [ours.get(name, str(i)) for i, name in enumerate(cells)]


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
