"""How many of our modules one picture passes in each command: what a reader has to open.

    python tools/count_modules.py            # the count of each command
    python tools/count_modules.py --names    # and their names

A module counts when one of its functions is called while the command works on one picture; what
runs because a module is imported (its body, those of its classes, what these call) does not.
"""

import contextlib
import inspect
import io
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from cliplab.cli.main import main
from cliplab.pasture import draw, herd, portrait

PACKAGE = str(Path(__file__).resolve().parents[1] / "cliplab") + os.sep
COMMANDS = {
    "classify": ("portrait", "--labels", "a sheep standing", "a sheep lying down", "--no-cache"),
    "detect": ("herd", "--labels", "sheep", "goat"),
    "segment": ("herd", "--labels", "sheep", "goat", "--background"),
}


def importing(frame: FrameType | None) -> bool:
    """Whether a call is made, at first or second hand, by the body of one of our modules."""
    while frame:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def modules_of(command: Sequence[str]) -> set[str]:
    """Files of the package whose functions run during a command."""
    seen: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_OPTIMIZED and code.co_name[:1] != "<"
        is_ours = is_function and code.co_filename.startswith(PACKAGE)
        if event == "call" and is_ours and not importing(frame):
            seen.add(code.co_filename.removeprefix(PACKAGE))

    threading.setprofile(watch)  # of those that read pictures ahead
    sys.setprofile(watch)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(command)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if code:
        raise SystemExit(f"{' '.join(command)}: exit code {code}")
    return seen


def run() -> None:
    """Draw one picture for each command and count."""
    with tempfile.TemporaryDirectory() as folder:
        for name, scene in (("portrait", portrait(1)), ("herd", herd(1))):
            target = Path(folder) / name
            target.mkdir()
            draw(scene, 128).save(target / "one.png")
        for name, (source, *options) in COMMANDS.items():
            seen = modules_of([name, str(Path(folder) / source), *options])
            print(f"{name:10} {len(seen)} modules")
            if "--names" in sys.argv:
                print(*(f"    {module}" for module in sorted(seen)), sep="\n")


if __name__ == "__main__":
    run()
