"""Embeddings in a folder of Parquet files, one a block, and how they are read back.

The columns are key (text), embedding (a list of fixed size, float16 or float32, none where the
picture cannot be read), width and height (px, upright), sha256 (hex, of the picture's bytes) and
error (text, none where all is well). The schema's metadata say which encoder made them: `About`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import cliplab
from cliplab.data import shown
from cliplab.encoders import Encoder
from cliplab.runtime import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as pds

DTYPES = ("float16", "float32")
FORMAT = 1  # raise it when columns change their meaning
_EMB = "embedding"
_VALUES = 2**19  # of a block of rows that is looked at: as float32 it stays in a core's cache
_SEARCH = "_search"  # folder of what can be made again; pyarrow passes over names with _


@dataclass(frozen=True)
class About:
    """What made the embeddings of a folder."""

    encoder: str  # its spec, such as "pasture"
    fingerprint: str  # hex SHA-256 of its weights, preprocessing and precision
    precision: str
    dim: int
    dtype: str  # of an embedding's numbers
    source: str  # the folder that keys are relative to
    weights: Mapping[str, str] = field(default_factory=dict)  # where they come from, their SHA-256
    cliplab: str = cliplab.__version__
    format: int = FORMAT

    @classmethod
    def of(cls, encoder: Encoder, dtype: str, source: Path) -> About:
        """What this encoder makes."""
        return cls(
            encoder.name, encoder.fingerprint, encoder.precision, encoder.dim, dtype,
            shown(source.resolve()), dict(encoder.provenance),
        )  # fmt: skip

    def schema(self) -> pa.Schema:
        """Columns of a block."""
        import pyarrow as pa

        value = pa.float16() if self.dtype == "float16" else pa.float32()
        columns: Any = {
            "key": pa.string(), "embedding": pa.list_(value, self.dim), "width": pa.int32(),
            "height": pa.int32(), "sha256": pa.string(), "error": pa.string(),
        }  # fmt: skip
        told = json.dumps(asdict(self), ensure_ascii=False).encode()
        return pa.schema(columns.items(), metadata={b"cliplab": told})


@dataclass(frozen=True)
class Row:
    """One picture as it is written."""

    key: str
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    error: str | None = None


def write_block(
    path: Path, about: About, rows: Sequence[Row], emb: NDArray[np.floating[Any]]
) -> None:
    """Write rows and their embeddings (N, D), whole or not at all; rows with an error have none."""
    import pyarrow as pa

    schema = about.schema()
    values = pa.array(np.ascontiguousarray(emb, about.dtype).ravel())
    mask = pa.array([row.error is not None for row in rows], pa.bool_())
    lists = pa.FixedSizeListArray.from_arrays(values, about.dim, mask=mask)
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names if name != _EMB}
    table = pa.table(columns | {_EMB: lists}, schema=schema)
    _write(path, table)


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()  # a block is small, and so errors of the disk are plain ones
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    with atomic_write(path) as file:
        file.write(sink.getvalue())


# ---- reading -------------------------------------------------------------------------------


def block_files(folder: Path) -> list[Path]:
    """The blocks of a folder, sorted.

    Raises:
        ValueError: there is something else in it.
    """
    inside = [path for path in folder.iterdir() if not path.name.startswith(("_", "."))]
    if odd := sorted(p.name for p in inside if not (p.match("block-*.parquet") and p.is_file())):
        raise ValueError(
            f"{shown(folder)}: holds {odd[0]}, which is no block of embeddings; give a folder of "
            "their own"
        )
    return sorted(inside)


def read_keys(path: Path) -> list[str]:
    """Keys of a block."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["key"])["key"].to_pylist()


def drop_errors(path: Path) -> list[str]:
    """Take the rows with an error out of a block, whose file goes if none is left -> their keys."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    bad = pc.is_valid(table["error"])
    kept = table.filter(pc.invert(bad))
    if not len(kept):
        path.unlink()
    elif len(kept) < len(table):
        _write(path, kept)
    return table.filter(bad)["key"].to_pylist()


def read_about(path: Path) -> About:
    """What a block says of its encoder.

    Raises:
        ValueError: it is damaged, or no such block.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        told = json.loads(metadata[b"cliplab"])
        if told["format"] == FORMAT:
            return About(**told)
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{shown(path)}: no block of embeddings, or damaged ({error}); delete it, and the "
            "command that made it computes its pictures again"
        ) from error
    raise ValueError(
        f"{shown(path)}: of format {told['format']}, expected {FORMAT}; made by cliplab "
        f"{told['cliplab']}, read it with that"
    )


