"""Swin Transformer: attention inside windows that are shifted from block to block.

Names of the released weights, and their habits: maps are filled up to whole windows at the right
and at the bottom, windows shift even when there is only one, and the finest stage has no norm.

Source: Swin Transformer, arXiv:2103.14030, section 3.

Letters: B images, H W patches, C channels, N patches of a window, M windows of an image.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.glip.config import GLIPConfig
from cliplab.models.layers import attend

PATCH = 4  # pixels per side
_APART = -100.0  # logit between patches that the shift brought together


class WindowAttention(nn.Module):
    """Attention among the patches of a window, with a bias for each relative position."""

    relative_position_index: Tensor  # (N, N) rows of the table

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_positions(window)
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, tok: Tensor, apart: Tensor | None) -> Tensor:
        """(B * M, N, C), apart (M, N, N) to be added to the logits -> (B * M, N, C)."""
        query, key, value = self.qkv(tok).chunk(3, dim=-1)  # (B * M, N, C)
        bias = self.relative_position_bias_table[self.relative_position_index]  # (N, N, heads)
        bias = bias.permute(2, 0, 1)[None]  # (1, heads, N, N)
        if apart is not None:
            bias = (bias + apart[:, None]).repeat(len(tok) // len(apart), 1, 1, 1)
        mixed = attend(query, key, value, self.heads, attn_mask=bias.to(query.dtype))
        return self.proj(mixed)


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of patches in a window: (N, N), N = window squared."""
    grid = torch.arange(window, device="cpu")  # even where the weights have no storage yet
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()])  # (2, N)
    apart = place[:, :, None] - place[:, None, :] + window - 1  # (2, N, N), from 0
    return apart[0] * (2 * window - 1) + apart[1]


class Block(nn.Module):
    """Window attention and an MLP, each added to its input; (B, H, W, C) -> (B, H, W, C)."""

    def __init__(
        self, channels: int, heads: int, window: int, *, shift: int, drop_path: float
    ) -> None:
        from torchvision.ops import StochasticDepth

        super().__init__()
        self.window, self.shift = window, shift
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window)
        parts = {"fc1": nn.Linear(channels, 4 * channels), "act": nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(**parts, fc2=nn.Linear(4 * channels, channels)))

    def forward(self, x: Tensor, apart: Tensor) -> Tensor:
        """(B, H, W, C), apart (M, N, N) for shifted windows -> (B, H, W, C)."""
        x = x + self.drop_path(self._attended(self.norm1(x), apart))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attended(self, x: Tensor, apart: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        full = x.shape
        x = self.attn(to_windows(x, self.window), apart if self.shift else None)
        x = from_windows(x, self.window, (full[0], full[1], full[2]))
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C), whole windows -> (B * M, N, C)."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, h, window, w, window, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def from_windows(tok: Tensor, window: int, size: tuple[int, int, int]) -> Tensor:
    """(B * M, N, C) and (B, H, W) -> (B, H, W, C)."""
    images, height, width = size
    x = tok.unflatten(1, (window, window))
    x = x.unflatten(0, (images, height // window, width // window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def shifted_apart(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Logits that keep apart what the shift brought together from opposite edges, (M, N, N)."""
    sides = []
    for length in (height, width):
        full = length + -length % window
        side = torch.zeros(full, device=device)
        side[full - window :] = 1
        side[full - window // 2 :] = 2
        sides.append(side)
    region = (3 * sides[0][:, None] + sides[1][None, :])[None, :, :, None]  # (1, H, W, 1)
    region = to_windows(region, window).squeeze(2)  # (M, N)
    return _APART * (region[:, None, :] != region[:, :, None]).float()


class Merge(nn.Module):
    """Four neighbouring patches become one with twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H / 2, W / 2, 2C), rounded up."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Stage(nn.Module):
    """Blocks of one resolution, every second with shifted windows, and the way to the next."""

    def __init__(self, blocks: list[Block], window: int, merge: Merge | None) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(blocks)
        self.downsample = nn.Identity() if merge is None else merge

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        apart = shifted_apart(x.shape[1], x.shape[2], self.window, x.device)
        for block in self.blocks:
            x = block(x, apart)
        return x


class Embed(nn.Module):
    """Pixels to patches: (B, 3, H, W) -> (B, H / 4, W / 4, C), rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, C)."""
        height, width = pixels.shape[-2:]
        filled = F.pad(pixels, (0, -width % PATCH, 0, -height % PATCH))
        return self.norm(self.proj(filled).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Pixels (B, 3, H, W) -> maps at strides 4, 8, 16 and 32."""

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        widths, window = config.widths, config.window
        self.patch_embed = Embed(widths[0])
        steps = max(sum(config.depths) - 1, 1)
        rates = [config.drop_path * i / steps for i in range(sum(config.depths))]
        stages = []
        for i, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            heads, mine = config.swin_heads[i], [rates.pop(0) for _ in range(depth)]
            blocks = [
                Block(width, heads, window, shift=j % 2 * (window // 2), drop_path=mine[j])
                for j in range(depth)
            ]
            stages.append(Stage(blocks, window, Merge(width) if i < len(widths) - 1 else None))
        self.layers = nn.ModuleList(stages)
        for i, width in enumerate(widths[1:], 1):
            self.add_module(f"norm{i}", nn.LayerNorm(width))
        self.apply(_draw)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, h, w), finest first; the first one without a norm."""
        x, maps = self.patch_embed(pixels), []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            out = self.get_submodule(f"norm{i}")(x) if i else x
            maps.append(out.permute(0, 3, 1, 2).contiguous())
            x = stage.get_submodule("downsample")(x)
        return maps


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
