"""What is done with a picture while it is open: judged, written, made small for the page."""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping
from pathlib import Path

from cliplab.cli.files import refuse_inputs
from cliplab.cli.legacy import named_inputs
from cliplab.cli.segment.outputs import (
    SUMMARY,
    Files,
    check_targets,
    picture_targets,
    save_labels,
    save_png,
)
from cliplab.cli.segment.page import Card, choose_pictures, make_card
from cliplab.cli.segment.plan import Plan
from cliplab.cli.segment.prepare import Task
from cliplab.data import shown
from cliplab.segmentation.finding import Seen
from cliplab.segmentation.judging import Judge
from cliplab.segmentation.panoptic import Panoptic, folder_of


def find_targets(args: argparse.Namespace, task: Task) -> dict[str, dict[Path, Files]]:
    """Option -> path of a picture -> its files; {} for what was not asked for.

    Raises:
        ValueError, OSError: files that cannot be written, or that would replace something.
    """
    found: dict[str, dict[Path, Files]] = {"--out": {}, "--panoptic": {}}
    if args.out:
        refuse_inputs("--out", args.out / SUMMARY, named_inputs(args))
        found["--out"] = picture_targets(args.out, task.pictures.pictures, option="--out")
        _refuse_masks(found["--out"], task.masks, "--out")
        check_targets(args.out, found["--out"], "--out", force=args.force)
    if args.panoptic:
        folder = folder_of(args.panoptic)
        found["--panoptic"] = picture_targets(
            folder, task.pictures.pictures, option="--panoptic", endings=(".png",)
        )
        _refuse_masks(found["--panoptic"], task.masks, "--panoptic")
        if folder.resolve() in {args.source.resolve(), task.pictures.root.resolve()}:
            raise ValueError(
                f"--panoptic {args.panoptic}: its PNGs would go to {shown(folder)}, among the "
                "pictures of SOURCE; choose another name"
            )
        check_targets(folder, found["--panoptic"], "--panoptic", force=args.force)
    return found


def _refuse_masks(targets: Mapping[Path, Files], masks: Container[Path], option: str) -> None:
    """Refuse label PNGs in the place of the known ones; no --force allows that."""
    for path in (path for some in targets.values() for path in some):
        if path.resolve() in masks:
            raise ValueError(
                f"{option}: would overwrite {shown(path)}, a mask of the truth, with --force too; "
                "choose another name"
            )


class Keeper:
    """Called with every picture; keeps what is small."""

    def __init__(
        self, args: argparse.Namespace, plan: Plan, targets: Mapping[str, Mapping[Path, Files]]
    ) -> None:
        self.plan, self.targets = plan, targets
        self.judge = Judge(plan.task.truth, plan.vocabulary)
        self.cards: dict[Path, Card] = {}
        paths = [one.path for one in plan.task.pictures] if args.html else []
        self._wanted, self._side = choose_pictures(paths)
        self._colours = plan.colours
        self.panoptic = (
            Panoptic(args.panoptic, plan.vocabulary.names, self._colours) if args.panoptic else None
        )

    def __call__(self, seen: Seen) -> None:
        """Judge, write and shrink one picture."""
        true = self.judge.add(seen)
        path, colours = seen.picture.path, self._colours
        if files := self.targets["--out"].get(path):
            from cliplab.segmentation.overlay import figure

            names = self.plan.vocabulary.names
            save_labels(files[0], seen.labels, colours)
            save_png(files[1], figure(seen.image, seen.labels, names, colours))
        if self.panoptic:
            self.panoptic.add(seen.picture, seen.labels, self.targets["--panoptic"][path][0])
        if path in self._wanted:
            known = None if true is None else true.numpy()
            self.cards[path] = make_card(
                seen.image, seen.labels, colours, side=self._side, true=known
            )
