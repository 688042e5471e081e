"""How the shipped GroupViT was made: `python -m cliplab train groupvit`.

Segments from captions alone: pictures of the pasture, captions in English and Chinese, and neither
masks nor boxes (see `groupvit_pool`). The image tower starts with the first layers of the shipped
CLIP, which are trained on.

Two recipes. "paper": InfoNCE of pictures and captions, and of pictures and prompted nouns, through
the mean of the groups; hard assignment with Gumbel noise; one caption a picture. "small-world",
which is shipped: every patch is asked which noun it is, the nouns are those of six captions, and
groups learn from their patches what to gather and what to call it. That is more supervision than
the paper's, in what is known (nearly all that a picture shows) as in what is asked (every patch).
Flags change one thing at a time: stages, groups, assignment, nouns, who is taught. A second round
(`--more`) learns the answers of the first, see `groupvit_answers`: it takes animals from what they
stand on, and lets the training go on without animals that flood the meadow.

Source: GroupViT, arXiv:2202.11094; what differs from it is said where it differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cliplab.models.groupvit import GroupViT, save_groupvit
from cliplab.runtime import atomic_write, checkpoint_dir, pick_device, seed_all
from cliplab.training.groupvit_criterion import Lesson
from cliplab.training.groupvit_dataset import CAPTIONS, Batch, Batches, Pool, load_pool
from cliplab.training.groupvit_model import new_model
from cliplab.training.groupvit_pseudo_labels import load_answers
from cliplab.training.groupvit_snapshots import Watch, gather_frames
from cliplab.training.loop import (
    Ahead,
    Run,
    Schedule,
    add_run_arguments,
    fit,
    mixed_precision,
    trained_on,
    write_model_card,
)

RECIPES = ("small-world", "paper")
ASSIGNMENTS = ("soft", "hard")
STAGES = (0, 1, 2)
FEWEST, MOST = 4, 32  # groups that the command line takes
SAVE_EVERY = 100  # steps between two states


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the CLIP that is started from."""

    seed: int = 0
    recipe: str = "small-world"  # of RECIPES
    stages: int = 1  # of grouping; 0: patches name themselves
    groups: int = 16  # that come out of the last stage; one before it has twice as many
    assignment: str = "soft"  # of patches to groups, in training
    multi_label: bool = True  # learn from nouns, not from whole captions alone
    captions: int = CAPTIONS  # whose nouns count as said: 1 or 6
    pictures: int = 12_000  # distinct ones
    batch: int = 32
    steps: int = 800  # of the shipped one; those that are compared with one another have fewer
    more: int = 1000  # steps of a second round, which learns the answers of the first
    answered: int = 4000  # pictures of the second round
    lr: float = 1e-3  # of both
    width: int = 128
    stem_layers: int = 3  # of CLIP's tower; each doubles what a patch can see
    share: float = 0.02  # of the patches that presence_loss counts
    patches: bool = True  # captions teach patches, and these their groups; or groups directly
    spread: float = 1.5  # of the assignment's logits at the start; 0: as GroupViT starts, near 0
    caption_weight: float = 0.1  # of the captions' InfoNCE, where nouns are learned from
    frame_every: int = 100  # steps between two looks at FRAMES


# ---- training ------------------------------------------------------------------------------


