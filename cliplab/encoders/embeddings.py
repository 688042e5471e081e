"""Photos to embeddings: threads read files ahead of the encoder, and a cache saves the work."""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import cliplab
from cliplab.data import Sample, UnreadableImage, open_image
from cliplab.encoders.loading import load_encoder
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import ArgumentError, cache_dir, checkpoint_dir, sha256

FORMAT = 2  # raise it when rows or keys change their meaning
_THREADS = min(8, os.cpu_count() or 1)  # that read files: decoding a photo takes milliseconds
_BOXES_AT_ONCE = 64  # of one file, cut in one go

OnImage = Callable[[int, Image.Image], None]
Job = TypeVar("Job")
Result = TypeVar("Result")


# ---- the cache -----------------------------------------------------------------------------


def picture_key(fingerprint: str, digest: str, box: Sequence[float] | None) -> str:
    """Hex digits for an encoder's fingerprint, a file's SHA-256, a box: equal keys, equal rows."""
    # Decoding may change with either version, and then the pixels and their embedding do.
    versions = (FORMAT, cliplab.__version__, PIL.__version__)
    cut = None if box is None else tuple(float(value) for value in box)
    return hashlib.sha256(repr((versions, fingerprint, digest, cut)).encode()).hexdigest()


class EmbeddingCache:
    """Keys of `picture_key` -> embeddings, .npy files in a folder that processes may share."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = cache_dir() / "embeddings" if folder is None else Path(folder)
        self._can_write = True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def get(self, key: str) -> Tensor | None:
        """The embedding (D,), float32; None if it is not there, or damaged."""
        try:
            row = np.load(self._path(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return torch.from_numpy(row) if row.ndim == 1 and row.dtype == np.float32 else None

    def put(self, key: str, row: Tensor) -> None:
        """Keep `row` (D,), float32; trouble is told once, and then nothing is kept any more."""
        if not self._can_write:
            return
        try:
            self._path(key).parent.mkdir(parents=True, exist_ok=True)
            np.save(self._path(key), row.numpy())  # killed in the middle: `get` sees the damage
        except OSError as error:
            self._can_write = False
            warnings.warn(
                f"embedding cache {self.folder.as_posix()}: {error}; going on without it, results "
                "are the same. To have it back: free some space, or set $CLIPLAB_CACHE to a folder "
                "that can be written",
                RuntimeWarning,
                stacklevel=3,
            )


# ---- the work ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Embedded:
    """What `embed_photos` made of M readable photos out of N."""

    image_emb: Tensor  # (M, D) unit rows, float32, on the CPU
    kept: list[int]  # M indices into the photos, rising
    unreadable: list[UnreadableImage]  # the others, in order


@dataclass
class _Picture:
    """One photo on its way from the file to its row."""

    index: int
    photo: Sample
    key: str = ""  # in the cache; "": not to be kept
    row: Tensor | None = None  # (D,), found in the cache
    pixels: Any = None  # (3, R, R)
    image: Image.Image | None = None  # for `on_image`
    error: UnreadableImage | None = None


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

    At most a batch and a few preprocessed pictures are in memory, whatever N is. A file of which
    several boxes follow each other is opened once for them.

    Args:
        encoder: its `preprocess` is called in threads.
        cache: asked before a file is decoded, filled batch by batch; changes no result.
        on_image: called with index and RGB picture for every one that can be read, in order;
            then files are decoded whatever the cache holds.
    """
    if batch_size < 1:
        raise ArgumentError("batch_size", f"got {batch_size}; expected 1 or more")

    rows, kept, unreadable = torch.zeros(len(photos), encoder.dim), [], []  # rows (N, D)
    waiting: list[_Picture] = []  # to be encoded
    read = partial(_read, encoder, cache, on_image is not None)
    with tqdm(total=len(photos), unit="image", disable=not progress) as bar:
        for picture in chain.from_iterable(read_ahead(read, _jobs(photos))):
            bar.update(1)
            if picture.error is not None:
                unreadable.append(picture.error)
                continue
            kept.append(picture.index)
            if on_image is not None and picture.image is not None:
                on_image(picture.index, picture.image)
                picture.image = None
            if picture.row is not None:
                rows[picture.index] = picture.row
            else:
                waiting.append(picture)
            if len(waiting) == batch_size:
                _encode(encoder, waiting, rows, cache)
        if waiting:
            _encode(encoder, waiting, rows, cache)
    return Embedded(rows[kept], kept, unreadable)


