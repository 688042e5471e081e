"""Metrics: closed forms, agreement with scikit-learn, and refusals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, log_loss

from cliplab.classification import metrics
from cliplab.classification.metrics import (
    bootstrap_interval,
    expected_calibration_error,
    reliability,
)


def answers(n: int, k: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities (n, k), and labels that follow them about half of the time."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(k, 0.6), n)
    likely = shares.argmax(axis=1)
    return shares, np.where(rng.random(n) < 0.5, likely, rng.integers(0, k, n))


# ---- the interval of the seed notes -----------------------------------------------------------


def test_one_of_three_says_nearly_nothing() -> None:
    low, high = metrics.wilson_interval(1, 3)
    assert (round(low, 2), round(high, 2)) == (0.06, 0.79)


# ---- calibration ------------------------------------------------------------------------------


def test_confidence_equal_to_accuracy_has_no_error() -> None:
    shares = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(shares, [0, 0, 0, 1]) == pytest.approx(0.0)
    assert expected_calibration_error(shares, [1, 1, 1, 1]) == pytest.approx(0.75)
    assert expected_calibration_error(shares, [0, 0, 0, 0]) == pytest.approx(0.25)


def test_error_is_weighted_by_the_images_of_a_bin() -> None:
    shares = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    # three at 0.9 of which two are right, one at 0.6 that is wrong
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * 0.6
    assert expected_calibration_error(shares, [0, 0, 1, 1], bins=10) == pytest.approx(expected)


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


def test_a_bin_holds_its_upper_edge_and_certainty_is_in_the_last() -> None:
    bins = reliability([[1.0, 0.0], [0.5, 0.5]], [0, 0], bins=2)
    assert bins.count.tolist() == [1, 1]
    assert bins.edges.tolist() == [0, 0.5, 1]


def test_intervals_of_bins_are_wilsons() -> None:
    bins = reliability([[0.9, 0.1]] * 3, [0, 1, 1], bins=2)
    assert tuple(bins.intervals[1]) == pytest.approx(metrics.wilson_interval(1, 3))
    assert np.isnan(bins.intervals[0]).all()


def test_luck_alone_makes_an_error_that_shrinks_with_n() -> None:
    few, many = (np.tile([0.7, 0.3], (n, 1)) for n in (20, 2000))
    assert metrics.error_by_luck(few) > 3 * metrics.error_by_luck(many)
    assert metrics.error_by_luck(many) < 0.03


def test_scores_agree_with_scikit_learn() -> None:
    shares, true = answers(300, 4)
    assert metrics.negative_log_likelihood(shares, true) == pytest.approx(log_loss(true, shares))
    predicted = shares.argmax(axis=1)
    expected = balanced_accuracy_score(true, predicted)
    assert metrics.balanced_accuracy(predicted, true) == pytest.approx(expected)
    two, true = answers(300, 2)
    expected = 2 * brier_score_loss(true, two[:, 1])
    assert metrics.brier_score(two, true) == pytest.approx(expected)


def test_tensors_are_taken() -> None:
    shares, true = answers(50, 3)
    as_tensors = torch.from_numpy(shares), torch.from_numpy(true)
    assert expected_calibration_error(*as_tensors) == expected_calibration_error(shares, true)


def test_certain_and_wrong_is_infinitely_unlikely() -> None:
    assert metrics.negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf


@pytest.mark.parametrize(
    ("shares", "true", "message"),
    [
        ([[0.5, 0.6]], [0], r"row 0 is \[0.5, 0.6\]; expected shares from 0 to 1 that sum to 1"),
        ([[1.2, -0.2]], [0], "give Scores.probability, not logits"),
        ([[0.5, math.nan]], [0], "row 0"),
        ([[0.5, 0.5]], [2], "expected class indices from 0 to 1"),
        ([[0.5, 0.5]], [0, 1], r"got shape \(1, 2\) and \(2,\) true labels"),
        (np.zeros((0, 2)), [], "at least one image"),
    ],
)
def test_what_is_no_probability_is_refused(shares: object, true: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(shares, true)


def test_a_class_without_images_has_no_recall() -> None:
    found = metrics.recall_per_class([0, 1, 1], [0, 0, 1], ["a", "b", "c"])
    assert {name: rate.value for name, rate in found.items()} == {"a": 0.5, "b": 1.0}


# ---- bootstrap --------------------------------------------------------------------------------


def test_interval_of_a_mean_is_that_of_the_textbook() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.04)
    assert high == pytest.approx(values.mean() + half, abs=0.04)


def test_whole_groups_are_drawn() -> None:
    hits = np.repeat([1.0, 0.0, 1.0, 0.0], 50)  # four animals, fifty pictures each
    animals = np.repeat(["a", "b", "c", "d"], 50).tolist()
    narrow, wide = bootstrap_interval(hits), bootstrap_interval(hits, groups=animals)
    assert narrow[1] - narrow[0] < 0.16
    assert wide[1] - wide[0] > 0.7


@pytest.mark.parametrize("statistic", [np.mean, np.std])  # the latter is biased
def test_intervals_agree_with_scipy(statistic: Callable) -> None:
    scipy_stats = pytest.importorskip("scipy.stats", reason="comes with scikit-learn")
    values = np.random.default_rng(7).exponential(1, 40)
    ours = bootstrap_interval(values, statistic=statistic, samples=20_000)
    theirs = scipy_stats.bootstrap(
        (values,), statistic, n_resamples=20_000, method="percentile", random_state=0
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.015)  # noise of the resampling


def test_rows_without_a_group_are_drawn_alone() -> None:
    values = np.random.default_rng(8).normal(size=20)
    assert bootstrap_interval(values, groups=[None] * 20) == bootstrap_interval(values)


def test_constant_values_leave_no_doubt() -> None:
    assert bootstrap_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)


def test_ties_go_to_the_first_class_and_one_image_is_enough() -> None:
    bins = reliability([[0.5, 0.5]], [0], bins=2)
    assert bins.accuracy[0] == 1
    assert bins.error == 0.5
    assert metrics.brier_score([[0.5, 0.5]], [1]) == 0.5
    assert metrics.negative_log_likelihood([[0.5, 0.5]], [1]) == pytest.approx(math.log(2))
    assert reliability([[1.0]], [0]).error == 0  # a single class


def test_luck_is_the_same_for_the_same_seed() -> None:
    shares, _ = answers(40, 3)
    first, again, other = (metrics.error_by_luck(shares, samples=50, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_interval_is_repeatable_and_of_any_statistic() -> None:
    values = np.random.default_rng(4).normal(size=(30, 2))

    def difference(rows: np.ndarray) -> float:
        return float(rows[:, 0].mean() - rows[:, 1].mean())

    first, again = (bootstrap_interval(values, statistic=difference) for _ in range(2))
    assert first == again
    assert first[0] < difference(values) < first[1]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0], {}, "got 1 row or group; expected at least two"),
        ([1.0, 0.0], {"groups": ["a", "a"]}, "got 1 row or group"),
        ([1.0, math.nan], {}, "NaN"),
        ([1.0, 0.0], {"groups": ["a"]}, "shorter"),
        ([1.0, 0.0], {"statistic": lambda rows: math.nan}, "gave NaN in 2000 of 2000"),
    ],
)
def test_what_cannot_be_resampled_is_refused(values: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **options)


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
