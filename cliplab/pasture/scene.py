"""What is in a picture: animals, props, weather, all drawn from a seed.

A `Scene` is a plain, frozen description with no pixels in it. `drawing.py` turns it into a picture,
`captions.py` into sentences, `dataset.py` into batches. Coordinates are in units of the frame's
height: x runs from 0 to `aspect`, y from 0 (top) to 1 (bottom), and an animal's (x, y) is the point
of the ground between its feet.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

SPECIES = ("sheep", "goat", "cow", "dog", "horse")
POSTURES = ("standing", "eating", "lying", "drinking")
COLOURS = ("white", "black", "brown", "spotted")
WEATHERS = ("sunny", "cloudy", "rainy", "dusk", "snowy")

# Seeds of the splits never meet, so a test picture cannot have been trained on. "hidden" is for the
# marks of a course: no checkpoint, table or notebook draws from it.
SPLITS = {
    "train": range(0, 100_000_000),
    "val": range(100_000_000, 110_000_000),
    "test": range(110_000_000, 120_000_000),
    "hidden": range(120_000_000, 130_000_000),
}


class Combo(NamedTuple):
    """One of the 5 x 4 x 4 = 80 kinds of animal."""

    species: str
    posture: str
    colour: str


COMBOS = tuple(Combo(*names) for names in product(SPECIES, POSTURES, COLOURS))

# Two whole pairs: no picture and no caption of them is ever trained on, in any colour.
HELD_OUT_PAIRS = (("sheep", "lying"), ("horse", "eating"))

# Twelve triples besides; each posture and each colour three times, each species two or three times,
# so that every value of every attribute is still seen often, in other company.
HELD_OUT_TRIPLES = (
    Combo("sheep", "standing", "black"),
    Combo("sheep", "drinking", "brown"),
    Combo("goat", "lying", "white"),
    Combo("goat", "eating", "spotted"),
    Combo("goat", "drinking", "black"),
    Combo("cow", "eating", "white"),
    Combo("cow", "lying", "brown"),
    Combo("dog", "standing", "spotted"),
    Combo("dog", "eating", "black"),
    Combo("dog", "drinking", "white"),
    Combo("horse", "standing", "brown"),
    Combo("horse", "lying", "spotted"),
)


def combo_group(combo: Combo) -> str:
    """Name the group of a combination: "pair" or "triple" if held out of training, else "seen"."""
    if (combo.species, combo.posture) in HELD_OUT_PAIRS:
        return "pair"
    return "triple" if combo in HELD_OUT_TRIPLES else "seen"


SEEN_COMBOS = tuple(c for c in COMBOS if combo_group(c) == "seen")
PAIR_COMBOS = tuple(c for c in COMBOS if combo_group(c) == "pair")


@dataclass(frozen=True)
class Animal:
    """One animal; `size` is its body unit in frame heights, about the length of its trunk."""

    species: str
    posture: str
    colour: str
    x: float  # 0 to aspect
    y: float  # 0 to 1, where its feet stand
    size: float  # frame heights
    facing: int  # +1 right, -1 left
    source: str  # what it eats or drinks from: "grass", "hay", "pond", "trough" or ""
    stretch: float  # length over height, about 1
    tone: float  # brightness of the coat, about 1
    look: int  # seed of the details: where the patches are, how the legs stand

    @property
    def combo(self) -> Combo:
        """Species, posture and colour together."""
        return Combo(self.species, self.posture, self.colour)


@dataclass(frozen=True)
class Prop:
    """One thing that is no animal; (x, y) is the middle of its foot, `size` its height."""

    kind: str
    x: float
    y: float
    size: float
    variant: float  # 0 to 1, chooses among its looks


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows, and nothing about pixels."""

    seed: int
    kind: str  # "portrait" or "herd"
    split: str  # whose seed range the seed is from
    weather: str
    ground: str
    backdrop: str
    horizon: float  # y where the ground begins; 0 when the ground fills the frame
    aspect: float  # width over height
    props: tuple[Prop, ...]
    animals: tuple[Animal, ...]


class Dice:
    """Random draws that are the same on every platform and for every version of Python.

    Only `random.Random.random` is promised to repeat across versions, so every draw is made of it;
    numbers are rounded because the last bits of a product may differ between compilers.
    """

    def __init__(self, *key: object) -> None:
        self._random = random.Random("/".join(map(str, key))).random

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high], to 4 decimals."""
        return round(low + (high - low) * self._random(), 4)

    def integer(self, stop: int) -> int:
        """A whole number in [0, stop)."""
        return int(self._random() * stop)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[self.integer(len(options))]

    def weighted(self, options: Mapping[T, float]) -> T:
        """One key, as likely as its weight."""
        rest = self._random() * sum(options.values())
        for option, weight in options.items():
            rest -= weight
            if rest < 0:
                return option
        return option

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order."""
        return sorted(options, key=lambda _: self._random())


