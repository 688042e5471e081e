"""Run benchmarks/*.py and write what they print to benchmarks/RESULTS.md: `make bench`.

    python tools/bench.py                   all of them; close other programs first
    python tools/bench.py pasture           one, printed and not written down

Exit code: 0 all ran; 1 one failed, and RESULTS.md is as it was; 2 there is no such benchmark.
"""

import argparse
import ast
import subprocess
import sys
import time
from pathlib import Path

from cliplab.report import provenance
from cliplab.runtime import atomic_write

FOLDER = Path(__file__).parents[1] / "benchmarks"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks -> exit code."""
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scripts))
    names = parser.parse_args(argv).names
    if unknown := set(names) - scripts.keys():
        parser.error(f"unknown benchmark {min(unknown)!r}; expected one of {', '.join(scripts)}")
    sections = []
    for name in names or scripts:
        start, script = time.monotonic(), scripts[name]
        done = subprocess.run(
            [sys.executable, str(script)], stdout=subprocess.PIPE, encoding="utf-8", check=False
        )
        if done.returncode:
            print(f"{script.name} failed with exit code {done.returncode}", file=sys.stderr)
            return 1
        print(f"{done.stdout.rstrip()}\n\n({script.name}: {time.monotonic() - start:.0f} s)\n")
        sections.append(section(script, done.stdout))
    if not names:
        path = FOLDER / "RESULTS.md"
        with atomic_write(path, "w") as file:
            file.write("\n\n".join([heading(), *sections]) + "\n")
        print(f"written: {path}")
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
