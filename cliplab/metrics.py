"""Numbers to report, each with the interval that its sample size allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_Z95 = 1.959963984540054


class Rate(NamedTuple):
    """A share of n trials with its 95 % Wilson interval, as in "0.970 (0.962-0.977, n=2000)"."""

    value: float  # 0 to 1
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f}, n={self.n})"

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON, rounded to 4 decimals."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.n,
        }


def wilson_interval(k: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """Where the true rate lies when k of n trials succeeded: (low, high), 0 to 1.

    Args:
        k: successes, 0 to n.
        n: trials, at least 1.
        z: half-width in standard errors; 1.96 gives 95 %.

    Raises:
        ValueError: k not in 0 to n, or no trials.

    Source: E. B. Wilson, JASA 22 (1927), 209-212, equation 5; keeps inside [0, 1] and is honest for
        small n, where the textbook mean +- z * s / sqrt(n) is not.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"wilson_interval: got k={k}, n={n}; expected n >= 1 and 0 <= k <= n")
    rate, squared = k / n, z * z
    centre = (rate + squared / (2 * n)) / (1 + squared / n)
    half = z / (1 + squared / n) * math.sqrt(rate * (1 - rate) / n + squared / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(hits: ArrayLike | Tensor) -> Rate:
    """Share of true entries of a (N,) bool array, with its interval.

    Raises:
        ValueError: an empty array.
    """
    flags = np.asarray(hits, dtype=bool).ravel()
    low, high = wilson_interval(int(flags.sum()), flags.size)
    return Rate(float(flags.mean()), low, high, flags.size)


def accuracy(predicted: ArrayLike | Tensor, true: ArrayLike | Tensor) -> Rate:
    """Share of equal entries of two (N,) label arrays.

    Raises:
        ValueError: lengths differ, or no entries.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape:
        raise ValueError(f"{predicted.shape} predictions but {true.shape} true labels")
    return rate(predicted == true)


def confusion(predicted: ArrayLike, true: ArrayLike, names: Sequence[str]) -> NDArray[np.int64]:
    """Counts (K, K): row = true class, column = predicted class; labels are indices into names."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(np.asarray(true), np.asarray(predicted), labels=range(len(names)))


def recall_at_k(similarity: Tensor, match: Tensor, k: int = 1) -> Rate:
    """Share of rows with a match among their k most similar columns.

    Args:
        similarity: (N, M) scores, higher is closer.
        match: (N, M) bool, True where the column is a right answer for the row.
        k: 1 to M.

    Raises:
        ValueError: shapes differ, or k out of range.
    """
    if similarity.shape != match.shape or not 1 <= k <= similarity.shape[1]:
        raise ValueError(
            f"recall_at_k: similarity {tuple(similarity.shape)}, match {tuple(match.shape)}, k={k};"
            " expected equal shapes (N, M) and k from 1 to M"
        )
    top = similarity.topk(k, dim=1).indices  # (N, k)
    return rate(torch.gather(match.bool(), 1, top).any(dim=1).cpu())


def chance_recall(candidates: int, k: int = 1) -> float:
    """Recall@k of guessing among `candidates` with one right answer."""
    return min(k / candidates, 1.0)
