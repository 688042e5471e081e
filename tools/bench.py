"""Run benchmarks/*.py and write what they print to benchmarks/RESULTS.md: `make bench`.

    python tools/bench.py                   all of them; close other programs first
    python tools/bench.py pasture           one; what was measured of the others stays

Exit code: 0 all ran; 1 one failed, and what it had written before stays; 2 no such benchmark.
"""

import argparse
import ast
import re
import subprocess
import sys
import time
from pathlib import Path

from cliplab.report import provenance
from cliplab.runtime import atomic_write

FOLDER = Path(__file__).parents[1] / "benchmarks"
HEADING = "# What was measured\n\nWritten by `make bench`, never by hand."


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks -> exit code."""
    scripts = {path.stem: path for path in sorted(FOLDER.glob("[!_]*.py"))}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scripts))
    names = parser.parse_args(argv).names
    if unknown := set(names) - scripts.keys():
        parser.error(f"unknown benchmark {min(unknown)!r}; expected one of {', '.join(scripts)}")
    path = FOLDER / "RESULTS.md"
    sections = written(path)
    for name in names or scripts:
        start, script = time.monotonic(), scripts[name]
        done = subprocess.run(
            [sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8", check=False
        )
        if done.returncode:
            print(f"{script.name} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        print(f"{done.stdout.rstrip()}\n\n({script.name}: {time.monotonic() - start:.0f} s)\n")
        sections[name] = section(script, done.stdout)
        with atomic_write(path, "w") as file:
            known = [sections[one] for one in scripts if one in sections]
            file.write("\n\n".join([HEADING, *known]) + "\n")
    print(f"written: {path}")
    return 0


def written(path: Path) -> dict[str, str]:
    """Name of a benchmark -> what RESULTS.md has of it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = re.split(r"\n+(?=## .*\n\n`benchmarks/\w+\.py`)", text)[1:]
    return {part.split("`benchmarks/", 1)[1].partition(".py`")[0]: part.rstrip() for part in parts}


def section(script: Path, output: str) -> str:
    """What a script printed, below the first line of its docstring, the machine and versions."""
    doc = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem
    title = f"## {doc.splitlines()[0].rstrip('.')}\n\n`benchmarks/{script.name}`"
    machine, versions = provenance.machine(), provenance.versions()
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    names = ("python", "cliplab", "torch", "torchvision", "numpy", "pillow")
    what = ", ".join(f"{name} {versions[name]}" for name in names)
    return f"{title}: {where}, {machine['device']}; {what}\n\n{output.strip()}"


if __name__ == "__main__":
    sys.exit(main())
