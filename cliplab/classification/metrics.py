"""Numbers to report, each with the interval that its sample size allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_Z95 = 1.959963984540054  # standard errors


class Rate(NamedTuple):
    """A share of n trials with its 95 % Wilson interval, as in "0.970 (0.962-0.977, n=2000)"."""

    value: float  # 0 to 1
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f}, n={self.n})"

    def against(self, other: Rate, *, predicted: str = "") -> str:
        """ "higher", "lower" or, where intervals overlap, "not decided"; "holds" as predicted."""
        said = "higher" if self.low > other.high else "lower" if self.high < other.low else ""
        verdict = ("holds" if said == predicted else "fails") if predicted else said
        return verdict if said else "not decided"

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON, rounded to 4 decimals."""
        return {name: round(value, 4) for name, value in self._asdict().items()}


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Where the true rate lies when k of n trials succeeded: (low, high), 0 to 1, 95 %.

    scipy's binomtest gives the same, but takes a second to import. ValueError unless 0 <= k <= n
    and n >= 1.

    Source: E. B. Wilson, JASA 22 (1927), 209-212, equation 5; keeps inside [0, 1] and is honest for
        small n, where the textbook mean +- z * s / sqrt(n) is not.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"wilson_interval: got k={k}, n={n}; expected n >= 1 and 0 <= k <= n")
    rate, squared = k / n, _Z95 * _Z95
    centre = (rate + squared / (2 * n)) / (1 + squared / n)
    half = _Z95 / (1 + squared / n) * math.sqrt(rate * (1 - rate) / n + squared / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(hits: ArrayLike | Tensor) -> Rate:
    """Share of true entries of a (N,) bool array, with its interval; ValueError if it is empty."""
    flags = np.asarray(hits, dtype=bool).ravel()
    low, high = wilson_interval(int(flags.sum()), flags.size)
    return Rate(float(flags.mean()), low, high, flags.size)


def accuracy(predicted: ArrayLike | Tensor, true: ArrayLike | Tensor) -> Rate:
    """Share of equal entries of two (N,) label arrays; ValueError if lengths differ or are 0."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    if predicted.shape != true.shape:
        raise ValueError(f"{predicted.shape} predictions but {true.shape} true labels")
    return rate(predicted == true)


def confusion(predicted: ArrayLike, true: ArrayLike, names: Sequence[str]) -> NDArray[np.int64]:
    """Counts (K, K): row = true class, column = predicted class; labels are indices into names."""
    k, rows, columns = len(names), np.asarray(true), np.asarray(predicted)
    if rows.size and not 0 <= rows.min() <= rows.max() < k:
        raise ValueError(f"true: expected class indices from 0 to {k - 1}")
    # counted here, since loading scikit-learn takes seconds
    return np.bincount(k * rows + columns, minlength=k * k).reshape(k, k)


def recall_per_class(
    predicted: ArrayLike | Tensor, true: ArrayLike | Tensor, names: Sequence[str]
) -> dict[str, Rate]:
    """Share of each class's images that were found; a class without images is left out."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    return {
        name: rate(predicted[true == k] == k) for k, name in enumerate(names) if (true == k).any()
    }


def recall_at_k(similarity: Tensor, match: Tensor, k: int = 1) -> Rate:
    """Share of rows of similarity (N, M) with a match (N, M) among their k highest columns."""
    top = similarity.topk(k, dim=1).indices  # (N, k)
    return rate(torch.gather(match.bool(), 1, top).any(dim=1).cpu())


def chance_recall(candidates: int) -> float:
    """Recall@1 of guessing among `candidates` with one right answer."""
    return 1 / candidates


# ---- are the probabilities right? --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often answers given with a certain confidence were right, bin by bin."""

    confidence: NDArray[np.float64]  # (bins,) mean top probability; NaN where a bin is empty
    accuracy: NDArray[np.float64]  # (bins,) share right; NaN where a bin is empty
    count: NDArray[np.int64]  # (bins,) images
    edges: NDArray[np.float64]  # (bins + 1,) from 0 to 1; a bin holds its upper edge

    @property
    def error(self) -> float:
        """Expected calibration error: |accuracy - confidence| weighted by the counts, 0 to 1."""
        full = self.count > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float((gaps * self.count[full]).sum() / self.count.sum())

    @property
    def intervals(self) -> NDArray[np.float64]:
        """Wilson intervals of the accuracies (bins, 2); NaN where a bin is empty."""
        hits = np.round(np.nan_to_num(self.accuracy) * self.count).astype(int)
        empty = (math.nan, math.nan)
        pairs = zip(hits.tolist(), self.count.tolist(), strict=True)
        return np.array([wilson_interval(k, n) if n else empty for k, n in pairs])


def reliability(
    probability: ArrayLike | Tensor, true: ArrayLike | Tensor, *, bins: int = 15
) -> Reliability:
    """Top probability (N, K) against accuracy, true (N,), in bins of equal width.

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599, section 2.
    """
    shares, labels = _checked(probability, true)
    top, hits = shares.max(axis=1), shares.argmax(axis=1) == labels  # (N,)
    return binned(top, hits, bins)


