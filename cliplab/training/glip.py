"""How the shipped GLIP was made: `python -m cliplab train glip`.

Words and boxes together: class lists and captions mixed, English and Chinese (see `glip_pool`).
The published models start from a Swin that knows ImageNet and a BERT that knows English. This one
starts from the body of the shipped ViLD, down to stride 16. Everything behind it, and all that is
read, is new. `--no-fusion` makes the twin, as GLIP-T (A) is to (B): the same start, pictures,
prompts, order and steps, but words and image meet in the last dot product only. Both twins of
seed 0 are shipped, and several seeds of each are compared (`glip_table`).

Six rounds. Halfway, after the second, no training of three with fusion knew a colour, though all
knew species, postures and relations: "white" and "black" were one word to it, and the pyramid had
lost the colours that the body sees. Either can only be learned from the other, so neither was. A
short round in which hardly anything but colours and species is told apart ends that, and the two
behind it bring the rest back. The twins knew their colours without. Relations, too, are learned
late and suddenly: with batches of 16, two trainings with fusion were at chance after 3,000 steps,
and after 800 more with mostly relations one of them still was.

The fourth round still speaks of sides only, and who is on a side can be found without the landmark:
among those alike it is the outermost. The fifth asks who of several is near a landmark, which takes
reading it (`relations.near_pair`). It asks both sentences of a pair in one batch, about two animals
that look alike: nothing but the landmark tells which is meant. (Before, such sentences were drawn
freely and came singly, a quarter of as many prompts, and after as many steps the landmark was
hardly read.) That costs long descriptions some precision, which a sixth, gentle round of mostly
lists and captions brings back in part.

Animals are found early and named late: a third of the way "animal" has AP50 0.99 on val, and
species 0.4. Cells of 8 pixels are needed for the names (a head on strides 16, 32 and 64 takes half
the time a step and named worse after as many minutes), and one level of stride 64 for relations,
which have to cross a picture.

Source: GLIP, arXiv:2112.03857, sections 3.1 to 3.3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cliplab.models.glip import GLIP, GLIPConfig, Losses, load_glip, save_glip
from cliplab.models.glip.backbone import ConvBody
from cliplab.models.glip.training import losses
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.models.vild import ViLDConfig, load_vild
from cliplab.pasture.grounding import LEVELS
from cliplab.runtime import checkpoint_dir, pick_device, seed_all, sha256
from cliplab.training.glip_dataset import (
    UNNAMED,
    Batch,
    Batches,
    Flock,
    Talk,
    load_flock,
    load_paired,
    vocabulary,
)
from cliplab.training.loop import (
    Ahead,
    Run,
    Schedule,
    add_run_arguments,
    devices_of,
    fit,
    mixed_precision,
    write_model_card,
)


@dataclass(frozen=True)
class Round:
    """One schedule, from a warm-up to a rate of zero, and what is said meanwhile."""

    steps: int
    lr: float
    warmup: int  # steps; at most half of all
    talk: Talk
    batch: int = 64


_COLOURS = ((("colour",), 3.0), (("kind",), 2.0))
_MORE_COLOURS = tuple({**LEVELS, ("kind",): 10, ("colour",): 6, ("kind", "colour"): 5}.items())


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code."""

    seed: int = 0
    fusion: bool = True
    pictures: int = 20_000  # distinct herds; of as many others, those that allow a pair
    rounds: tuple[Round, ...] = (
        Round(2500, 1e-3, 200, Talk((0.35, 0.2, 0.45))),
        Round(800, 5e-4, 200, Talk((0.3, 0.4, 0.3))),
        Round(150, 1e-3, 30, Talk((0.8, 0.05, 0.15), _COLOURS, 14, 0.2), batch=32),
        Round(500, 4e-4, 60, Talk((0.5, 0.25, 0.25), _MORE_COLOURS, 14, 0.2), batch=32),
        Round(1000, 1e-3, 50, Talk((0.5, 0.25, 0.25), _MORE_COLOURS, 14, 0.2, pairs=10), batch=32),
        Round(300, 4e-4, 30, Talk((0.5, 0.25, 0.25), _MORE_COLOURS, 14, 0.2, pairs=5), batch=32),
    )
    max_tokens: int = 64  # of a prompt; longer ones are asked in parts
    start: str = "vild"  # checkpoint whose body is taken over; "" for none

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        if not any(self.steps):
            raise ValueError("steps: got none in any round; expected at least one step")

    def with_steps(self, steps: Sequence[int]) -> Recipe:
        """The same with rounds of other lengths; one of no steps is left out."""
        rounds = zip(self.rounds, steps, strict=True)
        return replace(self, rounds=tuple(replace(one, steps=n) for one, n in rounds))

    @property
    def steps(self) -> list[int]:
        """Of each round."""
        return [one.steps for one in self.rounds]


