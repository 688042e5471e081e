"""The process that executes one notebook: ``python -m cliplab.report.worker``, job on stdin.

It is a process of its own so that the one who waits can end it, whatever hangs. It writes one
JSON object per line: {"cell": index}, and at the end {"done": true} or {"failure": {...}}.
"""

import json
import os
import sys
import threading
from functools import partial
from typing import IO, Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager


class ThisInterpreter(AsyncKernelManager):
    """Starts the kernel with the Python that runs us, whatever kernels are installed.

    A kernel called python3 in the user's home would otherwise be preferred, with another Python.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Progress:
    """Tells which cell of the source notebook starts."""

    def __init__(self, send: Any) -> None:
        self.send = send
        self.injected = 0  # cells that papermill put before the current one

    def start(self, cell: Any, cell_index: int) -> None:
        """Called by nbclient before each cell."""
        if "injected-parameters" in cell.metadata.get("tags", []):
            self.injected = 1
        self.send({"cell": cell_index - self.injected})


def execute(job: dict[str, Any], send: Any) -> dict[str, Any]:
    """Execute the job's notebook; what to tell at the end."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    progress = Progress(send)
    try:
        papermill.execute_notebook(
            job["source"],
            job["target"],
            parameters=job["parameters"],
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=job["cwd"],
            kernel_manager_class=ThisInterpreter,
            on_cell_start=progress.start,
        )
    except PapermillExecutionError as error:
        return {"failure": {"error": f"{error.ename}: {error.evalue}", "trace": error.traceback}}
    except Exception as error:  # whatever else it is, the one who waits must hear of it
        return {"failure": {"error": f"{type(error).__name__}: {error}", "trace": []}}
    return {"done": True}


def send_line(channel: IO[str], message: dict[str, Any]) -> None:
    """Write one JSON line, at once."""
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def end_with_parent() -> None:
    """Wait until the parent closes our input (or is gone), then end with all our children."""
    import psutil

    sys.stdin.read()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def main() -> int:
    """Read the job, execute it, tell about it."""
    # The kernel inherits file descriptor 1: give our lines one of their own, and the rest to 2.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    send = partial(send_line, channel)
    send(execute(job, send))
    return 0


if __name__ == "__main__":
    # _exit: the thread above is blocked in a read that would hold up an orderly end on Windows
    code = main()
    sys.stderr.flush()
    os._exit(code)
