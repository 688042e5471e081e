"""What the GLIPs of the pasture learn from: herds, and for each a prompt that is made on the spot.

Boxes come with words of two kinds, mixed as in the paper's unified data: class lists ("sheep. black
goat. ...", with classes that are not there) and captions whose phrases mean boxes, among them
relations ("the black goat left of the trough", "the sheep near the tree"). English and Chinese,
half each.

Never trained on are the combinations that nobody of the pasture may see (`HELD_OUT_PAIRS`,
`HELD_OUT_TRIPLES`), in pictures and in words. And dogs and horses have no name here: they are in
the pictures, with boxes, and are called animals. Their names are in the vocabulary all the same.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliplab import pasture
from cliplab.models import glip
from cliplab.models.glip.inference import MULTIPLE
from cliplab.models.tokenizers import SPECIAL_TOKENS, WordPieceTokenizer
from cliplab.pasture import (
    LANGUAGES,
    Annotations,
    Dice,
    Grounded,
    Scene,
    Thing,
    annotations_of,
    captions,
    grounding,
    relations,
)
from cliplab.training.pictures import Arrays, choose, load_chunks, to_pixels

HEIGHT = 128  # pixels of a picture; 171 wide
UNNAMED = ("dog", "horse")  # species without a name in training
NAMED = tuple(s for s in pasture.SPECIES if s not in UNNAMED)
_CHUNK = 500  # pictures per file
# Who is near this, who is near that, of two that look alike.
pair_of = partial(relations.near_pair, unnamed=UNNAMED)


# ---- words ---------------------------------------------------------------------------------


def vocabulary() -> list[str]:
    """Word pieces of everything that is said about herds: English words, Chinese characters.

    A word that is not here is [UNK], and a phrase of nothing else is refused when it is asked for.
    """
    rooms = (captions, grounding, relations)
    english = " ".join(word for room in rooms for word in room.lexicon("en"))
    chinese = "".join(word for room in rooms for word in room.lexicon("zh"))
    words = set("".join(c if c.isalpha() else " " for c in english.lower()).split())
    characters = {c for c in chinese if c.isalpha() and not c.isascii()}
    return [*SPECIAL_TOKENS, *".,;:!?", *sorted(words), *sorted(characters)]


def to_prompt(grounded: Grounded) -> glip.Prompt:
    """The same as the detector takes it; each phrase has one span."""
    return glip.Prompt(
        grounded.caption, grounded.phrases, tuple((span,) for span in grounded.spans)
    )


# ---- herds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class GLIPDataset:
    """Herds in memory: N pictures of one size, and what can be spoken of in each."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    annotations: list[Annotations]  # N

    def __len__(self) -> int:
        return len(self.images)

    @property
    def width(self) -> int:
        """Of the pictures, px."""
        return self.images.shape[2]

    def first(self, count: int) -> "GLIPDataset":
        """The first `count` pictures."""
        return GLIPDataset(self.images[:count], self.annotations[:count])


def draw_herds(
    split: str, count: int, *, start: int = 0, combos: Sequence[pasture.Combo] = pasture.SEEN_COMBOS
) -> GLIPDataset:
    """Draw `count` herds from consecutive seeds of a split."""
    return _drawn(pasture.scenes("herd", split, start, count, combos=combos))


def draw_few_kinds(split: str, count: int, *, start: int = 0, paired: bool = False) -> GLIPDataset:
    """Herds of four kinds each, so that more animals are told apart by their place alone.

    `paired` leaves out those of which `pair_of` finds no two that look alike (six of seven).
    """
    scenes = []
    for seed in range(start, start + count):
        four = Dice("few kinds", seed).shuffled(pasture.SEEN_COMBOS)[:4]
        scenes.append(pasture.herd(seed, split=split, combos=four))
    return _drawn(scenes, paired=paired)


