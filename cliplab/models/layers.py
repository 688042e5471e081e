"""What the image and text towers of CLIP are made of, and how their features are compared.

Parameter names are those of the official code, so that its weights load without a translation
table; where a name says little (`ln_1`, `c_fc`) the comment says what it is.

Letters in shape comments: B batch, L tokens, P patches, C width, H heads, D embedding.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64  # channels per attention head in every published CLIP


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the cheap GELU that CLIP was trained with.

    Not interchangeable with the exact GELU: same weights, slightly wrong embeddings, no error.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return x * torch.sigmoid(1.702 * x)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, **how: Any) -> Tensor:
    """Multi-head attention: queries (B, L, C), keys and values (B, S, C) -> (B, L, C).

    Every head has C / H of the channels. `how`: options of `F.scaled_dot_product_attention`.
    """
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, **how)  # (B, H, L, C/H)
    return mixed.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; causal: a token sees itself and its past.

    Parameters are those of `torch.nn.MultiheadAttention`, whose weights it therefore loads.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))  # query, key, value
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        qkv = F.linear(tok, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3C)
        query, key, value = qkv.chunk(3, dim=-1)
        return self.out_proj(attend(query, key, value, self.heads, is_causal=self.causal))


class MLP(nn.Module):
    """Every token on its own through a layer `ratio` times as wide, (B, L, C) -> (B, L, C)."""

    def __init__(self, width: int, ratio: float = 4) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, round(ratio * width))
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(round(ratio * width), width)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        return self.c_proj(self.gelu(self.c_fc(tok)))


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block: attention, then an MLP, each added to its input."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, ratio: float = 4) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal=causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, ratio)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        tok = tok + self.attn(self.ln_1(tok))
        return tok + self.mlp(self.ln_2(tok))


class Transformer(nn.Module):
    """A stack of residual attention blocks, (B, L, C) -> (B, L, C)."""

    def __init__(
        self, width: int, layers: int, heads: int, *, causal: bool = False, ratio: float = 4
    ) -> None:
        super().__init__()
        block = partial(ResidualAttentionBlock, width, heads, causal=causal, ratio=ratio)
        self.width, self.resblocks = width, nn.Sequential(*(block() for _ in range(layers)))

    def initialize(self) -> None:
        """Normal weights; those that write into the residual stream shrink with the depth."""
        std = self.width**-0.5
        into_stream = std * (2 * max(1, len(self.resblocks))) ** -0.5
        for block in self.modules():
            if isinstance(block, ResidualAttentionBlock):
                nn.init.normal_(block.attn.in_proj_weight, std=std)
                nn.init.normal_(block.attn.out_proj.weight, std=into_stream)
                nn.init.normal_(block.mlp.c_fc.weight, std=(2 * self.width) ** -0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=into_stream)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        return self.resblocks(tok)


class VisionTransformer(nn.Module):
    """Image tower 1: cut into patches, prepend a class token, attend, read the class token.

    Source: CLIP, arXiv:2103.00020, section 2.4: a ViT with one more LayerNorm before the blocks.
    """

    def __init__(
        self,
        layers: int,
        *,
        width: int,
        heads: int,
        patch_size: int,
        resolution: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        patches, scale = (resolution // patch_size) ** 2, width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, D)."""
        patch_tok = self.conv1(pixels).flatten(2).transpose(1, 2)  # (B, P, C)
        class_tok = self.class_embedding.expand(len(patch_tok), 1, -1)  # (B, 1, C)
        tok = torch.cat([class_tok, patch_tok], dim=1)  # (B, 1 + P, C)
        tok = self.transformer(self.ln_pre(tok + self.positional_embedding))
        return self.ln_post(tok[:, 0]) @ self.proj  # (B, D)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut; 4x more channels out than inside.

    Strides are average pools followed by stride-1 convolutions: the pool blurs before it
    subsamples (anti-aliasing), where torchvision's stride-2 convolution just skips pixels.
    """

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        channels_out = channels * self.expansion
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
            named = {"pool": self.pool, "0": shortcut, "1": nn.BatchNorm2d(channels_out)}
            self.downsample = nn.Sequential(OrderedDict(named))  # "0" and "1" as in the weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) -> (B, 4 * channels, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(self.pool(out)))
        return F.relu(out + self.downsample(x), inplace=True)


class AttentionPool2d(nn.Module):
    """Pools a feature map by attention: the mean of all positions asks, the positions answer.

    Deviates: the official code computes the answer for every position and keeps the first; only
    that one is computed here.
    """

    def __init__(self, cells: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(cells + 1, width) / width**0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D)."""
        tok = feature_map.flatten(2).transpose(1, 2)  # (B, P, C), P = h w
        tok = torch.cat([tok.mean(dim=1, keepdim=True), tok], dim=1)  # (B, 1 + P, C)
        tok = tok + self.positional_embedding
        pooled = attend(self.q_proj(tok[:, :1]), self.k_proj(tok), self.v_proj(tok), self.heads)
        return self.c_proj(pooled[:, 0])  # (B, D)


