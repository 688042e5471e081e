"""`cliplab doctor`: look at everything that tends to go wrong, and say what to do."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliplab import viz
from cliplab.cli.options import Call, Common
from cliplab.cli.tables import aligned
from cliplab.report import provenance
from cliplab.runtime import cache_dir, checkpoint_dir, is_offline, pick_device, verify_checkpoint

ABOUT = """\
Look at Python, packages, device, encoders, fonts, checkpoints and kernels. Each line says what is
there; a line with a fault says what to do about it, below an arrow."""

EPILOG = """\
examples:
  cliplab doctor

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


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    subject: str
    status: str  # OK, NOTE (works, but look) or FAULT (something needed is broken)
    text: str
    remedy: str = ""


def run(_: Common) -> int:
    """Print the findings -> exit code."""
    findings = examine()
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
            remedy = "" if isinstance(error, FileNotFoundError) else _REINSTALL  # it says its own
            findings.append(Finding(name, FAULT, text, remedy))
    return findings


def as_text(findings: list[Finding]) -> str:
    """The findings for people, and a verdict."""
    rows = []
    for f in findings:
        rows.append([f"{f.status:5}", f.subject, f.text])
        rows += [["", "", f"-> {f.remedy}"]] if f.remedy else []
    faults, notes = (sum(f.status == kind for f in findings) for kind in (FAULT, NOTE))
    verdict = f"{faults} faults, {notes} notes" if faults or notes else "all well"
    return "\n".join([*aligned(rows, text=3), "", verdict])


# ---- the checks ----------------------------------------------------------------------------


def _said(subject: str, text: str, *, fault: str = "", note: str = "") -> Finding:
    """A finding whose remedy is that of a fault, of a note, or none."""
    return Finding(subject, FAULT if fault else NOTE if note else OK, text, fault or note)


def check_python() -> Iterator[Finding]:
    """The interpreter, and whether the terminal prints Chinese."""
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    fault = "" if fits else "install Python 3.11, then: make PYTHON=/path/to/python3.11"
    yield _said("python", f"{platform.python_version()}; 3.11 to 3.13 will do", fault=fault)
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        note = "set the environment variable PYTHONUTF8=1, else Chinese prints as question marks"
        yield _said("terminal", f"speaks {sys.stdout.encoding}, not UTF-8", note=note)


def check_machine() -> Iterator[Finding]:
    """System, cores, memory, free disk space, and what torch computes on."""
    import psutil
    import torch

    memory = psutil.virtual_memory().available / 1e9
    disk = shutil.disk_usage(provenance.root()).free / 1e9
    text = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.1f} GB free"
    note = "" if memory > 1.5 else "close other programs: a notebook takes up to 1.5 GB"
    yield _said("machine", text, note=note)
    fault = "" if disk > 1 else "free some space: reports and caches are written here"
    yield _said("disk", f"{disk:.1f} GB free", fault=fault)
    device, cpu = pick_device("auto").type, torch.backends.cpu.get_cpu_capability()
    if device == "cuda":
        device += f", {torch.cuda.get_device_name()}"
    yield _said("device", f"{device}; cpu {torch.get_num_threads()} threads, {cpu}")


def check_packages() -> Iterator[Finding]:
    """Every package that cliplab asks for, against the pins."""
    pinned, asked = provenance.root() / "constraints.txt", requirements()
    pins = pinned.read_text(encoding="utf-8").lower() if pinned.exists() else ""
    here = {name: version for name in asked if (version := provenance.version(name))}
    absent = [name for name in asked if name not in here]
    for name in filter(asked.get, absent):
        yield _said(name, "is not installed", fault=_REINSTALL)
    yield _said("packages", f"{len(here)} of {len(asked)} installed")
    if optional := [name for name in absent if not asked[name]]:
        note = 'pip install -c constraints.txt -e ".[all]", if you need what they are for'
        yield _said("packages", f"optional ones absent: {', '.join(optional)}", note=note)
    for name, version in here.items():  # several pins where they hang on Python or the system
        known = re.findall(rf"^{re.escape(name)}==(\S+)", pins, flags=re.MULTILINE)
        if known and version.partition("+")[0] not in known:
            note = "numbers can differ a little; for the pinned ones: make clean, then make run"
            text = f"{name} {version} (pinned: {' or '.join(known)})"
            yield _said("packages", text, note=note)


