"""What a student calls: `check`, `hint`, `progress`; and `grade`, which hidden tests call."""

import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cliplab.exercises.answer import TIME_LIMIT, Answer, Draw, Wrong, time_limit
from cliplab.runtime import somebody_is_there, unknown_name, write_json

SEEDS = (0, 1, 2)  # of what a student's check draws
GRADING_LIMIT = 10.0  # seconds; nobody waits, and a machine that grades may be busy
HIDDEN_SEED = 20_260  # of what is drawn for marks, where a course names no other
# Each lesson's module, in which its exercises are registered.
LESSONS = {
    "01": "clip",
    "02": "zero_shot",
    "03": "vild",
    "04": "glip",
    "05": "groupvit",
    "06": "scaling",
}


def module_of(lesson: str) -> ModuleType:
    """The module of a lesson, or ValueError with the nearest one."""
    if lesson not in LESSONS:
        raise ValueError(unknown_name("lesson", lesson, LESSONS))
    return importlib.import_module(f"cliplab.exercises.{LESSONS[lesson]}")


@dataclass(frozen=True)
class Exercise:
    """One function to be written.

    Args:
        name: lesson and number, such as "01.3".
        title: a few words.
        hints: three, each says more than the one before.
        examine: raises `Wrong` unless an answer is right for what a `Draw` gives.
    """

    name: str
    title: str
    hints: tuple[str, str, str]
    examine: Callable[[Answer, Draw], None]


class _Exercises(dict[str, Exercise]):
    """All exercises by name; the modules of the lessons are imported when they are asked for."""

    def of_lesson(self, lesson: str) -> list[Exercise]:
        """Those of one lesson, in their order."""
        module_of(lesson)
        return [self[name] for name in sorted(self) if name.startswith(f"{lesson}.")]

    def find(self, name: str) -> Exercise:
        """The exercise of that name, or ValueError with the nearest one."""
        lesson = name[:2]
        found = {e.name: e for e in (self.of_lesson(lesson) if lesson in LESSONS else self.all())}
        if name not in found:
            raise ValueError(unknown_name("exercise", name, found))
        return found[name]

    def all(self) -> Iterator[Exercise]:
        """Those of all lessons."""
        for lesson in LESSONS:
            yield from self.of_lesson(lesson)


EXERCISES = _Exercises()
_hints_seen: dict[str, int] = {}


def exercise(
    name: str, title: str, *, hints: tuple[str, str, str]
) -> Callable[[Callable[[Answer, Draw], None]], Callable[[Answer, Draw], None]]:
    """Register the examination of an exercise; `Exercise` says what belongs to one."""

    def register(examine: Callable[[Answer, Draw], None]) -> Callable[[Answer, Draw], None]:
        EXERCISES[name] = Exercise(name, title, hints, examine)
        return examine

    return register


def examine(name: str, function: Any, seeds: tuple[int, ...], split: str) -> Wrong | None:
    """What is wrong with an answer for some seeds, or None."""
    exercise = EXERCISES.find(name)
    if not callable(function):
        return Wrong("type", f"got {type(function).__name__}; pass the function itself, uncalled")
    try:
        with time_limit(GRADING_LIMIT if _is_graded() else TIME_LIMIT):
            for seed in seeds:
                exercise.examine(Answer(function), Draw(seed, split))
    except Wrong as wrong:
        return wrong
    except Exception as error:  # of the examination: what was returned cannot even be compared
        returned = f"{Answer(function).name} returns something that cannot be looked at"
        return Wrong("type", f"{returned} ({error}); compare it with the docstring")
    return None


def _is_graded() -> bool:
    """Whether nbgrader executes this."""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def check(name: str, function: Any) -> None:
    """Say whether a function does what an exercise asks, and what fails on which small input.

    Args:
        name: of the exercise, such as "01.3".
        function: the one you wrote.

    Raises:
        ValueError: there is no such exercise.
    """
    wrong = examine(name, function, SEEDS, "val")
    state = "solved" if wrong is None else "not yet" if wrong.kind == "not yet" else "tried"
    _remember(name, state)
    if wrong is None:
        show(f"{name} right: {Answer(function).name} passes.")
    elif wrong.kind == "not yet":
        show(f"{name} not yet: {wrong.text}.")
    else:
        show(f'{name} wrong: {wrong.text}.\nA hint: hint("{name}")')


def grade(name: str, function: Any, *, seed: int = HIDDEN_SEED) -> None:
    """The same on inputs that nobody has seen, for marks.

    Args:
        name: of the exercise.
        function: a student's.
        seed: of what is drawn; scenes come from a split that no data set has.

    Raises:
        AssertionError: the answer is wrong. It names the kind of fault, and no input, so that
            feedback gives no hidden test away.
    """
    wrong = examine(name, function, (seed, seed + 1, seed + 2), "hidden")
    if wrong is not None:
        raise AssertionError(f"{name}: {wrong.kind}") from None


def hint(name: str) -> None:
    """The next hint of an exercise, of three; then where its solution is."""
    exercise = EXERCISES.find(name)
    seen = _hints_seen.get(name, 0)
    _hints_seen[name] = seen + 1
    if seen < len(exercise.hints):
        show(f"{name} hint {seen + 1} of {len(exercise.hints)}: {exercise.hints[seen]}")
    else:
        show(f"{name}: no more hints. The solution is in notebooks/solutions, number {name}.")


# ---- progress ------------------------------------------------------------------------------


def progress() -> None:
    """A table of all exercises, and how far you are; it is kept on this computer alone."""
    states = _states()
    found = [(states.get(exercise.name, "not yet"), exercise) for exercise in EXERCISES.all()]
    lines = [f"{exercise.name}  {state:8} {exercise.title}" for state, exercise in found]
    solved = sum(state == "solved" for state, _ in found)
    show("\n".join([*lines, f"solved: {solved} of {len(lines)}"]))


def progress_file() -> Path:
    """$CLIPLAB_PROGRESS, else `progress.json` among the user's data."""
    from platformdirs import user_data_path

    chosen = os.environ.get("CLIPLAB_PROGRESS", "")
    folder = user_data_path("cliplab", appauthor=False)
    return Path(chosen).expanduser() if chosen else folder / "progress.json"


def _states() -> dict[str, str]:
    try:
        found = json.loads(progress_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    states = found.items() if isinstance(found, dict) else ()
    return {name: state for name, state in states if isinstance(state, str)}


def _remember(name: str, state: str) -> None:
    """What is solved stays solved. A run that nobody watches changes nothing."""
    states = _states()
    if not somebody_is_there() or state == "not yet" or states.get(name) in ("solved", state):
        return
    with suppress(OSError):
        write_json(progress_file(), states | {name: state})


def show(text: str) -> None:
    """Text below the cell, which stays in a notebook that is saved."""
    from IPython.display import display

    display(_Text(text))


class _Text(str):
    """Shown as it is, without quotes."""

    __repr__ = str.__str__
