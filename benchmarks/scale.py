"""What does scale cost: losses without a table, ranks, collections, search?

    python benchmarks/scale.py               all parts; close other programs first
    python benchmarks/scale.py losses large  some of them; index takes a quarter of an hour

losses: N = 16,384 pairs of 512 numbers, forward and backward, beside `open_clip.loss.ClipLoss`.
large: N = 131,072, whose table alone would take 69 GB. Every run is a process of its own, and the
contenders take turns. Memory is the largest resident size above what there was when the inputs
were made and a small loss had warmed up; it includes the gradients that are handed back.
ranks: two processes beside one: gradients, and the bytes that a step moves, as computed, as asked
of torch.distributed, and as the loopback device counted them (Linux; the least of some steps, as
other programs count, too).
engines: pictures a second by Ray Data and in process, from the third block on; what is before that
is start-up, and told apart.
memory: 100,000 pictures embedded beside 10,000, each in a process of its own.
kills: a worker, the driver or all processes of a Ray job killed at random, and the job started
again; rows are counted every time.
search, index: 16 queries among 1,000,000 x 512 float16, rows that have clusters; every row looked
at, and by a graph. Memory counts what is mapped of the file.
"""

import importlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from _shared import own_process, peak_gb, verdicts
from numpy.typing import NDArray
from torch import Tensor

from cliplab import scale
from cliplab.encoders import load_encoder
from cliplab.models.clip import CLIP
from cliplab.models.layers import unit_rows as as_unit_rows
from cliplab.models.losses import clip_loss, siglip_loss
from cliplab.pasture import draw, herd
from cliplab.scale.store import About, Row, write_block
from cliplab.training.clip import CLIPRecipe, new_clip

ROUNDS = 3
PAIRS, LARGE, DIM = 16_384, 131_072, 512
TILE = 2048
SCALE = 100.0  # where CLIP's training ends

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


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
    return own_process("scale", f"measure({name!r}, {count})")


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
    verdicts(rows, most=True)


def large() -> None:
    """N = 131,072: once, in bfloat16 products."""
    done = alone("tiles, bfloat16 products", LARGE)
    print(f"N = {LARGE:,}, D = {DIM}, {torch.get_num_threads()} threads, one run:\n\n{HEAD}")
    print(row("tiles, bfloat16 products", [done]))
    verdicts([("GB more", 2.0, done["gb"])], most=True)


# ---- ranks -----------------------------------------------------------------------------------

RANKS, OF_ALL, STEPS = 2, 4096, 5
OVER_RANKS = {
    "InfoNCE, captions gathered": (scale.gathered_clip_loss, clip_loss, (SCALE,), (2, 2)),
    "InfoNCE, ring": (scale.ring_clip_loss, clip_loss, (SCALE,), (3, 3)),
    "SigLIP, ring": (scale.ring_siglip_loss, siglip_loss, (SCALE, -10.0), (2, 0)),
}


def on_the_wire() -> int:
    """Bytes that this machine has received from itself."""
    lines = Path("/proc/net/dev").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def moved(step: Callable[[], object]) -> tuple[float, float]:
    """MB that a rank sends in a step: asked of torch.distributed, and on the wire."""
    step()
    wire = []
    with scale.counted_traffic() as sent:
        for _ in range(STEPS):
            dist.barrier()
            before = on_the_wire()
            dist.barrier()
            step()
            dist.barrier()
            wire.append(on_the_wire() - before)
    return sum(sent.values()) / STEPS / 1e6, min(wire) / RANKS / 1e6


