"""How the shipped ViLD was made: `python -m cliplab train vild`.

1. A proposer learns where base animals are (boxes only, no names), from scratch.
2. Its boxes, on all training pictures, are shown to the teacher, once: crops of 1x and 1.5x.
3. Every variant starts from the proposer and learns names: from labels of base animals against the
   teacher's texts (text), from the teacher's view of the boxes (image), from both with one head
   (vild) or with one head each (ensemble, which is shipped). `supervised` is the upper bound: text
   with the boxes and labels of the novel animals too.

Source: ViLD, arXiv:2104.13921, section 3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification import build_classifier, templates
from cliplab.encoders.two_towers import Encoder
from cliplab.models.distillation import NOVEL, distillation_loss, text_logits, text_loss
from cliplab.models.vild import ViLD, ViLDConfig, save_vild
from cliplab.runtime import atomic_write, checkpoint_dir, pick_device, seed_all, sha256
from cliplab.training.loop import (
    Run,
    Schedule,
    add_run_arguments,
    fit,
    mixed_precision,
    write_model_card,
)
from cliplab.training.vild_dataset import (
    GROUPS,
    Batch,
    Batches,
    Flock,
    Views,
    load_flock,
    load_views,
    members,
    phrases,
)

VARIANTS = ("text", "image", "vild", "ensemble", "supervised")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code and the teacher."""

    seed: int = 0
    variant: str = "ensemble"  # of VARIANTS
    novel: str = "zero"  # novel logits in training: "zero" or "masked"
    pictures: int = 6000  # distinct herds
    batch: int = 16
    proposer_steps: int = 600
    steps: int = 1500
    lr: float = 1e-3
    views: int = 10  # boxes of a picture that the teacher looks at
    view_batch: int = 6  # of them, used in a step
    distill_weight: float = 0.5  # w of the paper


# ---- losses --------------------------------------------------------------------------------


class Sampled(NamedTuple):
    """Regions to learn names and boxes from; lists are as long as the batch."""

    boxes: list[Tensor]  # (R, 4) px
    targets: Tensor  # (all R,) 0 background, k + 1 class k
    deltas: Tensor  # (all R, 4) from the region to its animal; meaningless for background


def sample_regions(
    model: ViLD, proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]
) -> Sampled:
    """Proposals and true boxes, matched at IoU 0.5, at most half of them animals."""
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
    from torchvision.ops import box_iou

    sampler = BalancedPositiveNegativeSampler(model.config.train_regions, 0.5)
    regions, targets, matched = [], [], []
    for found, true, names in zip(proposals, boxes, labels, strict=True):
        pool = torch.cat([found, true])
        if len(true):
            overlap, which = box_iou(pool, true).max(1)
        else:
            overlap, which = pool.new_zeros(len(pool)), pool.new_zeros(len(pool), dtype=torch.long)
            true, names = pool.new_zeros(1, 4), which.new_zeros(1)
        hit = overlap >= 0.5
        positive, negative = sampler([hit.long()])
        kept = torch.where((positive[0] | negative[0]).bool())[0]
        regions.append(pool[kept])
        targets.append(torch.where(hit[kept], names[which[kept]] + 1, 0))
        matched.append(torch.where(hit[kept, None], true[which[kept]], pool[kept]))
    deltas = torch.cat(model.box_coder.encode(matched, regions))
    return Sampled(regions, torch.cat(targets), deltas)


def losses(
    model: ViLD, batch: Batch, text_emb: Tensor, known: Tensor, recipe: Recipe
) -> dict[str, Tensor]:
    """Every loss of a variant, a scalar each, already weighted: their sum is minimised."""
    distilled = recipe.variant in ("image", "vild", "ensemble")
    maps, size = model.maps(batch.pixels)
    proposals, _, propose = model.propose(maps, size, batch.boxes)
    sampled = sample_regions(model, proposals, batch.boxes, batch.labels)
    pooled = model.pooled(maps, sampled.boxes, size)
    views = model.pooled(maps, batch.view_boxes, size) if distilled else pooled[:0]
    count = len(pooled)
    if model.image_head is None:  # one head reads both, and its batch norm sees both
        emb, deltas = model.head(torch.cat([pooled, views]))
        region_emb, view_emb, deltas = emb[:count], emb[count:], deltas[:count]
    else:
        region_emb, deltas = model.head(pooled)
        view_emb = model.image_head(views)[0]
    animal = sampled.targets > 0
    boxes = F.smooth_l1_loss(deltas[animal], sampled.deltas[animal], beta=1 / 9, reduction="sum")
    parts = {"propose": propose, "box": boxes / max(1, count)}
    if recipe.variant != "image":
        tau = model.config.temperature
        logits = text_logits(region_emb, text_emb, model.background_emb, tau)
        parts["text"] = text_loss(logits, sampled.targets, known, novel=recipe.novel)
    if distilled:
        parts["distill"] = recipe.distill_weight * distillation_loss(view_emb, batch.view_emb)
    return parts


