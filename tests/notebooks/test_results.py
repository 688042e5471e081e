"""Every notebook is executed, in its quick form, and finds and prints what it did before."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from baselines import Baseline, differences, malformed, updated
from notebook_builder import code, markdown, stream, write
from outputs import TAG, changes

from cliplab.report.execute import execute
from cliplab.report.notebook import RESULTS_PATH, notebooks_dir, read_notebook, read_parameters
from cliplab.runtime import write_json

BASELINES = Path(__file__).parents[1] / "baselines"
NOTEBOOKS = sorted(notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted(notebooks_dir().glob("solutions/*.ipynb"))
TIMEOUT_S = 300.0


def ran(path: Path, folder: Path) -> tuple[dict[str, Any], Any]:
    """Results of a notebook, and the notebook, executed with QUICK=True where it knows that."""
    found, target = folder / "results.json", folder / path.name
    known = read_parameters(read_notebook(path), path.stem)
    values: dict[str, Any] = {RESULTS_PATH: str(found)}
    if "QUICK" in known:
        values["QUICK"] = True
    failure = execute(path, target, parameters=values, timeout_s=TIMEOUT_S)
    assert failure is None, f"{path.name} stopped {failure}\n{failure.trace}"
    return dict(json.loads(found.read_text(encoding="utf-8"))), read_notebook(target)


def check(path: Path, baseline: Path, folder: Path, update: bool) -> None:
    old: Baseline = {}
    if baseline.exists():
        old = json.loads(baseline.read_text(encoding="utf-8"))
    results, executed = ran(path, folder)
    if update:
        write_json(baseline, updated(results, old))
        return
    assert old, f"{baseline.name} is missing; pytest {__file__} --update-baselines makes it"
    assert malformed(old) == []
    lines = differences(results, old)
    assert not lines, "\n".join([f"{path.name} no longer finds what it found:", *lines])
    lines = changes(read_notebook(path), executed)
    assert not lines, "\n".join([f"{path.name} no longer prints what it printed:", *lines])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_find_and_print_what_they_did(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    update = request.config.getoption("--update-baselines")
    check(path, BASELINES / f"{path.stem[:2]}.json", tmp_path, update)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_find_and_print_what_they_did(
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


def small(path: Path, *, counts: str = "6 * 7", printed: str = "True 42\n") -> Path:
    """A notebook with an output of record, made with QUICK, and others that may change."""
    return write(
        path,
        markdown("# 01"),
        code("SEED = 0  # a\nQUICK = False  # b\nRESULTS_PATH = ''  # c", "parameters", count=1),
        code("import os; print(os.getpid())", count=2, outputs=[stream("1\n")]),
        code(f"print(QUICK, end=' '); print({counts})", TAG, count=3, outputs=[stream(printed)]),
        code(
            "from cliplab.runtime import save_results; save_results({'n': 1}, RESULTS_PATH)",
            "results",
            count=4,
        ),
    )


def test_a_changed_output_is_seen_and_no_other(tmp_path: Path) -> None:
    baseline, elsewhere = tmp_path / "01.json", tmp_path / "ran"
    elsewhere.mkdir()
    write_json(baseline, {"n": {"value": 1, "exact": True}})
    good = small(tmp_path / "01_good.ipynb")
    check(good, baseline, elsewhere, update=False)
    bad = small(tmp_path / "02_bad.ipynb", counts="6 * 8")
    with pytest.raises(
        AssertionError, match=r"02_bad.*no longer prints(.|\n)*-True 42\s+\+True 48"
    ):
        check(bad, baseline, elsewhere, update=False)


def figure(size: str) -> Any:
    data = {"image/png": "x", "text/plain": f"<Figure size {size}>"}
    return nbformat.v4.new_output("display_data", data)


def table(html: str) -> Any:
    return nbformat.v4.new_output("execute_result", {"text/html": html, "text/plain": "same"})


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ([stream("a\nb\n")], [stream("a\n"), stream("b\n")], True),
        ([stream("a\n")], [stream("a\n", "stderr")], False),
        ([stream("a\n")], [], False),
        ([], [stream("a\n")], False),
        ([table("1")], [table("1")], True),
        ([table("1")], [table("2")], False),
        ([figure("9x9")], [figure("8x8")], True),
    ],
)
def test_the_text_of_an_output_counts(was: list[Any], now: list[Any], same: bool) -> None:
    old, new = (
        nbformat.v4.new_notebook(cells=[code("x", TAG, outputs=some)]) for some in (was, now)
    )
    injected = code("QUICK = True", "injected-parameters", outputs=[stream("c\n")])
    new.cells.insert(0, injected)
    assert (changes(old, new) == []) is same
    for cell in old.cells:
        cell.metadata = {}
    assert changes(old, new) == []  # without the tag nothing counts
