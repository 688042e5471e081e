"""What an evaluation came to: accuracy with intervals, the worst classes, calibration, speed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cliplab.classification.imagenet.chunks import TOP, RunFolder
from cliplab.classification.metrics import Rate, rate, wilson_interval

WORST = 10  # classes in the printed table


def summarise(folder: RunFolder) -> dict[str, Any]:
    """Merge the chunks of a complete run -> a report of plain values, for JSON.

    Pictures that could not be read count as wrong: n is what the folder holds, and a model gets no
    credit for what it was not shown. The same rates among the readable ones stand beside them.

    Raises:
        ValueError: chunks are missing, or do not belong together.
    """
    columns: dict[str, list] = {key: [] for key in ("label", "rank", "top", "confidence")}
    unreadable: dict[str, str] = {}
    seconds, cached = 0.0, False
    for chunk in folder.read():
        for key, values in columns.items():
            values.extend(chunk[key])
        unreadable |= chunk["unreadable"]
        seconds += chunk["seconds"]
        cached |= chunk["cached"]
    label, rank = np.array(columns["label"]), np.array(columns["rank"])
    seen = np.array([bool(top) for top in columns["top"]])
    plan = folder.plan
    report = {
        "benchmark": plan["identity"]["benchmark"],
        "split": plan["identity"]["split"],
        "images": len(label),
        "classes": len(plan["class_names"]),
        "classes_with_images": len(set(columns["label"])),
        "partial": list(plan["partial"]),
        "top1": rate(rank < 1).as_dict(),
        "top5": rate(rank < TOP).as_dict(),
        "mean_class_recall": _mean_recall(label, rank),
        "calibration_error": _calibration_error(columns["confidence"], rank, seen),
        "unreadable": unreadable,
        "seconds": round(seconds, 3),
        "images_per_second": round(int(seen.sum()) / seconds, 2) if seconds else None,
        "cached": cached,
        **{key: plan[key] for key in ("encoder", "prompts", "software", "notes")},
        "per_class": list(_classes(plan, label, rank, columns["top"])),
    }
    if unreadable and seen.any():
        report["readable"] = {
            "top1": rate(rank[seen] < 1).as_dict(),
            "top5": rate(rank[seen] < TOP).as_dict(),
        }
    return report


def _mean_recall(label: np.ndarray, rank: np.ndarray) -> float:
    return round(float(np.mean([(rank[label == k] < 1).mean() for k in np.unique(label)])), 4)


def _calibration_error(
    confidence: Sequence[float], rank: np.ndarray, seen: np.ndarray
) -> float | None:
    """Expected calibration error of the softmax among all classes, 15 bins, readable pictures."""
    from cliplab.classification.metrics import _binned  # of `reliability`: the rest is not kept

    if not seen.any():
        return None
    return round(_binned(np.array(confidence)[seen], rank[seen] < 1, 15).error, 4)


def _classes(
    plan: Mapping[str, Any], label: np.ndarray, rank: np.ndarray, top: Sequence[Sequence[int]]
) -> Iterator[dict[str, Any]]:
    """Of each class with pictures: how many, how many right, and what it was taken for."""
    for k in np.unique(label).tolist():
        mine = np.flatnonzero(label == k)
        wrong = Counter(top[i][0] for i in mine.tolist() if top[i] and rank[i] > 0)
        taken, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=(None, 0))
        yield {
            "wnid": plan["wnids"][k],
            "name": plan["class_names"][k],
            "n": len(mine),
            "top1": int((rank[mine] < 1).sum()),
            "top5": int((rank[mine] < TOP).sum()),
            "taken_for": None if taken is None else plan["class_names"][taken],
            "taken_for_times": times,
        }


# ---- for people ----------------------------------------------------------------------------


def as_text(report: Mapping[str, Any]) -> str:
    """The report as a page for a terminal."""
    prompts, encoder = report["prompts"], report["encoder"]
    speed = report["images_per_second"]
    error, count = report["calibration_error"], prompts["templates"]
    lines = [
        f"{report['benchmark']} {report['split']}, zero-shot: {report['images']:,} images, "
        f"{report['classes']:,} classes",
        f"encoder  {encoder['name']} ({encoder['precision']}, {encoder['fingerprint'][:12]})",
        f"prompts  {prompts['name']}: {count} template{'s' * (count != 1)}, {prompts['source']}",
        "",
        f"top-1    {_percent(report['top1'])}",
        f"top-5    {_percent(report['top5'])}",
        f"mean recall of the classes {report['mean_class_recall']:.2%}",
        "calibration error " + ("unknown" if error is None else f"{error:.2%} (15 bins)"),
        f"time     {report['seconds']:.1f} s of reading and encoding"
        + (f", {speed:,.1f} images/s on one machine" if speed else "")
        + (" (some embeddings may come from the cache)" if report["cached"] else ""),
        *_about_unreadable(report),
        *(f"not the whole set: {note}" for note in report["partial"]),
        *(f"note: {note}" for note in report["notes"]),
        "",
        *_worst(report["per_class"]),
    ]
    return "\n".join(lines)


def _percent(values: Mapping[str, float]) -> str:
    found = Rate(**values)  # type: ignore[arg-type]
    return f"{found.value:.2%} ({found.low:.2%}-{found.high:.2%}, n={found.n:,})"


def _about_unreadable(report: Mapping[str, Any]) -> Iterator[str]:
    if report["unreadable"]:
        yield f"unreadable: {len(report['unreadable'])}, counted as wrong:"
        for file, reason in list(report["unreadable"].items())[:WORST]:
            yield f"  {file}: {reason}"
        if "readable" in report:
            yield f"  top-1 among the readable {_percent(report['readable']['top1'])}"


def _worst(classes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The classes with the lowest recall, surest failures (more pictures) first."""
    order = sorted(classes, key=lambda c: (c["top1"] / c["n"], -c["n"], c["wnid"]))[:WORST]
    yield f"{'worst classes':32} {'right':>9}  {'95 % interval':>15}  mostly taken for"
    for found in order:
        low, high = wilson_interval(found["top1"], found["n"])
        right = f"{found['top1']} of {found['n']}"
        other = f"{found['taken_for']} ({found['taken_for_times']})" if found["taken_for"] else ""
        yield f"{found['name'][:32]:32} {right:>9}  {low:>7.1%} -{high:>6.1%}  {other}"
