"""What all methods share: one `fit`, the checks before it, and how settings are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot.classifier import Classifier
from cliplab.classification.few_shot.shots import Shots, check_embeddings, check_fit
from cliplab.encoders.two_towers import Encoder


class Method(ABC):
    """A way to make a classifier of a few shots.

    `fit` takes a training and a validation split and nothing else, so that no test picture can
    enter; what is chosen (C, alpha, beta, epochs) is chosen on them.
    """

    def fit(self, train: Shots, val: Shots | None = None) -> Classifier:
        """Classifier for the classes of `train`; the same shots and seed give the same one.

        Args:
            train: shots of the split "train", at least one per class.
            val: shots of the split "val", apart from train; settings are chosen on it. Without it
                they are chosen within train, or are defaults: the `choices` of the result tell.

        Raises:
            ValueError: test data under whatever name, splits that overlap, a class without shots,
                shapes that do not fit.
        """
        check_fit(train, val)
        self._check(train)
        return self._fit(train, val)

    @classmethod
    @abstractmethod
    def build(
        cls, *, zero_shot: Tensor, logit_scale: float, encoder: Encoder | None, seed: int
    ) -> Self:
        """The method with its default settings, from what is known before any shot."""

    @abstractmethod
    def _check(self, train: Shots) -> None:
        """Raise ValueError unless what the method was given fits the shots."""

    @abstractmethod
    def _fit(self, train: Shots, val: Shots | None) -> Classifier: ...


class FromZeroShot(Method):
    """A method that begins with a zero-shot classifier (K, D) and its logit scale."""

    def __init__(self, zero_shot: Tensor, logit_scale: float) -> None:
        self.zero_shot = check_zero_shot(zero_shot)
        self.logit_scale = float(logit_scale)

    @classmethod
    def build(
        cls, *, zero_shot: Tensor, logit_scale: float, encoder: Encoder | None, seed: int
    ) -> Self:
        """The method with its default settings."""
        return cls(zero_shot, logit_scale)

    def _check(self, train: Shots) -> None:
        expected = (len(train.class_names), train.dim)
        if (got := tuple(self.zero_shot.shape)) != expected:
            raise ValueError(
                f"zero_shot: got shape {got}; expected {expected}, classes x dimensions of the "
                "shots: build it with build_classifier, the same class names and encoder"
            )


def check_zero_shot(zero_shot: Tensor) -> Tensor:
    """The zero-shot classifier as (K, D) float32 on the CPU; ValueError unless unit rows."""
    try:
        return check_embeddings(zero_shot)
    except ValueError as error:
        raise ValueError(str(error).replace("image_emb", "zero_shot")) from None


def quality(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(accuracy, -log loss) of logits (N, K): a few shots tie often, and the loss breaks ties."""
    hits = (logits.argmax(dim=1) == labels).float().mean()
    return float(hits), -float(F.cross_entropy(logits, labels))


def best(candidates: list[tuple[Any, Tensor]], labels: Tensor) -> Any:
    """The setting whose logits are best; of equal ones the first."""
    return max(candidates, key=lambda pair: quality(pair[1], labels))[0]
