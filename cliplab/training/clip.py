"""How the two shipped CLIPs were made: `python -m cliplab train clip`.

`clip-openai` learns English from scratch: ModifiedResNet tower, causal text tower, OpenAI's byte
pairs. `clip-chinese` is made from it as Chinese-CLIP was (arXiv:2211.01335): first a BERT learns
Chinese against the locked image tower, then both towers learn together.

Only the tokens that captions use are trained (92 of 49,408); when the weights are written, the rows
that no text ever reached are zero: such a token tells the model that it is there, and nothing else.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cliplab.models.chinese_clip import ChineseCLIP, ChineseCLIPConfig, save_modelscope
from cliplab.models.clip import CLIP, CLIPConfig, load_openai, save_openai
from cliplab.models.layers import unit_rows
from cliplab.models.losses import clamp_logit_scale
from cliplab.models.tokenizers import BytePairTokenizer, WordPieceTokenizer
from cliplab.runtime import checkpoint_dir, pick_device, seed_all
from cliplab.scale import any_clip_loss, by_the_first, over_ranks, own_share
from cliplab.training.cards import command_of, write_model_card
from cliplab.training.clip_dataset import (
    SIZE,
    CLIPBatches,
    CLIPDataset,
    CompactVocabulary,
    chinese_vocabulary,
    load_dataset,
    normalised,
)
from cliplab.training.loop import Run, RunOptions, Schedule, fit, mixed_precision


@dataclass(frozen=True)
class CLIPRecipe:
    """Everything that decides the weights, besides the code."""

    seed: int = 0  # of weights and batches
    portraits: int = 100_000  # distinct pictures
    crops: int = 30_000  # of animals in herds, as a detector will ask about
    batch: int = 256
    width: int = 32  # of the image tower
    text_width: int = 128
    text_layers: int = 4
    embed_dim: int = 128
    steps: int = 1400  # of the English training
    lr: float = 1e-3
    recolour: float = 0.7  # share of shape-only pictures in false colours, 0 to 1
    locked_steps: int = 500  # clip-chinese, stage 1
    joint_steps: int = 100  # clip-chinese, stage 2
    joint_lr: float = 2e-4


# ---- models --------------------------------------------------------------------------------


def new_clip(recipe: CLIPRecipe, vocab_size: int) -> CLIP:
    """An untrained English model."""
    return CLIP(
        CLIPConfig(
            embed_dim=recipe.embed_dim,
            image_resolution=SIZE,
            vision_layers=(1, 1, 1, 1),
            vision_width=recipe.width,
            vision_patch_size=None,
            context_length=77,
            vocab_size=vocab_size,
            transformer_width=recipe.text_width,
            transformer_heads=recipe.text_width // 64,
            transformer_layers=recipe.text_layers,
        )
    )


def new_chinese_clip(recipe: CLIPRecipe, english: CLIP, vocab_size: int) -> ChineseCLIP:
    """A Chinese model with the English one's image tower and temperature, its BERT untrained."""
    model = ChineseCLIP(
        ChineseCLIPConfig(
            embed_dim=recipe.embed_dim,
            image_resolution=SIZE,
            vision_layers=(1, 1, 1, 1),
            vision_width=recipe.width,
            vision_patch_size=None,
            vocab_size=vocab_size,
            text_hidden_size=recipe.text_width,
            text_num_hidden_layers=recipe.text_layers,
            text_num_attention_heads=recipe.text_width // 32,
            text_intermediate_size=4 * recipe.text_width,
            text_max_position_embeddings=64,
            text_hidden_dropout_prob=0.0,
            text_attention_probs_dropout_prob=0.0,
        )
    )
    model.visual.load_state_dict(english.visual.state_dict())
    return model


# ---- training ------------------------------------------------------------------------------


def train_english(
    recipe: CLIPRecipe, dataset: CLIPDataset, folder: Path, device: torch.device
) -> dict[str, Tensor]:
    """Train `clip-openai` from scratch; -> weights, as `save_openai` takes them."""
    seed_all(recipe.seed)
    words = CompactVocabulary(BytePairTokenizer())
    model = new_clip(recipe, len(words.official)).to(device).to(memory_format=torch.channels_last)
    batches = CLIPBatches(dataset, "en", recipe.seed, recipe.batch, recipe.recolour)
    towers = over_ranks(model)

    def losses_of(step: int) -> dict[str, Tensor]:
        pixels, texts = batches(step)
        with mixed_precision(device):
            emb = towers(pixels.to(device), words(texts).to(device))
        return {"contrast": any_clip_loss(*emb)}

    settings = {k: v for k, v in asdict(recipe).items() if not k.startswith(("locked", "joint"))}
    schedule = Schedule(steps=recipe.steps, lr=recipe.lr)
    _fit(model, losses_of, schedule, Run(folder, settings))
    return words.scatter(model.state_dict())


