"""`cliplab bench`: run the benchmarks and write down what they say."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cliplab.cli.options import Common, Positional, opt
from cliplab.runtime import atomic_write, unknown_name

ABOUT = """\
Run every benchmarks/*.py, each in a process of its own, and write what they print to
benchmarks/RESULTS.md, with the machine and the versions. Close other programs first."""

EPILOG = """\
examples:
  cliplab bench
  cliplab bench pasture          one benchmark, printed and not written down

exit code: 0 all ran; 1 one failed, and RESULTS.md is as it was"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `bench` can be told."""

    names: Annotated[
        tuple[str, ...], Positional, opt("[NAME ...]", "of benchmarks/NAME.py; none: all")
    ] = ()


def run(options: Options) -> int:
    """Run the benchmarks -> exit code."""
    sections = []
    for script in find(options.names):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8", check=False
        )
        if done.returncode:
            print(f"{script.name} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        print(f"{done.stdout.rstrip()}\n\n({script.name}: {time.monotonic() - start:.0f} s)\n")
        sections.append(section(script, done.stdout))
    if not options.names:
        path = benchmarks_dir() / "RESULTS.md"
        with atomic_write(path, "w") as file:
            file.write("\n\n".join([heading(), *sections]) + "\n")
        print(f"written: {path}")
    return 0


def benchmarks_dir() -> Path:
    """Folder of the benchmarks."""
    from cliplab.report import provenance

    return provenance.root() / "benchmarks"


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
    from cliplab.report import provenance

    machine, versions = provenance.machine(), provenance.versions()
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    names = ("python", "cliplab", "torch", "torchvision", "numpy", "pillow")
    what = ", ".join(f"{name} {versions[name]}" for name in names)
    return (
        "# What was measured\n\n"
        f"Written by `make bench`, never by hand. {where}, {machine['device']}; {what}."
    )
