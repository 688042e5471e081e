"""A small residual network with a feature pyramid: what a detector of small pictures stands on.

The blocks are those of ResNet (arXiv:1512.03385, Fig. 2), the pyramid is torchvision's.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16  # of the coarsest map; pictures are to be filled up to a multiple of it
MEAN, STD = 0.45, 0.25  # of the pixels, roughly: batch norm does the rest


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution and its batch norm, (B, C, H, W) -> (B, C', H / stride, W / stride)."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way around them, (B, C, H, W) -> (B, C', H / s, W / s)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride)
        self.second = convolution(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.around = nn.Identity() if same else convolution(inputs, outputs, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / s, W / s)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.around(x))


def residual_stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """`depth` blocks, the first of stride 2, (B, C, H, W) -> (B, C', H / 2, W / 2)."""
    more = [Block(outputs, outputs) for _ in range(depth - 1)]
    return nn.Sequential(Block(inputs, outputs, stride=2), *more)


class Pyramid(nn.Module):
    """A small residual network and torchvision's feature pyramid on its strides 4, 8 and 16."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], pyramid_width: int) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        stem, *stages = widths
        self.stem = convolution(3, stem, stride=2)
        shapes = zip(widths, stages, depths, strict=False)
        self.stages = nn.ModuleList(residual_stage(*shape) for shape in shapes)
        self.fpn = FeaturePyramidNetwork(stages, pyramid_width)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> {"0": (B, C, H / 4, W / 4), "1": ..., "2": ...}."""
        x = F.relu(self.stem((pixels - MEAN) / STD))
        maps = {}
        for level, stage in enumerate(self.stages):
            maps[str(level)] = x = stage(x)
        return self.fpn(maps)
