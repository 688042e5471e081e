"""The two towers of a CLIP over ranks: each on its rows, with the weights of one process."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cliplab.models.layers import TwoTowers, at_least_float32, unit_rows
from cliplab.scale.collectives import gather
from cliplab.scale.ranks import place


class Towers(nn.Module):
    """Pictures and texts in one call, which is what DistributedDataParallel wraps."""

    def __init__(self, model: TwoTowers) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixels: Tensor | None, token_ids: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """(n, 3, R, R), (n, L) -> unit rows (n, D), (n, D), and 1 / temperature.

        Without pixels there are no rows of pictures.
        """
        image_emb = None if pixels is None else unit_rows(self.model.encode_image(pixels))
        text_emb = unit_rows(self.model.encode_text(token_ids))
        return image_emb, text_emb, self.model.logit_scale.exp()


def over_ranks(model: TwoTowers) -> nn.Module:
    """`Towers` of a model; over several ranks the gradients of its weights are means over them.

    The model itself stays what it was, with the same names, so its state is that of one process.
    Batch norms are made to take their statistics from the rows of all ranks.

    What is trained now is what is averaged: lock a tower first, and call this again when it is
    unlocked. Keep what is returned as long as you train: with it goes the averaging.
    """
    towers = Towers(model)
    if place()[1] == 1:
        return towers
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = RankBatchNorm2d
    model.to(memory_format=torch.channels_last)  # as the gradients are
    return DistributedDataParallel(towers)


class RankBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose batch lies on all ranks, equally many rows on each.

    Means and variances of the ranks are gathered, with gradient, and put together: the variance of
    the whole is the mean of the variances and the variance of the means. Both are float64, as one
    process has them on a CPU: where they are rounded otherwise, a ReLU lets another value through.

    torch.nn.SyncBatchNorm does the same on GPUs alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w)."""
        if not self.training:
            return super().forward(x)
        x, dtype, dims = at_least_float32(x), x.dtype, (0, 2, 3)
        own_mean = x.mean(dims, dtype=torch.float64)  # (C,)
        centred = x - own_mean.to(x.dtype)[:, None, None]
        own_variance = centred.square().mean(dims, dtype=torch.float64)
        means, variances = gather(torch.stack([own_mean, own_variance])[None]).unbind(1)  # (R, C)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        self._remember(mean.detach(), variance.detach(), len(means) * x.numel() / x.shape[1])
        gain = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias + (own_mean - mean) * gain
        gain, shift = (t.to(x.dtype)[:, None, None] for t in (gain, shift))  # (C, 1, 1)
        return (centred * gain + shift).to(dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics towards those of a batch with `count` values a channel."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