# ---- training ------------------------------------------------------------------------------


def train_proposer(recipe: Recipe, flock: Flock, folder: Path, device: torch.device) -> ViLD:
    """Teach backbone and proposal network where base animals are; names are not asked for."""
    seed_all(recipe.seed)
    model = ViLD(ViLDConfig(separate_heads=False)).to(device).to(memory_format=torch.channels_last)
    batches = Batches(flock, members("base"), seed=recipe.seed, batch=recipe.batch)

    def loss_of(step: int) -> Tensor:
        batch = batches(step).to(device)
        with mixed_precision(device):
            maps, size = model.maps(batch.pixels)
            return model.propose(maps, size, batch.boxes)[2]

    schedule = Schedule(steps=recipe.proposer_steps, lr=recipe.lr, warmup=100)
    settings = {
        k: getattr(recipe, k) for k in ("seed", "pictures", "batch", "proposer_steps", "lr")
    }
    fit(model.train(), loss_of, schedule, Run(folder, settings))
    return model.eval()


@torch.inference_mode()
def proposals_of(model: ViLD, flock: Flock, count: int) -> list[Tensor]:
    """The best `count` boxes of every picture that do not overlap much, (R, 4) px each."""
    from torchvision.ops import nms

    boxes: list[Tensor] = []
    device = model.background_emb.device
    for begin in range(0, len(flock), 50):
        images = torch.from_numpy(flock.images[begin : begin + 50]).to(device)
        with mixed_precision(device):
            maps, size = model.maps(images.permute(0, 3, 1, 2).float() / 255)
            found, objectness, _ = model.propose(maps, size)
        for mine, score in zip(found, objectness, strict=True):
            best = mine[nms(mine, score, 0.5)].round().cpu()
            some = (best[:, 2:] > best[:, :2]).all(1)  # a sliver at the frame rounds to nothing
            boxes.append(best[some][:count].clone())
    return boxes


def teacher_views(recipe: Recipe, flock: Flock, work: Path, *, teacher: Encoder,
                  device: torch.device) -> Views:  # fmt: skip
    """Proposals of the training pictures and what the teacher sees in them, computed once."""
    proposer = train_proposer(recipe, flock, work / "proposer", device)
    path = work / f"boxes-{sha256(work / 'proposer' / 'state.pt')[:16]}-{recipe.views}.npz"
    if not path.exists():
        boxes = proposals_of(proposer, flock, recipe.views)
        with atomic_write(path) as file:
            np.savez(file, boxes=torch.cat(boxes).numpy(), counts=[len(b) for b in boxes])
    with np.load(path) as file:
        boxes = list(torch.from_numpy(file["boxes"]).split(file["counts"].tolist()))
    return load_views(work.parent / "views", flock, boxes, teacher)


def train(
    recipe: Recipe, flock: Flock, work: Path, *, teacher: Encoder, device: torch.device
) -> ViLD:
    """One variant, from the proposer on; everything below `work` is resumed."""
    views = teacher_views(recipe, flock, work, teacher=teacher, device=device)
    proposer = torch.load(work / "proposer" / "state.pt", weights_only=True)["model"]
    seed_all(recipe.seed)
    config = ViLDConfig(embed_dim=teacher.dim, separate_heads=recipe.variant == "ensemble")
    model = ViLD(config)
    model.teacher = known_by(teacher)
    started = {k: v for k, v in proposer.items() if k.startswith(("backbone.", "rpn."))}
    model.load_state_dict(started, strict=False)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    known = members("base", "novel") if recipe.variant == "supervised" else members("base")
    text_emb = build_classifier(teacher, phrases(), templates("pasture", "en")).to(device)
    batches = Batches(flock, known, seed=recipe.seed, batch=recipe.batch, views=views,
                      view_batch=recipe.view_batch)  # fmt: skip
    latest: dict[str, Tensor] = {}

    def loss_of(step: int) -> Tensor:
        batch = batches(step).to(device)
        with mixed_precision(device):
            latest.update(losses(model, batch, text_emb, known.to(device), recipe))
        return torch.stack(list(latest.values())).sum()

    schedule = Schedule(steps=recipe.steps, lr=recipe.lr, warmup=100)
    run = Run(work / _name(recipe), {**asdict(recipe), "teacher": teacher.fingerprint})
    fit(model, loss_of, schedule, run, after_step=_reporting(latest), save_every=200)
    return model.eval()


