"""How the shipped GLIP was made: `python -m cliplab train glip`.

Words and boxes together: class lists and captions mixed, English and Chinese (see `glip_dataset`).
The published models start from a Swin that knows ImageNet and a BERT that knows English. This one
starts from the body of the shipped ViLD, down to stride 16. Everything behind it, and all that is
read, is new. `--no-fusion` makes the twin, as GLIP-T (A) is to (B): the same start, pictures,
prompts, order and steps, but words and image meet in the last dot product only. Both twins of
seed 0 are shipped, and several seeds of each are compared.

Six rounds. After the second no training of three with fusion knew a colour, though all knew
species, postures and relations. A short round of hardly anything but colours and species ends that,
and the three behind it bring the rest back. The fourth still speaks of sides only, and who is on a
side can be found without the landmark, as the outermost of those alike. The fifth asks who of
several is near a landmark, which takes reading it (`relations.near_pair`): both sentences of a pair
in one batch, about two animals that look alike. That costs long descriptions some precision, which
a sixth, gentle round brings back in part.

Relations are learned late and suddenly, with batches of 16 not at all in 3,000 steps. Cells of 8
pixels are needed for the names, and one level of stride 64 for relations, which cross a picture.

Source: GLIP, arXiv:2112.03857, sections 3.1 to 3.3.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cliplab.models.glip import GLIP, GLIPConfig, load_glip, save_glip
from cliplab.models.glip.model import ConvBody
from cliplab.models.glip.training import losses
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.models.vild import ViLDConfig, load_vild
from cliplab.pasture import LEVELS, Words, say
from cliplab.runtime import checkpoint_dir, pick_device, seed_all, sha256
from cliplab.training import loop
from cliplab.training.cards import command_of, write_model_card
from cliplab.training.glip_dataset import (
    LANGUAGES,
    UNNAMED,
    GLIPBatches,
    GLIPDataset,
    PromptMix,
    load_herds,
    vocabulary,
)

SAVE_EVERY = 200  # steps between two states


@dataclass(frozen=True)
class Round:
    """One schedule, from a warm-up to a rate of zero, and what is said meanwhile."""

    lr: float
    warmup: int  # steps; at most half of all
    prompts: PromptMix
    batch: int = 64


_COLOURS = ((("colour",), 3.0), (("kind",), 2.0))
_MORE_COLOURS = tuple({**LEVELS, ("kind",): 10, ("colour",): 6, ("kind", "colour"): 5}.items())
_LATE = PromptMix((0.5, 0.25, 0.25), _MORE_COLOURS, 14, 0.2)
ROUNDS = (
    Round(1e-3, 200, PromptMix((0.35, 0.2, 0.45))),
    Round(5e-4, 200, PromptMix((0.3, 0.4, 0.3))),
    Round(1e-3, 30, PromptMix((0.8, 0.05, 0.15), _COLOURS, 14, 0.2), batch=32),
    Round(4e-4, 60, _LATE, batch=32),
    Round(1e-3, 50, replace(_LATE, pairs=10), batch=32),
    Round(4e-4, 30, replace(_LATE, pairs=5), batch=32),
)


@dataclass(frozen=True)
class GLIPRecipe:
    """Everything that decides the weights, besides the code and `ROUNDS`."""

    seed: int = 0  # of weights and batches
    fusion: bool = True  # of words and image, deeply; without: the twin
    pictures: int = 20_000  # distinct herds; of as many others, those that allow a pair
    # Of each round; 0 leaves it out
    steps: tuple[int, int, int, int, int, int] = (2500, 800, 150, 500, 1000, 300)
    max_tokens: int = 64  # of a prompt; longer ones are asked in parts
    start: Literal["vild", ""] = "vild"  # checkpoint whose body is taken over; '' for none

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        if not any(self.steps):
            raise ValueError("steps: got none in any round; expected at least one step")

    @property
    def name(self) -> str:
        """Of the twin."""
        return "glip" if self.fusion else "glip-no-fusion"

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds that are trained; 0 is the first."""
        return [number for number, steps in enumerate(self.steps) if steps]

    def as_dict(self, last: int | None = None) -> dict[str, Any]:
        """For cards and logs: the recipe up to the round `last`, and what its rounds are."""
        rounds = [
            {"steps": steps, **asdict(one)} for steps, one in zip(self.steps, ROUNDS, strict=True)
        ]
        rows = {k: v for k, v in asdict(self).items() if k != "steps"}
        return {**rows, "rounds": rounds if last is None else rounds[: last + 1]}


