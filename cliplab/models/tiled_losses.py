"""The contrastive losses without the N x N table: tile by tile, forward and backward.

The table of logits is what makes a large batch dear: at N = 32,768 it takes 4 GB, and the plain
losses hold several of its size. But a loss needs only one number per row and per column of it, the
log-sum-exp, and that can be summed over tiles. So the forward sweep computes one tile at a time,
keeps N + K sums and forgets the tile; the backward sweep computes each tile once more. In all four
matrix products, where the plain form takes three and open_clip's, which computes the transposed
table too, six; and memory of O(tile^2 + N D).

`softmax_table` and `sigmoid_table` are the building blocks. They take a rectangle of the table,
N images by K texts: all of it for one process, a strip for one rank of many. Which texts are right
for an image is said by ids, so that a block needs to know neither where its rectangle lies nor
what a rank is. `clip_loss` and `siglip_loss` in `cliplab.models.losses` put them to use.

How near they are to the plain form in float64, relative, at scale 100 (tests/test_tiled_losses.py):
float64 1e-10; float32 1e-5; float32 with bfloat16 products 0.002 in value and 0.01 in gradient.

Letters: N images, K texts, D embedding.

Source: online sums: Milakov and Gimelshein, arXiv:1805.02867, section 3; tiles of the contrastive
loss: Inf-CL, arXiv:2410.17243, section 4. Written from the papers.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cliplab.models.layers import at_least_float32

OfTile = Callable[[slice, slice, Tensor], Tensor]  # rows, columns, logits -> gradient of the logits
How = tuple[int, torch.dtype | None]  # tile, products


def softmax_table(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    *,
    image_ids: Tensor,
    text_ids: Tensor,
    tile: int | None,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exps of a table's rows and columns: (N, D), (K, D) -> (N,), (K,), (N,).

    With logits z = logit_scale * image_emb @ text_emb.T, which are never held together:

    - rows (N,): log of the sum of exp z over the K texts of each image;
    - columns (K,): log of the sum of exp z over the N images of each text;
    - right (N,): mean of z over the texts that are right for the image, 0 where there are none.

    All three have gradients, to both embeddings and the scale. The cross-entropy of image i is
    rows[i] - right[i]. Columns of tables stacked on one another (one per rank: its own images by
    the texts of all) are put together by `torch.logsumexp` over the tables.

    Args:
        image_emb: (N, D) unit rows; half precisions are computed with in float32.
        text_emb: (K, D) unit rows.
        logit_scale: scalar, 1 / temperature.
        image_ids: (N,) integers. Text j is right for image i when `image_ids[i] == text_ids[j]`.
            The diagonal of a square table: both `torch.arange(N)`. Rank r's N rows of a larger
            one: `r * N + torch.arange(N)` and `torch.arange(K)`.
        text_ids: (K,) integers.
        tile: rows and columns of a tile; a larger tile than the table is the whole table. 1024 and
            2048 are good sizes for a CPU: some four of 4 or 16 MB are held at once in float32.
        products: torch.bfloat16 rounds the factors of every matrix product to bfloat16 and sums
            in float32; None leaves them. See `multiply`.

    Raises:
        ValueError: a tile that is no positive integer, other products.
    """
    how = _check(tile, products)
    image_emb, text_emb = at_least_float32(image_emb), at_least_float32(text_emb)
    return _SoftmaxTable.apply(image_emb, text_emb, logit_scale, image_ids, text_ids, how)


def sigmoid_table(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    image_ids: Tensor,
    text_ids: Tensor,
    tile: int | None,
    products: torch.dtype | None = None,
) -> Tensor:
    """Sum of SigLIP's questions over a rectangle of the table: (N, D), (K, D) -> scalar.

    Each cell costs log(1 + exp(-z)) where the text is right for the image, log(1 + exp(z)) where
    it is not, with z = logit_scale * cosine + logit_bias. The sum is not divided by anything: sums
    over rectangles add up to the sum over the table. Arguments and errors as in `softmax_table`.
    """
    how = _check(tile, products)
    image_emb, text_emb = at_least_float32(image_emb), at_least_float32(text_emb)
    return _SigmoidTable.apply(
        image_emb, text_emb, logit_scale, logit_bias, image_ids, text_ids, how
    )


# ---- forward and backward --------------------------------------------------------------------


class _SoftmaxTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        image, text, scale, image_ids, text_ids, ctx.how = given
        rows = image.new_full((len(image),), -torch.inf)
        columns = image.new_full((len(text),), -torch.inf)
        right, share = torch.zeros_like(rows), _shares(image_ids, text_ids, like=rows)
        for i, j, _, logits in _tiles(image, text, scale, *ctx.how):
            rows[i] = torch.logaddexp(rows[i], _logsumexp(logits, 1))
            columns[j] = torch.logaddexp(columns[j], _logsumexp(logits, 0))
            same = _same(image_ids[i], text_ids[j])
            if same is not None:
                right[i] += logits.masked_fill_(~same, 0).sum(dim=1) * share[i]
        ctx.save_for_backward(*given[:-1], rows, columns, share)
        return rows, columns, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        """`grads` are of the rows, the columns and the right logits: one number per row or column.

        d rows[i] / d z[i, j] is the softmax of row i, exp(z[i, j] - rows[i]), and so for columns.
        """
        image, text, scale, image_ids, text_ids, rows, columns, share = ctx.saved_tensors
        of_rows, of_columns, of_right = grads[0][:, None], grads[1], (grads[2] * share)[:, None]

        def of_tile(i: slice, j: slice, logits: Tensor) -> Tensor:
            grad = _exp_(logits - rows[i, None]).mul_(of_rows[i])
            grad.addcmul_(_exp_(logits.sub_(columns[j])), of_columns[j])
            same = _same(image_ids[i], text_ids[j])
            return grad if same is None else grad.addcmul_(same.to(grad), of_right[i])

        found = _spread(ctx, image, text, scale, of_tile)
        return *found, None, None, None


