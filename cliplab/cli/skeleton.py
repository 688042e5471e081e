"""One run of a command that answers for pictures: its steps, what is said, what is written."""

from __future__ import annotations

import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from cliplab import data, encoders
from cliplab.cli.options import Encoding, flat, worded
from cliplab.report import provenance
from cliplab.runtime import ArgumentError, atomic_write, held

PASTURE = ("pasture", "pasture-zh")  # encoders that know drawn animals only
LOOKED_AT = 100  # pictures at most, when asking whether they are of the model's world
CHANCE = 0.02  # share of the drawn ones that may look foreign
WRITTEN = ("out", "html", "json", "save_classifier", "pictures", "panoptic")  # files and folders
MAX_COMPLAINTS = 20  # lines of one kind on stderr; the JSON has all

Options = TypeVar("Options")


class Job(ABC, Generic[Options]):
    """What a command fills in. `work` takes the steps in the order in which they stand here.

    A step keeps what it found as an attribute; the next ones read it there. Whatever is heavy is
    imported inside of the steps.
    """

    most_remarks: ClassVar[int] = MAX_COMPLAINTS
    reads: ClassVar[tuple[str, ...]] = ("source",)  # options whose files are not written over
    writes: ClassVar[tuple[str, ...]] = ("out", "html", "json")
    for_photographs: ClassVar[str] = ""  # options that name a model for them

    def __init__(self, options: Options) -> None:
        self.options: Any = options
        self.problems: Sequence[Any] = ()  # what was clipped or skipped: `Problem`s
        self.notes: Sequence[str] = ()  # what was assumed, for the user to check
        self.drawn: Iterable[data.Sample] = ()  # pictures, if the model knows drawn ones only
        self.remarks: Sequence[str] = ()  # what is odd about the answer, with remedies
        self.unreadable: Sequence[Any] = ()  # errors of pictures

    @classmethod
    def run(cls, options: Options) -> int:
        """The command -> exit code."""
        job = cls(options)
        with held(*job.files(WRITTEN).values()):
            return work(job)

    def check(self) -> None:
        """Refuse options that exclude each other; nothing is read yet."""

    def files(self, names: Sequence[str]) -> dict[str, Path]:
        """Option as it is typed -> its file, of those that were given."""
        given = flat(self.options)
        typed = {name: f"--{name.replace('_', '-')}" for name in names} | {"source": "SOURCE"}
        return {typed[name]: given[name] for name in names if given.get(name)}

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

    def part(self, samples: data.SampleSet) -> data.SampleSet:
        """The samples of --split, or all."""
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

    def told(self, names: Mapping[Path, str] | None = None) -> dict[str, Any]:
        """For the JSON: all that was complained of; `names` are those of unreadable files."""
        unreadable = {}  # each once
        for error in self.unreadable:
            file = (names or {}).get(error.path, data.shown(error.path))
            unreadable[file] = {"file": file, "cause": error.cause, "remedy": error.remedy}
        return {
            "notes": list(self.notes),
            "remarks": list(self.remarks),
            "problems": [str(problem) for problem in self.problems],
            "unreadable": list(unreadable.values()),
        }


def loader(given: Encoding) -> partial[encoders.Encoder]:
    """What loads the encoder of --encoder, here or in another process."""
    return partial(
        encoders.load_encoder, given.encoder, device=given.device, offline=given.offline or None,
        precision=given.precision,
    )  # fmt: skip


def work(job: Job) -> int:
    """All steps of a job -> 0, or 3: some pictures could not be read."""
    job.check()
    check_outputs(
        job.files(job.writes), force=job.options.outputs.force, inputs=job.files(job.reads)
    )
    job.prepare()
    complain("problem", job.problems)
    complain("note", job.notes)
    with plain_warnings():
        job.load()
        read = job.answer()
    job.remarks = [worded(text, job.options) for text in (*_on_world(job), *job.remarks)]
    complain("unreadable", job.unreadable)
    if not read:
        raise ValueError(f"none of the images in {job.options.pictures.source} could be read")
    show(job.show())
    complain("remark", job.remarks, most=job.most_remarks)
    job.write()
    for path in job.files(WRITTEN).values():
        if path.exists():
            print(f"wrote {data.shown(path)}", file=sys.stderr)
    missing = any(one.kind is data.ProblemKind.MISSING for one in job.problems)
    return 3 if job.unreadable or missing else 0


