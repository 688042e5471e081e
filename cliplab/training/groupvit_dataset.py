"""What GroupViT's training sees: pictures of the pasture and captions, and nothing else.

There are no masks, boxes or class ids in here: nothing of this module asks for them, and a dataset
has no place for them. All that names a thing is the text of a caption; its nouns are found by
looking for words.

**Stronger than the paper's supervision.** GroupViT learns from one caption a picture, and from
nouns of that caption. With `captions=6` a picture's nouns are those of six captions together, three
about its animals and three about its landscape: together they leave out little of what there is, so
that a noun that none of them has is a sign that the thing is absent.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.pasture import (
    LANGUAGES,
    NOUNS,
    Scene,
    caption,
    draw,
    herd,
    lexicon,
    nouns_in,
    portrait,
    rated_caption,
    stuff_caption,
    stuff_lexicon,
)
from cliplab.training.pictures import Arrays, augment, load_chunks

SIZE = 96  # pixels per side
CAPTIONS = 6  # of a picture and language: three of its animals, three of its landscape
PROMPTS = {
    "en": ("{}", "a photo of {}", "a photo of a {}.", "a view of {}", "there is {}"),
    "zh": ("{}", "一张{}的照片", "图中有{}", "有{}的风景"),
}
SHIFT = 4  # px that a picture is moved by, at most
_CHUNK = 2000  # pictures per file


@dataclass(frozen=True)
class GroupViTDataset:
    """Training pictures in memory, and their captions."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    texts: tuple[tuple[str, ...], ...]  # N of 2 * CAPTIONS: English, then Chinese

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "GroupViTDataset":
        """The first `count` pictures."""
        return GroupViTDataset(self.images[:count], self.texts[:count])

    def captions(self, i: int, language: str) -> tuple[str, ...]:
        """The captions of picture i in one language."""
        start = LANGUAGES.index(language) * CAPTIONS
        return self.texts[i][start : start + CAPTIONS]


def scene_of(seed: int, split: str = "train") -> Scene:
    """The scene of a picture: three herds, then a portrait, all square."""
    if seed % 4 == 3:
        return portrait(seed, split=split)
    return herd(seed, split=split, aspect=1.0)


def captions_of(scene: Scene, stuff: float | None = None) -> tuple[str, ...]:
    """All captions of a scene: of its animals and of its landscape in turn, in both languages.

    With `stuff`, 0 to 1, of both at once, and stuff is said so often: see `rated_caption`.
    """
    pairs = [(language, k) for language in LANGUAGES for k in range(CAPTIONS)]
    if stuff is not None:
        return tuple(rated_caption(scene, language, k, rate=stuff) for language, k in pairs)
    makers = (caption, stuff_caption)
    return tuple(makers[k % 2](scene, language, k // 2) for language, k in pairs)


def picture_of(scene: Scene) -> NDArray[np.uint8]:
    """The picture of a scene, (S, S, 3)."""
    return np.asarray(draw(scene, SIZE, supersample=2))


def load_dataset(folder: Path, count: int, stuff: float | None = None) -> GroupViTDataset:
    """The first `count` training pictures, drawing those not in `folder` yet; see `captions_of`."""
    found = load_chunks(folder, f"captioned-{SIZE}-", count, _drawn, size=_CHUNK)
    each = len(LANGUAGES) * CAPTIONS
    lines = found["texts"].tobytes().decode().split("\n")
    texts = tuple(tuple(lines[i : i + each]) for i in range(0, count * each, each))
    if stuff is not None:  # said of the same pictures
        texts = tuple(captions_of(scene_of(seed), stuff) for seed in range(count))
    return GroupViTDataset(found["images"], texts)


def _drawn(start: int, count: int) -> Arrays:
    scenes = [scene_of(seed) for seed in range(start, start + count)]
    lines = "".join(f"{text}\n" for scene in scenes for text in captions_of(scene))
    images = np.stack([picture_of(scene) for scene in scenes])
    return {"images": images, "texts": np.frombuffer(lines.encode("utf-8"), np.uint8)}


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


def noun_table(dataset: GroupViTDataset, language: str) -> NDArray[np.bool_]:
    """(N, CAPTIONS, M): which caption of which picture has which noun."""
    column = {noun: k for k, noun in enumerate(NOUNS[language])}
    table = np.zeros((len(dataset), CAPTIONS, len(column)), np.bool_)
    for i in range(len(dataset)):
        for k, text in enumerate(dataset.captions(i, language)):
            table[i, k, [column[noun] for noun in nouns_in(text, language)]] = True
    return table


class GroupViTBatch(NamedTuple):
    """One step's pictures, a caption each, and the nouns that captions have."""

    images: NDArray[np.uint8]  # (B, S, S, 3), augmented
    captions: list[str]  # B, the first half in English, the second in Chinese
    nouns: dict[str, Tensor]  # language -> (B, M) bool
    own_nouns: list[list[str]]  # B, the nouns of the caption itself, in its language
    pseudo_labels: NDArray[np.uint8] | None = None  # (B, S, S, languages) of an earlier round


@dataclass
class GroupViTBatches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    dataset: GroupViTDataset
    seed: int  # of the order and the augmentation
    batch: int  # pictures a step
    captions: int = CAPTIONS  # nouns of all count; or 1: of one caption, always the same one
    pseudo_labels: NDArray[np.uint8] | None = None  # (N, S, S, languages) for the dataset

    def __post_init__(self) -> None:
        """Find the nouns."""
        self._nouns = {language: noun_table(self.dataset, language) for language in LANGUAGES}

    def __call__(self, step: int) -> GroupViTBatch:
        """Pictures that are mirrored, brightened and shifted: all that captions say stays true."""
        generator = np.random.default_rng([self.seed, step])
        count = len(self.dataset)
        chosen = generator.choice(count, self.batch, replace=count < self.batch)
        images, pseudo_labels = self._augmented(chosen, generator)
        one = self.captions == 1
        which = chosen % CAPTIONS if one else generator.integers(0, CAPTIONS, len(chosen))
        languages = [LANGUAGES[2 * k // len(chosen)] for k in range(len(chosen))]
        captions, own = [], []
        for i, k, language in zip(chosen, which, languages, strict=True):
            captions.append(self.dataset.captions(int(i), language)[k])
            own.append(nouns_in(captions[-1], language))
        nouns = {
            language: torch.from_numpy(table[chosen, which] if one else table[chosen].any(axis=1))
            for language, table in self._nouns.items()
        }
        return GroupViTBatch(images, captions, nouns, own, pseudo_labels)

    def _augmented(
        self, chosen: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Pictures, and the pseudo-labels for them, which move along."""
        images = self.dataset.images[chosen]
        if self.pseudo_labels is None:
            return augment(images, generator, shift=SHIFT), None
        both = np.concatenate([images, self.pseudo_labels[chosen]], axis=3)
        both = augment(both, generator, shift=SHIFT)
        return both[..., :3], both[..., 3:]
