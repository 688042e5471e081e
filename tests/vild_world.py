"""A small untrained ViLD, and unit rows, for tests."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.vild import ViLD, ViLDConfig

# 16 channels, not fewer: with 8, torch 2.15's CPU convolution crashes in the backward pass of
# pictures that lie channels last in memory.
TINY = ViLDConfig(
    embed_dim=8,
    widths=(16,) * 4,
    depths=(1, 1, 1),
    pyramid_width=16,
    head_channels=16,
    head_width=16,
    proposals=20,
)


def rows(n: int, d: int = 8, *, seed: int = 0) -> Tensor:
    """(n, d) unit rows."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator), dim=-1)


def tiny(**changes) -> ViLD:
    torch.manual_seed(0)
    return ViLD(replace(TINY, **changes))
