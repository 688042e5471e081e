"""What GroupViT's training sees: pictures of the pasture and captions, and nothing else.

There are no masks, boxes or class ids in here: nothing of this module asks for them, and a `Pool`
has no place for them. All that names a thing is the text of a caption; its nouns are found by
looking for words.

**Stronger than the paper's supervision.** GroupViT learns from one caption a picture, and from
nouns of that caption. With `captions=6` a picture's nouns are those of six captions together, three
about its animals and three about its landscape: together they leave out little of what there is, so
that a noun that none of them has is a sign that the thing is absent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.pasture import Scene, caption, draw, herd, portrait
from cliplab.pasture.captions import LANGUAGES, lexicon
from cliplab.pasture.stuff import NOUNS, nouns_in, stuff_caption, stuff_lexicon
from cliplab.runtime import atomic_write

log = logging.getLogger(__name__)

SIZE = 96  # pixels per side
CAPTIONS = 6  # of a picture and language: three of its animals, three of its landscape
PROMPTS = {
    "en": ("{}", "a photo of {}", "a photo of a {}.", "a view of {}", "there is {}"),
    "zh": ("{}", "一张{}的照片", "图中有{}", "有{}的风景"),
}
_CHUNK = 2000  # pictures per file


# ---- pictures and what is said of them -----------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Training pictures in memory, and their captions."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    texts: tuple[tuple[str, ...], ...]  # N of 2 * CAPTIONS: English, then Chinese

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Pool:
        """The first `count` pictures."""
        return Pool(self.images[:count], self.texts[:count])

    def captions(self, i: int, language: str) -> tuple[str, ...]:
        """The captions of picture i in one language."""
        start = LANGUAGES.index(language) * CAPTIONS
        return self.texts[i][start : start + CAPTIONS]


def scene_of(seed: int, split: str = "train") -> Scene:
    """The scene of a picture: three herds, then a portrait, all square."""
    if seed % 4 == 3:
        return portrait(seed, split=split)
    return herd(seed, split=split, aspect=1.0)


def captions_of(scene: Scene) -> tuple[str, ...]:
    """All captions of a scene: of its animals and of its landscape in turn, in both languages."""
    makers = (caption, stuff_caption)
    return tuple(
        makers[k % 2](scene, language, k // 2) for language in LANGUAGES for k in range(CAPTIONS)
    )


def picture_of(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene, (S, S, 3)."""
    return np.asarray(draw(scene, SIZE, supersample=2))


def load_pool(folder: Path, count: int) -> Pool:
    """The first `count` pictures of the training split, drawing those not in `folder` yet."""
    parts = [_chunk(folder, start, min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)]
    images = np.concatenate([part.images for part in parts])
    return Pool(images, tuple(texts for part in parts for texts in part.texts))


def _chunk(folder: Path, start: int, count: int) -> Pool:
    path = folder / f"scenes-{SIZE}-{start:08d}-{count}.npz"
    if not path.exists():
        log.info("drawing scenes %d to %d into %s", start, start + count, folder)
        scenes = [scene_of(seed) for seed in range(start, start + count)]
        lines = "\n".join(text for scene in scenes for text in captions_of(scene))
        with atomic_write(path) as file:
            np.savez(
                file,
                images=np.stack([picture_of(scene) for scene in scenes]),
                texts=np.frombuffer(lines.encode("utf-8"), np.uint8),
            )
    with np.load(path) as file:
        lines = file["texts"].tobytes().decode("utf-8").split("\n")
        each = len(LANGUAGES) * CAPTIONS
        texts = tuple(tuple(lines[i : i + each]) for i in range(0, len(lines), each))
        return Pool(file["images"], texts)


# ---- words ---------------------------------------------------------------------------------


def vocabulary_of() -> list[str]:
    """Word pieces of all captions and prompts in both languages; [SEP] last, as GroupViT needs."""
    english = {w for phrase in [*lexicon("en"), *stuff_lexicon("en")] for w in phrase.split()}
    english |= {form for forms in NOUNS["en"].values() for form in forms} | {"photo", "view", "of"}
    chinese = set("".join([*lexicon("zh"), *stuff_lexicon("zh"), *PROMPTS["zh"]])) - set("{}")
    words = sorted({w.lower() for w in english if w.isascii()} | chinese | {",", "."})
    return ["[PAD]", "[UNK]", "[CLS]", *words, "[SEP]"]


