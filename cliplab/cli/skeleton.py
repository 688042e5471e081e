"""One run of a command that answers for pictures: its steps, and what is said on the way."""

from __future__ import annotations

import sys
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from cliplab.cli.files import check_outputs, unreadable

if TYPE_CHECKING:
    from cliplab.data import SampleSet
    from cliplab.encoders import Encoder

GOOD, SOME_UNREADABLE = 0, 3  # exit codes; 1, 2 and 130 are those of `main`
MAX_COMPLAINTS = 20  # lines of one kind on stderr; the JSON has all
MAX_LINES = 60  # of a printed table of pictures; the files have all

Options = TypeVar("Options")


class Job(ABC, Generic[Options]):
    """What a command fills in. `work` takes the steps in the order in which they stand here.

    A step keeps what it found as an attribute; the next ones read it there. Whatever is heavy is
    imported inside of the steps.
    """

    most_remarks: ClassVar[int] = MAX_COMPLAINTS

    def __init__(self, options: Options) -> None:
        self.options: Any = options
        self.problems: Sequence[Any] = ()  # what was clipped or skipped: `Problem`s
        self.notes: Sequence[str] = ()  # what was assumed, for the user to check
        self.remarks: Sequence[str] = ()  # what is odd about the answer, with remedies
        self.unreadable: Sequence[Any] = ()  # errors of pictures

    @abstractmethod
    def check(self) -> None:
        """Refuse options that exclude each other; nothing is read yet."""

    def inputs(self) -> dict[str, Path]:
        """Option -> what is read and must not be written over."""
        return {"SOURCE": self.options.pictures.source}

    def outputs(self) -> dict[str, Path | None]:
        """Option -> file to write."""
        outputs = self.options.outputs
        return {"--out": outputs.out, "--html": outputs.html, "--json": outputs.json}

    @abstractmethod
    def prepare(self) -> None:
        """Read the source and the words -> problems, notes; refuse folders that hold results."""

    @abstractmethod
    def load(self) -> None:
        """Load the model and give it the words."""

    @abstractmethod
    def answer(self) -> int:
        """Go through the pictures, and judge -> how many were read; unreadable, remarks."""

    @abstractmethod
    def show(self) -> Iterator[str]:
        """Lines for the terminal."""

    @abstractmethod
    def write(self) -> None:
        """Write what was asked for, each file whole or not at all."""

    # ---- what several commands do alike ----------------------------------------------------

    def part(self, samples: SampleSet) -> SampleSet:
        """The samples of --split, or all.

        Raises:
            ValueError: no such split, or nothing in it.
        """
        source, split = self.options.pictures.source, self.options.pictures.split
        if split is None:
            return samples
        if len(samples) and not samples.splits:
            raise ValueError(
                f"--split {split}: no picture of {source} has a split; leave out --split, or give "
                "a split column or train/, val/ and test/ folders"
            )
        with named("--split"):
            kept = samples.select(split)
        if not len(kept):
            raise ValueError(f"--split: no picture of {source} is in {split}; leave out --split")
        return kept

    def load_encoder(self) -> Encoder:
        """The encoder of --encoder."""
        from cliplab import encoders

        given = self.options.encoder
        return encoders.load_encoder(
            given.encoder,
            device=given.device,
            offline=True if given.offline else None,
            precision=given.precision,
        )

    def told(self, names: Mapping[Path, str] | None = None) -> dict[str, Any]:
        """For the JSON: all that was complained of; `names` are those of unreadable files."""
        return {
            "notes": list(self.notes),
            "remarks": list(self.remarks),
            "problems": [str(problem) for problem in self.problems],
            "unreadable": unreadable(self.unreadable, names),
        }


def work(job: Job) -> int:
    """All steps of a job -> its exit code.

    Raises:
        ValueError, OSError, ImportError: what a user can cause, with the remedy.
    """
    job.check()
    check_outputs(job.outputs(), force=job.options.outputs.force, inputs=job.inputs())
    job.prepare()
    complain("problem", job.problems)
    complain("note", job.notes)
    with plain_warnings():
        job.load()
        read = job.answer()
    complain("unreadable", job.unreadable)
    from cliplab.data import lacks_pictures

    if not read:
        raise ValueError(f"none of the images in {job.options.pictures.source} could be read")
    show(job.show())
    complain("remark", job.remarks, most=job.most_remarks)
    job.write()
    return SOME_UNREADABLE if job.unreadable or lacks_pictures(job.problems) else GOOD


# ---- what is said --------------------------------------------------------------------------


def complain(kind: str, texts: Sequence[object], *, most: int = MAX_COMPLAINTS) -> None:
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


@contextmanager
def named(option: str) -> Iterator[None]:
    """Errors of a library begin with the option that they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def show(lines: Iterable[str]) -> None:
    """Lines on stdout."""
    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in lines:
        print(line)


def aligned(rows: Sequence[Sequence[str]], *, text: int = 2) -> Iterator[str]:
    """Lines with `text` columns of text, then numbers; a Chinese character is two columns wide."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        gaps = [" " * (width - _width(cell)) for width, cell in zip(widths, row, strict=True)]
        left = [cell + gap for cell, gap in zip(row[:text], gaps[:text], strict=True)]
        right = [gap + cell for cell, gap in zip(row[text:], gaps[text:], strict=True)]
        yield "  ".join(left + right).rstrip()


def decimals(value: float | None) -> str:
    """Three decimals, or a dash for what is not known."""
    return "-" if value is None else f"{value:.3f}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
