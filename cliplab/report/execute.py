"""Execute one notebook through papermill, say what went wrong in it, and keep what is worth it."""

import base64
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from cliplab.report.notebook import RESULTS_PATH, read_notebook, tags
from cliplab.runtime import atomic_write


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook stopped."""

    cell: int  # of the source notebook, counted from 1; 0: the kernel did not start
    cells: int
    first_line: str
    error: str
    trace: str = ""

    def __str__(self) -> str:
        """For people: the place and the reason, in two lines."""
        place = f"cell {self.cell} of {self.cells}: {self.first_line}" if self.cell else "the start"
        return f"at {place}\n{self.error}"


class ThisInterpreter(AsyncKernelManager):
    """Starts the kernel with the Python that runs us, whatever kernels are installed.

    A kernel called python3 in the user's home would otherwise be preferred, with another Python.
    """

    settings: str  # folder for IPython: no start-up files, and no history data base to wait for

    @property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started: without progress bars, with figures in its cells."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        environment = {
            "IPYTHONDIR": self.settings, "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYTHONUTF8": "1", "TQDM_DISABLE": "1",
        }  # fmt: skip
        return KernelSpec(argv=argv, display_name="Python", language="python", env=environment)

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        """Start it; what it says beside its cells, of debuggers and the like, is for nobody."""
        await super().start_kernel(stderr=subprocess.DEVNULL, **options)


_BAR = {  # on a terminal, and gone when the notebook has ended
    "disable": None, "leave": False, "dynamic_ncols": True,
    "bar_format": "{desc} {bar} {n_fmt} of {total_fmt} cells, {elapsed}",
}  # fmt: skip


def execute(
    source: Path, target: Path, *, parameters: Mapping[str, Any], timeout_s: float
) -> Failure | None:
    """Execute `source` through papermill into `target`; None when all of it ran.

    The notebook runs in its own folder, on this Python, with progress bars off. `target` is
    written whole after every cell, so that it always holds what was executed until then.

    Args:
        parameters: values put below the cell tagged `parameters`.
        timeout_s: seconds for the whole notebook; then it is ended, hanging or not.

    Raises:
        OSError: not the notebook's: the disk is full, or `target` cannot be written.
    """
    import papermill

    running, injected, deadline = -1, 0, time.monotonic() + timeout_s

    def start(cell: Any, cell_index: int) -> None:
        nonlocal running, injected
        injected |= "injected-parameters" in tags(cell)  # papermill's own, put in between
        running = cell_index - injected

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it says, we say
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        try:
            papermill.execute_notebook(
                source,
                _written_whole(target),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar={"desc": source.stem} | _BAR,
                cwd=source.parent,
                kernel_manager_class=type("Kernel", (ThisInterpreter,), {"settings": scratch}),
                shutdown_kernel="immediate",
                timeout_func=lambda cell: max(1.0, deadline - time.monotonic()),
                on_cell_start=start,
                coalesce_streams=True,  # prints in a row are one output, however they arrive
            )
        except Exception as error:  # the notebook's, if it is not the system's
            return _failure(source, running, error, timeout_s)
    return None


def _written_whole(target: Path) -> str:
    """The path for papermill, which from now on writes that file whole or not at all."""
    from papermill.iorw import LocalHandler, papermill_io

    class Whole(LocalHandler):
        def write(self, buf: str, path: str) -> None:
            with atomic_write(path, "w") as file:
                file.write(buf)

    path = str(target.resolve())  # it writes from the notebook's folder
    papermill_io.register(path, Whole())
    return path


def _failure(source: Path, cell: int, error: Exception, timeout_s: float) -> Failure:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, OSError) and error.errno:  # the system's; a time-out has no number
        raise error
    said, trace = f"{type(error).__name__}: {error}", ""
    if isinstance(error, PapermillExecutionError):
        said, trace = f"{error.ename}: {error.evalue}", "\n".join(error.traceback)
    elif isinstance(error, CellTimeoutError):
        said = f"not finished after {timeout_s:g} s and ended; allow it more time"
    elif isinstance(error, DeadKernelError):
        said = "the kernel died, most often because the memory was used up"
    cells = read_notebook(source).cells
    lines = cells[cell].source.strip().splitlines() if cell >= 0 else []
    return Failure(cell + 1, len(cells), lines[0] if lines else "", said, trace)


# ---- what is kept ------------------------------------------------------------------------------


def keep(partial: Path, source: Path, folder: Path, *, failed: bool) -> Path | None:
    """Move the executed notebook, cleaned, into `folder`; None when none was written."""
    whole, part = folder / f"{source.stem}.ipynb", folder / f"{source.stem}.failed.ipynb"
    whole.unlink(missing_ok=True)
    part.unlink(missing_ok=True)
    try:
        notebook = read_notebook(partial)
    except (OSError, ValueError):  # ended in the middle of writing: nothing worth keeping
        partial.unlink(missing_ok=True)
        return None
    _hide_injection(notebook)
    clean(notebook)
    kept = part if failed else whole
    write_notebook(notebook, kept)
    partial.unlink()
    _copy_pictures(notebook, source.parent, folder)
    return kept


def _hide_injection(notebook: Any) -> None:
    """Leave of papermill's own cell what the user asked for; RESULTS_PATH is plumbing."""
    for cell in [cell for cell in notebook.cells if "injected-parameters" in tags(cell)]:
        lines = [s for s in cell.source.splitlines() if not s.startswith(RESULTS_PATH)]
        cell.source = "\n".join(lines)
        if all(line.startswith("#") for line in lines):
            notebook.cells.remove(cell)
    executed = [c for c in notebook.cells if c.get("execution_count") is not None]
    for count, cell in enumerate(executed, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count


def clean(notebook: Any) -> None:
    """Drop what the execution put into a notebook beside its outputs, in place."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {k: cell.metadata[k] for k in ("tags", "alt") if cell.metadata.get(k)}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).pop("papermill", None)


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook atomically, in the one form that gives small diffs."""
    import nbformat

    with atomic_write(path, "w") as file:
        file.write(nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n")


def _copy_pictures(notebook: Any, source: Path, target: Path) -> None:
    """Copy the local pictures that the text shows, so that the executed notebook shows them too."""
    from cliplab.report.exporter import addresses, picture

    for address in addresses(notebook):
        original, copy = picture(address, source), picture(address, target)
        if original and copy and original.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, copy)


def write_figures(notebook: Path, folder: Path) -> list[Path]:
    """Write the PNG figures among a notebook's outputs into `folder`, named by their cell."""
    for old in folder.glob(f"{notebook.stem}_cell*"):
        old.unlink()
    written = []
    for i, cell in enumerate(read_notebook(notebook).cells, start=1):
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures = [kinds["image/png"] for kinds in data if "image/png" in kinds]
        for k, picture in enumerate(pictures, start=1):
            path = folder / f"{notebook.stem}_cell{i:02d}_{k}.png"
            with atomic_write(path) as file:
                file.write(base64.b64decode(picture))
            written.append(path)
    return written
