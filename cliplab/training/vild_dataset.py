"""What the ViLDs of the pasture learn from: herds, boxes for some kinds, the teacher's view of all.

A category is a species and a posture. Of the 20, two never occur in training pictures, because no
CLIP of the pasture may see them either (`HELD_OUT_PAIRS`): here they are UNSEEN, by the detector
and by its teacher. NOVEL are six that the teacher knows well, since it read captions of them, and
that are in the detector's training pictures too, but without a box or a label. BASE is the rest.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliplab.detection import SCALES, embed_boxes
from cliplab.encoders.two_towers import Encoder
from cliplab.pasture import (
    HELD_OUT_PAIRS,
    POSTURES,
    SEEN_COMBOS,
    SPECIES,
    Combo,
    class_phrase,
    draw,
    herd,
    labels,
)
from cliplab.runtime import atomic_write

log = logging.getLogger(__name__)

HEIGHT = 128  # pixels of a training picture; 171 wide
LEAST_VISIBLE = 0.3  # share of an animal that must show for its box to count
_CHUNK = 500  # pictures per file

CATEGORIES = tuple((species, posture) for species in SPECIES for posture in POSTURES)

# Every species and every posture has at least one novel category and at least two base ones (goats
# and cows three), so what is new is always the pair: nothing is novel merely because nobody ever
# drew a box around such a body. Chosen before any detector was trained, and not by its results.
NOVEL = (
    ("sheep", "drinking"),
    ("goat", "lying"),
    ("cow", "standing"),
    ("dog", "eating"),
    ("dog", "lying"),
    ("horse", "drinking"),
)
UNSEEN = HELD_OUT_PAIRS
BASE = tuple(c for c in CATEGORIES if c not in NOVEL and c not in UNSEEN)
GROUPS = {
    name: tuple(CATEGORIES.index(c) for c in members)
    for name, members in (("base", BASE), ("novel", NOVEL), ("unseen", UNSEEN))
}


def phrases(language: str = "en") -> list[str]:
    """The 20 categories in words, such as "standing sheep"."""
    return [class_phrase(species=s, posture=p, language=language) for s, p in CATEGORIES]


def members(*groups: str) -> Tensor:
    """(20,) bool: categories of these groups."""
    flags = torch.zeros(len(CATEGORIES), dtype=torch.bool)
    for group in groups:
        flags[list(GROUPS[group])] = True
    return flags


# ---- herds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flock:
    """Herds in memory: N pictures of one size and the boxes of all their animals."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    boxes: list[Tensor]  # N of (A, 4) px, float32
    labels: list[Tensor]  # N of (A,) long, into CATEGORIES
    visible: list[Tensor]  # N of (A,) 0 to 1, share of the animal that shows

    def __len__(self) -> int:
        return len(self.images)

    def pil(self, begin: int = 0, end: int | None = None) -> list[Image.Image]:
        """Pictures begin to end as PIL images."""
        return [Image.fromarray(image) for image in self.images[begin:end]]

    def labelled(self, i: int, known: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (A, 4) and labels (A,) of picture i that an annotator of `known` (20,) draws."""
        keep = known[self.labels[i]] & (self.visible[i] >= LEAST_VISIBLE)
        return self.boxes[i][keep], self.labels[i][keep]


def draw_flock(
    split: str, count: int, *, start: int = 0, combos: Sequence[Combo] = SEEN_COMBOS
) -> Flock:
    """Draw `count` herds from consecutive seeds of a split."""
    images, boxes, classes, visible = [], [], [], []
    for seed in range(start, start + count):
        scene = herd(seed, split=split, combos=combos)
        found = labels(scene, HEIGHT)
        images.append(np.asarray(draw(scene, HEIGHT, supersample=2)))
        boxes.append(torch.from_numpy(found.boxes_xyxy).float())
        kinds = [CATEGORIES.index((a.species, a.posture)) for a in scene.animals]
        classes.append(torch.tensor(kinds))
        visible.append(torch.from_numpy(found.visible).float())
    return Flock(np.stack(images), boxes, classes, visible)


def load_flock(folder: Path, count: int) -> Flock:
    """The first `count` herds of the training split, drawing those not in `folder` yet."""
    parts = [_chunk(folder, start, min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)]
    images = np.concatenate([p.images for p in parts])
    lists = ([x for p in parts for x in getattr(p, n)] for n in ("boxes", "labels", "visible"))
    return Flock(images, *lists)


def _chunk(folder: Path, start: int, count: int) -> Flock:
    path = folder / f"herds-{HEIGHT}-{start:08d}-{count}.npz"
    if not path.exists():
        log.info("drawing herds %d to %d into %s", start, start + count, folder)
        flock = draw_flock("train", count, start=start)
        counts = [len(b) for b in flock.boxes]
        boxes, kinds, visible = (
            torch.cat(part).numpy() for part in (flock.boxes, flock.labels, flock.visible)
        )
        with atomic_write(path) as file:
            np.savez(file, images=flock.images, counts=counts, boxes=boxes, labels=kinds,
                     visible=visible)  # fmt: skip
    with np.load(path) as file:
        counts = file["counts"].tolist()
        lists = [
            list(torch.from_numpy(file[n]).split(counts)) for n in ("boxes", "labels", "visible")
        ]
        return Flock(file["images"], *lists)


# ---- the teacher's view --------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """What the teacher sees in proposals of each picture; no label is read for it."""

    boxes: list[Tensor]  # N of (R, 4) px
    emb: list[Tensor]  # N of (R, D) unit rows


def load_views(folder: Path, flock: Flock, boxes: list[Tensor], teacher: Encoder) -> Views:
    """Embed the crops of all boxes, once: files are named by everything that they depend on.

    Args:
        folder: of the files; those of another teacher, other pictures or other boxes are not read.
        flock: N pictures.
        boxes: N tensors (R, 4) px.
        teacher: any encoder.
    """
    from tqdm import tqdm

    emb: list[Tensor] = []
    for begin in tqdm(range(0, len(flock), _CHUNK), desc="teacher", unit="chunk"):
        part = boxes[begin : begin + _CHUNK]
        emb += _embedded(folder, flock.pil(begin, begin + _CHUNK), part, teacher)
    return Views(boxes, emb)


def _embedded(
    folder: Path, images: list[Image.Image], boxes: list[Tensor], teacher: Encoder
) -> list[Tensor]:
    path = folder / f"{_content_hash(images, boxes, teacher)}.npy"
    if path.exists():
        emb = torch.from_numpy(np.load(path)).float()
    else:
        emb = embed_boxes(teacher, images, boxes)
        with atomic_write(path) as file:
            np.save(file, emb.half().numpy())
    return list(emb.split([len(b) for b in boxes]))


def _content_hash(images: list[Image.Image], boxes: list[Tensor], teacher: Encoder) -> str:
    """Of pictures, boxes, scales and the teacher's weights."""
    digest = hashlib.sha256(f"{teacher.fingerprint} {SCALES}".encode())
    for image, box in zip(images, boxes, strict=True):
        digest.update(image.tobytes())
        digest.update(box.numpy().tobytes())
    return digest.hexdigest()[:24]


# ---- batches -------------------------------------------------------------------------------


class Batch(NamedTuple):
    """One step's pictures; lists are as long as the batch."""

    pixels: Tensor  # (B, 3, H, W) in [0, 1]
    boxes: list[Tensor]  # (A, 4) px, of the animals that are labelled
    labels: list[Tensor]  # (A,)
    view_boxes: list[Tensor]  # (R, 4) px, that the teacher looked at
    view_emb: Tensor  # (sum of R, D)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(
            *(
                part.to(device) if isinstance(part, Tensor) else [x.to(device) for x in part]
                for part in self
            )
        )


