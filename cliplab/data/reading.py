"""What every reader needs: files found, boxes brought inside pictures; class folders, manifests.

A manifest is as spreadsheets write it: commas, semicolons or tabs, UTF-8 or (in China) GB18030.
"""

import csv
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliplab.data.files import Header, UnreadableImage, image_names, read_header, shown
from cliplab.data.samples import (
    SPLITS,
    Box,
    Ids,
    Masks,
    ProblemKind as Kind,
    Problems,
    Sample,
    plain,
    same_shape,
    some,
    split_of,
)

Size = tuple[int, int]  # width and height in pixels
Said = tuple[str | None, str | None, str | None]  # label, group and split
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
        self.are_answers = False  # boxes and masks have scores: a model drew them
        self.problems: Problems = defaultdict(list)
        self._box_scale = box_scale
        self._headers: dict[Path, Header | None] = {}
        self._names: dict[Path, str] = {}
        self._numbers: Counter[Path] = Counter()

    def name(self, path: Path) -> str:
        """For people and files: relative to the root, or an absolute path that leads elsewhere."""
        if path not in self._names:
            own, base = path.absolute(), self.root.absolute()
            name = own.relative_to(base) if own.is_relative_to(base) else own
            self._names[path] = shown(os.path.normpath(name))
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

    def find(self, names: Iterable[str], root: Path | None = None) -> dict[str, Path]:
        """The files that are there, of all that a table or JSON names."""
        found, guessed = find_files(root or self.root, names)
        self.problems[Kind.GUESSED] += map(shown, guessed)
        return found | guessed

    def add(self, path: Path, said: Said, box: Box | None = None, size: Size | None = None) -> None:
        """Keep a box, or a whole picture where there is none; `said` are label, group and split.

        Boxes are in pixels of a picture of `size`, else of the upright one. They are enlarged
        about their centre by `box_scale` (ViLD, arXiv:2104.13921, section 3.2, embeds each region
        at 1 and at 1.5) and clipped to the picture; those without area or outside are skipped and
        counted.
        """
        name, (label, group, split) = self.name(path), said
        if box is not None:
            header = self.header(path)
            box = self._upright(name, box, size, header) if header else None
            if header is None or box is None:
                return
            self.written[path].append((label or "", box, False))
            if (box := self._inside(name, box, header.size)) is None:
                return
            self._numbers[path] += 1
            name = f"{name}#{self._numbers[path]}"
        self.samples.append(Sample(path, label, box, group, split, name))

    def _upright(self, name: str, box: Box, size: Size | None, header: Header) -> Box | None:
        """The box in pixels of the upright picture; None if nobody can tell where it is."""
        if size is None or size == header.size:
            # A picture upside down or mirrored has the same size: what people see is what counts.
            if header.orientation > 1 and (size is None or header.stored == header.size):
                self.problems[Kind.AS_SEEN].append(name)
            return box
        if size == header.stored:
            self.problems[Kind.TURNED].append(name)
            return _turned(box, header)
        sizes = f"{name} ({size[0]} x {size[1]}, the file has {header.size[0]} x {header.size[1]})"
        if not same_shape(size, header.size):
            self.problems[Kind.OTHER_SHAPE].append(sizes)
            return None
        self.problems[Kind.SCALED].append(sizes)
        x1, y1, x2, y2 = box
        across, down = header.size[0] / size[0], header.size[1] / size[1]
        return x1 * across, y1 * down, x2 * across, y2 * down

    def _inside(self, name: str, box: Box, size: Size) -> Box | None:
        """The box enlarged and clipped to a picture of (width, height), None if nothing is left."""
        (x1, y1, x2, y2), (width, height) = box, size
        where = f"{name} ({x1:g}, {y1:g}, {x2:g}, {y2:g}) of {width} x {height}"
        if x1 >= min(x2, width) or y1 >= min(y2, height) or x2 <= 0 or y2 <= 0:
            self.problems[Kind.OUTSIDE].append(where)
            return None
        if min(x1, y1, width - x2, height - y2) < -_TOLERANCE:
            self.problems[Kind.CLIPPED].append(where)
        if (scale := self._box_scale) != 1:  # else the numbers stay as they are written
            x, y, across, down = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
            x1, x2 = x - scale * across, x + scale * across
            y1, y2 = y - scale * down, y + scale * down
        return float(max(x1, 0)), float(max(y1, 0)), float(min(x2, width)), float(min(y2, height))


def _turned(box: Box, header: Header) -> Box:
    """A box in pixels of the stored picture, which EXIF turns (5 to 8), in those of the upright."""
    x1, y1, x2, y2 = box
    width, height = header.stored
    left, right = (height - y2, height - y1) if header.orientation in (6, 7) else (y1, y2)
    top, bottom = (width - x2, width - x1) if header.orientation in (7, 8) else (x1, x2)
    return left, top, right, bottom