def _on_world(job: Job) -> Iterator[str]:
    """A remark if pictures are photographs, or other drawings, to a model of the pasture."""
    paths = list(dict.fromkeys(photo.path for photo in job.drawn))
    some = paths[:: -(-len(paths) // LOOKED_AT) or 1]
    found = encoders.foreign(some) if some else []
    if len(found) > len(some) * CHANCE:
        names = data.some([path.name for path in found], 2)
        yield (
            f"{len(found)} of {len(some)} pictures are unlike the drawn ones, the only ones that "
            f"this model knows: what it says of them means nothing ({names}); for photographs "
            f"give {job.for_photographs}"
        )


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
        if isinstance(error, ArgumentError) and error.name == "templates":
            raise  # of another option than the words
        what = error.what if isinstance(error, ArgumentError) else str(error)
        raise ArgumentError(option, what) from error


@contextmanager
def besides() -> Iterator[None]:
    """Errors of what is read besides SOURCE, without remedies by the options about SOURCE."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(worded(str(error), None)) from error


def show(lines: Iterable[str]) -> None:
    """Lines on stdout."""
    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in lines:
        print(line)


# ---- before the work -----------------------------------------------------------------------


def check_outputs(outputs: Mapping[str, Path], *, force: bool, inputs: Mapping[str, Path]) -> None:
    """Find out before the long work, not after it, that a result cannot be written.

    Files that exist are replaced with `force`; `inputs` never are.
    """
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if other := seen.get(path.resolve()):
            raise ValueError(f"{other} and {option} are both {path}; expected two files")
        seen[path.resolve()] = option
        if path.is_dir():
            raise IsADirectoryError(f"{path}: a folder; expected the name of a file to write")
        refuse_inputs(option, path, inputs)
        if path.exists() and not force:
            raise FileExistsError(f"{path}: exists already; choose another name or pass --force")
        probe(path)


def refuse_inputs(option: str, path: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse an output that would replace what the answer is made from; no --force allows that."""
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
    with suppress(ValueError, OSError):  # said when the folder is read
        return data.is_read_of(own, whole)
    return False


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def probe(path: Path) -> None:
    """Open a file for writing, and leave nothing; an OSError if that cannot be."""
    with suppress(_ProbeError), atomic_write(path):
        raise _ProbeError


# ---- files of each picture -----------------------------------------------------------------


def targets_in(
    folder: Path,
    pictures: Iterable[data.Sample],
    endings: Sequence[str],
    *,
    option: str,
    force: bool = False,
    kept: Container[Path] = (),
    besides: Sequence[Path] = (),
) -> dict[Path, tuple[Path, ...]]:
    """Path of a picture -> its files below `folder`, one for each ending, in its sub-folder.

    The folder is refused before the long work if it cannot be written to or holds results already;
    pictures that are read, and the files `kept`, are not replaced with `force` either.

    Args:
        endings: such as ".jpg" or "_labels.png", in place of the picture's suffix.
        besides: files that are written there, too.
    """
    pictures = list(pictures)
    own = {one.path.resolve() for one in pictures}
    named_alike = any(ending.startswith(".") for ending in endings)
    if named_alike and folder.resolve() in {path.parent for path in own}:
        raise ValueError(
            f"{option} {folder}: holds the pictures that are read, and the next run would read "
            "the results as well; choose another folder"
        )
    found: dict[Path, tuple[Path, ...]] = {}
    taken: set[Path] = set()
    for one in pictures:
        stem = _free_stem(folder, one.name, taken)
        found[one.path] = tuple(stem.with_name(stem.name + ending) for ending in endings)
        for path in found[one.path]:
            if path.resolve() in own or path.resolve() in kept:
                raise ValueError(
                    f"{option} {folder}: would overwrite {path}, which is read, with --force too; "
                    "choose another folder"
                )
    files = [*besides, *(path for some in found.values() for path in some)]
    _check_folder(option, folder, files, force=force)
    return found


def _free_stem(folder: Path, name: str, taken: set[Path]) -> Path:
    """The path of a picture's files without their endings, different from those in `taken`."""
    whole = folder / data.within(name)
    stem, count = whole.with_suffix(""), 1
    while stem in taken:  # a.png beside a.jpg, or names that were equal but for the ".."
        stem = whole.with_name(f"{whole.name}{f'-{count}' if count > 1 else ''}")
        count += 1
    taken.add(stem)
    return stem


def _check_folder(option: str, folder: Path, files: Sequence[Path], *, force: bool) -> None:
    """Refuse a folder that cannot be written to, or holds results."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: a file; expected a folder to write to")
    if not force and (taken := [path for path in files if path.exists()]):
        raise FileExistsError(
            f"{taken[0]}: exists already; choose another {option}, or pass --force to overwrite"
        )
    if files:
        probe(files[0])


# ---- the report for other programs ---------------------------------------------------------


def report_of(command: str, options: Any, **parts: Any) -> dict[str, Any]:
    """The report of a command: how it was called, by which versions, then its own parts."""
    about = {"versions": provenance.versions(), "parameters": _parameters(options)}
    return _finite({"command": command} | about | parts)


def _parameters(options: Any) -> dict[str, Any]:
    """The options as they were given; the command's own bookkeeping left out."""
    own = {key: value for key, value in flat(options).items() if key != "debug"}
    return {key: data.shown(v) if isinstance(v, Path) else v for key, v in own.items()}


def describe(encoder: encoders.Encoder) -> dict[str, Any]:
    """What was used to encode, so that somebody else can use the same."""
    return {
        "name": encoder.name,
        "provenance": dict(encoder.provenance),
        "fingerprint": encoder.fingerprint,
        "precision": encoder.precision,
        "dimensions": encoder.dim,
        "languages": list(encoder.languages),
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
    }


def _finite(value: Any) -> Any:
    """The same in JSON's types: None for NaN and infinity, lists for tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