def _encode(
    encoder: Encoder, waiting: list[_Picture], rows: Tensor, cache: EmbeddingCache | None
) -> None:
    """Put the embeddings of the pictures that wait into `rows` (N, D) and the cache."""
    found = encoder.encode_pixels([torch.stack([picture.pixels for picture in waiting])])
    for picture, row in zip(waiting, found, strict=True):
        rows[picture.index] = row
        if cache is not None and picture.key:
            cache.put(picture.key, row)
    waiting.clear()


# ---- reading: in threads -------------------------------------------------------------------


def _read(
    encoder: Encoder, cache: EmbeddingCache | None, keep_images: bool, pictures: list[_Picture]
) -> list[_Picture]:
    """Turn photos of one file into rows of the cache, or into pixels."""
    path, digest, whole = pictures[0].photo.path, "", None
    if cache is not None:
        with suppress(OSError):  # opening it will tell why
            digest = sha256(path)
    for one in pictures:
        try:
            if cache is not None and digest:
                one.key = picture_key(encoder.fingerprint, digest, one.photo.box_xyxy)
                one.row = cache.get(one.key)
            if keep_images or one.row is None:
                whole = whole or open_image(path)
                image = one.photo.crop(whole)
                one.image = image if keep_images else None
                if one.row is None:
                    one.pixels = encoder.preprocess(image)
        except UnreadableImage as error:
            one.error = error
    return pictures


def read_ahead(
    read: Callable[[Job], Result], jobs: Iterable[Job], ahead: int = _THREADS
) -> Iterator[Result]:
    """`read(job)` for each, in order, by threads; up to `ahead` results wait to be used."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cliplab-read")
    try:
        for job in jobs:
            waiting.append(pool.submit(read, job))
            if len(waiting) > _THREADS + ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _jobs(photos: Sequence[Sample | Path]) -> Iterator[list[_Picture]]:
    """Pictures of one file that follow each other, some boxes at a time."""
    samples = (one if isinstance(one, Sample) else Sample(Path(one)) for one in photos)
    pictures = (_Picture(index, sample) for index, sample in enumerate(samples))
    for _, run in groupby(pictures, key=lambda picture: picture.photo.path):
        while job := list(islice(run, _BOXES_AT_ONCE)):
            yield job


# ---- the drawn world -----------------------------------------------------------------------

WORLD = "world.npz"  # of training drawings: mean and covariance; made by tools/measure_world.py
_SIDES = (32, 64, 128)  # px


def texture(image: Image.Image) -> NDArray[np.float64]:
    """Deciles of how much neighbouring pixels differ, across and down at three sizes (54,)."""
    found = []
    for side in _SIDES:
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float64)
        for axis in (0, 1):
            steps = np.abs(np.diff(pixels, axis=axis)).max(axis=-1)
            found.append(np.quantile(steps, np.linspace(0.1, 0.9, 9)))
    return np.log1p(np.concatenate(found))


def foreign(pictures: Sequence[Path]) -> list[Path]:
    """Which files are unlike the drawings that the shipped models learned from.

    WORLD tells how far validation drawings are from the training's, by embedding and texture.
    Nothing is said of files that cannot be read, or where the shipped weights are not in place.
    """
    path = checkpoint_dir("clip-openai") / WORLD
    if not path.is_file():
        return []
    encoder, textures = load_encoder("pasture"), list[NDArray[np.float64]]()
    with np.load(path) as world:
        if str(world["weights"]) != encoder.provenance["sha256 model.pt"]:
            return []
        found = embed_photos(
            encoder, pictures, on_image=lambda _, image: textures.append(texture(image))
        )
        rows = np.hstack([found.image_emb.numpy(), np.reshape(textures, (-1, 54))])
        far = np.linalg.norm((rows - world["mean"]) @ world["whiten"], axis=1) > world["limit"]
    return [pictures[i] for i, is_far in zip(found.kept, far, strict=True) if is_far]
