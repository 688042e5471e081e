"""Files that `classify` leaves for other programs: the scores as CSV, the report as JSON."""

import argparse
import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.cli.classify.answer import Answer
from cliplab.cli.classify.assess import Assessment, gained
from cliplab.data import shown
from cliplab.report.gallery import most_wrong
from cliplab.runtime import atomic_write, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from cliplab.encoders import Encoder

WORST = 50  # mistakes listed in the JSON


def write_csv(path: Path, found: Answer) -> None:
    """One row per image: file, true class if known, predicted, its doubt, then each label."""
    scores, labels = found.scores, found.scores.class_names
    columns: dict[str, Tensor | None] = {
        "probability": scores.probability,
        "cosine": scores.cosine,
        "independent": None if scores.logit_bias is None else scores.independent,
    }
    blocks = {kind: block for kind, block in columns.items() if block is not None}
    known = any(t is not None for t in found.true)
    head = ["file", *(["true"] * known), "predicted", "probability", "margin", "entropy"]
    numbers = [scores.probability.amax(1)[:, None], scores.margin[:, None], scores.entropy[:, None]]
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, *(f"{kind}({label})" for kind in blocks for label in labels)])
        for i, (name, predicted) in enumerate(
            zip(found.names, scores.predicted_names, strict=True)
        ):
            t = found.true[i]
            truth = ["" if t is None else labels[t]] * known
            values = (x for block in (*numbers, *blocks.values()) for x in block[i].tolist())
            writer.writerow([name, *truth, predicted, *(f"{x:.6f}" for x in values)])


# ---- report --------------------------------------------------------------------------------


def write_report(
    args: argparse.Namespace, encoder: "Encoder", found: Answer, judged: Assessment | None
) -> None:
    """Parameters, provenance, counts, metrics and mistakes to --json."""
    from cliplab.report.provenance import versions

    task, scores = found.task, found.scores
    report = {
        "command": "classify",
        "versions": versions(),
        "parameters": parameters(args),
        "encoder": describe(encoder),
        "classes": [
            {"name": name, "prompt": prompt}
            for name, prompt in zip(task.classes.names, task.classes.prompts, strict=True)
        ],
        "counts": {
            "images": len(task.photos),
            "read": len(found.kept),
            "unreadable": len(found.unreadable),
            "labelled": sum(t is not None for t in found.true),
            "problems": len(task.problems),
        },
        "predicted": {name: scores.predicted_names.count(name) for name in scores.class_names},
        "few_shot": _few_shot(found, judged),
        "assessment": judged.as_dict() if judged else None,
        "most_wrong": _most_wrong(found),
        "notes": list(task.notes),
        "remarks": list(found.remarks),
        "problems": list(task.problems),
        "unreadable": [
            {"file": file, "cause": cause, "remedy": remedy}
            for file, (cause, remedy) in unreadable_files(found).items()
        ],
    }
    write_json(args.json, finite(report))


def describe(encoder: "Encoder") -> dict[str, Any]:
    """What was used to encode, so that somebody else can use the same."""
    return {
        "name": encoder.name,
        "provenance": dict(encoder.provenance),
        "fingerprint": encoder.fingerprint,
        "precision": encoder.precision,
        "dimensions": encoder.dim,
        "languages": list(encoder.languages),
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
    }


def parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The options as they were given; the command's own bookkeeping left out."""
    own = {key: value for key, value in vars(args).items() if key not in ("command", "debug")}
    return {key: shown(value) if isinstance(value, Path) else value for key, value in own.items()}


def _few_shot(found: Answer, judged: Assessment | None) -> dict[str, Any] | None:
    """How the classifier came to be, and what the prompts alone had reached."""
    if found.fitted is None:
        return None
    zero_shot = None
    if judged and (before := found.before):
        gain, low, high = gained(before, judged)
        zero_shot = {"accuracy": before.accuracy.as_dict(), "gain": [gain, low, high]}
    return {
        "choices": {key: _plain(value) for key, value in found.fitted.choices.items()},
        "examples": found.shots,
        "zero_shot": zero_shot,
    }


def _most_wrong(found: Answer) -> list[dict[str, Any]]:
    """The most confident mistakes, at most WORST."""
    names, scores, rows = found.scores.class_names, found.scores, []
    for i in most_wrong(scores, found.true)[:WORST]:
        k, t = int(scores.prediction[i]), found.true[i]
        true = names[t] if t is not None else None
        share = round(float(scores.probability[i, k]), 4)
        rows.append(
            {"file": found.names[i], "true": true, "predicted": names[k], "probability": share}
        )
    return rows


def _plain(value: Any) -> Any:
    """A choice of a classifier in JSON's types, as text where there is no better."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def unreadable_files(found: Answer) -> dict[str, tuple[str, str]]:
    """File -> cause and remedy, the file as it is called in the source."""
    names = {photo.path: photo.name for photo in found.task.photos if photo.box_xyxy is None}
    return {
        names.get(error.path, shown(error.path)): (error.cause, error.remedy)
        for error in found.unreadable
    }
