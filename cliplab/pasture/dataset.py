"""Portraits and crops of herds in arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.pasture.drawing import draw, labels
from cliplab.pasture.scene import Combo, Dice, Scene, herd, scenes

_CROP_HEIGHT = 176  # pixels of the herd that crops are cut from


@dataclass(frozen=True)
class Example:
    """One picture of one animal: the scene, and which of its animals was meant."""

    scene: Scene
    index: int = 0

    @property
    def combo(self) -> Combo:
        """Species, posture and colour of the animal that the picture shows."""
        return self.scene.animals[self.index].combo


@dataclass(frozen=True)
class Pictures:
    """Many small pictures in one array, with what they show."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    examples: tuple[Example, ...]  # N

    def __len__(self) -> int:
        return len(self.examples)

    def pil(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [Image.fromarray(image) for image in self.images]


def portraits(
    split: str,
    count: int,
    *,
    start: int = 0,
    size: int = 64,
    combos: Sequence[Combo] | None = None,
) -> Pictures:
    """Draw `count` portraits from consecutive seeds of a split: images (count, size, size, 3).

    Raises:
        ValueError: as `pasture.portrait`.
    """
    examples = tuple(map(Example, scenes("portrait", split, start, count, combos=combos)))
    images = np.zeros((count, size, size, 3), np.uint8)
    for i, one in enumerate(examples):
        images[i] = np.asarray(draw(one.scene, size))
    return Pictures(images, examples)


def crops(split: str, count: int, *, start: int = 0, size: int = 64) -> Pictures:
    """Cut animals out of herds drawn from consecutive seeds, at least half of each visible.

    Half of the crops are squares around the box, half the box itself squeezed into a square; both
    take in up to 1.6 times the box, as ViLD's 1x and 1.5x crops do.
    """
    images = np.zeros((count, size, size, 3), np.uint8)
    examples: list[Example] = []
    seed = start
    while len(examples) < count:
        scene = herd(seed, split=split)
        for index, crop in _crops_of(scene, size):
            if len(examples) < count:
                images[len(examples)] = crop
                examples.append(Example(scene, index))
        seed += 1
    return Pictures(images, tuple(examples))


def _crops_of(scene: Scene, size: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    found, image = labels(scene, _CROP_HEIGHT), draw(scene, _CROP_HEIGHT, supersample=2)
    dice = Dice("crop", scene.split, scene.seed)
    for i, (x0, y0, x1, y1) in enumerate(found.boxes_xyxy):
        w, h, scale = x1 - x0, y1 - y0, dice.uniform(1.0, 1.6)
        square = dice.chance(0.5)
        if min(w, h) < 16 or found.visible[i] < 0.5:
            continue
        half_w, half_h = (max(w, h),) * 2 if square else (w, h)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        half_w, half_h = half_w * scale / 2, half_h * scale / 2
        # A square that leaves the frame is moved inside it, as a photographer would.
        left = min(max(cx - half_w, 0), max(image.width - 2 * half_w, 0))
        top = min(max(cy - half_h, 0), max(image.height - 2 * half_h, 0))
        right, bottom = min(left + 2 * half_w, image.width), min(top + 2 * half_h, image.height)
        crop = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, right, bottom))
        yield i, np.asarray(crop)
