"""Exercises of lesson 06: sums in pieces, rows of ranks, bytes, and the best of many blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number

QUIZ: dict[str, Choice | Number] = {
    "a": Number(64, 0.5, "the table has N x N numbers, so 8 times as many pairs need 8 x 8."),
    "b": Choice(
        "b",
        {
            "a": "nothing is averaged: each tile gives its own cells' gradient, and these add up.",
            "b": "p of a cell is exp(logit - log-sum-exp of its row), q the same of its column.",
            "c": "right pairs lie on the diagonal, but every wrong pair pushes as well.",
        },
    ),
    "c": Choice(
        "c",
        {
            "a": "no question of a small batch has a negative from another one.",
            "b": "it is no noise: the mean itself is another loss.",
            "c": "averaging gradients averages losses, and each loss knows 31 negatives.",
        },
    ),
    "d": Choice(
        "a",
        {
            "a": "a softmax needs the sum of the whole row first; a yes or no needs nothing else.",
            "b": "the rounds are about what has to be known, not about arithmetic.",
            "c": "both compare every picture with every caption.",
        },
    ),
}


class _Largest(TorchFunctionMode):
    """Notes the most numbers that a tensor has which is made in the block."""

    most = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.most = max(self.most, made.numel())
        return made


def _require_parts(answer: Answer, limit: int, *args: object) -> None:
    """Call an answer again, and refuse tensors of `limit` numbers or more."""
    with _Largest() as seen:
        answer(*args)
    answer.require(
        seen.most < limit,
        f"right, but a tensor of {seen.most} numbers is made, as large as all parts together: "
        "never hold more than one",
    )


@exercise(
    "06.1",
    "A log-sum-exp in pieces",
    hints=(
        "Keep one number for each row: the log-sum-exp of what has come so far. What is it before "
        "anything has come?",
        "The log-sum-exp of nothing is minus infinity. How do you add that of a block to it?",
        "For each block: sums = torch.logaddexp(sums, block.logsumexp(dim=1)).",
    ),
)
def online_logsumexp(answer: Answer, draw: Draw) -> None:
    """`online_logsumexp(blocks)`: (N, B) each, of one table -> (N,)."""
    for size in (1.0, 400.0):  # e^400 is no float32
        rows, widths = draw.integer(2, 4), [draw.integer(1, 4) for _ in range(3)]
        blocks = [size * draw.normal(rows, width) for width in widths]
        table = torch.cat(blocks, dim=1)
        sums = [block.logsumexp(dim=1) for block in blocks]
        first = sums[0]
        for later in sums[1:]:
            first = torch.maximum(first, later)
        answer.expect(
            table.logsumexp(dim=1), blocks,
            mistakes={
                "the sums of the blocks are added as they are; add what they are logarithms of": (
                    torch.stack(sums).sum(dim=0)
                ),
                "this is the largest of the blocks' sums; smaller ones count as well": first,
                "this starts from 0 in place of minus infinity: e^0 = 1 is one cell too many": (
                    torch.cat([table, torch.zeros(rows, 1)], dim=1).logsumexp(dim=1)
                ),
            },
        )  # fmt: skip
        _require_parts(answer, table.numel(), blocks)


@exercise(
    "06.2",
    "The gradient in tiles",
    hints=(
        "A tile needs its own logits, the log-sum-exps of its rows and of its columns: "
        "exp(logit - log-sum-exp) is its p or q.",
        "Its part of the gradient is scale / (2 N) * (p + q - 2 delta) times the captions of the "
        "tile. Add the parts of a row of tiles.",
        "delta is 1 where the row's number in the *whole* table equals the column's: compare "
        "torch.arange(i, ...)[:, None] with torch.arange(j, ...).",
    ),
)
def tiled_gradient(answer: Answer, draw: Draw) -> None:
    """`tiled_gradient(image_emb, text_emb, scale, rows, columns, tile)` -> (N, D), of pictures."""
    n, tile, scale = draw.integer(9, 14), draw.integer(2, 4), draw.number(1, 20)
    image, text = draw.unit_rows(n, 3), draw.unit_rows(n, 3)
    logits = scale * image @ text.T  # (N, N)
    rows, columns, own = logits.logsumexp(dim=1), logits.logsumexp(dim=0), torch.eye(n)
    p, q = (logits - rows[:, None]).exp(), (logits - columns).exp()
    repeated = torch.zeros(n, n)  # the diagonal of every tile
    for i in range(n):
        repeated[i, i % tile :: tile] = 1

    def gradient(table: Tensor) -> Tensor:
        return scale / (2 * n) * table @ text

    given = image, text, scale, rows, columns, tile
    answer.expect(
        gradient(p + q - 2 * own), *given,
        mistakes={
            "the 2 belongs to i = j of the whole table, not to the diagonal of every tile": (
                gradient(p + q - 2 * repeated)
            ),
            "the columns' probabilities q are missing": gradient(p - own),
            "right pairs pull as well: 2 is taken off where i = j": gradient(p + q),
            "the factor scale / (2 N) is missing": (p + q - 2 * own) @ text,
            "this is twice the gradient: the loss is a mean over 2 N questions": (
                2 * gradient(p + q - 2 * own)
            ),
        },
    )  # fmt: skip
    _require_parts(answer, n * n, *given)


@exercise(
    "06.3",
    "Which rows are mine?",
    hints=(
        "With N pairs and J ranks each rank has N / J of them, in blocks in the order of ranks.",
        "Rank r begins at r times the size of a block.",
        "size = count // ranks; the rows are range(rank * size, (rank + 1) * size). Raise "
        "ValueError before that if count % ranks is not 0.",
    ),
)
def own_rows(answer: Answer, draw: Draw) -> None:
    """`own_rows(count, rank, ranks) -> list of int`; ValueError if they cannot be shared out."""
    ranks, size = draw.integer(2, 4), draw.integer(2, 5)
    count = ranks * size
    for rank in range(ranks):
        answer.expect(
            list(range(rank * size, (rank + 1) * size)), count, rank, ranks,
            mistakes={
                "every rank has the same rows: a batch of few pairs, seen several times": list(
                    range(size)
                ),
                "rows in turn (0, J, 2 J, ...) are a fair share too, but ranks are asked in blocks "
                "here": list(range(rank, count, ranks)),
                "ranks are counted from 0": list(range((rank - 1) * size, rank * size)),
            },
        )  # fmt: skip
    refused = (
        f"own_rows({count + 1}, 0, {ranks}) must raise a ValueError: some rows would be lost, or "
        "some ranks have more than others"
    )
    answer.require_error(ValueError, refused, count + 1, 0, ranks)


@exercise(
    "06.4",
    "Bytes in balance",
    hints=(
        "What does a rank send for the captions and their gradients in a step? What for the "
        "gradients of the weights?",
        "2 (J - 1) / J * N * D numbers for the one, 2 (J - 1) / J * (number of weights) for the "
        "other.",
        "Set both equal: what is left of the factors, and what of J?",
    ),
)
def pairs_in_balance(answer: Answer, draw: Draw) -> None:
    """`pairs_in_balance(weights, dim) -> float`: pairs whose captions cost as much as weights."""
    for _ in range(2):
        dim, weights = 64 * draw.integer(1, 16), 1000 * draw.integer(100, 900)
        answer.expect(
            weights / dim, weights, dim,
            mistakes={
                "the captions' gradients go back, too": 2 * weights / dim,
                "the weights' gradients, too, are sent twice": weights / (2 * dim),
                "this counts bytes on one side and numbers on the other": 4 * weights / dim,
                "it is the other way round: weights / dim": dim / weights,
            },
        )  # fmt: skip


@exercise(
    "06.5",
    "The best of many blocks",
    hints=(
        "Keep the k best so far, as scores and numbers. What does a new block add?",
        "Join the scores so far and those of the block, and take the k best of both.",
        "The numbers of a block start where the one before ended: keep a counter, and add it to "
        "what topk gives.",
    ),
)
def best_of_blocks(answer: Answer, draw: Draw) -> None:
    """`best_of_blocks(blocks, query (D,), k) -> list`: numbers of the k best rows, best first."""
    for k in (1, 3):
        blocks = [draw.unit_rows(draw.integer(3, 5), 4) for _ in range(3)]
        query = F.normalize(draw.normal(4), dim=0)
        score = torch.cat(blocks) @ query
        starts = [0, len(blocks[0]), len(blocks[0]) + len(blocks[1])]
        inner = [int(row) for block in blocks for row in range(len(block))]
        order = score.argsort(descending=True).tolist()
        own = [int((b @ query).argmax()) + s
               for b, s in zip(blocks, starts, strict=True)]  # fmt: skip
        answer.expect(
            order[:k], blocks, query, k,
            mistakes={
                "numbers count from the first row of the first block: add where a block starts": [
                    inner[row] for row in order[:k]
                ],
                "these are the worst": order[::-1][:k],
                "the best come first": order[:k][::-1],
                "this is the best of each block; several may lie in one": sorted(
                    own, key=lambda row: -float(score[row])
                )[:k],
                "only the last block is looked at": [
                    row for row in order if row >= starts[2]
                ][:k],
            },
        )  # fmt: skip
        _require_parts(answer, torch.cat(blocks).numel(), blocks, query, k)
