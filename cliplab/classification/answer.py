"""What was found out about photos: their scores, how right they are, as rows and as a report."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cliplab.classification.assessment import Assessment, assess, gained
from cliplab.classification.few_shot import Classifier
from cliplab.classification.labels import Classes
from cliplab.classification.scores import Scores
from cliplab.data import Sample, SampleSet, UnreadableImage
from cliplab.runtime import atomic_write

WORST = 50  # mistakes listed in a report


def group_of(photo: Sample) -> str | None:
    """Its group; boxes without one belong together by file, whole photos are on their own."""
    return photo.group or (photo.path.as_posix() if photo.box_xyxy else None)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found out about those of N photos that can be read."""

    photos: SampleSet  # N
    classes: Classes  # K
    kept: tuple[int, ...]  # M rows of the photos
    true: tuple[int | None, ...]  # M class indices, None where unknown
    scores: Scores  # (M, K)
    unreadable: tuple[UnreadableImage, ...] = ()  # among photos and examples
    zero_shot: Scores | None = None  # (M, K) by the prompts, where a classifier was fitted
    classifier: Classifier | None = None  # the classifier, if one was fitted or given
    shots: dict[str, dict[str, int]] = field(default_factory=dict)  # part -> class -> examples
    remarks: tuple[str, ...] = ()  # of the diagnosis

    @property
    def names(self) -> list[str]:
        """M names to show."""
        return [self.photos[i].name for i in self.kept]

    @property
    def groups(self) -> list[str | None]:
        """M groups; photos of one group are not independent."""
        return [group_of(self.photos[i]) for i in self.kept]

    @cached_property
    def judged(self) -> Assessment | None:
        """How right the answers are; None if no class is known."""
        return assess(self.scores, self.true, self.groups)

    @cached_property
    def before(self) -> Assessment | None:
        """What the prompts alone reach, where a classifier was fitted and the truth is known."""
        return assess(self.zero_shot, self.true, self.groups) if self.zero_shot else None

    @property
    def mistakes(self) -> list[int]:
        """Rows whose prediction is wrong, the most confident one first."""
        share = self.scores.probability.amax(dim=1).tolist()
        predicted = self.scores.prediction.tolist()
        wrong = [i for i, t in enumerate(self.true) if t is not None and t != predicted[i]]
        return sorted(wrong, key=lambda i: -share[i])

    def as_dict(self) -> dict[str, Any]:
        """What was predicted, learned, judged and mistaken, as plain values for JSON."""
        said = self.scores.predicted_names
        return {
            "predicted": {name: said.count(name) for name in self.scores.class_names},
            "few_shot": self._few_shot(),
            "assessment": self.judged.as_dict() if self.judged else None,
            "most_wrong": [self._mistake(i) for i in self.mistakes[:WORST]],
        }

    def _few_shot(self) -> dict[str, Any] | None:
        """How the classifier came to be, and what the prompts alone had reached."""
        if self.classifier is None:
            return None
        zero_shot, plain = None, str | int | float | bool | None
        if self.judged and self.before:
            gain, low, high = gained(self.before, self.judged)
            zero_shot = {"accuracy": self.before.accuracy.as_dict(), "gain": [gain, low, high]}
        choices = {
            key: value if isinstance(value, plain) else str(value)
            for key, value in self.classifier.choices.items()
        }
        return {"choices": choices, "examples": self.shots, "zero_shot": zero_shot}

    def _mistake(self, i: int) -> dict[str, Any]:
        names, k, t = self.scores.class_names, int(self.scores.prediction[i]), self.true[i]
        return {
            "file": self.names[i],
            "true": None if t is None else names[t],
            "predicted": names[k],
            "probability": round(float(self.scores.probability[i, k]), 4),
        }

    def write_csv(self, path: Path) -> None:
        """One row per photo: file, true class if known, predicted, its doubt, then each class."""
        scores, labels = self.scores, self.scores.class_names
        blocks = {"probability": scores.probability}
        blocks |= {} if scores.cosine is None else {"cosine": scores.cosine}
        blocks |= {} if scores.logit_bias is None else {"independent": scores.independent}
        known = any(t is not None for t in self.true)
        doubt = [scores.probability.amax(1), scores.margin, scores.entropy]
        numbers = [column[:, None] for column in doubt]
        head = ["file", *(["true"] * known), "predicted", "probability", "margin", "entropy"]
        with atomic_write(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*head, *(f"{kind}({label})" for kind in blocks for label in labels)])
            for i, (name, predicted) in enumerate(
                zip(self.names, scores.predicted_names, strict=True)
            ):
                t = self.true[i]
                truth = ["" if t is None else labels[t]] * known
                values = (x for block in (*numbers, *blocks.values()) for x in block[i].tolist())
                writer.writerow([name, *truth, predicted, *(f"{x:.6f}" for x in values)])
