"""`cliplab doctor`: look at everything that tends to go wrong, and say what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cliplab.cli.options import Common, Flag, opt
from cliplab.runtime import cache_dir, checkpoint_dir, is_offline, verify_checkpoint

ABOUT = """\
Look at Python, packages, device, encoders, fonts, checkpoints and kernels. Each line says what is
there; a line with a fault says what to do about it, below an arrow."""

EPILOG = """\
examples:
  cliplab doctor
  cliplab doctor --json          for a bug report or a script

exit code: 0 nothing needed is broken (there may be notes), 1 something is"""

OK, NOTE, FAULT = "ok", "note", "FAULT"
CHECKPOINTS = {  # folder -> recipe, as `cliplab train` takes it
    "clip-openai": "clip",
    "clip-chinese": "clip",
    "vild": "vild",
    "glip": "glip",
    "glip-no-fusion": "glip --no-fusion",
    "groupvit": "groupvit",
}
FAMILIES = {  # prefix of an encoder -> module, distribution
    "openai": ("clip", "openai-clip"),
    "modelscope": ("modelscope", "modelscope"),
    "hf": ("transformers", "transformers"),
    "open_clip": ("open_clip", "open-clip-torch"),
}
_REINSTALL = 'make clean, then the command again; or pip install -c constraints.txt -e ".[all]"'
_OFFICIAL = 'pip install -c constraints.txt -e ".[official]"'


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `doctor` can be told."""

    json: Annotated[Flag, opt(None, "print the findings as JSON")] = False


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    subject: str
    status: str  # OK, NOTE (works, but look) or FAULT (something needed is broken)
    text: str
    remedy: str = ""


def run(options: Options) -> int:
    """Print the findings -> exit code."""
    findings = examine()
    if options.json:
        print(json.dumps([asdict(f) for f in findings], ensure_ascii=False, indent=1))
    else:
        print(as_text(findings))
    return int(any(f.status == FAULT for f in findings))


def examine() -> list[Finding]:
    """Everything the doctor finds; a check that itself breaks is a fault, not the end."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check())
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            text = f"could not be checked: {type(error).__name__}: {error}"
            findings.append(Finding(name, FAULT, text, _REINSTALL))
    return findings


def as_text(findings: list[Finding]) -> str:
    """The findings for people, and a verdict."""
    width = max(len(f.subject) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.status:5}  {f.subject:{width}}  {f.text}")
        if f.remedy:
            lines.append(f"{'':5}  {'':{width}}  -> {f.remedy}")
    faults = sum(f.status == FAULT for f in findings)
    notes = sum(f.status == NOTE for f in findings)
    verdict = f"{faults} faults, {notes} notes" if faults or notes else "all well"
    return "\n".join([*lines, "", verdict])


# ---- the checks ----------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    """The interpreter, and whether the terminal prints Chinese."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", OK, f"{version} in {Path(sys.prefix).name}")
    else:
        remedy = "install Python 3.11, then: make PYTHON=/path/to/python3.11"
        yield Finding("python", FAULT, f"{version}; cliplab needs 3.11 to 3.13", remedy)
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        remedy = "set the environment variable PYTHONUTF8=1, else Chinese prints as question marks"
        yield Finding("terminal", NOTE, f"speaks {sys.stdout.encoding}, not UTF-8", remedy)


def check_machine() -> Iterator[Finding]:
    """System, cores, memory, and free disk space."""
    import psutil

    from cliplab.report.provenance import root

    memory, free = psutil.virtual_memory(), shutil.disk_usage(root()).free / 1e9
    short = memory.available < 1.5e9
    text = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    )
    remedy = "close other programs: a notebook takes up to 1.5 GB" if short else ""
    yield Finding("machine", NOTE if short else OK, text, remedy)
    remedy = "" if free > 1 else "free some space: reports and caches are written here"
    yield Finding("disk", OK if free > 1 else FAULT, f"{free:.1f} GB free", remedy)


def check_packages() -> Iterator[Finding]:
    """Every package that cliplab asks for, against the pins."""
    from cliplab.report.provenance import root

    pins = read_pins(root() / "constraints.txt")
    asked = requirements()
    here = {name: version for name in asked if (version := _version(name))}
    absent = [name for name in asked if name not in here]
    for name in filter(asked.get, absent):
        yield Finding(name, FAULT, "is not installed", _REINSTALL)
    yield Finding("packages", OK, f"{len(here)} of {len(asked)} installed")
    if optional := [name for name in absent if not asked[name]]:
        remedy = 'pip install -c constraints.txt -e ".[all]", if you need what they are for'
        yield Finding("packages", NOTE, f"optional ones absent: {', '.join(optional)}", remedy)
    if other := [
        f"{name} {version} (pinned: {' or '.join(pins[name])})"
        for name, version in here.items()
        if name in pins and version.partition("+")[0] not in pins[name]
    ]:
        remedy = "numbers can differ a little; for the pinned ones: make clean, then make run"
        yield Finding("packages", NOTE, "; ".join(other), remedy)


