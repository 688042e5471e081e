"""A large collection to embeddings on disk, block by block, so that a stop costs a block at most.

A block is some pictures in the order of the source; its file is named after their keys, and is
there whole or not at all. What has no row yet is all that a later run computes. Who computes is an
`Engine`: `in_process`, or `Ray` of `cliplab.scale.on_ray`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cliplab import data
from cliplab.data import UnreadableImage, open_image, shown
from cliplab.encoders import Encoder, read_ahead
from cliplab.runtime import ArgumentError, held
from cliplab.scale import store
from cliplab.scale.collection import Collection, Item, read_collection
from cliplab.scale.store import About, Embeddings, Row

NARROWEST = 1000  # times as long as wide: preprocessing would make a picture of gigabytes of it
_COMPARED = 8  # pictures of an older run whose bytes are looked at again

Block = tuple[Item, ...]
Picture = tuple[Row, torch.Tensor | None]  # and its pixels (3, R, R); None: it cannot be read


@dataclass(frozen=True)
class Work:
    """What an engine's workers need to know of a run."""

    encoder: Encoder
    about: About
    folder: Path
    batch_size: int

    def read(self, items: Iterable[Item]) -> Iterator[Picture]:
        """The pictures in order, preprocessed by threads, a batch ahead of their use."""
        return read_ahead(partial(_read, self.encoder), items, ahead=self.batch_size)

    def write(self, block: Block, pictures: Iterator[Picture]) -> int:
        """Embed the next pictures, those of a block, and write them -> how many."""
        rows, emb = list[Row](), np.zeros((len(block), self.about.dim), self.about.dtype)
        for start in range(0, len(block), self.batch_size):
            batch = list(islice(pictures, min(self.batch_size, len(block) - start)))
            rows += [row for row, _ in batch]
            good = {i: pixels for i, (_, pixels) in enumerate(batch, start) if pixels is not None}
            if good:
                emb[list(good)] = self.encoder.encode_pixels([torch.stack([*good.values()])])
        # Equal for equal keys, so that who writes a block twice writes it once.
        keys = hashlib.sha256("\n".join(item.key for item in block).encode()).hexdigest()
        store.write_block(self.folder / f"block-{keys[:20]}.parquet", self.about, rows, emb)
        return len(rows)


def _read(encoder: Encoder, item: Item) -> Picture:
    try:
        content = item.read()
        image = open_image(item.key, content=content)
        if max(image.size) > NARROWEST * min(image.size):
            size = f"{image.width} x {image.height} px, longer than {NARROWEST} times its width"
            raise UnreadableImage(item.key, size, "cut it into pieces")
        digest = hashlib.sha256(content).hexdigest()
        return Row(item.key, *image.size, digest), encoder.preprocess(image)
    except UnreadableImage as error:
        return Row(item.key, error=f"{error.cause}; {error.remedy}"), None


Engine = Callable[[Sequence[Block], Work], Iterator[int]]


def in_process(blocks: Sequence[Block], work: Work) -> Iterator[int]:
    """Write the blocks one after the other -> how many pictures each has."""
    pictures = work.read(chain.from_iterable(blocks))
    yield from (work.write(block, pictures) for block in blocks)


# ---- the run -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """What a run leaves."""

    embeddings: Embeddings
    computed: int  # pictures, of this run
    total: int  # of the source


def embed(
    source: str | Path | Collection,
    encoder: Encoder,
    folder: str | Path,
    *,
    engine: Engine = in_process,
    batch_size: int = 64,
    block: int = 1024,
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
        retry: pictures that could not be read are tried again.

    Raises:
        OSError: no space, no permission, or another run has the folder.
        ValueError: a source as `read_collection` refuses it; a folder of another encoder, or of
            other pictures under the same keys.
    """
    for name, value in (("batch_size", batch_size), ("block", block)):
        if value < 1:
            raise ArgumentError(name, f"got {value}; expected 1 or more")
    collection = source if isinstance(source, Collection) else read_collection(source)
    folder, about = Path(folder), About.of(encoder, collection.root)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        done = _done(folder, about)
        _refuse_others(folder, [item for item in collection.items if item.key in done])
        for path in store.block_files(folder) if retry else ():
            done.difference_update(store.drop_errors(path))
        todo = [item for item in collection.items if item.key not in done]
        blocks = [tuple(todo[i : i + block]) for i in range(0, len(todo), block)]
        if blocks:
            _carry_out(engine(blocks, Work(encoder, about, folder, batch_size)), todo, progress)
            done = _done(folder, about)
    if lost := [item.key for item in todo if item.key not in done]:
        raise ValueError(f"{len(lost)} pictures have no row ({data.some(lost)}); run it once more")
    return Done(store.open_embeddings(folder), len(todo), len(collection.items))


def _carry_out(counts: Iterable[int], todo: Sequence[Item], progress: bool) -> None:
    with tqdm(total=len(todo), unit="image", disable=not progress) as bar:
        for count in counts:
            bar.update(count)


def _done(folder: Path, about: About) -> set[str]:
    """Keys of all rows, each once, made by the same encoder."""
    found: set[str] = set()
    for path in store.block_files(folder):
        was, keys = store.read_block(path)
        if was.fingerprint != about.fingerprint:
            raise ValueError(
                f"{shown(folder)}: made with the encoder {was.encoder} ({was.precision}, "
                f"{was.fingerprint[:12]}), this is {about.encoder} ({about.precision}, "
                f"{about.fingerprint[:12]}), and they cannot be compared: choose another folder"
            )
        if twice := found.intersection(keys):
            what = f"has {data.some(twice)}, as another file has; delete this one, and run it again"
            raise ValueError(f"{shown(path)}: {what}")
        found.update(keys)
    return found


def _refuse_others(folder: Path, known: Sequence[Item]) -> None:
    """Refuse a folder whose rows are of other pictures, so far as a few of them tell."""
    few = {item.key: item for item in known[:: -(-len(known) // _COMPARED) or 1]}
    hashes = store.open_embeddings(folder).told("sha256", list(few)) if few else {}
    for key, digest in hashes.items():
        with suppress(UnreadableImage):
            if hashlib.sha256(few[key].read()).hexdigest() != digest:
                raise ValueError(
                    f"{shown(folder)}: its row {key} is of another picture than {few[key].path}, "
                    "which was changed, or has its name by chance; choose another folder"
                )