def portrait(
    seed: int,
    *,
    split: str = "train",
    combos: Sequence[Combo] | None = None,
    weather: str | None = None,
) -> Scene:
    """One animal, large in the frame, with its surroundings.

    Args:
        seed: offset within the split's seed range, 0 or more.
        split: "train", "val", "test" or "hidden"; pictures of different splits share no seed.
        combos: kinds of animal to draw from; default: the 60 seen ones. Training and validation
            refuse held-out ones, so that no mistake can leak them.
        weather: one of WEATHERS; default: drawn.

    Raises:
        ValueError: a seed outside the split, an unknown name, or a held-out kind in train or val.
    """
    combos = _checked_combos(combos, split)
    dice = Dice("pasture", "portrait", _global_seed(seed, split))
    setting = _setting(dice, weather, aspect=1.0)
    combo = dice.choice(combos)
    size = round(dice.uniform(0.42, 0.60) * _SLIM[combo.species], 4)
    facing = dice.choice((-1, 1))
    lowest = 0.94 if setting["horizon"] < 0.6 else 0.96
    y = dice.uniform(max(setting["horizon"] + 0.16, 0.66), lowest)
    # The head needs room in front of the trunk, so the trunk stands back from the middle.
    x = dice.uniform(0.45, 0.55) - facing * 0.22 * size
    animal = _animal(dice, combo, x=x, y=y, size=size, facing=facing)
    props = _backdrop_props(dice, setting, most=2) + _source_props([animal])
    return Scene(seed=seed, kind="portrait", split=split, props=props, animals=(animal,), **setting)


def herd(
    seed: int,
    *,
    split: str = "train",
    combos: Sequence[Combo] | None = None,
    count: int | None = None,
    weather: str | None = None,
    aspect: float = 4 / 3,
) -> Scene:
    """Two to six animals at different depths, some in front of others.

    Args:
        seed, split, combos, weather: as `portrait` takes them.
        count: number of animals, 1 to 8; default: drawn.
        aspect: width over height of the frame, about 0.5 to 3.

    Raises:
        ValueError: as `portrait`, or a count out of range.
    """
    combos = _checked_combos(combos, split)
    if count is not None and not 1 <= count <= 8:
        raise ValueError(f"count {count}: expected 1 to 8 animals")
    dice = Dice("pasture", "herd", _global_seed(seed, split))
    setting = _setting(dice, weather, aspect=aspect)
    n = count or dice.weighted({2: 3, 3: 4, 4: 3, 5: 2, 6: 1})
    animals = _place_herd(dice, combos, n, setting)
    props = _backdrop_props(dice, setting, most=3) + _source_props(animals)
    return Scene(
        seed=seed, kind="herd", split=split, props=props, animals=tuple(animals), **setting
    )


def _checked_combos(combos: Sequence[Combo] | None, split: str) -> Sequence[Combo]:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if combos is None:
        return SEEN_COMBOS
    combos = [Combo(*c) for c in combos]
    unknown = [c for c in combos if c not in COMBOS]
    if unknown or not combos:
        raise ValueError(
            f"combos: {unknown[:3] or 'none given'}; expected (species, posture, colour) from "
            f"{SPECIES}, {POSTURES}, {COLOURS}"
        )
    leaked = [c for c in combos if combo_group(c) != "seen"]
    if leaked and split in ("train", "val"):
        raise ValueError(f"{leaked[0]} is held out of training: ask for it with split='test'")
    return combos


def _global_seed(seed: int, split: str) -> int:
    seeds = SPLITS[split]
    if not 0 <= seed < len(seeds):
        raise ValueError(f"seed {seed}: split {split!r} has seeds 0 to {len(seeds) - 1}")
    return seeds[seed]


