"""What the tests of `classify` share: the command, and pictures that are easily told apart."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from cliplab.cli.main import main

# what each class of `coloured` looks like, so that a few examples suffice to learn it
COLOURS = {"lying": (200, 40, 40), "standing": (40, 60, 200), "eating": (40, 170, 60)}


def run(*arguments: object) -> int:
    return main(["classify", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def coloured(name: str, seed: int, size: int = 48) -> Image.Image:
    """A noisy picture in the colour of a class; different seeds do not resemble each other."""
    rng = np.random.default_rng([seed, *name.encode()])
    coarse = rng.integers(-60, 60, (6, 6, 1))
    noise = np.asarray(np.repeat(np.repeat(coarse, size // 6, 0), size // 6, 1))
    pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def class_folders(root: Path, per_class: int, *names: str, start: int = 0) -> Path:
    """`root/<class>/<n>.png`, for the given classes or all of COLOURS."""
    for name in names or COLOURS:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(start, start + per_class):
            coloured(name, i).save(folder / f"{i}.png")
    return root
