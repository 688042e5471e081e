"""Two runs side by side, key by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cliplab.report.page import flatten


@dataclass(frozen=True)
class Difference:
    """One result in two runs; None where a run lacks it."""

    notebook: str
    key: str
    a: Any
    b: Any
    relative: float | None  # (b - a) / |a|; None when that has no meaning
    agrees: bool


def compare(
    a: Mapping[str, Any], b: Mapping[str, Any], *, rtol: float = 0.01, atol: float = 1e-6
) -> list[Difference]:
    """Every result of the runs `a` and `b` (as in results.json).

    Numbers agree when |a - b| <= atol + rtol |a|; lists of numbers, when each does; anything
    else, when equal. A result or a notebook that only one run has does not agree.
    """
    differences = []
    for name in dict.fromkeys([*a["notebooks"], *b["notebooks"]]):
        left, right = (
            dict(flatten(run["notebooks"].get(name, {}).get("results", {}))) for run in (a, b)
        )
        for key in dict.fromkeys([*left, *right]):
            x, y = left.get(key), right.get(key)
            agrees = key in left and key in right and close(x, y, rtol=rtol, atol=atol)
            differences.append(Difference(name, key, x, y, _relative(x, y), agrees))
    return differences


def close(a: Any, b: Any, *, rtol: float, atol: float) -> bool:
    """Whether two results agree, see `compare`; True is not 1."""
    if _is_number(a) and _is_number(b):
        return bool(abs(a - b) <= atol + rtol * abs(a))
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return all(close(x, y, rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(a: Any, b: Any) -> float | None:
    if not (_is_number(a) and _is_number(b)) or (a == 0 and b != 0):
        return None
    return 0.0 if a == b else (b - a) / abs(a)
