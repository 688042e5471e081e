"""Every notebook is executed, in its quick form, and finds what it found before."""

import json
from pathlib import Path
from typing import Any

import pytest
from baselines import Baseline, differences, malformed, updated

from cliplab.reports.execute import execute
from cliplab.reports.notebook import (
    RESULTS_PATH,
    notebooks_dir,
    read_notebook,
    read_parameters,
)
from cliplab.runtime import write_json

BASELINES = Path(__file__).parents[1] / "baselines"
NOTEBOOKS = sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted(notebooks_dir().glob("solutions/*.ipynb"))
TIMEOUT_S = 300.0


def results_of(path: Path, folder: Path) -> dict[str, Any]:
    """Results of a notebook executed with QUICK=True, where it knows that."""
    found = folder / "results.json"
    known = read_parameters(read_notebook(path), path.stem)
    values: dict[str, Any] = {RESULTS_PATH: str(found)}
    if "QUICK" in known:
        values["QUICK"] = True
    failure = execute(path, folder / path.name, parameters=values, timeout_s=TIMEOUT_S)
    assert failure is None, f"{path.name} stopped {failure}\n{failure.trace}"
    return dict(json.loads(found.read_text(encoding="utf-8")))


def check(path: Path, baseline: Path, folder: Path, update: bool) -> None:
    old: Baseline = {}
    if baseline.exists():
        old = json.loads(baseline.read_text(encoding="utf-8"))
    results = results_of(path, folder)
    if update:
        write_json(baseline, updated(results, old))
        return
    assert old, f"{baseline.name} is missing; pytest {__file__} --update-baselines makes it"
    assert malformed(old) == []
    lines = differences(results, old)
    assert not lines, "\n".join([f"{path.name} no longer finds what it found:", *lines])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_find_what_they_found(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    update = request.config.getoption("--update-baselines")
    check(path, BASELINES / f"{path.stem[:2]}.json", tmp_path, update)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_find_what_they_found(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    update = request.config.getoption("--update-baselines")
    check(path, BASELINES / f"{path.stem[:2]}_solutions.json", tmp_path, update)


def test_no_baseline_is_left_over() -> None:
    numbers = {f"{path.stem[:2]}.json" for path in NOTEBOOKS}
    numbers |= {f"{path.stem[:2]}_solutions.json" for path in SOLUTIONS}
    assert {path.name for path in BASELINES.glob("*.json")} <= numbers


# ---- the test itself -----------------------------------------------------------------------

BASE: Baseline = {
    "n": {"value": 12, "exact": True},
    "loss": {"value": 1.0, "rtol": 0.1},
    "accuracy.seen": {"value": 0.98, "atol": 0.01},
    "ranks": {"value": [1.0, 2.0], "rtol": 0.1},
    "name": {"value": "pasture", "exact": True},
}
SAME = {"n": 12, "loss": 1.0, "accuracy": {"seen": 0.98}, "ranks": [1.0, 2.0], "name": "pasture"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"loss": 1.09}, []),
        ({"loss": 1.11}, ["loss: 1.11, was 1.0 (rtol 0.1)"]),
        ({"accuracy": {"seen": 0.971}}, []),
        ({"accuracy": {"seen": 0.96}}, ["accuracy.seen: 0.96, was 0.98 (atol 0.01)"]),
        ({"n": 13}, ["n: 13, was 12 (exact)"]),
        ({"n": True}, ["n: True, was 12 (exact)"]),
        ({"name": "other"}, ["name: 'other', was 'pasture' (exact)"]),
        ({"ranks": [1.0, 2.5]}, ["ranks: [1.0, 2.5], was [1.0, 2.0] (rtol 0.1)"]),
        ({"ranks": [1.0]}, ["ranks: [1.0], was [1.0, 2.0] (rtol 0.1)"]),
        ({"more": 1}, ["more: new, 1"]),
        ({"accuracy": {}}, ["accuracy.seen: missing, was 0.98"]),
    ],
)
def test_what_moved_is_named(change: dict[str, Any], expected: list[str]) -> None:
    assert differences(SAME | change, BASE) == expected


def test_an_update_keeps_tolerances() -> None:
    new = updated(SAME | {"loss": 2.0, "more": 0.5, "count": 3}, BASE)
    assert new["loss"] == {"value": 2.0, "rtol": 0.1}
    assert new["more"] == {"value": 0.5, "rtol": 0.05}
    assert new["count"] == {"value": 3, "exact": True}
    assert malformed(new) == []


@pytest.mark.parametrize(
    "entry",
    [{"value": 1.0}, {"rtol": 0.1}, {"value": 1.0, "rtol": 1e9}, {"value": 1.0, "rtol": "much"},
     {"value": 1.0, "rtol": 0.1, "exact": True}],
)  # fmt: skip
def test_a_baseline_that_lets_anything_pass_is_refused(entry: dict[str, Any]) -> None:
    assert malformed({"k": entry})
