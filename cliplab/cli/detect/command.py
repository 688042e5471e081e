"""The command itself: check, prepare, find, judge, show, write."""

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.cli.files import check_outputs
from cliplab.cli.legacy import named_inputs
from cliplab.cli.skeleton import SOME_UNREADABLE, complain, plain_warnings
from cliplab.detection.settings import MODELS, Cut, Settings, check_settings, parse_model
from cliplab.runtime import atomic_write, is_offline, write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from cliplab.cli.detect.prepare import Task
    from cliplab.detection.boxes import Detections
    from cliplab.detection.finding import Detector, Found
    from cliplab.detection.judging import Judged
    from cliplab.detection.pictures import Picture
    from cliplab.detection.words import Query
    from cliplab.models.glip import Prompt


def run(args: argparse.Namespace) -> int:
    """Find the labels in the source, print the tables and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad labels, source, outputs or model; with the remedy.
    """
    cut, settings, phrases = check_arguments(args)
    from cliplab.cli.detect.prepare import prepare
    from cliplab.detection.finding import find, load_detector
    from cliplab.detection.judging import judge

    task = prepare(args, phrases)
    complain("problem", task.problems)
    complain("note", task.notes)
    targets = _picture_targets(args, task)
    with plain_warnings():
        detector = load_detector(args.model, settings)
        query = detector.read(phrases or task.classes)
        complain("note", list(query.notes))
        complain("remark", list(query.remarks))
        thumbnails: dict[Path, str] = {}
        found = find(
            detector,
            task.pictures,
            query,
            cut,
            given=task.given,
            on_found=_keeper(args, task, targets, thumbnails),
            progress=sys.stderr.isatty(),
        )
    complain("unreadable", [str(error) for error in found.unreadable])
    if not len(found):
        raise ValueError(f"none of the {len(task.pictures)} images in {args.source} could be read")
    judged = judge(found, query) if task.can_judge else None
    show(found, query, judged)
    write(args, task, detector, query, found, judged=judged, thumbnails=thumbnails)
    return SOME_UNREADABLE if found.unreadable or task.lacks_pictures else 0


def check_arguments(args: argparse.Namespace) -> "tuple[Cut, Settings, Prompt | None]":
    """Refuse what cannot be meant, before anything is read.

    Raises:
        ValueError, OSError: options that exclude each other, outputs that cannot be written.
    """
    name, _ = parse_model(args.model)
    if args.boxes is not None and not MODELS[name].takes_boxes:
        raise ValueError(f"--boxes: the model {name} finds its own; drop --boxes")
    phrases = _phrases(args, name)
    settings = Settings(
        teacher=args.teacher,
        template=tuple(args.template) if args.template else None,
        truncate=args.truncate,
        base=tuple(args.base),
        novel=tuple(args.novel),
        head=args.head,
        scales=tuple(args.scales) if args.scales else None,
        aggregate=args.aggregate,
        precision=args.precision,
        vocab=args.vocab,
        score=args.score,
        iou=args.iou,
        all_names=args.all_names,
        top=args.top,
        batch_size=args.batch_size,
        device=args.device,
        offline=is_offline(True if args.offline else None),
    )
    check_settings(name, settings)
    outputs = {"--out": args.out, "--html": args.html, "--json": args.json}
    check_outputs(outputs, force=args.force, inputs=named_inputs(args))
    return settings.cut(given=args.boxes is not None), settings, phrases


def _phrases(args: argparse.Namespace, name: str) -> "Prompt | None":
    """The prompt of --phrases; None without.

    Raises:
        ValueError: beside --labels, for a model that reads none, or nothing in them.
    """
    if args.phrases is None:
        return None
    if args.labels is not None:
        raise ValueError(
            "--labels and --phrases: both say what to look for; expected one of them: --labels "
            "for a list with names of your own, --phrases for a list or a sentence"
        )
    if "phrases" not in MODELS[name].reads:
        raise ValueError(
            f"--phrases: the model {name} reads no sentences; say what to look for with --labels, "
            "or use --model glip"
        )
    from cliplab.detection.words import read_phrases

    return read_phrases(args.phrases)


def _picture_targets(args: argparse.Namespace, task: "Task") -> Mapping[Path, Path]:
    """Path of a picture -> its annotated copy; {} if none are asked for.

    Raises:
        ValueError, OSError: copies that cannot be written, or that would replace something.
    """
    if not args.pictures:
        return {}
    from cliplab.cli.detect.outputs import picture_targets

    if args.pictures.exists() and not args.pictures.is_dir():
        raise NotADirectoryError(f"{args.pictures}: a file; expected a folder to write to")
    targets = picture_targets(args.pictures, task.pictures.pictures)
    if not args.force and (taken := [path for path in targets.values() if path.exists()]):
        raise FileExistsError(
            f"{taken[0]}: exists already; choose another folder for --pictures or pass --force"
        )
    with suppress(_ProbeError), atomic_write(next(iter(targets.values()))):
        raise _ProbeError
    return targets


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def _keeper(
    args: argparse.Namespace,
    task: "Task",
    targets: Mapping[Path, Path],
    thumbnails: dict[Path, str],
) -> "Callable[[Picture, Image, Detections], None]":
    """What is done with a picture while it is open: its thumbnail, its annotated copy."""
    from cliplab.cli.detect.outputs import annotated, save_jpeg
    from cliplab.cli.detect.page import choose_pictures
    from cliplab.report.gallery import thumbnail

    wanted, side = choose_pictures([one.path for one in task.pictures if args.html])

    def keep(picture: "Picture", image: "Image", found: "Detections") -> None:
        if picture.path in wanted:
            thumbnails[picture.path] = thumbnail(image, size=side)
        if picture.path in targets:
            save_jpeg(annotated(image, found), targets[picture.path])

    return keep


# ---- what is shown and written -------------------------------------------------------------


def show(found: "Found", query: "Query", judged: "Judged | None") -> None:
    """Print the pictures, the classes and, where the truth is known, the verdict."""
    from cliplab.cli.detect.terminal import class_table, picture_table, verdict
    from cliplab.detection.judging import summarise

    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in picture_table(found):
        print(line)
    for line in class_table(summarise(found, query, judged), judged):
        print(line)
    for line in verdict(judged) if judged else []:
        print(line)


def write(
    args: argparse.Namespace,
    task: "Task",
    detector: "Detector",
    query: "Query",
    found: "Found",
    *,
    judged: "Judged | None",
    thumbnails: Mapping[Path, str],
) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from cliplab.cli.detect.outputs import write_report
    from cliplab.cli.detect.page import write_gallery
    from cliplab.detection.finding import as_coco

    if args.out:
        write_json(args.out, as_coco(found, task.classes.names, detector.describe(query)))
    if args.html:
        write_gallery(args, task, detector, query, found, judged=judged, thumbnails=thumbnails)
    if args.json:
        write_report(args, task, detector, query, found, judged)
