"""Fitted classifiers: unit embeddings in, logits and `Scores` out; and their files.

Two kinds serve all methods. A file is one safetensors file, whose header says what it holds and for
which encoder.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cliplab.classification.few_shot.shots import check_unit_rows
from cliplab.classification.zero_shot import Scores
from cliplab.encoders import Encoder
from cliplab.runtime import atomic_write, unknown_name

FORMAT = 1
_KEY = "cliplab classifier"


class EncoderStamp(NamedTuple):
    """Which encoder a classifier belongs to: embeddings of another one mean nothing to it."""

    name: str
    fingerprint: str  # of its weights and preprocessing


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(ABC):
    """N unit embeddings -> logits for K classes, and how it came to be what it is."""

    class_names: tuple[str, ...]
    logit_scale: float  # 1 / temperature of the encoder; what `Scores.gap` is divided by
    weight: Tensor  # (K, D)
    temperature: float = 1.0  # logits are divided by it; see TemperatureScaling
    choices: dict[str, Any] = field(default_factory=dict)  # method, its settings, chosen on what
    encoder: EncoderStamp | None = None
    learned: frozenset[str] = frozenset()  # SHA-256 of the files it learned from, if known

    def __post_init__(self) -> None:
        _check_shape("weight", self.weight, (len(self.class_names), None))
        for name in ("logit_scale", "temperature"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}: got {value}; expected a number above 0")
        for name, tensor in self.tensors().items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name}: has NaN or infinity; expected finite weights: fit again")

    @property
    def dim(self) -> int:
        """D, length of the embeddings that it takes."""
        return self.weight.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by field name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @abstractmethod
    def _logits(self, image_emb: Tensor) -> Tensor:
        """(N, D) -> (N, K), before the temperature."""

    def logits(self, image_emb: Tensor) -> Tensor:
        """Unit rows (N, D) -> (N, K).

        Raises:
            ValueError: another D, or rows that are not finite or not of unit length.
        """
        return self._logits(check_unit_rows(image_emb, self.dim)) / self.temperature

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
        return replace(self, encoder=EncoderStamp(encoder.name, encoder.fingerprint))

    def __repr__(self) -> str:
        method = self.choices.get("method", type(self).__name__)
        return f"<{method} classifier of {', '.join(self.class_names)}>"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LinearClassifier(Classifier):
    """logits = logit_scale * f W^T + b."""

    bias: Tensor | None = None  # (K,)

    def __post_init__(self) -> None:
        if self.bias is not None:
            _check_shape("bias", self.bias, (len(self.class_names),))
        super().__post_init__()

    def _logits(self, image_emb: Tensor) -> Tensor:
        logits = self.logit_scale * (image_emb @ self.weight.T)  # as Scores.from_cosine does it
        return logits if self.bias is None else logits + self.bias

    def scores(self, image_emb: Tensor) -> Scores:
        """Unit rows (N, D) -> `Scores`, with cosines where the classes are unit rows."""
        scores = super().scores(image_emb)
        unit = torch.allclose(self.weight.norm(dim=1), torch.ones(len(self.weight)), atol=1e-4)
        if self.bias is not None or not unit:
            return scores
        return replace(scores, cosine=check_unit_rows(image_emb, self.dim) @ self.weight.T)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CacheClassifier(Classifier):
    """logits = logit_scale * f W^T + alpha * exp(-beta (1 - f F^T)) L, the form of Tip-Adapter."""

    keys: Tensor  # F (M, D), one row per shot
    labels: Tensor  # (M,) int64; one-hot they are L (M, K)
    alpha: float  # weight of the cache, 0 or more
    beta: float  # sharpness of the affinity, above 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape("keys", self.keys, (None, self.dim))
        _check_shape("labels", self.labels, (len(self.keys),))
        if not (0 <= self.alpha < math.inf and 0 < self.beta < math.inf):
            raise ValueError(
                f"alpha {self.alpha}, beta {self.beta}: expected alpha >= 0 and beta > 0"
            )

    def _logits(self, image_emb: Tensor) -> Tensor:
        zero_shot = self.logit_scale * (image_emb @ self.weight.T)  # (N, K)
        affinity = torch.exp(-self.beta * (1 - image_emb @ self.keys.T))  # (N, M)
        values = F.one_hot(self.labels, len(self.class_names)).float()  # (M, K)
        return zero_shot + self.alpha * (affinity @ values)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    got = tuple(tensor.shape)
    if len(got) != len(shape) or any(s not in (None, g) for s, g in zip(shape, got, strict=True)):
        wanted = tuple("any" if s is None else s for s in shape)
        raise ValueError(f"{name}: got shape {got}; expected {wanted}")


# ---- files ---------------------------------------------------------------------------------

_KINDS: dict[str, type[Classifier]] = {"linear": LinearClassifier, "cache": CacheClassifier}
_WEIGHTS = ("weight", "bias", "keys", "labels")  # fields that are tensors, in the file's body


def save_classifier(
    classifier: Classifier, path: str | Path, *, encoder: Encoder | None = None
) -> None:
    """Write a classifier from `fit` to `path`, whole or not at all.

    Name and fingerprint of the encoder go into the file, so that `load_classifier` can refuse
    another; without an encoder those that the classifier already has, if any.

    Raises:
        ValueError: an encoder of another dimension.
        OSError: the file cannot be written.
    """
    if encoder is not None:
        classifier = classifier.stamped(encoder)
    stamp, tensors = classifier.encoder, classifier.tensors()
    kind = next(name for name, cls in _KINDS.items() if isinstance(classifier, cls))
    known = {f.name: getattr(classifier, f.name) for f in fields(classifier)}
    settings = {name: known[name] for name in known if name not in _WEIGHTS}
    header: dict[str, Any] = {"format": FORMAT, "kind": kind, **settings}
    header |= {"encoder": stamp and stamp._asdict(), "learned": sorted(classifier.learned)}
    text = json.dumps(header, ensure_ascii=False, allow_nan=False)
    rows = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(rows, metadata={_KEY: text}))


def load_classifier(path: str | Path, *, encoder: Encoder | None = None) -> Classifier:
    """The classifier that `save_classifier` wrote to `path`, compared with the encoder, if given.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, one of something else or of a newer cliplab, or a classifier of
            another encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one from save_classifier")
    header, tensors = _read(path)
    try:
        kind = header.pop("kind")
        if kind not in _KINDS:
            raise ValueError(unknown_name("kind", kind, _KINDS))
        header["class_names"] = tuple(header["class_names"])
        header["learned"] = frozenset(header.get("learned", ()))  # older files do not say
        header["encoder"] = header["encoder"] and EncoderStamp(**header["encoder"])
        classifier = _KINDS[kind](**header, **tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: its parts do not make a classifier ({error}); save it again"
        ) from error
    if encoder is not None:
        stamp = classifier.encoder or classifier.stamped(encoder).encoder  # compares dimensions
        if stamp and stamp.fingerprint != encoder.fingerprint:
            raise ValueError(
                f"{path}: made for the encoder {stamp.name} ({stamp.fingerprint[:12]}...); got "
                f"{encoder.name} ({encoder.fingerprint[:12]}...): use that encoder, or fit again"
            )
    return classifier


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and tensors of a file that `save_classifier` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged, or no safetensors file ({error}); save or copy it again"
        ) from error
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
        raise ValueError(
            f"{path}: a safetensors file of something else, or of another version of cliplab; "
            f"expected format {FORMAT} of save_classifier: fit again, or update"
        )
    return header, tensors
