"""Where a result came from: versions, machine, commit, code and checkpoints."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from cliplab import __version__
from cliplab.runtime import data_dir, pick_device, sha256

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "matplotlib",
    "pandas",
    "scikit-learn",
    "scikit-image",
    "safetensors",
    "openai-clip",
    "modelscope",
    "papermill",
    "nbconvert",
    "ipykernel",
)


def root() -> Path:
    """Folder that holds the package; in a checkout, the repository."""
    return Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """Versions of python, cliplab and the packages that decide about numbers and pictures."""
    found = {"python": platform.python_version(), "cliplab": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, Any]:
    """System, processor, cores, memory in GB and device, without anything that names its owner."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity()) if _has_affinity() else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "device": _device(),
    }


def _has_affinity() -> bool:
    import psutil

    return hasattr(psutil.Process, "cpu_affinity")


def _processor() -> str:
    names = Path("/proc/cpuinfo")  # on Linux platform.processor() is empty
    if names.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", names.read_text(encoding="utf-8"), re.M)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _device() -> str:
    import torch

    device = pick_device("auto")
    return f"cuda ({torch.cuda.get_device_name()})" if device.type == "cuda" else device.type


def commit(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of the checkout and whether anything differs from it; None outside a checkout."""
    folder = folder or root()
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    head = _git(folder, "rev-parse", "HEAD")
    return {"id": head, "dirty": bool(_git(folder, "status", "--porcelain"))} if head else None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def code_hash() -> str:
    """SHA-256 over the package's Python files: two runs of one version can still differ in it."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def checkpoints() -> dict[str, dict[str, str]]:
    """SHA-256 of each file that a model card lists: checkpoint -> file -> hash, "absent" if so."""
    found = {}
    for card in sorted((data_dir() / "checkpoints").glob("*/model_card.json")):
        files = json.loads(card.read_text(encoding="utf-8")).get("files", {})
        found[card.parent.name] = {
            name: sha256(path) if (path := card.parent / name).is_file() else "absent"
            for name in files
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