def find_files(root: Path, names: Iterable[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files that a table or JSON calls by these names: found, and guessed; absent ones in none.

    Names may have \\ from Windows, and may begin with folders of another machine: a file that only
    the end of a name leads to is a guess, unless two names lead there.
    """
    found, guessed = dict[str, Path](), dict[str, Path]()
    for name in dict.fromkeys(names):
        text = name.replace("\\", "/")
        for end in [name, text, *(text[at.end() :] for at in re.finditer("/+", text))]:
            # os.path: a Path for each of 100,000 names that are joined and asked takes seconds
            if os.path.isfile(os.path.join(root, end)):  # False, too, for names no system allows
                (found if end in (name, text) else guessed)[name] = root / end
                break
    used = Counter([*found.values(), *guessed.values()])
    return found, {name: path for name, path in guessed.items() if used[path] == 1}


# ---- class folders -------------------------------------------------------------------------


def read_folder(root: Path, labelled: bool = True) -> Reading:
    """Pictures of a folder, labelled by the sub-folder they lie in, or not `labelled`.

    Pictures of `sheep/`, and of folders below it, are labelled "sheep". If the sub-folders are
    train, val (valid, validation) and test, they are the splits and theirs are the classes.
    Pictures without any sub-folder have no label, nor have those of a single one called images.
    """
    reading, names = Reading(root), image_names(root)
    if not labelled:
        reading.listed = dict.fromkeys(root / name for name in names)
        return reading
    bare = {name.split("/")[0].casefold() for name in names} <= {"images", "jpegimages"}
    splits = _split_folders(names, root)
    for name in names:
        folders = name.split("/")[:-1]
        split = splits[folders.pop(0)] if splits and folders else None
        label = plain(folders[0]) if folders and not bare else None
        reading.add(root / name, (label, None, split))
    _refuse_mixture(reading)
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
                "folders, or none: move them (or take all of them as `unlabelled`)"
            )


# ---- CSV manifests --------------------------------------------------------------------------
COLUMNS = ("image", "label", "group", "split", "x1", "y1", "x2", "y2")
_ALIASES = {  # what else a column may be called, the best name first
    "image": ("path", "file", "filename", "filepath", "图片", "文件", "文件名"),
    "label": ("class", "classname", "category", "标签", "类别"),
    "group": ("animal", "组", "动物"),
    "split": ("划分",),
}
# Columns of a box: its corners; or a corner, width and height.
_CORNERS = (COLUMNS[4:], ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_EXTENTS = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
# Columns that speak of boxes in a way that is not read.
_COORDINATES = {
    *("x", "y", "x1", "y1", "x2", "y2", "xmin", "ymin", "xmax", "ymax", "cx", "cy", "xc", "yc"),
    *("xcenter", "ycenter", "centerx", "centery", "box", "bbox", "boxes", "polygon", "points"),
    *("boundingbox", "xyxy", "xywh"),
}


def read_csv(source: Path, images: Path | None, box_scale: float) -> Reading:
    """Pictures and boxes of a table with the columns image, label, group, split, x1, y1, x2, y2.

    Or under other usual names. Only `image` must be there: a path relative to `images`, by default
    the file's folder. Boxes are half-open, in pixels of a picture of `width` x `height`, else of
    the upright one. A row that contradicts the header is refused, with its line.
    """
    reading = Reading(images if images is not None else source.parent, box_scale)
    edges: list[float] = []
    rows = [(n, row, *_parsed(row, f"{shown(source)}:{n}")) for n, row in _rows(source, reading)]
    first: dict[str, int] = {}  # line of each picture
    for line, _, image, *_ in rows:
        first.setdefault(image, line)
    paths = reading.find(first)
    absent = [f"{shown(i)} (line {n})" for i, n in first.items() if i not in paths]
    reading.problems[Kind.MISSING] += absent
    splits: dict[tuple[Path, Box | None], str | None] = {}
    for line, row, image, box, said in rows:
        edges += box or ()
        if path := paths.get(image):
            if (before := splits.setdefault((path, box), said[2])) != said[2]:
                where = f"{shown(source)}:{line}: {shown(image)}"
                raise ValueError(f"{where} has split {said[2]}, and {before} above; keep one")
            reading.listed.setdefault(path, said[2])
            reading.add(path, said, box, size_of(row))
    if not rows:
        raise ValueError(f"{shown(source)}: no rows below the header; expected a picture on each")
    if not reading.listed:
        raise FileNotFoundError(
            f"{shown(source)}: none of its {len(first)} pictures is in {shown(reading.root)}, such "
            f"as {some(absent)}; {where_from(images, 'the table')}"
        )
    if edges and max(map(abs, edges)) <= 1.01:
        raise ValueError(
            f"{shown(source)}: all boxes lie between 0 and 1, the first is {tuple(edges[:4])}; "
            "expected pixels: multiply by the picture's width and height"
        )
    return reading


def _rows(source: Path, reading: Reading) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells by column of the rows with something in them."""
    lines = list(io.StringIO(text_of(source, reading.problems), newline=""))  # as csv wants them
    separator, columns = _header(lines[0] if lines else "", source, reading.problems)
    reader = csv.DictReader(lines[1:], columns, delimiter=separator, strict=True)
    try:
        for cells in reader:
            extra = cells.pop(None, [])  # spreadsheets pad rows with empty cells
            if any(map(str.strip, extra)) or None in cells.values():
                raise csv.Error(
                    f"more or fewer cells than the {len(columns)} of the header, which are apart "
                    f"by {separator!r}"
                )
            if any(map(str.strip, cells.values())):
                yield 1 + reader.line_num, {name: cell.strip() for name, cell in cells.items()}
    except csv.Error as error:
        raise ValueError(
            f"{shown(source)}:{1 + reader.reader.line_num}: {error}; mend the quotes, and quote "
            f"cells with {separator!r}"
        ) from error


def text_of(source: Path, problems: Problems) -> str:
    """Contents of a table or a list of names, in the encoding that fits."""
    data = source.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):
        with suppress(UnicodeDecodeError):
            if "\0" not in (text := data.decode(encoding)):
                if encoding == "gb18030":
                    problems[Kind.ENCODING].append(f"{shown(source.name)} is read as GB18030")
                return text
    raise ValueError(f"{shown(source)}: not a text in UTF-8 or GB18030; save it as UTF-8")


def _header(line: str, source: Path, problems: Problems) -> tuple[str, list[str]]:
    """The separator of most columns, and their names, known ones by ours."""
    separator = max(",;\t", key=line.count)
    told = next(csv.reader([line], delimiter=separator), [""])
    cells = [_column_name(cell) for cell in told]
    named = {column: (column, *names) for column, names in _ALIASES.items()}
    best = {c: next((n for n in names if n in cells), "") for c, names in named.items()}
    edges = next((way for way in _CORNERS + _EXTENTS if set(way) <= set(cells)), ())
    read = (*filter(None, best.values()), *edges)
    twice = [t for t, n in zip(told, cells, strict=True) if n in read and cells.count(n) > 1]
    boxes = [t for t, n in zip(told, cells, strict=True) if not edges and n in _COORDINATES]
    if not best["image"] or twice or boxes:
        of_boxes = f"cannot read boxes from {some(map(repr, boxes))}"
        fault = f"{some(map(repr, twice))} mean the same" if twice else of_boxes
        raise ValueError(
            f"{shown(source)}: {fault if best['image'] else 'no column names pictures'}; got the "
            f"columns {', '.join(map(repr, told)) or 'none'}; expected image (or path, file), "
            f"maybe {', '.join(COLUMNS[1:4])} and a box in pixels as one of "
            f"{'; '.join(map(', '.join, _CORNERS + _EXTENTS))}, each once, apart by comma, "
            "semicolon or tab; rename them, or leave out what is not to be read"
        )
    ours = {name: column for column, name in best.items() if name}
    box = ("x1", "y1", "w", "h") if edges in _EXTENTS else COLUMNS[4:]
    ours |= {"width": "width", "height": "height"} | dict(zip(edges, box, strict=False))
    if not best["label"]:
        problems[Kind.UNREAD_COLUMNS] += [
            t for t, n in zip(told, cells, strict=True) if n not in ours
        ]
    return separator, [ours.get(name, str(i)) for i, name in enumerate(cells)]


def _column_name(cell: str) -> str:
    """A column as it is compared: File_Name is filename, bbox_x is x."""
    return re.sub(r"^b?box(?=[xywhlt])", "", re.sub(r"[\W_]+", "", cell.casefold()))


def size_of(row: Mapping[str, Any]) -> Size | None:
    """(width, height) in pixels of the picture that boxes refer to; None if it is not told."""
    try:
        width, height = (int(float(row[key])) for key in ("width", "height"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (width, height) if 0 < width < 1e9 and 0 < height < 1e9 else None


def where_from(images: Path | None, source: str) -> str:
    """What to do where no picture is found."""
    if images is None:
        return f"paths are relative to {source} (or name the folder of the pictures: `images`)"
    return f"give the folder they are in, not {shown(images)}, or mend the paths in {source}"


def _parsed(row: Mapping[str, str], where: str) -> tuple[str, Box | None, Said]:
    """What one row says: picture, box, and (label, group, split)."""
    if not row["image"]:
        raise ValueError(f"{where}: no picture in this row; expected its path")
    cell = row.get("split", "")
    if cell and not split_of(cell):
        raise ValueError(f"{where}: split {cell!r}; expected {', '.join(SPLITS)}")
    label, group = (plain(row.get(column, "")) or None for column in ("label", "group"))
    return row["image"], _box(row, where), (label, group, split_of(cell))


def _box(row: Mapping[str, str], where: str) -> Box | None:
    """The box of a row, None if its cells are empty."""
    extent = "w" in row
    cells = [row.get(edge, "") for edge in ("x1", "y1", *("wh" if extent else ("x2", "y2")))]
    if not any(cells):
        return None
    try:
        x1, y1, x2, y2 = (float(cell) for cell in cells)
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if extent:
        x2, y2 = x1 + x2, y1 + y2
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        wanted = "a corner, width and height" if extent else "corners, not width and height"
        raise ValueError(
            f"{where}: box {', '.join(map(repr, cells))}; expected four numbers in pixels, with a "
            f"decimal point, {wanted}; or four empty cells"
        )
    return x1, y1, x2, y2
