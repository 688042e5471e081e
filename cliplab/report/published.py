"""Numbers that others have published, with their source, and one's own beside them.

The figures lie in `data/published`; none of them was measured here, and the table says so until a
result of `python -m cliplab evaluate imagenet --json FILE` is laid beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.classification import Rate
from cliplab.runtime import data_dir, unknown_name

if TYPE_CHECKING:
    import pandas as pd

NOT_RUN = "not run here"
COLUMNS = ("model", "measure", "published", "unit", "protocol", "source", "fact", "here", "remark")

Own = Mapping[str, Any] | Sequence[str | Path] | str | Path


def topics() -> dict[str, str]:
    """Topic -> its title."""
    return {name: topic["title"] for name, topic in _read(data_dir() / "published").items()}


def table(topic: str, own: Own | None = None) -> pd.DataFrame:
    """What others report about a topic, one row per figure, and what was found here.

    Args:
        topic: one of `topics()`.
        own: results of yours: the JSON files of `cliplab evaluate`, which find their rows by
            encoder and templates (those that fit no row get one of their own); or a mapping from
            the id of a row to a `Rate`, a number in the row's unit, or such a file.

    Returns:
        Indexed by id: model, measure, published, unit, protocol, source, fact ("read in the source"
        or "second-hand"), here ("not run here", or your figure) and remark.

    Raises:
        ValueError: unknown topic or id, or a file that is no result.
        FileNotFoundError: no such file.
    """
    import pandas as pd

    known = _read(data_dir() / "published")
    if topic not in known:
        raise ValueError(unknown_name("topic", topic, known))
    rows = [{**row, "here": NOT_RUN} for row in known[topic]["rows"]]
    rows += _fill(rows, own)
    return pd.DataFrame(
        [
            [row.get(column, "") for column in ("model", "measure", "value", *COLUMNS[3:])]
            for row in rows
        ],
        index=pd.Index([row["id"] for row in rows], name="id"),
        columns=list(COLUMNS),
    )


@cache
def _read(folder: Path) -> dict[str, Any]:
    """The topics of every file in a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        found |= json.loads(path.read_text(encoding="utf-8"))["topics"]
    if not found:
        raise FileNotFoundError(
            f"{folder.as_posix()}: no published numbers; they come with cliplab: restore "
            "data/published, or unset $CLIPLAB_DATA"
        )
    return found


def _fill(rows: list[dict[str, Any]], own: Own | None) -> list[dict[str, Any]]:
    """Write results into their rows -> new rows for those that belong to none."""
    if own is None:
        return []
    if isinstance(own, Mapping):
        ids = {row["id"]: row for row in rows}
        for key, value in own.items():
            if key not in ids:
                raise ValueError(unknown_name("row", key, ids))
            metric = ids[key].get("own", {}).get("metric", "top1")
            ids[key]["here"] = _shown(value, metric, ids[key]["unit"])
        return []
    paths = [own] if isinstance(own, str | Path) else own
    return [row for path in paths for row in _place(rows, Path(path))]


def _place(rows: list[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    """Write one report into every row that it fits; without any, a row of its own."""
    report = _report(path)
    fitting = [row for row in rows if _fits(row.get("own"), report)]
    for row in fitting:
        row["here"] = _of_report(report, row["own"]["metric"])
    if not fitting:
        prompts = report["prompts"]
        yield {
            "id": path.stem,
            "model": report["encoder"].get("spec", report["encoder"]["name"]),
            "measure": f"{report['benchmark']} {report['split']} top-1",
            "value": None,
            "unit": "%",
            "protocol": f"templates {prompts['name']} ({prompts['templates']})",
            "here": _of_report(report, "top1"),
        }


def _fits(own: Mapping[str, Any] | None, report: Mapping[str, Any]) -> bool:
    """Whether a report measured, with that row's encoder and words, what the row is about."""
    if own is None:
        return False
    spec = report["encoder"].get("spec", "")
    names = {spec}
    if spec.startswith(("hf:", "modelscope:")):
        names.add(spec.rpartition("@")[0])  # without the revision; OpenAI's @336px is none
    same = all(own[key] == report[key] for key in ("benchmark", "split"))
    words = own["templates"] == report["prompts"]["name"]
    return same and words and not names.isdisjoint(own["encoders"])


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        Rate(**report["top1"]), Rate(**report["top5"])
        report["encoder"]["name"], report["prompts"]["templates"], report["partial"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a result ({error!r}); expected a file that `cliplab evaluate imagenet "
            "--json FILE` wrote"
        ) from error
    return report


def _shown(value: Any, metric: str, unit: str) -> str:
    if isinstance(value, str | Path):
        return _of_report(_report(Path(value)), metric)
    if isinstance(value, Rate):
        return _percent(value)
    return f"{float(value):g} {unit}"


def _of_report(report: Mapping[str, Any], metric: str) -> str:
    """The figure, and whatever keeps it from being compared with the published one."""
    said = [_percent(Rate(**report[metric]))]
    if report["partial"]:
        said.append("not the whole set")
    if report["unreadable"]:
        said.append(f"{len(report['unreadable'])} unreadable, counted as wrong")
    return "; ".join(said)


def _percent(found: Rate) -> str:
    return f"{found.value:.2%} ({found.low:.2%}-{found.high:.2%}, n={found.n:,})"
