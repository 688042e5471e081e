"""Two questions about GroupViT, by training: `python tools/groupvit_captions.py`.

1. How well is a class found, by how often captions say it? Grass, snow, sky, hills and water are
   said always, now and then, or never; all else is as it was. With our losses, and the paper's.
2. What do the paper's transformer layers bring, in which patches and group tokens see one another
   before patches are grouped? With both losses, against the same tower without layers.

All have patches of 8 px, a quarter as many as the shipped model's, which makes layers affordable.
One seed of all rates comes before the next seed; `--rows "paper, stuff 1" --seeds 0` does some of
it. What is done is kept: the same command goes on where it stopped, and writes the table of all
that is done after every training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from cliplab.pasture import SEMANTIC_CLASSES, class_of, labels, nouns_in
from cliplab.runtime import checkpoint_dir, write_json
from cliplab.segmentation import Features, GroupViTSegmenter, Quality
from cliplab.training import groupvit_evaluation as evaluation
from cliplab.training.cards import command_of
from cliplab.training.groupvit import train
from cliplab.training.groupvit_dataset import CAPTIONS, SIZE, captions_of, load_dataset, scene_of
from cliplab.training.groupvit_model import GroupViTRecipe

COMMAND = "python tools/groupvit_captions.py"
OURS = GroupViTRecipe(second_round_steps=0, patch=8)
PAPER = replace(OURS, recipe="paper", assignment="hard", captions=1)  # its losses
LOSSES = {"paper": PAPER, "ours": OURS}
_dataset = lru_cache(maxsize=3)(load_dataset)  # captions take as long as a fifth of a training
STUFF = (1.0, 0.15, 0.0)  # how often it is said; the one in the middle is chosen, not measured
BETWEEN = 0.5
LAYERS = 3  # the paper has six, of 196 patches; here are 144
THRESHOLDS = (0.5, 0.9)  # of the paper: PASCAL Context and PASCAL VOC (section 4.1)
WIDE = evaluation.InferenceSettings(top_words=None)  # plain, but for the limit of five words
MEASURED = "measured.json"
_SCENES = 300  # in which it is counted what captions say


def variants() -> dict[str, GroupViTRecipe]:
    """Name of a row -> its recipe, but for seed and size."""
    rows = {}
    for losses, recipe in LOSSES.items():
        rows |= {f"{losses}, stuff {said:g}": replace(recipe, stuff=said) for said in STUFF}
        rows[f"{losses}, {LAYERS} layers"] = replace(recipe, stuff=STUFF[0], layers=LAYERS)
    return rows | {f"{x}, stuff {BETWEEN:g}": replace(r, stuff=BETWEEN) for x, r in LOSSES.items()}


# ---- one training --------------------------------------------------------------------------


@dataclass(frozen=True)
class Exam:
    """Pictures that are asked about, and never trained on."""

    val: evaluation.LabelledScenes  # to choose thresholds on
    test: evaluation.LabelledScenes

    def measure(self, segmenter: GroupViTSegmenter) -> dict[str, Any]:
        """All numbers of a trained model, in English."""
        val, test = (Features(segmenter, some.pil()) for some in (self.val, self.test))
        ways = {"plain": evaluation.plain(), "wide": WIDE}
        found = {name: evaluation.judge(test, self.test, how) for name, how in ways.items()}
        rows: dict[str, Any] = {name: told(quality) for name, quality in found.items()}
        ask = {"scenes": self.test, "settings": WIDE, "background": False}
        fixed = evaluation.animal_miou(test, thresholds=THRESHOLDS, **ask)
        rows["animals"] = {f"threshold {t:g}": m for t, m in zip(THRESHOLDS, fixed, strict=True)}
        for name, background in (("threshold chosen", False), ("words", True)):
            best = None
            if not background:
                best = evaluation.choose_threshold(val, self.val, WIDE, background=False)
                rows["threshold"] = best
            ask["background"] = background
            (rows["animals"][name],) = evaluation.animal_miou(test, thresholds=[best], **ask)
        rows["animals"] = {name: round(miou, 4) for name, miou in rows["animals"].items()}
        return rows


def told(quality: Quality) -> dict[str, Any]:
    """Numbers of one reading, and what each class is called where it is missed."""
    rows = quality.as_dict()
    oracle = zip(quality.names, quality.oracle_iou.tolist(), strict=True)
    rows["oracle_iou"] = {name: round(value, 4) for name, value in oracle if math.isfinite(value)}
    missed = quality.confusion.clone().fill_diagonal_(0)
    rows["called"] = {
        name: SEMANTIC_CLASSES[k] for name, k in zip(quality.names, missed.argmax(1), strict=True)
    }
    return rows


@cache
def said_rates(stuff: float, captions: int) -> dict[str, float]:
    """How often the captions of a training picture say each class that covers 1 % of it."""
    heard, there = [], []
    for seed in range(_SCENES):
        texts = captions_of(scene_of(seed), stuff)[:CAPTIONS]
        texts = texts if captions == CAPTIONS else (texts[seed % CAPTIONS],)
        found = {class_of(noun) for text in texts for noun in nouns_in(text)}
        heard.append([name in found for name in SEMANTIC_CLASSES])
        pixels = labels(scene_of(seed), SIZE).semantic.ravel()
        there.append(np.bincount(pixels, minlength=len(SEMANTIC_CLASSES)) >= SIZE**2 / 100)
    counts = (np.array(heard) & np.array(there)).sum(0) / np.array(there).sum(0).clip(min=1)
    return {name: round(v, 3) for name, v in zip(SEMANTIC_CLASSES, counts.tolist(), strict=True)}


def learn(recipe: GroupViTRecipe, work: Path, exam: Exam) -> None:
    """Train and measure one model, if that was not done before."""
    folder = work / recipe.name / f"seed{recipe.seed}-{recipe.steps}"
    path = folder / MEASURED
    if not path.is_file():
        dataset = _dataset(work / "scenes", recipe.pictures, recipe.stuff)
        model = train(recipe, dataset, folder, torch.device("cpu"))
        metrics = exam.measure(GroupViTSegmenter(model, device="cpu"))
        write_json(path, {"recipe": asdict(recipe), "metrics": metrics})


# ---- the queue, and its table --------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What can be told."""

    seeds: tuple[int, ...] = (0, 1, 2)
    rows: tuple[str, ...] = ()  # to train, of those in the table (default: all)
    steps: int = 300
    pictures: int = 12_000  # to train on
    test_pictures: int = 100
    val_pictures: int = 40
    work: Path = Path("runs/train/groupvit")  # pictures, states, numbers
    out: Path | None = None  # the table (default: beside the shipped weights)


