"""What a notebook needs to look at scale: memory of a call, its functions in other processes."""

import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_EVERY = 0.002  # seconds between two looks at the memory


def peak_mb(run: Callable[[], Any]) -> float:
    """Call `run` -> the megabytes that this process held at most, above what it held before.

    The resident memory is looked at every two milliseconds; what is shorter is not seen.
    """
    import psutil

    resident, ended = psutil.Process().memory_info, threading.Event()
    before = most = resident().rss

    def watch() -> None:
        nonlocal most
        while not ended.wait(_EVERY):
            most = max(most, resident().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        run()
    finally:
        ended.set()
        thread.join()
    return (max(most, resident().rss) - before) / 1e6


def as_module(path: Path, head: str, *functions: Callable[..., Any]) -> ModuleType:
    """Functions of a notebook as a module that new processes can import, see `run_local`.

    Args:
        path: of the file that is written, `name.py`; its folder is put on `sys.path`.
        head: the imports that the functions need.
        functions: in the order in which they need one another.
    """
    sources = [head.strip(), *(inspect.getsource(function).strip() for function in functions)]
    path.write_text("\n\n\n".join(sources) + "\n", encoding="utf-8")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    sys.modules.pop(path.stem, None)
    return importlib.import_module(path.stem)
