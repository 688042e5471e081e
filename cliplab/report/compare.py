"""Two runs side by side, key by key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliplab.report.page import flatten, show


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
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= atol + rtol * abs(a)
    if isinstance(a, list) and isinstance(b, list):
        same_length = len(a) == len(b)
        return same_length and all(
            close(x, y, rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True)
        )
    return type(a) is type(b) and a == b


def _relative(a: Any, b: Any) -> float | None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    if not numbers or (a == 0 and b != 0):
        return None
    return 0.0 if a == b else (b - a) / math.fabs(a)


def table(differences: Sequence[Difference], names: tuple[str, str]) -> str:
    """The differences as text, a mark before each that is out of tolerance."""
    rows = [("", "result", *names, "difference")]
    notebook = ""
    for d in differences:
        if d.notebook != notebook:
            notebook = d.notebook
            rows.append(("", notebook, "", "", ""))
        change = "" if d.relative is None else f"{d.relative:+.2%}" if d.relative else "0"
        rows.append(("" if d.agrees else "*", f"  {d.key}", _show(d.a), _show(d.b), change))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        f"{r[0]:{widths[0]}} {r[1]:{widths[1]}}  {r[2]:>{widths[2]}}  {r[3]:>{widths[3]}}"
        f"  {r[4]:>{widths[4]}}".rstrip()
        for r in rows
    ]
    return "\n".join(lines)


def _show(value: Any) -> str:
    text = "-" if value is None else show(value)
    return text if len(text) <= 28 else text[:27] + "…"