def requirements() -> dict[str, bool]:
    """Packages that cliplab declares: name -> whether the package itself or a run needs it."""
    found = {}
    for line in importlib.metadata.requires("cliplab") or []:
        (name,), extra = re.findall(r"^[\w.-]+", line), re.search(r"extra == ['\"](\w+)", line)
        found[name.lower()] = extra is None or extra[1] == "notebooks"
    found.pop("cliplab", None)  # the extra `all` asks for the others
    return dict(sorted(found.items()))


def check_encoders() -> Iterator[Finding]:
    """Which families of official encoders are installed; importing them would take seconds."""
    for prefix, (module, distribution) in FAMILIES.items():
        version, found = provenance.version(distribution), importlib.util.find_spec(module)
        text, fault, note = f"{module} {version}", "", ""
        if found is None:
            text, note = f"{module} is not installed", f"{_OFFICIAL}, if you need it"
        elif prefix == "openai" and not version:
            text = "the installed `clip` is another package of that name, not OpenAI's"
            fault = f"pip uninstall clip; {_OFFICIAL}"
        elif prefix == "openai" and importlib.util.find_spec("pkg_resources") is None:
            text = "is installed, but cannot import pkg_resources, which newer setuptools lacks"
            fault = 'pip install "setuptools<81"'
        yield _said(f"{prefix}:", text, fault=fault, note=note)


def check_cache() -> Iterator[Finding]:
    """Whether downloads are allowed, and the cache of embeddings can be written."""
    try:
        text = "not used; cached models load" if is_offline() else "downloads are allowed"
        yield _said("network", text)
    except ValueError as error:  # a variable that says neither yes nor no
        yield _said("network", str(error), fault="unset it, or give it such a value")
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    can = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    fault = "" if can else "set $CLIPLAB_CACHE to a folder that can be written"
    # a home folder is not named: reports of bugs should not name their author
    yield _said("cache", str(folder).replace(str(Path.home()), "~"), fault=fault)


def check_fonts() -> Iterator[Finding]:
    """A font that has Chinese glyphs, for labels in figures."""
    font = next(iter(viz.cjk_fonts()), "")
    whole = "a checkout's data/fonts must be whole; without a checkout set $CLIPLAB_DATA"
    fault = "" if font else f"{whole}; or install Noto Sans CJK SC"
    yield _said("fonts", f"Chinese in figures is drawn in {font or 'empty boxes'}", fault=fault)


def check_checkpoints() -> Iterator[Finding]:
    """The shipped weights, against the hashes in their model cards."""
    for name, recipe in CHECKPOINTS.items():
        folder = checkpoint_dir(name)
        try:
            text = "whole" if verify_checkpoint(folder) else f"{folder}: no model_card.json"
        except (OSError, ValueError) as error:
            text = str(error)
        fault = f"git checkout data/checkpoints/{name}; or cliplab train {recipe}"
        yield _said(name, text, fault="" if text == "whole" else fault)


def check_kernel() -> Iterator[Finding]:
    """Which Python JupyterLab starts; `cliplab run` always uses its own."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        command = "no Python kernel"
    # a bare "python" stands for the one that runs JupyterLab
    ours = command in ("python", "python3") or Path(command).absolute() == Path(sys.executable)
    note = "" if ours else "python -m ipykernel install --sys-prefix"
    yield _said("kernel", f"JupyterLab would use {'this Python' if ours else command}", note=note)


CHECKS: Sequence[Callable[[], Iterator[Finding]]] = [
    check for name, check in list(globals().items()) if name.startswith("check_")
]

DOCTOR = Call(Common, ABOUT, EPILOG, run)
