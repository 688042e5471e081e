"""How drawings look to the shipped CLIP, and how far from that a picture is foreign.

    python tools/measure_world.py

writes world.npz beside the weights, which `cliplab.encoders.foreign` reads, and prints how many
fresh drawings are taken for foreign, and how many photographs are not: those that come with
scikit-image and scikit-learn, whole and in parts.
"""

import argparse
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from numpy.typing import NDArray
from PIL import Image

from cliplab import pasture
from cliplab.encoders import WORLD, load_encoder, texture
from cliplab.runtime import atomic_write, checkpoint_dir, sha256

COUNT = {"train": 800, "val": 400, "test": 300}  # drawings of each kind
PART = 50  # drawn at a time
START = 200_000  # first seed of each split
RIDGE = 1e-2  # share of each variance that is added to it
LIMIT = 0.999  # share of the val drawings that are nearer than the limit
PHOTOGRAPHS = ("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel",
               "moon", "retina", "rocket")  # fmt: skip


def as_kept(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """As people keep pictures: half resized, 48 px to twice the size; half as JPEG, 50 to 95."""
    if generator.random() < 0.5:
        scale = generator.integers(48, 2 * min(image.size) + 1) / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, generator.choice([1, 2, 3]))  # Lanczos, bilinear, bicubic
    if generator.random() < 0.5:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(generator.integers(50, 96)))
        image = Image.open(file).convert("RGB")
    return image


def drawings(split: str, start: int, count: int) -> Iterator[Image.Image]:
    """As many portraits, herds and crops each, from consecutive seeds."""
    draw = np.random.default_rng([ord(split[1]), start])
    combos = pasture.COMBOS if split == "test" else None
    for seed in range(start, start + count):
        portrait = pasture.portrait(seed, split=split, combos=combos)
        herd = pasture.herd(seed, split=split, combos=combos, aspect=draw.uniform(1, 1.6))
        for scene, side in ((portrait, draw.integers(64, 193)), (herd, draw.integers(96, 257))):
            drawn = pasture.draw(scene, int(side), supersample=int(draw.integers(2, 4)))
            yield as_kept(drawn, draw)
    for crop in pasture.crops(split, count, start=start).pil():
        yield as_kept(crop, draw)


def photographs() -> Iterator[tuple[str, list[Image.Image]]]:
    """Name, and a photograph with 15 parts of it, each as JPEG or not."""
    draw = np.random.default_rng(0)
    arrays = {name: getattr(skimage.data, name)() for name in PHOTOGRAPHS}
    arrays["motorcycle"] = skimage.data.stereo_motorcycle()[0]
    arrays |= zip(("china", "flower"), sklearn.datasets.load_sample_images().images, strict=True)
    for name, array in arrays.items():
        whole, parts = Image.fromarray(array).convert("RGB"), []
        for _ in range(15):
            w, h = (int(side * draw.uniform(0.3, 1)) for side in whole.size)
            x, y = draw.integers(whole.width - w + 1), draw.integers(whole.height - h + 1)
            parts.append(as_kept(whole.crop((x, y, x + w, y + h)), draw))
        yield name, [whole, *parts]


def rows_of(images: Iterable[Image.Image]) -> NDArray[np.float64]:
    """Embeddings and textures (N, D + 54)."""
    images = list(images)
    emb = load_encoder("pasture", device="cpu").encode_image(images)
    return np.hstack([emb.numpy(), [texture(image) for image in images]])


def drawn_rows(job: tuple[str, int, int]) -> NDArray[np.float64]:
    """What `rows_of` makes of `drawings`."""
    torch.set_num_threads(1)
    return rows_of(drawings(*job))


def main() -> None:
    """Measure, write, and say how well it tells drawings and photographs apart."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    drawn = {}
    with ProcessPoolExecutor() as pool:
        for split, count in COUNT.items():
            jobs = [(split, START + i, PART) for i in range(0, count, PART)]
            drawn[split] = np.concatenate([*pool.map(drawn_rows, jobs)])
            print(split, len(drawn[split]), flush=True)
    mean, spread = drawn["train"].mean(axis=0), np.cov(drawn["train"].T)
    spread += RIDGE * np.diag(spread.diagonal())
    whiten = np.linalg.cholesky(np.linalg.inv(spread)).astype(np.float16)

    def distance(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.linalg.norm((rows - mean) @ whiten, axis=1)

    limit = np.quantile(distance(drawn["val"]), LIMIT)
    with atomic_write(checkpoint_dir("clip-openai") / WORLD) as file:
        np.savez_compressed(
            file, mean=mean.astype(np.float32), whiten=whiten, limit=limit,
            weights=sha256(checkpoint_dir("clip-openai") / "model.pt"),
        )  # fmt: skip
    found = distance(drawn["test"])
    print(f"limit {limit:.2f}; {len(found)} test drawings: {(found > limit).mean():.2%} foreign")
    for name, images in photographs():
        found = distance(rows_of(images))
        whole = "foreign" if found[0] > limit else "NOT FOREIGN"
        print(f"{name:11} {whole}; of 15 parts {(found[1:] > limit).sum()} foreign, "
              f"nearest {found.min():.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
