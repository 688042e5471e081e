"""Contrastive losses whose batch of N pairs lies on R ranks, n = N / R pairs on each.

Every rank calls the same function with its own rows and gets the same number: the loss of all N
pairs, as `cliplab.models.losses` would give it to one process that had them all.

How to read the gradients: backward on all ranks gives each of them R times the one-process gradient
of its own rows (the gradient of the sum of R equal losses). DistributedDataParallel takes the mean
over ranks of the gradients of the weights, and that is the gradient of one process exactly. Ranks
that use the loss differently (another factor in front of it) have no such meaning.

| | trips of the captions and their gradients | embeddings held | cells of the table |
|---|---|---|---|
| `gathered_clip_loss` | 1 + 1 | N D | n N, with tiles n T |
| `ring_clip_loss` | 2 + 1 | n D | n n, with tiles n T |
| `ring_siglip_loss` | 1 + 1, both forward | n D | n n, with tiles n T |

A trip moves (R - 1) n D numbers from every rank. The sigmoid needs one trip less than the softmax
at the same memory: no row has to be complete before its cells can be judged. Gathering pictures as
well as captions, as much published code does, is 2 + 2 trips.
"""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from cliplab.models.layers import pair_logits
from cliplab.models.losses import clip_loss
from cliplab.models.tiled_losses import sigmoid_table, softmax_table
from cliplab.scale.collectives import (
    Group,
    check_pairs,
    exchange,
    gather,
    mean_value,
    round_trip,
)
from cliplab.scale.ranks import place

# ---- softmax: InfoNCE -------------------------------------------------------------------------


def any_clip_loss(image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor) -> Tensor:
    """The loss of one process, or with several ranks `gathered_clip_loss`; arguments as there.

    Equal captions in a batch need no special care: their logits are equal, so spreading the target
    over them changes neither the loss nor its gradient (see `cliplab.models.losses.clip_loss`).
    """
    loss_of = clip_loss if place()[1] == 1 else gathered_clip_loss
    return loss_of(image_emb, text_emb, logit_scale)


def gathered_clip_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    *,
    group: Group = None,
    tile: int | None = None,
) -> Tensor:
    """InfoNCE of the pairs of all ranks: own unit rows (n, D), (n, D) -> scalar, the same on all.

    Own pictures meet all captions, which are gathered. A column of the table is then spread over
    the ranks: each knows the log-sum-exp of its part, and the owner of the caption joins them.

    Args:
        image_emb: (n, D) own unit rows; n is the same on all ranks.
        text_emb: (n, D) own unit rows, row i is the caption of image i.
        logit_scale: scalar, 1 / temperature, the same on all ranks.
        group: the ranks; None: all of them.
        tile: side of the tiles of the table; None: it is held as a whole, n x N.

    Raises:
        ValueError: there is no process group, or some ranks have more pairs than others.

    Source: CLIP, arXiv:2103.00020, Fig. 3; log-sum-exps in parts as in Inf-CL, arXiv:2410.17243.
    """
    check_pairs(image_emb, text_emb, group)
    text_all = gather(text_emb, group)  # (N, D)
    rows, parts = _log_sum_exps(image_emb, text_all, logit_scale, tile)  # (n,), (N,)
    parts = exchange(parts.unflatten(0, (-1, len(rows))), group)  # (R, n), of own captions
    columns = parts.logsumexp(dim=0)  # (n,)
    return mean_value(_own_loss(image_emb, text_emb, logit_scale, rows, columns), group)


