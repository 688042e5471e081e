"""Fitted classifiers: unit embeddings in, logits and `Scores` out. Two kinds serve all methods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.few_shot.shots import check_embeddings
from cliplab.classification.scores import Scores
from cliplab.encoders.two_towers import Encoder


class EncoderStamp(NamedTuple):
    """Which encoder a classifier belongs to: embeddings of another one mean nothing to it."""

    name: str
    fingerprint: str  # of its weights and preprocessing

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderStamp:
        """The stamp of an encoder; its weights are hashed when first asked for."""
        return cls(encoder.name, encoder.fingerprint)


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(ABC):
    """N unit embeddings -> logits for K classes, and how it came to be what it is."""

    class_names: tuple[str, ...]
    logit_scale: float  # 1 / temperature of the encoder; what `Scores.gap` is divided by
    temperature: float = 1.0  # logits are divided by it; see TemperatureScaling
    choices: dict[str, Any] = field(default_factory=dict)  # method, its settings, chosen on what
    encoder: EncoderStamp | None = None

    def __post_init__(self) -> None:
        for name in ("logit_scale", "temperature"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}: got {value}; expected a number above 0")
        for name, tensor in self.tensors().items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name}: has NaN or infinity; expected finite weights: fit again")

    @property
    @abstractmethod
    def dim(self) -> int:
        """D, length of the embeddings that it takes."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved, by field name."""

    @abstractmethod
    def _logits(self, image_emb: Tensor) -> Tensor:
        """(N, D) -> (N, K), before the temperature."""

    def logits(self, image_emb: Tensor) -> Tensor:
        """Unit rows (N, D) -> (N, K).

        Raises:
            ValueError: another D, or rows that are not finite or not of unit length.
        """
        return self._logits(check_embeddings(image_emb, self.dim)) / self.temperature

    def scores(self, image_emb: Tensor) -> Scores:
        """Unit rows (N, D) -> `Scores`; ValueError as `logits`."""
        scale = self.logit_scale / self.temperature
        return Scores.from_logits(self.class_names, self.logits(image_emb), logit_scale=scale)

    def stamped(self, encoder: Encoder) -> Classifier:
        """The same classifier, with the name and fingerprint of the encoder it was fitted with."""
        if encoder.dim != self.dim:
            raise ValueError(
                f"encoder {encoder.name}: has {encoder.dim} dimensions; expected {self.dim}, as "
                "the classifier: use the encoder that it was fitted with"
            )
        return replace(self, encoder=EncoderStamp.of(encoder))

    def __repr__(self) -> str:
        method = self.choices.get("method", type(self).__name__)
        return f"<{method} classifier of {', '.join(self.class_names)}>"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LinearClassifier(Classifier):
    """logits = logit_scale * f W^T + b."""

    weight: Tensor  # (K, D)
    bias: Tensor | None = None  # (K,)

    def __post_init__(self) -> None:
        _check_shape("weight", self.weight, (len(self.class_names), None))
        if self.bias is not None:
            _check_shape("bias", self.bias, (len(self.class_names),))
        super().__post_init__()

    @property
    def dim(self) -> int:
        """D, length of the embeddings that it takes."""
        return self.weight.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved, by field name."""
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})

    def _logits(self, image_emb: Tensor) -> Tensor:
        logits = self.logit_scale * (image_emb @ self.weight.T)  # as Scores.from_cosine does it
        return logits if self.bias is None else logits + self.bias

    def scores(self, image_emb: Tensor) -> Scores:
        """Unit rows (N, D) -> `Scores`, with cosines where the classes are unit rows."""
        scores = super().scores(image_emb)
        unit = torch.allclose(self.weight.norm(dim=1), torch.ones(len(self.weight)), atol=1e-4)
        if self.bias is not None or not unit:
            return scores
        return replace(scores, cosine=check_embeddings(image_emb, self.dim) @ self.weight.T)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CacheClassifier(Classifier):
    """logits = logit_scale * f W^T + alpha * exp(-beta (1 - f F^T)) L, the form of Tip-Adapter."""

    weight: Tensor  # W (K, D), the zero-shot classifier
    keys: Tensor  # F (M, D), one row per shot
    labels: Tensor  # (M,) int64; one-hot they are L (M, K)
    alpha: float  # weight of the cache, 0 or more
    beta: float  # sharpness of the affinity, above 0

    def __post_init__(self) -> None:
        _check_shape("weight", self.weight, (len(self.class_names), None))
        _check_shape("keys", self.keys, (None, self.dim))
        _check_shape("labels", self.labels, (len(self.keys),))
        if not (0 <= self.alpha < math.inf and 0 < self.beta < math.inf):
            raise ValueError(
                f"alpha {self.alpha}, beta {self.beta}: expected alpha >= 0 and beta > 0"
            )
        super().__post_init__()

    @property
    def dim(self) -> int:
        """D, length of the embeddings that it takes."""
        return self.weight.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved, by field name."""
        return {"weight": self.weight, "keys": self.keys, "labels": self.labels}

    def _logits(self, image_emb: Tensor) -> Tensor:
        zero_shot = self.logit_scale * (image_emb @ self.weight.T)  # (N, K)
        affinity = torch.exp(-self.beta * (1 - image_emb @ self.keys.T))  # (N, M)
        values = F.one_hot(self.labels, len(self.class_names)).float()  # (M, K)
        return zero_shot + self.alpha * (affinity @ values)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    got = tuple(tensor.shape)
    fits = len(got) == len(shape) and all(
        s is None or s == g for s, g in zip(shape, got, strict=True)
    )
    if not fits:
        wanted = tuple("any" if s is None else s for s in shape)
        raise ValueError(f"{name}: got shape {got}; expected {wanted}")
