"""Large collections of pictures as a list of places: folders, tables, tar shards.

Shards are read with Python's `tarfile`, not with the library webdataset: a list of (file, offset,
size) lets a run that was stopped read just what is missing, and tells of a damaged member, where
a stream ends without a word. Their layout is that of WebDataset: a tar file that is not compressed.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cliplab import data
from cliplab.data import UnreadableImage, shown

TOO_LARGE = 2**30  # bytes of a file: no picture that is read has as many
_COLUMNS = ("image", "path", "file", "filename", "filepath")  # that name the picture, best first


class Item(NamedTuple):
    """Where the bytes of one picture are, and the key that is its name for good."""

    key: str
    path: str
    start: int = 0
    size: int | None = None  # None: to the end of the file

    def read(self) -> bytes:
        """The bytes; an UnreadableImage if they are not there, or not all of them."""
        size = TOO_LARGE if self.size is None else min(self.size, TOO_LARGE)
        try:
            with open(self.path, "rb") as file:
                file.seek(self.start)
                content = file.read(size)
        except OSError as error:
            why = error.strerror or str(error)
            raise UnreadableImage(self.key, why, f"check {shown(self.path)}") from error
        if len(content) == TOO_LARGE:
            raise UnreadableImage(self.key, "1 GiB or more", "export it smaller")
        if self.size is not None and self.size > len(content):
            raise UnreadableImage(self.key, "the tar file ends in it", "copy that file again")
        return content


@dataclass(frozen=True)
class Collection:
    """Pictures in a fixed order, each with a key of its own."""

    items: Sequence[Item]
    root: Path  # what keys are relative to
    problems: Sequence[object] = ()  # what could not be listed, a sentence each


def read_collection(source: str | Path, *, images: str | Path | None = None) -> Collection:
    """Every picture of a source; none is opened.

    Args:
        source: a folder of pictures, or of tar shards; a tar file; a table (CSV; or Parquet with a
            column `image` of paths, and `key` if they shall have other names); COCO or YOLO boxes,
            of which the whole pictures are taken.
        images: folder that the paths of a table are relative to, if not its own.

    Raises:
        OSError: no such file or folder.
        ValueError: no pictures; a key that occurs twice; what is none of the above.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{shown(source)}: no such file or folder; check the name")
    if source.suffix.lower() == ".parquet":
        found = _of_parquet(source, Path(images or source.parent))
    elif shards := _shards(source):
        root, problems = source if source.is_dir() else source.parent, list[str]()
        items = [item for shard in shards for item in _members(shard, root, problems)]
        found = Collection(items, root, problems)
    else:
        pictures = data.read_pictures(source, images=images)
        items = [Item(one.name, str(one.path)) for one in pictures]
        found = Collection(items, pictures.root, pictures.problems)
    if not found.items:
        said = "".join(f"; {problem}" for problem in found.problems[:3])
        raise ValueError(f"{shown(source)}: no pictures in it{said}; give one that has some")
    counts = Counter(item.key for item in found.items)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise ValueError(
            f"{shown(source)}: {len(twice)} keys occur more than once ({data.some(twice)}); "
            "expected each picture once: rename or drop the others"
        )
    return found


def find(root: Path, keys: Sequence[str]) -> dict[str, Item]:
    """The pictures of some keys again, in the source's root, but for those that are gone."""
    paths = {key: root / key for key in keys}
    found = {key: Item(key, str(path)) for key, path in paths.items() if path.is_file()}
    above = {place for key in paths.keys() - found for place in paths[key].parents}
    shards = [place for place in above if place.suffix.lower() == ".tar" and place.is_file()]
    members = (item for shard in shards for item in _members(shard, root, []))  # each read once
    return found | {item.key: item for item in members if item.key in paths}


def _of_parquet(source: Path, root: Path) -> Collection:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(source).names
        columns = [*[name for name in _COLUMNS if name in names][:1], *{"key"}.intersection(names)]
        table = pq.read_table(source, columns=columns)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{shown(source)}: no Parquet file, or damaged ({error})") from error
    if columns in ([], ["key"]):
        wanted = ", ".join(_COLUMNS)
        raise ValueError(f"{shown(source)}: got the columns {names}; expected one of {wanted}")
    for name in columns:
        cells = table[name].to_pylist()
        if odd := [i for i, cell in enumerate(cells) if not isinstance(cell, str) or not cell]:
            raise ValueError(f"{shown(source)}: row {odd[0]} has no text in {name}; mend the table")
    pairs = zip(table[columns[-1]].to_pylist(), table[columns[0]].to_pylist(), strict=True)
    return Collection([Item(key, str(root / path)) for key, path in pairs], root)


# ---- tar shards ----------------------------------------------------------------------------


def _shards(source: Path) -> list[Path]:
    """The tar files of a source; [] if it has none."""
    if source.is_file():
        return [source] if source.suffix.lower() == ".tar" else []
    shards = sorted(path for path in source.rglob("*.tar") if path.is_file())
    if shards and (loose := next(filter(data.is_image_name, source.rglob("*")), None)):
        both = f"tar files ({shards[0].name}) beside pictures ({loose.name})"
        raise ValueError(f"{shown(source)}: got {both}; expected one of both: move the others away")
    return shards


def _members(shard: Path, root: Path, problems: list[str]) -> Iterator[Item]:
    """The pictures of a tar file; behind a damaged part it goes on, and that part is told.

    `tarfile` takes the first header that it cannot read for the end of the archive. Told to pass
    over such, it finds the next sound one; then the members no longer follow one another.
    """
    within, name, expected = shard.stat().st_size, shown(shard.relative_to(root)), 0
    damage = "{}: damaged from byte {:,}, {}; what lies there cannot be read: copy it again"
    with suppress(tarfile.TarError, EOFError), tarfile.open(shard, "r:", ignore_zeros=True) as tar:
        for member in tar:
            if member.offset > expected and not _is_padding(shard, expected, member.offset):
                problems.append(damage.format(name, expected, f"before {member.name}"))
            expected = member.offset_data + -(-member.size // 512) * 512
            if member.isfile() and data.is_image_name(member.name):
                key = f"{name}/{member.name}"
                yield Item(key, str(shard), member.offset_data, member.size)
    if not expected:
        problems.append(f"{name}: no tar file, or an empty one; copy it again")
    elif expected > within:
        problems.append(f"{name}: ends too early, at byte {within:,}; copy it again")
    elif not _is_padding(shard, expected, within):
        problems.append(damage.format(name, expected, "up to its end"))


def _is_padding(path: Path, start: int, end: int) -> bool:
    """Whether there is nothing, or zeros alone, as at the end of every archive."""
    with open(path, "rb") as file:
        file.seek(start)
        while start < end and (block := file.read(min(2**20, end - start))):
            if block.count(0) < len(block):
                return False
            start += len(block)
    return True
