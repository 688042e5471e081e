"""How the shipped GroupViT was made: `python -m cliplab train groupvit`.

Segments from captions alone: pictures of the pasture, captions in English and Chinese, and neither
masks nor boxes (see `groupvit_dataset`). The image tower starts with the first layers of the
shipped CLIP, which are trained on.

Two recipes. "paper": InfoNCE of pictures and captions, and of pictures and prompted nouns, through
the mean of the groups; argmax assignment with Gumbel noise; one caption a picture. "small-world",
which is shipped: every patch is asked which noun it is, the nouns are those of six captions, and
groups learn from their patches what to gather and what to call it. That is more supervision than
the paper's, in what is known (nearly all that a picture shows) as in what is asked (every patch).
Flags change one thing at a time: stages, groups, assignment, nouns, who is taught. A second round
learns pseudo-labels, which the first one makes (`groupvit_pseudo_labels`): it takes animals from
what they stand on, and lets the training go on without animals that flood the meadow.

Source: GroupViT, arXiv:2202.11094; what differs from it is said where it differs.
"""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cliplab.models.groupvit import GroupViT, save_groupvit
from cliplab.runtime import atomic_write, checkpoint_dir, pick_device, seed_all
from cliplab.training import loop
from cliplab.training.cards import command_of, write_model_card
from cliplab.training.groupvit_criterion import Criterion
from cliplab.training.groupvit_dataset import (
    GroupViTBatches,
    GroupViTDataset,
    load_dataset,
    picture_of,
    scene_of,
)
from cliplab.training.groupvit_model import GroupViTRecipe, new_model
from cliplab.training.groupvit_pseudo_labels import load_pseudo_labels
from cliplab.training.pictures import to_pixels

SAVE_EVERY = 100  # steps between two states
SNAPSHOT_SEEDS = (0, 5, 3)  # of val: two herds and a portrait
_SNAPSHOTS = 12  # that are kept of a whole training


