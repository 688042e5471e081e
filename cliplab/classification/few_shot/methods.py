"""What all methods share, and the two that learn nothing of the shots but a temperature."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot.classifier import Classifier, LinearClassifier
from cliplab.classification.few_shot.shots import Shots, check_fit, check_unit_rows

TEMPERATURES = (0.05, 20.0)  # where a temperature is looked for
_GOLDEN = (math.sqrt(5) - 1) / 2


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
            ValueError: test data, splits that overlap, a class without shots, shapes that do not
                fit.
        """
        check_fit(train, val)
        self._check(train)
        return self._fit(train, val)

    def _check(self, train: Shots) -> None:  # noqa: B027 - nothing to check is the rule
        """Raise ValueError unless what the method was given fits the shots."""

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

    def _check(self, train: Shots) -> None:
        expected = (len(train.class_names), train.dim)
        if (got := tuple(self.zero_shot.shape)) != expected:
            raise ValueError(
                f"zero_shot: got shape {got}; expected {expected}, classes x dimensions of the "
                "shots: build it with build_classifier, the same class names and encoder"
            )

    def _linear(
        self, train: Shots, weight: Tensor, bias: Tensor | None = None, **choices: Any
    ) -> LinearClassifier:
        return LinearClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=weight,
            bias=bias,
            choices={name.replace("_", " "): value for name, value in choices.items()},
        )


def quality(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(accuracy, -log loss) of logits (N, K): a few shots tie often, and the loss breaks ties."""
    hits = (logits.argmax(dim=1) == labels).float().mean()
    return float(hits), -float(F.cross_entropy(logits, labels))


def best(candidates: list[tuple[Any, Tensor]], labels: Tensor) -> Any:
    """The setting whose logits are best; of equal ones the first."""
    return max(candidates, key=lambda pair: quality(pair[1], labels))[0]


@dataclass(eq=False)
class ZeroShot(FromZeroShot):
    """The zero-shot classifier itself: the baseline that shots have to beat.

    Source: CLIP, arXiv:2103.00020, section 3.1.
    """

    def _fit(self, train: Shots, val: Shots | None) -> LinearClassifier:
        return self._linear(train, self.zero_shot, method="zero-shot")


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
    bounds = [bound for bound in TEMPERATURES if math.isclose(found, bound, rel_tol=1e-6)]
    return bounds[0] if bounds else found
