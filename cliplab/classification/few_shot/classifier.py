"""What a method learns from and what it makes: labelled embeddings, a classifier and its file.

A few-shot result is worth what its split is worth. `Shots` therefore carry the name of their split
from the moment they are made, and `check_fit` is the one door into every method: it lets in a
training and a validation split that have nothing in common, and never a test split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cliplab.classification.prompts import check_class_names
from cliplab.classification.zero_shot import Scores
from cliplab.data import SPLITS
from cliplab.encoders import Encoder
from cliplab.runtime import ArgumentError, atomic_write, unknown_name

_UNIT_TOLERANCE = 1e-3  # of the length of a row; bfloat16 encoders stay well below


@dataclass(frozen=True, eq=False)
class Shots:
    """N labelled embeddings of one split.

    Raises:
        ValueError: rows that are not finite or not of unit length, labels or groups that do not fit
            the rows, fewer than two class names, an unknown split.
    """

    image_emb: Tensor  # (N, D) float32 unit rows, on the CPU
    labels: Tensor  # (N,) int64, index of the class name
    class_names: tuple[str, ...]  # K
    split: str  # "train", "val" or "test"
    groups: tuple[str, ...] | None = None  # N; pictures of one group never straddle splits

    def __post_init__(self) -> None:
        names, emb = tuple(check_class_names(self.class_names)), check_unit_rows(self.image_emb)
        labels = torch.as_tensor(self.labels).cpu().long()
        groups = None if self.groups is None else tuple(map(str, self.groups))
        if labels.shape != (len(emb),) or not ((labels >= 0) & (labels < len(names))).all():
            raise ValueError(
                f"labels: got shape {tuple(labels.shape)}, values {labels.unique().tolist()}; "
                f"expected {len(emb)} from 0 to {len(names) - 1}, indices of {', '.join(names)}"
            )
        if groups is not None and len(groups) != len(emb):
            raise ValueError(f"groups: got {len(groups)}; expected {len(emb)}, one per row")
        if self.split not in SPLITS:
            raise ValueError(unknown_name("split", self.split, SPLITS))
        own = {"class_names": names, "image_emb": emb, "labels": labels, "groups": groups}
        for name, value in own.items():
            object.__setattr__(self, name, value)  # the only way into a frozen class

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> Tensor:
        """Images of each class (K,)."""
        return self.labels.bincount(minlength=len(self.class_names))

    def subset(self, rows: Tensor) -> Shots:
        """Some of the images, by index or bool mask (N,); they stay in their split."""
        rows = torch.arange(len(self))[rows]
        groups = None if self.groups is None else tuple(self.groups[i] for i in rows.tolist())
        return Shots(self.image_emb[rows], self.labels[rows], self.class_names, self.split, groups)


def sample_shots(shots: Shots, per_class: int, *, seed: int) -> Shots:
    """`per_class` random images of each class; they stay in their split.

    With the same seed, fewer shots are a subset of more shots, so that a curve over their number
    adds pictures instead of exchanging them. ValueError if a class has fewer images.
    """
    if (fewest := int(shots.counts.min())) < per_class:
        name = shots.class_names[int(shots.counts.argmin())]
        raise ArgumentError(
            "per_class",
            f"class {name!r} has {fewest} images in {shots.split}; expected {per_class} or more: "
            "add pictures of it, or ask for fewer",
        )
    order = torch.randperm(len(shots), generator=torch.Generator().manual_seed(seed))
    kept = [order[shots.labels[order] == k][:per_class] for k in range(len(shots.class_names))]
    return shots.subset(torch.cat(kept))


def check_fit(train: Shots, val: Shots | None) -> None:
    """Let through what a method may be fitted on.

    Raises:
        ValueError: another split than "train" and "val", rows or groups that train and val share,
            a class without a training image, a val of other classes.
    """
    for name, shots in (("train", train), ("val", val)):
        if shots is not None and shots.split != name:
            raise ValueError(
                f"{name}: got shots of the {shots.split} split; expected {name!r}: what a "
                "classifier was fitted or tuned on cannot test it"
            )
    if not train.counts.all():
        missing = [n for n, count in zip(train.class_names, train.counts, strict=True) if not count]
        raise ValueError(
            f"train: no image of {', '.join(map(repr, missing))}; expected one or more of each "
            "class: add some, or leave the class out"
        )
    if val is None:
        return
    if val.class_names != train.class_names:
        raise ValueError(
            f"val: got the classes {', '.join(val.class_names)}; expected those of train, "
            f"{', '.join(train.class_names)}"
        )
    seen = set(_row_bytes(train.image_emb))
    if shared := [i for i, row in enumerate(_row_bytes(val.image_emb)) if row in seen]:
        raise ValueError(
            f"val: {len(shared)} of {len(val)} rows, first row {shared[0]}, are also in train; "
            "expected none: the same picture twice, or a split that was not one"
        )
    if groups := sorted(set(train.groups or ()) & set(val.groups or ())):
        raise ValueError(
            f"val: the groups {', '.join(map(repr, groups[:3]))} are also in train; expected each "
            "group in one split: pictures of one animal are near-duplicates"
        )


def _row_bytes(emb: Tensor) -> Iterator[bytes]:
    return (row.tobytes() for row in emb.numpy())


def check_unit_rows(rows: Tensor, name: str = "image_emb") -> Tensor:
    """Embeddings as (N, D) float32 on the CPU; ValueError unless finite and of unit length."""
    emb = rows.detach().to("cpu", torch.float32)
    lengths = emb.norm(dim=-1)  # (N,); NaN or infinite where a row is not finite
    if emb.ndim != 2 or not ((lengths - 1).abs() <= _UNIT_TOLERANCE).all():
        raise ValueError(
            f"{name}: got shape {tuple(emb.shape)}, lengths from {lengths.min():.3f} to "
            f"{lengths.max():.3f}; expected (N, D) unit rows, one per image: use "
            "encoder.encode_image, or F.normalize(rows, dim=-1)"
        )
    return emb


# ---- the classifier, one kind for all methods ----------------------------------------------

FORMAT = 1  # of its safetensors file
_KEY = "cliplab classifier"  # of what the file's header says beside the weights


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
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
        """Unit rows (N, D) -> (N, K); ValueError for rows that are not of unit length."""
        emb = check_unit_rows(image_emb)
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
        """ValueError for another encoder than the one it was fitted with, if that is known."""
        own = self.encoder
        if own and own["fingerprint"] != encoder.fingerprint:
            raise ValueError(
                f"the classifier was made for the encoder {own['name']} "
                f"({own['fingerprint'][:12]}...); got {encoder.name} "
                f"({encoder.fingerprint[:12]}...): use that encoder, or fit again"
            )


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
        raise FileNotFoundError(f"{path}: no such file; expected one from `save_classifier`")
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
            "file of `save_classifier`: copy it again, fit again, or update"
        ) from error