# ---- training ------------------------------------------------------------------------------


def train(
    recipe: GLIPRecipe,
    herds: GLIPDataset,
    work: Path,
    device: torch.device,
    *,
    paired: GLIPDataset | None = None,
) -> GLIP:
    """One training, whose rounds are resumed; `paired` are herds for those that ask pairs."""
    model, tokenizer = new_model(recipe)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    if recipe.start:  # the first layers know edges and colours; detectors commonly freeze them
        body = cast(ConvBody, model.backbone.body)
        for part in (body.stem, body.layers[0]):
            part.eval().requires_grad_(False)
    for number in recipe.rounds:
        one, steps, seed = ROUNDS[number], recipe.steps[number], recipe.seed + 1000 * number
        batches = GLIPBatches(herds, tokenizer, model.config, seed, one.batch, one.prompts, paired)
        schedule = loop.Schedule(steps=steps, lr=one.lr, warmup=min(one.warmup, steps // 2))
        log = loop.Run(round_folder(work, number), recipe.as_dict(number))
        fit_round(model, batches, schedule, log)
    return model.eval()


def round_folder(work: Path, number: int) -> Path:
    """Where the log and the state of a round go; 0 is the first."""
    return work / f"round-{number + 1}"


def fit_round(model: GLIP, batches: GLIPBatches, schedule: loop.Schedule, log: loop.Run) -> None:
    """Minimise GLIP's losses over the batches of a schedule."""
    device = next(model.parameters()).device

    def losses_of(step: int) -> dict[str, Tensor]:
        batch = batches(step).to(device)
        # On a CPU the backward pass of the fused kernel takes ten times as long in bfloat16.
        with loop.mixed_precision(device), sdpa_kernel(SDPBackend.MATH):
            raw = model(batch.pixels, batch.token_ids, batch.text_mask)
        return losses(raw, batch.targets, batch.text_mask)._asdict()

    loop.fit(model, losses_of, schedule, log, save_every=SAVE_EVERY)


def new_model(recipe: GLIPRecipe) -> tuple[GLIP, WordPieceTokenizer]:
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


# ---- the command ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Options(loop.RunOptions):
    """Options of `python -m cliplab train glip`."""

    recipe: GLIPRecipe = field(default_factory=GLIPRecipe)
    test_pictures: int = 200  # herds of the model card


def run(options: Options) -> None:
    """Train, write weights and card; the card's numbers are of the written file."""
    from cliplab.training.failures import add_failures
    from cliplab.training.glip_evaluation import evaluate

    recipe, device, work = options.recipe, pick_device(options.device), options.folder("glip")
    herds = load_herds(work / "herds", recipe.pictures)
    asks_pairs = any(ROUNDS[number].prompts.pairs for number in recipe.rounds)
    paired = load_herds(work / "herds", recipe.pictures, paired=True) if asks_pairs else None
    seeded = work / recipe.name / f"seed{recipe.seed}"
    model = train(recipe, herds, seeded, device, paired=paired)
    target = options.out or target_of(recipe, seeded)
    save_glip(model, target / "model.safetensors")
    metrics = evaluate(load_glip(target / "model.safetensors"), count=options.test_pictures)
    write_model_card(target, **card(recipe, metrics), **loop.machine(device))
    add_failures("glip", target, options.test_pictures)


def target_of(recipe: GLIPRecipe, work: Path) -> Path:
    """Where weights belong: those of the defaults are shipped, others stay beside their log."""
    if replace(recipe, fusion=GLIPRecipe.fusion) == GLIPRecipe():  # either twin
        return checkpoint_dir(recipe.name)
    return round_folder(work, recipe.rounds[-1]) / "checkpoint"


def card(recipe: GLIPRecipe, metrics: dict[str, Any]) -> dict[str, Any]:
    """Model card: what it is, how it was made, and what it can and cannot do."""
    told = {k: getattr(recipe, k) for k in ("seed", "steps", "pictures", "start", "fusion")}
    start = checkpoint_dir(recipe.start) / "model.safetensors" if recipe.start else None
    return {
        "name": recipe.name,
        "format": "safetensors, configuration and vocabulary in the header",
        "command": command_of("glip", told),
        "recipe": recipe.as_dict(),
        "started from": {recipe.start: sha256(start) if start else ""},
        "species without a name in training": list(UNNAMED),
        "words never learned": [say(Words(kind), x) for kind in UNNAMED for x in LANGUAGES],
        "a relation means one thing": True,  # `relations`: its first phrase, and its landmark
        "metrics": metrics,
    }
