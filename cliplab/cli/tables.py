"""What classify, detect and segment show in a terminal, as lines of text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cliplab import classification, detection, segmentation

MAX_LINES = 60  # of a printed table of pictures; the files have all


def aligned(rows: Sequence[Sequence[str]], *, text: int = 2, tail: int = 0) -> Iterator[str]:
    """Lines with `text` columns of text, then numbers, then `tail` columns of text.

    A Chinese character is two columns wide.
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    is_text = [i < text or i >= len(widths) - tail for i in range(len(widths))]
    for row in rows:
        gaps = [" " * (width - _width(cell)) for width, cell in zip(widths, row, strict=True)]
        cells = zip(row, gaps, is_text, strict=True)
        yield "  ".join(cell + gap if left else gap + cell for cell, gap, left in cells).rstrip()


def decimals(value: float | None) -> str:
    """Three decimals, or a dash for what is not known."""
    return "-" if value is None else f"{value:.3f}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


# ---- classify ------------------------------------------------------------------------------

MAX_MATRIX = 10  # classes in a printed confusion matrix; with more the pairs are listed


def classify_table(found: classification.Answer) -> Iterator[str]:
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


def classify_verdict(
    said: classification.Assessment, before: classification.Assessment | None = None
) -> Iterator[str]:
    """Accuracy and what it is worth, confusion, calibration; `before`: of the prompts alone."""
    guess, share = said.majority
    rows = [["accuracy", str(said.accuracy)]]
    if said.by_group and said.groups:
        (low, high), n = said.by_group, len(set(said.groups))
        few = ": too few to rely on" * (n < classification.FEW_GROUPS)
        rows.append(["  by group", f"{low:.3f}-{high:.3f} ({n} groups{few})"])
    if before:
        gain, least, most = classification.gained(before, said)
        rows.append(["  prompts alone", str(before.accuracy)])
        unsure = ": not decided" * (least <= 0 <= most)
        rows.append(["  gained", f"{gain:+.3f} ({least:+.3f} to {most:+.3f}{unsure})"])
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


def shuffled(said: classification.Assessment) -> str:
    """What the permuted-label control found, in words."""
    p = said.control.p_value
    usual = f"{said.control.chance_mean:.3f} on average"
    luck = "luck explains the accuracy" if p > 0.05 else "more than luck"
    return f"{usual}, p = {p:.2g}: {luck}"


def calibration(said: classification.Assessment) -> str:
    """Confidence against accuracy, in words."""
    return (
        f"{said.confidence:.1%} sure on average, {said.accuracy.value:.1%} right; calibration "
        f"error {said.reliability.error:.3f}; up to {said.error_by_luck:.3f} is luck"
    )


def _matrix(said: classification.Assessment) -> Iterator[str]:
    """Rows = true classes, columns = predicted ones, then the recall of each."""
    names = said.scores.class_names
    rows = [["true \\ predicted", *names, "recall"]]
    for k, name in enumerate(names):
        counts = [str(count) for count in said.confusion[k]]
        rows.append([name, *counts, str(said.recalls.get(name, "none there"))])
    yield from aligned(rows, text=1)


def _pairs(said: classification.Assessment) -> Iterator[str]:
    rows = [["true", "taken for", "times"]]
    rows += [[true, predicted, str(count)] for true, predicted, count in said.pairs()]
    yield from aligned(rows, text=2)


# ---- detect ---------------------------------------------------------------------------------


def detect_table(found: detection.Found) -> Iterator[str]:
    """One line per picture: how many boxes, of what."""
    rows = [["file", "boxes", "what"]]
    for picture, one in zip(found.pictures[:MAX_LINES], found.found, strict=False):
        counts = Counter(one.names).most_common()
        what = ", ".join(f"{count} {name}" for name, count in counts) or "nothing"
        rows.append([picture.name, str(len(one)), what])
    yield from aligned(rows, text=1, tail=1)
    if len(found) > MAX_LINES:
        yield f"... and {len(found) - MAX_LINES} more; --out JSON writes all"


