"""Solved exercises as functions, whole or with one mistake planted."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cliplab.exercises import Master, read_masters, student_form

SOLUTIONS = Path(__file__).resolve().parents[2] / "notebooks" / "solutions"


@cache
def masters() -> dict[str, Master]:
    """All masters, by the name of their exercise."""
    found: dict[str, Master] = {}
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        found |= read_masters(path)
    return found


def defined(source: str, known: dict[str, Any] | None = None) -> Callable[..., Any]:
    """The last function that a cell defines; `known` is what the lesson has defined before it."""
    space = {**(known or {}), "__name__": "student"}
    exec(source, space)
    functions = [f for f in space.values() if getattr(f, "__module__", "") == "student"]
    return max(functions, key=lambda f: f.__code__.co_firstlineno)


def solution(name: str) -> Callable[..., Any]:
    """What the master defines."""
    return defined(masters()[name].code.source)


def stub(name: str) -> Callable[..., Any]:
    """What a student is given."""
    return defined(student_form(masters()[name].code.source))


def mutant(name: str, old: str, new: str) -> Callable[..., Any]:
    """The solution with one piece of text replaced, which must be in it."""
    source = masters()[name].code.source
    assert old in source, f"{name}: the solution has no {old!r}"
    return defined(source.replace(old, new))
