"""Training pictures: drawn once, kept in files, held in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD
from cliplab.pasture import animal_caption, caption, herd, portrait
from cliplab.pasture.captions import mentioned_facts
from cliplab.pasture.dataset import crops, in_parallel, portraits
from cliplab.runtime import atomic_write

log = logging.getLogger(__name__)

SIZE = 64  # pixels per side
_CHUNK = 2000  # pictures per file


@dataclass(frozen=True)
class Pool:
    """All training pictures in memory, and the scene of each."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    is_crop: NDArray[np.bool_]  # (N,)
    seeds: NDArray[np.int64]  # (N,) of the scene
    animals: NDArray[np.int64]  # (N,) index in the scene

    def caption(self, i: int, language: str, variant: int) -> str:
        """One of the captions of picture i."""
        return self.caption_and_facts(i, language, variant)[0]

    def caption_and_facts(self, i: int, language: str, variant: int) -> tuple[str, tuple[str, ...]]:
        """A caption of picture i, and the facts that it mentions besides the species."""
        seed = int(self.seeds[i])
        if self.is_crop[i]:
            scene, animal = herd(seed), int(self.animals[i])
            text = animal_caption(scene, animal, language, variant)
            return text, mentioned_facts(scene, language, variant, index=animal)
        scene = portrait(seed)
        return caption(scene, language, variant), mentioned_facts(scene, language, variant)


def load_pool(folder: Path, *, portrait_count: int, crop_count: int) -> Pool:
    """Read the training pictures, drawing those that are not in `folder` yet."""
    parts = []
    kinds = (("portraits", portraits, portrait_count), ("crops", crops, crop_count))
    for kind, make, count in kinds:
        for path in _drawn(folder, kind, make, count):
            with np.load(path) as file:
                parts.append((file["images"], file["seeds"], file["animals"], kind == "crops"))
    images, seeds, animals, is_crop = zip(*parts, strict=True)
    flags = np.repeat(np.array(is_crop), [len(s) for s in seeds])
    return Pool(np.concatenate(images), flags, np.concatenate(seeds), np.concatenate(animals))


def _drawn(folder: Path, kind: str, make: Callable, count: int) -> list[Path]:
    """Files of `count` pictures; those that exist are kept, so drawing can be interrupted."""
    starts = range(0, count, _CHUNK)
    paths = [folder / f"{kind}-{SIZE}-{s:08d}-{min(_CHUNK, count - s)}.npz" for s in starts]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        begin = missing[0]  # drawn in order, so everything after the first gap is missing
        log.info("drawing %d %s into %s", count - starts[begin], kind, folder)
        rest = count - starts[begin]
        chunks = in_parallel(make, "train", rest, start=starts[begin], chunk=_CHUNK, size=SIZE)
        for path, pictures in zip(paths[begin:], chunks, strict=True):
            seeds = [e.scene.seed for e in pictures.examples]
            animals = [e.index for e in pictures.examples]
            with atomic_write(path) as file:
                np.savez(file, images=pictures.images, seeds=seeds, animals=animals)
    return paths


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 (B, S, S, 3) -> normalised float32 (B, 3, S, S), channels last in memory."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(IMAGE_MEAN, device=device).view(3, 1, 1)
    return (x - mean) / torch.tensor(IMAGE_STD, device=device).view(3, 1, 1)


def augment(images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the pictures, brighten or darken each, and move all by up to 3 pixels."""
    out = images.copy()
    mirrored = generator.random(len(out)) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    gain = generator.uniform(0.88, 1.12, (len(out), 1, 1, 1)).astype(np.float32)
    out = np.clip(out * gain, 0, 255).astype(np.uint8)
    dy, dx = generator.integers(0, 7, 2)
    padded = np.pad(out, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded[:, dy : dy + SIZE, dx : dx + SIZE])


def recolour(images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures in random false colours, some grey, some negative: the shapes stay, the coats go.

    For captions that say nothing of colour, place or weather, and so are true of them still. It
    takes away a shortcut: if every lying white animal of training is a horse, "lying" and "white"
    together would do for "horse".
    """
    n, x = len(images), images.astype(np.float32) / 255
    grey = generator.random((n, 1, 1, 1)) < 0.5
    luma = (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    shuffled = np.stack([x[i][..., generator.permutation(3)] for i in range(n)]) if n else x
    out = np.where(grey, luma, shuffled)
    out = np.where(generator.random((n, 1, 1, 1)) < 0.4, 1 - out, out)
    out = out ** generator.uniform(0.5, 2.0, (n, 1, 1, 1)).astype(np.float32)
    return (out * 255).astype(np.uint8)


def slices(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Consecutive parts of at most `size` pictures."""
    return (images[i : i + size] for i in range(0, len(images), size))
