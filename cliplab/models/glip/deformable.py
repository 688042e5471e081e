"""Convolutions that choose where to look: modulated deformable convolution and what follows it.

Source: Deformable ConvNets v2, arXiv:1811.11168, section 3; torchvision computes it.

Letters: B images, C channels, H W cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 9  # of a 3 x 3 kernel; each has an offset (y, x) and a weight


class DeformableConv(nn.Module):
    """3 x 3 convolution whose taps are moved by offsets and weighted by a mask.

    Parameters are those of the released weights (`weight`, `bias`).
    """

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W), (B, 18, H', W'), (B, 9, H', W') -> (B, C', H', W').

        Float32 whatever autocast says: torchvision's kernel knows no bfloat16 on a CPU.
        """
        from torchvision.ops import deform_conv2d

        with torch.autocast(x.device.type, enabled=False):
            full = torch.promote_types(x.dtype, torch.float32)
            x, offset, mask = x.to(full), offset.to(full), mask.to(full)
            weight, bias = self.weight.to(full), self.bias.to(full)
            return deform_conv2d(x, offset, weight, bias, self.stride, padding=1, mask=mask)


def reread(values: Tensor, size: tuple[int, int], *, flat: bool = True) -> Tensor:
    """Offsets or mask of one level, (B, C, h, w), for an output of `size` -> (B, C, H, W).

    A DyHead block convolves the next coarser level with the offsets of the current one, which are
    of twice its size. The released CUDA kernel does not notice: it reads the first C * H * W
    numbers of the flat buffer as if they were a map of H x W, so that the places it looks at come
    from other cells and other taps. The published weights were trained that way.

    Args:
        values: (B, C, h, w).
        size: (H, W), no more cells than h * w.
        flat: as the kernel reads; False: resized, which is what was meant.
    """
    if values.shape[-2:] == size:
        return values
    if not flat:
        return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    count = values.shape[1] * size[0] * size[1]
    return values.flatten(1)[:, :count].unflatten(1, (values.shape[1], *size))


class NormedConv(nn.Module):
    """Deformable convolution and group norm; names of the released weights (`conv`, `bn`)."""

    def __init__(self, channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = DeformableConv(channels, channels, stride)
        self.bn = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """As the convolution."""
        return self.bn(self.conv(x, offset, mask))


class DynamicReLU(nn.Module):
    """max(a1 x + b1, a2 x + b2), with slopes and intercepts that the picture decides, per channel.

    (B, C, H, W) -> (B, C, H, W). Source: Dynamic ReLU, arXiv:2003.10027, section 3, DY-ReLU-B.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze = channels // 4
        self.fc = nn.Sequential(
            nn.Linear(channels, squeeze), nn.ReLU(), nn.Linear(squeeze, 4 * channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        theta = F.hardsigmoid(self.fc(x.mean((2, 3))))[..., None, None]  # (B, 4C, 1, 1)
        a1, b1, a2, b2 = theta.chunk(4, dim=1)
        first = x * (2 * (a1 - 0.5) + 1) + (b1 - 0.5)  # starts as the identity
        return torch.maximum(first, x * (2 * (a2 - 0.5)) + (b2 - 0.5))