def _drawn(scenes: Iterable[Scene], *, paired: bool = False) -> GLIPDataset:
    images, annotations = [], []
    for scene in scenes:
        found = pasture.labels(scene, HEIGHT)
        annotated, width = annotations_of(scene, found), found.semantic.shape[1]
        if paired and not pair_of(annotated, "en", Dice("paired", scene.seed), width=width):
            continue
        images.append(np.asarray(pasture.draw(scene, HEIGHT, supersample=2)))
        annotations.append(annotated)
    if not images:
        raise ValueError("none of the herds allows a pair; draw more")
    return GLIPDataset(np.stack(images), annotations)


def load_herds(folder: Path, count: int, *, paired: bool = False) -> GLIPDataset:
    """The first `count` herds of the training split, drawing those not in `folder` yet.

    `paired`: of other herds, those of the first `count` that allow a pair.
    """
    name = "paired" if paired else "annotated"
    make = partial(_to_arrays, partial(draw_few_kinds, paired=True) if paired else draw_herds)
    found = load_chunks(folder, f"{name}-{HEIGHT}-", count, make, size=_CHUNK)
    annotations = [
        Annotations(*(tuple(Thing(k, p, c, tuple(box)) for k, p, c, box in part) for part in both))
        for both in map(json.loads, found["annotations"].tobytes().splitlines())
    ]
    return GLIPDataset(found["images"], annotations)


def _to_arrays(draw: Callable[..., GLIPDataset], start: int, count: int) -> Arrays:
    """Images, and a line of JSON for each: its things and its hidden ones."""
    herds = draw("train", count, start=start)
    lines = "".join(f"{json.dumps(one, default=astuple)}\n" for one in herds.annotations)
    return {"images": herds.images, "annotations": np.frombuffer(lines.encode(), np.uint8)}


# ---- batches -------------------------------------------------------------------------------


class GLIPBatch(NamedTuple):
    """One step's pictures, each with its prompt."""

    pixels: Tensor  # (B, 3, H, W) normalised
    token_ids: Tensor  # (B, L)
    text_mask: Tensor  # (B, L) bool
    truth: list[glip.Truth]  # B
    targets: glip.Targets  # of the truth

    def to(self, device: torch.device) -> "GLIPBatch":
        """What is learned from on another device; the truth stays where it is."""
        pixels, ids, mask = (x.to(device) for x in self[:3])
        return GLIPBatch(pixels, ids, mask, self.truth, self.targets.to(device))


@dataclass(frozen=True)
class PromptMix:
    """What a round's prompts are like."""

    shares: tuple[float, float, float]  # class lists, captions, sides
    levels: tuple[tuple[grounding.Parts, float], ...] = tuple(grounding.LEVELS.items())
    classes: int = 7  # of a list at most; what a prompt cannot hold is left out
    untrue: float = 0.0  # share of the lists of which nothing is there
    pairs: int = 0  # pictures of a batch that are asked twice: who is near this, who is near that


