"""The model with its words: what is asked of every picture, and in which colours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cliplab.cli.segment.arguments import ALL
from cliplab.cli.segment.prepare import Task
from cliplab.segmentation import Settings
from cliplab.segmentation.checkpoints import load
from cliplab.segmentation.colours import label_colours
from cliplab.segmentation.words import (
    as_options,
    language_of,
    make_vocabulary,
    own_templates,
    unread_remarks,
    usual_background,
)

if TYPE_CHECKING:
    from cliplab.segmentation import Segmenter, Vocabulary

_CHOSEN = ("top_words", "hard", "scales", "flip", "refine")  # what a model's card may choose


@dataclass(frozen=True, eq=False)
class Plan:
    """All that the work needs besides the pictures."""

    task: Task
    segmenter: Segmenter
    model: Mapping[str, Any]  # where it came from, of `checkpoints.load`
    vocabulary: Vocabulary
    settings: Settings
    notes: tuple[str, ...]  # what was assumed about words and model
    remarks: tuple[str, ...]  # what is likely wrong, with the remedy

    @property
    def words(self) -> list[list[str]]:
        """The words of each label, K lists."""
        pairs = list(zip(self.vocabulary.words, self.vocabulary.label_of, strict=True))
        every = range(len(self.vocabulary.names))
        return [[word for word, label in pairs if label == k] for k in every]

    @property
    def colours(self) -> tuple[str, ...]:
        """The colour of each label, K of "#RRGGBB"."""
        background = self.vocabulary.has_background
        return label_colours(self.vocabulary.names, self.words, has_background=background)


def read_settings(args: argparse.Namespace) -> Settings:
    """How a picture is read; templates are the model's own choice unless given.

    Raises:
        ValueError: numbers out of range, templates without {}.
    """
    top = str(Settings.top_words) if args.top_words is None else args.top_words
    if top != ALL and not top.isdecimal():
        raise ValueError(f"--top-words: got {top!r}; expected a whole number, 1 or more, or {ALL}")
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit: got {args.limit}; expected 1 or more")
    try:
        settings = Settings(
            threshold=args.threshold,
            top_words=None if top == ALL else int(top),
            side=args.side,
        )
        names = ("templates", "scales", "flip", "refine")
        given = {name: getattr(args, name) for name in names}
        return replace(settings, **{k: v for k, v in given.items() if v is not None})
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error


def make_plan(args: argparse.Namespace, task: Task, settings: Settings, *, offline: bool) -> Plan:
    """Load the model and give it the words.

    Raises:
        FileNotFoundError: no such model; how to get it.
        ValueError: another model, words that it cannot tell apart or take.
    """
    segmenter, about = load(args.model, device=args.device, offline=offline)
    background, notes = task.background, list[str]()
    if task.usual:
        background = usual_background(segmenter, task.labels)
        notes.append(f"words for the background: {', '.join(background) or 'none that it reads'}")
    vocabulary = make_vocabulary(task.labels, background)
    about = dict(about)
    chosen = about.pop("readings", {}).get(language_of(task.labels), {})
    settings, said = _as_chosen(args, settings, chosen)
    notes += said
    if not args.templates:
        templates = own_templates(segmenter, vocabulary, best=chosen.get("templates"))
        settings = replace(settings, templates=templates)
    try:
        segmenter.embed(vocabulary.words, settings.templates)
        _check_side(segmenter, settings)
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error
    notes += _on_groups(about, len(vocabulary.names))
    remarks = tuple(unread_remarks(segmenter, vocabulary))
    return Plan(task, segmenter, about, vocabulary, settings, tuple(notes), remarks)


def _as_chosen(
    args: argparse.Namespace, settings: Settings, chosen: Mapping[str, Any]
) -> tuple[Settings, list[str]]:
    """What the model's card chose on val, for all that the command line leaves open; and a note."""
    free = {name: chosen[name] for name in _CHOSEN if name in chosen and _is_open(args, name)}
    if not free:
        return settings, []
    settings = replace(settings, **free)
    top, scales = settings.top_words or ALL, " ".join(f"{x:g}" for x in settings.scales)
    said = {
        "top_words": f"--top-words {top}",
        "scales": f"--scales {scales}",
        "flip": "--flip" if settings.flip else "--no-flip",
        "refine": f"--refine {settings.refine}",
    }
    options = " ".join(text for name, text in said.items() if name in free)
    return settings, [f"{options}: what the model's card says was best on val"] if options else []


def _is_open(args: argparse.Namespace, name: str) -> bool:
    """Whether the command line says nothing of a setting; some have no option."""
    return getattr(args, name, None) is None


def _check_side(segmenter: Segmenter, settings: Settings) -> None:
    patch = segmenter.model.config.patch_size
    if settings.side is not None and settings.side % patch:
        raise ValueError(
            f"side: got {settings.side} px; expected a multiple of the model's patch, {patch}"
        )


def _on_groups(about: Mapping[str, Any], labels: int) -> Sequence[str]:
    groups = about["groups"]
    if groups is None or labels <= groups:
        return []
    return [
        f"{labels} labels for a model with {groups} groups: a window shows {groups} of them at most"
    ]
