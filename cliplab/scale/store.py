"""Embeddings in a folder of Parquet files, one a block, and how they are read back.

The columns are key (text), embedding (a list of fixed size, float16, none where the
picture cannot be read), width and height (px, upright), sha256 (hex, of the picture's bytes) and
error (text, none where all is well). The schema's metadata say which encoder made them: `About`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cliplab
from cliplab.data import shown
from cliplab.encoders import Encoder
from cliplab.runtime import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as pds

_VALUES = 2**19  # of the rows that are looked at at once: as float32 they stay in a core's cache


class Row(NamedTuple):
    """One picture as it is written, but for its embedding."""

    key: str
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class About:
    """What made the embeddings of a folder."""

    encoder: str  # its spec, such as "pasture"
    fingerprint: str  # hex SHA-256 of its weights, preprocessing and precision
    precision: str
    dim: int
    dtype: str  # of an embedding's numbers
    source: str  # the folder that keys are relative to
    weights: Mapping[str, str]  # where they come from, their SHA-256
    cliplab: str = cliplab.__version__

    @classmethod
    def of(cls, encoder: Encoder, source: Path) -> About:
        """What this encoder makes."""
        told = (encoder.name, encoder.fingerprint, encoder.precision, encoder.dim, "float16")
        return cls(*told, shown(source.resolve()), dict(encoder.provenance))

    def schema(self) -> pa.Schema:
        """Columns of a block."""
        import pyarrow as pa

        number = pa.from_numpy_dtype(self.dtype)
        types = (pa.string(), pa.int32(), pa.int32(), pa.string(), pa.string())
        columns = [*zip(Row._fields, types, strict=True)]
        columns.insert(1, ("embedding", pa.list_(number, self.dim)))
        return pa.schema(columns, metadata={"cliplab": json.dumps(asdict(self))})


def write_block(path: Path, about: About, rows: Sequence[Row], emb: NDArray[Any]) -> None:
    """Write rows and their embeddings (N, D), whole or not at all; rows with an error have none."""
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(emb, about.dtype).ravel())
    mask = pa.array([row.error is not None for row in rows], pa.bool_())
    columns: dict[str, Any] = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(values, about.dim, mask=mask)
    _write(path, pa.table(columns, schema=about.schema()))


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()  # a block is small, and so errors of the disk are plain ones
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    with atomic_write(path) as file:
        file.write(sink.getvalue())


# ---- reading -------------------------------------------------------------------------------


def block_files(folder: Path) -> list[Path]:
    """The blocks of a folder, sorted; a ValueError if something else is in it."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(("_", "."))]
    if odd := sorted(path.name for path in inside if not path.match("block-*.parquet")):
        what = f"holds {odd[0]}, which is no block of embeddings"
        raise ValueError(f"{shown(folder)}: {what}; give a folder that `embed` alone fills")
    return sorted(inside)


def read_block(path: Path) -> tuple[About, list[str]]:
    """What a block says of its encoder, and its keys; a ValueError if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["key"])
        return About(**json.loads(table.schema.metadata[b"cliplab"])), table["key"].to_pylist()
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{shown(path)}: no block of embeddings of this version, or damaged ({error}); delete "
            "it, and the command that made it computes its pictures again"
        ) from error


def drop_errors(path: Path) -> list[str]:
    """Take the rows with an error out of a block, whose file goes if none is left -> their keys."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    kept = table.filter(pc.field("error").is_null())
    if not len(kept):
        path.unlink()
    elif len(kept) < len(table):
        _write(path, kept)
    return table.filter(pc.field("error").is_valid())["key"].to_pylist()


def open_embeddings(folder: str | Path) -> Embeddings:
    """The embeddings of a folder, lazily: files are listed, one is looked into.

    Raises:
        FileNotFoundError: no such folder, or no block in it.
        ValueError: it holds something else.
    """
    folder = Path(folder)
    if not folder.is_dir() or not (files := block_files(folder)):
        what = "no embeddings there; check the name, or make them with `embed`"
        raise FileNotFoundError(f"{shown(folder)}: {what}")
    return Embeddings(folder, tuple(files), read_block(files[0])[0])


@dataclass(frozen=True)
class Embeddings:
    """N pictures that could be read, numbered in the order of the files, and those that could not.

    `dataset` has all rows, as a `pyarrow.dataset` to be filtered and read in parts; `readable` the
    N that have an embedding.
    """

    folder: Path
    files: tuple[Path, ...]
    about: About

    @cached_property
    def dataset(self) -> pds.Dataset:  # noqa: D102
        import pyarrow.dataset as pds

        return pds.dataset([str(path) for path in self.files], schema=self.about.schema())

    @cached_property
    def readable(self) -> pds.Dataset:  # noqa: D102
        import pyarrow.compute as pc

        return self.dataset.filter(pc.field("error").is_null())

    @cached_property
    def _count(self) -> int:
        return int(self.readable.count_rows())

    def __len__(self) -> int:
        return self._count

    def told(self, column: str, keys: Sequence[str] | None = None) -> dict[str, str]:
        """Key -> what `sha256` or `error` say of it, where they say something; of some, or all."""
        import pyarrow.compute as pc

        wanted = pc.field(column).is_valid()
        wanted = wanted if keys is None else wanted & pc.field("key").isin(keys)
        rows = self.dataset.to_table(columns=["key", column], filter=wanted)
        return dict(zip(*(one.to_pylist() for one in rows.columns), strict=True))

    def sources(self, keys: Sequence[str]) -> dict[str, Path]:
        """Key -> the folder that its picture was read from: one may hold several collections."""
        import pyarrow.compute as pc

        wanted = pc.field("key").isin(keys)
        found = self.dataset.to_table(columns=["key", "__filename"], filter=wanted)
        files = dict(zip(*(one.to_pylist() for one in found.columns), strict=True))
        roots = {name: Path(read_block(Path(name))[0].source) for name in {*files.values()}}
        return {key: roots[name] for key, name in files.items()}

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """key, width, height and sha256 of some of the N."""
        return self.readable.scanner(columns=list(Row._fields[:4])).take(numbers).to_pylist()

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
        else:
            yield from (matrix[start : start + step] for start in range(0, len(matrix), step))

    def matrix(self) -> NDArray[Any]:
        """All N rows (N, D), mapped into memory from a copy in the folder, which is made once.

        Raises:
            OSError: it cannot be written.
        """
        path = self.place("vectors", ".npy")
        if not path.exists():
            header = {"descr": np.dtype(self.about.dtype).str, "fortran_order": False}
            header["shape"] = (len(self), self.about.dim)
            with atomic_write(path) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for block in self._streamed(8192):
                    file.write(block.data)
        return np.load(path, mmap_mode="c")  # torch wants to be allowed to write

    def _streamed(self, step: int) -> Iterator[NDArray[Any]]:
        for batch in self.readable.to_batches(columns=["embedding"], batch_size=step):
            if len(batch):
                yield np.array(batch["embedding"].flatten()).reshape(-1, self.about.dim)

    def place(self, name: str, suffix: str) -> Path:
        """A file of what was made from exactly these blocks; older ones of its kind are deleted."""
        made_of = [(file.name, file.stat().st_size) for file in self.files]
        state = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        folder = self.folder / "_search"  # pyarrow passes over names with _
        for old in folder.glob(f"{name}-*"):
            if not old.name.startswith(f"{name}-{state}"):
                with suppress(OSError):  # another process reads it, on Windows
                    old.unlink()
        return folder / f"{name}-{state}{suffix}"