def binned(top: NDArray[np.float64], hits: NDArray[np.bool_], bins: int) -> Reliability:
    """Top probabilities (N,) and whether they were right (N,), in bins -> `Reliability`."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], top)  # (N,) the first bin whose upper edge is not below
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of the empty bins is the NaN that we promise
        confidence = np.bincount(place, weights=top, minlength=bins) / count
        right = np.bincount(place, weights=hits, minlength=bins) / count
    return Reliability(confidence, right, count, edges)


def expected_calibration_error(
    probability: ArrayLike | Tensor, true: ArrayLike | Tensor, *, bins: int = 15
) -> float:
    """`Reliability.error` of the arguments of `reliability`; arXiv:1706.04599, equation 3.

    Few images per bin make it large even for a perfect model: compare with `error_by_luck`.
    """
    return reliability(probability, true, bins=bins).error


def error_by_luck(probability: ArrayLike | Tensor, *, bins: int = 15) -> float:
    """The calibration error that perfect probabilities (N, K) would exceed once in twenty samples.

    Whether each top class is right is drawn with the probability it claims, 500 times; only an
    error above this says that the probabilities are wrong.

    Source: J. Broecker, L. A. Smith, Weather and Forecasting 22 (2007), 651-661: "consistency
        resampling", there for the bars of the reliability plot.
    """
    top = np.asarray(probability, dtype=np.float64).max(axis=1)  # (N,)
    draw = np.random.default_rng(0)
    errors = [binned(top, draw.random(len(top)) < top, bins).error for _ in range(500)]
    return float(np.quantile(errors, 0.95))


def brier_score(probability: ArrayLike | Tensor, true: ArrayLike | Tensor) -> float:
    """Mean squared distance of the probabilities (N, K) from the truth, summed over classes: 0-2.

    Source: G. W. Brier, Monthly Weather Review 78 (1950), 1-3; for two classes it is twice what
        scikit-learn calls by that name.
    """
    shares, labels = _checked(probability, true)
    truth = np.eye(shares.shape[1])[labels]  # (N, K)
    return float(((shares - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(probability: ArrayLike | Tensor, true: ArrayLike | Tensor) -> float:
    """Mean of -log of the true class's probability, in nats; infinite if one of them is 0."""
    shares, labels = _checked(probability, true)
    with np.errstate(divide="ignore"):  # scikit-learn's log_loss would clip the 0
        return float(-np.log(shares[np.arange(len(labels)), labels]).mean())


def _checked(
    probability: ArrayLike | Tensor, true: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (N, K) and labels (N,) as arrays; ValueError for logits, or other lengths."""
    shares, labels = np.asarray(probability, dtype=np.float64), np.asarray(true)
    if labels.shape != shares.shape[:1]:
        raise ValueError(f"{shares.shape} probabilities but {labels.shape} true labels")
    wrong = (shares < 0).any(axis=1) | ~np.isclose(shares.sum(axis=1), 1, atol=1e-3)  # (N,)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"probability: row {row} is {shares[row].tolist()}; expected shares from 0 to 1 that "
            "sum to 1: give Scores.probability, not logits"
        )
    return shares, labels.astype(int)


# ---- an interval for any statistic -------------------------------------------------------------


def bootstrap_interval(
    values: ArrayLike | Tensor,
    *,
    statistic: Callable[[NDArray], float] = np.mean,
    samples: int = 2000,
    seed: int = 0,
    groups: Sequence[object] | None = None,
) -> tuple[float, float]:
    """95 % bootstrap interval (percentiles) of any statistic of N rows: (low, high).

    Wilson's interval is for shares of independent trials, this is for the rest. scipy's bootstrap
    knows no groups.

    Args:
        values: (N,) or (N, ...) rows; what is paired, as the hits of two models, goes in one row.
        statistic: rows -> number.
        groups: one per row, such as the animal; whole groups are then drawn, since pictures of one
            animal resemble each other and are worth less than as many animals. None: its own.

    Raises:
        ValueError: fewer than two rows (or groups).

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    rows, members = np.asarray(values), dict[object, list[int]]()
    for i, group in zip(range(len(rows)), groups or [None] * len(rows), strict=True):
        members.setdefault((i,) if group is None else group, []).append(i)
    units = [np.array(rows_of) for rows_of in members.values()]
    if len(units) < 2:
        raise ValueError(
            f"values: got {len(units)} row or group; expected at least two, since how much one "
            "differs from the next cannot be seen in one: for a share use wilson_interval"
        )
    picks = np.random.default_rng(seed).integers(len(units), size=(samples, len(units)))
    alone = len(units) == len(rows)
    drawn = picks if alone else (np.concatenate([units[u] for u in p]) for p in picks)
    low, high = np.quantile([statistic(rows[which]) for which in drawn], (0.025, 0.975))
    return float(low), float(high)
