"""Execute notebooks and save them where they are: `make notebooks ARGS="02"`; no name: all of them.

What is saved has execution counts 1..n, outputs, tags, and nothing about editors, kernels, times or
machines. A notebook that fails, or whose outputs differ between machines or runs, is not saved.

Exit code: 0 all saved, 1 one is not, 2 there is no such notebook.
"""

import argparse
import base64
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from cliplab.report import Job, Request, find_notebooks, plan, read_notebook, with_labs
from cliplab.report.execute import clean, execute, write_notebook
from cliplab.report.notebook import tags

ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def main(argv: list[str] | None = None) -> int:
    """Execute and save -> exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("names", nargs="*", metavar="NN", help="number, name or path")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for each notebook")
    options = parser.parse_args(argv)
    try:
        paths = find_notebooks(options.names)
    except FileNotFoundError as error:
        parser.error(str(error))
    if not options.names:
        paths = with_labs(paths) + sorted((paths[0].parent / "solutions").glob("*.ipynb"))
    faults = []
    for job in [job for path in paths for job in plan(Request(notebooks=(str(path),)))]:
        fault = save(job, options.timeout)
        print(f"{job.name}  {'not saved' if fault else 'saved'}", flush=True)
        faults += [fault] if fault else []
    for fault in faults:
        print(f"not saved: {fault}", file=sys.stderr)
    return 1 if faults else 0


def save(job: Job, timeout_s: float) -> str:
    """Execute one notebook and save it; what kept it from being saved, "" if nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / job.source.name
        failure = execute(job.source, target, parameters={}, timeout_s=timeout_s)
        if failure:
            return f"{job.name}, {failure}"
        notebook = read_notebook(target)
    if faults := noise(notebook):
        return f"{job.name}: {'; '.join(faults)}"
    clean(notebook)
    shrink(notebook)
    write_notebook(notebook, job.source)
    return ""


def shrink(notebook: Any) -> None:
    """Figures in 256 colours each, a third of their size: the repository keeps them all."""
    figures = [o.data for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    for data in figures:
        if "image/png" in data:
            packed, before = io.BytesIO(), base64.b64decode(data["image/png"])
            image = Image.open(io.BytesIO(before)).convert("RGB")
            how = Image.Quantize.MAXCOVERAGE  # keeps rare colours, such as those of a legend
            few = image.quantize(256, how, dither=Image.Dither.NONE)
            few.save(packed, "PNG", optimize=True)
            smaller = min(before, packed.getvalue(), key=len)
            data["image/png"] = base64.b64encode(smaller).decode("ascii")


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
            if match := ADDRESS.search(text):
                faults.append(f"cell {i} prints a memory address ({match[0].strip()})")
    return faults


if __name__ == "__main__":
    sys.exit(main())
