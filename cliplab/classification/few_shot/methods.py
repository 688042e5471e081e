"""What all methods share; the zero-shot baseline, Tip-Adapter, and a temperature on top of any."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot.classifier import Classifier
from cliplab.classification.few_shot.shots import Shots, check_fit, check_unit_rows

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