def train_chinese(
    recipe: CLIPRecipe, dataset: CLIPDataset, english: Path, folder: Path, device: torch.device
) -> ChineseCLIP:
    """Train `clip-chinese` on the image tower of the file `english`."""
    seed_all(recipe.seed)
    vocab = chinese_vocabulary()
    words = WordPieceTokenizer(vocab, 52)
    model = new_chinese_clip(recipe, load_openai(english), len(vocab)).to(device)
    batches = CLIPBatches(dataset, "zh", recipe.seed, recipe.batch, recipe.recolour)
    locked = _embed_all(model, dataset, device)  # (N, D) unit rows

    def locked_losses(step: int) -> dict[str, Tensor]:
        chosen, captions, _ = batches.draw(step)
        own = own_share(recipe.batch)
        with mixed_precision(device):
            _, *text = towers(None, _cut(words([text for text, _ in captions[own]])).to(device))
        return {"contrast": any_clip_loss(unit_rows(locked[chosen[own]].to(device)), *text)}

    def joint_losses(step: int) -> dict[str, Tensor]:
        pixels, texts = batches(recipe.locked_steps + step)
        with mixed_precision(device):
            emb = towers(pixels.to(device), _cut(words(texts)).to(device))
        return {"contrast": any_clip_loss(*emb)}

    settings = asdict(recipe)
    model.visual.requires_grad_(False)
    towers = over_ranks(model)
    stage1 = Schedule(steps=recipe.locked_steps, lr=recipe.lr)
    _fit(model, locked_losses, stage1, Run(folder / "locked", settings))
    model.visual.requires_grad_(True)
    towers = over_ranks(model)
    stage2 = Schedule(steps=recipe.joint_steps, lr=recipe.joint_lr, warmup=100)
    _fit(model.train(), joint_losses, stage2, Run(folder / "joint", settings))
    return model.eval()


def _fit(model: CLIP | ChineseCLIP, losses_of: Any, schedule: Schedule, run: Run) -> None:
    fit(model, losses_of, schedule, run, after_step=lambda _: clamp_logit_scale(model.logit_scale))


@torch.inference_mode()
def _embed_all(model: ChineseCLIP, dataset: CLIPDataset, device: torch.device) -> Tensor:
    """What the locked tower sees in every picture: (N, D) unit rows."""
    model.eval()
    parts = []
    for begin in range(0, len(dataset), 512):
        pixels = normalised(dataset.images[begin : begin + 512])
        with mixed_precision(device):
            feature = model.encode_image(pixels.to(device))
        parts.append(unit_rows(feature).cpu())
    return torch.cat(parts).clone()


def _cut(ids: Tensor) -> Tensor:
    """Drop the columns that are padding in every row."""
    return ids[:, : int((ids != 0).sum(1).max())]


# ---- the command ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Options(RunOptions):
    """Options of `python -m cliplab train clip`."""

    recipe: CLIPRecipe = field(default_factory=CLIPRecipe)
    model: Literal["all", "clip-openai", "clip-chinese"] = "all"  # clip-chinese needs clip-openai
    test_pictures: int = 2000  # of the model card


def run(options: Options) -> None:
    """Train, write the checkpoints, evaluate them as a user would load them, write the cards.

    Those of the defaults are shipped, and the others stay beside their log.
    """
    recipe, device, work = options.recipe, pick_device(options.device), options.folder("clip")
    own = checkpoint_dir("") if recipe == CLIPRecipe() else work / f"seed{recipe.seed}"
    openai, chinese = ((options.out or own) / name for name in ("clip-openai", "clip-chinese"))
    count = options.test_pictures
    own_share(recipe.batch)  # refused before anything is drawn
    dataset = load_dataset(work / "pool", portrait_count=recipe.portraits, crop_count=recipe.crops)
    if options.model != "clip-chinese":
        folder = work / f"clip-openai-seed{recipe.seed}"
        weights = train_english(recipe, dataset, folder, device)
        save = partial(save_openai, weights, openai / "model.pt")
        by_the_first(_publish, save, recipe, openai, count)
    if options.model != "clip-openai":
        folder, english = work / f"clip-chinese-seed{recipe.seed}", openai / "model.pt"
        model = train_chinese(recipe, dataset, english, folder, device)
        save = partial(save_modelscope, model, chinese, chinese_vocabulary())
        by_the_first(_publish, save, recipe, chinese, count)


def _publish(save: Callable[[], object], recipe: CLIPRecipe, folder: Path, count: int) -> None:
    """Save weights and their card; that of former ones goes first, or loaders refuse the new."""
    from cliplab.training.failures import add_failures

    (folder / "model_card.json").unlink(missing_ok=True)
    save()
    write_model_card(folder, **card(recipe, folder, count))
    add_failures("clip", folder, count)


def card(recipe: CLIPRecipe, folder: Path, count: int) -> dict[str, Any]:
    """Model card of a checkpoint: what it is, how it was made, and what it can and cannot do."""
    from cliplab.encoders import load_encoder
    from cliplab.training.clip_evaluation import evaluate

    name = folder.name
    chinese = name == "clip-chinese"
    own, other = ("zh", "en") if chinese else ("en", "zh")
    spec = f"modelscope:{folder}" if chinese else f"openai:{folder / 'model.pt'}"
    encoder = load_encoder(spec, device="cpu")
    told = {k: getattr(recipe, k) for k in ("seed", "steps", "portraits", "crops", "recolour")}
    return {
        "name": name,
        "format": "ModelScope directory" if chinese else "OpenAI TorchScript archive",
        "language": own,
        "command": command_of("clip", {"model": name, **told}),
        "recipe": asdict(recipe),
        "held out": "12 (species, posture, colour) triples, (sheep, lying), (horse, eating)",
        "metrics": evaluate(encoder, own, count=count),
        f"metrics with {other} prompts": evaluate(encoder, other, count=count // 4),
    }