def open_embeddings(folder: str | Path) -> Embeddings:
    """The embeddings of a folder, lazily: files are listed, no row is read.

    Raises:
        FileNotFoundError: no such folder, or no block in it.
        ValueError: it holds something else.
    """
    folder = Path(folder)
    if not folder.is_dir() or not (files := block_files(folder)):
        raise FileNotFoundError(
            f"{shown(folder)}: no embeddings there; check the name, or make them with `embed`"
        )
    return Embeddings(folder, tuple(files), read_about(files[0]))


@dataclass(frozen=True)
class Embeddings:
    """N pictures that could be read, numbered in the order of the files, and those that could not.

    Attributes:
        dataset: all rows as a `pyarrow.dataset`, to be filtered and read in parts.
    """

    folder: Path
    files: tuple[Path, ...]
    about: About

    @cached_property
    def dataset(self) -> pds.Dataset:
        """All rows."""
        import pyarrow.dataset as pds

        paths = [str(path) for path in self.files]
        return pds.dataset(paths, schema=self.about.schema(), format="parquet")

    @cached_property
    def readable(self) -> pds.Dataset:
        """The rows with an embedding."""
        import pyarrow.compute as pc

        return self.dataset.filter(pc.field("error").is_null())

    @cached_property
    def _count(self) -> int:
        return int(self.readable.count_rows())

    def __len__(self) -> int:
        return self._count

    def errors(self) -> dict[str, str]:
        """Key -> why the picture could not be read."""
        import pyarrow.compute as pc

        return self._by_key("error", pc.is_valid(pc.field("error")))

    def hashes(self, keys: Sequence[str]) -> dict[str, str]:
        """Key -> SHA-256, of those of the keys that could be read."""
        import pyarrow.compute as pc

        return self._by_key("sha256", pc.field("key").isin(keys) & pc.is_null(pc.field("error")))

    def _by_key(self, column: str, wanted: pc.Expression) -> dict[str, str]:
        rows = self.dataset.to_table(columns=["key", column], filter=wanted)
        return dict(zip(rows["key"].to_pylist(), rows[column].to_pylist(), strict=True))

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """key, width, height and sha256 of some of the N."""
        columns = ["key", "width", "height", "sha256"]
        return self.readable.scanner(columns=columns).take(numbers).to_pylist()

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All N rows (B, D), some at a time, in order; from `matrix`, so that it is quick.

        Where the folder cannot be written they come from the Parquet files, which takes several
        times as long.
        """
        step = max(1, _VALUES // self.about.dim)
        try:
            matrix = self.matrix()
        except OSError:
            yield from self._streamed(step)
            return
        for start in range(0, len(matrix), step):
            yield matrix[start : start + step]

    def matrix(self) -> NDArray[Any]:
        """All N rows (N, D), mapped into memory from a copy in the folder; it is made once.

        Raises:
            OSError: it cannot be written.
        """
        path = self.place("vectors", ".npy")
        if not path.exists():
            shape = {"shape": (len(self), self.about.dim), "fortran_order": False}
            with atomic_write(path) as file:
                np.lib.format.write_array_header_1_0(
                    file, shape | {"descr": np.dtype(self.about.dtype).str}
                )
                for block in self._streamed(8192):
                    file.write(block.data)
        return np.load(path, mmap_mode="c")  # torch wants to be allowed to write

    def _streamed(self, step: int) -> Iterator[NDArray[Any]]:
        for batch in self.readable.to_batches(columns=[_EMB], batch_size=step):
            if len(batch):
                yield np.array(batch[_EMB].flatten()).reshape(-1, self.about.dim)

    def place(self, name: str, suffix: str) -> Path:
        """A file of what was made from exactly these blocks; older ones of its kind are deleted."""
        made_of = [(file.name, file.stat().st_size) for file in self.files]
        state = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        path = self.folder / _SEARCH / f"{name}-{state}{suffix}"
        for old in path.parent.glob(f"{name}-*"):
            if not old.name.startswith(f"{name}-{state}"):
                with suppress(OSError):  # another process reads it, on Windows
                    old.unlink()
        return path
