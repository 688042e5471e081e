"""What was found out about photos: their scores, how right they are, as rows and as a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliplab.classification.diagnosis import Control, permuted_label_control
from cliplab.classification.few_shot import Classifier
from cliplab.classification.metrics import (
    Rate,
    Reliability,
    accuracy,
    bootstrap_interval,
    brier_score,
    confusion,
    error_by_luck,
    negative_log_likelihood,
    recall_per_class,
    reliability,
)
from cliplab.classification.prompts import Classes
from cliplab.classification.zero_shot import Scores
from cliplab.data import Sample, SampleSet, UnreadableImage
from cliplab.runtime import atomic_write

FEW_GROUPS = 10  # images or groups: with fewer the bootstrap is known to be too sure of itself


@dataclass(frozen=True, eq=False)
class Assessment:
    """Scores of n images against their true classes; numbers are computed when asked for."""

    scores: Scores  # of the n images whose class is known
    true: tuple[int, ...]  # n class indices
    groups: tuple[str | int | None, ...] | None = None  # n; None when every image is one of its own

    @cached_property
    def predicted(self) -> list[int]:
        """Predicted class of each image (n,)."""
        return self.scores.prediction.tolist()

    @cached_property
    def accuracy(self) -> Rate:
        """Share of right answers, with the interval of n independent images."""
        return accuracy(self.predicted, self.true)

    @cached_property
    def by_group(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the accuracy over whole groups; None without groups."""
        if self.groups is None or len(set(self.groups)) < 2:
            return None
        hits = [float(p == t) for p, t in zip(self.predicted, self.true, strict=True)]
        return bootstrap_interval(hits, groups=self.groups)

    @cached_property
    def recalls(self) -> dict[str, Rate]:
        """Share of each class that was found, with interval; without classes that do not occur."""
        return recall_per_class(self.predicted, self.true, self.scores.class_names)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that occur: what accuracy is when all are as frequent."""
        return float(np.mean([recall.value for recall in self.recalls.values()]))

    @cached_property
    def majority(self) -> tuple[str, float]:
        """The most frequent class, and the accuracy of always guessing it."""
        k, count = Counter(self.true).most_common(1)[0]
        return self.scores.class_names[k], count / len(self.true)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (K, K): row = true class, column = predicted class."""
        return confusion(self.predicted, self.true, self.scores.class_names)

    @cached_property
    def control(self) -> Control:
        """Accuracy against shuffled truth: what prior preferences alone would get."""
        return permuted_label_control(self.predicted, self.true)

    @cached_property
    def error_by_luck(self) -> float:
        """Calibration error that perfect probabilities would rarely exceed."""
        return error_by_luck(self.scores.probability)

    @cached_property
    def reliability(self) -> Reliability:
        """Confidence and accuracy in bins of confidence, and the calibration error."""
        return reliability(self.scores.probability, self.true)

    @property
    def confidence(self) -> float:
        """Mean probability of the predicted class."""
        return float(self.scores.probability.amax(dim=1).mean())

    def pairs(self) -> list[tuple[str, str, int]]:
        """(true class, predicted class, count) of the most frequent confusions, at most ten."""
        names, pairs = self.scores.class_names, zip(self.true, self.predicted, strict=True)
        mistakes = Counter((names[t], names[p]) for t, p in pairs if t != p)
        return [(t, p, count) for (t, p), count in mistakes.most_common(10)]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        names, probability, grouped = self.scores.class_names, self.scores.probability, None
        if self.by_group and self.groups:
            low, high = (round(value, 4) for value in self.by_group)
            grouped = {"low": low, "high": high, "groups": len(set(self.groups))}
        log_loss = negative_log_likelihood(probability, self.true)
        return {
            "n": len(self.true),
            "accuracy": self.accuracy.as_dict(),
            "accuracy_by_group": grouped,
            "balanced_accuracy": round(self.balanced_accuracy, 4),
            "majority": dict(zip(("class", "accuracy"), self.majority, strict=True)),
            "recall": {name: recall.as_dict() for name, recall in self.recalls.items()},
            "confusion": {"classes": list(names), "true_by_predicted": self.confusion.tolist()},
            "permuted_labels": {"p_value": round(self.control.p_value, 5)},
            "mean_confidence": round(self.confidence, 4),
            "expected_calibration_error": round(self.reliability.error, 4),
            "brier_score": round(brier_score(probability, self.true), 4),
            "negative_log_likelihood": round(log_loss, 4),
        }


def assess(
    scores: Scores, true: Sequence[int | None], groups: Sequence[str | None]
) -> Assessment | None:
    """Judge the rows of N images whose class index is known; None if there are none.

    Images of one group are not independent; None is a group of its own.
    """
    rows = [i for i, t in enumerate(true) if t is not None]
    if not rows:
        return None
    own = tuple(i if groups[i] is None else groups[i] for i in rows)
    shared = own if len(set(own)) < len(rows) else None
    return Assessment(scores.subset(rows), tuple(t for t in true if t is not None), shared)


def gained(before: Assessment, after: Assessment) -> tuple[float, float, float]:
    """Accuracy of `after` less that of `before` on the same images, with its 95 % interval.

    Fewer than FEW_GROUPS images or groups are joined by one that gained and one that lost, since
    equal steps would give an interval of no width (A. Agresti, Y. Min, Statistics in Medicine 24,
    2005).
    """
    right = [(np.array(one.predicted) == one.true).astype(float) for one in (before, after)]
    steps = right[1] - right[0]  # (n,)
    gain, groups = float(steps.mean()), after.groups
    if len(set(groups or range(len(steps)))) < FEW_GROUPS:
        steps, groups = np.array([*steps, 1.0, -1.0]), groups and (*groups, None, None)
    return gain, *bootstrap_interval(steps, groups=groups)


# ---- the answer ----------------------------------------------------------------------------

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

    @cached_property
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
        said, names = self.scores.predicted_names, self.scores.class_names
        share = self.scores.probability.amax(dim=1).tolist()  # M
        wrong = [
            {
                "file": self.names[i],
                "true": names[self.true[i] or 0],  # known, else it were no mistake
                "predicted": said[i],
                "probability": round(share[i], 4),
            }
            for i in self.mistakes[:WORST]
        ]
        return {
            "predicted": {name: said.count(name) for name in names},
            "few_shot": self._few_shot(),
            "assessment": self.judged.as_dict() if self.judged else None,
            "most_wrong": wrong,
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

    def write_csv(self, path: Path) -> None:
        """One row per photo: file, true class if known, predicted, its doubt, then each class."""
        import pandas as pd

        scores, labels = self.scores, self.scores.class_names
        columns: dict[str, Any] = {"file": self.names}
        if self.judged:
            columns["true"] = [None if t is None else labels[t] for t in self.true]
        columns["predicted"] = scores.predicted_names
        numbers = {"probability": scores.probability.amax(1), "margin": scores.margin}
        numbers["entropy"] = scores.entropy
        blocks = {"probability": scores.probability}
        blocks |= {} if scores.cosine is None else {"cosine": scores.cosine}
        blocks |= {} if scores.logit_bias is None else {"independent": scores.independent}
        for kind, block in blocks.items():
            numbers |= {f"{kind}({label})": block[:, k] for k, label in enumerate(labels)}
        columns |= {name: values.numpy() for name, values in numbers.items()}
        with atomic_write(path, "w") as file:
            pd.DataFrame(columns).to_csv(
                file, index=False, float_format="%.6f", lineterminator="\n"
            )
