"""The command itself: check, prepare, segment, judge, show, write."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.cli.files import check_outputs
from cliplab.cli.legacy import named_inputs
from cliplab.cli.skeleton import SOME_UNREADABLE, complain, plain_warnings
from cliplab.runtime import is_offline, write_json

if TYPE_CHECKING:
    from cliplab.cli.segment.keeping import Keeper
    from cliplab.cli.segment.outputs import Result


def run(args: argparse.Namespace) -> int:
    """Label the pixels of the source, print the tables, write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad labels, source, outputs or model; with the remedy.
    """
    outputs = {"--panoptic": args.panoptic, "--html": args.html, "--json": args.json}
    check_outputs(outputs, force=args.force, inputs=named_inputs(args))
    from cliplab.cli.segment.keeping import Keeper, find_targets
    from cliplab.cli.segment.outputs import remove_former
    from cliplab.cli.segment.plan import make_plan, read_settings
    from cliplab.cli.segment.prepare import prepare

    settings = read_settings(args)
    task = prepare(args)
    complain("problem", task.problems)
    complain("note", task.notes)
    targets = find_targets(args, task)
    with plain_warnings():
        offline = is_offline(True if args.offline else None)
        plan = make_plan(args, task, settings, offline=offline)
        complain("note", plan.notes)
        complain("remark", plan.remarks)
        if args.out and args.force:
            own = {one.path.resolve() for one in task.pictures}
            remove_former(args.out, keep=own)
        keeper = Keeper(args, plan, targets)
        result = segment(args, keeper)
    complain("note", [result.truth_note] * bool(result.truth_note))
    complain("problem", task.truth.problems)
    complain("unreadable", [str(error) for error in result.found.unreadable])
    show(result)
    write(args, result, keeper)
    return SOME_UNREADABLE if result.found.unreadable or task.lacks_pictures else 0


def segment(args: argparse.Namespace, keeper: Keeper) -> Result:
    """Every picture, and what came of all.

    Raises:
        ValueError: no picture could be read.
    """
    from cliplab.cli.segment.outputs import Result
    from cliplab.cli.segment.summary import summarise
    from cliplab.segmentation.finding import segment_all

    plan = keeper.plan
    found = segment_all(
        plan.segmenter,
        plan.task.pictures,
        plan.vocabulary,
        plan.settings,
        on_seen=keeper,
        progress=sys.stderr.isatty(),
    )
    if not len(found):
        complain("unreadable", [str(error) for error in found.unreadable])
        count = len(plan.task.pictures)
        raise ValueError(f"none of the {count} images in {args.source} could be read")
    judged = keeper.judge.result()
    rows = summarise(found, judged, plan.words, plan.colours)
    return Result(
        plan, found, rows, judged, folder=args.out or Path(), targets=keeper.targets["--out"]
    )


def show(result: Result) -> None:
    """Print the pictures, the labels and, where the truth is known, the verdict."""
    from cliplab.cli.segment.terminal import label_table, picture_table, verdict

    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in picture_table(result.found, result.judged):
        print(line)
    for line in label_table(result.rows, result.judged):
        print(line)
    for line in verdict(result.judged) if result.judged else []:
        print(line)


def write(args: argparse.Namespace, result: Result, keeper: Keeper) -> None:
    """Write the files about all pictures, each whole or not at all; the summary comes last."""
    from cliplab.cli.segment.outputs import SUMMARY, report
    from cliplab.cli.segment.page import write_gallery

    if keeper.panoptic:
        keeper.panoptic.write()
    if args.html:
        write_gallery(args, result, keeper.cards)
    summary = report(args, result) if args.json or args.out else {}
    if args.json:
        write_json(args.json, summary)
    if args.out:
        write_json(args.out / SUMMARY, summary)