class Batches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    def __init__(
        self, flock: Flock, known: Tensor, *, seed: int, batch: int, views: Views | None = None,
        view_batch: int = 0,
    ) -> None:  # fmt: skip
        self.flock, self.known, self.views = flock, known, views
        self.seed, self.batch, self.view_batch = seed, batch, view_batch

    def __call__(self, step: int) -> Batch:
        """Pictures, half of them mirrored with their boxes, each brightened or darkened."""
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(len(self.flock), self.batch, replace=False)
        mirrored = generator.random(len(chosen)) < 0.5
        images = np.stack([self.flock.images[i] for i in chosen])
        images[mirrored] = images[mirrored, :, ::-1]
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        gain = torch.from_numpy(generator.uniform(0.85, 1.15, len(chosen))).float()
        pixels = (pixels * gain.view(-1, 1, 1, 1)).clamp(0, 1)
        truth = [self.flock.labelled(int(i), self.known) for i in chosen]
        width = images.shape[2]
        boxes = [mirror(b, width) if m else b for (b, _), m in zip(truth, mirrored, strict=True)]
        views = self._views(chosen, mirrored, width, generator)
        return Batch(pixels, boxes, [k for _, k in truth], *views)

    def _views(
        self, chosen: np.ndarray, mirrored: np.ndarray, width: int, generator: np.random.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Some boxes of each picture and the teacher's embedding of them.

        A mirrored box keeps the embedding: the pasture's CLIP was trained on mirrored pictures.
        """
        if self.views is None:
            return [torch.zeros(0, 4) for _ in chosen], torch.zeros(0, 1)
        boxes, emb = [], []
        for i, turned in zip(chosen, mirrored, strict=True):
            mine = self.views.boxes[i]
            some = generator.permutation(len(mine))[: self.view_batch]
            boxes.append(mirror(mine[some], width) if turned else mine[some])
            emb.append(self.views.emb[i][some])
        return boxes, torch.cat(emb)


def mirror(boxes_xyxy: Tensor, width: int) -> Tensor:
    """Boxes (R, 4) of a picture `width` px wide after it was turned left to right."""
    x0, y0, x1, y1 = boxes_xyxy.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)
