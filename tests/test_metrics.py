"""Metrics: closed forms, agreement with scikit-learn and scipy, and refusals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from cliplab.classification import metrics
from cliplab.classification.metrics import (
    bootstrap_interval,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)


def answers(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities (n, k), and labels that follow them about half of the time."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(k, 0.6), n)
    likely = shares.argmax(axis=1)
    return shares, np.where(rng.random(n) < 0.5, likely, rng.integers(0, k, n))


def test_one_of_three_says_nearly_nothing() -> None:
    low, high = metrics.wilson_interval(1, 3)  # of the seed notes
    assert (round(low, 2), round(high, 2)) == (0.06, 0.79)


@pytest.mark.parametrize(
    ("hits", "others", "said"),
    [(90, 50, "higher"), (50, 90, "lower"), (55, 50, "not decided"), (50, 50, "not decided")],
)
def test_rates_are_told_apart_where_their_intervals_part(hits: int, others: int, said: str) -> None:
    one, other = (metrics.rate([True] * k + [False] * (100 - k)) for k in (hits, others))
    assert one.against(other) == said
    verdict = {"higher": "holds", "lower": "fails"}.get(said, said)
    assert one.against(other, predicted="higher") == verdict
    assert other.against(one, predicted="lower") == verdict


def test_a_class_without_images_has_no_recall() -> None:
    found = metrics.recall_per_class([0, 1, 1], [0, 0, 1], ["a", "b", "c"])
    assert {name: rate.value for name, rate in found.items()} == {"a": 0.5, "b": 1.0}


# ---- calibration ------------------------------------------------------------------------------


def test_the_error_is_weighted_by_the_images_of_a_bin() -> None:
    shares = np.tile([0.75, 0.25], (4, 1))
    for true, expected in (([0, 0, 0, 1], 0), ([1] * 4, 0.75), ([0] * 4, 0.25)):
        assert expected_calibration_error(shares, true) == pytest.approx(expected)
    shares = torch.tensor([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    # three at 0.9 of which two are right, one at 0.6 that is wrong
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * 0.6
    found = expected_calibration_error(shares, torch.tensor([0, 0, 1, 1]), bins=10)
    assert found == pytest.approx(expected)


def test_bins_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    top = rng.uniform(0.5, 1, 500)  # two classes: the top one has at least half
    hits = rng.random(500) < top
    bins = reliability(np.stack([top, 1 - top], axis=1), np.where(hits, 0, 1), bins=10)
    full = bins.count > 0
    right, confidence = calibration_curve(hits, top, n_bins=10)
    np.testing.assert_allclose(bins.accuracy[full], right)
    np.testing.assert_allclose(bins.confidence[full], confidence)
    assert bins.count.sum() == 500
    assert np.isnan(bins.accuracy[~full]).all()


def test_a_bin_holds_its_upper_edge_and_has_wilsons_interval() -> None:
    bins = reliability([[1.0, 0.0], [0.5, 0.5]], [0, 0], bins=2)  # a tie goes to the first class
    assert bins.count.tolist() == [1, 1]
    assert bins.edges.tolist() == [0, 0.5, 1]
    assert bins.accuracy.tolist() == [1, 1]
    bins = reliability([[0.9, 0.1]] * 3, [0, 1, 1], bins=2)
    assert tuple(bins.intervals[1]) == pytest.approx(metrics.wilson_interval(1, 3))
    assert np.isnan(bins.intervals[0]).all()


def test_luck_alone_makes_an_error_that_shrinks_with_n() -> None:
    few, many = (np.tile([0.7, 0.3], (n, 1)) for n in (20, 2000))
    assert metrics.error_by_luck(few) == metrics.error_by_luck(few)
    assert metrics.error_by_luck(few) > 3 * metrics.error_by_luck(many)
    assert metrics.error_by_luck(many) < 0.03


def test_scores_agree_with_scikit_learn() -> None:
    shares, true = answers(300, 4)
    assert negative_log_likelihood(shares, true) == pytest.approx(log_loss(true, shares))
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf
    two, true = answers(300, 2)
    assert brier_score(two, true) == pytest.approx(2 * brier_score_loss(true, two[:, 1]))


@pytest.mark.parametrize(
    ("shares", "true", "message"),
    [
        ([[0.5, 0.6]], [0], r"row 0 is \[0.5, 0.6\]; expected shares from 0 to 1 that sum to 1"),
        ([[1.2, -0.2]], [0], "give Scores.probability, not logits"),
        ([[0.5, math.nan]], [0], "row 0"),
        ([[0.5, 0.5]], [0, 1], r"\(1, 2\) probabilities but \(2,\) true labels"),
    ],
)
def test_what_is_no_probability_is_refused(shares: object, true: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(shares, true)


# ---- bootstrap --------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [np.mean, np.std])  # the latter is biased
def test_intervals_agree_with_scipy(statistic: Callable) -> None:
    values = np.random.default_rng(7).exponential(1, 40)
    ours = bootstrap_interval(values, statistic=statistic, samples=20_000)
    theirs = bootstrap(
        (values,), statistic, n_resamples=20_000, method="percentile", random_state=0
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.015)  # noise of the resampling
    again = bootstrap_interval(values, statistic=statistic, samples=20_000, groups=[None] * 40)
    assert again == ours  # rows without a group are drawn alone


def test_whole_groups_are_drawn() -> None:
    hits = np.repeat([1.0, 0.0, 1.0, 0.0], 50)  # four animals, fifty pictures each
    animals = np.repeat(["a", "b", "c", "d"], 50).tolist()
    narrow, wide = bootstrap_interval(hits), bootstrap_interval(hits, groups=animals)
    assert narrow[1] - narrow[0] < 0.16
    assert wide[1] - wide[0] > 0.7


def test_pairs_are_drawn_together() -> None:
    values = np.add(np.random.default_rng(4).normal(size=(30, 1)), [[0.0, 1.0]])
    gain = bootstrap_interval(values, statistic=lambda r: r[:, 1].mean() - r[:, 0].mean())
    assert gain == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([1.0], None, "got 1 row or group; expected at least two"),
        ([1.0, 0.0], ["a", "a"], "got 1 row or group"),
        ([1.0, 0.0], ["a"], "shorter"),
    ],
)
def test_what_cannot_be_resampled_is_refused(
    values: list, groups: list | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, groups=groups)
