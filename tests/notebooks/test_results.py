"""nbval executes every notebook, in its quick form; it finds and prints what it did before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anatomy import LABS, LESSONS, SOLUTIONS, TAG
from baselines import Baseline, differences, malformed, updated
from notebook_builder import code, markdown, stream, write

from cliplab.report.notebook import notebooks_dir
from cliplab.runtime import write_json

BASELINES = Path(__file__).parents[1] / "baselines"
ALL = [*LESSONS, *LABS, *SOLUTIONS]
TIMEOUT_S = 300.0


def ran(path: Path, folder: Path) -> dict[str, Any]:
    """Results of a notebook, as `pytest --nbval-lax NOTEBOOK` executes and compares it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbval-lax", "-x", "-q", "-p", "no:cacheprovider"),
            *(f"--nbval-cell-timeout={TIMEOUT_S}", path.name),
        ],
        cwd=path.parent,
        env=os.environ | {"CLIPLAB_RESULTS": str(folder)},
        capture_output=True,
        encoding="utf-8",
        timeout=2 * TIMEOUT_S,
    )
    assert done.returncode == 0, f"{path.name}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    return dict(json.loads((folder / f"{path.stem}.json").read_text(encoding="utf-8")))


def check(path: Path, baseline: Path, folder: Path, update: bool) -> None:
    old: Baseline = {}
    if baseline.exists():
        old = json.loads(baseline.read_text(encoding="utf-8"))
    results = ran(path, folder)
    if update:
        write_json(baseline, updated(results, old))
        return
    assert old, f"{baseline.name} is missing; pytest {__file__} --update-baselines makes it"
    assert malformed(old) == []
    lines = differences(results, old)
    assert not lines, "\n".join([f"{path.name} no longer finds what it found:", *lines])


def baseline_of(path: Path) -> Path:
    """A lesson and its solutions go by their number, a lab by its name."""
    ending = {"labs": path.stem[2:], "solutions": "_solutions"}.get(path.parent.name, "")
    return BASELINES / f"{path.stem[:2]}{ending}.json"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_notebooks_find_and_print_what_they_did(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    check(path, baseline_of(path), tmp_path, request.config.getoption("--update-baselines"))


def test_every_baseline_is_of_a_notebook() -> None:
    assert set(BASELINES.glob("*.json")) == set(map(baseline_of, ALL))


# ---- the test itself -----------------------------------------------------------------------

BASE: Baseline = {
    "n": {"value": 12, "exact": True},
    "loss": {"value": 1.0, "rtol": 0.1},
    "accuracy.seen": {"value": 0.98, "atol": 0.01},
    "ranks": {"value": [1.0, 2.0], "rtol": 0.1},
}
SAME = {"n": 12, "loss": 1.0, "accuracy": {"seen": 0.98}, "ranks": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"loss": 1.11}, ["loss: 1.11, was 1.0 (rtol 0.1)"]),
        ({"accuracy": {"seen": 0.96}}, ["accuracy.seen: 0.96, was 0.98 (atol 0.01)"]),
        ({"timings": {"times faster": 9.0}}, []),
        ({"n": 13}, ["n: 13, was 12 (exact)"]),
        ({"ranks": [1.0, 2.5]}, ["ranks: [1.0, 2.5], was [1.0, 2.0] (rtol 0.1)"]),
        ({"more": 1}, ["more: new, 1"]),
        ({"accuracy": {}}, ["accuracy.seen: missing, was 0.98"]),
    ],
)
def test_what_moved_is_named(change: dict[str, Any], expected: list[str]) -> None:
    assert differences(SAME | change, BASE) == expected


def test_an_update_keeps_tolerances() -> None:
    new = updated(SAME | {"loss": 2.0, "more": 0.5, "count": 3, "timings": {"s": 1.0}}, BASE)
    assert new["loss"] == {"value": 2.0, "rtol": 0.1}
    assert new["more"] == {"value": 0.5, "rtol": 0.05}
    assert new["count"] == {"value": 3, "exact": True}
    assert malformed(new) == []
    assert "timings.s" not in new


@pytest.mark.parametrize(
    "entry",
    [{"value": 1.0}, {"value": 1.0, "rtol": 1e9}, {"value": 1.0, "rtol": 0.1, "exact": True}],
)
def test_a_baseline_that_lets_anything_pass_is_refused(entry: dict[str, Any]) -> None:
    assert malformed({"k": entry})


def small(path: Path, *, counts: str = "6 * 7", printed: str = "True 42\n") -> Path:
    """A notebook with an output of record, made with QUICK, and others that may change."""
    shutil.copy(notebooks_dir() / "conftest.py", path.parent)
    shutil.copy(notebooks_dir() / "nbval_sanitize.cfg", path.parent)
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
    with pytest.raises(AssertionError, match=r"Cell outputs differ(.|\n)*True 4[28]"):
        check(bad, baseline, elsewhere, update=False)
