"""Results of a notebook against what they were: tests/baselines/*.json.

A baseline is {key: {"value": v, "rtol" or "atol": t}} for numbers that may move a little, and
{key: {"value": v, "exact": true}} for counts, names and whatever must not move. Keys of nested
results are joined by dots; `timings` are left out, since no run repeats them.
"""

from collections.abc import Mapping
from typing import Any

from cliplab.report.page import close, lasting

Baseline = dict[str, dict[str, Any]]


def differences(results: Mapping[str, Any], baseline: Baseline) -> list[str]:
    """What does not agree, one line each; [] when everything does."""
    found = lasting(results)
    lines = [f"{key}: missing, was {baseline[key]['value']!r}" for key in baseline.keys() - found]
    lines += [f"{key}: new, {found[key]!r}" for key in found.keys() - baseline]
    for key in baseline.keys() & found:
        entry = baseline[key]
        tolerance = {name: entry.get(name, 0.0) for name in ("rtol", "atol")}
        # `close` scales by its first argument, and that is the value on record
        if not close(entry["value"], found[key], **tolerance):
            lines.append(f"{key}: {found[key]!r}, was {entry['value']!r} ({allowed(entry)})")
    return sorted(lines)


def allowed(entry: Mapping[str, Any]) -> str:
    """The tolerance of an entry, in words."""
    return (
        ", ".join(f"{name} {entry[name]:g}" for name in ("rtol", "atol") if name in entry)
        or "exact"
    )


def updated(results: Mapping[str, Any], baseline: Baseline) -> Baseline:
    """A baseline with the new values and the old tolerances; a new number gets 5 %."""
    return {
        key: {"value": value, **_tolerance(value, baseline.get(key, {}))}
        for key, value in lasting(results).items()
    }


def _tolerance(value: Any, old: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: old[name] for name in ("rtol", "atol", "exact") if name in old}
    values = value if isinstance(value, list) else [value]
    return kept or (
        {"rtol": 0.05} if any(isinstance(v, float) for v in values) else {"exact": True}
    )


def malformed(baseline: Baseline) -> list[str]:
    """Entries that could let anything pass: no tolerance, or one that is no number."""
    faults = []
    for key, entry in baseline.items():
        tolerances = [entry[name] for name in ("rtol", "atol") if name in entry]
        exact = entry.get("exact", False)
        numbers = all(isinstance(t, int | float) and 0 <= t < 1e3 for t in tolerances)
        if "value" not in entry or bool(tolerances) == bool(exact) or not numbers:
            faults.append(f"{key}: {entry}")
    return faults
