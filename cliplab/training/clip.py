"""How the two shipped CLIPs were made: `python -m cliplab train clip`.

`clip-openai` learns English from scratch: ModifiedResNet tower, causal text tower, OpenAI's byte
pairs. `clip-chinese` is made from it as Chinese-CLIP was (arXiv:2211.01335): first a BERT learns
Chinese against the locked image tower, then both towers learn together.

Only the tokens that captions use are trained (92 of 49,408); when the weights are written, the rows
that no text ever reached are zero: such a token tells the model that it is there, and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cliplab.models.chinese_clip import ChineseCLIP, ChineseCLIPConfig, save_modelscope
from cliplab.models.clip import CLIP, CLIPConfig, load_openai, save_openai
from cliplab.models.losses import clamp_logit_scale, clip_loss
from cliplab.models.tokenizers import BytePairTokenizer, WordPieceTokenizer
from cliplab.pasture.captions import lexicon
from cliplab.runtime import atomic_write, checkpoint_dir, pick_device, seed_all
from cliplab.training.clip_dataset import (
    SIZE,
    Pool,
    augment,
    load_pool,
    recolour,
    slices,
    to_pixels,
)
from cliplab.training.clip_evaluation import examine
from cliplab.training.loop import Run, Schedule, fit, mixed_precision, write_model_card

_FULL_VOCAB = 49408


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the code."""

    seed: int = 0
    portraits: int = 100_000  # distinct pictures
    crops: int = 30_000  # of animals in herds, as a detector will ask about
    batch: int = 256
    width: int = 32  # of the image tower
    text_width: int = 128
    text_layers: int = 4
    embed_dim: int = 128
    steps: int = 1400
    lr: float = 1e-3
    recolour: float = 0.7  # share of the pictures with a caption of shape alone
    locked_steps: int = 500  # clip-chinese, stage 1
    joint_steps: int = 100  # clip-chinese, stage 2
    joint_lr: float = 2e-4


# ---- words ---------------------------------------------------------------------------------


class CompactVocabulary:
    """The few byte pairs that captions use, numbered in the order of their official ids.

    The order keeps the end token the highest, which is how the text tower finds it.
    """

    def __init__(self, tokenizer: BytePairTokenizer) -> None:
        self.tokenizer = tokenizer
        used = {i for word in lexicon("en") for i in tokenizer.encode(word)}
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
    characters = sorted({c for word in lexicon("zh") for c in word})
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]


# ---- models --------------------------------------------------------------------------------


def new_clip(recipe: Recipe, vocab_size: int) -> CLIP:
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


def new_chinese_clip(recipe: Recipe, english: CLIP, vocab_size: int) -> ChineseCLIP:
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


class Batches:
    """The batch of each step, which depends on nothing but the step and the seed."""

    def __init__(self, pool: Pool, language: str, recipe: Recipe, device: torch.device) -> None:
        self.pool, self.language, self.recipe, self.device = pool, language, recipe, device

    def draw(self, step: int) -> tuple[NDArray[np.int64], list, np.random.Generator]:
        """Indices (B,), a (caption, facts) each, and the generator to go on with."""
        generator = np.random.default_rng([self.recipe.seed, step])
        chosen = generator.choice(len(self.pool.seeds), self.recipe.batch, replace=False)
        variants = generator.integers(0, 2**31, len(chosen))
        captions = [
            self.pool.caption_and_facts(i, self.language, int(v))
            for i, v in zip(chosen, variants, strict=True)
        ]
        return chosen, captions, generator

    def __call__(self, step: int) -> tuple[Tensor, list[str]]:
        """Pixels (B, 3, S, S), augmented, and their captions."""
        chosen, captions, generator = self.draw(step)
        images = augment(self.pool.images[chosen], generator)
        shapes = [i for i, (_, facts) in enumerate(captions) if set(facts) <= {"posture"}]
        shapes = [i for i in shapes if generator.random() < self.recipe.recolour]
        images[shapes] = recolour(images[shapes], generator)
        return to_pixels(images, self.device), [text for text, _ in captions]


def train_english(recipe: Recipe, pool: Pool, folder: Path, device: torch.device) -> Path:
    """Train `clip-openai` from scratch; -> `folder / "model.pt"`, in OpenAI's format."""
    seed_all(recipe.seed)
    words = CompactVocabulary(BytePairTokenizer())
    model = new_clip(recipe, len(words.official)).to(device, memory_format=torch.channels_last)
    batches = Batches(pool, "en", recipe, device)

    def loss_of(step: int) -> Tensor:
        pixels, texts = batches(step)
        with mixed_precision(device):
            image, text = model.encode_image(pixels), model.encode_text(words(texts).to(device))
        return _contrast(image, text, model.logit_scale)

    schedule = Schedule(steps=recipe.steps, lr=recipe.lr)
    fit(model, loss_of, schedule, Run(folder, _english(recipe)), after_step=_clamping(model))
    save_openai(words.scatter(model.state_dict()), folder / "model.pt")
    return folder / "model.pt"


def _english(recipe: Recipe) -> dict[str, float]:
    """The settings that the English training depends on."""
    return {k: v for k, v in asdict(recipe).items() if not k.startswith(("locked", "joint"))}


