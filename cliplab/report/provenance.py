"""Where a result came from: versions, machine, commit, code and checkpoints."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cliplab import __version__
from cliplab.runtime import data_dir, pick_device, sha256

PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "matplotlib", "pandas", "scikit-learn",
    "scikit-image", "safetensors", "openai-clip", "modelscope", "transformers", "tokenizers",
    "open-clip-torch", "timm", "papermill", "nbconvert", "ipykernel",
)  # fmt: skip


def root() -> Path:
    """Folder that holds the package; in a checkout, the repository."""
    return Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Versions of python, cliplab and the packages that decide about numbers and pictures."""
    found = {"python": platform.python_version(), "cliplab": __version__}
    return found | {name: version(name) or "absent" for name in PACKAGES}


def version(name: str) -> str:
    """Of an installed distribution, "" if it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine() -> dict[str, Any]:
    """System, processor, memory in GB, device, torch; without anything that names its owner."""
    import psutil
    import torch

    process, device = psutil.Process(), pick_device("auto")
    has_affinity = hasattr(process, "cpu_affinity")  # not on a Mac
    graphics = f"cuda ({torch.cuda.get_device_name()})" if device.type == "cuda" else device.type
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(process.cpu_affinity()) if has_affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),  # the kernels take as many
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": graphics,
        "torch_build": f"{torch.__version__}, {torch.version.git_version}, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    }


def _processor() -> str:
    names = Path("/proc/cpuinfo")  # on Linux platform.processor() is empty
    text = names.read_text(encoding="utf-8") if names.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def commit() -> dict[str, Any] | None:
    """Commit of the checkout and whether anything differs from it; None outside a checkout."""
    folder = root()
    if not (folder / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.check_output(["git", *words], cwd=folder, stderr=subprocess.DEVNULL)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or none that reads this
        return None
    return {"id": head.decode().strip(), "dirty": bool(changes)}


def code_hash() -> str:
    """SHA-256 over the package's Python files: two runs of one version can still differ in it."""
    package = Path(__file__).resolve().parents[1]
    return fingerprint(package, package.rglob("*.py"))


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of `files`, and over their names as seen from `folder`."""
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, set(files))):
        digest.update(os.fsencode(path.as_posix().removeprefix(folder.as_posix())))
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def checkpoints() -> dict[str, dict[str, str]]:
    """SHA-256 of what a model card lists, and of prompts: folder -> file -> hash, or "absent"."""
    prompts = sorted((data_dir() / "prompts").glob("*.json"))
    found = {"prompts": {path.name: sha256(path) for path in prompts}}
    for card in sorted((data_dir() / "checkpoints").glob("*/model_card.json")):
        files = json.loads(card.read_text(encoding="utf-8")).get("files", {})
        paths = {name: card.parent / name for name in files}
        found[card.parent.name] = {
            name: sha256(path) if path.is_file() else "absent" for name, path in paths.items()
        }
    return found


def snapshot() -> dict[str, Any]:
    """All of it, as it goes into results.json."""
    return {
        "versions": versions(),
        "machine": machine(),
        "commit": commit(),
        "code_sha256": code_hash(),
        "checkpoints": checkpoints(),
    }