class _SigmoidTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        image, text, scale, bias, image_ids, text_ids, ctx.how = given
        total = image.new_zeros(())
        for i, j, _, logits in _tiles(image, text, scale, *ctx.how):
            logits += bias
            same = _same(image_ids[i], text_ids[j])
            if same is not None:
                logits = torch.where(same, -logits, logits)
            total += F.softplus(logits, threshold=40).sum()
        ctx.save_for_backward(*given[:-1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        """Of a cell: the sigmoid of its logit, less 1 where the text is right."""
        image, text, scale, bias, image_ids, text_ids = ctx.saved_tensors
        of_bias = image.new_zeros(())

        def of_tile(i: slice, j: slice, logits: Tensor) -> Tensor:
            nonlocal of_bias
            grad = logits.add_(bias).sigmoid_()
            same = _same(image_ids[i], text_ids[j])
            if same is not None:
                grad -= same.to(grad)
            of_bias += grad.sum() * grads[0]
            return grad.mul_(grads[0])

        found = _spread(ctx, image, text, scale, of_tile)
        return *found, of_bias.reshape(bias.shape).to(bias), None, None, None


def _tiles(
    image: Tensor, text: Tensor, scale: Tensor, tile: int, products: torch.dtype | None
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, scaled images (T, D) and logits (T, T) of every tile; the caller owns them."""
    for i in _slices(len(image), tile):
        scaled = scale * image[i]
        for j in _slices(len(text), tile):
            yield i, j, scaled, multiply(scaled, text[j].T, products)


def _spread(
    ctx: Any, image: Tensor, text: Tensor, scale: Tensor, of_tile: OfTile
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of images, texts and scale from those of the logits, tile by tile."""
    of_image, of_text = torch.zeros_like(image), torch.zeros_like(text)
    for i, j, scaled, logits in _tiles(image, text, scale, *ctx.how):
        grad = of_tile(i, j, logits)
        of_image[i] += multiply(grad, text[j], ctx.how[1])
        of_text[j] += multiply(grad.T, scaled, ctx.how[1])
    parts = [(of_image[i] * image[i]).sum() for i in _slices(len(image), ctx.how[0])]
    of_scale = torch.stack(parts).sum().reshape(scale.shape).to(scale)
    return of_image.mul_(scale), of_text, of_scale


# ---- matrices, ids and what is refused -------------------------------------------------------


def multiply(a: Tensor, b: Tensor, products: torch.dtype | None = None) -> Tensor:
    """(M, D), (D, K) -> (M, K) in the precision of `a`; never under autocast.

    With `products=torch.bfloat16` the factors are rounded to bfloat16 (a relative error of up to
    1/512 each) and their products summed in float32, whatever computes them: bfloat16 units where
    torch can use them and still return float32 (CUDA from torch 2.8 on; CPUs with AMX), else
    float32 ones. On a CPU they are oneDNN's: on an AMD with AVX-512 twice as fast as float32's.
    """
    with torch.autocast(a.device.type, enabled=False):
        if products is None:
            return a @ b
        a, b = a.to(products), b.to(products)
        if a.is_cuda:
            return torch.mm(a, b, out_dtype=torch.float32)
        return _by_onednn(a.float(), b.float())


def _by_onednn(a: Tensor, b: Tensor) -> Tensor:
    """A product that may be computed in bfloat16: exact here, as the factors are rounded."""
    switch = getattr(torch.backends.mkldnn, "matmul", None)  # of torch 2.9 and later
    if switch is None:
        return a @ b
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    try:
        return a @ b
    finally:
        switch.fp32_precision = before


def _logsumexp(logits: Tensor, dim: int) -> Tensor:
    """(M, K) -> (M,) or (K,), whatever the size of the logits."""
    top = logits.amax(dim, keepdim=True)
    return _exp_(logits - top).sum(dim).log_().add_(top.squeeze(dim))


def _exp_(x: Tensor) -> Tensor:
    """In place, of numbers up to 0; what is below exp(-60), 1e-26, is set to that.

    Smaller ones change no sum, and those below exp(-87) are denormal in float32: torch took 20
    times as long for them, which are most of the table once a model has learned its pairs.
    """
    return x.clamp_(min=-60).exp_()


def _slices(length: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]


def _same(image_ids: Tensor, text_ids: Tensor) -> Tensor | None:
    """Which texts of a tile are right for which image, bool; None: none is."""
    if not torch.isin(image_ids, text_ids).any():
        return None
    return image_ids[:, None] == text_ids


def _shares(image_ids: Tensor, text_ids: Tensor, *, like: Tensor) -> Tensor:
    """(N,), 1 over the number of texts that are right for an image, or 0 where none is."""
    ids, counts = text_ids.unique(return_counts=True)
    place = torch.searchsorted(ids, image_ids).clamp_(max=len(ids) - 1)
    return (ids[place] == image_ids).to(like) / counts[place]


def _check(tile: int | None, products: torch.dtype | None) -> How:
    if not isinstance(tile, int) or tile < 1:
        raise ValueError(
            f"tile: got {tile!r}; expected a whole number of 1 or more, such as 1024; the plain "
            "losses take None for the table at once, and then no `products`"
        )
    if products not in (None, torch.bfloat16):
        raise ValueError(f"products: got {products}; expected torch.bfloat16 or None")
    return tile, products