def with_gradients(loss: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    """Gradients of all inputs, one after another."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(*leaves), leaves)])


def loss_over_ranks(name: str) -> tuple[float, float, float]:
    """Millionths by which the gradients differ from one process's; MB asked; MB on the wire."""
    over, one, scalars, _ = OVER_RANKS[name]
    own = scale.own_share(OF_ALL)
    rows, numbers = [unit_rows(OF_ALL, 0), unit_rows(OF_ALL, 1)], [torch.tensor(x) for x in scalars]
    mine = [*(x[own] for x in rows), *numbers]

    def step() -> Tensor:
        return with_gradients(lambda *x: over(*x, tile=TILE), mine)

    expected, found = with_gradients(one, [*rows, *numbers]), step() / RANKS
    dist.all_reduce(found[-len(scalars) :])
    parts = [x[own] for x in expected[: 2 * rows[0].numel()].view(2, OF_ALL, DIM)]
    expected = torch.cat([*(x.flatten() for x in parts), expected[-len(scalars) :]])
    return ((found - expected).norm() / expected.norm()).item() * 1e6, *moved(step)


def weights_over_ranks(dtype: torch.dtype) -> tuple[float, float, float, float]:
    """All weights of the recipe of the shipped English CLIP, 64 pairs.

    Millionths from one process, and those of one process from itself with its pairs in another
    order; MB of weights; MB on the wire.
    """
    pixels = torch.randn(64, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = torch.arange(64 * 12).reshape(64, 12) * 7 % 92

    def model() -> CLIP:
        torch.manual_seed(0)
        return new_clip(CLIPRecipe(), 92).to(dtype)

    def alone(order: Tensor) -> Tensor:
        one = model()
        emb = one.encode_image(pixels[order]), one.encode_text(ids[order])
        clip_loss(*map(as_unit_rows, emb), one.logit_scale.exp()).backward()
        return torch.cat([p.grad.flatten() for p in one.parameters()])

    shared, own = model(), scale.own_share(64)
    towers = scale.over_ranks(shared)

    def step() -> None:
        shared.zero_grad()
        scale.gathered_clip_loss(*towers(pixels[own], ids[own])).backward()

    _, wire = moved(step)
    found = torch.cat([p.grad.flatten() for p in shared.parameters()])
    expected, turned = alone(torch.arange(64)), alone(torch.arange(64).flip(0))
    off = [((x - expected).norm() / expected.norm()).item() * 1e6 for x in (found, turned)]
    return off[0], off[1], expected.nbytes / 1e6, wire


def ranks() -> None:
    """Two processes against one."""
    this = importlib.import_module(Path(__file__).stem)  # where other processes find it
    n, rows = OF_ALL // RANKS, []
    print(f"{RANKS} ranks, N = {OF_ALL:,}, D = {DIM}; MB that a rank sends in a step:\n")
    print("| what | computed | asked | on the wire |\n|---|---:|---:|---:|")
    for name, (*_, (trips, sums)) in OVER_RANKS.items():
        found = scale.run_local(this.loss_over_ranks, name, ranks=RANKS)
        computed = (RANKS - 1) * (4 * n * (trips * DIM + sums) + 8 / RANKS + 16) / 1e6
        _, asked, wire = found[0]
        print(f"| {name} | {computed:.6f} | {asked:.6f} | {wire:.2f} |")
        rows.append((f"{name}: gradients differ, millionths", 1.0, max(x[0] for x in found)))
        rows.append((f"{name}: asked - computed, bytes", 0.0, abs(asked - computed) * 1e6))
    for dtype in (torch.float32, torch.float64):
        what = f"gradients of a CLIP's weights, {str(dtype)[6:]}"
        worst, floor, size, wire = scale.run_local(this.weights_over_ranks, dtype, ranks=RANKS)[0]
        print(f"| {what} | {2 * (RANKS - 1) / RANKS * size:.6f} | - | {wire:.2f} |")
        rows.append((f"{what}: differ, millionths", 1.0, worst))
        rows.append(("- one process from itself, pairs in another order", 1.0, floor))
    verdicts(rows, most=True)


# ---- collections -----------------------------------------------------------------------------

DISTINCT, SIDE = 500, 64  # pictures that are drawn, and their size in px; their keys are as many
EMBEDDED, KILLED, BLOCK = 8_000, 1_600, 100  # pictures of `engines` and of `kills`, of a file
FEW, MANY = 10_000, 100_000  # of `memory`
KILLS = 10


# The shipped English CLIP: small, so that all that is not the model shows.
encoder = partial(load_encoder, "pasture", device="cpu")


def pictures(folder: Path, count: int) -> Path:
    """A Parquet list of `count` keys; behind them are at most DISTINCT drawn JPEGs."""
    folder.mkdir()
    for i in range(min(count, DISTINCT)):
        draw(herd(i)).resize((SIDE, SIDE)).save(folder / f"{i}.jpg")
    names = [f"{i % DISTINCT}.jpg" for i in range(count)]
    table = {"key": [f"{i:06d}" for i in range(count)], "image": names}
    pd.DataFrame(table).to_parquet(folder / "list.parquet")
    return folder / "list.parquet"


def engines() -> None:
    """Ray Data on this machine beside this process: the same encoder, the same pictures."""
    rates, block = list[float](), EMBEDDED // 32
    with TemporaryDirectory() as place:
        source = pictures(Path(place, "pictures"), EMBEDDED)
        for name, engine in (("in process", scale.in_process), ("Ray", scale.Ray(load=encoder))):
            ends, model, start = list[float](), encoder(), time.perf_counter()

            def timed(*job, engine=engine, ends=ends) -> Iterator[int]:
                for count in engine(*job):
                    ends.append(time.perf_counter())
                    yield count

            scale.embed(source, model, Path(place, name), engine=timed, block=block)
            rates.append(block * (len(ends) - 3) / (ends[-1] - ends[2]))
            took = f"{ends[0] - start:.1f} s to the first block, {ends[-1] - start:.1f} s in all"
            print(f"{name}: {took}, {rates[-1]:.0f} pictures a second between")
    print(f"\n{EMBEDDED:,} pictures in blocks of {block}")
    verdicts([("in process / Ray, pictures a second", 1 / 0.85, rates[0] / rates[1])], most=True)


def embedding(source: str, out: str) -> None:
    """Embed in a process of its own; the largest resident memory as JSON."""
    scale.embed(source, encoder(), out)
    print(json.dumps({"gb": peak_gb()}))


def memory() -> None:
    """100,000 pictures in the memory of 10,000."""
    peaks = []
    with TemporaryDirectory() as place:
        for count in (FEW, MANY):
            source, out = pictures(Path(place, f"{count}"), count), str(Path(place, f"{count}-out"))
            start = time.perf_counter()
            peaks.append(own_process("scale", f"embedding({str(source)!r}, {out!r})")["gb"])
            rows, took = len(scale.open_embeddings(out)), time.perf_counter() - start
            print(f"{rows:,} pictures: {peaks[-1]:.2f} GB at most, {took:.0f} s\n")
    print(f"({DISTINCT} drawings under as many keys)")
    verdicts([("GB more for ten times the pictures", 0.2, peaks[1] - peaks[0])], most=True)


def kills() -> None:
    """A worker, the driver or the whole tree of processes killed at random moments."""
    chance = random.Random(0)
    with TemporaryDirectory() as place:
        out, source = Path(place, "out"), pictures(Path(place, "pictures"), KILLED)
        command = [
            sys.executable, "-m", "cliplab", "embed", str(source), "--out", str(out),
            "--engine", "ray", "--workers", "2", "--block", str(BLOCK),
        ]  # fmt: skip
        for turn in range(KILLS):
            what = ("worker", "driver", "tree")[turn % 3]
            if len(keys_in(out)) > KILLED * 0.7:
                shutil.rmtree(out)
            there = len(keys_in(out))
            driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            goal = there + chance.randrange(KILLED - there)  # rows at which it dies
            while driver.poll() is None and len(keys_in(out)) < goal:
                time.sleep(0.05)
            time.sleep(chance.random() * 0.2)
            killed = kill(driver, what)
            said = driver.communicate()[1].decode()[-2000:]
            keys = keys_in(out)
            doubled = len(keys) - len(set(keys))
            print(f"{what} killed ({killed} processes): {len(keys):,} rows, {doubled} doubled")
            if doubled or not killed or (what == "worker" and len(keys) != KILLED):
                raise ValueError(f"rows were lost or doubled, or nothing could be killed: {said}")
        subprocess.run(command, check=True, capture_output=True)
        found = scale.open_embeddings(out)
        truth = scale.embed(source, encoder(), Path(place, "truth")).embeddings
        lost = {row["key"] for row in truth.rows(range(KILLED))} ^ set(keys_in(out))
        print(f"\nat the end {len(found):,} rows, {len(keys_in(out)) - len(found)} doubled")
        verdicts([("rows lost or too many", 0, len(lost) + len(keys_in(out)) - KILLED)], most=True)


def keys_in(out: Path) -> list[str]:
    paths = sorted(out.glob("block-*.parquet"))
    return [key for path in paths for key in pq.read_table(path)["key"].to_pylist()]


def kill(driver: subprocess.Popen, what: str) -> int:
    """Kill without a warning -> how many processes."""
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(driver.pid).children(recursive=True)
        workers = [one for one in below if "MapWorker" in " ".join(one.cmdline())]
        own = [psutil.Process(driver.pid)]
        chosen = {"worker": workers[:1], "driver": own, "tree": [*own, *below]}[what]
        for one in chosen:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        return len(chosen)
    return 0


# ---- search ----------------------------------------------------------------------------------

ROWS, QUERIES, CENTRES, INNER = 1_000_000, 16, 2_000, 32


def clustered(count: int, seed: int) -> NDArray[np.float16]:
    """Unit rows (count, DIM) about CENTRES, most of their spread in INNER directions.

    So are embeddings; of rows without any structure an index finds few of the nearest.
    """
    fixed, chance = np.random.default_rng(0), np.random.default_rng(seed)
    outer = fixed.standard_normal((INNER, DIM), np.float32)
    centres = fixed.standard_normal((CENTRES, INNER), np.float32)
    inner = centres[chance.integers(CENTRES, size=count)]
    inner += 0.5 * chance.standard_normal((count, INNER), np.float32)
    rows = inner @ outer + 0.3 * INNER**0.5 * chance.standard_normal((count, DIM), np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@contextmanager
def collection() -> Iterator[tuple[scale.Embeddings, Tensor]]:
    """ROWS x DIM float16 in a folder, and QUERIES of their kind."""
    with TemporaryDirectory() as place:
        about = About("none", "0" * 64, "float32", DIM, "float16", "none", {})
        for i in range(0, ROWS, 10_000):
            rows = [Row(f"{j:07d}", 1, 1, "0") for j in range(i, i + 10_000)]
            path = Path(place, f"block-{i:07d}.parquet")
            write_block(path, about, rows, clustered(len(rows), i + 1))
        queries = torch.from_numpy(clustered(QUERIES, 0).astype(np.float32))
        yield scale.open_embeddings(place), queries


def search() -> None:
    """Every row looked at."""
    with collection() as (found, queries):
        start = time.perf_counter()
        scale.search(found, queries)
        first = time.perf_counter() - start
        exact = median_seconds(lambda: scale.search(found, queries))
        matrix = found.matrix()
        some = np.empty_like(matrix[: ROWS // 10])
        bound = 10 * median_seconds(lambda: np.copyto(some, matrix[: ROWS // 10]))
    print(f"{ROWS:,} x {DIM} float16, {QUERIES} queries, {torch.get_num_threads()} threads:")
    print(
        f"{first:.1f} s for the first answer, which makes a copy for later ones; then {exact:.2f}"
    )
    print(f"{bound:.2f} s to copy as many bytes in memory, {peak_gb():.2f} GB resident at most")
    verdicts([("exact, s", 1.0, exact)], most=True)


def index() -> None:
    """A graph that is built once, and what it misses."""
    with collection() as (found, queries):
        truth, start = scale.search(found, queries), time.perf_counter()
        graph = scale.open_index(found)
        built = time.perf_counter() - start
        quick = median_seconds(lambda: scale.search(found, queries, index=graph))
        pairs = zip(truth, scale.search(found, queries, index=graph), strict=True)
        same = [len({hit.key for hit in a} & {hit.key for hit in b}) for a, b in pairs]
    print(f"{ROWS:,} x {DIM} float16: built in {built:.0f} s, {graph.effort} candidates a query")
    print(
        f"{1000 * quick:.0f} ms for {QUERIES} new queries; of their 10, {np.mean(same):.2f} found"
    )
    verdicts([("1 - recall@10 of 200 rows as queries", 0.05, 1 - graph.recall)], most=True)


def median_seconds(work: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


# ---- all of it -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], None]] = {
    "losses": losses,
    "large": large,
    "ranks": ranks,
    "engines": engines,
    "memory": memory,
    "kills": kills,
    "search": search,
    "index": index,
}


def main(names: list[str]) -> None:
    if unknown := set(names) - PARTS.keys():
        sys.exit(f"unknown part {min(unknown)!r}; expected some of {', '.join(PARTS)}")
    for name in names or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
