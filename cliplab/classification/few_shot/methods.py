"""What methods share; zero-shot, a temperature on any, Tip-Adapter, and three linear heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import Classifier, Shots, check_fit, check_unit_rows

TEMPERATURES = (0.05, 20.0)  # where a temperature is looked for


class Method(ABC):
    """A way to make a classifier of a few shots; its settings are the fields of a dataclass.

    `fit` takes a training and a validation split and nothing else, so that no test picture can
    enter; what is chosen (C, alpha, beta, epochs) is chosen on them.
    """

    @classmethod
    def build(cls, **known: Any) -> Self:
        """The method with its default settings; of zero_shot, logit_scale, encoder and seed it
        takes those that it has."""
        own = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # every method is one
        return cls(**{name: value for name, value in known.items() if name in own})

    def fit(self, train: Shots, val: Shots | None = None) -> Classifier:
        """Classifier for the classes of `train`; the same shots and seed give the same one.

        Args:
            train: shots of the split "train", at least one per class.
            val: shots of the split "val", apart from train; settings are chosen on it. Without it
                they are chosen within train, or are defaults: the `choices` of the result tell.

        Raises:
            ValueError: test data, splits that overlap, a class without shots.
        """
        check_fit(train, val)
        return self._fit(train, val)

    @abstractmethod
    def _fit(self, train: Shots, val: Shots | None) -> Classifier: ...


@dataclass(eq=False)
class FromZeroShot(Method):
    """A method that begins with a zero-shot classifier and its logit scale."""

    zero_shot: Tensor  # (K, D) unit rows
    logit_scale: float

    def __post_init__(self) -> None:
        self.zero_shot = check_unit_rows(self.zero_shot, name="zero_shot")
        self.logit_scale = float(self.logit_scale)

    def _classifier(
        self, train: Shots, weight: Tensor, choices: dict[str, Any], **more: Any
    ) -> Classifier:
        return Classifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=weight,
            choices=choices,
            **more,
        )


def best(candidates: list[tuple[Any, Tensor]], labels: Tensor) -> Any:
    """The setting whose logits (N, K) are most accurate, of equal ones that of the least log loss.

    A few shots tie often; where the loss ties as well, the first wins.
    """

    def quality(logits: Tensor) -> tuple[float, float]:
        hits = (logits.argmax(dim=1) == labels).float().mean()
        return float(hits), -float(F.cross_entropy(logits, labels))

    return max(candidates, key=lambda pair: quality(pair[1]))[0]


@dataclass(eq=False)
class ZeroShot(FromZeroShot):
    """The zero-shot classifier itself: the baseline that shots have to beat.

    Source: CLIP, arXiv:2103.00020, section 3.1.
    """

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        return self._classifier(train, self.zero_shot, {"method": "zero-shot"})


@dataclass(eq=False)
class TemperatureScaling(Method):
    """Divide the logits by one number, so that confidences agree with accuracies.

    What is predicted, and so the accuracy, stays as it is. Without a validation split only the
    zero-shot classifier can be calibrated, on train: it has not seen train, while a fitted
    classifier is surer of its training pictures than of any other.

    Source: On Calibration of Modern Neural Networks, arXiv:1706.04599, section 4.2.
    """

    method: Method  # makes the classifier whose logits are divided

    @classmethod
    def build(cls, **known: Any) -> Self:
        """Temperature scaling of the zero-shot classifier."""
        return cls(ZeroShot.build(**known))

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        if val is None and not isinstance(self.method, ZeroShot):
            raise ValueError(
                "temperature: got no val; expected validation shots, since a fitted classifier is "
                "too sure of its own training shots to choose a temperature on them"
            )
        held_out = train if val is None else val
        classifier = self.method._fit(train, val)
        temperature = fit_temperature(classifier.logits(held_out.image_emb), held_out.labels)
        chosen = {"temperature": temperature, "temperature chosen on": held_out.split}
        return replace(classifier, temperature=temperature, choices=classifier.choices | chosen)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in TEMPERATURES with the least log loss of logits (N, K).

    The loss is convex in 1 / temperature, so it has one valley. When every image is right the
    valley slopes down for ever, and the lower bound is returned.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    places = [math.log(bound) for bound in TEMPERATURES]
    found = minimize_scalar(loss, bounds=places, method="bounded", options={"xatol": 1e-8}).x
    return min((*TEMPERATURES, math.exp(found)), key=lambda t: loss(math.log(t)))


# ---- Tip-Adapter: arXiv:2111.03930, section 3; written from its formulas ------------------------

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

    The script of the authors searches alpha and beta on the **test** pictures of ImageNet: their
    numbers there are a little too good. Here the test split cannot be passed.
    """

    alpha: float | None = field(default=None, kw_only=True)  # weight of the cache, and
    beta: float | None = field(default=None, kw_only=True)  # sharpness: both, or else chosen

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        alpha, beta, chosen_on = self._choose(train, val)
        chosen = {"alpha": alpha, "beta": beta}
        choices = {"method": "tip-adapter", **chosen, "chosen on": chosen_on}
        cache = {"keys": train.image_emb, "labels": train.labels}
        return self._classifier(train, self.zero_shot, choices, **cache, **chosen)

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, float, str]:
        """Alpha, beta, and what they were chosen on."""
        if self.alpha is not None and self.beta is not None:
            return self.alpha, self.beta, "given"
        if val is not None:
            return *self._search(train, val), "val"
        if (own := held_out_weights(train)) is None:
            return ALPHA, BETA, "default: nothing can be held out"
        return *self._search(train, train, own), "leave-one-out"

    def _search(
        self, train: Shots, judged: Shots, weights: Tensor | float = 1.0
    ) -> tuple[float, float]:
        """The best (alpha, beta) for a cache of `train` on `judged`, its votes times `weights`."""
        zero_shot = self.logit_scale * (judged.image_emb @ self.zero_shot.T)
        gram = judged.image_emb @ train.image_emb.T  # (V, N)
        votes = {b: (torch.exp(-b * (1 - gram)) * weights) @ _one_hot(train) for b in BETAS}
        grid = [(self.logit_scale * share, b) for share in ALPHAS for b in BETAS]
        return best([((a, b), zero_shot + a * votes[b]) for a, b in grid], judged.labels)


def _one_hot(shots: Shots) -> Tensor:
    return F.one_hot(shots.labels, len(shots.class_names)).float()  # (N, K)


def held_out_weights(train: Shots) -> Tensor | None:
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


# ---- linear heads: from nothing, from the text (CLAP), and between (WiSE-FT) --------------------

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