def train(
    recipe: Recipe, pool: Pool, folder: Path, device: torch.device, *, workers: int = 0
) -> GroupViT:
    """Train one model; what is in `folder` is resumed.

    Args:
        recipe: what to train.
        pool: pictures and captions.
        folder: of logs, states, frames and answers.
        device: to train on.
        workers: processes that draw batches ahead.
    """
    seed_all(recipe.seed)
    model = new_model(recipe).to(device).to(memory_format=torch.channels_last).train()
    total = recipe.steps + recipe.more
    watch = Watch(model, folder / "frames", every=recipe.frame_every, steps=total)
    first = {k: v for k, v in asdict(recipe).items() if k not in ("more", "answered")}
    make = partial(Batches, batch=recipe.batch, captions=recipe.captions)
    lesson = Lesson(model, recipe, device)
    batches = Ahead(make(pool, seed=recipe.seed), workers)
    fit_round(lesson, batches, Run(folder, first), watch, steps=recipe.steps)
    if recipe.more:
        some = pool.first(recipe.answered)
        answers = load_answers(model.eval(), some, folder / "answers")
        batches = Ahead(make(some, seed=recipe.seed + 1000, answers=answers), workers)
        log = Run(folder / "more", asdict(recipe))
        model.train()
        fit_round(lesson, batches, log, watch, steps=recipe.more, done=recipe.steps)
    return model.eval()


