"""Local first: where the hubs keep their snapshots, and downloads that end in a clear error.

Nothing here opens a socket unless a file is absent and the network is allowed.
"""

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.runtime import sha256

TIMEOUT = 10.0  # seconds without a sign of life from a server


@dataclass(frozen=True)
class Wanted:
    """Files that an encoder needs and this machine lacks."""

    spec: str  # "hf:openai/clip-vit-base-patch32"
    files: tuple[str, ...]
    folder: Path  # where they belong
    command: str  # fetches them on another machine
    otherwise: str  # what else to do with them than to copy them to `folder`: ", or ..."

    def error(self, why: str) -> FileNotFoundError:
        """What is missing, where it belongs, and how to get it there; `why` it was not fetched."""
        return FileNotFoundError(
            f"{self.spec}: not on this machine, and not downloaded ({why}). Missing or damaged: "
            f"{', '.join(self.files)}; they belong in {self.folder}. On a machine with network: "
            f"{self.command} - then copy the files to that folder{self.otherwise}"
        )


@contextmanager
def downloading(wanted: Wanted, *, offline: bool) -> Iterator[None]:
    """Turn whatever a downloader raises into `wanted.error`."""
    if offline:
        raise wanted.error("offline")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # a server that falls silent must not hang the program
    try:
        yield
    except Exception as error:  # each hub raises kinds of its own
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise wanted.error(f"{type(error).__name__}: {reason}") from error
    finally:
        socket.setdefaulttimeout(before)


def check_answer(url: str) -> None:
    """Raise OSError unless a server answers anything at all within the time-out."""
    request = urllib.request.Request(url, method="HEAD")
    with suppress(urllib.error.HTTPError):  # an answer: the downloader will say it better
        # An opener of its own: the shared one remembers the proxies of its first use.
        urllib.request.build_opener().open(request, timeout=TIMEOUT).close()


# ---- single files --------------------------------------------------------------------------


def find_file(spec: str, url: str, digest: str, *, named: str, offline: bool) -> Path:
    """The cached file of an address, else downloaded, whole or not at all.

    Args:
        spec: of the encoder, for errors.
        url: of the file.
        digest: the first hex digits of its SHA-256; "" where nobody published them.
        named: how a spec names such a file, for errors.
    """
    from torch.hub import download_url_to_file

    # `clip` and `open_clip` have no variable for the place of their cache
    path = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
    if path.is_file() and (not digest or sha256(path).startswith(digest)):
        return path
    otherwise = f", or name the file: {named}{path.name}"
    wanted = Wanted(spec, (path.name,), path.parent, f"curl -LO {url}", otherwise)
    with downloading(wanted, offline=offline):
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(path), hash_prefix=digest or None, progress=True)
    return path


# ---- Hugging Face's hub --------------------------------------------------------------------


def huggingface_cache() -> Path:
    """Hugging Face's folder of snapshots."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def no_folder(path: Path) -> str:
    """What is wrong with a path where a folder is wanted."""
    return f"a file; give its folder, {path.parent}" if path.is_file() else "no such path"


def find_folder(where: str, example: str, **how: Any) -> tuple[Path, str]:
    """Folder and commit ("" for a folder of your own) of what follows `hf:`.

    Raises:
        FileNotFoundError: neither a folder nor the name of a repository, such as `example`; or as
            `find_snapshot`, whose other arguments are `how`.
    """
    if (folder := Path(where).expanduser()).is_dir():
        return folder, ""
    repo, _, revision = where.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or repo.startswith((".", "~")):
        raise FileNotFoundError(
            f"hf:{where}: {no_folder(folder)}; expected a folder that save_pretrained wrote, or a "
            f"repository such as {example}[@revision]"
        )
    return find_snapshot(f"hf:{where}", repo, revision, **how)


def find_snapshot(
    spec: str,
    repo: str,
    revision: str,
    *,
    missing: Callable[[Path], Sequence[str]],
    choose: Callable[[list[str]], list[str]],
    offline: bool,
    otherwise: str = ", or give their own folder: hf:<folder>",
) -> tuple[Path, str]:
    """The complete cached snapshot of a repository, else a downloaded one -> folder, commit.

    Args:
        spec: of the encoder, for errors.
        repo: "organisation/name".
        revision: branch, tag or commit; "" is main.
        missing: folder -> what it lacks.
        choose: names in the repository -> those to download.
        otherwise: what else to do with files that were fetched elsewhere, for errors.
    """
    revision = revision or "main"
    place = _place(repo, revision)
    if not (lacking := tuple(missing(place))):
        return place, place.name
    command = f"hf download {repo} --revision {revision} --local-dir {repo.rpartition('/')[2]}"
    wanted = Wanted(spec, lacking, place, command, otherwise)
    with downloading(wanted, offline=offline):
        from huggingface_hub import HfApi, snapshot_download

        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        info = HfApi(endpoint).model_info(repo, revision=revision, timeout=TIMEOUT)
        snapshot = Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=choose([sibling.rfilename for sibling in info.siblings or []]),
                endpoint=endpoint,
                etag_timeout=TIMEOUT,
            )
        )
    return snapshot, snapshot.name


def _place(repo: str, revision: str) -> Path:
    """Where the cached snapshot of a branch, tag or commit of `repo` is, or belongs.

    That is under its commit, where the hub noted it, else under the name that is asked for. Looked
    up here because the hub's `local_files_only` refuses a snapshot without the files that were not
    asked for.
    """
    folder = huggingface_cache() / f"models--{repo.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    return folder / "snapshots" / commit


# ---- ModelScope's hub ----------------------------------------------------------------------


def modelscope_cache() -> Path:
    """ModelScope's cache folder, $MODELSCOPE_CACHE or ~/.cache/modelscope."""
    chosen = os.environ.get("MODELSCOPE_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "modelscope"


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
    for base in (root / "models", root / "hub" / "models", root, root / "hub"):
        older, mark = base / model, base / model / ".mv"  # "Revision:v1.0.1,CreatedAt:1690000000"
        says = mark.read_text("utf-8").strip() if mark.is_file() else revision
        if older.is_dir() and says.removeprefix("Revision:").partition(",")[0] == revision:
            return older
    return None
