"""What every training needs: a schedule, a log, and states that survive an interruption."""

import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cliplab.runtime import atomic_write
from cliplab.scale import is_first, place


@dataclass(frozen=True)
class RunOptions:
    """Where a training runs and what it leaves: options that all recipes have."""

    device: str = "auto"  # cpu, cuda, mps or auto
    work: Path | None = None  # pictures, logs and states (default: runs/train/<stem>)
    out: Path | None = None
    """weights and card (default: data/checkpoints for what is shipped, else beside the log)"""

    def folder(self, stem: str) -> Path:
        """Where the pictures, logs and states of a stem go."""
        return self.work or Path("runs/train") / stem


@dataclass(frozen=True)
class Schedule:
    """AdamW with warm-up and cosine decay."""

    steps: int
    lr: float = 1e-3  # at the end of the warm-up
    warmup: int = 200  # steps
    weight_decay: float = 0.05  # not on gains, biases and embeddings
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0  # of the whole gradient


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine to zero at the last step."""
    if step < schedule.warmup:
        return schedule.lr * (step + 1) / schedule.warmup
    rest = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def adamw(parameters: Iterable[nn.Parameter], schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only (CLIP, section 2.5)."""
    trained = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas, eps=1e-6)


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """bfloat16 matrix products where they are fast; float32 elsewhere."""
    if device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class Run:
    """The folder of one training: `log.jsonl`, and `state.pt` to resume from."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.log_path, self.state_path = folder / "log.jsonl", folder / "state.pt"
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, **values: Any) -> None:
        """Append one line of JSON to the log."""
        if is_first():
            with open(self.log_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write everything that the next step depends on, atomically: the same on every rank."""
        state = {
            "step": step,
            "settings": self.settings,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if is_first():
            with atomic_write(self.state_path) as file:
                torch.save(state, file)

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the last state if there is one; -> the step to go on with.

        Raises:
            ValueError: the state belongs to a training with other settings.
        """
        if not self.state_path.exists():
            return 0
        state = torch.load(self.state_path, weights_only=True)
        if state["settings"] != self.settings:
            changed = {k for k in self.settings if self.settings[k] != state["settings"].get(k)}
            raise ValueError(
                f"{self.state_path} is from a training with other {', '.join(sorted(changed))}: "
                "remove the folder to start anew, or give the same options to resume"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        return state["step"]


def fit(
    model: nn.Module,
    losses_of: Callable[[int], dict[str, Tensor]],
    schedule: Schedule,
    run: Run,
    *,
    after_step: Callable[[int], Any] = lambda step: None,
    save_every: int = 100,
) -> None:
    """Minimise the sum of `losses_of(step)` over the schedule, resuming where `run` stopped.

    Args:
        model: whose parameters with `requires_grad` are trained.
        losses_of: draws the batch of a step and returns its losses, name -> scalar; a step's batch
            must depend on the step alone, so that a resumed training sees what an uninterrupted
            one would have.
        run: where the log and the state go; every 100 steps the log has each loss.
        after_step: called after each update.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    optimizer = adamw(model.parameters(), schedule)
    begin, end = run.resume(model, optimizer), schedule.steps
    if begin < end:
        run.log(**machine(next(model.parameters()).device))
    started, recent = time.perf_counter(), list[float]()
    bar = tqdm(range(begin, end), initial=begin, total=end, mininterval=2, disable=not is_first())
    for step in bar:
        losses = losses_of(step)
        recent.append(_update(model, optimizer, losses, step, schedule))
        after_step(step)
        extra = {n: round(float(v.detach()), 4) for n, v in losses.items() if not (step + 1) % 100}
        if len(recent) == 20 or extra:
            mean = round(sum(recent) / len(recent), 4)
            seconds = round(time.perf_counter() - started, 1)
            run.log(step=step + 1, loss=mean, seconds=seconds, **extra)
            bar.set_postfix(loss=mean)
            recent = []
        if (step + 1) % save_every == 0 or step + 1 == end:
            run.save(step + 1, model, optimizer)


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: dict[str, Tensor],
    step: int,
    schedule: Schedule,
) -> float:
    """One step down the sum of the losses; -> that sum."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, schedule)
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"loss is {loss.item()} at step {step}: lower the rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
    optimizer.step()
    return loss.item()


def machine(device: torch.device) -> dict[str, str]:
    """The entry of a log or a model card that says on which machine it was trained."""
    name = f"{device.type}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {"trained on": f"{place()[1]} ranks, each {name}" if place()[1] > 1 else name}