def fit_round(
    lesson: Lesson,
    batches: Callable[[int], Batch],
    log: Run,
    watch: Watch,
    *,
    steps: int,
    done: int = 0,
) -> None:
    """Minimise a lesson's losses over some batches.

    Args:
        lesson: with the model.
        batches: of each step.
        log: what is in its folder is resumed.
        watch: called after each step.
        steps: of this round.
        done: steps of the rounds before.
    """
    recipe, latest = lesson.recipe, dict[str, Tensor]()

    def loss_of(step: int) -> Tensor:
        # On a CPU the backward pass of the fused attention takes ten times as long in bfloat16.
        with mixed_precision(lesson.device), sdpa_kernel(SDPBackend.MATH):
            latest.update(lesson.losses(batches(step), done + step))
        return torch.stack(list(latest.values())).sum()

    def after_step(step: int) -> dict[str, Any]:
        watch(done + step)
        if (step + 1) % 100:
            return {}
        return {name: round(float(loss.detach()), 4) for name, loss in latest.items()}

    schedule = Schedule(steps=steps, lr=recipe.lr, warmup=min(100, steps // 4))
    fit(lesson.model, loss_of, schedule, log, after_step=after_step, save_every=SAVE_EVERY)


# ---- command line --------------------------------------------------------------------------

_OPTIONS = ("recipe", "stages", "groups", "assignment", "multi_label", "captions", "patches",
            "seed", "steps", "more", "pictures")  # fmt: skip
_LICENCE = "Apache-2.0; trained on generated pictures and captions only"


def is_shipped(recipe: Recipe) -> bool:
    """Whether this is the training whose weights are in data/checkpoints/groupvit."""
    return recipe == Recipe()


def name_of(recipe: Recipe) -> str:
    """What tells a variant from the others, for folders and tables."""
    parts = ["paper"] if recipe.recipe == "paper" else []
    if recipe.stages:
        parts += [f"{recipe.stages}-stage{'s' * (recipe.stages > 1)}", recipe.assignment]
        parts += [f"{recipe.groups}-groups"] if recipe.groups != Recipe.groups else []
    else:
        parts.append("no-groups")
    parts += [] if recipe.multi_label else ["no-nouns"]
    parts += [] if recipe.captions == CAPTIONS else ["one-caption"]
    small_world = recipe.recipe != "paper" and recipe.multi_label
    parts += ["groups-taught"] if recipe.stages and small_world and not recipe.patches else []
    return "-".join(parts)


def checked(recipe: Recipe) -> Recipe:
    """The recipe itself.

    Raises:
        ValueError: numbers out of range, or a combination that means nothing.
    """
    if not FEWEST <= recipe.groups <= MOST:
        raise ValueError(f"groups: got {recipe.groups}; expected {FEWEST} to {MOST}")
    if recipe.steps < 1 or recipe.pictures < 1:
        raise ValueError(f"got {recipe.steps} steps, {recipe.pictures} pictures; expected >= 1")
    if recipe.more < 0:
        raise ValueError(f"more: got {recipe.more} steps; expected 0 or more")
    if recipe.more and (recipe.recipe == "paper" or not (recipe.multi_label and recipe.patches)):
        raise ValueError(
            f"more: got {recipe.more} steps of a second round, in which patches learn their nouns; "
            "expected --more 0 with --recipe paper, --no-multi-label or --no-patches"
        )
    return recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m cliplab train groupvit`."""
    parser.add_argument("--recipe", choices=RECIPES, default=Recipe.recipe,
                        help="how captions teach; small-world is shipped")  # fmt: skip
    parser.add_argument("--stages", type=int, choices=STAGES, default=Recipe.stages,
                        help="of grouping; 0: patches name themselves")  # fmt: skip
    parser.add_argument("--groups", type=int, default=Recipe.groups,
                        help=f"that come out of the last stage, {FEWEST} to {MOST}")  # fmt: skip
    parser.add_argument("--assignment", choices=ASSIGNMENTS, default=Recipe.assignment,
                        help="of patches to groups, in training")  # fmt: skip
    parser.add_argument("--multi-label", action=argparse.BooleanOptionalAction,
                        default=Recipe.multi_label, help="learn from nouns too")  # fmt: skip
    parser.add_argument("--captions", type=int, choices=(1, CAPTIONS), default=Recipe.captions,
                        help="of a picture, whose nouns count as said")  # fmt: skip
    parser.add_argument("--patches", action=argparse.BooleanOptionalAction, default=Recipe.patches,
                        help="captions teach patches, these the groups; or the groups")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the first round")
    parser.add_argument("--more", type=int, default=Recipe.more,
                        help="of a second round, see groupvit_answers; 0: none")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="distinct ones")
    add_run_arguments(
        parser, "groupvit", things="pictures", test_things=200, shipped="the defaults"
    )


def run(args: argparse.Namespace) -> int:
    """Train a variant, write weights and card; the card's numbers are of the written file."""
    from cliplab.segmentation import load_segmenter
    from cliplab.training.groupvit_evaluation import examine

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = checked(Recipe(**{name: getattr(args, name) for name in _OPTIONS}))
    device = pick_device(args.device)
    pool = load_pool(args.work / "scenes", recipe.pictures)
    folder = args.work / name_of(recipe) / f"seed{recipe.seed}-{recipe.steps}"
    model = train(recipe, pool, folder, device, workers=args.workers)
    last_round = folder / "more" if recipe.more else folder
    target = args.out or (
        checkpoint_dir("groupvit") if is_shipped(recipe) else last_round / "checkpoint"
    )
    save_groupvit(model, target / "model.safetensors")
    if recipe.stages:
        with atomic_write(target / "frames.npz") as file:
            looks = gather_frames(folder / "frames", last=recipe.steps + recipe.more)
            np.savez_compressed(file, allow_pickle=False, **looks)
    metrics = examine(load_segmenter(str(target)), count=args.test_pictures)
    write_model_card(target, **card(recipe, metrics), **trained_on(device))
    return 0


def card(recipe: Recipe, metrics: dict[str, Any]) -> dict[str, Any]:
    """Model card: what it is, how it was made, and what it can and cannot do."""
    words = [_flag(name, getattr(recipe, name)) for name in _OPTIONS]
    said = "one caption" if recipe.captions == 1 else f"the nouns of {recipe.captions} captions"
    return {
        "name": f"groupvit-{name_of(recipe)}",
        "format": "safetensors, configuration and vocabulary in the header",
        "licence": _LICENCE,
        "command": "python -m cliplab train groupvit " + " ".join(words),
        "recipe": asdict(recipe),
        "started from": {"clip-openai": "the first layers of its image tower"},
        "supervision": f"{said} a picture, in English and Chinese; no masks, no boxes. GroupViT "
        "itself learns from one caption and its nouns: six captions leave out much less.",
        "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
        "metrics": metrics,
    }


def _flag(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def main() -> int:
    """For `python -m cliplab.training.groupvit`, without the front door."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
