"""A large collection to embeddings on disk, block by block, so that a stop costs a block at most.

A block is some pictures in the order of the source; its file is named after their keys, and is
there whole or not at all. What has no row yet is all that a later run computes. Who computes is an
`Engine`: `in_process`, or `Ray` of `cliplab.scale.on_ray`.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cliplab import data
from cliplab.data import UnreadableImage, open_image, shown
from cliplab.encoders import Encoder
from cliplab.runtime import ArgumentError, held, unknown_name
from cliplab.scale.collection import Collection, Item, read_collection
from cliplab.scale.store import (
    DTYPES,
    About,
    Embeddings,
    Row,
    block_files,
    drop_errors,
    open_embeddings,
    read_about,
    read_keys,
    write_block,
)

BLOCK = 1024  # pictures
NARROWEST = 1000  # times as long as wide: preprocessing would make a picture of gigabytes of it
_COMPARED = 8  # pictures of an older run whose bytes are looked at again
_MOST_THREADS = 8  # that read files

Block = tuple[Item, ...]


@dataclass(frozen=True)
class Work:
    """What an engine's workers need to know of a run."""

    encoder: Encoder
    about: About
    folder: Path
    batch_size: int

    def read(self, items: Iterable[Item]) -> Iterator[_Picture]:
        """The pictures as the encoder wants them, in order, a batch and some ahead."""
        return _read_ahead(self.encoder, items, self.batch_size)

    def write(self, block: Block, pictures: Iterator[_Picture]) -> int:
        """Embed the next pictures, those of a block, and write them -> how many."""
        rows, emb = list[Row](), np.zeros((len(block), self.about.dim), self.about.dtype)
        for start in range(0, len(block), self.batch_size):
            batch = list(islice(pictures, min(self.batch_size, len(block) - start)))
            good = [i for i, one in enumerate(batch, start) if one.pixels is not None]
            rows += [one.row for one in batch]
            if good:
                pixels = torch.stack([one.pixels for one in batch if one.pixels is not None])
                emb[good] = self.encoder.encode_pixels([pixels]).numpy()
        write_block(self.folder / block_name(block), self.about, rows, emb)
        return len(rows)


Engine = Callable[[Sequence[Block], Work], Iterator[int]]


def in_process(blocks: Sequence[Block], work: Work) -> Iterator[int]:
    """Write the blocks one after the other -> how many pictures each has."""
    pictures = work.read(chain.from_iterable(blocks))
    for block in blocks:
        yield work.write(block, pictures)


def block_name(block: Iterable[Item]) -> str:
    """Name of a block's file: equal for equal keys, so that who writes it twice writes it once."""
    keys = "\n".join(item.key for item in block)
    return f"block-{hashlib.sha256(keys.encode()).hexdigest()[:20]}.parquet"


# ---- one picture, in a thread --------------------------------------------------------------


@dataclass
class _Picture:
    row: Row
    pixels: torch.Tensor | None = None  # (3, R, R); None: it cannot be read


def _read_ahead(encoder: Encoder, items: Iterable[Item], ahead: int) -> Iterator[_Picture]:
    """Pictures in order, preprocessed by threads, at most `ahead` and some before they are used."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cliplab-read")
    waiting: deque[Future[_Picture]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_read, encoder, item))
            if len(waiting) > ahead + threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(encoder: Encoder, item: Item) -> _Picture:
    width = height = digest = None
    try:
        content = item.read()
        digest = hashlib.sha256(content).hexdigest()
        image = open_image(item.key, content=content)
        width, height = image.size
        if max(width, height) > NARROWEST * min(width, height):
            size = f"{width} x {height} px, longer than {NARROWEST} times its width"
            raise UnreadableImage(item.key, size, "cut it into pieces")
        return _Picture(Row(item.key, width, height, digest), encoder.preprocess(image))
    except UnreadableImage as error:
        return _Picture(Row(item.key, width, height, digest, f"{error.cause}; {error.remedy}"))


# ---- the run -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What a run leaves."""

    embeddings: Embeddings
    computed: int  # pictures, of this run
    total: int  # of the source
    notes: Sequence[str]


