"""What does scale cost: losses without a table, ranks, collections, search?

    python benchmarks/scale.py               all parts; close other programs first
    python benchmarks/scale.py losses large  some of them

losses: N = 16,384 pairs of 512 numbers, forward and backward, beside `open_clip.loss.ClipLoss`.
large: N = 131,072, whose table alone would take 69 GB. Every run is a process of its own, and the
contenders take turns. Memory is the largest resident size above what there was when the inputs
were made and a small loss had warmed up; it includes the gradients that are handed back.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cliplab.models.losses import clip_loss

ROUNDS = 3
PAIRS, LARGE, DIM = 16_384, 131_072, 512
TILE = 1024
SCALE = 100.0  # where CLIP's training ends

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def verdicts(rows: list[tuple[str, float, float]]) -> None:
    """(what, meant at most, measured) as a table."""
    print("\n| what | meant, at most | measured | |\n|---|---:|---:|---|")
    for what, meant, measured in rows:
        print(f"| {what} | {meant} | {measured:.2f} | {'met' if measured <= meant else 'missed'} |")
    print()


# ---- losses ----------------------------------------------------------------------------------


def of_open_clip() -> Loss:
    from open_clip.loss import ClipLoss

    return ClipLoss()


LOSSES: dict[str, Callable[[], Loss]] = {
    "open_clip": of_open_clip,
    "plain": lambda: clip_loss,
    "tiles": lambda: lambda *x: clip_loss(*x, tile=TILE),
    "tiles, bfloat16 products": lambda: (
        lambda *x: clip_loss(*x, tile=TILE, products=torch.bfloat16)
    ),
}


def unit_rows(count: int, seed: int) -> Tensor:
    """(count, DIM), normalised in place: memory that is used once would hide what comes later."""
    rows = torch.empty(count, DIM).normal_(generator=torch.Generator().manual_seed(seed))
    for part in rows.split(1024):
        part /= part.norm(dim=1, keepdim=True)
    return rows.requires_grad_()


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(name: str, count: int) -> None:
    """Forward and backward once; seconds, GB and the loss as JSON."""
    loss, scale = LOSSES[name](), torch.tensor(SCALE, requires_grad=True)
    loss(unit_rows(TILE, 2), unit_rows(TILE, 3), scale).backward()
    image, text = unit_rows(count, 0), unit_rows(count, 1)
    before, start, cpu = peak_gb(), time.perf_counter(), time.process_time()
    value = loss(image, text, scale)
    forward = time.perf_counter() - start
    value.backward()
    found = {
        "seconds": time.perf_counter() - start,
        "forward": forward,
        "cpu": time.process_time() - cpu,
        "gb": peak_gb() - before,
        "loss": value.item(),
    }
    print(json.dumps(found))


def alone(name: str, count: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    program, here = f"import scale; scale.measure({name!r}, {count})", Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def row(name: str, runs: list[dict[str, float]]) -> str:
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return "| {} | {forward:.1f} | {seconds:.1f} | {cpu:.1f} | {gb:.2f} | {loss:.4f} |".format(
        name, **middle
    )


HEAD = "| loss | s forward | s in all | CPU s | GB more | value |\n|---|---:|---:|---:|---:|---:|"


def losses() -> None:
    """Against open_clip's, N = 16,384."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in LOSSES}
    for _ in range(ROUNDS):
        for name, done in runs.items():
            done.append(alone(name, PAIRS))
    print(f"N = {PAIRS:,}, D = {DIM}, {torch.get_num_threads()} threads, {ROUNDS} rounds:\n")
    print(HEAD)
    for name, done in runs.items():
        print(row(name, done))

    def ratio(key: str, name: str) -> float:
        """To open_clip, round by round."""
        pairs = zip(runs[name], runs["open_clip"], strict=True)
        return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)

    rows, half = [], "tiles, bfloat16 products"
    for name, seconds, nats in (("tiles", 1.0, 1e-5), (half, 0.67, 0.002)):
        rows.append((f"{name}: seconds / open_clip's", seconds, ratio("seconds", name)))
        rows.append((f"{name}: memory / open_clip's", 0.1, ratio("gb", name)))
        if abs(ratio("loss", name) - 1) > nats:
            raise ValueError(f"{name}: loss {runs[name]}; expected open_clip's {runs['open_clip']}")
    verdicts(rows)


def large() -> None:
    """N = 131,072: once, in bfloat16 products."""
    done = alone("tiles, bfloat16 products", LARGE)
    print(f"N = {LARGE:,}, D = {DIM}, {torch.get_num_threads()} threads, one run:\n\n{HEAD}")
    print(row("tiles, bfloat16 products", [done]))
    verdicts([("GB more", 2.0, done["gb"])])


# ---- all of it -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], None]] = {"losses": losses, "large": large}


def main(names: list[str]) -> None:
    if unknown := set(names) - PARTS.keys():
        sys.exit(f"unknown part {min(unknown)!r}; expected some of {', '.join(PARTS)}")
    for name in names or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
