"""What the benchmarks share: turns that are taken, processes of their own, and verdicts."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cliplab.models.clip import CLIPConfig

Work = Callable[[], object]
VIT_B_32 = CLIPConfig(
    embed_dim=512, image_resolution=224, vision_layers=12, vision_width=768, vision_patch_size=32,
    context_length=77, vocab_size=49408, transformer_width=512, transformer_heads=8,
    transformer_layers=12,
)  # fmt: skip


def take_turns(contenders: dict[str, Work], rounds: int) -> dict[str, float]:
    """The median time of each, s, of some rounds after one that warms up.

    They take turns, so that whatever else the machine does hits all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def verdicts(rows: Iterable[tuple[str, float | None, float]], *, most: bool = False) -> None:
    """What, what was meant (at least or at `most`; None: nothing) and measured, as a table."""
    print(f"\n| what | meant{', at most' * most} | measured | |\n|---|---:|---:|---|")
    for what, meant, measured in rows:
        if meant is None:
            print(f"| {what} | - | {measured:.2f} |  |")
            continue
        goal = f"{meant:.3g}"
        digits = max(2, len(goal.partition(".")[2]) + 1)  # one more than the goal has
        met = measured <= meant if most else measured >= meant
        print(f"| {what} | {goal} | {measured:.{digits}f} | {'met' if met else 'missed'} |")
    print()


def peak_gb() -> float:
    """Largest resident memory of this process so far; not on Windows."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def own_process(module: str, call: str) -> Any:
    """What a call of a benchmark prints as JSON, in a process of its own."""
    program = f"import {module}; {module}.{call}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)
