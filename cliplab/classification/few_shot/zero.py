"""The baseline, and one temperature on top of any classifier."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot.classifier import Classifier, LinearClassifier
from cliplab.classification.few_shot.method import FromZeroShot, Method
from cliplab.classification.few_shot.shots import Shots
from cliplab.encoders.two_towers import Encoder

TEMPERATURES = (0.05, 20.0)  # where a temperature is looked for
_GOLDEN = (math.sqrt(5) - 1) / 2


class ZeroShot(FromZeroShot):
    """The zero-shot classifier itself: the baseline that shots have to beat.

    Source: CLIP, arXiv:2103.00020, section 3.1.
    """

    def _fit(self, train: Shots, val: Shots | None) -> LinearClassifier:
        return LinearClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=self.zero_shot,
            choices={"method": "zero-shot"},
        )


class TemperatureScaling(Method):
    """Divide the logits by one number, so that confidences agree with accuracies.

    What is predicted, and so the accuracy, stays as it is.

    Args (of the constructor):
        method: what makes the classifier whose logits are divided.

    Without a validation split only the zero-shot classifier can be calibrated, on train: it has not
    seen train, while a fitted classifier is surer of its training pictures than of any other.

    Source: On Calibration of Modern Neural Networks, arXiv:1706.04599, section 4.2.
    """

    def __init__(self, method: Method) -> None:
        self.method = method

    @classmethod
    def build(
        cls, *, zero_shot: Tensor, logit_scale: float, encoder: Encoder | None, seed: int
    ) -> Self:
        """Temperature scaling of the zero-shot classifier."""
        return cls(ZeroShot(zero_shot, logit_scale))

    def _check(self, train: Shots) -> None:
        self.method._check(train)

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
        return rescaled(classifier, temperature, chosen)


def rescaled(
    classifier: Classifier, temperature: float, choices: dict[str, object] | None = None
) -> Classifier:
    """The classifier with its logits divided by `temperature`; with 1 they are the same bits."""
    return replace(
        classifier,
        temperature=classifier.temperature * temperature,
        choices={**classifier.choices, **(choices or {"temperature": temperature})},
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in TEMPERATURES with the least log loss of logits (N, K).

    The loss is convex in 1 / temperature, so it has one valley and golden sections find its floor.
    When every image is right the valley slopes down for ever, and the lower bound is returned.
    """
    exact = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(exact / math.exp(log_temperature), labels))

    low, high = map(math.log, TEMPERATURES)
    for _ in range(60):  # 0.618 ** 60 of the interval is less than float64 can tell
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    found = math.exp((low + high) / 2)
    return min(TEMPERATURES, key=lambda t: abs(t - found)) if _at_bound(found) else found


def _at_bound(temperature: float) -> bool:
    return any(math.isclose(temperature, bound, rel_tol=1e-6) for bound in TEMPERATURES)
