"""What every part needs from the machine: places, seeds, device, versions, files that are whole.

Only the standard library is imported here, so that `import cliplab.runtime` costs nothing.
"""

import difflib
import errno
import hashlib
import json
import os
import platform
import random
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MAX_SEED = 2**32 - 1  # numpy's limit; python and torch take more
OFFLINE_VARIABLES = (
    "CLIPLAB_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MODELSCOPE_OFFLINE"
)  # fmt: skip
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your disk quota is used up; free some space and run again",
    errno.EACCES: "no permission to write there; choose another folder or change its permissions",
    errno.EPERM: "no permission to write there; choose another folder or change its permissions",
    errno.EROFS: "that file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "the path is a folder; give a file name",
}
_PARTIAL = f".*.{'[0-9a-f]' * 8}.partial"  # files of `atomic_write` that are not whole
_RESTORE = (
    "restore the folder with `git checkout -- data/checkpoints`, fetch it again, or train it again "
    "with `python -m cliplab train`"
)


class ArgumentError(ValueError):
    """An argument that cannot be used; a command calls it by its option.

    Args:
        name: of the argument.
        what: was got, was expected, is to be done.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name, self.what = name, what


# ---- places --------------------------------------------------------------------------------


def data_dir() -> Path:
    """Folder of checkpoints, prompts and photos: $CLIPLAB_DATA, else `data` beside the package.

    Raises:
        FileNotFoundError: no such folder, as where the package was installed without a checkout.
    """
    chosen = os.environ.get("CLIPLAB_DATA", "")
    path = Path(chosen).expanduser() if chosen else Path(__file__).resolve().parents[1] / "data"
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder. A wheel has no models, prompts, notebooks: get a checkout, "
            "and set $CLIPLAB_DATA to the folder `data` in it"
        )
    return path


def cache_dir() -> Path:
    """Folder of what can be made again: $CLIPLAB_CACHE, else `cliplab` in the system's cache."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("CLIPLAB_CACHE", "")
    if chosen:
        return Path(chosen).expanduser()
    return user_cache_path("cliplab", appauthor=False, opinion=False)


def checkpoint_dir(name: str) -> Path:
    """Folder of the shipped checkpoint `name`, whether it exists or not (a recipe creates it)."""
    return data_dir() / "checkpoints" / name


# ---- seeds, device, versions ---------------------------------------------------------------


def seed_all(seed: int) -> None:
    """Seed python's, numpy's and torch's (every device) global generators; 0 <= seed < 2**32."""
    if not 0 <= seed <= _MAX_SEED:
        raise ArgumentError("seed", f"got {seed}; expected a whole number from 0 to {_MAX_SEED}")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that we call still draw from the global state
    torch.manual_seed(seed)


def pick_device(spec: str = "auto") -> "torch.device":
    """Torch device for "cpu", "cuda", "cuda:1", "mps" or "auto" (the best that is present).

    Raises:
        ValueError: for an unknown name, or a device that this machine or this torch lacks.
    """
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if spec == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    kind, _, index = spec.partition(":")
    if kind not in has or (index and not index.isdigit()):
        raise ValueError(unknown_name("device", spec, ["auto", *has]))
    present = [name for name, found in has.items() if found]
    if not has[kind] or (kind == "cuda" and index and int(index) >= torch.cuda.device_count()):
        raise ValueError(
            f"device {spec!r} is absent here (present: {', '.join(present)}); "
            'use "auto", or install a torch build that supports it'
        )
    return torch.device(spec)


