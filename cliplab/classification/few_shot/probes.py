"""Linear heads: from nothing (logistic regression), from the text (CLAP), and between (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import Classifier
from cliplab.classification.few_shot.methods import FromZeroShot, Method, best
from cliplab.classification.few_shot.shots import Shots

STRENGTHS = tuple(float(c) for c in np.logspace(-1, 4, 11))  # C: inverse of the regularisation
DEFAULT_STRENGTH = 10.0  # C where nothing can be held out
FOLDS = 5
WISE_ALPHAS = tuple(n / 10 for n in range(11))
WISE_STEPS = 200  # of AdamW
DEFAULT_ALPHA = 0.5  # of WiSE-FT: what the paper recommends where nothing can tell


@dataclass(eq=False)
class LinearProbe(Method):
    """Logistic regression on unit embeddings: what the images say without the text.

    C is chosen among STRENGTHS on val, else by stratified cross-validation within train that keeps
    groups together, else (a class with one image, or one group) it is DEFAULT_STRENGTH: with one
    shot per class C changes the confidences, hardly what is predicted.

    Source: CLIP, arXiv:2103.00020, section 3.2 and appendix A.3 (L-BFGS, C swept on validation).
    """

    logit_scale: float = field(default=1.0, kw_only=True)

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        c, chosen_on = self._choose(train, val)
        weight, bias = logistic_regression(train, c)
        return Classifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=weight / self.logit_scale,
            bias=bias,
            choices={"method": "linear-probe", "C": c, "chosen on": chosen_on},
        )

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, str]:
        parts = [(train, val)] if val else list(_folds(train))
        if not parts:
            return DEFAULT_STRENGTH, "default: nothing can be held out"
        fitted = []
        for c in STRENGTHS:
            heads = [logistic_regression(kept, c) for kept, _ in parts]
            pairs = zip(heads, parts, strict=True)
            fitted.append((c, torch.cat([held.image_emb @ w.T + b for (w, b), (_, held) in pairs])))
        labels = torch.cat([held.labels for _, held in parts])
        return best(fitted, labels), "val" if val else f"cross-validation, {len(parts)} folds"


def logistic_regression(shots: Shots, c: float) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of the multinomial logistic regression with an L2 penalty."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=5000, tol=1e-6)
    model.fit(shots.image_emb.double().numpy(), shots.labels.numpy())
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight.float().contiguous(), bias.float()  # sums of a transposed one round differently


def _folds(train: Shots) -> Iterator[tuple[Shots, Shots]]:
    """(kept, held out) of each fold whose kept shots have every class."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels = train.labels.numpy()
    groups = np.asarray(train.groups or range(len(train)))
    pairs = set(zip(labels.tolist(), groups.tolist(), strict=True))
    fewest = int(np.bincount([k for k, _ in pairs], minlength=len(train.class_names)).min())
    if fewest < 2:
        return
    splitter = StratifiedGroupKFold(min(FOLDS, fewest))
    for kept, rest in splitter.split(labels[:, None], labels, groups):
        if len(rest) and len(set(labels[kept])) == len(train.class_names):
            yield train.subset(torch.from_numpy(kept)), train.subset(torch.from_numpy(rest))


@dataclass(eq=False)
class TextProbe(FromZeroShot):
    """CLAP: a linear probe that starts at the text and is held there, class by class.

    Minimises the mean cross-entropy of logits logit_scale * f W^T plus
    the sum over classes of lambda_k |w_k - t_k|^2, where t_k is the text of class k and
    lambda_k the mean zero-shot probability of class k on its own shots. A class that the text
    already names well stays; one that it misnames is free to follow its pictures. Nothing is
    tuned, so every label can serve as a shot. That, and that it is convex, is why CLAP and not
    LP++ (2404.02285, logits f (w_k + alpha_k t_k)), whose result also depends on when it stops.

    Source: CLAP, arXiv:2312.12730, section 4.
    Deviates: rows are not re-normalised, which keeps the problem convex, and it is solved to the
        end by L-BFGS in float64, not for 300 epochs of SGD on augmented images; so nothing is
        random.
    """

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        hold = class_multipliers(self.logit_scale * train.image_emb @ self.zero_shot.T, train)
        weight = held_probe(train, self.zero_shot, logit_scale=self.logit_scale, hold=hold)
        by_class = dict(zip(train.class_names, hold.tolist(), strict=True))
        choices = {"method": "text-probe", "strength": 1.0, "hold": by_class}
        return self._classifier(train, weight, choices)


def class_multipliers(logits: Tensor, shots: Shots) -> Tensor:
    """Mean probability of class k on the shots of class k: logits (N, K) -> (K,)."""
    own = logits.softmax(dim=1).gather(1, shots.labels[:, None]).flatten()  # (N,)
    return torch.zeros(len(shots.counts)).index_add(0, shots.labels, own) / shots.counts


def held_probe(shots: Shots, start: Tensor, *, logit_scale: float, hold: Tensor) -> Tensor:
    """argmin over W (K, D) of cross-entropy + sum_k hold_k |w_k - start_k|^2."""
    emb, text = shots.image_emb.double(), start.double()
    weight = text.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        held = (hold.double() * (weight - text).square().sum(dim=1)).sum()
        value = F.cross_entropy(logit_scale * (emb @ weight.T), shots.labels) + held
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach().float()


@dataclass(eq=False)
class WiseFT(FromZeroShot):
    """theta = (1 - alpha) theta_zero-shot + alpha theta_fine-tuned, for the linear head.

    Fine-tuning fits the shots and forgets some of what the text knew about pictures unlike them;
    half-way back keeps most of both. Alpha 0 is the zero-shot classifier and 1 the fine-tuned one,
    bit by bit. Alpha is chosen on val, or is DEFAULT_ALPHA. A val split from the same place as
    train cannot know what a shift will cost, and leans to 1.

    Source: WiSE-FT, arXiv:2109.01903, section 3 and its linear-classifier variant.
    Deviates: the image tower stays frozen, as everywhere in this package.
    """

    alpha: float | None = field(default=None, kw_only=True)  # 0 to 1; None = chosen

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        weight, bias = self.fine_tune(train)

        def between(alpha: float, chosen_on: str = "") -> Classifier:
            choices = {"method": "wise-ft", "alpha": alpha, "chosen on": chosen_on}
            mixed = (1 - alpha) * self.zero_shot + alpha * weight
            return self._classifier(train, mixed, choices, bias=alpha * bias)

        if self.alpha is not None:
            return between(self.alpha, "given")
        if val is None:
            return between(DEFAULT_ALPHA, "default: no val")
        tried = [(a, between(a).logits(val.image_emb)) for a in WISE_ALPHAS]
        return between(best(tried, val.labels), "val")

    def fine_tune(self, train: Shots) -> tuple[Tensor, Tensor]:
        """The other end: weight and bias trained from the zero-shot ones, on all shots at once."""
        weight = nn.Parameter(self.zero_shot.clone())
        bias = nn.Parameter(torch.zeros(len(weight)))
        optimizer = torch.optim.AdamW([weight, bias], lr=0.01, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, WISE_STEPS)
        for _ in range(WISE_STEPS):
            optimizer.zero_grad()
            logits = self.logit_scale * (train.image_emb @ weight.T) + bias
            F.cross_entropy(logits, train.labels).backward()
            optimizer.step()
            schedule.step()
        return weight.detach(), bias.detach()
