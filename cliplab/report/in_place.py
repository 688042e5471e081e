"""Execute notebooks with their default parameters and save them in place, for contributors.

    python -m cliplab.report.in_place [NN ...]          (or: make notebooks ARGS="02")

What is saved has execution counts 1..n, outputs, tags, and nothing about editors, kernels, times
or machines. A notebook that fails, or that writes to stderr, is not saved.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplab.cli.run import Bar
from cliplab.report.execute import execute
from cliplab.report.folder import Job, Request, plan
from cliplab.report.notebook import find_notebooks, read_notebook, tags
from cliplab.report.outputs import clean, write_notebook

_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 when all were saved, 1 when one was not."""
    parser = argparse.ArgumentParser(
        prog="python -m cliplab.report.in_place",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="number or path (all)")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds each (%(default)g)")
    args = parser.parse_args(argv)
    paths = find_notebooks(args.notebooks)
    if not args.notebooks:
        paths += sorted((paths[0].parent / "solutions").glob("*.ipynb"))
    jobs = [job for path in paths for job in plan(Request(notebooks=(str(path),)))]
    faults = [fault for job in jobs if (fault := save(job, args.timeout))]
    for fault in faults:
        print(f"not saved: {fault}", file=sys.stderr)
    return 1 if faults else 0


def save(job: Job, timeout_s: float) -> str:
    """Execute one notebook and save it in place; what kept it from being saved, "" if nothing."""
    bar = Bar()
    on_cell = bar.start(job)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / job.source.name
        failure = execute(job.source, target, parameters={}, timeout_s=timeout_s, on_cell=on_cell)
        bar.close()
        if failure:
            return f"{job.name}, {failure}"
        notebook = read_notebook(target)
    faults = noise(notebook)
    if faults:
        return f"{job.name}: {'; '.join(faults)}"
    clean(notebook)
    write_notebook(notebook, job.source)
    print(f"{job.name}  saved", flush=True)
    return ""


def noise(notebook: Any) -> list[str]:
    """Outputs that must not be committed, in words: they differ between machines or runs."""
    faults = []
    for i, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = "".join(output.get("text", "")) + "".join(data.get("text/plain", ""))
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                faults.append(f"cell {i} ends with {output.ename}")
            if output.get("name") == "stderr":
                faults.append(f"cell {i} writes to stderr: {text.strip().splitlines()[0][:80]}")
            if any("widget" in kind for kind in data):
                faults.append(f"cell {i} shows a widget")
            if match := _ADDRESS.search(text):
                faults.append(f"cell {i} prints a memory address ({match[0].strip()})")
    return faults


if __name__ == "__main__":
    sys.exit(main())
