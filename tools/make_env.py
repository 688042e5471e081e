"""Make or reuse `.venv`: what `make` does first. Needs nothing but Python's standard library.

    python3.11 tools/make_env.py

The environment is reused while pyproject.toml and constraints.txt say the same; it is made anew
when the last installation did not finish, when the checkout was moved, or when its Python is gone.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt")
OLDEST, NEWEST = (3, 11), (3, 13)


def interpreter(venv: Path) -> Path:
    """Path of the environment's Python, which lies elsewhere on Windows."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def wanted(root: Path) -> dict[str, str]:
    """What a finished environment was made from: a hash of the inputs, and the checkout's place.

    The place is part of it because an editable installation holds absolute paths.
    """
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((root / name).read_bytes().replace(b"\r\n", b"\n"))
    return {"inputs": digest.hexdigest(), "place": str(root)}


def stamped(venv: Path) -> dict[str, str]:
    """What the environment was made from, {} when nothing readable says so."""
    try:
        return dict(json.loads((venv / "cliplab-stamp.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def is_sound(venv: Path, root: Path) -> bool:
    """Whether an existing environment can be installed into: whole, in its place, and it runs."""
    if (venv / "cliplab-installing").exists():
        return False
    if stamped(venv).get("place", str(root)) != str(root):
        return False
    try:
        return subprocess.run([interpreter(venv), "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def install(venv: Path, root: Path) -> None:
    """Make the environment if need be and install cliplab with everything, as pinned."""
    if venv.exists() and not is_sound(venv, root):
        print(f"{venv.name} is incomplete or was moved: making it anew", flush=True)
        shutil.rmtree(venv)
    is_new = not venv.exists()
    venv.mkdir(exist_ok=True)
    marker = venv / "cliplab-installing"
    marker.touch()
    (venv / "cliplab-stamp.json").unlink(missing_ok=True)
    if is_new:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    print("installing the pinned packages into .venv: some minutes, once", flush=True)
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    # --no-compile: Python compiles what is really imported, on its first import, which is a
    # small part of what is installed.
    pip = [interpreter(venv), "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    arguments = ["--no-compile", "-c", "constraints.txt", "-e", ".[all]"]
    subprocess.run([*pip, *arguments], check=True, cwd=root)
    marker.unlink()
    (venv / "cliplab-stamp.json").write_text(json.dumps(wanted(root)), encoding="utf-8")


def fail(*lines: str) -> int:
    """Print `lines` as an error; exit code 1."""
    print(*lines, sep="\n", file=sys.stderr)
    return 1


def main(root: Path = ROOT) -> int:
    """Exit code: 0 when the environment is there, 1 with a remedy when it could not be made."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = ".".join(map(str, sys.version_info[:3]))
        need = " to ".join(f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
        return fail(
            f"cliplab needs Python {need}; this is {found} ({sys.executable}).",
            "Name another one: make PYTHON=/path/to/python3.11",
        )
    venv = root / ".venv"
    if stamped(venv) == wanted(root) and interpreter(venv).exists():
        return 0
    try:
        install(venv, root)
    except (subprocess.CalledProcessError, OSError) as error:
        return fail(
            f"the environment could not be made: {error}",
            "See the message above (no network? disk full? on Debian and Ubuntu: apt install",
            "python3.11-venv), then run the same command again.",
        )
    except KeyboardInterrupt:
        print("interrupted; the next call starts the installation anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
