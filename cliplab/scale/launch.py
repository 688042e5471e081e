"""Starting ranks, joining them, and saying which of them was lost."""

import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cliplab.scale.ranks import place

# One rank may work alone for so long, at drawing pictures or evaluating, while the others wait.
PATIENCE = timedelta(hours=6)
_ROLL_CALL = 2.0  # seconds


# ---- as torchrun starts them ------------------------------------------------------------------


@contextmanager
def joined(device: torch.device, work: Path) -> Iterator[tuple[int, int]]:
    """Be one of the ranks that torchrun started, in the block -> (rank, ranks), or (0, 1) alone.

    Args:
        device: CUDA speaks nccl, each rank on a GPU of its own; others gloo.
        work: folder in which `state.pt` files are, to go on from.

    Raises:
        ValueError: more ranks on this machine than GPUs.
        ConnectionError: some ranks no longer answer; it names them and the last state.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield place()
        return
    if device.type == "cuda":
        _take_a_gpu()
    store, rank, ranks = next(dist.rendezvous("env://", timeout=PATIENCE))
    signal.signal(signal.SIGTERM, _end)  # torchrun sends it when another rank is gone
    with _group("nccl" if device.type == "cuda" else "gloo", store, rank, ranks):
        try:
            yield place()
        except RuntimeError as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if missing := _missing(store):
                raise ConnectionError(_lost(missing, work)) from error
            if isinstance(error, _EndedError):
                raise SystemExit(143) from error
            raise


def _take_a_gpu() -> None:
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if here > torch.cuda.device_count():
        raise ValueError(
            f"torchrun: got {here} ranks on this machine, which has {torch.cuda.device_count()} "
            "GPUs; expected one rank a GPU at the most"
        )
    torch.cuda.set_device(local)  # "cuda" is this one from now on


@contextmanager
def _group(backend: str, store: dist.Store, rank: int, ranks: int) -> Iterator[None]:
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error, which the others would report before us


class _EndedError(RuntimeError):
    """torchrun ends this rank."""


def _end(*_: object) -> None:
    raise _EndedError("ended by torchrun")


def _missing(store: dist.Store) -> list[int]:
    """The ranks that do not answer a roll call; [] when all do."""
    rank, ranks = place()
    names = {r: f"here/{r}" for r in range(ranks)}
    store.set(names[rank], "")
    end = time.monotonic() + _ROLL_CALL
    while (missing := [r for r, name in names.items() if not store.check([name])]) and (
        time.monotonic() < end
    ):
        time.sleep(0.05)
    return missing


def _lost(missing: list[int], work: Path) -> str:
    states = sorted(work.rglob("state.pt"), key=lambda path: path.stat().st_mtime)
    begin = states[-1] if states else "the start, as no state was saved yet"
    who = f"rank {missing[0]} is" if len(missing) == 1 else f"ranks {missing} are"
    return f"{who} gone; the same command, with any number of ranks, goes on from {begin}"


# ---- a small piece of code on a few ranks here ------------------------------------------------


def run_local(function: Callable, *args: Any, ranks: int = 2) -> list[Any]:
    """Call a function in `ranks` new processes of this machine -> its results in order of rank.

    The processes are joined (gloo, one thread each). Works from notebooks too.

    Args:
        function: one that can be imported: of a package, or of a .py file in a folder of sys.path.
        args: what it is called with, the same on every rank; like the results, of kinds that pickle
            can write.
        ranks: how many processes.

    Raises:
        ValueError: the function is defined in a notebook or script itself.
        torch.multiprocessing.ProcessRaisedException: it failed on a rank; with its traceback.
        torch.multiprocessing.ProcessExitedException: a rank died; `error_index` is its number.
    """
    if function.__module__ == "__main__":
        raise ValueError(
            f"function: got {function.__qualname__}, which is defined in the notebook or script "
            "itself, where new processes cannot find it; write it to a .py file and import it"
        )
    with tempfile.TemporaryDirectory() as name:
        job = Path(name, "job.pickle")
        job.write_bytes(pickle.dumps((function, args)))
        torch.multiprocessing.spawn(_work, (ranks, job), ranks)
        return [pickle.loads(Path(name, f"{rank}.pickle").read_bytes()) for rank in range(ranks)]


def _work(rank: int, ranks: int, job: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(job.with_name("store")), ranks)
    with _group("gloo", store, rank, ranks):
        function, args = pickle.loads(job.read_bytes())
        result = function(*args)
        dist.barrier()
    job.with_name(f"{rank}.pickle").write_bytes(pickle.dumps(result))