def _setting(dice: Dice, weather: str | None, aspect: float) -> dict[str, Any]:
    drawn = dice.weighted({"sunny": 4, "cloudy": 2, "rainy": 1.5, "dusk": 2, "snowy": 1.5})
    if weather is not None and weather not in WEATHERS:
        raise ValueError(f"unknown weather {weather!r}; expected one of {', '.join(WEATHERS)}")
    weather = weather or drawn
    ground = "snow" if dice.chance(0.2) or weather == "snowy" else "grass"
    # A class in every picture cannot be learned from captions: the camera often leaves out the sky.
    backdrop = dice.weighted({"sky": 3, "hills": 4, "hills only": 1.5, "none": 1.5})
    horizon = 0.0 if backdrop == "none" else dice.uniform(0.30, 0.52)
    return {
        "weather": weather,
        "ground": ground,
        "backdrop": backdrop,
        "horizon": horizon,
        "aspect": aspect,
    }


def _animal(dice: Dice, combo: Combo, *, x: float, y: float, size: float, facing: int) -> Animal:
    sources = {"eating": {"grass": 3, "hay": 2}, "drinking": {"pond": 1, "trough": 1}}
    return Animal(
        **combo._asdict(),
        x=round(x, 4),
        y=y,
        size=size,
        facing=facing,
        source=dice.weighted(sources.get(combo.posture, {"": 1})),
        stretch=dice.uniform(0.93, 1.09),
        tone=dice.uniform(0.93, 1.08),
        look=dice.integer(1_000_000),
    )


def _place_herd(dice: Dice, combos: Sequence[Combo], n: int, setting: dict) -> list[Animal]:
    """Far animals are small and high in the frame; near ones large and low, and drawn later."""
    top = setting["horizon"] + 0.10 if setting["horizon"] else 0.30
    depths = sorted(dice.uniform(0.0, 1.0) for _ in range(n))
    # One lane each, so that animals overlap but no animal hides another entirely.
    lanes = dice.shuffled(range(n))
    width = setting["aspect"] / n
    animals = []
    for depth, lane in zip(depths, lanes, strict=True):
        y = round(top + (0.95 - top) * depth, 4)
        size = round((0.19 + 0.21 * depth) * dice.uniform(0.9, 1.15), 4)
        x = width * (lane + 0.5) + dice.uniform(-0.25, 0.25) * width
        x = min(max(x, size * 0.55), setting["aspect"] - size * 0.55)
        combo, facing = dice.choice(combos), dice.choice((-1, 1))
        animals.append(_animal(dice, combo, x=x, y=y, size=size, facing=facing))
    return animals


def _backdrop_props(dice: Dice, setting: dict, most: int) -> tuple[Prop, ...]:
    kinds = dice.shuffled(["tree", "pine", "barn", "fence", "pond", "hay", "trough"])
    weights = {0: 2, 1: 4, 2: 3, 3: 2}
    count = dice.weighted({k: w for k, w in weights.items() if k <= most})
    horizon, aspect = setting["horizon"], setting["aspect"]
    heights = {"tree": 0.42, "pine": 0.42, "barn": 0.34, "fence": 0.13}
    props = []
    for kind in kinds[:count]:
        far = round(max(horizon, 0.30) + dice.uniform(0.01, 0.12), 4)
        size = round(heights.get(kind, 0.11) * dice.uniform(0.8, 1.25), 4)
        x = dice.uniform(0.08, 0.92) * aspect
        props.append(Prop(kind, round(x, 4), far, size, dice.uniform(0, 1)))
    return tuple(props)


def _source_props(animals: Sequence[Animal]) -> tuple[Prop, ...]:
    """The pond, trough, hay or tuft at the mouth of each animal that eats or drinks."""
    props = []
    for animal in animals:
        if animal.source:
            x = animal.x + animal.facing * animal.size * animal.stretch * REACH[animal.species]
            foot = round(animal.y + 0.02 * animal.size, 4)
            variant = (animal.look % 97) / 96
            props.append(
                Prop(f"{animal.source}*", round(x, 4), foot, animal.size, round(variant, 4))
            )
    return tuple(props)


# Long animals are drawn a little smaller, so that all of them fit into a portrait.
_SLIM = {"sheep": 1.0, "goat": 1.0, "cow": 0.86, "dog": 1.05, "horse": 0.88}

# Where the lips are, in body units ahead of the animal's middle, when the head is down.
REACH = {"sheep": 0.74, "goat": 0.74, "cow": 0.86, "dog": 0.66, "horse": 0.86}


def scenes(kind: str, split: str, start: int, count: int, **options: Any) -> Iterator[Scene]:
    """`count` scenes of one kind from consecutive seeds of a split."""
    make = {"portrait": portrait, "herd": herd}[kind]
    return (make(seed, split=split, **options) for seed in range(start, start + count))
