"""Groups as they form: what a training's groups own, every so often, on a few pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliplab.models.groupvit import GroupViT
from cliplab.runtime import atomic_write
from cliplab.training.groupvit_dataset import picture_of, scene_of, to_pixels

SEEDS = (0, 5, 3)  # of val: two herds and a portrait
MOST = 12  # looks that are kept of a whole training


def frame_images() -> NDArray[np.uint8]:
    """The pictures that are looked at, (F, S, S, 3)."""
    return np.stack([picture_of(scene_of(seed, "val")) for seed in SEEDS])


class Watch:
    """Soft maps of the groups of a few val pictures, kept every so often: groups as they form.

    A look changes nothing: the model is in eval mode for it, and no random number is drawn.
    """

    def __init__(self, model: GroupViT, folder: Path, *, every: int, steps: int) -> None:
        self.model, self.folder, self.every, self.steps = model, folder, every, steps
        self.images = frame_images()

    def __call__(self, step: int) -> None:
        """Look at the model after `step`, if it is time to: more often in the beginning."""
        done = step + 1
        early = done < self.every and done & (done - 1) == 0 and done >= 8
        if self.model.config.stages and (done % self.every == 0 or early or done == self.steps):
            with atomic_write(self.folder / f"{done:06d}.npz") as file:
                np.savez_compressed(file, maps=self.maps())

    @torch.no_grad()
    def maps(self) -> NDArray[np.uint8]:
        """(F, G, rows, columns) uint8, 255 = wholly of this group."""
        config = self.model.config
        device = self.model.logit_scale.device
        pixels = to_pixels(self.images, config.image_mean, config.image_std).to(device)
        groups = self.model.eval().group(pixels)
        self.model.train()
        return (255 * groups.maps()).round().byte().cpu().numpy()


def gather_frames(folder: Path, last: int, most: int = MOST) -> dict[str, NDArray]:
    """The looks of a `Watch` in one table, the first and the last among them.

    Args:
        folder: of the looks.
        last: step; looks behind it are of a later round, and left out.
        most: looks of the table.

    Returns:
        "steps" (S,), "maps" (S, F, G, rows, columns) uint8, "images" (F, H, W, 3) uint8.
    """
    paths = [path for path in sorted(folder.glob("*.npz")) if int(path.stem) <= last]
    kept = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    maps = []
    for k in kept:
        with np.load(paths[k]) as file:
            maps.append(file["maps"])
    return {
        "steps": np.array([int(paths[k].stem) for k in kept]),
        "maps": np.stack(maps),
        "images": frame_images(),
    }
