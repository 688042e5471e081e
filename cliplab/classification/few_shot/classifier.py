"""A fitted classifier: unit embeddings in, logits and `Scores` out; and its file.

One kind serves all methods. A file is one safetensors file, whose header says what it holds and
for which encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cliplab.classification.few_shot.shots import check_unit_rows
from cliplab.classification.zero_shot import Scores
from cliplab.encoders import Encoder
from cliplab.runtime import atomic_write

FORMAT = 1
_KEY = "cliplab classifier"


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier:
    """N unit embeddings -> logits for K classes, and how it came to be what it is.

    logits = (logit_scale * f W^T + b + alpha * exp(-beta (1 - f F^T)) L) / temperature: linear, and
    with keys the form of Tip-Adapter.
    """

    class_names: tuple[str, ...]
    logit_scale: float  # 1 / temperature of the encoder; what `Scores.gap` is divided by
    weight: Tensor  # W (K, D)
    bias: Tensor | None = None  # b (K,)
    keys: Tensor | None = None  # F (M, D), one row per shot
    labels: Tensor | None = None  # (M,) int64; one-hot they are L (M, K)
    alpha: float = 0.0  # weight of the keys, 0 or more
    beta: float = 1.0  # sharpness of the affinity, above 0
    temperature: float = 1.0  # see TemperatureScaling
    choices: dict[str, Any] = field(default_factory=dict)  # method, its settings, chosen on what
    encoder: dict[str, str] | None = None  # name and fingerprint of the one it was fitted with
    learned: tuple[str, ...] = ()  # SHA-256 of the files it learned from, if known

    def __post_init__(self) -> None:
        if len(self.weight) != len(self.class_names):
            raise ValueError(f"{len(self.weight)} rows for {len(self.class_names)} classes")
        if wrong := [name for name, x in self.tensors().items() if not x.isfinite().all()]:
            raise ValueError(f"{wrong[0]}: has NaN or infinity; expected finite weights: fit again")

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by field name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def logits(self, image_emb: Tensor) -> Tensor:
        """Unit rows (N, D) -> (N, K).

        Raises:
            ValueError: another D, or rows that are not finite or not of unit length.
        """
        emb = check_unit_rows(image_emb)
        if emb.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"image_emb: got shape {tuple(emb.shape)}; expected (N, {self.weight.shape[1]}), "
                "of the encoder that the classifier is for"
            )
        logits = self.logit_scale * (emb @ self.weight.T)  # as Scores.from_cosine does it
        if self.bias is not None:
            logits = logits + self.bias
        if self.keys is not None and self.labels is not None:
            affinity = (-self.beta * (1 - emb @ self.keys.T)).exp()  # (N, M)
            values = F.one_hot(self.labels, len(self.class_names)).float()  # (M, K)
            logits = logits + self.alpha * (affinity @ values)
        return logits / self.temperature

    def scores(self, image_emb: Tensor) -> Scores:
        """Unit rows (N, D) -> `Scores`; ValueError as `logits`."""
        scale = self.logit_scale / self.temperature
        return Scores.from_logits(self.class_names, self.logits(image_emb), logit_scale=scale)

    def check_encoder(self, encoder: Encoder) -> None:
        """ValueError for another encoder than the one it was fitted with, as far as that is known.

        Embeddings of another one mean nothing to it.
        """
        own = self.encoder
        if own and own["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"the classifier was made for the encoder {own['name']} "
                f"({own['fingerprint'][:12]}...); got {encoder.name} "
                f"({encoder.fingerprint[:12]}...): use that encoder, or fit again"
            )

    def __repr__(self) -> str:
        return f"<{self.choices.get('method')} classifier of {', '.join(self.class_names)}>"


# ---- files ---------------------------------------------------------------------------------


def save_classifier(classifier: Classifier, path: str | Path) -> None:
    """Write a classifier from `fit` to `path`, whole or not at all; OSError where it cannot be."""
    tensors = classifier.tensors()
    known = {f.name: getattr(classifier, f.name) for f in fields(classifier)}
    others = {k: v for k, v in known.items() if k not in tensors and v is not None}
    text = json.dumps({"format": FORMAT} | others, ensure_ascii=False, allow_nan=False)
    rows = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(rows, metadata={_KEY: text}))


def load_classifier(path: str | Path) -> Classifier:
    """The classifier that `save_classifier` wrote to `path`.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, or one of something else or of a newer cliplab.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one from save_classifier")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header.pop("kind", None)  # of older files
        if header.pop("format", None) != FORMAT:
            raise ValueError(f"no classifier of format {FORMAT}")
        header |= {name: tuple(header.get(name, ())) for name in ("class_names", "learned")}
        return Classifier(**header, **tensors)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged, or no classifier of this version of cliplab ({error}); expected a "
            "file of save_classifier: copy it again, fit again, or update"
        ) from error
