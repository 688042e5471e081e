"""How the shipped ViLD was made: `python -m cliplab train vild`.

1. A proposer learns where base animals are (boxes only, no names), from scratch.
2. Its boxes, on all training pictures, are shown to the teacher, once: crops of 1x and 1.5x.
3. Every variant starts from the proposer and learns names: from labels of base animals against the
   teacher's texts (text), from the teacher's view of the boxes (image), from both with one head
   (vild) or with one head each (ensemble, which is shipped). `supervised` is the upper bound: text
   with the boxes and labels of the novel animals too.

Source: ViLD, arXiv:2104.13921, section 3.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification import build_classifier, templates
from cliplab.encoders import Encoder
from cliplab.models.distillation import distillation_loss, text_logits, text_loss
from cliplab.models.vild import ViLD, ViLDConfig, load_vild, save_vild
from cliplab.runtime import atomic_write, checkpoint_dir, pick_device, seed_all, sha256
from cliplab.training.cards import command_of, write_model_card
from cliplab.training.loop import Run, RunOptions, Schedule, fit, mixed_precision
from cliplab.training.pictures import as_floats
from cliplab.training.vild_dataset import (
    GROUPS,
    Views,
    ViLDBatch,
    ViLDBatches,
    ViLDDataset,
    load_herds,
    load_views,
    members,
    phrases,
)


@dataclass(frozen=True)
class ViLDRecipe:
    """Everything that decides the weights, besides the code and the teacher."""

    # of heads; ensemble is shipped
    variant: Literal["text", "image", "vild", "ensemble", "supervised"] = "ensemble"
    novel: Literal["zero", "masked"] = "zero"  # logits of novel classes in training
    seed: int = 0  # of weights and batches
    steps: int = 1500  # of the variant
    proposer_steps: int = 600
    pictures: int = 6000  # distinct herds
    batch: int = 16
    lr: float = 1e-3
    views: int = 10  # boxes of a picture that the teacher looks at
    view_batch: int = 6  # of them, used in a step
    distill_weight: float = 0.5  # w of the paper

    @property
    def name(self) -> str:
        """Of the variant, for folders and cards."""
        return self.variant + ("-masked" if self.novel == "masked" else "")


# ---- losses --------------------------------------------------------------------------------


class SampledRegions(NamedTuple):
    """Regions to learn names and boxes from; lists are as long as the batch."""

    boxes: list[Tensor]  # (R, 4) px
    targets: Tensor  # (all R,) 0 background, k + 1 class k
    deltas: Tensor  # (all R, 4) from the region to its animal; meaningless for background


def sample_regions(
    model: ViLD, proposals: list[Tensor], boxes: list[Tensor], labels: list[Tensor]
) -> SampledRegions:
    """Proposals and true boxes, matched at IoU 0.5, at most half of them animals."""
    from torchvision.models.detection.roi_heads import RoIHeads

    heads = RoIHeads(  # matches and samples; without networks of its own
        None, None, None, fg_iou_thresh=0.5, bg_iou_thresh=0.5, positive_fraction=0.5,
        batch_size_per_image=model.config.train_regions, bbox_reg_weights=model.box_coder.weights,
        score_thresh=0.0, nms_thresh=0.0, detections_per_img=0,
    )  # fmt: skip
    truth = [{"boxes": b, "labels": k + 1} for b, k in zip(boxes, labels, strict=True)]
    regions, _, targets, deltas = heads.select_training_samples(proposals, truth)
    return SampledRegions(regions, torch.cat(targets), torch.cat(deltas))


def losses(
    model: ViLD, batch: ViLDBatch, text_emb: Tensor, known: Tensor, recipe: ViLDRecipe
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


def train_proposer(
    recipe: ViLDRecipe, herds: ViLDDataset, folder: Path, device: torch.device
) -> ViLD:
    """Teach backbone and proposal network where base animals are; names are not asked for."""
    seed_all(recipe.seed)
    model = ViLD(ViLDConfig(separate_heads=False)).to(device).to(memory_format=torch.channels_last)
    batches = ViLDBatches(herds, members("base"), recipe.seed, recipe.batch)

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = batches(step).to(device)
        with mixed_precision(device):
            maps, size = model.maps(batch.pixels)
            return {"propose": model.propose(maps, size, batch.boxes)[2]}

    schedule = Schedule(steps=recipe.proposer_steps, lr=recipe.lr, warmup=100)
    settings = {
        k: getattr(recipe, k) for k in ("seed", "pictures", "batch", "proposer_steps", "lr")
    }
    fit(model.train(), losses_of, schedule, Run(folder, settings))
    return model.eval()


@torch.inference_mode()
def propose(model: ViLD, herds: ViLDDataset, count: int) -> list[Tensor]:
    """The best `count` boxes of every picture that do not overlap much, (R, 4) px each."""
    from torchvision.ops import nms

    boxes: list[Tensor] = []
    device = model.background_emb.device
    for begin in range(0, len(herds), 50):
        pixels = as_floats(herds.images[begin : begin + 50]).to(device)
        with mixed_precision(device):
            maps, size = model.maps(pixels)
            found, objectness, _ = model.propose(maps, size)
        for mine, score in zip(found, objectness, strict=True):
            best = mine[nms(mine, score, 0.5)].round().cpu()
            some = (best[:, 2:] > best[:, :2]).all(1)  # a sliver at the frame rounds to nothing
            boxes.append(best[some][:count].clone())
    return boxes


def teacher_views(
    recipe: ViLDRecipe, herds: ViLDDataset, work: Path, *, teacher: Encoder, device: torch.device
) -> Views:
    """Proposals of the training pictures and what the teacher sees in them, computed once."""
    proposer = train_proposer(recipe, herds, work / "proposer", device)
    path = work / f"boxes-{sha256(work / 'proposer' / 'state.pt')[:16]}-{recipe.views}.npz"
    if not path.exists():
        boxes = propose(proposer, herds, recipe.views)
        with atomic_write(path) as file:
            np.savez(file, boxes=torch.cat(boxes).numpy(), counts=[len(b) for b in boxes])
    with np.load(path) as file:
        boxes = list(torch.from_numpy(file["boxes"]).split(file["counts"].tolist()))
    return load_views(work.parent / "views", herds, boxes, teacher)


def new_model(recipe: ViLDRecipe, proposer: dict[str, Tensor], teacher: Encoder) -> ViLD:
    """A variant with the proposer's backbone and proposal network, its heads untrained."""
    seed_all(recipe.seed)
    model = ViLD(ViLDConfig(embed_dim=teacher.dim, separate_heads=recipe.variant == "ensemble"))
    model.teacher = identity_of(teacher)
    started = {k: v for k, v in proposer.items() if k.startswith(("backbone.", "rpn."))}
    model.load_state_dict(started, strict=False)
    return model


