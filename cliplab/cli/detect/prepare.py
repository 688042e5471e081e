"""What is to be done: which pictures, which words, which boxes are given, what will be judged."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from cliplab.classification import Classes
from cliplab.cli.legacy import as_options
from cliplab.data import Problem, lacks_pictures, shown
from cliplab.detection.phrases import relating_words
from cliplab.detection.pictures import Pictures, read_boxes, read_pictures
from cliplab.detection.settings import MODELS, parse_model
from cliplab.detection.words import (
    background_note,
    match,
    overlap_note,
    phrases_note,
    read_labels,
)
from cliplab.models.glip import Prompt

OWN = "source"  # --boxes source: those of SOURCE itself


@dataclass(frozen=True, eq=False)
class Task:
    """Pictures and words, and what is known before any picture is opened."""

    pictures: Pictures  # with the boxes to judge by
    classes: Classes
    given: Mapping[Path, Tensor] | None = None  # path -> (R, 4) px: boxes to name
    problems: tuple[Problem, ...] = ()  # what was clipped or skipped
    notes: tuple[str, ...] = ()  # what was assumed, for the user to check
    can_judge: bool = True  # False: a sentence asks for some of what the source knows

    @property
    def lacks_pictures(self) -> bool:
        """Whether the source names pictures that are not there."""
        return lacks_pictures(self.problems)


def prepare(args: argparse.Namespace, phrases: Prompt | None = None) -> Task:
    """Read the pictures, the boxes and the words that the arguments name.

    Args:
        args: of the command.
        phrases: the prompt of --phrases, which are looked for instead of --labels.

    Raises:
        ValueError, OSError: a source that cannot be read, has no pictures, or does not fit.
    """
    try:
        pictures = read_pictures(args.source, kind=args.kind, images=args.images)
        pictures = pictures.select(args.split) if args.split else pictures
        given, pictures, notes = _given(args, pictures)
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error
    if phrases:
        classes = Classes(phrases.phrases, phrases.phrases)
        notes += [phrases_note(args.phrases), overlap_note(phrases)]
    else:
        classes = read_labels(args.labels, pictures.class_names)
    notes += [*pictures.notes, classes.note]
    can_judge = not (phrases and relating_words(phrases))
    truth = _on_truth(args, pictures, classes, can_judge=can_judge)
    notes += [background_note(classes), truth]
    problems = tuple(dict.fromkeys(pictures.problems))
    notes = list(dict.fromkeys(filter(None, notes)))
    return Task(pictures, classes, given, problems, tuple(notes), can_judge)


def _given(
    args: argparse.Namespace, pictures: Pictures
) -> tuple[dict[Path, Tensor] | None, Pictures, list[str]]:
    """Boxes to name, pictures with the truth that is known then, and what is to be said.

    Raises:
        ValueError: no boxes where some were promised.
    """
    if args.boxes is None:
        return None, pictures, []
    if args.boxes == OWN:
        if not pictures.boxes:
            raise ValueError(
                f"--boxes {OWN}: {shown(args.source)} has no boxes; give the file that has them, "
                "or leave out --boxes and some are found"
            )
        return {one.path: one.boxes_xyxy for one in pictures}, pictures, []
    given, told = read_boxes(args.boxes, pictures)
    bare = [one.name for one in pictures if not len(given.get(one.path, ()))]
    notes = [f"{len(bare)} pictures have no box in {args.boxes}, so that nothing is named there"]
    if not pictures.boxes:  # then the file is all that is known of them
        pictures = _told(pictures, told)
    problems = (*pictures.problems, *told.problems)
    return given, replace(pictures, problems=problems), notes if bare else []


def _told(pictures: Pictures, told: Pictures) -> Pictures:
    """The pictures with boxes and labels of another source, where that speaks of them."""
    by_path = {one.path.resolve(): one for one in told}
    known = []
    for one in pictures:
        other = by_path.get(one.path.resolve())
        known.append(replace(other, path=one.path, name=one.name) if other else one)
    return replace(pictures, pictures=tuple(known), notes=(*pictures.notes, *told.notes))


def _on_truth(
    args: argparse.Namespace, pictures: Pictures, classes: Classes, *, can_judge: bool
) -> str:
    """Whether boxes of the source will judge, and why not; "" if it has none."""
    names = pictures.class_names
    if not names:
        return ""
    asked = match(classes, names)
    if not asked:
        return (
            f"not judged: none of the labels is a class of the boxes ({_some(names)}); name them "
            f'as they are called, as in --labels {names[0]}="what it looks like"'
        )
    if not can_judge:
        return (
            f"not judged: the sentence asks for some {_some(list(asked))}, the source knows all; "
            "a list is judged, with a comma between its phrases"
        )
    left = [name for name in names if name not in asked]
    others = f"; boxes of {_some(left)} were not asked for and count as nothing" if left else ""
    names_them = not args.boxes and MODELS[parse_model(args.model)[0]].takes_boxes
    found = " (--boxes source names them, instead of finding some)" if names_them else ""
    count = len(set(asked.values()))
    return (
        f"the source knows boxes of {count} of the {len(classes.names)} labels, by which the "
        f"answer is judged{found}{others}"
    )


def _some(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
