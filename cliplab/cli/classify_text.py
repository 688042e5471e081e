"""What `classify` shows in a terminal, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cliplab.cli.skeleton import MAX_LINES, aligned

if TYPE_CHECKING:
    from cliplab.classification import Answer, Assessment

FEW_GROUPS = 10  # with fewer the bootstrap is known to be too sure of itself
MAX_MATRIX = 10  # classes in a printed confusion matrix; with more the pairs are listed


def image_table(found: Answer) -> Iterator[str]:
    """One line per image, the worst mistakes first, then how many fell to each label."""
    scores, true, wrong = found.scores, found.true, found.mistakes
    known, mistaken = any(t is not None for t in true), set(wrong)
    order = wrong + [i for i in range(len(scores)) if i not in mistaken]
    columns = (scores.probability.amax(1), scores.margin, scores.relative_entropy)
    numbers = [column.tolist() for column in columns]
    predicted, names = scores.predicted_names, found.names
    lines = [["file", *(["true"] * known), "label", "probability", "margin", "entropy"]]
    for i in order[:MAX_LINES]:
        t = true[i]
        truth = ["" if t is None else scores.class_names[t]] * known
        lines.append([names[i], *truth, predicted[i], *(f"{column[i]:.1%}" for column in numbers)])
    yield from aligned(lines, text=2 + known)
    if len(scores) > MAX_LINES:
        first = "the worst mistakes are above; " if wrong else ""
        yield f"... and {len(scores) - MAX_LINES} more; {first}--out CSV writes all"
    counts = [f"{name} {predicted.count(name)}" for name in scores.class_names]
    yield f"\n{len(scores)} images: {', '.join(counts)}"


def verdict(said: Assessment, before: Assessment | None = None) -> Iterator[str]:
    """Accuracy and what it is worth, confusion, calibration; `before`: of the prompts alone."""
    from cliplab.classification import gained

    guess, share = said.majority
    rows = [["accuracy", str(said.accuracy)]]
    if said.by_group and said.groups:
        low, high = said.by_group
        rows.append(["  by group", f"{low:.3f}-{high:.3f} ({groups_of(said.groups)})"])
    if before:
        gain, least, most = gained(before, said)
        rows.append(["  prompts alone", str(before.accuracy)])
        rows.append(["  gained", f"{gain:+.3f} ({least:+.3f} to {most:+.3f})"])
    rows += [
        ["balanced accuracy", f"{said.balanced_accuracy:.3f}"],
        ["without looking", f"{share:.3f} by always saying {guess}"],
        ["shuffled truth", shuffled(said)],
        ["calibration", calibration(said)],
    ]
    yield ""
    yield from aligned(rows, text=2)
    yield ""
    yield from (_matrix if len(said.scores.class_names) <= MAX_MATRIX else _pairs)(said)


def groups_of(groups: Sequence[object]) -> str:
    """How many groups, and whether that is enough to resample them."""
    n = len(set(groups))
    return f"{n} groups" if n >= FEW_GROUPS else f"{n} groups: too few to rely on"


def shuffled(said: Assessment) -> str:
    """What the permuted-label control found, in words."""
    p = said.control.p_value
    usual = f"{said.control.chance_mean:.3f} on average"
    luck = "luck explains the accuracy" if p > 0.05 else "more than luck"
    return f"{usual}, p = {p:.2g}: {luck}"


def calibration(said: Assessment) -> str:
    """Confidence against accuracy, in words."""
    luck = said.error_by_luck
    by_luck = "" if luck is None else f"; up to {luck:.3f} is luck"
    return (
        f"{said.confidence:.1%} sure on average, {said.accuracy.value:.1%} right; "
        f"calibration error {said.calibration_error:.3f}{by_luck}"
    )


def _matrix(said: Assessment) -> Iterator[str]:
    """Rows = true classes, columns = predicted ones, then the recall of each."""
    names = said.scores.class_names
    rows = [["true \\ predicted", *names, "recall"]]
    for k, name in enumerate(names):
        counts = [str(count) for count in said.confusion[k]]
        rows.append([name, *counts, str(said.recalls.get(name, "none there"))])
    yield from aligned(rows, text=1)


def _pairs(said: Assessment) -> Iterator[str]:
    rows = [["true", "taken for", "times"]]
    rows += [[true, predicted, str(count)] for true, predicted, count in said.pairs()]
    yield from aligned(rows, text=2)
