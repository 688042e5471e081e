"""Files that a command writes: refused before the work if they cannot be, the report as JSON."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cliplab.cli.options import flat
from cliplab.runtime import atomic_write, write_json

if TYPE_CHECKING:
    from cliplab.data import Sample, UnreadableImage
    from cliplab.encoders import Encoder

# ---- before the work -----------------------------------------------------------------------


def check_outputs(
    outputs: Mapping[str, Path | None], *, force: bool, inputs: Mapping[str, Path]
) -> None:
    """Find out before the long work, not after it, that a result cannot be written.

    Args:
        outputs: option -> file, None where it was not given.
        force: whether files that exist may be replaced.
        inputs: option -> file or folder that is read; they are never replaced.

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
        probe(path)


def refuse_inputs(option: str, path: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse an output that would replace what the answer is made from; no --force allows that.

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
    from cliplab.data import is_read_of

    with suppress(ValueError, OSError):  # said when the folder is read
        return is_read_of(own, whole)
    return False


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def probe(path: Path) -> None:
    """Open a file for writing, and leave nothing.

    Raises:
        OSError: it cannot be written.
    """
    with suppress(_ProbeError), atomic_write(path):
        raise _ProbeError


# ---- files of each picture -----------------------------------------------------------------


def targets_in(
    folder: Path,
    pictures: Iterable[Sample],
    endings: Sequence[str],
    *,
    option: str,
    kept: Container[Path] = (),
) -> dict[Path, tuple[Path, ...]]:
    """Path of a picture -> its files below `folder`, one for each ending, in its sub-folder.

    Args:
        folder: to write to.
        pictures: with a `path` and a `name` relative to the source.
        endings: such as ".jpg" or "_labels.png", in place of the picture's suffix.
        option: that names the folder.
        kept: other files that are read, resolved.

    Raises:
        ValueError: a file would replace a picture that it is made from, or one of `kept`.
    """
    pictures = list(pictures)
    own = {one.path.resolve() for one in pictures}
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
    return found


def _free_stem(folder: Path, name: str, taken: set[Path]) -> Path:
    """The path of a picture's files without their endings, different from those in `taken`."""
    # ".." and "/" in the names of a JSON must not lead out of the folder
    whole = folder.joinpath(*(p for p in PurePosixPath(name).parts if p not in ("/", "..")))
    stem, count = whole.with_suffix(""), 1
    while stem in taken:  # a.png beside a.jpg, or names that were equal but for the ".."
        stem = whole.with_name(f"{whole.name}{f'-{count}' if count > 1 else ''}")
        count += 1
    taken.add(stem)
    return stem


def check_folder(option: str, folder: Path, files: Iterable[Path], *, force: bool) -> None:
    """Find out before the long work that a folder cannot be written to, or holds results.

    Raises:
        OSError: a file in its place, files that exist already, no permission.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: a file; expected a folder to write to")
    files = list(files)
    if not force and (taken := [path for path in files if path.exists()]):
        raise FileExistsError(
            f"{taken[0]}: exists already; choose another {option}, or pass --force to overwrite"
        )
    if files:
        probe(files[0])


# ---- the report for other programs ---------------------------------------------------------


def report_of(command: str, options: Any, **parts: Any) -> dict[str, Any]:
    """The report of a command: how it was called, by which versions, then its own parts."""
    from cliplab.report import provenance

    about = {"versions": provenance.versions(), "parameters": parameters(options)}
    return finite({"command": command} | about | parts)


def write_report(path: Path, command: str, options: Any, **parts: Any) -> None:
    """Write the report, whole or not at all."""
    write_json(path, report_of(command, options, **parts))


def parameters(options: Any) -> dict[str, Any]:
    """The options as they were given; the command's own bookkeeping left out."""
    from cliplab.data import shown

    own = {key: value for key, value in flat(options).items() if key != "debug"}
    return {key: shown(v) if isinstance(v, Path) else v for key, v in own.items()}


def describe(encoder: Encoder) -> dict[str, Any]:
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


def unreadable(
    errors: Iterable[UnreadableImage], names: Mapping[Path, str] | None = None
) -> list[dict[str, str]]:
    """The files that could not be read, as `names` calls them: cause and remedy of each, once."""
    from cliplab.data import shown

    names = names or {}
    by_name = {names.get(error.path, shown(error.path)): error for error in errors}
    return [
        {"file": file, "cause": error.cause, "remedy": error.remedy}
        for file, error in by_name.items()
    ]


def finite(value: Any) -> Any:
    """The same in JSON's types: None for NaN and infinity, lists for tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
