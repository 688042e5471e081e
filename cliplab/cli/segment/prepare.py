"""What is to be done: which pictures, which labels, what will be judged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cliplab.cli.legacy import as_options
from cliplab.data import Problem, ProblemKind, lacks_pictures
from cliplab.detection.pictures import Pictures, read_pictures
from cliplab.segmentation.truth import Numbers, Truth, match
from cliplab.segmentation.truth_sources import read_truth, without_outputs
from cliplab.segmentation.words import (
    Labels,
    background_note,
    make_vocabulary,
    read_background,
    read_labels,
)

# What a reader of boxes says, which masks do not need.
_NOT_HERE = (ProblemKind.CROWD, ProblemKind.NO_BOX)


@dataclass(frozen=True, eq=False)
class Task:
    """Pictures and words, and what is known before any picture is opened."""

    pictures: Pictures
    labels: Labels
    background: tuple[str, ...] | None  # its words; () by threshold alone; None: there is none
    usual: bool = False  # the usual background words are wanted, which depend on the model
    truth: Truth = field(default_factory=Truth)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()  # what was assumed, for the user to check
    left: str = ""  # which classes of the masks were not asked for, for `truth_note`
    masks: frozenset[Path] = frozenset()  # label PNGs of the truth, resolved, judged by or not

    @property
    def lacks_pictures(self) -> bool:
        """Whether the source names pictures that are not there."""
        return lacks_pictures(self.problems)


def prepare(args: argparse.Namespace) -> Task:
    """Read the pictures, the truth and the words that the arguments name.

    Raises:
        ValueError, OSError: a source that cannot be read, has no pictures, or does not fit.
    """
    try:
        pictures = read_pictures(args.source, kind=args.kind, images=args.images)
        pictures = without_outputs(pictures, chosen=args.source)
        pictures = pictures.select(args.split) if args.split else pictures
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error
    if args.limit is not None:
        pictures = replace(pictures, pictures=pictures.pictures[: args.limit])
    truth = read_truth(
        args.source, pictures, kind=args.kind, images=args.images, truth=args.truth
    )  # fmt: skip
    labels = read_labels(args.labels, truth.names)
    background, usual = read_background(args.background, args.threshold)
    note = background_note(labels)
    problems = [p for p in pictures.problems if p.kind not in _NOT_HERE]
    notes = [*truth.notes, *([note] if note else [])]
    task = Task(
        pictures, labels, background, usual, truth, tuple(dict.fromkeys(problems)), tuple(notes)
    )
    judged, said = _on_truth(task)  # and refuses words before a model is loaded
    notes += [said] if said and not judged else []
    masks = {one.path.resolve() for one in truth.by_path.values() if isinstance(one, Numbers)}
    truth = truth if judged else Truth()
    task = replace(task, truth=truth, masks=frozenset(masks), left=said if judged else "")
    return replace(task, notes=tuple(notes))


def truth_note(task: Task, judged: int) -> str:
    """Of how many pictures the masks are known, and how many judged; "" if of none.

    Said when all is done: a mask that does not fit is found only when it is drawn.
    """
    if not task.truth:
        return ""
    known = f"masks of {len(task.truth)} of the {len(task.pictures)} pictures are known"
    if judged == len(task.truth):
        return f"{known}, by which the answer is judged{task.left}"
    return f"{known}; the answer is judged by {judged or 'none'} of them{task.left}"


def _on_truth(task: Task) -> tuple[bool, str]:
    """Whether masks will judge, and of which classes not, or why not at all.

    Raises:
        ValueError: words that cannot be meant.
    """
    vocabulary = make_vocabulary(task.labels, ("?",) if task.usual else task.background)
    truth = task.truth
    if not truth:
        boxes = task.pictures.boxes
        return False, "not judged: the source has boxes, but no masks" if boxes else ""
    if not truth.names:
        return True, ""
    asked = match(vocabulary, truth.names)
    if not any(k >= vocabulary.has_background for k in asked.values()):
        return False, (
            f"not judged: none of the labels is a class of the masks ({_some(truth.names)}); name "
            f"them as they are called, as in --labels {truth.names[0]}=WORD"
        )
    left = [name for name in truth.names if name not in asked]
    how = "count as background" if vocabulary.has_background else "are left out"
    others = f"; pixels of {_some(left)} were not asked for and {how}" if left else ""
    bare = "" if vocabulary.has_background else ", and so are pixels without a mask"
    return True, f"{others}{bare if left else ''}"


def _some(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