def _own_loss(
    image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """Mean over own pairs of (row's + column's log-sum-exp) / 2 - the logit of the pair."""
    own = logit_scale * torch.linalg.vecdot(image_emb.to(rows), text_emb.to(rows))  # (n,)
    return ((rows + columns) / 2 - own).mean()


def _log_sum_exps(
    image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor, tile: int | None
) -> tuple[Tensor, Tensor]:
    """Log-sum-exps of the rows and columns of a table: (n, D), (K, D) -> (n,), (K,)."""
    if tile is None:
        logits = pair_logits(image_emb, text_emb, logit_scale)  # (n, K)
        return logits.logsumexp(dim=1), logits.logsumexp(dim=0)
    ids, others = _ids(image_emb, text_emb)  # the right ones are left to `_own_loss`
    return softmax_table(
        image_emb, text_emb, logit_scale, image_ids=ids, text_ids=others, tile=tile
    )[:2]


def _ids(image_emb: Tensor, text_emb: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of pictures and of captions none of which is right: (n,), (K,)."""
    ids = torch.arange(len(image_emb) + len(text_emb), device=image_emb.device)
    return ids[: len(image_emb)], ids[len(image_emb) :]


def ring_clip_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    *,
    group: Group = None,
    tile: int | None = None,
) -> Tensor:
    """`gathered_clip_loss` in the memory of n rows: captions go from rank to rank, twice.

    The first round finds the log-sum-exps of rows and columns; a caption takes that of its column
    along. The second, in backward, has them, and captions take their gradients along.
    """
    check_pairs(image_emb, text_emb, group)
    rows, columns = _RingLogSumExps.apply(image_emb, text_emb, logit_scale, group, tile)
    return mean_value(_own_loss(image_emb, text_emb, logit_scale, rows, columns), group)


class _RingLogSumExps(Function):
    """Own pictures and captions, (n, D) each -> log-sum-exps of rows and columns, (n,) each."""

    @staticmethod
    def forward(
        ctx: Any, image_emb: Tensor, text_emb: Tensor, scale: Tensor, group: Group, tile: int | None
    ) -> tuple[Tensor, Tensor]:
        row_parts = []

        def visit(block: Tensor) -> Tensor:
            rows, columns = _log_sum_exps(image_emb, block, scale, tile)
            row_parts.append(rows)
            return columns

        columns = round_trip(visit, [text_emb], group, add=torch.logaddexp)
        rows = reduce(torch.logaddexp, row_parts)
        ctx.group, ctx.tile = group, tile
        ctx.save_for_backward(image_emb, text_emb, scale, rows, columns)
        return rows, columns

    @staticmethod
    def backward(ctx: Any, to_rows: Tensor, to_columns: Tensor) -> tuple:
        image_emb, text_emb, scale, rows, columns = ctx.saved_tensors
        sums = [torch.zeros_like(t) for t in (image_emb, scale)]

        def visit(block: Tensor, columns: Tensor, to_columns: Tensor) -> Tensor:
            leaves = [t.detach().requires_grad_() for t in (image_emb, block, scale)]
            with torch.enable_grad():
                parts = _log_sum_exps(leaves[0], leaves[1], leaves[2], ctx.tile)
            # d rows / d part is the share that the part has of the whole.
            row_share, column_share = (parts[0] - rows).exp(), (parts[1] - columns).exp()
            weights = (to_rows * row_share.detach(), to_columns * column_share.detach())
            to_image, to_block, to_scale = torch.autograd.grad(parts, leaves, weights)
            for total, part in zip(sums, (to_image, to_scale), strict=True):
                total += part
            return to_block

        to_text = round_trip(visit, [text_emb, columns, to_columns], ctx.group)
        return sums[0], to_text, sums[1], None, None


# ---- sigmoid: SigLIP --------------------------------------------------------------------------


def ring_siglip_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    group: Group = None,
    tile: int | None = None,
) -> Tensor:
    """SigLIP's loss of the pairs of all ranks: own unit rows (n, D), (n, D) -> scalar.

    Captions go from neighbour to neighbour, and every rank judges its pictures against the block
    that is there. A cell asks no other cell, so its gradient is known at once and travels along
    with the block: one round does it all, forward. Arguments as in `gathered_clip_loss`.

    Source: SigLIP, arXiv:2303.15343, section 3.3 and Fig. 1.
    """
    check_pairs(image_emb, text_emb, group)
    own = _RingSigmoid.apply(image_emb, text_emb, logit_scale, logit_bias, group, tile)
    return mean_value(own, group)


class _RingSigmoid(Function):
    """Own pictures against all captions -> own share of the loss; gradients are made forward."""

    @staticmethod
    def forward(
        ctx: Any, image_emb: Tensor, text_emb: Tensor, scale: Tensor, bias: Tensor,
        group: Group, tile: int | None,
    ) -> Tensor:  # fmt: skip
        sums = [torch.zeros_like(t) for t in (image_emb, scale, bias, scale)]  # the loss is last

        def visit(block: Tensor) -> Tensor:
            leaves = [t.detach().requires_grad_() for t in (image_emb, scale, bias, block)]
            with torch.enable_grad():
                image, a, b, text = leaves
                loss = _sigmoid_sum(image, text, a, b, block is text_emb, tile) / len(image)
            *found, to_block = torch.autograd.grad(loss, leaves)
            for total, part in zip(sums, [*found, loss.detach()], strict=True):
                total += part
            return to_block

        to_text = round_trip(visit, [text_emb], group)
        to_image, to_scale, to_bias, loss = sums
        ctx.save_for_backward(to_image, to_text, to_scale, to_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return *(grad * g for g in ctx.saved_tensors), None, None


def _sigmoid_sum(
    image_emb: Tensor, text_emb: Tensor, scale: Tensor, bias: Tensor, own: bool, tile: int | None
) -> Tensor:
    """Sum over the cells of (n, D), (n, D); `own`: those of the diagonal are pairs."""
    if tile is not None:
        ids, others = _ids(image_emb, text_emb)
        text_ids = ids if own else others
        return sigmoid_table(
            image_emb, text_emb, scale, bias, image_ids=ids, text_ids=text_ids, tile=tile
        )
    logits = pair_logits(image_emb, text_emb, scale) + bias  # (n, n)
    sign = 2 * torch.eye(len(logits)).to(logits) - 1 if own else -1  # +1 pair, -1 not
    return -F.logsigmoid(sign * logits).sum()
