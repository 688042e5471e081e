"""Tip-Adapter: the shots as a cache that votes beside the text; its keys fixed, or fine-tuned.

Source: Tip-Adapter, arXiv:2111.03930, section 3; written from its formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import CacheClassifier
from cliplab.classification.few_shot.methods import FromZeroShot, best
from cliplab.classification.few_shot.shots import Shots

ALPHA, BETA = 1.17, 1.0  # the paper's code starts its search from them
# As shares of the logit scale: a vote weighs the same whatever the temperature of the encoder.
ALPHAS = (0.0, *(0.01 * 2**n for n in range(10)))  # alpha / logit_scale, 0 to 5
BETAS = tuple(0.5 * 2 ** (n / 2) for n in range(12))  # 0.5 to 23


@dataclass(eq=False)
class TipAdapter(FromZeroShot):
    """logits = logit_scale * f W^T + alpha * exp(-beta (1 - f F^T)) L, without training.

    F (M, D) are the training shots and L (M, K) their one-hot labels. With alpha = 0 it is the
    zero-shot classifier, bit by bit.

    Alpha and beta are searched on val. Without val they are searched on train, each shot judged by
    a cache without it (and without its group); the votes for its class are scaled up to make good
    the absence, else every class would look weaker to its own shots than to others. With one shot
    (or one group) per class nothing would be left to vote, and ALPHA and BETA are taken.

    The script of the authors searches alpha and beta on the **test** pictures of ImageNet, and
    stops Tip-Adapter-F at its best test epoch: their numbers there are a little too good. Here the
    test split cannot be passed.
    """

    name: ClassVar[str] = "tip-adapter"

    alpha: float | None = field(default=None, kw_only=True)  # weight of the cache, and
    beta: float | None = field(default=None, kw_only=True)  # sharpness: both, or None = chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.alpha is None) != (self.beta is None):
            raise ValueError(
                f"alpha {self.alpha}, beta {self.beta}: expected both, or neither to choose them"
            )

    def _fit(self, train: Shots, val: Shots | None) -> CacheClassifier:
        alpha, beta, chosen_on = self._choose(train, val)
        return self._cache(train, train.image_emb, alpha, beta, chosen_on=chosen_on)

    def _cache(
        self, train: Shots, keys: Tensor, alpha: float, beta: float, **choices: Any
    ) -> CacheClassifier:
        chosen = {"method": self.name, "alpha": alpha, "beta": beta}
        return CacheClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=self.zero_shot,
            keys=keys,
            labels=train.labels,
            alpha=alpha,
            beta=beta,
            choices=chosen | {name.replace("_", " "): value for name, value in choices.items()},
        )

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, float, str]:
        """Alpha, beta, and what they were chosen on."""
        if self.alpha is not None and self.beta is not None:
            return self.alpha, self.beta, "given"
        if val is not None:
            return *self._search(train, train.image_emb, val), "val"
        if (own := _held_out_weights(train)) is None:
            return ALPHA, BETA, "default: nothing can be held out"
        return *self._search(train, train.image_emb, train, own), "leave-one-out"

    def _search(
        self, train: Shots, keys: Tensor, judged: Shots, weights: Tensor | float = 1.0
    ) -> tuple[float, float]:
        """The best (alpha, beta) for a cache of `keys` on `judged`, its votes times `weights`."""
        zero_shot = self.logit_scale * (judged.image_emb @ self.zero_shot.T)
        gram = judged.image_emb @ keys.T  # (V, N)
        votes = {b: (torch.exp(-b * (1 - gram)) * weights) @ _one_hot(train) for b in BETAS}
        grid = [(self.logit_scale * share, b) for share in ALPHAS for b in BETAS]
        return best([((a, b), zero_shot + a * votes[b]) for a, b in grid], judged.labels)


def _one_hot(shots: Shots) -> Tensor:
    return F.one_hot(shots.labels, len(shots.class_names)).float()  # (N, K)


def _held_out_weights(train: Shots) -> Tensor | None:
    """Weight (N, N) of shot j in the cache that judges shot i; None where a class would be empty.

    0 for i itself and its group. The rest of a class that lost shots counts for more, so that the
    votes of each class sum over as many shots as in the whole cache.
    """
    names = train.groups or tuple(map(str, range(len(train))))
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = torch.tensor([index[name] for name in names])
    kept = (group[:, None] != group[None]).float()  # (N, N)
    left = kept @ _one_hot(train)  # (N, K), shots of each class that may judge i
    if not left.all():
        return None
    return kept * (train.counts / left)[:, train.labels]


@dataclass(eq=False)
class TipAdapterF(TipAdapter):
    """Tip-Adapter with keys F that are fine-tuned (AdamW, cosine learning rate) from the shots.

    With val, the best of the epochs is kept, and then alpha and beta are searched again.

    Source: Tip-Adapter, section 3; learning rate 0.001, eps 1e-4, 20 epochs, batches of 256.
    """

    name: ClassVar[str] = "tip-adapter-f"

    epochs: int = field(default=20, kw_only=True)  # 0 or more; 0 is Tip-Adapter
    seed: int = field(default=0, kw_only=True)  # of the batches' order

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 0:
            raise ValueError(f"epochs: got {self.epochs}; expected 0 or more")

    def _fit(self, train: Shots, val: Shots | None) -> CacheClassifier:
        alpha, beta, chosen_on = self._choose(train, val)
        tried = [train.image_emb, *self._epochs(train, alpha, beta)]  # keys after each epoch
        epoch = self.epochs
        if val is not None:
            fitted = [self._cache(train, keys, alpha, beta) for keys in tried]
            logits = [(n, one.logits(val.image_emb)) for n, one in enumerate(fitted)]
            epoch = best(logits, val.labels)
            if self.alpha is None:
                alpha, beta = self._search(train, tried[epoch], val)
        return self._cache(train, tried[epoch], alpha, beta, chosen_on=chosen_on, epochs=epoch)

    def _epochs(self, train: Shots, alpha: float, beta: float) -> Iterator[Tensor]:
        """The keys (N, D) after each epoch."""
        generator = torch.Generator().manual_seed(self.seed)
        keys = nn.Parameter(train.image_emb.clone())
        optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
        batches = -(-len(train) // 256)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max(1, self.epochs * batches)
        )
        values = _one_hot(train)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(train), generator=generator).split(256):
                emb = train.image_emb[rows]
                votes = torch.exp(-beta * (1 - emb @ keys.T)) @ values
                logits = self.logit_scale * (emb @ self.zero_shot.T) + alpha * votes
                optimizer.zero_grad()
                F.cross_entropy(logits, train.labels[rows]).backward()
                optimizer.step()
                schedule.step()
            yield keys.detach().clone()
