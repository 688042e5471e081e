"""Shots: the few labelled embeddings a classifier is fitted on, and the guard of the test split.

A few-shot result is worth what its split is worth. `Shots` therefore carry the name of their split
from the moment they are made, and `check_fit` is the one door into every method: it lets in a
training and a validation split that have nothing in common, and never a test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cliplab.classification.prompts import check_class_names
from cliplab.data import SPLITS
from cliplab.runtime import ArgumentError

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
        labels, groups = torch.as_tensor(self.labels).detach().cpu(), self.groups
        if labels.shape != (len(emb),) or (len(emb) and labels.dtype.is_floating_point):
            got = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels: got {got}; expected {len(emb)} whole numbers, one per row")
        wrong = (labels < 0) | (labels >= len(names))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"labels: row {row} has {int(labels[row])}; expected 0 to {len(names) - 1}, an "
                f"index of {', '.join(names)}"
            )
        if groups is not None and (isinstance(groups, str) or len(groups) != len(emb)):
            raise ValueError(f"groups: got {groups!r}; expected {len(emb)} names, one per row")
        if self.split not in SPLITS:
            raise ValueError(f"split: got {self.split!r}; expected one of {', '.join(SPLITS)}")
        object.__setattr__(self, "class_names", names)  # the only way into a frozen class
        object.__setattr__(self, "image_emb", emb)
        object.__setattr__(self, "labels", labels.to(torch.int64))
        object.__setattr__(self, "groups", None if groups is None else tuple(map(str, groups)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{self.split} shots: {len(self)} images of {', '.join(self.class_names)}>"

    @property
    def counts(self) -> Tensor:
        """Images of each class (K,)."""
        return self.labels.bincount(minlength=len(self.class_names))

    @property
    def dim(self) -> int:
        """D, length of an embedding."""
        return self.image_emb.shape[1]

    def subset(self, rows: Tensor) -> Shots:
        """Some of the images, by index or bool mask (N,); they stay in their split."""
        rows = torch.arange(len(self))[rows]
        groups = None if self.groups is None else tuple(self.groups[i] for i in rows.tolist())
        return Shots(self.image_emb[rows], self.labels[rows], self.class_names, self.split, groups)


def sample_shots(shots: Shots, per_class: int, *, seed: int) -> Shots:
    """`per_class` random images of each class; they stay in their split.

    With the same seed, fewer shots are a subset of more shots, so that a curve over their number
    adds pictures instead of exchanging them.

    Raises:
        ValueError: `per_class` below 1, or a class that has fewer images.
    """
    if per_class < 1:
        raise ArgumentError("per_class", f"got {per_class}; expected 1 or more")
    if (fewest := int(shots.counts.min())) < per_class:
        name = shots.class_names[int(shots.counts.argmin())]
        raise ValueError(
            f"class {name!r} has {fewest} images in {shots.split}; expected {per_class} or more: "
            "add pictures of it, or ask for fewer shots"
        )
    order = torch.randperm(len(shots), generator=torch.Generator().manual_seed(seed))
    kept = [order[shots.labels[order] == k][:per_class] for k in range(len(shots.class_names))]
    return shots.subset(torch.cat(kept))


def check_fit(train: Shots, val: Shots | None) -> None:
    """Let through what a method may be fitted on.

    Raises:
        ValueError: another split than "train" and "val", rows or groups that train and val share,
            a class without a training image, classes or dimensions that differ.
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
    if (val.class_names, val.dim) != (train.class_names, train.dim) or not len(val):
        raise ValueError(
            f"val: got {val!r}, {val.dim} dimensions; expected one image or more, and the classes "
            f"and dimensions of train, {train!r}, {train.dim} dimensions"
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
    return (row.tobytes() for row in (emb + 0.0).numpy())  # + 0.0: -0 and 0 differ in bytes


def check_unit_rows(rows: Tensor, dim: int | None = None, name: str = "image_emb") -> Tensor:
    """Embeddings as (N, D) float32 on the CPU; ValueError unless finite and of unit length."""
    if not isinstance(rows, Tensor) or rows.ndim != 2 or dim not in (None, rows.shape[1]):
        shape = tuple(getattr(rows, "shape", ())) or type(rows).__name__
        raise ValueError(
            f"{name}: got {shape}; expected a tensor (N, {dim or 'D'}): one row per image, of the "
            "encoder that the classifier is for"
        )
    emb = rows.detach().to("cpu", torch.float32)
    off = ((emb.norm(dim=1) - 1).abs() > _UNIT_TOLERANCE) | ~emb.isfinite().all(dim=1)  # (N,)
    if off.any():
        row = int(off.nonzero()[0])
        raise ValueError(
            f"{name}: row {row} has length {float(emb[row].norm()):.3f}; expected unit rows, all "
            "finite: use encoder.encode_image, or F.normalize(rows, dim=-1)"
        )
    return emb