def train(
    recipe: GroupViTRecipe, dataset: GroupViTDataset, folder: Path, device: torch.device
) -> GroupViT:
    """Train one model; logs, states, snapshots and pseudo-labels in `folder` are resumed."""
    seed_all(recipe.seed)
    model = new_model(recipe).to(device).to(memory_format=torch.channels_last).train()
    total = recipe.steps + recipe.second_round_steps
    snapshots = Snapshots(model, folder / "frames", every=recipe.snapshot_every, steps=total)
    criterion = Criterion(model, recipe, device)

    def fit_round(batches: GroupViTBatches, log: loop.Run, steps: int, done: int = 0) -> None:
        def losses_of(step: int) -> dict[str, Tensor]:
            # On a CPU the backward pass of the fused attention takes ten times as long in bfloat16.
            with loop.mixed_precision(device), sdpa_kernel(SDPBackend.MATH):
                return criterion.losses(batches(step), done + step)

        schedule = loop.Schedule(steps=steps, lr=recipe.lr, warmup=min(100, steps // 4))
        watch = partial(snapshots, done=done)
        loop.fit(model, losses_of, schedule, log, after_step=watch, save_every=SAVE_EVERY)

    second = ("second_round_steps", "second_round_pictures")
    first = {k: v for k, v in asdict(recipe).items() if k not in second}
    make = partial(GroupViTBatches, batch=recipe.batch, captions=recipe.captions)
    fit_round(make(dataset, seed=recipe.seed), loop.Run(folder, first), recipe.steps)
    if recipe.second_round_steps:
        some = dataset.first(recipe.second_round_pictures)
        labels = load_pseudo_labels(model.eval(), some, folder / "answers")
        batches = make(some, seed=recipe.seed + 1000, pseudo_labels=labels)
        model.train()
        log = loop.Run(folder / "more", asdict(recipe))
        fit_round(batches, log, recipe.second_round_steps, done=recipe.steps)
    return model.eval()


def snapshot_images() -> NDArray[np.uint8]:
    """The pictures that snapshots are of, (F, S, S, 3)."""
    return np.stack([picture_of(scene_of(seed, "val")) for seed in SNAPSHOT_SEEDS])


class Snapshots:
    """Soft maps of the groups of a few val pictures, kept every so often: groups as they form.

    A snapshot changes nothing: the model is in eval mode for it, and no random number is drawn.
    """

    def __init__(self, model: GroupViT, folder: Path, *, every: int, steps: int) -> None:
        self.model, self.folder, self.every, self.steps = model, folder, every, steps
        self.images = snapshot_images()

    def __call__(self, step: int, *, done: int = 0) -> None:
        """One after `step`, `done` before it, if it is time to: more often in the beginning."""
        done += step + 1
        early = done < self.every and done & (done - 1) == 0 and done >= 8
        if self.model.config.stages and (done % self.every == 0 or early or done == self.steps):
            with atomic_write(self.folder / f"{done:06d}.npz") as file:
                np.savez_compressed(file, maps=self.maps())

    @torch.no_grad()
    def maps(self) -> NDArray[np.uint8]:
        """(F, G, rows, columns) uint8, 255 = wholly of this group."""
        config = self.model.config
        device = self.model.logit_scale.device
        pixels = to_pixels(self.images, config.image_mean, config.image_std).to(device)
        groups = self.model.eval().group(pixels)
        self.model.train()
        return (255 * groups.maps()).round().byte().cpu().numpy()


def gather_snapshots(folder: Path, last: int, most: int = _SNAPSHOTS) -> dict[str, NDArray]:
    """`most` of the `Snapshots` up to step `last`, the first and the last of them too.

    Returns:
        "steps" (S,), "maps" (S, F, G, rows, columns) uint8, "images" (F, H, W, 3) uint8.
    """
    paths = [path for path in sorted(folder.glob("*.npz")) if int(path.stem) <= last]
    kept = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    maps = []
    for k in kept:
        with np.load(paths[k]) as file:
            maps.append(file["maps"])
    return {
        "steps": np.array([int(paths[k].stem) for k in kept]),
        "maps": np.stack(maps),
        "images": snapshot_images(),
    }


@dataclass(frozen=True)
class Options(loop.RunOptions):
    """Options of `python -m cliplab train groupvit`."""

    recipe: GroupViTRecipe = field(default_factory=GroupViTRecipe)
    test_pictures: int = 200  # of the model card


def run(options: Options) -> None:
    """Train a variant, write weights and card; the card's numbers are of the written file."""
    from cliplab.segmentation import load_segmenter
    from cliplab.training.failures import add_failures
    from cliplab.training.groupvit_evaluation import evaluate

    recipe, device, work = options.recipe, pick_device(options.device), options.folder("groupvit")
    dataset = load_dataset(work / "scenes", recipe.pictures, recipe.stuff)
    folder = work / recipe.name / f"seed{recipe.seed}-{recipe.steps}"
    model = train(recipe, dataset, folder, device)
    target = options.out or target_of(recipe, folder)
    (target / "model_card.json").unlink(missing_ok=True)  # of former weights
    save_groupvit(model, target / "model.safetensors")
    if recipe.stages:
        last = recipe.steps + recipe.second_round_steps
        with atomic_write(target / "frames.npz") as file:
            looks = gather_snapshots(folder / "frames", last=last)
            np.savez_compressed(file, allow_pickle=False, **looks)
    metrics = evaluate(load_segmenter(str(target)), count=options.test_pictures)
    write_model_card(target, **card(recipe, metrics), **loop.machine(device))
    add_failures("groupvit", target, options.test_pictures)


def target_of(recipe: GroupViTRecipe, folder: Path) -> Path:
    """Where weights belong: those of the defaults are shipped, others stay beside their log."""
    if recipe == GroupViTRecipe():
        return checkpoint_dir("groupvit")
    return (folder / "more" if recipe.second_round_steps else folder) / "checkpoint"


def card(recipe: GroupViTRecipe, metrics: dict[str, Any]) -> dict[str, Any]:
    """Model card: what it is, how it was made, and what it can and cannot do."""
    told = (
        "recipe", "stages", "groups", "assignment", "multi_label", "captions", "stuff", "patches",
        "patch", "layers", "seed", "steps", "second_round_steps", "pictures",
    )  # fmt: skip
    said = "one caption" if recipe.captions == 1 else f"the nouns of {recipe.captions} captions"
    return {
        "name": f"groupvit-{recipe.name}",
        "format": "safetensors, configuration and vocabulary in the header",
        "command": command_of(
            "groupvit", {k: v for k in told if (v := getattr(recipe, k)) is not None}
        ),
        "recipe": asdict(recipe),
        "started from": {"clip-openai": "the first layers of its image tower"},
        "supervision": f"{said} a picture, in English and Chinese; no masks, no boxes. GroupViT "
        "itself learns from one caption and its nouns: six captions leave out much less.",
        "metrics": metrics,
    }
