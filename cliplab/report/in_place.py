"""Execute notebooks with their default parameters and save them in place, for contributors.

What is saved has execution counts 1..n, outputs, tags, and nothing about editors, kernels, times
or machines. A notebook that fails, or that writes to stderr, is not saved.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cliplab.report.execute import execute
from cliplab.report.folder import Job, Request, plan
from cliplab.report.notebook import find_notebooks, read_notebook, tags
from cliplab.report.outputs import clean, write_notebook

_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def jobs_of(names: Sequence[str]) -> list[Job]:
    """The notebooks called `names`; without, all of them and all solutions."""
    paths = find_notebooks(names)
    if not names:
        paths += sorted((paths[0].parent / "solutions").glob("*.ipynb"))
    return [job for path in paths for job in plan(Request(notebooks=(str(path),)))]


def save(job: Job, timeout_s: float, on_cell: Callable[[int], None]) -> str:
    """Execute one notebook and save it in place; what kept it from being saved, "" if nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / job.source.name
        failure = execute(job.source, target, parameters={}, timeout_s=timeout_s, on_cell=on_cell)
        if failure:
            return f"{job.name}, {failure}"
        notebook = read_notebook(target)
    if faults := noise(notebook):
        return f"{job.name}: {'; '.join(faults)}"
    clean(notebook)
    write_notebook(notebook, job.source)
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