def train(
    recipe: Recipe, flock: Flock, work: Path, device: torch.device, *, paired: Flock | None = None,
    workers: int = 0,
) -> GLIP:  # fmt: skip
    """One training; everything below `work` is resumed.

    Args:
        recipe: what to train.
        flock: herds to draw batches from.
        work: folder of the rounds' logs and states.
        device: to train on.
        paired: herds that allow a pair of sentences, for the rounds that ask some.
        workers: processes that draw batches ahead.
    """
    model, tokenizer = new_model(recipe)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    if recipe.start:  # the first layers know edges and colours; detectors commonly freeze them
        body = cast(ConvBody, model.backbone.body)
        for part in (body.stem, body.layers[0]):
            part.eval().requires_grad_(False)
    for number, one in enumerate(recipe.rounds):
        if not one.steps:
            continue
        so_far = replace(recipe, rounds=recipe.rounds[: number + 1])
        log = Run(round_folder(work, number), asdict(so_far))
        batches = Batches(flock, tokenizer, model.config, seed=recipe.seed + 1000 * number,
                          batch=one.batch, talk=one.talk, paired=paired)  # fmt: skip
        schedule = Schedule(steps=one.steps, lr=one.lr, warmup=min(one.warmup, one.steps // 2))
        fit_round(model, Ahead(batches, workers), schedule, log)
    return model.eval()


def round_folder(work: Path, number: int) -> Path:
    """Where the log and the state of a round go; 0 is the first."""
    return work / f"round-{number + 1}"


def fit_round(model: GLIP, batches: Callable[[int], Batch], schedule: Schedule, log: Run) -> None:
    """Minimise GLIP's losses over the batches of a schedule."""
    device = next(model.parameters()).device
    latest: list[Losses] = []

    def loss_of(step: int) -> Tensor:
        batch = batches(step).to(device)
        # On a CPU the backward pass of the fused kernel takes ten times as long in bfloat16.
        with mixed_precision(device), sdpa_kernel(SDPBackend.MATH):
            raw = model(batch.pixels, batch.token_ids, batch.text_mask)
        latest[:] = [losses(raw, batch.targets, batch.text_mask)]
        return latest[0].total

    fit(model, loss_of, schedule, log, after_step=_reporting(latest), save_every=200)


def new_model(recipe: Recipe) -> tuple[GLIP, WordPieceTokenizer]:
    """What the training starts from."""
    seed_all(recipe.seed)
    words = vocabulary()
    tokenizer = WordPieceTokenizer(words, recipe.max_tokens)
    sizes = ViLDConfig()  # widths at strides 2, 4, 8 and 16
    config = GLIPConfig(
        stem_widths=sizes.widths[:1], widths=(*sizes.widths[1:], 160), depths=(*sizes.depths, 1),
        extra_levels=1, anchor_sizes=(32, 64, 128, 256), vocab_size=len(words),
        max_tokens=recipe.max_tokens, fusion=recipe.fusion,
    )  # fmt: skip
    model = GLIP(config, tokenizer)
    if recipe.start:
        seen = load_vild(checkpoint_dir(recipe.start) / "model.safetensors").backbone
        body = cast(ConvBody, model.backbone.body)
        body.stem[0].load_state_dict(seen.stem.state_dict())
        for own, known in zip(body.layers, seen.stages, strict=False):  # the last layer is new
            own.load_state_dict(known.state_dict())
    return model, tokenizer


def _reporting(latest: list[Losses]) -> Callable[[int], dict]:
    def after_step(step: int) -> dict:
        if (step + 1) % 100:
            return {}
        return {k: round(float(v.detach()), 4) for k, v in latest[0]._asdict().items()}

    return after_step


# ---- command line --------------------------------------------------------------------------

_OPTIONS = ("seed", "fusion", "pictures", "start")  # of Recipe
_LICENCE = "Apache-2.0; trained on generated pictures and captions only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m cliplab train glip`."""
    parser.add_argument("--fusion", action=argparse.BooleanOptionalAction, default=Recipe.fusion,
                        help="fuse words and image deeply; without: the twin")  # fmt: skip
    parser.add_argument("--start", choices=["vild", ""], default=Recipe.start,
                        help="checkpoint whose body is taken over; '' for none")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    steps = Recipe().steps
    parser.add_argument("--steps", type=int, nargs=len(steps), default=steps, metavar="N",
                        help="of each round; 0 leaves it out")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="distinct herds")
    add_run_arguments(parser, "glip", things="herds", test_things=200, shipped="the defaults")


def run(args: argparse.Namespace) -> int:
    """Train, write weights and card; the card's numbers are of the written file."""
    from cliplab.training.glip_evaluation import examine

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = Recipe(**{name: getattr(args, name) for name in _OPTIONS}).with_steps(args.steps)
    flock = load_flock(args.work / "herds", recipe.pictures)
    asks_pairs = any(one.steps and one.talk.pairs for one in recipe.rounds)
    paired = load_paired(args.work / "herds", recipe.pictures) if asks_pairs else None
    work = args.work / _name(recipe) / f"seed{recipe.seed}"
    device = pick_device(args.device)
    model = train(recipe, flock, work, device, paired=paired, workers=args.workers)
    target = args.out or _target(recipe, work)
    save_glip(model, target / "model.safetensors")
    metrics = examine(load_glip(target / "model.safetensors"), count=args.test_pictures)
    rounds = [round_folder(work, number) for number, steps in enumerate(recipe.steps) if steps]
    write_model_card(target, **card(recipe, metrics, devices_of(rounds)))
    return 0


def card(recipe: Recipe, metrics: dict[str, Any], devices: Sequence[str]) -> dict[str, Any]:
    """Model card: what it is, how it was made, and what it can and cannot do.

    Args:
        recipe: of the training.
        metrics: of the written file.
        devices: that it was trained on.
    """
    steps = " ".join(map(str, recipe.steps))
    options = f"--seed {recipe.seed} --steps {steps} --pictures {recipe.pictures}"
    options += "" if recipe.start == Recipe.start else f" --start {recipe.start or repr('')}"
    options += "" if recipe.fusion else " --no-fusion"
    return {
        "name": _name(recipe),
        "format": "safetensors, configuration and vocabulary in the header",
        "licence": _LICENCE,
        "command": f"python -m cliplab train glip {options}",
        "recipe": asdict(recipe),
        "started from": {recipe.start: _start_hash(recipe)},
        "species without a name in training": list(UNNAMED),
        "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
        "trained on": list(devices),
        "metrics": metrics,
    }


def _start_hash(recipe: Recipe) -> str:
    """SHA-256 of the weights that the training started from; "" for none."""
    path = checkpoint_dir(recipe.start) / "model.safetensors"
    return sha256(path) if recipe.start else ""


def _target(recipe: Recipe, work: Path) -> Path:
    """Where weights belong: those of the defaults are shipped, others stay beside their log."""
    if replace(recipe, fusion=Recipe.fusion) == Recipe():  # either twin
        return checkpoint_dir(_name(recipe))
    last = max(number for number, steps in enumerate(recipe.steps) if steps)
    return round_folder(work, last) / "checkpoint"


def _name(recipe: Recipe) -> str:
    return "glip" if recipe.fusion else "glip-no-fusion"


def main() -> int:
    """For `python -m cliplab.training.glip`, without the front door."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