def detect_classes(rows: Sequence[detection.Row], judged: detection.Judged | None) -> Iterator[str]:
    """One line per class: what was found and, where the truth is known, how well."""
    grouped = any(row.group for row in rows)
    head = ["label", *(["group"] * grouped), "boxes", "pictures", "mean score"]
    lines = [head + (["true", "hit", "wrong", "AP50", "AP"] if judged else [])]
    for row in rows:
        cells = [row.name, *([row.group] * grouped), str(row.boxes), str(row.pictures)]
        cells.append(decimals(row.score))
        if judged:
            cells += ["-" if n is None else str(n) for n in (row.true, row.hit, row.wrong)]
            cells += [decimals(row.ap50), decimals(row.ap)]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1 + grouped)


def detect_verdict(judged: detection.Judged) -> Iterator[str]:
    """Average precision of all and of the groups."""
    lines = [["", "classes", "AP50", "AP", "AR"]]
    for name, one in judged.groups.items():
        lines.append([name, str(one.categories), *map(decimals, (one.ap50, one.ap, one.ar))])
    yield ""
    yield from aligned(lines, text=1)
    pictures = len(judged.missed)
    yield (
        f"judged in {pictures} picture{'s' * (pictures != 1)}: AP over all answers, 100 a picture; "
        "hit and wrong at IoU 0.5 by the boxes that count"
    )


# ---- segment --------------------------------------------------------------------------------

_MAX_LABELS = 5  # named for one picture
_MEANS = {
    "miou": "mean IoU",
    "oracle_miou": "oracle mean IoU",
    "boundary_miou": "boundary mean IoU",
    "pixel_accuracy": "pixels right",
}
_ORACLE = "every group with its best true label: what the masks are worth, whatever they are called"


def segment_table(
    pictures: Sequence[segmentation.PictureRow], names: Sequence[str], judge: segmentation.Judge
) -> Iterator[str]:
    """One line per picture: groups in use, mean IoU where the truth is known, labels by share."""
    judged = bool(judge.pictures)
    lines = [["file", "groups", *(["IoU"] * judged), "labels"]]
    for one in pictures[:MAX_LINES]:
        held = [k for k, share in enumerate(one.shares) if share]
        order = sorted(held, key=lambda k: -one.shares[k])
        said = [f"{names[k]} {segmentation.percent(one.shares[k])}" for k in order[:_MAX_LABELS]]
        more = len(order) - _MAX_LABELS
        labels = ", ".join(said) + (f" and {more} more" if more > 0 else "")
        iou = [decimals(judge.pictures.get(one.path))] * judged
        lines.append([one.name, str(one.groups), *iou, labels])
    yield from aligned(lines, text=1, tail=1)
    if len(pictures) > MAX_LINES:
        yield f"... and {len(pictures) - MAX_LINES} more; --out FOLDER has all"


def segment_labels(rows: Sequence[segmentation.LabelRow], *, judged: bool) -> Iterator[str]:
    """One line per label: how much of it and, where the truth is known, how well."""
    head = ["label", "pixels", "pictures"]
    lines = [[*head, *(["truly", "IoU", "oracle", "boundary"] if judged else [])]]
    for row in rows:
        cells = [row.name, f"{row.share:.1%}", str(row.pictures)]
        if judged:
            true = "-" if row.true_share is None else f"{row.true_share:.1%}"
            cells += [true, *map(decimals, (row.iou, row.oracle_iou, row.boundary_iou))]
        lines.append(cells)
    yield ""
    yield from aligned(lines, text=1)


def segment_verdict(quality: segmentation.Quality, pictures: Mapping[Path, float]) -> Iterator[str]:
    """Means over the labels, and the worst confusions."""
    means = quality.means()
    lines = [[text, decimals(means[key])] for key, text in _MEANS.items()]
    yield ""
    for i, line in enumerate(aligned(lines, text=1)):
        yield line + (f"   {_ORACLE}" if i == 1 else "")
    known = sum(quality.of(k)["iou"] is not None for k in quality.known)
    yield (
        f"judged in {len(pictures)} picture{'s' * (len(pictures) != 1)}, over {known} "
        f"label{'s' * (known != 1)} that the truth knows and that occur"
    )
    for true, called, part in quality.confusions(5):
        yield f"  {part:.0%} of {true} is called {called}"
