"""Deep fusion: image cells and words look at one another through one table of similarities.

Source: GLIP, arXiv:2112.03857, section 3.2, equations 4 to 6. Where the released code differs from
the paper, the code is followed (see `GLIPConfig`).

Letters: B images, P cells of all levels, L text tokens, C channels of the image, D of the text,
H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.glip.config import GLIPConfig

LIMIT = 50_000.0  # of attention logits and alignment scores; fp16 ends at 65,504
MASKED = -9e15  # logit of a padded token


class CrossAttention(nn.Module):
    """Multi-head attention in both directions: (B, P, C), (B, L, D) -> what each says to the other.

    `v` is the image and `l` the text, as in the released weights: `v_proj` and `l_proj` give
    queries and keys, `values_*` the values.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        image, text, width = config.channels, config.text_width, config.fusion_width
        self.heads, self.dropout = config.fusion_heads, config.dropout
        self.clamp, self.batch_max = config.clamp, config.batch_max
        self.v_proj, self.values_v_proj = nn.Linear(image, width), nn.Linear(image, width)
        self.l_proj, self.values_l_proj = nn.Linear(text, width), nn.Linear(text, width)
        self.out_v_proj, self.out_l_proj = nn.Linear(width, image), nn.Linear(width, text)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def weights(self, image: Tensor, text: Tensor, text_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Who looks at what: (B, H, P, L) rows over words, and (B, H, L, P) rows over cells.

        Args:
            image: (B, P, C).
            text: (B, L, D).
            text_mask: bool (B, L), True = real; None: all are. Cells do not look at padding, but
                padding looks at cells, as in the released code; nobody reads what it finds.
        """
        query, key = self._split(self.v_proj(image)), self._split(self.l_proj(text))
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, H, P, L)
        if self.batch_max:  # ties a picture to the others in its batch
            logits = logits - logits.max()
        logits = self._clamped(logits)
        turned = logits.transpose(2, 3)  # (B, H, L, P)
        to_cells = self._clamped(turned - turned.amax(-1, keepdim=True)).softmax(-1)
        if text_mask is not None:
            logits = logits.masked_fill(~text_mask[:, None, None], MASKED)
        return logits.softmax(-1), to_cells

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor | None) -> tuple[Tensor, ...]:
        """(B, P, C), (B, L, D), bool (B, L) -> changes of both, (B, P, C) and (B, L, D)."""
        to_words, to_cells = (
            F.dropout(weights, self.dropout, self.training)
            for weights in self.weights(image, text, text_mask)
        )
        image_value = self._split(self.values_v_proj(image))  # (B, H, P, width / H)
        text_value = self._split(self.values_l_proj(text))
        heard = (to_words.to(text_value.dtype) @ text_value).transpose(1, 2).flatten(2)
        seen = (to_cells.to(image_value.dtype) @ image_value).transpose(1, 2).flatten(2)
        return self.out_v_proj(heard), self.out_l_proj(seen)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, ., width / H)

    def _clamped(self, logits: Tensor) -> Tensor:
        return logits.clamp(-LIMIT, LIMIT) if self.clamp else logits


class FusionBlock(nn.Module):
    """Norm, attention in both directions, and a sum with a learned weight per channel.

    The released code overwrites its input with the normed one, so that the sum keeps the normed
    features and not the input: `normed_residual`. The paper's sum is the usual one.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        self.normed_residual = config.normed_residual
        self.layer_norm_v = nn.LayerNorm(config.channels)
        self.layer_norm_l = nn.LayerNorm(config.text_width)
        self.attn = CrossAttention(config)
        self.gamma_v = nn.Parameter(torch.full((config.channels,), 1 / config.blocks))
        self.gamma_l = nn.Parameter(torch.full((config.text_width,), 1 / config.blocks))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor | None) -> tuple[Tensor, ...]:
        """(B, P, C), (B, L, D), bool (B, L) -> (B, P, C), (B, L, D)."""
        image_n, text_n = self.layer_norm_v(image), self.layer_norm_l(text)
        image_delta, text_delta = self.attn(image_n, text_n, text_mask)
        if self.normed_residual:
            image, text = image_n, text_n
        return image + self.gamma_v * image_delta, text + self.gamma_l * text_delta


def cells_of(maps: list[Tensor]) -> Tensor:
    """Levels (B, C, h, w) -> the cells of all, (B, P, C), row by row."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)


class Fusion(nn.Module):
    """The block on a feature pyramid: the cells of all levels are one sequence.

    Any number of levels; the released code takes five.
    """

    def __init__(self, config: GLIPConfig) -> None:
        super().__init__()
        self.b_attn = FusionBlock(config)

    def forward(
        self, maps: list[Tensor], text: Tensor, text_mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Levels (B, C, h, w), (B, L, D), bool (B, L) -> the same, fused."""
        sizes = [x.shape[-2:] for x in maps]
        cells, text = self.b_attn(cells_of(maps), text, text_mask)  # (B, P, C), (B, L, D)
        parts = cells.transpose(1, 2).split([h * w for h, w in sizes], dim=2)  # (B, C, h * w)
        return [x.unflatten(2, s) for x, s in zip(parts, sizes, strict=True)], text