def noun_names(language: str) -> tuple[str, ...]:
    """The nouns that training asks about in one language."""
    return tuple(NOUNS[language])


def noun_table(pool: Pool, language: str) -> NDArray[np.bool_]:
    """(N, CAPTIONS, M): which caption of which picture has which noun."""
    column = {noun: k for k, noun in enumerate(NOUNS[language])}
    table = np.zeros((len(pool), CAPTIONS, len(column)), np.bool_)
    for i in range(len(pool)):
        for k, text in enumerate(pool.captions(i, language)):
            table[i, k, [column[noun] for noun in nouns_in(text, language)]] = True
    return table


# ---- batches -------------------------------------------------------------------------------


class Batch(NamedTuple):
    """One step's pictures, a caption each, and the nouns that captions have."""

    images: NDArray[np.uint8]  # (B, S, S, 3), augmented
    captions: list[str]  # B, the first half in English, the second in Chinese
    nouns: dict[str, Tensor]  # language -> (B, M) bool
    own_nouns: list[list[str]]  # B, the nouns of the caption itself, in its language
    answers: NDArray[np.uint8] | None = None  # (B, S, S, languages) of an earlier round, if any


class Batches:
    """The batch of each step, which depends on nothing but the step and the seed.

    Args:
        pool: pictures.
        seed: of the order and the augmentation.
        batch: pictures a step.
        captions: 6, nouns of all captions count; or 1, of one caption, always the same one.
        answers: (N, S, S, languages) uint8 for the pool, see `groupvit_answers`; None: none yet.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        seed: int,
        batch: int,
        captions: int = CAPTIONS,
        answers: NDArray[np.uint8] | None = None,
    ) -> None:
        if captions not in (1, CAPTIONS):
            raise ValueError(f"captions: got {captions}; expected 1 or {CAPTIONS}")
        self.pool, self.seed, self.batch, self.captions = pool, seed, batch, captions
        self.answers = answers
        self._nouns = {language: noun_table(pool, language) for language in LANGUAGES}

    def __call__(self, step: int) -> Batch:
        """Pictures that are mirrored, brightened and shifted: all that captions say stays true."""
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(len(self.pool), self.batch, replace=len(self.pool) < self.batch)
        images, answers = self._augmented(chosen, generator)
        one = self.captions == 1
        which = chosen % CAPTIONS if one else generator.integers(0, CAPTIONS, len(chosen))
        languages = [LANGUAGES[2 * k // len(chosen)] for k in range(len(chosen))]
        captions, own = [], []
        for i, k, language in zip(chosen, which, languages, strict=True):
            captions.append(self.pool.captions(int(i), language)[k])
            own.append(nouns_in(captions[-1], language))
        nouns = {
            language: torch.from_numpy(table[chosen, which] if one else table[chosen].any(axis=1))
            for language, table in self._nouns.items()
        }
        return Batch(images, captions, nouns, own, answers)

    def _augmented(
        self, chosen: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Pictures, and the answers for them, which move along."""
        images = self.pool.images[chosen]
        if self.answers is None:
            return augment(images, generator), None
        both = augment(np.concatenate([images, self.answers[chosen]], axis=3), generator)
        return both[..., :3], both[..., 3:]


def augment(
    images: NDArray[np.uint8], generator: np.random.Generator, *, gained: int = 3
) -> NDArray[np.uint8]:
    """Mirror half of the pictures, brighten or darken each, and move all by up to 4 pixels.

    What a shift brings in repeats the edge: nothing that a caption names leaves the picture.

    Args:
        images: (B, S, S, C).
        generator: of the draws.
        gained: so many of the C channels are light, and brightened; the rest keep their values.
    """
    out = images.copy()
    mirrored = generator.random(len(out)) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    gain = generator.uniform(0.88, 1.12, (len(out), 1, 1, 1)).astype(np.float32)
    out[..., :gained] = np.clip(out[..., :gained] * gain, 0, 255).astype(np.uint8)
    dy, dx = generator.integers(0, 9, 2)
    padded = np.pad(out, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    height, width = out.shape[1:3]
    return np.ascontiguousarray(padded[:, dy : dy + height, dx : dx + width])


def to_pixels(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, S, S, 3) -> normalised float32 (B, 3, S, S), channels last in memory."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
