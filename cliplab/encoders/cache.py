"""A file of embeddings that need not be computed again: shared by processes, never in the way.

Whatever is wrong with the file (full disk, no permission, damage, a lock that stays) is told once,
with the remedy, and then everything is computed as if there were no cache.
"""

import hashlib
import sqlite3
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import PIL
import torch
from torch import Tensor

import cliplab
from cliplab.runtime import cache_dir

FORMAT = 1  # raise it when rows or keys change their meaning
_APPLICATION = 0x636C6970  # "clip", so that no other program's database is taken for a cache
_BUSY_SECONDS = 30.0  # that another process may hold the file before we go on without it
_AT_ONCE = 500  # keys in one question; SQLite's smallest limit is 999
_REMEDIES = {
    "FULL": "free some space, or set $CLIPLAB_CACHE to a folder on another disk",
    "NOTADB": "delete it (it is made anew), or give another path",
    "CORRUPT": "delete it and what is beside it, -wal and -shm: it is made anew",
    "BUSY": "another program keeps it locked: end that program, or set $CLIPLAB_CACHE elsewhere",
}
_REMEDY = "make its folder writable, or set $CLIPLAB_CACHE to a folder that is"


class CacheWarning(RuntimeWarning):
    """The cache cannot be read or written; embeddings are computed instead, with equal results."""


def picture_key(fingerprint: str, content: str, box: Sequence[float] | None) -> bytes:
    """32 bytes for one encoder, one file's content and one box; equal keys, equal embeddings.

    Args:
        fingerprint: of the encoder.
        content: hex SHA-256 of the file.
        box: x1, y1, x2, y2 in pixels of the upright picture, as it is cut out; None for all of it.
    """
    # Decoding may change with either version, and then the pixels and their embedding do.
    versions = (FORMAT, cliplab.__version__, PIL.__version__)
    cut = None if box is None else tuple(float(value) for value in box)
    return hashlib.sha256(repr((versions, fingerprint, content, cut)).encode()).digest()


class EmbeddingCache:
    """Keys of `picture_key` -> embeddings, in an SQLite file; a context manager.

    Several threads and several processes may use one file at once. A batch is written whole or
    not at all, and a row that was damaged on the disk counts as missing.

    Args:
        path: the file; default `embeddings.sqlite` in `cliplab.runtime.cache_dir()`.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = cache_dir() / "embeddings.sqlite" if path is None else Path(path)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._writable, self._warned = True, False
        with self._surviving(reading=True):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __bool__(self) -> bool:  # an empty cache is one, whatever __len__ says
        return True

    def __len__(self) -> int:
        with self._surviving(reading=True):
            if self._connection:
                return self._connection.execute("SELECT count(*) FROM embeddings").fetchone()[0]
        return 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """The embeddings (D,), float32, of those `keys` that are there."""
        found: dict[bytes, Tensor] = {}
        with self._surviving(reading=True):
            for start in range(0, len(keys), _AT_ONCE):
                if self._connection is None:
                    break
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, row FROM embeddings WHERE key IN ({marks})"
                for key, blob in self._connection.execute(query, some):
                    if (row := _unpack(blob)) is not None:
                        found[key] = row
        return found

    def put(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Keep `rows` (N, D), float32, under N `keys`: all of them or, told by a warning, none."""
        with self._surviving(reading=False):
            if self._connection and self._writable and len(keys):
                pairs = [(key, _pack(row)) for key, row in zip(keys, rows, strict=True)]
                with _transaction(self._connection):
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO embeddings VALUES (?, ?)", pairs
                    )

    def close(self) -> None:
        """Let go of the file; the cache is empty afterwards."""
        with self._lock, suppress(sqlite3.Error):
            if self._connection:
                self._connection.close()
        self._connection = None

    @contextmanager
    def _surviving(self, *, reading: bool) -> Iterator[None]:
        """Hold the lock; on any trouble with the file warn once and stop using it for that."""
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                self._writable = False
                if reading:
                    self.close()
                if not self._warned:
                    self._warned = True
                    warnings.warn(_explain(self.path, error), CacheWarning, stacklevel=4)


def _connect(path: Path) -> sqlite3.Connection:
    """An open cache; a new file is made where there is none."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _use_log(connection)
        with _transaction(connection):
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                connection.execute("CREATE TABLE embeddings (key BLOB PRIMARY KEY, row BLOB)")
            elif (application, version) != (_APPLICATION, FORMAT):
                raise OSError("another program's database, or another version's cache")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_log(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, with which readers and a writer do not wait for each other."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        # Two that make the switch at once would wait for each other, so SQLite refuses one of them
        # at once instead of after its timeout.
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")  # safe with a log; a power cut costs rows


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _pack(row: Tensor) -> bytes:
    raw = row.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
    return struct.pack("<I", zlib.crc32(raw)) + raw


def _unpack(blob: object) -> Tensor | None:
    """The row, or None if bits of it have changed since it was written."""
    if not isinstance(blob, bytes) or len(blob) < 8 or len(blob) % 4:
        return None
    if struct.unpack("<I", blob[:4])[0] != zlib.crc32(blob[4:]):
        return None
    return torch.tensor(memoryview(blob[4:]).cast("f"), dtype=torch.float32)


def _name(error: Exception) -> str:
    """SQLite's name of an error without its details: FULL, BUSY, CORRUPT, NOTADB, ..."""
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.removeprefix("SQLITE_").partition("_")[0]


def _explain(path: Path, error: Exception) -> str:
    remedy = _REMEDIES.get(_name(error), _REMEDY)
    if isinstance(error, OSError) and error.errno is None:
        remedy = _REMEDIES["NOTADB"]
    return (
        f"embedding cache {path.as_posix()}: {error}; going on without it, results are the same. "
        f"To have it back: {remedy}"
    )
