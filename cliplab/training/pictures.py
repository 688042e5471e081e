"""Pictures that recipes learn from: drawn once and kept in files, changed at random, as numbers."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.runtime import atomic_write

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


def load_chunks(
    folder: Path,
    name: str,
    count: int,
    make: Callable[[int, int], Arrays],
    *,
    size: int,
    processes: int | None = None,
) -> Arrays:
    """Arrays about `count` pictures, kept in files of `size`; those not in `folder` yet are made.

    Making them can be interrupted and goes on with the next file.

    Args:
        name: in front of each file's name.
        make: (first, how many) -> named arrays. To run in other processes it must be picklable.
        processes: that make files; None: one a core.
    """
    jobs = [(start, min(size, count - start)) for start in range(0, count, size)]
    paths = [folder / f"{name}{start:08d}-{n}.npz" for start, n in jobs]
    missing = [job for job in zip(paths, jobs, strict=True) if not job[0].exists()]
    store = partial(_store, make)
    if missing:
        log.info("making %d files in %s", len(missing), folder)
    if len(missing) == 1 or processes == 1:
        for job in missing:
            store(job)
    elif missing:
        with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
            list(pool.map(store, missing))
    parts = []
    for path in paths:
        with np.load(path) as file:
            parts.append(dict(file))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _store(make: Callable[[int, int], Arrays], job: tuple[Path, tuple[int, int]]) -> None:
    path, which = job
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **make(*which))


def choose(
    total: int, count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
    """Which pictures of `total` a batch shows, and how: indices, all different, half mirrored.

    Returns:
        Indices, whether each is mirrored, and its brightness, where 1 leaves it: (B,) each.
    """
    indices = generator.choice(total, count, replace=False)
    mirrored = generator.random(count) < 0.5
    return indices, mirrored, generator.uniform(0.85, 1.15, count)


def augment(
    images: NDArray[np.uint8], generator: np.random.Generator, *, shift: int
) -> NDArray[np.uint8]:
    """Mirror half of the pictures, brighten or darken each, and move all by up to `shift` pixels.

    The shift is the same for a whole batch (B, S, S, C). What it brings in repeats the edge, so
    that nothing that a caption names is lost. Channels beyond the third keep their values.
    """
    out = images.copy()
    mirrored = generator.random(len(out)) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    gain = generator.uniform(0.88, 1.12, (len(out), 1, 1, 1)).astype(np.float32)
    out[..., :3] = np.clip(out[..., :3] * gain, 0, 255).astype(np.uint8)
    dy, dx = generator.integers(0, 2 * shift + 1, 2)
    padded = np.pad(out, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    height, width = out.shape[1:3]
    return np.ascontiguousarray(padded[:, dy : dy + height, dx : dx + width])


def mirror_boxes(boxes_xyxy: Tensor, width: int) -> Tensor:
    """Boxes (R, 4) of a picture `width` px wide after it was turned left to right."""
    x0, y0, x1, y1 = boxes_xyxy.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)


def as_floats(images: NDArray[np.uint8], gains: NDArray[np.float64] | None = None) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1], channels last in memory.

    `gains`: (B,) brightness of each; None: all 1.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if gains is None:
        return pixels
    return (pixels * torch.from_numpy(gains).float().view(-1, 1, 1, 1)).clamp(0, 1)


def to_pixels(
    images: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    gains: NDArray[np.float64] | None = None,
) -> Tensor:
    """uint8 (B, H, W, 3) -> normalised float32 (B, 3, H, W); `gains` as `as_floats` takes them."""
    middle, spread = (torch.tensor(some).view(3, 1, 1) for some in (mean, std))
    return (as_floats(images, gains) - middle) / spread
