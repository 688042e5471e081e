"""Photos to embeddings: files are read by threads, while a GPU works or in turns with the CPU."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cliplab.data import Sample, UnreadableImage, open_image
from cliplab.encoders.cache import CacheWarning, EmbeddingCache, picture_key
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import sha256

__all__ = ["CacheWarning", "Embedded", "EmbeddingCache", "embed_photos", "picture_key"]

_MOST_THREADS = 8  # that read files: decoding a photo is a few milliseconds
_BATCHES_AHEAD = 2  # one being encoded, one ready: the encoder never waits for the reading
_FIRST_BATCH = 16  # at most, so that the encoder starts early
_BOXES_AT_ONCE = 64  # of one file, cut in one go

OnImage = Callable[[int, Image.Image], None]


@dataclass(frozen=True)
class Embedded:
    """What `embed_photos` made of M readable photos out of N."""

    image_emb: Tensor  # (M, D) unit rows, float32, on the CPU
    kept: list[int]  # M indices into the photos, rising
    unreadable: list[UnreadableImage]  # the others, in order


def embed_photos(
    encoder: Encoder,
    photos: Sequence[Sample | Path],
    *,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
    on_image: OnImage | None = None,
) -> Embedded:
    """N photos -> embeddings (M, D) of the M that can be read, in order.

    At most a few batches of preprocessed pictures are in memory, whatever N is. A file of which
    several boxes follow each other is opened once for them.

    Args:
        encoder: its `preprocess` is called in threads.
        photos: files, or boxes of files.
        batch_size: pictures encoded at a time; smaller takes less memory, same result.
        cache: asked before a file is decoded, filled batch by batch; changes no result.
        progress: show a bar on stderr.
        on_image: called with index and RGB picture for every one that can be read, in order;
            then files are decoded whatever the cache holds.

    Raises:
        ValueError: a batch size below 1, one path instead of several, weights that give NaN.
    """
    if isinstance(photos, str | Path):
        raise ValueError("photos: got one path; expected several: use [path] or list_images(path)")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; expected 1 or more")
    from tqdm import tqdm

    reader = _Reader(encoder, cache, keep_images=on_image is not None)
    unreadable = []
    with (
        tqdm(total=len(photos), unit="image", disable=not progress) as bar,
        _Writer(encoder, len(photos), batch_size, cache=cache, on_done=bar.update) as writer,
        _reading(reader, photos) as pictures,
    ):
        for picture in pictures:
            if picture.error is not None:
                unreadable.append(picture.error)
                bar.update(1)
                continue
            if on_image is not None and picture.image is not None:
                on_image(picture.index, picture.image)
                picture.image = None
            writer.take(picture)
        writer.finish()
    return Embedded(writer.image_emb, writer.kept, unreadable)


# ---- reading: in threads ---------------------------------------------------------------------


@dataclass
class _Picture:
    """One photo on its way from the file to its row."""

    index: int
    photo: Any  # Sample or a path
    key: bytes | None = None  # in the cache; None: not to be kept
    row: Tensor | None = None  # (D,), found in the cache
    item: Any = None  # pixels (3, R, R), or the image for an encoder that wants it
    image: Image.Image | None = None  # for `on_image`
    error: UnreadableImage | None = None

    @property
    def path(self) -> Path:
        return Path(getattr(self.photo, "path", self.photo))

    @property
    def box(self) -> tuple[float, ...] | None:
        return getattr(self.photo, "box_xyxy", None)


@dataclass
class _Reader:
    """Turns photos of one file into pixels; called by several threads at once."""

    encoder: Encoder
    cache: EmbeddingCache | None
    keep_images: bool

    def __call__(self, pictures: list[_Picture]) -> list[_Picture]:
        try:
            before = self._look_up(pictures)
            if self.keep_images or any(picture.row is None for picture in pictures):
                self._decode(pictures)
                if before != _stamp(pictures[0].path):  # written to while it was being read
                    for picture in pictures:
                        picture.key = None
        except UnreadableImage as error:
            for picture in pictures:
                picture.error = error
        return pictures

    def _look_up(self, pictures: list[_Picture]) -> tuple[int, ...] | None:
        path = pictures[0].path
        before = _stamp(path)
        if self.cache is None or before is None:
            return before
        try:
            content = sha256(path)
        except OSError:
            return before  # opening it will tell why
        keys = [picture_key(self.encoder.fingerprint, content, p.box) for p in pictures]
        found = self.cache.get(keys)
        for picture, key in zip(pictures, keys, strict=True):
            picture.key, picture.row = key, found.get(key)
        return before

    def _decode(self, pictures: list[_Picture]) -> None:
        whole = open_image(pictures[0].path)
        for picture in pictures:
            try:
                image = whole if picture.box is None else picture.photo.crop(whole)
            except UnreadableImage as error:
                picture.error = error
                continue
            if self.keep_images:
                picture.image = image
            if picture.row is None:
                takes_pixels = hasattr(self.encoder, "encode_pixels")
                picture.item = self.encoder.preprocess(image) if takes_pixels else image


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _jobs(photos: Sequence[Any]) -> Iterator[list[_Picture]]:
    """Pictures of one file that follow each other, some boxes at a time."""
    pictures = (_Picture(index, photo) for index, photo in enumerate(photos))
    for _, run in groupby(pictures, key=lambda picture: picture.path):
        job: list[_Picture] = []
        for picture in run:
            job.append(picture)
            if len(job) == _BOXES_AT_ONCE:
                yield job
                job = []
        if job:
            yield job


@contextmanager
def _reading(reader: _Reader, photos: Sequence[Any]) -> Iterator[Iterator[_Picture]]:
    """The pictures in order, a few files ahead of whoever asks for them."""
    threads = min(_MOST_THREADS, _processors())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cliplab-read")

    def pictures() -> Iterator[_Picture]:
        waiting: deque[Future[list[_Picture]]] = deque()
        for job in _jobs(photos):
            waiting.append(pool.submit(reader, job))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    try:
        yield pictures()
    finally:
        pool.shutdown(cancel_futures=True)


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---- encoding: in a thread of its own --------------------------------------------------------


class _Writer:
    """Collects pictures, has them encoded batch by batch and puts each row in its place.

    The encoder works in a thread, so that whoever reads goes on meanwhile, and one batch is ready
    when the other is done.
    """

    def __init__(
        self,
        encoder: Encoder,
        total: int,
        batch_size: int,
        *,
        cache: EmbeddingCache | None,
        on_done: Callable[[int], object],
    ) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.cache, self.on_done = cache, on_done
        # An encoder on the CPU uses all of it. Threads that read beside it make it wait at every
        # layer, which costs more than taking turns: 12 % against 9 % of the pictures per second.
        self._take_turns = _on_cpu(encoder)
        self._next_size = min(_FIRST_BATCH, batch_size)
        self.kept: list[int] = []
        self._rows = torch.zeros(total, encoder.dim)  # (N, D)
        self._batch: list[_Picture] = []
        self._pending: deque[tuple[list[_Picture], Future[Tensor]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cliplab-encode")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def image_emb(self) -> Tensor:
        """(M, D), the rows of the pictures that were taken."""
        return self._rows if len(self.kept) == len(self._rows) else self._rows[self.kept]

    def take(self, picture: _Picture) -> None:
        """Queue a picture, or place its row at once if the cache had it."""
        self.kept.append(picture.index)
        if picture.row is not None:
            self._rows[picture.index] = picture.row
            self.on_done(1)
            return
        self._batch.append(picture)
        if len(self._batch) == self._next_size:
            self._send()
            self._next_size = self.batch_size

    def finish(self) -> None:
        """Encode what is left and wait for all of it."""
        if self._batch:
            self._send()
        while self._pending:
            self._collect()

    def _send(self) -> None:
        while len(self._pending) >= _BATCHES_AHEAD:
            self._collect()
        items = [picture.item for picture in self._batch]
        for picture in self._batch:
            picture.item = None  # so that pixels are freed as soon as they are encoded
        self._pending.append((self._batch, self._pool.submit(_encode, self.encoder, items)))
        self._batch = []
        if self._take_turns:
            self._collect()

    def _collect(self) -> None:
        pictures, future = self._pending.popleft()
        rows = future.result()  # (B, D)
        self._rows[[picture.index for picture in pictures]] = rows
        if self.cache is not None:
            pairs = [(p.key, i) for i, p in enumerate(pictures) if p.key is not None]
            self.cache.put([key for key, _ in pairs], rows[[i for _, i in pairs]])
        self.on_done(len(pictures))


def _on_cpu(encoder: Encoder) -> bool:
    return getattr(getattr(encoder, "device", None), "type", "") == "cpu"


def _encode(encoder: Encoder, items: list[Any]) -> Tensor:
    """Pixels or images -> (B, D)."""
    if not hasattr(encoder, "encode_pixels"):
        return encoder.encode_image(items, batch_size=len(items))
    pixels = torch.stack(items)  # (B, 3, R, R)
    items.clear()
    return encoder.encode_pixels([pixels])
