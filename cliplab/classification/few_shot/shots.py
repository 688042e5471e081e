"""Shots: the few labelled embeddings a classifier is fitted on, and the guard of the test split.

A few-shot result is worth what its split is worth. `Shots` therefore carry the name of their split
from the moment they are made, and `check_fit` is the one door into every method: it lets in a
training and a validation split that have nothing in common, and never a test split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cliplab.classification.zero_shot import check_class_names

SPLITS = ("train", "val", "test")

_UNIT_TOLERANCE = 1e-3  # of the length of a row; bfloat16 encoders stay well below


@dataclass(frozen=True, eq=False)
class Shots:
    """N labelled embeddings of one split.

    While `Shots` of the test split exist, no method accepts any of their rows, under whatever
    split they are offered: a copy that was given another label for its split is refused too.

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
        names, emb = tuple(check_class_names(self.class_names)), check_embeddings(self.image_emb)
        checked = {
            "class_names": names,
            "image_emb": emb,
            "labels": _checked_labels(self.labels, len(emb), names),
            "groups": _checked_groups(self.groups, len(emb)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the only way into a frozen class
        if self.split not in SPLITS:
            raise ValueError(f"split: got {self.split!r}; expected one of {', '.join(SPLITS)}")
        if self.split == "test":
            _TEST_ROWS[self] = frozenset(_row_keys(self.image_emb))

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


# Rows of the test splits that are alive; an entry goes when its Shots go.
_TEST_ROWS: WeakKeyDictionary[Shots, frozenset[int]] = WeakKeyDictionary()


def sample_shots(shots: Shots, per_class: int, *, seed: int) -> Shots:
    """`per_class` random images of each class; they stay in their split.

    With the same seed, fewer shots are a subset of more shots, so that a curve over their number
    adds pictures instead of exchanging them.

    Args:
        shots: what to draw from.
        per_class: 1 or more.
        seed: of a generator of its own.

    Raises:
        ValueError: a class has fewer images.
    """
    if per_class < 1:
        raise ValueError(f"per_class: got {per_class}; expected 1 or more")
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
        ValueError: another split than "train" and "val", rows of a test split that is alive, rows
            or groups that train and val share, a class without a training image, classes or
            dimensions that differ.
    """
    _check_split("train", train)
    if not train.counts.all():
        missing = [n for n, count in zip(train.class_names, train.counts, strict=True) if not count]
        raise ValueError(
            f"train: no image of {', '.join(map(repr, missing))}; expected one or more of each "
            "class: add some, or leave the class out"
        )
    if val is None:
        return
    if val is train:
        raise ValueError("val: got the training shots; expected others, or None: see sample_shots")
    _check_split("val", val)
    if val.class_names != train.class_names:
        raise ValueError(
            f"val: has the classes {val.class_names}; expected those of train, in their order: "
            f"{train.class_names}"
        )
    if val.dim != train.dim:
        raise ValueError(f"val: has {val.dim} dimensions; expected {train.dim}, as train")
    if not len(val):
        raise ValueError("val: got no image; expected some, or val=None")
    _check_apart(train, val)


def _check_split(name: str, shots: Shots) -> None:
    if not isinstance(shots, Shots):
        raise ValueError(f"{name}: got a {type(shots).__name__}; expected Shots")
    if shots.split == "test":
        raise ValueError(
            f"{name}: got shots of the test split; expected {name!r}: what a classifier was fitted "
            "or tuned on cannot test it"
        )
    if shots.split != name:
        raise ValueError(
            f"{name}: got shots of the split {shots.split!r}; expected {name!r}: give each split "
            "its place"
        )
    keys = _row_keys(shots.image_emb)
    for test, rows in list(_TEST_ROWS.items()):
        if leaked := [i for i, key in enumerate(keys) if key in rows]:
            raise ValueError(
                f"{name}: {len(leaked)} of {len(shots)} rows, first row {leaked[0]}, are also in "
                f"{test!r}; expected none: a classifier must not see what will test it. If that "
                "test split belongs to another experiment, delete it first (del)"
            )


def _check_apart(train: Shots, val: Shots) -> None:
    seen = set(_row_keys(train.image_emb))
    if shared := [i for i, key in enumerate(_row_keys(val.image_emb)) if key in seen]:
        raise ValueError(
            f"val: {len(shared)} of {len(val)} rows, first row {shared[0]}, are also in train; "
            "expected none: the same picture twice, or a split that was not one"
        )
    if shared := sorted(set(train.groups or ()) & set(val.groups or ())):
        raise ValueError(
            f"val: the groups {', '.join(map(repr, shared[:3]))} are also in train; expected each "
            "group in one split: pictures of one animal are near-duplicates"
        )


def check_embeddings(image_emb: Tensor, dim: int | None = None) -> Tensor:
    """The embeddings as (N, D) float32 on the CPU; ValueError unless finite, of unit length."""
    if not isinstance(image_emb, Tensor) or image_emb.ndim != 2:
        shape = tuple(getattr(image_emb, "shape", ())) or type(image_emb).__name__
        raise ValueError(f"image_emb: got {shape}; expected a tensor (N, D): one row per image")
    if dim is not None and image_emb.shape[1] != dim:
        raise ValueError(
            f"image_emb: got {image_emb.shape[1]} dimensions; expected {dim}: use the encoder that "
            "the classifier was fitted with"
        )
    emb = image_emb.detach().to("cpu", torch.float32)
    wrong = ~emb.isfinite().all(dim=1)  # (N,)
    if wrong.any():
        raise ValueError(
            f"image_emb: {int(wrong.sum())} of {len(emb)} rows are not finite, first row "
            f"{int(wrong.nonzero()[0])}; expected numbers: look at those pictures"
        )
    length = emb.norm(dim=1)
    if ((length - 1).abs() > _UNIT_TOLERANCE).any():
        row = int((length - 1).abs().argmax())
        raise ValueError(
            f"image_emb: row {row} has length {float(length[row]):.3f}; expected unit rows: use "
            "encoder.encode_image, or F.normalize(rows, dim=-1)"
        )
    return emb


def _checked_labels(labels: Tensor | Sequence[int], n: int, names: Sequence[str]) -> Tensor:
    values = torch.as_tensor(labels)
    if values.shape != (n,):
        raise ValueError(f"labels: got shape {tuple(values.shape)}; expected ({n},), one per row")
    if n and (values.is_floating_point() or values.dtype == torch.bool):
        raise ValueError(f"labels: got {values.dtype}; expected whole numbers")
    values = values.detach().to("cpu", torch.int64)
    wrong = (values < 0) | (values >= len(names))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels: row {row} has {int(values[row])}; expected 0 to {len(names) - 1}, an index "
            f"of {', '.join(names)}"
        )
    return values


def _checked_groups(groups: Sequence[str] | None, n: int) -> tuple[str, ...] | None:
    if groups is None:
        return None
    if isinstance(groups, str) or len(groups) != n:
        got = repr(groups) if isinstance(groups, str) else len(groups)
        raise ValueError(f"groups: got {got}; expected a list of {n}, one name per row, or None")
    return tuple(map(str, groups))


def _row_keys(emb: Tensor) -> Iterator[int]:
    """One key of 64 bits per row, equal for equal rows."""
    return (hash(row.tobytes()) for row in (emb + 0.0).numpy())  # + 0.0: -0 and 0 differ in bytes