class ResNetStem(nn.Module):
    """Three convolutions and a pool, (B, 3, H, W) -> (B, C, H / 4, W / 4), where layers follow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)

    def stem(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(pixels)), inplace=True)  # (B, C/2, H/2, W/2)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.avgpool(F.relu(self.bn3(self.conv3(x)), inplace=True))


def residual_layer(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Bottlenecks, the first of which may have a stride; 4 * `channels` come out."""
    first = Bottleneck(channels_in, channels, stride)
    rest = [Bottleneck(4 * channels, channels) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class ModifiedResNet(ResNetStem):
    """Image tower 2: a ResNet with a three-convolution stem, blurred strides and attention pooling.

    Stride 32 in all: 4 in the stem, then 1, 2, 2, 2 in the four layers.

    Source: CLIP, arXiv:2103.00020, section 2.4 (ResNet-D stem, antialiased pooling).
    """

    def __init__(
        self, layers: Sequence[int], *, width: int, heads: int, resolution: int, embed_dim: int
    ) -> None:
        super().__init__(width)
        self.layer1 = residual_layer(width, width, layers[0], 1)
        self.layer2 = residual_layer(4 * width, 2 * width, layers[1], 2)
        self.layer3 = residual_layer(8 * width, 4 * width, layers[2], 2)
        self.layer4 = residual_layer(16 * width, 8 * width, layers[3], 2)
        self.attnpool = AttentionPool2d((resolution // 32) ** 2, 32 * width, heads, embed_dim)
        self._initialize()

    def _initialize(self) -> None:
        pool = self.attnpool
        for linear in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # every block starts as its shortcut

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, D)."""
        return self.attnpool(self.feature_maps(pixels)[-1])  # (B, D)

    def feature_maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W), of any size -> the last two maps, (B, 16C, H/16, W/16), (B, 32C, H/32, ..).

        What attention pools, and what is under it: for whoever asks where, not only what.
        """
        x = self.layer1(self.stem(pixels))  # (B, 4C, H/4, W/4)
        fine = self.layer3(self.layer2(x))  # (B, 16C, H/16, W/16)
        return fine, self.layer4(fine)  # (B, 32C, H/32, W/32)


def check_token_ids(token_ids: Tensor, limit: int) -> None:
    """Raise ValueError unless token ids are integers (B, L) with L <= limit."""
    if token_ids.ndim != 2 or token_ids.is_floating_point() or token_ids.shape[1] > limit:
        raise ValueError(
            f"token_ids: got shape {tuple(token_ids.shape)} of {token_ids.dtype}; expected "
            f"integers (B, L) with L <= {limit}, as the model's tokenizer returns them"
        )


# ---- features compared ----------------------------------------------------------------------


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions become float32, the others stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(feature: Tensor) -> Tensor:
    """(..., D) -> the same of unit length, float32 or better."""
    return F.normalize(at_least_float32(feature), dim=-1)


def pair_logits(image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosines of all pairs: unit rows (N, D), (K, D) -> (N, K), float32 or better.

    Near scale 100 neighbouring bfloat16 numbers are 0.5 apart: under autocast the softmax would
    see rounding noise, so this one product is kept out of it.
    """
    with torch.autocast(image_emb.device.type, enabled=False):
        return logit_scale * at_least_float32(image_emb) @ at_least_float32(text_emb).T


class TwoTowers(nn.Module):
    """What the CLIPs share: images and texts into one space, compared at a learned temperature."""

    visual: VisionTransformer | ModifiedResNet
    logit_scale: nn.Parameter  # log of 1 / temperature

    def __init__(self, config: Any, *, head_width: int = HEAD_WIDTH) -> None:
        """The image tower that a configuration asks for: a ViT for an int of layers, a ResNet for
        four. Heads are rounded down, as the official loader does it.
        """
        super().__init__()
        self.config, layers, width = config, config.vision_layers, config.vision_width
        sizes = {"resolution": config.image_resolution, "embed_dim": config.embed_dim}
        if isinstance(layers, int):
            sizes |= {"heads": width // head_width, "patch_size": config.vision_patch_size}
            self.visual = VisionTransformer(layers, width=width, **sizes)
        else:
            heads = 32 * width // head_width
            self.visual = ModifiedResNet(layers, width=width, heads=heads, **sizes)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, R, R) -> features (B, D), not of unit length."""
        side = self.config.image_resolution
        if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
            raise ValueError(
                f"pixels: got shape {tuple(pixels.shape)}; expected (B, 3, {side}, {side}): "
                "resize and crop the images, then normalise and stack them"
            )
        return self.visual(pixels)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (B, L) -> features (B, D), not of unit length."""
        raise NotImplementedError

    def forward(self, pixels: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, R, R), (K, L) -> scaled cosines per image (N, K) and per text (K, N)."""
        emb = unit_rows(self.encode_image(pixels)), unit_rows(self.encode_text(token_ids))
        logits = pair_logits(*emb, self.logit_scale.exp())
        return logits, logits.T