def embed(
    source: str | Path | Collection,
    encoder: Encoder,
    folder: str | Path,
    *,
    engine: Engine = in_process,
    batch_size: int = 64,
    block: int = BLOCK,
    dtype: str = "float16",
    retry: bool = False,
    progress: bool = False,
) -> Done:
    """Embed every picture of a source that has no row in the folder yet.

    Args:
        source: a collection, or what `read_collection` makes one of.
        folder: new, empty, or left by an earlier run of the same encoder; nobody else writes it.
        engine: who computes.
        batch_size: pictures at a time.
        block: pictures of a file; a stop loses so many at most.
        dtype: "float16" or "float32", of what is written.
        retry: pictures that could not be read are tried again.

    Raises:
        OSError: no space, no permission, or another run has the folder.
        ValueError: nothing to embed, two pictures of one key, a folder of another encoder or of
            other pictures under the same keys.
    """
    for name, value in (("batch_size", batch_size), ("block", block)):
        if value < 1:
            raise ArgumentError(name, f"got {value}; expected 1 or more")
    if dtype not in DTYPES:
        raise ArgumentError("dtype", unknown_name("type", dtype, DTYPES))
    collection = source if isinstance(source, Collection) else read_collection(source)
    folder, about = Path(folder), About.of(encoder, dtype, collection.root)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        done = _done(folder, about)
        _refuse_others(folder, [item for item in collection.items if item.key in done])
        for path in block_files(folder) if retry else ():
            done.difference_update(drop_errors(path))
        todo = [item for item in collection.items if item.key not in done]
        blocks = [tuple(todo[i : i + block]) for i in range(0, len(todo), block)]
        computed = _carry_out(engine, blocks, Work(encoder, about, folder, batch_size), progress)
        keys = _done(folder, about) if computed else done
    if lost := [item.key for item in todo if item.key not in keys]:
        raise ValueError(f"{len(lost)} pictures have no row ({data.some(lost)}); run it once more")
    extra = len(keys) - len(collection)
    notes = [f"{shown(folder)} has {extra:,} rows of pictures that are not in the source"]
    return Done(open_embeddings(folder), computed, len(collection), notes * (extra > 0))


def _carry_out(engine: Engine, blocks: Sequence[Block], work: Work, progress: bool) -> int:
    total = sum(map(len, blocks))
    with tqdm(total=total, unit="image", disable=not progress) as bar:
        for count in engine(blocks, work) if blocks else ():
            bar.update(count)
    return total


def _done(folder: Path, about: About) -> set[str]:
    """Keys of all rows, each once, made by the same encoder."""
    found: set[str] = set()
    for path in block_files(folder):
        _refuse_other_encoder(path, read_about(path), about)
        keys = read_keys(path)
        if twice := found.intersection(keys):
            raise ValueError(
                f"{shown(path)}: has {data.some(twice)}, as another file has; delete this one, and "
                "run it again"
            )
        found.update(keys)
    return found


def _refuse_other_encoder(path: Path, was: About, now: About) -> None:
    if was.fingerprint != now.fingerprint:
        raise ValueError(
            f"{shown(path.parent)}: made with the encoder {was.encoder} ({was.precision}, "
            f"{was.fingerprint[:12]}), this is {now.encoder} ({now.precision}, "
            f"{now.fingerprint[:12]}); their embeddings cannot be compared: choose another folder"
        )
    if was.dtype != now.dtype:
        raise ArgumentError(
            "dtype", f"got {now.dtype}, but {shown(path.parent)} has {was.dtype}; give the same"
        )


def _refuse_others(folder: Path, known: Sequence[Item]) -> None:
    """Refuse a folder whose rows are of other pictures, so far as a few of them tell."""
    few = {item.key: item for item in known[:: -(-len(known) // _COMPARED) or 1]}
    for key, digest in open_embeddings(folder).hashes(list(few)).items() if few else ():
        with suppress(UnreadableImage):
            if hashlib.sha256(few[key].read()).hexdigest() != digest:
                raise ValueError(
                    f"{shown(folder)}: its row {key} is of another picture than {few[key].path}: "
                    "it was changed, or another has its name; choose another folder"
                )