def requirements() -> dict[str, bool]:
    """Packages that cliplab declares: name -> whether the package itself or a run needs it."""
    found = {}
    for line in importlib.metadata.requires("cliplab") or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"](\w+)", line)
        if name and name[0] != "cliplab":
            found[name[0].lower()] = extra is None or extra[1] == "notebooks"
    return dict(sorted(found.items()))


def read_pins(path: Path) -> dict[str, list[str]]:
    """Versions in a constraints file by name; several where they hang on Python or the system."""
    pins: dict[str, list[str]] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE):
        pins.setdefault(name.lower(), []).append(version)
    return pins


def _version(name: str) -> str:
    """Of an installed distribution, "" if it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_device() -> Iterator[Finding]:
    """What torch computes on."""
    import torch

    from cliplab.runtime import pick_device

    device = pick_device("auto").type
    text = f"{device}; cpu {torch.backends.cpu.get_cpu_capability()}"
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        text = f"cuda: {torch.cuda.get_device_name()}, {memory:.0f} GB"
    yield Finding("device", OK, f"{text}, {torch.get_num_threads()} threads")


def check_encoders() -> Iterator[Finding]:
    """Which families of official encoders are installed; importing them would take seconds."""
    for prefix, (module, distribution) in FAMILIES.items():
        subject, found = f"{prefix}:", importlib.util.find_spec(module)
        version = _version(distribution)
        if found is None:
            text, remedy = f"{module} is not installed", f"{_OFFICIAL}, if you need it"
            yield Finding(subject, NOTE, text, remedy)
        elif prefix == "openai" and not version:
            text = "the installed `clip` is another package of that name, not OpenAI's"
            yield Finding(subject, FAULT, text, f"pip uninstall clip; {_OFFICIAL}")
        elif prefix == "openai" and importlib.util.find_spec("pkg_resources") is None:
            text = "is installed, but cannot import pkg_resources, which newer setuptools lacks"
            yield Finding(subject, FAULT, text, 'pip install "setuptools<81"')
        else:
            yield Finding(subject, OK, f"{module} {version}")


def check_cache() -> Iterator[Finding]:
    """Whether downloads are allowed, and the cache of embeddings can be written."""
    try:
        text = "not used; cached models load" if is_offline() else "downloads are allowed"
        yield Finding("network", OK, text)
    except ValueError as error:  # a variable that says neither yes nor no
        yield Finding("network", FAULT, str(error), "unset it, or give it such a value")
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    # a home folder is not named: reports of bugs should not name their author
    shown = str(folder).replace(str(Path.home()), "~")
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        yield Finding("cache", OK, shown)
    else:
        remedy = "set $CLIPLAB_CACHE to a folder that can be written"
        yield Finding("cache", FAULT, f"{shown} cannot be written", remedy)


def check_fonts() -> Iterator[Finding]:
    """A font that has Chinese glyphs, for labels in figures."""
    from cliplab.viz.figures import cjk_font

    if font := cjk_font():
        yield Finding("fonts", OK, f"Chinese in figures is drawn in {font}")
    else:
        remedy = "git checkout data/fonts; or install Noto Sans CJK SC"
        yield Finding("fonts", FAULT, "Chinese in figures would be empty boxes", remedy)


def check_checkpoints() -> Iterator[Finding]:
    """The shipped weights, against the hashes in their model cards."""
    for name, recipe in CHECKPOINTS.items():
        folder = checkpoint_dir(name)
        try:
            compared = verify_checkpoint(folder)
        except (OSError, ValueError) as error:
            fault = str(error)
        else:
            fault = "" if compared else f"{folder / 'model_card.json'} is missing"
        if fault:
            remedy = f"git checkout data/checkpoints/{name}; or cliplab train {recipe}"
            yield Finding(name, FAULT, fault, remedy)
        else:
            size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            yield Finding(name, OK, f"whole, {size:.1f} MB")


def check_kernel() -> Iterator[Finding]:
    """Which Python JupyterLab starts; `cliplab run` always uses its own."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    remedy = "python -m ipykernel install --sys-prefix"
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        yield Finding("kernel", NOTE, "JupyterLab will find no Python kernel", remedy)
        return
    # a bare "python" stands for the one that runs JupyterLab
    ours = command in ("python", "python3") or Path(command).absolute() == Path(sys.executable)
    text = "JupyterLab uses this Python" if ours else f"JupyterLab would use {command}"
    yield Finding("kernel", OK if ours else NOTE, text, "" if ours else remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_machine,
    check_packages,
    check_device,
    check_encoders,
    check_cache,
    check_fonts,
    check_checkpoints,
    check_kernel,
)
