"""GLIP: finding what a sentence speaks of. Detection and grounding are one task.

A class list is a sentence too ("sheep. goat. dog."): each box is compared with each word, and the
words of a phrase vote together.

Source: GLIP, arXiv:2112.03857, and the released code, https://github.com/microsoft/GLIP (MIT), for
what the paper leaves open; Feature Pyramid Networks, arXiv:1612.03144, Fig. 3. Written anew.

Letters: B images, C channels, L text tokens, D text channels, H W pixels.
"""

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.bert import Bert
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.dyhead import Head, Raw
from cliplab.models.glip.swin import Swin
from cliplab.models.pyramid import Block, convolution, residual_stage
from cliplab.models.tokenizers import WordPieceTokenizer


class ConvBody(nn.Module):
    """A small residual network: pixels (B, 3, H, W) -> four maps, the last three for the pyramid.

    Each has half the cells per side of the one before; the second is of the finest level.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        first, *rest = config.stem_widths
        self.stem = nn.Sequential(convolution(3, first, stride=2), nn.ReLU())
        for inputs, outputs in pairwise((first, *rest)):
            self.stem.append(Block(inputs, outputs, stride=2))
        widths = config.stem_widths[-1], *config.widths
        shapes = zip(widths[:-1], config.widths, config.depths, strict=True)
        self.layers = nn.ModuleList(residual_stage(*shape) for shape in shapes)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, h, w), finest first."""
        x, maps = self.stem(pixels), []
        for stage in self.layers:
            x = stage(x)
            maps.append(x)
        return maps


class FeaturePyramid(nn.Module):
    """Coarse meaning added to fine maps; names of the released weights (`fpn_inner2`, ...)."""

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stages = range(2, 5)  # counted from 1: strides 8, 16 and 32
        for i in self.stages:
            self.add_module(f"fpn_inner{i}", nn.Conv2d(config.widths[i - 1], channels, 1))
            self.add_module(f"fpn_layer{i}", nn.Conv2d(channels, channels, 3, padding=1))
        extra = range(6, 6 + config.extra_levels)
        convolutions = {f"p{i}": nn.Conv2d(channels, channels, 3, 2, 1) for i in extra}
        if convolutions:
            self.top_blocks = nn.ModuleDict(convolutions)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps at strides 4, 8, 16 and 32 -> levels (B, C, h, w) at strides 8, 16, 32, ..."""
        levels: list[Tensor] = []
        above: Tensor | None = None
        for i in reversed(self.stages):
            inner = self.get_submodule(f"fpn_inner{i}")(maps[i - 1])
            if above is not None:
                inner = inner + F.interpolate(above, size=inner.shape[-2:], mode="nearest")
            levels.insert(0, self.get_submodule(f"fpn_layer{i}")(inner))
            above = inner
        for i, layer in enumerate(getattr(self, "top_blocks", {}).values()):
            levels.append(layer(levels[-1] if i == 0 else F.relu(levels[-1])))
        return levels


class Backbone(nn.Module):
    """Body and pyramid: (B, 3, H, W) -> levels (B, C, h, w)."""

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        self.body = Swin(config) if config.body == "swin" else ConvBody(config)
        self.fpn = FeaturePyramid(config)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> levels, finest first."""
        return self.fpn(self.body(pixels))


class TextEncoder(nn.Module):
    """BERT: token ids (B, L) -> one vector per token, (B, L, D).

    Our own, which equals that of transformers to the last digits (tests/parity): GLIP's files hold
    all of its weights, so that nothing but the vocabulary is needed from elsewhere.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        bert = Bert(config.bert)
        del bert.pooler  # GLIP's weights have none
        self.body = nn.ModuleDict({"model": bert})

    def forward(self, token_ids: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L), bool (B, L) -> (B, L, D) to be fused, and the same with zeros at padding."""
        hidden = self.body["model"](token_ids, text_mask)
        return hidden, hidden * text_mask[..., None]


class GLIP(nn.Module):
    """Pictures and a prompt for each -> boxes, and how well each word fits each.

    Parameter names are those of the released weights. A new model is untrained; seed first.
    """

    def __init__(
        self, config: GLIPConfig | None = None, tokenizer: WordPieceTokenizer | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or GLIPConfig()
        self.tokenizer = tokenizer  # for `detect`; training may do without
        self.backbone = Backbone(config)
        self.language_backbone = TextEncoder(config)
        self.rpn = nn.ModuleDict({"head": Head(config)})

    @property
    def head(self) -> Head:
        """Fusion, DyHead and alignment."""
        return cast(Head, self.rpn["head"])

    def forward(self, pixels: Tensor, token_ids: Tensor, text_mask: Tensor) -> Raw:
        """(B, 3, H, W), (B, L), bool (B, L) with True = real -> `Raw`.

        Args:
            pixels: normalised, in the model's order of channels; see `prepare`.
            token_ids: of each picture's prompt, or (1, L) for all, which is encoded once.
            text_mask: of the tokens. How far the prompts are padded changes nothing.
        """
        hidden, embedded = self.language_backbone(token_ids, text_mask)
        if len(hidden) != len(pixels):
            hidden, embedded, text_mask = (
                x.expand(len(pixels), *x.shape[1:]) for x in (hidden, embedded, text_mask)
            )
        return self.head(self.backbone(pixels), hidden, embedded, text_mask)
