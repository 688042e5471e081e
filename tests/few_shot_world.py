"""A small world with known answers: noisy clusters around directions, and texts that lie a bit."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot import Shots

NAMES = ("sheep", "goat", "cow")
SCALE = 20.0


def directions(classes: int = 3, dim: int = 8) -> Tensor:
    """Unit rows (K, D), one per class."""
    return F.normalize(torch.randn(classes, dim, generator=generator(0)), dim=-1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zero_shot() -> Tensor:
    """Unit rows (3, 8): goat and cow lie well, sheep lies astray, so that sheep are misnamed."""
    rows = directions()
    astray = F.normalize(torch.randn(8, generator=generator(4)), dim=0)
    return F.normalize(torch.stack([0.3 * rows[0] + astray, rows[1], rows[2]]), dim=-1)


def make_shots(
    per_class: int = 6,
    *,
    split: str = "train",
    seed: int = 1,
    names: tuple[str, ...] = NAMES,
    noise: float = 0.25,
    grouped: bool = False,
) -> Shots:
    """`per_class` images of each class; with `grouped`, two to a group."""
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    rows = directions(len(names))[labels]
    emb = rows + noise * torch.randn(rows.shape, generator=generator(seed))
    groups = [f"{split} {seed} {i // 2}" for i in range(len(labels))] if grouped else None
    return Shots(F.normalize(emb, dim=-1), labels, names, split, groups)
