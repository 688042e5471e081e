"""The command itself: check, prepare, answer, show, write."""

import argparse
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.cli.classify.arguments import METHODS
from cliplab.runtime import atomic_write, unknown_name

if TYPE_CHECKING:
    from cliplab.classification.few_shot import Classifier
    from cliplab.cli.classify.answer import Answer
    from cliplab.cli.classify.assess import Assessment

SOME_UNREADABLE = 3  # exit code: the others were classified
MAX_COMPLAINTS = 20  # lines of one kind on stderr; the JSON has all
MAX_REMARKS = 3  # of the diagnosis, the first ones come first for a reason


def run(args: argparse.Namespace) -> int:
    """Classify the source, print the table and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad labels, source, outputs or encoder; with the remedy.
    """
    check_arguments(args)
    from cliplab.cli.classify.answer import answer
    from cliplab.cli.classify.assess import assess
    from cliplab.cli.classify.prepare import prepare
    from cliplab.encoders import load_encoder

    fitted = _kept_classifier(args)
    task = prepare(args, fitted.class_names if fitted else None)
    complain("problem", task.problems)
    complain("note", task.notes)
    with plain_warnings():
        encoder = load_encoder(
            args.encoder,
            device=args.device,
            offline=True if args.offline else None,
            precision=args.precision,
        )
        if fitted:
            fitted = _kept_classifier(args, encoder)
        found = answer(args, task, encoder, fitted=fitted)
    complain("unreadable", [str(error) for error in found.unreadable])
    judged = assess(found.scores, found.true, found.groups)
    show(found, judged)
    complain("remark", found.remarks, most=MAX_REMARKS)
    write(args, encoder, found, judged)
    return SOME_UNREADABLE if found.unreadable or task.lacks_pictures else 0


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is read.

    Raises:
        ValueError, OSError: options that exclude each other, outputs that cannot be written.
    """
    if args.classifier and (args.examples or args.labels):
        other = "--examples" if args.examples else "--labels"
        raise ValueError(
            f"--classifier and {other}: a classifier that was kept has its classes and has learned "
            f"already; drop {other}, or fit a new one without --classifier"
        )
    for option, value in (("--shots", args.shots), ("--save-classifier", args.save_classifier)):
        if value is not None and not args.examples:
            raise ValueError(f"{option} without --examples: there is nothing to learn from")
    if args.method not in METHODS:
        raise ValueError(unknown_name("method", args.method, METHODS))
    if not 0 < args.box_scale < math.inf:
        raise ValueError(f"--box-scale: got {args.box_scale:g}; expected a number above 0, as 1.5")
    outputs = {"--out": args.out, "--html": args.html, "--json": args.json}
    outputs["--save-classifier"] = args.save_classifier
    check_outputs(outputs, force=args.force, inputs=named_inputs(args))


def _kept_classifier(args: argparse.Namespace, encoder: Any = None) -> "Classifier | None":
    """The classifier of --classifier, compared with the encoder once that is known."""
    if not args.classifier:
        return None
    from cliplab.classification.few_shot import load_classifier

    return load_classifier(args.classifier, encoder=encoder)


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def named_inputs(args: argparse.Namespace) -> dict[str, Path]:
    """Option -> file or folder that is read, of all that the commands have; SOURCE is one."""
    found = {"SOURCE": args.source}
    for name in ("boxes", "examples", "classifier", "truth"):
        value = getattr(args, name, None)
        if value and value != "source":  # as `detect` calls the boxes of SOURCE itself
            found[f"--{name}"] = Path(value)
    return found


def refuse_inputs(option: str, path: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse an output that would replace what the answer is made from; no --force allows that.

    Args:
        option: that names the output.
        path: to be written.
        inputs: of `named_inputs`.

    Raises:
        ValueError: the output is an input, or a file that a folder is read from.
    """
    for name, given in inputs.items():
        if _is_read(path, given):
            part = "" if path.resolve() == given.resolve() else "part of "
            raise ValueError(
                f"{option} {path}: would overwrite {part}{name}, with --force too; choose another "
                "name"
            )


def _is_read(path: Path, given: Path) -> bool:
    """Whether a file is the input `given`, or a picture or a table of that folder."""
    own, whole = path.resolve(), given.resolve()
    if own == whole or not given.is_dir() or not path.is_file():
        return own == whole
    from cliplab.data.files import PHONE_SUFFIXES, SUFFIXES
    from cliplab.data.source import recognise
    from cliplab.data.yolo import NAME_FILES, YAML_NAMES

    pictures = own.suffix.lower() in SUFFIXES + PHONE_SUFFIXES
    if pictures or own.name in NAME_FILES + YAML_NAMES:
        return own.is_relative_to(whole)
    with suppress(ValueError, OSError):  # said when the folder is read
        return own in [place.resolve() for place in recognise(given)[1]]
    return False


def check_outputs(
    outputs: Mapping[str, Path | None], *, force: bool, inputs: Mapping[str, Path]
) -> None:
    """Find out before the long work, not after it, that a result cannot be written.

    Args:
        outputs: option -> file, None where it was not given.
        force: whether files that exist may be replaced.
        inputs: of `named_inputs`; they are never replaced.

    Raises:
        ValueError, OSError: two options with one file, an input, a folder, a file that exists, no
            permission.
    """
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if other := seen.get(path.resolve()):
            raise ValueError(f"{other} and {option} are both {path}; expected two files")
        seen[path.resolve()] = option
        if path.is_dir():
            raise IsADirectoryError(f"{path}: a folder; expected the name of a file to write")
        refuse_inputs(option, path, inputs)
        if path.exists() and not force:
            raise FileExistsError(f"{path}: exists already; choose another name or pass --force")
        with suppress(_ProbeError), atomic_write(path):
            raise _ProbeError


# ---- what is shown and written -------------------------------------------------------------


def show(found: "Answer", judged: "Assessment | None") -> None:
    """Print the table of images and, where the truth is known, the verdict."""
    from cliplab.cli.classify.terminal import image_table, verdict

    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in image_table(found.scores, found.names, found.true):
        print(line)
    if judged:
        for line in verdict(judged, found.before):
            print(line)


def write(
    args: argparse.Namespace, encoder: Any, found: "Answer", judged: "Assessment | None"
) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from cliplab.cli.classify.outputs import write_csv, write_report
    from cliplab.cli.classify.page import write_gallery

    if args.out:
        write_csv(args.out, found)
    if args.html and (note := write_gallery(args, encoder, found, judged)):
        complain("note", [note])
    if args.save_classifier and found.fitted:
        from cliplab.classification.few_shot import save_classifier

        save_classifier(found.fitted, args.save_classifier, encoder=encoder)
    if args.json:
        write_report(args, encoder, found, judged)


def complain(kind: str, texts: Sequence[str], *, most: int = MAX_COMPLAINTS) -> None:
    """Lines on stderr, at most `most`."""
    for text in texts[:most]:
        print(f"{kind}: {text}", file=sys.stderr)
    if (more := len(texts) - most) > 0:
        print(f"{kind}: ... and {more} more; --json lists all", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of the parts as one line each, without the place in our code."""

    def plain(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = plain
        yield
