"""Execute one notebook in a process that can be ended, and say exactly what went wrong in it."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.report.notebook import read_notebook

_STARTING = -1  # the "cell" before the first one: the kernel is being started


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


def execute(
    source: Path,
    target: Path,
    *,
    parameters: Mapping[str, Any],
    timeout_s: float,
    on_cell: Callable[[int], None] = lambda cell: None,
) -> Failure | None:
    """Execute `source` through papermill into `target`; None when all of it ran.

    The notebook runs in its own folder, on this Python, with progress bars off. `target` is
    written after every cell, so that after a failure it holds what was executed until then.

    Args:
        parameters: values put below the cell tagged `parameters`.
        timeout_s: seconds for the whole notebook; then it is ended, hanging or not.
        on_cell: called with the index of each cell that starts.
    """
    job = {
        "source": str(source),
        "target": str(target),
        "parameters": dict(parameters),
        "cwd": str(source.parent),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "log"
        worker = _start(log, scratch)
        try:
            cell, last = _follow(worker, job, time.monotonic() + timeout_s, on_cell)
        finally:
            _end(worker)
        if last.get("done"):
            return None
        words = log.read_text(encoding="utf-8", errors="replace")
        return _failure(source, cell, _reason(last, timeout_s, words))


def _start(log: Path, scratch: str) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "TQDM_DISABLE": "1",
        "IPYTHONDIR": scratch,  # no start-up files, and no history data base to wait for
        "PYTHONUTF8": "1",
    }
    environment.pop("MPLBACKEND", None)  # the kernel's own backend is what puts figures into cells
    with log.open("w", encoding="utf-8") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "cliplab.report.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches us alone, and we end the others in order
        )


def _follow(
    worker: "subprocess.Popen[str]", job: Any, deadline: float, on_cell: Callable[[int], None]
) -> tuple[int, dict[str, Any]]:
    """Last cell that started, and the worker's last word ({} if it had none)."""
    with suppress(BrokenPipeError):  # a worker that could not start: its log says why
        print(json.dumps(job), file=worker.stdin, flush=True)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(worker, lines), daemon=True).start()
    cell = _STARTING
    while True:
        try:
            # in short steps, since a long wait cannot be interrupted by Ctrl-C on Windows
            line = lines.get(timeout=min(0.5, max(0.0, deadline - time.monotonic())))
        except queue.Empty:
            if time.monotonic() >= deadline:
                return cell, {"timeout": True}
            continue
        message = json.loads(line or "{}")
        if "cell" not in message:
            return cell, message
        cell = message["cell"]
        on_cell(cell)


def _read_lines(worker: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    for line in worker.stdout or ():
        lines.put(line)
    lines.put("")


def _end(worker: "subprocess.Popen[str]") -> None:
    """End the worker and its kernel; nothing of theirs outlives this call."""
    import psutil

    family = []
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(worker.pid)
        family = [*process.children(recursive=True), process]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()


def _reason(last: Mapping[str, Any], timeout_s: float, log: str) -> tuple[str, str]:
    """Error and trace in words."""
    if last.get("timeout"):
        return f"not finished after {timeout_s:g} s and ended; --timeout allows more", ""
    if "failure" not in last:
        return "the process that executes the notebook ended by itself", log[-4000:]
    error, trace = last["failure"]["error"], "\n".join(last["failure"]["trace"])
    if error.startswith("DeadKernelError"):
        error = "the kernel died, most often because the memory was used up"
    return error, trace


def _failure(source: Path, cell: int, reason: tuple[str, str]) -> Failure:
    cells = read_notebook(source).cells
    lines = cells[cell].source.strip().splitlines() if cell != _STARTING else []
    return Failure(cell + 1, len(cells), lines[0] if lines else "", *reason)
