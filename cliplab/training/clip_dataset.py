"""What the CLIPs of the pasture learn from: pictures of single animals, captions, their words."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab import pasture
from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD
from cliplab.models.tokenizers import BytePairTokenizer
from cliplab.scale import first_goes_first, own_share
from cliplab.training import pictures
from cliplab.training.pictures import Arrays, load_chunks

SIZE = 64  # pixels per side
_CHUNK = 2000  # pictures per file
_FULL_VOCAB = 49408
_MAKERS = {"portraits": pasture.portraits, "crops": pasture.crops}


@dataclass(frozen=True)
class CLIPDataset:
    """All training pictures in memory, and the scene of each."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    is_crop: NDArray[np.bool_]  # (N,)
    seeds: NDArray[np.int64]  # (N,) of the scene
    animals: NDArray[np.int64]  # (N,) index in the scene

    def __len__(self) -> int:
        return len(self.images)

    def caption(self, i: int, language: str, variant: int) -> tuple[str, tuple[str, ...]]:
        """A caption of picture i, and the facts that it mentions besides the species."""
        seed = int(self.seeds[i])
        if self.is_crop[i]:
            scene, animal = pasture.herd(seed), int(self.animals[i])
            text = pasture.animal_caption(scene, animal, language, variant)
            return text, pasture.mentioned_facts(scene, language, variant, index=animal)
        scene = pasture.portrait(seed)
        facts = pasture.mentioned_facts(scene, language, variant)
        return pasture.caption(scene, language, variant), facts


@first_goes_first()
def load_dataset(folder: Path, *, portrait_count: int, crop_count: int) -> CLIPDataset:
    """The training pictures, drawing those that are not in `folder` yet."""
    counts = {"portraits": portrait_count, "crops": crop_count}
    parts = [
        load_chunks(folder, f"{kind}-{SIZE}-", count, partial(_draw, kind), size=_CHUNK)
        for kind, count in counts.items()
        if count
    ]
    is_crop = np.repeat(np.array([False, True]), list(counts.values()))
    names = ("images", "seeds", "animals")
    images, seeds, animals = (np.concatenate([part[name] for part in parts]) for name in names)
    return CLIPDataset(images, is_crop, seeds, animals)


def _draw(kind: str, start: int, count: int) -> Arrays:
    drawn = _MAKERS[kind]("train", count, start=start, size=SIZE)
    seeds = np.array([example.scene.seed for example in drawn.examples])
    animals = np.array([example.index for example in drawn.examples])
    return {"images": drawn.images, "seeds": seeds, "animals": animals}


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, S, S, 3) -> (B, 3, S, S), as CLIP takes them."""
    return pictures.to_pixels(images, IMAGE_MEAN, IMAGE_STD)


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


@dataclass(frozen=True)
class CLIPBatches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    dataset: CLIPDataset
    language: str
    seed: int
    batch: int
    recolour: float  # share of the pictures with a caption of shape alone

    def draw(self, step: int) -> tuple[NDArray[np.int64], list, np.random.Generator]:
        """Indices (B,), a (caption, facts) each, and the generator to go on with."""
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(len(self.dataset), self.batch, replace=False)
        variants = generator.integers(0, 2**31, len(chosen))
        pairs = zip(chosen, variants, strict=True)
        captions = [self.dataset.caption(i, self.language, int(v)) for i, v in pairs]
        return chosen, captions, generator

    def __call__(self, step: int) -> tuple[Tensor, list[str]]:
        """Pixels (B, 3, S, S), augmented, and their captions; of several ranks, the own share."""
        chosen, captions, generator = self.draw(step)
        images = pictures.augment(self.dataset.images[chosen], generator, shift=3)
        shapes = [i for i, (_, facts) in enumerate(captions) if set(facts) <= {"posture"}]
        shapes = [i for i in shapes if generator.random() < self.recolour]
        images[shapes] = recolour(images[shapes], generator)
        own = own_share(self.batch)  # of a batch that every rank has drawn, with one generator
        return normalised(images[own]), [text for text, _ in captions[own]]


class CompactVocabulary:
    """The few byte pairs that captions use, numbered in the order of their official ids.

    The order keeps the end token the highest, which is how the text tower finds it.
    """

    def __init__(self, tokenizer: BytePairTokenizer) -> None:
        self.tokenizer = tokenizer
        used = {i for word in pasture.lexicon("en") for i in tokenizer.encode(word)}
        self.official = sorted(used | {0, tokenizer.start_id, tokenizer.end_id})
        self._compact = np.full(_FULL_VOCAB, -1, np.int64)
        self._compact[self.official] = np.arange(len(self.official))

    def __call__(self, texts: list[str]) -> Tensor:
        """K texts -> (K, L) compact ids, L the longest of them."""
        ids = self._compact[self.tokenizer(texts).numpy()]
        if (ids < 0).any():
            bad = texts[int(np.flatnonzero((ids < 0).any(1))[0])]
            raise ValueError(f"{bad!r} has a word that captions.lexicon does not know")
        longest = int((ids != self._compact[0]).sum(1).max())
        return torch.from_numpy(ids[:, :longest])

    def scatter(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights with all 49,408 rows of the token embedding: trained ones in place, others zero.

        Zero rows cost next to nothing in a compressed file, and they are honest: with random ones
        the model would answer a language it cannot read with the prejudices of those rows.
        """
        trained = weights["token_embedding.weight"]
        rows = torch.zeros(_FULL_VOCAB, trained.shape[1])
        rows[self.official] = trained.float().cpu()
        return {**weights, "token_embedding.weight": rows}


def chinese_vocabulary() -> list[str]:
    """Every character of the Chinese captions, with BERT's special tokens first."""
    characters = sorted({c for word in pasture.lexicon("zh") for c in word})
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
