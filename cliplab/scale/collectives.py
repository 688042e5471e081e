"""How tensors go from rank to rank, with gradients, and how many bytes that moves.

A gradient goes back the way its tensor came: what was gathered from R ranks is added up over the
ranks that read it and returned to its owner. So what backward computes, on all ranks at once, is
the gradient of the *sum* of the ranks' losses.

R ranks, B bytes of a tensor on each; a rank sends, in the ring algorithms that are in use:

| what | bytes that each rank sends |
|---|---|
| `gather`: everybody gets everybody's rows | (R - 1) B |
| its gradient: everybody's share added up, to the owner | (R - 1) B |
| `exchange`: block s of rank r becomes block r of rank s | (R - 1) B / R |
| `pass_on`: to the next rank | B |
| DistributedDataParallel, the gradients of all parameters | 2 (R - 1) B / R |
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from cliplab.scale.ranks import place

Group = dist.ProcessGroup | None  # None: all ranks


def check_pairs(image_emb: Tensor, text_emb: Tensor, group: Group) -> None:
    """Raise ValueError, on all ranks alike, unless every rank has as many pairs as the others.

    The numbers of rows are gathered for that: gloo ends the process where tensors do not fit.
    """
    if not dist.is_initialized():
        raise ValueError(
            "group: got no process group; start the program with torchrun and join it "
            "(cliplab.scale.joined), use cliplab.scale.run_local, or take the loss of one process "
            "from cliplab.models.losses"
        )
    own = torch.tensor([len(image_emb), len(text_emb)], device=image_emb.device)
    counts = gather(own, group).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            f"image_emb, text_emb: got {counts[::2]} images and {counts[1::2]} texts on the ranks; "
            "expected as many on each: share batches out with own_share, and leave out the rest"
        )


# ---- what a rank does with the others ---------------------------------------------------------


def gather(own: Tensor, group: Group = None) -> Tensor:
    """Everybody's rows in the order of the ranks: (n, ...) -> (R n, ...), with gradient."""
    return _Gather.apply(own, group)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: Group) -> Tensor:
        ctx.group = group
        rows = own.new_empty(place(group)[1] * len(own), *own.shape[1:])
        dist.all_gather_into_tensor(rows, own.contiguous(), group=group)
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Not reduce_scatter_tensor, for which gloo sends everything twice.
        parts = grad.unflatten(0, (place(ctx.group)[1], -1))  # (R, n, ...)
        return _all_to_all(parts, ctx.group).sum(0), None


def exchange(blocks: Tensor, group: Group = None) -> Tensor:
    """(R, n) -> (R, n): row s goes to rank s, and row r came from rank r; with gradient."""
    return _Exchange.apply(blocks, group)


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _all_to_all(blocks, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(grad, ctx.group), None


def _all_to_all(blocks: Tensor, group: Group) -> Tensor:
    received = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, blocks.contiguous(), group=group)
    return received


def pass_on(tensors: list[Tensor], group: Group = None) -> list[Tensor]:
    """Give tensors to the next rank and take those of the one before, (...) -> (...); no gradient.

    After R times everything is home again.
    """
    rank, ranks = place(group)
    if ranks == 1:
        return tensors
    received = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
    to, source = {"group_peer": (rank + 1) % ranks}, {"group_peer": (rank - 1) % ranks}
    sends = [dist.P2POp(dist.isend, t.contiguous(), group=group, **to) for t in tensors]
    takes = [dist.P2POp(dist.irecv, t, group=group, **source) for t in received]
    for work in dist.batch_isend_irecv([*sends, *takes]):
        work.wait()
    return received


def round_trip(
    visit: Callable[..., Tensor],
    tensors: list[Tensor],
    group: Group = None,
    *,
    add: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> Tensor:
    """Send tensors from rank to rank; what they meet is put together on the way, and comes home.

    Args:
        visit: called with the own tensors and with those of every other rank, in the order in which
            they come by; -> what is found for their owner.
        tensors: of this rank; they are sent R - 1 times, and so is what was found.
        add: puts two findings together.
    """
    home, away = visit(*tensors), list[Tensor]()
    for _ in range(1, place(group)[1]):
        passed = pass_on([*tensors, *away], group)
        tensors, away = passed[: len(tensors)], passed[len(tensors) :]
        found = visit(*tensors)
        away = [add(away[0], found) if away else found]
    return add(home, pass_on(away, group)[0]) if away else home


def mean_value(own: Tensor, group: Group = None) -> Tensor:
    """The mean of a scalar over the ranks, with the gradient of the own scalar alone."""
    total = own.detach().clone()
    dist.all_reduce(total, group=group)
    return own + (total / place(group)[1] - own.detach())


# ---- bytes ------------------------------------------------------------------------------------


@contextmanager
def counted_traffic(group: Group = None) -> Iterator[dict[str, int]]:
    """Count the bytes that this rank sends in the block: a dict, collective -> bytes, 0 if unused.

    What is counted is what the functions of torch.distributed are asked to move, by the ring
    algorithms above; DistributedDataParallel speaks to its backend itself, and is not seen.
    """
    ranks, sent = place(group)[1], dict.fromkeys(_SENT, 0)

    def watched(name: str, real: Callable) -> Callable:
        def call(*args: Any, **named: Any) -> Any:
            sent[name] += _SENT[name](ranks, args)
            return real(*args, **named)

        return call

    with ExitStack() as stack:
        for name in _SENT:
            stack.enter_context(mock.patch.object(dist, name, watched(name, getattr(dist, name))))
        yield sent


def _sent_on(ranks: int, args: tuple) -> int:
    return sum(op.tensor.nbytes for op in args[0] if op.op is dist.isend)


# Collective -> bytes that a rank sends, of the number of ranks and the arguments.
_SENT: dict[str, Callable[[int, tuple], int]] = {
    "all_gather_into_tensor": lambda ranks, args: (ranks - 1) * args[1].nbytes,
    "all_to_all_single": lambda ranks, args: (ranks - 1) * args[1].nbytes // ranks,
    "all_reduce": lambda ranks, args: 2 * (ranks - 1) * args[0].nbytes // ranks,
    "batch_isend_irecv": _sent_on,
}