def known_by(teacher: Encoder) -> dict[str, str]:
    """What a detector tells its teacher by: name, fingerprint, and the hashes of its files.

    The fingerprint holds the preprocessing as this version of torchvision spells it; the files stay
    the same with any version.
    """
    files = {k: v for k, v in teacher.provenance.items() if k.startswith("sha256 ")}
    return {"name": teacher.name, "fingerprint": teacher.fingerprint, **files}


def _reporting(latest: dict[str, Tensor]) -> Callable[[int], dict]:
    def after_step(step: int) -> dict:
        if (step + 1) % 100:
            return {}
        return {name: round(float(loss.detach()), 4) for name, loss in latest.items()}

    return after_step


def _target(recipe: Recipe, work: Path) -> Path:
    """Where a variant belongs: one of them is shipped, and the others stay beside their log."""
    if (_name(recipe), recipe.seed) == ("ensemble", 0):
        return checkpoint_dir("vild")
    return work / _name(recipe) / "checkpoint"


def _name(recipe: Recipe) -> str:
    return recipe.variant + ("-masked" if recipe.novel == "masked" else "")


# ---- command line --------------------------------------------------------------------------

# of Recipe, that the command line sets
_OPTIONS = ("variant", "novel", "seed", "steps", "proposer_steps", "pictures")
_LICENCE = "Apache-2.0; trained on generated pictures and captions only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m cliplab train vild`."""
    parser.add_argument("--variant", choices=VARIANTS, default=Recipe.variant,
                        help="what the names are learned from; ensemble is shipped")  # fmt: skip
    parser.add_argument("--novel", choices=NOVEL, default=Recipe.novel,
                        help="logits of novel classes in training")  # fmt: skip
    parser.add_argument("--teacher", default="pasture", help="any encoder; see load_encoder")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the variant")
    parser.add_argument("--proposer-steps", type=int, default=Recipe.proposer_steps,
                        help="of the proposer")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="distinct herds")
    add_run_arguments(
        parser, "vild", things="herds", test_things=600, shipped="the ensemble of seed 0"
    )


def run(args: argparse.Namespace) -> int:
    """Train a variant, write weights and card; the card's numbers are of the written file."""
    from cliplab.encoders import load_encoder
    from cliplab.models.vild import load_vild
    from cliplab.training.vild_evaluation import examine

    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = Recipe(**{name: getattr(args, name) for name in _OPTIONS})
    device, teacher = pick_device(args.device), load_encoder(args.teacher)
    flock = load_flock(args.work / "herds", recipe.pictures)
    work = args.work / f"seed{recipe.seed}"
    model = train(recipe, flock, work, teacher=teacher, device=device)
    target = args.out or _target(recipe, work)
    save_vild(model, target / "model.safetensors")
    metrics = examine(load_vild(target / "model.safetensors"), teacher, recipe.variant,
                      count=args.test_pictures)  # fmt: skip
    write_model_card(target, **card(recipe, args.teacher, model, metrics))
    return 0


def card(recipe: Recipe, spec: str, model: ViLD, metrics: dict) -> dict:
    """Model card: what it is, how it was made, and what it can and cannot do."""
    options = {"teacher": spec, **{name: getattr(recipe, name) for name in _OPTIONS}}
    return {
        "name": f"vild-{_name(recipe)}",
        "format": "safetensors, configuration in the header",
        "licence": _LICENCE,
        "command": "python -m cliplab train vild "
        + " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items()),
        "recipe": asdict(recipe),
        "categories": {group: [phrases()[k] for k in ks] for group, ks in GROUPS.items()},
        "teacher": model.teacher,
        "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
        "metrics": metrics,
    }


def main() -> int:
    """For `python -m cliplab.training.vild`, without the front door."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
