"""``python -m cliplab doctor``: look at everything that tends to go wrong, and say what to do."""

import argparse
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

from cliplab.report.provenance import root
from cliplab.runtime import data_dir, sha256

DESCRIPTION = """\
Look at Python, packages, device, fonts, checkpoints and kernels. Each line says what is there; a
line with a fault says what to do about it, below an arrow."""

EXAMPLES = """\
examples:
  python -m cliplab doctor
  python -m cliplab doctor --json          for a bug report or a script

exit code: 0 nothing needed is broken (there may be notes), 1 something is"""

OK, NOTE, FAULT = "ok", "note", "FAULT"
CHECKPOINTS = {  # folder -> recipe, as `python -m cliplab train` takes it
    "clip-openai": "clip",
    "clip-chinese": "clip",
    "vild": "vild",
    "glip": "glip",
    "glip-no-fusion": "glip --no-fusion",
    "groupvit": "groupvit",
}
_REINSTALL = 'make clean, then the command again; or pip install -c constraints.txt -e ".[all]"'


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    subject: str
    status: str  # OK, NOTE (works, but look) or FAULT (something needed is broken)
    text: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    findings = examine()
    if args.json:
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
    """The interpreter, and whether it is inside an environment."""
    version = platform.python_version()
    inside = "in an environment of its own" if sys.prefix != sys.base_prefix else ""
    inside = (
        f"in conda's {os.environ['CONDA_DEFAULT_ENV']}" if "CONDA_PREFIX" in os.environ else inside
    )
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", OK, f"{version} {inside}".strip())
    else:
        remedy = "install Python 3.11, then: make PYTHON=/path/to/python3.11"
        yield Finding("python", FAULT, f"{version}; cliplab needs 3.11 to 3.13", remedy)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        remedy = "set the environment variable PYTHONUTF8=1, else Chinese prints as question marks"
        yield Finding("terminal", NOTE, f"speaks {sys.stdout.encoding}, not UTF-8", remedy)


def check_machine() -> Iterator[Finding]:
    """System, cores, memory, and free disk space."""
    import psutil

    memory = psutil.virtual_memory()
    cores = (
        f"{os.cpu_count()} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    )
    system = f"{platform.system()} {platform.machine()}, {cores}"
    short = memory.available < 1.5e9
    remedy = "close other programs: a notebook takes up to 1.5 GB" if short else ""
    yield Finding("machine", NOTE if short else OK, system, remedy)
    free = shutil.disk_usage(root()).free / 1e9
    enough = free > 1
    remedy = "" if enough else "free some space: reports and caches are written here"
    yield Finding("disk", OK if enough else FAULT, f"{free:.1f} GB free", remedy)


def check_packages() -> Iterator[Finding]:
    """Every package that cliplab asks for, against the pins."""
    pins = read_pins(root() / "constraints.txt")
    missing, other, count = [], [], 0
    for name, is_needed in requirements():
        count += 1
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if is_needed:
                yield Finding(name, FAULT, "is not installed", _REINSTALL)
            else:
                missing.append(name)
            continue
        if name in pins and version.partition("+")[0] != pins[name]:
            other.append(f"{name} {version} (pinned: {pins[name]})")
    yield Finding("packages", OK, f"{count - len(missing)} of {count} installed")
    if missing:
        remedy = 'pip install -c constraints.txt -e ".[all]", if you need what they are for'
        yield Finding("packages", NOTE, f"optional ones absent: {', '.join(missing)}", remedy)
    if other:
        remedy = "numbers can differ a little; for the pinned ones: make clean, then make run"
        yield Finding("packages", NOTE, "; ".join(other), remedy)


def requirements() -> list[tuple[str, bool]]:
    """Packages that cliplab declares: (name, whether the package itself or a run needs it)."""
    from packaging.requirements import Requirement

    found = {}
    for line in importlib.metadata.requires("cliplab") or []:
        requirement = Requirement(line)
        name = requirement.name.lower()
        extra = re.search(r"extra == ['\"](\w+)", str(requirement.marker or ""))
        if name != "cliplab":
            found[name] = extra is None or extra[1] == "notebooks"
    return sorted(found.items())


def read_pins(path: Path) -> dict[str, str]:
    """Exact versions in a constraints file that hold on this Python and system, by name."""
    from packaging.requirements import Requirement

    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    here = [r for r in parsed if r.marker is None or r.marker.evaluate()]
    return {r.name.lower(): str(r.specifier).removeprefix("==") for r in here}


def check_device() -> Iterator[Finding]:
    """What torch computes on."""
    import torch

    from cliplab.runtime import pick_device

    device = pick_device("auto").type
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        text = f"cuda: {torch.cuda.get_device_name()}, {memory:.0f} GB"
    else:
        speed = "with bfloat16 instructions" if has_bfloat16() else "without bfloat16 instructions"
        text = f"{device}; cpu {torch.backends.cpu.get_cpu_capability()} {speed}"
        text += f", {torch.get_num_threads()} threads"
    yield Finding("device", OK, text)


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself; without, training takes float32."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text("utf-8")))
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def check_official_clip() -> Iterator[Finding]:
    """The official `clip` package imports pkg_resources, which newer setuptools no longer has."""
    if importlib.util.find_spec("clip") is None:
        return
    if importlib.util.find_spec("pkg_resources") is None:
        remedy = 'pip install "setuptools<81"'
        yield Finding("clip", FAULT, "is installed, but cannot import pkg_resources", remedy)
    else:
        yield Finding("clip", OK, f"can be imported (setuptools {_version('setuptools')})")


def _version(name: str) -> str:
    return importlib.metadata.version(name)


def check_encoders() -> Iterator[Finding]:
    """Which encoders can be loaded here, whether from the network, and the cache."""
    from cliplab.cli import doctor_encoders as encoder_checks

    yield from encoder_checks.check_encoders()


def check_fonts() -> Iterator[Finding]:
    """A font that has Chinese glyphs, for labels in figures."""
    from cliplab.viz.figures import cjk_font

    font = cjk_font()
    if font:
        yield Finding("fonts", OK, f"Chinese in figures is drawn in {font}")
    else:
        remedy = "git checkout data/fonts; or install Noto Sans CJK SC"
        yield Finding("fonts", FAULT, "Chinese in figures would be empty boxes", remedy)


def check_checkpoints() -> Iterator[Finding]:
    """The shipped weights, against the hashes in their model cards."""
    for name, recipe in CHECKPOINTS.items():
        folder = data_dir() / "checkpoints" / name
        bad = _bad_files(folder)
        if bad:
            remedy = f"git checkout data/checkpoints/{name}; or python -m cliplab train {recipe}"
            yield Finding(name, FAULT, bad, remedy)
        else:
            size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            yield Finding(name, OK, f"whole, {size:.1f} MB")


def _bad_files(folder: Path) -> str:
    """What is wrong with a checkpoint, "" if nothing."""
    card = folder / "model_card.json"
    if not card.is_file():
        return f"{card} is missing"
    for name, expected in json.loads(card.read_text(encoding="utf-8"))["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size < 1000 and path.read_bytes().startswith(b"version https://git-lfs"):
            return f"{name} is a Git LFS pointer, not the file"
        if sha256(path) != expected:
            return f"{name} is not the file that the model card describes"
    return ""


def check_kernel() -> Iterator[Finding]:
    """Which Python JupyterLab starts; `python -m cliplab run` always uses its own."""
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
    check_official_clip,
    check_encoders,
    check_fonts,
    check_checkpoints,
    check_kernel,
)
