"""``python -m cliplab bench``: run the benchmarks and write down what they say."""

import argparse
import ast
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cliplab.report import provenance
from cliplab.runtime import atomic_write, unknown_name

DESCRIPTION = """\
Run every benchmarks/*.py, each in a process of its own, and write what they print to
benchmarks/RESULTS.md, with the machine and the versions. Close other programs first."""

EXAMPLES = """\
examples:
  python -m cliplab bench
  python -m cliplab bench pasture          one benchmark, printed and not written down

exit code: 0 all ran; 1 one failed, and RESULTS.md is as it was"""


def benchmarks_dir() -> Path:
    """Folder of the benchmarks."""
    return provenance.root() / "benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("names", nargs="*", metavar="NAME", help="of benchmarks/NAME.py (all)")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    scripts = find(args.names)
    sections = []
    for script in scripts:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8", check=False
        )
        if done.returncode:
            print(f"{script.name} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        print(f"{done.stdout.rstrip()}\n\n({script.name}: {time.monotonic() - start:.0f} s)\n")
        sections.append(section(script, done.stdout))
    if not args.names:
        path = benchmarks_dir() / "RESULTS.md"
        with atomic_write(path, "w") as file:
            file.write("\n\n".join([heading(), *sections]) + "\n")
        print(f"written: {path}")
    return 0


def find(names: Sequence[str]) -> list[Path]:
    """Scripts of the benchmarks called `names`; all for none."""
    scripts = {path.stem: path for path in sorted(benchmarks_dir().glob("*.py"))}
    if not scripts:
        raise FileNotFoundError(f"no *.py in {benchmarks_dir()}; run from a checkout")
    for name in names:
        if name not in scripts:
            raise ValueError(unknown_name("benchmark", name, scripts))
    return [scripts[name] for name in names or scripts]


def section(script: Path, output: str) -> str:
    """What a script printed, below the first line of its docstring."""
    doc = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem
    return f"## {doc.splitlines()[0].rstrip('.')}\n\n`benchmarks/{script.name}`\n\n{output.strip()}"


def heading() -> str:
    """Title, machine and versions."""
    machine, versions = provenance.machine(), provenance.versions()
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    names = ("python", "cliplab", "torch", "torchvision", "numpy", "pillow")
    what = ", ".join(f"{name} {versions[name]}" for name in names)
    return (
        "# What was measured\n\n"
        f"Written by `make bench`, never by hand. {where}, {machine['device']}; {what}."
    )
