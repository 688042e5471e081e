"""Blocks of a collection as a job of Ray Data: actors that each load the model once.

Ray restarts a worker that died and gives its block to another; a block is named after its keys, so
that none is there twice. Workers on other machines must see the source and the folder under the
same paths, and have cliplab installed.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from cliplab.encoders import Encoder
from cliplab.runtime import ArgumentError
from cliplab.scale.embedding import Block, Work
from cliplab.scale.store import About

STORE = 150 * 2**20  # bytes that Ray shares between processes; blocks are lists of places, no more
_STARTS = 3  # times that a start is tried: on a busy machine Ray gives up after half a minute
_SETTINGS = {  # it would call home, and tell of its inner life
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "FATAL", "RAY_DATA_LOG_LEVEL": "FATAL",
}  # fmt: skip


@dataclass(frozen=True)
class Ray:
    """An engine for `embed`.

    Args:
        address: "host:port" of a cluster that runs, "auto" for one on this machine; None starts
            one of this machine's processors, reached from it alone, for this run.
        workers: actors, each with a processor (or a GPU, where the encoder is on one); None: as
            many as there are.
        load: what each worker loads the encoder with; None: it is sent the weights.
    """

    address: str | None = None
    workers: int | None = None
    load: Callable[[], Encoder] | None = None

    def __call__(self, blocks: Sequence[Block], work: Work) -> Iterator[int]:
        """Write the blocks, whichever is ready first -> how many pictures each has.

        Raises:
            ChildProcessError: a worker cannot write, or has another encoder; or Ray gave up.
            ConnectionError: no cluster answers at the address.
            ImportError: Ray is not installed.
        """
        if self.workers is not None and self.workers < 1:
            raise ArgumentError("workers", f"got {self.workers}; expected 1 or more")
        with _cluster(self.address, self.workers):
            for row in self._job(blocks, work).iter_rows():
                if row["error"]:
                    raise ChildProcessError(f"a worker stopped: {row['error']}")
                yield int(row["count"])

    def _job(self, blocks: Sequence[Block], work: Work) -> Any:
        import ray

        on_gpu = work.encoder.device.type == "cuda"
        present = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
        worker: Any = _Worker
        load = self.load or partial(_given, work.encoder)
        packed = [{"block": pickle.dumps(block)} for block in blocks]
        return ray.data.from_items(packed, override_num_blocks=min(len(packed), 10_000)).map(
            worker,
            fn_constructor_args=(load, work.about, work.folder.resolve(), work.batch_size),
            compute=ray.data.ActorPoolStrategy(size=min(self.workers or present, len(blocks))),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
        )


def _given(encoder: Encoder) -> Encoder:
    return encoder


class _Worker:
    """An actor: the model, loaded for its first block, and what it does with each.

    What goes wrong is returned as a sentence, since Ray makes other errors of those that it sees.
    """

    def __init__(self, load: Callable[[], Encoder], about: About, *place: Any) -> None:
        torch.set_num_threads(1)
        self.load, self.about, self.place = load, about, place

    @cached_property
    def work(self) -> Work:
        work = Work(self.load(), self.about, *self.place)
        own, meant = work.encoder.fingerprint[:12], self.about.fingerprint[:12]
        if own != meant:
            what = f"its encoder has the fingerprint {own}, that of this run is {meant}"
            raise ValueError(f"{what}; give all machines the same weights")
        return work

    def __call__(self, row: dict[str, bytes]) -> dict[str, Any]:
        block = pickle.loads(row["block"])
        try:
            return {"count": self.work.write(block, self.work.read(block)), "error": ""}
        except (OSError, ValueError, ImportError) as error:
            return {"count": 0, "error": str(error)}


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """A connection to Ray, that of whoever calls us if there is one; what was started ends."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"the engine ray needs Ray ({error}); pip install 'ray[data]'") from error
    if is_ours := not ray.is_initialized():
        _start(address, workers)
    try:
        yield
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        what = f"Ray gave up ({reason}); what was written stays: run it again"
        raise ChildProcessError(what) from error
    finally:
        if is_ours:
            ray.shutdown()


def _start(address: str | None, workers: int | None) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    own: dict[str, Any] = {
        "address": "local", "num_cpus": workers, "include_dashboard": False,
        "object_store_memory": STORE, "_node_ip_address": "127.0.0.1",
    }  # fmt: skip
    for turn in range(1, _STARTS + 1):
        try:
            if address not in (None, "auto"):
                # Does it listen? Ray asks for a minute.
                host, _, port = str(address).rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            given = {"address": address} if address else own
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **given)
            return
        except Exception as error:  # Ray raises bare ones
            ray.shutdown()
            if address:
                raise ConnectionError(
                    f"no Ray cluster answers at {address} ({error}); expected host:port of one "
                    "that runs, or auto; without an address this machine alone is used"
                ) from error
            if turn == _STARTS:
                raise ChildProcessError(f"Ray did not start here: {error}") from error