def somebody_is_there() -> bool:
    """Whether a person runs this cell: only then may a kernel ask for input."""
    import sys

    shell = sys.modules.get("IPython")
    kernel = getattr(shell and shell.get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def versions() -> str:
    """One line to print at the top of a notebook: python, torch, cliplab and the device."""
    import torch

    import cliplab

    return (
        f"python {platform.python_version()}, torch {torch.__version__}, "
        f"cliplab {cliplab.__version__}, device {pick_device().type}"
    )


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network is off limits: `offline`, else whether one of the variables is on.

    Ours is $CLIPLAB_OFFLINE; theirs $HF_HUB_OFFLINE, $TRANSFORMERS_OFFLINE and (though ModelScope
    itself has none) $MODELSCOPE_OFFLINE.
    """
    if offline is not None:
        return offline
    for variable in OFFLINE_VARIABLES:
        value = os.environ.get(variable, "").strip().lower()
        if value not in _TRUE + _FALSE:
            raise ValueError(f"${variable}: got {value!r}; expected 1 or 0")
        if value in _TRUE:
            return True
    return False


# ---- names ---------------------------------------------------------------------------------


def nearest(name: str, options: Iterable[str], n: int = 3, cutoff: float = 0.5) -> list[str]:
    """The at most `n` options most like `name`, best first, whatever their case; [] if none is."""
    by_folded: dict[str, str] = {}
    for option in options:
        by_folded.setdefault(option.casefold(), option)
    close = difflib.get_close_matches(name.casefold(), by_folded, n, cutoff)
    return [by_folded[folded] for folded in close]


def unknown_name(kind: str, name: str, options: Iterable[str]) -> str:
    """Message for a name that is not among `options`: the nearest ones, then all of them.

    What follows a colon in the name, such as the path of a model, is not compared.
    """
    valid = list(options)
    close = nearest(name, valid) or nearest(name.partition(":")[0], valid)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"unknown {kind} {name!r}; {hint}valid: {', '.join(valid)}"


# ---- files ---------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it to `path` only when the block succeeds.

    Whatever interrupts the block (Ctrl-C, a full disk, an error in the caller) leaves no trace
    and an older `path` as it was. Text ("w") is UTF-8 with \\n on every platform. Missing
    parent folders are created.

    Args:
        mode: "w" or "wb".

    Raises:
        OSError: of the kind the system reported, with what to do about it.
    """
    path = Path(path)
    # Beside the target, because a rename is atomic only within one file system; not tempfile's
    # mkstemp, whose files nobody but the owner can read.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, mode.replace("w", "x"), **text) as file:
            yield file
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())  # else a power cut can leave an empty file after the rename
        os.replace(partial, path)
    except OSError as error:
        of = None if error.filename is None else Path(os.fsdecode(error.filename))
        # A failed write carries no name; what carries another is about what else the block touched.
        if error.errno not in _REMEDIES or of not in (None, path, partial, *path.parents):
            raise
        raise OSError(error.errno, f"cannot write {path}: {_REMEDIES[error.errno]}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def held(*paths: Path) -> Iterator[None]:
    """Have files and folders for this process alone, until the block or the process ends.

    What killed processes left of `atomic_write` there is deleted. The locks are in the cache, so
    that nothing is left beside what is written; other users and machines do not see them.

    Raises:
        BlockingIOError: another process has one of them.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as locks:
        for path in sorted({path.resolve() for path in paths}):  # in one order: one of two gets all
            lock = cache_dir() / "locks" / hashlib.sha256(os.fsencode(path)).hexdigest()
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(lock, timeout=0))
                if os.name != "nt":  # there it is deleted by filelock
                    locks.callback(lock.unlink, missing_ok=True)
            except Timeout as error:
                raise BlockingIOError(
                    f"{path}: another cliplab is writing it; wait, or choose another name"
                ) from error
            except OSError:
                continue  # a cache that cannot be written: better unguarded than not at all
            beside = path.parent.glob(_PARTIAL)
            own = [left for left in beside if left.name.startswith(f".{path.name}.")]
            for left in [*own, *path.rglob(_PARTIAL)]:
                left.unlink(missing_ok=True)
        yield


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as UTF-8 JSON, atomically: readable Chinese, indent 1, a newline at the end.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have, and for tensors and the like.
    """
    text = _json(obj, path)
    with atomic_write(path, "w") as file:
        file.write(text)


def _json(obj: Any, where: str | Path) -> str:
    """JSON of an object in which numpy's scalar numbers are numbers, too."""
    try:
        text = json.dumps(
            obj, ensure_ascii=False, indent=1, allow_nan=False, default=lambda one: one.item()
        )
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{where}: not written, {error}; use finite plain Python values"
        ) from error
    return text + "\n"


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of the file at `path`, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """The model card beside weights; {} if there is none."""
    path = folder / "model_card.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def verify_checkpoint(folder: str | Path, names: Iterable[str] | None = None) -> list[str]:
    """Compare the files of a checkpoint with the hashes in its model_card.json -> names compared.

    Args:
        folder: with the files and the card; without a card there is nothing to compare.
        names: compare only these, so far as the card lists them; default all that it lists.

    Raises:
        FileNotFoundError: a listed file is missing.
        ValueError: a hash differs, or the card cannot be read.
    """
    card = Path(folder) / "model_card.json"
    if not card.exists():
        return []
    try:
        listed = dict(json.loads(card.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{card}: not a model card with hashes under "files" ({error!r}); {_RESTORE}'
        ) from error
    compared = sorted(listed if names is None else listed.keys() & set(names))
    for name in compared:
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, though {card.name} lists it; {_RESTORE}")
        if (found := sha256(path)) != listed[name]:
            raise ValueError(
                f"{path}: its sha256 is {found[:12]}..., {card.name} says {listed[name][:12]}...; "
                f"the file is damaged or another one: {_RESTORE}"
            )
    return compared


def save_results(results: Mapping[str, Any], path: str | Path) -> None:
    """Write a notebook's `results` as `write_json`; an empty path checks them and writes nothing.

    Args:
        results: nested dicts with text keys, lists, text, booleans and finite numbers (numpy's
            scalar numbers too).
    """
    if str(path):
        write_json(path, results)
    else:
        _json(results, "results")