def queue(options: Options) -> Iterator[tuple[str, GroupViTRecipe]]:
    """Rows and their trainings, the most wanted first: both questions with the paper's losses, seed
    by seed, then with ours, then captions between now and then and always.
    """
    size = {"steps": options.steps, "pictures": options.pictures}
    rows = list(variants().items())
    for some in (rows[:4], rows[4:8], rows[8:]):
        for seed, (name, recipe) in product(options.seeds, some):
            if name in (options.rows or variants()):
                yield name, replace(recipe, seed=seed, **size)


def table(options: Options) -> dict[str, Any]:
    """All that is measured so far, as `load_rows` reads tables."""
    rows: dict[str, dict[str, Any]] = {}
    for name, recipe in variants().items():
        paths = sorted((options.work / recipe.name).glob(f"seed*-{options.steps}/{MEASURED}"))
        found = [json.loads(path.read_text("utf-8")) for path in paths]
        for one in found:
            for part in ("iou", "oracle_iou", "called"):
                one["metrics"]["plain"].pop(part)
        if found:
            rows[name] = {
                "recipe": found[0]["recipe"],
                "said": said_rates(recipe.stuff, recipe.captions),
                "seeds": [one["recipe"]["seed"] for one in found],
                "metrics": [one["metrics"] for one in found],
            }
    return {
        "command": COMMAND,
        "pictures": options.test_pictures,
        "val pictures": options.val_pictures,
        "steps": options.steps,
        "one training": command_of("groupvit", _flags(next(iter(variants().values())), options)),
        "rows": rows,
    }


def _flags(recipe: GroupViTRecipe, options: Options) -> dict[str, Any]:
    """What of a recipe is not its default."""
    chosen = replace(recipe, steps=options.steps, pictures=options.pictures)
    usual = asdict(GroupViTRecipe())
    return {name: value for name, value in asdict(chosen).items() if value != usual[name]}


def main(typed: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, and write the table after each."""
    options = tyro.cli(Options, args=typed, description=__doc__)
    if unknown := set(options.rows) - variants().keys():
        raise SystemExit(f"no row {min(unknown)!r}; expected some of {', '.join(variants())}")
    exam = Exam(
        *(
            evaluation.draw_scenes(split, count)
            for split, count in (("val", options.val_pictures), ("test", options.test_pictures))
        )
    )
    path = options.out or checkpoint_dir("groupvit") / "rows_captions.json"
    for name, recipe in queue(options):
        learn(recipe, options.work, exam)
        found = table(options)
        print(f"{name}, seed {recipe.seed}: in {path}, with {len(found['rows'])} rows", flush=True)
        write_json(path, found)


if __name__ == "__main__":
    main()
