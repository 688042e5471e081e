"""Every exercise: its stub is refused, its solution passes, plausible mistakes are named."""

import contextlib
import functools
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sync_exercises
import torch
from masters_of import masters, mutant, solution, stub

from cliplab.exercises import EXERCISES, check, grade, hint, progress
from cliplab.exercises.answer import Wrong, time_limit
from cliplab.exercises.checking import HIDDEN_SEED, LESSONS, SEEDS, examine

NAMES = [one.name for one in EXERCISES.all()]
MUTANTS = {
    name: found
    for lesson in LESSONS
    for name, found in importlib.import_module(f"mutants_{lesson}").MUTANTS.items()
}


def kind_of(name: str, function: Any) -> str:
    wrong = examine(name, function, SEEDS, "val")
    return "right" if wrong is None else wrong.kind


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_is_refused_and_the_solution_passes(name: str) -> None:
    assert kind_of(name, stub(name)) == "not yet"
    solved, start = solution(name), time.process_time()  # whatever else the machine does
    assert examine(name, solved, SEEDS, "val") is None
    assert time.process_time() - start < 2
    for seed in (HIDDEN_SEED, 1, 77):
        grade(name, solved, seed=seed)


@pytest.mark.parametrize(
    ("name", "old", "new", "word"), [(name, *m) for name in MUTANTS for m in MUTANTS[name]]
)
def test_mistakes_are_named(name: str, old: str, new: str, word: str) -> None:
    wrong = examine(name, mutant(name, old, new), SEEDS, "val")
    assert wrong is not None, "the mistake passes"
    assert word in wrong.text
    with pytest.raises(AssertionError):
        grade(name, mutant(name, old, new))


def test_every_exercise_has_a_master_hints_and_three_mistakes() -> None:
    assert set(NAMES) == set(masters())
    for exercise in EXERCISES.all():
        assert len(set(exercise.hints)) == 3
        assert len(MUTANTS[exercise.name]) >= 3, exercise.name
        master = masters()[exercise.name]
        assert f"### Your turn {exercise.name}: " in master.text.source
        assert f'check("{exercise.name}", ' in master.check.source
        assert f'grade("{exercise.name}", ' in master.check.source


@pytest.mark.parametrize("name", NAMES)
def test_public_values_do_not_pass_the_hidden_test(name: str) -> None:
    told: dict[str, Any] = {}
    solved, last = solution(name), None

    def learn(*args: Any, **kwargs: Any) -> Any:
        nonlocal last
        last = told[repr((args, kwargs))] = solved(*args, **kwargs)
        return last

    def recite(*args: Any, **kwargs: Any) -> Any:
        return told.get(repr((args, kwargs)), last)

    assert examine(name, learn, SEEDS, "val") is None
    with pytest.raises(AssertionError):
        grade(name, recite)


def test_lessons_hold_what_the_masters_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sync_exercises.py", "--check"])
    assert sync_exercises.main() == 0


# ---- every way to go wrong -----------------------------------------------------------------


def closed_form(kind: str, n: int, scale: float) -> Any:
    return solution("01.1")(kind, n, scale)


def endless(kind: str, n: int, scale: float) -> float:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


ENDLESS = "from cliplab.exercises.answer import time_limit as t\nwith t(0.05): time.sleep(9)"


@pytest.mark.parametrize(
    ("source", "passes"),
    [("time.sleep(0.2)", True), (ENDLESS, False)],  # a library that takes its time
)
def test_imports_take_their_time(
    source: str, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loaded_late.py").write_text(f"import time\n{source}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loaded_late", raising=False)
    fails = contextlib.nullcontext() if passes else pytest.raises(Wrong, match="no answer")
    with fails, time_limit(0.05):
        importlib.import_module("loaded_late")


def printing(kind: str, n: int, scale: float) -> None:
    print(closed_form(kind, n, scale))


def raising(kind: str, n: int, scale: float) -> float:
    return {}[kind]


def returning(change: Callable[[float], Any]) -> Callable[..., Any]:
    return lambda kind, n, scale: change(closed_form(kind, n, scale))


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("endless", endless),
        ("prints", printing),
        ("raises", raising),
        ("nothing", returning(lambda x: None)),
        ("nothing", returning(lambda x: ...)),
        ("shape", returning(lambda x: torch.full((2,), x))),
        ("type", returning(str)),
        ("nan", returning(lambda x: float("nan"))),
        ("type", 3),
        ("raises", lambda kind: 0.0),
    ],
)
def test_each_way_to_go_wrong_has_its_kind(kind: str, function: Any) -> None:
    start = time.perf_counter()
    assert kind_of("01.1", function) == kind
    assert time.perf_counter() - start < 2.5


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("right", lambda x: x * 2),
        ("changes", lambda x: x.mul_(2)),
        ("dtype", lambda x: (x * 2).double()),
        ("device", lambda x: (x * 2).to("meta")),
        ("shape", lambda x: x * 2 + torch.zeros(3, 1, 1)),
        ("nan", lambda x: x / 0),
        ("type", lambda x: x.tolist()),
        ("mistake", lambda x: x * 3),
        ("value", lambda x: x * 5),
    ],
)
def test_tensors_are_looked_at_in_order(
    kind: str, function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliplab.exercises.checking import Exercise

    def twice(answer: Any, draw: Any) -> None:
        x = draw.normal(2, 3)
        answer.expect(2 * x, x, mistakes={"it is tripled": 3 * x})

    monkeypatch.setitem(EXERCISES, "01.9", Exercise("01.9", "twice", ("a", "b", "c"), twice))
    assert kind_of("01.9", function) == kind


# ---- what is shown -------------------------------------------------------------------------


def test_hints_come_in_steps(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):
        hint("01.1")
    first, *_, last = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("01.1 hint 1 of 3")
    assert "solutions" in last


def test_progress_keeps_what_is_solved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliplab.exercises import checking

    monkeypatch.setenv("CLIPLAB_PROGRESS", str(tmp_path / "progress.json"))
    check("01.1", solution("01.1"))
    assert not list(tmp_path.iterdir()), "nobody was there"
    monkeypatch.setattr(checking, "somebody_is_there", lambda: True)
    for function in (stub("01.1"), printing, solution("01.1"), printing):
        check("01.1", function)
    capsys.readouterr()
    progress()
    shown = capsys.readouterr().out
    assert "01.1  solved" in shown
    assert f"solved: 1 of {len(NAMES)}" in shown
    for broken in ("{broken", "[1]", '{"01.1": [], "01.99": "solved"}'):
        (tmp_path / "progress.json").write_text(broken, "utf-8")
        progress()
        assert "solved: 0 of" in capsys.readouterr().out
    check("01.1", functools.partial(solution("01.1")))
    assert "01.1 right: your function passes" in capsys.readouterr().out


def test_unknown_exercises_are_named() -> None:
    for call in (lambda: check("01.99", stub), lambda: hint("91.1"), lambda: grade("", stub)):
        with pytest.raises(ValueError, match="unknown exercise"):
            call()