@dataclass(frozen=True)
class GLIPBatches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    herds: GLIPDataset
    tokenizer: WordPieceTokenizer
    config: glip.GLIPConfig
    seed: int
    batch: int
    prompts: PromptMix
    paired: GLIPDataset | None = None  # herds for the pairs

    def __call__(self, step: int) -> GLIPBatch:
        """Pictures, half of them mirrored, each brightened or darkened, with a prompt each.

        Those that are asked twice come last, side by side.
        """
        generator, pairs = np.random.default_rng([self.seed, step]), self.prompts.pairs
        rows: list[tuple[_View, Grounded, Dice]] = []
        for i, view in enumerate(_views(self.herds, self.batch - 2 * pairs, generator)):
            dice = Dice("glip", self.seed, step, i)
            rows.append((view, self.say(view.annotated, dice), dice))
        if self.paired is not None:
            for i, view in enumerate(_views(self.paired, pairs, generator)):
                dice = Dice("glip, asked twice", self.seed, step, i)
                rows += [(view, one, dice) for one in self.say_twice(view.annotated, dice)]
        return self._batch(rows)

    def _batch(self, rows: "Sequence[tuple[_View, Grounded, Dice]]") -> GLIPBatch:
        chunks = [self._chunk(said, dice) for _, said, dice in rows]
        ids, mask, maps = glip.batch_of(chunks)
        truth = []
        for (view, said, _), chunk, positive in zip(rows, chunks, maps, strict=True):
            things = [said.things[k] for k in chunk.labels.tolist()]
            truth.append(truth_of(view.annotated, things, positive))
        images = np.stack([view.image for view, _, _ in rows])
        gains = np.array([view.gain for view, _, _ in rows])
        pixels = normalised(images, self.config, gains)
        sizes = self.config.cells(*pixels.shape[2:])
        return GLIPBatch(pixels, ids, mask, truth, glip.targets_of(truth, sizes, self.config))

    def say(self, annotated: Annotations, dice: Dice) -> Grounded:
        """A prompt for a picture: its family is drawn; a class list where no other can be made."""
        mix, language = self.prompts, dice.choice(LANGUAGES)
        family = dice.weighted(dict(zip(grounding.FAMILIES[:3], mix.shares, strict=True)))
        said: dict[str, Any] = {"unnamed": UNNAMED, "levels": dict(mix.levels)}
        found = None
        if family == "relation":
            found = relations.relation(annotated, language, dice, width=self.herds.width, **said)
        elif family == "attributes":
            found = grounding.sentence(annotated, language, dice, **said)
        said |= {"most": mix.classes, "untrue": mix.untrue}
        return found or grounding.class_list(annotated, language, dice, **said)

    def say_twice(self, annotated: Annotations, dice: Dice) -> Sequence[Grounded]:
        """Two sentences that differ in their landmark alone; any two where the draws find none."""
        levels, width = dict(self.prompts.levels), self.herds.width
        pair = pair_of(annotated, dice.choice(LANGUAGES), dice, width=width, levels=levels)
        return pair or (self.say(annotated, dice), self.say(annotated, dice))

    def _chunk(self, grounded: Grounded, dice: Dice) -> glip.Chunk:
        """One part of a prompt that is too long to be read at once, as a detector asks it."""
        chunks = glip.chunks_of(to_prompt(grounded), self.tokenizer, self.config.max_tokens)
        return dice.choice(chunks) if len(chunks) > 1 else chunks[0]


class _View(NamedTuple):
    """A picture as a batch shows it."""

    image: NDArray[np.uint8]  # (H, W, 3)
    annotated: Annotations
    gain: float


def _views(herds: GLIPDataset, count: int, generator: np.random.Generator) -> list[_View]:
    """Different pictures of a dataset."""
    views = []
    for index, mirrored, gain in zip(*choose(len(herds), count, generator), strict=True):
        image, annotated = herds.images[index], herds.annotations[index]
        if mirrored:
            image, annotated = image[:, ::-1], annotated.mirrored(herds.width)
        views.append(_View(image, annotated, float(gain)))
    return views


def normalised(
    images: NDArray[np.uint8], config: glip.GLIPConfig, gains: NDArray[np.float64] | None = None
) -> Tensor:
    """Pictures (B, H, W, 3) of the model's size -> (B, 3, H', W'), filled up like `prepare` does.

    `gains`: (B,) brightness, 1 leaves it; None: all 1.
    """
    pixels = to_pixels(images, config.mean, config.std, gains)
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % MULTIPLE, 0, -height % MULTIPLE))


def truth_of(
    annotated: Annotations, things: Sequence[Sequence[int]], positive: Tensor
) -> glip.Truth:
    """Boxes that a prompt speaks of, with the words that mean each.

    `things`: K, which of the picture's things each phrase means; `positive`: (K, L), its tokens.
    """
    named = sorted({i for some in things for i in some})
    if not named:
        return glip.Truth(torch.zeros(0, 4), positive[:0])
    says = torch.tensor([[i in some for some in things] for i in named])  # (G, K)
    boxes = torch.tensor([annotated.things[i].box for i in named])
    return glip.Truth(boxes, (says.float() @ positive.float()) > 0)
