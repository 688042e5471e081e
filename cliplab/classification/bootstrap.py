"""The bootstrap: an interval for any statistic, of pictures or of whole animals.

The Wilson interval of `metrics` is for shares of independent trials, this is for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_Z = NormalDist().inv_cdf(0.975)


def bootstrap_interval(
    values: ArrayLike | Tensor,
    *,
    statistic: Callable[[NDArray], float] = np.mean,
    samples: int = 2000,
    seed: int = 0,
    groups: Sequence[object] | None = None,
    method: str = "percentile",
) -> tuple[float, float]:
    """95 % bootstrap interval of any statistic of N rows: (low, high).

    Args:
        values: (N,) or (N, ...) rows; what is paired, as the hits of two models, goes in one row.
        statistic: rows -> number.
        samples: resamplings.
        seed: of their draw.
        groups: one per row, such as the animal; whole groups are then drawn, since pictures of one
            animal resemble each other and are worth less than as many animals.
        method: "percentile", or "bca", corrected for bias and skew at N more evaluations.

    Raises:
        ValueError: fewer than two rows (or groups), NaN, groups of another number, another method.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"method: got {method!r}; expected 'percentile' or 'bca'")
    if samples < 1:
        raise ValueError(f"samples: got {samples}; expected 1 or more, 2000 for steady ends")
    rows = np.asarray(values)
    units = _units(rows, groups)  # U arrays of row indices
    picks = np.random.default_rng(seed).integers(len(units), size=(samples, len(units)))  # (S, U)
    spread = _statistics(rows, units, picks, statistic)  # (S,)
    ends = (0.025, 0.975)
    if method == "bca":
        rest = [np.delete(np.arange(len(units)), u) for u in range(len(units))]
        jackknife = _statistics(rows, units, rest, statistic)  # (U,)
        ends = _bca_ends(spread, float(statistic(rows)), jackknife)
    low, high = np.quantile(spread, ends)
    return float(low), float(high)


Units = NDArray[np.int64] | list[NDArray[np.int64]]  # row indices, or those of each group


def _units(rows: NDArray, groups: Sequence[object] | None) -> Units:
    """What is drawn as one: rows, or the rows of each group; without a group a row is its own."""
    if rows.ndim == 0 or np.isnan(rows.astype(np.float64)).any():
        raise ValueError("values: got a single number or NaN; expected N rows of numbers")
    units: Units = np.arange(len(rows))
    if groups is not None:
        if len(groups) != len(rows):
            raise ValueError(f"groups: got {len(groups)}; expected one per row, {len(rows)}")
        members: dict[object, list[int]] = {}
        for i, group in enumerate(groups):
            members.setdefault((i,) if group is None else group, []).append(i)
        units = [np.array(rows_of) for rows_of in members.values()]
    if len(units) < 2:
        kind = "rows" if groups is None else "groups"
        raise ValueError(
            f"values: got {len(units)} {kind}; expected at least two, since how much one differs "
            "from the next cannot be seen in one: for a share use wilson_interval"
        )
    return units


def _statistics(
    rows: NDArray,
    units: Units,
    picks: Sequence[NDArray[np.int64]] | NDArray[np.int64],
    statistic: Callable[[NDArray], float],
) -> NDArray[np.float64]:
    """The statistic of the rows of each pick of units; ValueError where it is NaN."""
    if isinstance(units, np.ndarray):
        found = np.array([statistic(rows[pick]) for pick in picks])
    else:
        joined = (np.concatenate([units[u] for u in pick]) for pick in picks)
        found = np.array([statistic(rows[pick]) for pick in joined])
    if missing := int(np.isnan(found).sum()):
        raise ValueError(
            f"statistic: gave NaN in {missing} of {len(found)} resamplings; expected numbers: it "
            "may divide by the size of a class that was not drawn"
        )
    return found


def _bca_ends(
    spread: NDArray[np.float64], observed: float, jackknife: NDArray[np.float64]
) -> tuple[float, float]:
    """Quantiles of the resampled statistics between which 95 % lie once bias and skew are out."""
    normal = NormalDist()
    below = ((spread < observed).mean() + (spread <= observed).mean()) / 2  # ties count half
    if not 0 < below < 1:
        return 0.025, 0.975  # all resamplings on one side: nothing to correct with
    lean = jackknife.mean() - jackknife
    power = (lean**2).sum() ** 1.5
    skew = float((lean**3).sum() / (6 * power)) if power > 0 else 0.0
    bias = normal.inv_cdf(float(below))
    shifted = [bias + z for z in (-_Z, _Z)]
    low, high = (normal.cdf(bias + z / (1 - skew * z)) for z in shifted)
    return low, high
