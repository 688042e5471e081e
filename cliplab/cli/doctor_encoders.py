"""What the doctor says of encoders: which families load here, where their files lie, the cache."""

import importlib.metadata
import importlib.util
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from cliplab.cli.doctor import FAULT, NOTE, OK, Finding
from cliplab.encoders.from_openai import openai_cache
from cliplab.encoders.hub import huggingface_cache, modelscope_cache, timeout_s
from cliplab.encoders.official import PACKAGES
from cliplab.runtime import OFFLINE_VARIABLES, cache_dir, is_offline

_LOW_DISK = 2e9  # bytes; one large model takes about that
# prefix -> module, its distributions (the first that is found), where its snapshots are
FAMILIES: dict[str, tuple[str, tuple[str, ...], Callable[[], Path]]] = {
    "openai": ("clip", ("openai-clip", "clip"), openai_cache),
    "modelscope": ("modelscope", ("modelscope",), modelscope_cache),
    "hf": ("transformers", ("transformers",), huggingface_cache),
    "open_clip": ("open_clip", ("open-clip-torch",), huggingface_cache),
}


def check_encoders() -> Iterator[Finding]:
    """The families of encoders, the network, and the cache."""
    for prefix in FAMILIES:
        yield _check_family(prefix)
    yield _check_network()
    yield _check_cache(cache_dir())


def _check_family(prefix: str) -> Finding:
    """Whether the package is there (importing it would take seconds), and its cached models."""
    module, names, folder = FAMILIES[prefix]
    subject, found = f"{prefix}:", importlib.util.find_spec(module)
    install = "pip install " + " ".join(f'"{package}"' for package in PACKAGES[prefix])
    if found is None:
        return Finding(subject, NOTE, f"{module} is not installed", f"{install}, if you need it")
    home = Path(found.origin).parent if found.origin else Path("nowhere")
    if prefix == "openai" and not (home / "simple_tokenizer.py").is_file():
        text = "the installed `clip` is another package of that name, not OpenAI's"
        return Finding(subject, FAULT, text, f"pip uninstall clip; {install}")
    version = next(filter(None, map(_version, names)), "of unknown version")
    count, where = _models(prefix, folder()), _shown(folder())
    kept = f"{count} models in {where}" if count else f"no models yet in {where}"
    return Finding(subject, OK, f"{module} {version}; {kept}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _models(prefix: str, folder: Path) -> int:
    """How many models of a family its cache seems to hold."""
    patterns = {
        "openai": ("*.pt",),
        "modelscope": ("models/*--*", "models/*/*/configuration.json",
                       "hub/models/*/*/configuration.json"),
    }  # fmt: skip
    return sum(len(list(folder.glob(p))) for p in patterns.get(prefix, ("models--*",)))


def _check_network() -> Finding:
    """Whether downloads are allowed, and how long a server may be silent."""
    try:
        offline, seconds = is_offline(), timeout_s()
    except ValueError as error:  # a variable that says neither yes nor no
        name = str(error).partition(":")[0].removeprefix("$")
        return Finding("network", FAULT, str(error), f"unset {name}, or give it such a value")
    if offline:
        names = [f"${name}" for name in OFFLINE_VARIABLES if os.environ.get(name, "").strip()]
        return Finding("network", OK, f"not used, as {', '.join(names)} says; cached models load")
    proxy = urllib.request.getproxies().get("https", "").rpartition("@")[2]
    through = f" through the proxy {proxy}" if proxy else ""
    return Finding("network", OK, f"downloads are allowed{through}, {seconds:g} s for an answer")


def _check_cache(folder: Path) -> Finding:
    """The cache of embeddings: can it be written, how large is it, is there room."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    move = "set $CLIPLAB_CACHE to a folder that can be written"
    if not existing.is_dir():
        return Finding("cache", FAULT, f"{_shown(existing)} is a file, not a folder", move)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("cache", FAULT, f"{_shown(existing)} cannot be written", move)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files) / 1e6
    text, free = f"{_shown(folder)}, {size:.1f} MB", shutil.disk_usage(existing).free
    if free < _LOW_DISK:
        remedy = "free some space, or set $CLIPLAB_CACHE to a larger disk; all of it can go"
        return Finding("cache", NOTE, f"{text}, but only {free / 1e9:.1f} GB free there", remedy)
    return Finding("cache", OK, text)


def _shown(path: Path) -> str:
    """A path with ~ for the home folder: reports of bugs should not name their author."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
