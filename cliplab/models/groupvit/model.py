"""GroupViT: an image tower that ends in a few groups of patches, a text tower, two projections.

Letters in shape comments: B images, P patches, G groups, N pairs, K texts, L tokens, C width,
D embedding.

Source: GroupViT, arXiv:2202.11094, section 3. Parameter names and sizes are the official ones, so
that the released weights load; the code is written from the paper.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.groupvit.config import GroupViTConfig
from cliplab.models.groupvit.encoder import GroupingEncoder, Groups
from cliplab.models.layers import Transformer, check_token_ids, pair_logits, unit_rows
from cliplab.models.losses import clip_loss, multi_label_loss

MAX_SCALE = 100.0  # the largest 1 / temperature, as in CLIP


class Losses(NamedTuple):
    """The two losses of a batch, scalars in nats."""

    caption: Tensor  # InfoNCE of images and captions
    multi_label: Tensor  # InfoNCE of images and prompted nouns; 0 if there are none


class TextTransformer(nn.Module):
    """CLIP's text tower without its projection: ids (B, L) -> (B, C)."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        width, self.context_length = config.text_width, config.context_length
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(
            width, config.text_layers, config.text_heads, causal=True, ratio=config.text_mlp_ratio
        )
        self.ln_final = nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        self.transformer.initialize()

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, L) -> (B, C), the feature of the end token: the highest id of its row.

        Attention is causal: what stands behind the longest text of a batch is not computed.
        """
        check_token_ids(token_ids, self.context_length)
        ends = token_ids.argmax(dim=-1)  # (B,)
        token_ids = token_ids[:, : int(ends.max()) + 1]
        tok = self.token_embedding(token_ids)  # (B, L, C)
        tok = self.transformer(tok + self.positional_embedding[: token_ids.shape[1]])
        return self.ln_final(tok[torch.arange(len(tok), device=tok.device), ends])


class Pointwise(nn.Conv1d):
    """A linear layer whose weight has the shape of the official convolution of kernel 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C) -> (N, C')."""
        return F.linear(feature, self.weight[..., 0], self.bias)


class Projector(nn.Module):
    """A hidden layer with batch norm between features and embedding, (..., C) -> (..., D)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear_hidden: nn.Module = (
            nn.Sequential(Pointwise(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
            if hidden
            else nn.Identity()
        )
        self.linear_out = Pointwise(hidden or inputs, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C) or (B, G, C) -> (B, D) or (B, G, D)."""
        rows = feature.reshape(-1, feature.shape[-1])  # (B or B*G, C)
        return self.linear_out(self.linear_hidden(rows)).unflatten(0, feature.shape[:-1])


class GroupViT(nn.Module):
    """Images and texts into one space of D dimensions, by way of groups that become segments.

    A new model is untrained; seed first. In training mode assignments are noisy (`config.gumbel`)
    and the projections use the statistics of the batch.
    """

    multi_label_logit_scale: nn.Parameter | None
    vocab: tuple[str, ...]  # word pieces, "[SEP]" last; () for OpenAI's byte pairs

    def __init__(self, config: GroupViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GroupViTConfig()
        self.vocab = ()
        self.img_encoder = GroupingEncoder(config)
        self.text_encoder = TextTransformer(config)
        hidden, dim = config.projector_width, config.embed_dim
        self.img_projector = Projector(config.widths[-1], hidden, dim)
        self.text_projector = Projector(config.text_width, hidden, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of 1 / temperature
        self.multi_label_logit_scale = (
            nn.Parameter(torch.tensor(math.log(1 / 0.07))) if config.own_label_scale else None
        )
        for linear in (m for m in self.img_encoder.modules() if isinstance(m, nn.Linear)):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def scale(self, *, labels: bool = False) -> Tensor:
        """1 / temperature, at most 100; `labels`: of the multi-label loss."""
        own = self.multi_label_logit_scale
        log_scale = own if labels and own is not None else self.logit_scale
        return log_scale.exp().clamp(max=MAX_SCALE)

    def group(self, pixels: Tensor) -> Groups:
        """Normalised pixels (B, 3, H, W), sides multiples of the patch -> groups, owners."""
        self._check(pixels)
        return self.img_encoder(pixels)

    def encode_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Groups -> embeddings of the images (B, D) and of their groups (B, G, D), any length.

        An image's feature is the mean of its groups' features, before the projection.
        """
        return self.img_projector(groups.tok.mean(dim=1)), self.img_projector(groups.tok)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> (B, D), not of unit length."""
        return self.img_projector(self.group(pixels).tok.mean(dim=1))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (B, L), L <= context_length -> (B, D), not of unit length."""
        return self.text_projector(self.text_encoder(token_ids))

    def forward(self, pixels: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W), (K, L) -> scaled cosines per image (N, K) and per text (K, N)."""
        image, text = self.encode_image(pixels), self.encode_text(token_ids)
        logits = pair_logits(unit_rows(image), unit_rows(text), self.scale())
        return logits, logits.T

    def losses(self, pixels: Tensor, token_ids: Tensor) -> Losses:
        """Both losses of a batch.

        Args:
            pixels: (N, 3, H, W).
            token_ids: (N, 1 + M, L), the caption of each image and M prompted nouns of it; or
                (N, L), captions only.
        """
        texts = token_ids if token_ids.ndim == 3 else token_ids[:, None]  # (N, 1 + M, L)
        image_emb = unit_rows(self.encode_image(pixels))  # (N, D)
        text_emb = unit_rows(self.encode_text(texts.flatten(0, 1)))
        text_emb = text_emb.unflatten(0, texts.shape[:2])  # (N, 1 + M, D)
        caption = clip_loss(image_emb, text_emb[:, 0], self.scale())
        if texts.shape[1] == 1:
            return Losses(caption, caption.new_zeros(()))
        scale = self.scale(labels=True)
        return Losses(caption, multi_label_loss(image_emb, text_emb[:, 1:], scale))

    def _check(self, pixels: Tensor) -> None:
        patch = self.config.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not all(
            side >= patch and side % patch == 0 for side in pixels.shape[2:]
        ):  # fmt: skip
            raise ValueError(
                f"pixels: got shape {tuple(pixels.shape)}; expected (B, 3, H, W) with sides that "
                f"are multiples of {patch}, as cliplab.segmentation cuts them"
            )