def train_chinese(
    recipe: Recipe, pool: Pool, english: Path, folder: Path, device: torch.device
) -> Path:
    """Train `clip-chinese` on the English model's image tower; -> `folder / "model"`."""
    seed_all(recipe.seed)
    vocab = chinese_vocabulary()
    words = WordPieceTokenizer(vocab, 52)
    model = new_chinese_clip(recipe, load_openai(english), len(vocab)).to(device)
    batches = Batches(pool, "zh", recipe, device)
    locked = _embed_pool(model, pool, device)  # (N, D) unit rows

    def locked_loss(step: int) -> Tensor:
        chosen, captions, _ = batches.draw(step)
        with mixed_precision(device):
            text = model.encode_text(_cut(words([text for text, _ in captions])).to(device))
        return _contrast(locked[chosen].to(device), text, model.logit_scale)

    model.visual.requires_grad_(False)
    stage1 = Schedule(steps=recipe.locked_steps, lr=recipe.lr)
    fit(model, locked_loss, stage1, Run(folder / "locked", asdict(recipe)),
        after_step=_clamping(model))  # fmt: skip

    def joint_loss(step: int) -> Tensor:
        pixels, texts = batches(recipe.locked_steps + step)
        with mixed_precision(device):
            image = model.encode_image(pixels)
            text = model.encode_text(_cut(words(texts)).to(device))
        return _contrast(image, text, model.logit_scale)

    model.visual.requires_grad_(True)
    stage2 = Schedule(steps=recipe.joint_steps, lr=recipe.joint_lr, warmup=100)
    fit(model.train(), joint_loss, stage2, Run(folder / "joint", asdict(recipe)),
        after_step=_clamping(model))  # fmt: skip
    save_modelscope(model.eval(), folder / "model", vocab)
    return folder / "model"


def _contrast(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    # Equal captions in a batch need no special care: their logits are equal, so spreading the
    # target over them changes neither the loss nor its gradient (see losses.clip_loss).
    unit = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    return clip_loss(*unit, log_scale.exp())


def _clamping(model: nn.Module) -> Callable[[int], dict]:
    def after_step(step: int) -> dict:
        clamp_logit_scale(model.logit_scale)
        scale = float(model.logit_scale.detach().exp())
        return {"logit_scale": round(scale, 2)} if (step + 1) % 100 == 0 else {}

    return after_step


@torch.inference_mode()
def _embed_pool(model: ChineseCLIP, pool: Pool, device: torch.device) -> Tensor:
    """What the locked tower sees in every picture: (N, D) unit rows."""
    model.eval()
    parts = []
    for images in slices(pool.images, 512):
        with mixed_precision(device):
            feature = model.encode_image(to_pixels(images, device))
        parts.append(F.normalize(feature.float(), dim=-1).cpu())
    return torch.cat(parts).clone()


def _cut(ids: Tensor) -> Tensor:
    """Drop the columns that are padding in every row."""
    return ids[:, : int((ids != 0).sum(1).max())]


# ---- command line --------------------------------------------------------------------------

_MODELS = ("clip-openai", "clip-chinese")
_LICENCE = "Apache-2.0; trained on generated pictures and captions only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m cliplab train clip`."""
    parser.add_argument("--model", choices=("all", *_MODELS), default="all",
                        help="what to make; clip-chinese needs clip-openai")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the English training")
    parser.add_argument("--portraits", type=int, default=Recipe.portraits, help="distinct pictures")
    parser.add_argument("--crops", type=int, default=Recipe.crops, help="distinct crops of herds")
    parser.add_argument("--recolour", type=float, default=Recipe.recolour,
                        help="share of shape-only pictures in false colours; 0 to 1")  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--work", type=Path, default=Path("runs/train/clip"),
                        help="pictures, logs and states to resume from")  # fmt: skip
    parser.add_argument("--out", type=Path, default=None,
                        help="where the checkpoints go (default: data/checkpoints)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train, write the checkpoints, examine them as a user would load them, write the cards."""
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = replace(Recipe(), seed=args.seed, steps=args.steps, portraits=args.portraits,
                     crops=args.crops, recolour=args.recolour)  # fmt: skip
    device = pick_device(args.device)
    out = args.out or checkpoint_dir("")
    pool = load_pool(args.work / "pool", portrait_count=recipe.portraits, crop_count=recipe.crops)
    wanted = _MODELS if args.model == "all" else (args.model,)
    for name in wanted:
        folder = args.work / f"{name}-seed{args.seed}"
        if name == "clip-openai":
            made = [train_english(recipe, pool, folder, device)]
        else:
            english = out / "clip-openai" / "model.pt"
            made = sorted(train_chinese(recipe, pool, english, folder, device).iterdir())
        _publish(name, recipe, made, out / name)
    return 0


def _publish(name: str, recipe: Recipe, made: list[Path], target: Path) -> None:
    """Copy the files into place and write the card; a card is only ever of the files beside it."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "model_card.json").unlink(missing_ok=True)
    for path in made:
        with atomic_write(target / path.name) as file:
            file.write(path.read_bytes())
    write_model_card(target, **card(name, recipe, target))


def card(name: str, recipe: Recipe, folder: Path) -> dict:
    """Model card of a checkpoint: what it is, how it was made, and what it can and cannot do."""
    from cliplab.encoders import load_encoder

    chinese = name == "clip-chinese"
    own, other = ("zh", "en") if chinese else ("en", "zh")
    spec = f"modelscope:{folder}" if chinese else f"openai:{folder / 'model.pt'}"
    encoder = load_encoder(spec, device="cpu")
    return {
        "name": name,
        "format": "ModelScope directory" if chinese else "OpenAI TorchScript archive",
        "language": own,
        "licence": _LICENCE,
        "command": f"python -m cliplab train clip --model {name} --seed {recipe.seed} "
        f"--steps {recipe.steps} --portraits {recipe.portraits} --crops {recipe.crops} "
        f"--recolour {recipe.recolour}",
        "recipe": asdict(recipe),
        "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
        "held out": "12 (species, posture, colour) triples, (sheep, lying), (horse, eating)",
        "metrics": examine(encoder, own),
        f"metrics with {other} prompts": examine(encoder, other, count=500),
    }


def main() -> int:
    """For `python -m cliplab.training.clip`, without the front door."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
