"""Ranks: who this process is among those that work together, and its share of a batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import torch.distributed as dist

P = ParamSpec("P")


def place(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """(rank, ranks): this process's number and how many there are; (0, 1) when it works alone."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def is_first() -> bool:
    """Whether this process writes files and logs: rank 0, or one that works alone."""
    return place()[0] == 0


def own_share(count: int) -> slice:
    """Which of `count` rows of a batch are this rank's: equal blocks in the order of the ranks.

    Raises:
        ValueError: the rows cannot be shared out equally.
    """
    rank, ranks = place()
    if count % ranks:
        raise ValueError(
            f"batch: got {count} rows for {ranks} ranks; expected a multiple of {ranks}, so that "
            "every rank has as many as the others"
        )
    size = count // ranks
    return slice(rank * size, (rank + 1) * size)


def meet() -> None:
    """Wait until all ranks are here."""
    if place()[1] > 1:
        dist.barrier()


def by_the_first(work: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
    """Call `work` on rank 0 alone; the others wait until it is done."""
    if is_first():
        work(*args, **named)
    meet()


@contextmanager
def first_goes_first() -> Iterator[None]:
    """A block, or a function, for rank 0, and then for the others, who find what it left."""
    if not is_first():
        meet()
    yield
    if is_first():
        meet()
