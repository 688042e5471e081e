"""What the ViLDs of the pasture learn from: herds, boxes for some kinds, the teacher's view of all.

A category is a species and a posture. Of the 20, two never occur in training pictures, because no
CLIP of the pasture may see them either (`HELD_OUT_PAIRS`): here they are UNSEEN, by the detector
and by its teacher. NOVEL are six that the teacher knows well, since it read captions of them, and
that are in the detector's training pictures too, but without a box or a label. BASE is the rest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliplab import pasture
from cliplab.detection import SCALES, embed_boxes
from cliplab.encoders import Encoder
from cliplab.training.pictures import Arrays, as_floats, choose, load_chunks, mirror_boxes

HEIGHT = 128  # pixels of a training picture; 171 wide
LEAST_VISIBLE = 0.3  # share of an animal that must show for its box to count
_CHUNK = 500  # pictures per file

CATEGORIES = tuple(
    (species, posture) for species in pasture.SPECIES for posture in pasture.POSTURES
)

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
UNSEEN = pasture.HELD_OUT_PAIRS
BASE = tuple(c for c in CATEGORIES if c not in NOVEL and c not in UNSEEN)
GROUPS = {
    name: tuple(CATEGORIES.index(c) for c in members)
    for name, members in (("base", BASE), ("novel", NOVEL), ("unseen", UNSEEN))
}


def phrases(language: str = "en") -> list[str]:
    """The 20 categories in words, such as "standing sheep"."""
    return [pasture.class_phrase(species=s, posture=p, language=language) for s, p in CATEGORIES]


def members(*groups: str) -> Tensor:
    """(20,) bool: categories of these groups."""
    flags = torch.zeros(len(CATEGORIES), dtype=torch.bool)
    for group in groups:
        flags[list(GROUPS[group])] = True
    return flags


# ---- herds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ViLDDataset:
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


def draw_herds(
    split: str, count: int, *, start: int = 0, combos: Sequence[pasture.Combo] = pasture.SEEN_COMBOS
) -> ViLDDataset:
    """Draw `count` herds from consecutive seeds of a split."""
    images, boxes, classes, visible = [], [], [], []
    for scene in pasture.scenes("herd", split, start, count, combos=combos):
        found = pasture.labels(scene, HEIGHT)
        images.append(np.asarray(pasture.draw(scene, HEIGHT, supersample=2)))
        boxes.append(torch.from_numpy(found.boxes_xyxy).float())
        kinds = [CATEGORIES.index((a.species, a.posture)) for a in scene.animals]
        classes.append(torch.tensor(kinds))
        visible.append(torch.from_numpy(found.visible).float())
    return ViLDDataset(np.stack(images), boxes, classes, visible)


def load_herds(folder: Path, count: int) -> ViLDDataset:
    """The first `count` herds of the training split, drawing those not in `folder` yet."""
    found = load_chunks(folder, f"herds-{HEIGHT}-", count, _drawn, size=_CHUNK)
    images, counts = found.pop("images"), found.pop("counts").tolist()
    lists = {name: list(torch.from_numpy(x).split(counts)) for name, x in found.items()}
    return ViLDDataset(images, **lists)


def _drawn(start: int, count: int) -> Arrays:
    herds = draw_herds("train", count, start=start)
    lists = {"boxes": herds.boxes, "labels": herds.labels, "visible": herds.visible}
    arrays = {name: torch.cat(some).numpy() for name, some in lists.items()}
    counts = np.array([len(boxes) for boxes in herds.boxes])
    return {"images": herds.images, "counts": counts, **arrays}


# ---- the teacher's view --------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """What the teacher sees in proposals of each picture; no label is read for it."""

    boxes: list[Tensor]  # N of (R, 4) px
    emb: list[Tensor]  # N of (R, D) unit rows


def load_views(
    folder: Path, herds: ViLDDataset, boxes: Sequence[Tensor], teacher: Encoder
) -> Views:
    """Embed the crops of N pictures' boxes, (R, 4) px each, once.

    What is in `folder` of another teacher or other boxes is not read.
    """

    def look(start: int, count: int) -> Arrays:
        stop = start + count
        emb = embed_boxes(teacher, herds.pil(start, stop), boxes[start:stop])
        return {"emb": emb.half().numpy()}

    shown = hashlib.sha256(f"{teacher.fingerprint} {SCALES}".encode())
    for image, some in zip(herds.images, boxes, strict=True):
        shown.update(image.tobytes() + some.numpy().tobytes())
    name = f"{shown.hexdigest()[:24]}-"
    emb = load_chunks(folder, name, len(herds), look, size=_CHUNK, processes=1)["emb"]
    counts = [len(some) for some in boxes]
    return Views(list(boxes), list(torch.from_numpy(emb).float().split(counts)))


# ---- batches -------------------------------------------------------------------------------


class ViLDBatch(NamedTuple):
    """One step's pictures; lists are as long as the batch."""

    pixels: Tensor  # (B, 3, H, W) in [0, 1]
    boxes: list[Tensor]  # (A, 4) px, of the animals that are labelled
    labels: list[Tensor]  # (A,)
    view_boxes: list[Tensor]  # (R, 4) px, that the teacher looked at
    view_emb: Tensor  # (sum of R, D)

    def to(self, device: torch.device) -> "ViLDBatch":
        """The same on another device."""
        pixels, boxes, labels, views, emb = self
        boxes, labels, views = ([x.to(device) for x in some] for some in (boxes, labels, views))
        return ViLDBatch(pixels.to(device), boxes, labels, views, emb.to(device))


@dataclass(frozen=True)
class ViLDBatches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    herds: ViLDDataset
    known: Tensor  # (20,) bool, categories that have boxes
    seed: int
    batch: int
    views: Views | None = None  # None: nothing is distilled
    view_batch: int = 0  # views of a picture

    def __call__(self, step: int) -> "ViLDBatch":
        """Pictures, half of them mirrored with their boxes, each brightened or darkened."""
        generator = np.random.default_rng([self.seed, step])
        indices, mirrored, gains = choose(len(self.herds), self.batch, generator)
        images = self.herds.images[indices]
        images[mirrored] = images[mirrored, :, ::-1]
        truth = [self.herds.labelled(int(i), self.known) for i in indices]
        view_boxes, view_emb = self._views(indices, generator)
        width = images.shape[2]
        boxes, view_boxes = (
            [mirror_boxes(b, width) if m else b for b, m in zip(some, mirrored, strict=True)]
            for some in ([b for b, _ in truth], view_boxes)
        )
        names = [k for _, k in truth]
        return ViLDBatch(as_floats(images, gains), boxes, names, view_boxes, view_emb)

    def _views(
        self, indices: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Some boxes of each picture and the teacher's embedding of them.

        A mirrored box keeps the embedding: the pasture's CLIP was trained on mirrored pictures.
        """
        if self.views is None:
            return [torch.zeros(0, 4) for _ in indices], torch.zeros(0, 1)
        boxes, emb = [], []
        for i in indices:
            some = generator.permutation(len(self.views.boxes[i]))[: self.view_batch]
            boxes.append(self.views.boxes[i][some])
            emb.append(self.views.emb[i][some])
        return boxes, torch.cat(emb)