def train(
    recipe: ViLDRecipe, herds: ViLDDataset, work: Path, *, teacher: Encoder, device: torch.device
) -> ViLD:
    """One variant, from the proposer on; everything below `work` is resumed."""
    views = teacher_views(recipe, herds, work, teacher=teacher, device=device)
    proposer = torch.load(work / "proposer" / "state.pt", weights_only=True)["model"]
    model = new_model(recipe, proposer, teacher)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    known = members("base", "novel") if recipe.variant == "supervised" else members("base")
    text_emb = build_classifier(teacher, phrases(), templates("pasture", "en")).to(device)
    batches = ViLDBatches(herds, known, recipe.seed, recipe.batch, views, recipe.view_batch)

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = batches(step).to(device)
        with mixed_precision(device):
            return losses(model, batch, text_emb, known.to(device), recipe)

    schedule = Schedule(steps=recipe.steps, lr=recipe.lr, warmup=100)
    log = Run(work / recipe.name, {**asdict(recipe), "teacher": teacher.fingerprint})
    fit(model, losses_of, schedule, log, save_every=200)
    return model.eval()


def identity_of(teacher: Encoder) -> dict[str, str]:
    """What a detector tells its teacher by: name, fingerprint, and the hashes of its files.

    The fingerprint holds the preprocessing as this version of torchvision spells it; the files stay
    the same with any version.
    """
    files = {k: v for k, v in teacher.provenance.items() if k.startswith("sha256 ")}
    return {"name": teacher.name, "fingerprint": teacher.fingerprint, **files}


# ---- the command ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Options(RunOptions):
    """Options of `python -m cliplab train vild`."""

    recipe: ViLDRecipe = field(default_factory=ViLDRecipe)
    teacher: str = "pasture"  # any encoder; see load_encoder
    test_pictures: int = 600  # herds of the model card


def run(options: Options) -> None:
    """Train a variant, write weights and card; the card's numbers are of the written file."""
    from cliplab.encoders import load_encoder
    from cliplab.training.failures import add_failures
    from cliplab.training.vild_evaluation import evaluate

    recipe, device, work = options.recipe, pick_device(options.device), options.folder("vild")
    teacher = load_encoder(options.teacher)
    herds = load_herds(work / "herds", recipe.pictures)
    seeded = work / f"seed{recipe.seed}"
    model = train(recipe, herds, seeded, teacher=teacher, device=device)
    target = options.out or target_of(recipe, options.teacher, seeded)
    save_vild(model, target / "model.safetensors")
    written = load_vild(target / "model.safetensors")
    metrics = evaluate(written, teacher, recipe.variant, count=options.test_pictures)
    write_model_card(target, **card(recipe, options.teacher, model.teacher, metrics))
    add_failures("vild", target, options.test_pictures)


def target_of(recipe: ViLDRecipe, teacher: str, work: Path) -> Path:
    """Where weights belong: those of the defaults are shipped, others stay beside their log."""
    if recipe == ViLDRecipe() and teacher == Options.teacher:
        return checkpoint_dir("vild")
    return work / recipe.name / "checkpoint"


def card(
    recipe: ViLDRecipe, spec: str, teacher: dict[str, str], metrics: dict[str, Any]
) -> dict[str, Any]:
    """Model card: what it is, how it was made, and what it can and cannot do."""
    told = ("variant", "novel", "seed", "steps", "proposer_steps", "pictures")
    options = {"teacher": spec, **{name: getattr(recipe, name) for name in told}}
    return {
        "name": f"vild-{recipe.name}",
        "format": "safetensors, configuration in the header",
        "command": command_of("vild", options),
        "recipe": asdict(recipe),
        "categories": {group: [phrases()[k] for k in ks] for group, ks in GROUPS.items()},
        "words never learned": [phrases()[k] for k in GROUPS["unseen"]],
        "teacher": teacher,
        "metrics": metrics,
    }
