"""What tagged cells print, against what is committed.

The tag is nbval's, `nbval-check-output`, and means the same: the text of the outputs must not
change, pictures may. nbval would execute every notebook once more for it, so it is compared here,
in the execution that the results are taken from.
"""

from collections.abc import Iterator
from difflib import unified_diff
from typing import Any

from cliplab.report.notebook import tags

TAG = "nbval-check-output"
Printed = list[tuple[str, str]]  # kind of output, text


def changes(committed: Any, executed: Any) -> list[str]:
    """What tagged cells no longer print, as a diff of each; [] when all is as it was.

    Args:
        committed: the notebook with the outputs of record.
        executed: the same after another execution; cells that papermill put in do not count.
    """
    cells = [cell for cell in executed.cells if "injected-parameters" not in tags(cell)]
    lines = []
    for i, (old, new) in enumerate(zip(committed.cells, cells, strict=True), start=1):
        if TAG in tags(old):
            was, found = (list(_lines(printed(cell))) for cell in (old, new))
            names = (f"cell {i}, committed", f"cell {i}, now")
            lines += unified_diff(was, found, *names, lineterm="")
    return lines


def printed(cell: Any) -> Printed:
    """The texts that a cell leaves, pictures left out; what a stream says in pieces is joined."""
    found: Printed = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if found and found[-1][0] == output.name:
                found[-1] = (output.name, found[-1][1] + output.text)
            else:
                found.append((output.name, output.text))
        data = sorted(output.get("data", {}).items())
        shown = any(kind.startswith("image/") for kind, _ in data)
        # beside a picture stands the name of its class and its size
        found += [(kind, str(text)) for kind, text in data if not shown]
    return found


def _lines(printed: Printed) -> Iterator[str]:
    for kind, text in printed:
        yield f"[{kind}]"
        yield from text.splitlines()
