"""Local first: where the hubs keep their snapshots, and downloads that end in a clear error.

Nothing here opens a socket unless a file is absent and the network is allowed. Before one of the
official downloaders starts, the server is asked for a sign of life: they try again and again, and
one of them waits for ever.
"""

import errno
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_TIMEOUT = 10.0  # seconds without a sign of life from a server
_GATEWAY = (407, 502, 503, 504)  # said by a proxy that does not reach the server
_COMMIT_LENGTH = 40  # hex digits of a git commit


@dataclass(frozen=True)
class Wanted:
    """Files that an encoder needs and this machine lacks."""

    spec: str  # "hf:openai/clip-vit-base-patch32"
    files: tuple[str, ...]
    folder: Path  # where they belong
    command: str  # fetches them on another machine
    otherwise: str = "give the folder that they are in instead of the name"

    def error(self, why: str) -> FileNotFoundError:
        """What is missing, where it belongs, and how to get it there; `why` it was not fetched."""
        return FileNotFoundError(
            f"{self.spec}: not on this machine, and not downloaded ({why}). "
            f"Missing: {', '.join(self.files)}; they belong in {self.folder}. On a machine with "
            f"network: {self.command} - then copy the files to that folder, or "
            f"{self.otherwise}"
        )


def timeout_s() -> float:
    """Seconds to wait for a sign of life: $CLIPLAB_TIMEOUT, else 10.

    Raises:
        ValueError: the variable is not a positive number.
    """
    value = os.environ.get("CLIPLAB_TIMEOUT", "") or str(DEFAULT_TIMEOUT)
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"$CLIPLAB_TIMEOUT: got {value!r}; expected seconds, more than 0")
    return seconds


def download(wanted: Wanted, url: str, fetch: Callable[[], object], *, offline: bool) -> None:
    """Have `fetch` get what is wanted from the server of `url`.

    Raises:
        FileNotFoundError: offline, no answer in time, or the download failed; with the way out.
        OSError: the disk is full.
    """
    if offline:
        raise wanted.error("offline")
    try:
        _sign_of_life(url)
        with _socket_timeout(timeout_s()):
            fetch()
    except Exception as error:  # each hub raises kinds of its own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "no space is left there; free some, and load again"
            raise OSError(error.errno, f"{wanted.spec}: {wanted.folder}: {remedy}") from error
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise wanted.error(f"{type(error).__name__}: {reason}") from error


def whole_file(path: Path, fetch: Callable[[str], str]) -> None:
    """Put what `fetch` writes into a folder to `path`, in one step and only when it is done.

    `clip` and `open_clip` write to the final name as they receive: an interruption would leave
    half a file there, and a second process would read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        os.replace(fetch(folder), path)


def _sign_of_life(url: str) -> None:
    """Raise OSError unless the server of `url` answers anything at all within the time-out."""
    seconds = timeout_s()
    failures: list[Exception] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # an opener of its own: the shared one remembers the proxies of its first use
            urllib.request.build_opener().open(request, timeout=seconds).close()
        except urllib.error.HTTPError as error:  # an answer: the downloader will say it better
            if error.code in _GATEWAY:
                failures.append(error)
        except Exception as error:
            failures.append(error)

    # A thread, because neither looking up a name nor a slow header heeds a socket's time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    server = url.split("/")[2]
    if thread.is_alive():
        raise TimeoutError(f"{server} gave no answer in {seconds:g} s; set $CLIPLAB_TIMEOUT")
    if failures:
        raise ConnectionError(f"{server}: {failures[0]}{_proxy(url)}")


def _proxy(url: str) -> str:
    """Which proxy was asked, for the error: a wrong one is the usual cause."""
    proxy = urllib.request.getproxies().get(url.partition(":")[0])
    return f" (through the proxy {proxy.rpartition('@')[2]})" if proxy else ""


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """For downloaders that set none: a server that falls silent must not hang the program."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ---- Hugging Face's cache ------------------------------------------------------------------


def huggingface_cache() -> Path:
    """Hugging Face's folder of snapshots; from the variables that its own library heeds."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable, ""):
            return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME", ""):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def huggingface_snapshot(repo: str, revision: str = "main") -> Path | None:
    """Cached snapshot of a branch, tag or commit (or its first digits) of `repo`; None if none."""
    folder = huggingface_cache() / f"models--{repo.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    snapshots = sorted(path for path in folder.glob("snapshots/*") if path.is_dir())
    is_commit = len(commit) >= 7 and set(commit) <= set("0123456789abcdef")
    found = [p for p in snapshots if p.name == commit or (is_commit and p.name.startswith(commit))]
    return found[0] if len(found) == 1 else None


def huggingface_fetch(
    spec: str,
    repo: str,
    revision: str,
    *,
    choose: Callable[[list[str]], list[str]],
    missing: Sequence[str],
    offline: bool,
) -> Path:
    """Download from the Hugging Face hub -> the snapshot's folder.

    Args:
        spec: of the encoder, for errors.
        repo: "organisation/name".
        revision: branch, tag or commit.
        choose: names in the repository -> those to download.
        missing: what is known to be missing, for errors.

    Raises:
        FileNotFoundError: offline, unreachable, or the hub refused; with the way out.
    """
    cache = huggingface_cache()
    folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / f"<commit of {revision}>"
    command = f"hf download {repo} --revision {revision} --local-dir {repo.rpartition('/')[2]}"
    wanted = Wanted(spec, tuple(missing), folder, command)
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    fetched = []

    def fetch() -> None:
        from huggingface_hub import HfApi, snapshot_download

        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, timeout=timeout_s())
        names = choose([sibling.rfilename for sibling in info.siblings or []])
        options: dict[str, Any] = {"revision": revision, "cache_dir": cache}
        options["etag_timeout"] = timeout_s()
        where = snapshot_download(repo, allow_patterns=names, endpoint=endpoint, **options)
        fetched.append(Path(where))

    download(wanted, endpoint, fetch, offline=offline)
    return fetched[0]


# ---- ModelScope's cache --------------------------------------------------------------------


def modelscope_cache() -> Path:
    """ModelScope's cache folder, $MODELSCOPE_CACHE or ~/.cache/modelscope."""
    for variable in ("MODELSCOPE_CACHE", "MS_CACHE_HOME"):
        if chosen := os.environ.get(variable, ""):
            return Path(chosen).expanduser()
    return Path.home() / ".cache" / "modelscope"


def modelscope_snapshot(model: str, revision: str) -> Path | None:
    """Cached folder of `model` at `revision`, in the present or an older layout; None if none.

    Looked up here because the hub's `local_files_only` asked the server until release 1.40.3
    (modelscope#1473). A folder of the older layouts holds one revision, which its `.mv` names;
    without that file it is taken for the one asked for.
    """
    root, (owner, _, name) = modelscope_cache(), model.partition("/")
    snapshot = root / "models" / f"{owner}--{name}" / "snapshots" / revision
    if snapshot.is_dir():
        return snapshot
    bases = (root / "models", root / "hub" / "models", root, root / "hub")
    for older in [base / owner / n for base in bases for n in (name.replace(".", "___"), name)]:
        mark = older / ".mv"  # "Revision:v1.0.1,CreatedAt:1690000000"
        says = mark.read_text("utf-8").strip() if mark.is_file() else revision
        if older.is_dir() and says.removeprefix("Revision:").partition(",")[0] == revision:
            return older
    return None
