"""GLIP: finding what a sentence speaks of. Detection and grounding are one task.

A class list is a sentence too ("sheep. goat. dog."): each box is compared with each word, and the
words of a phrase vote together.

Source: GLIP, arXiv:2112.03857, and the released code, https://github.com/microsoft/GLIP (MIT), for
what the paper leaves open. Written anew.

Letters: B images, L text tokens, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from cliplab.models.glip.backbone import Backbone, TextEncoder
from cliplab.models.glip.config import GLIPConfig
from cliplab.models.glip.head import Head, Raw

if TYPE_CHECKING:
    from cliplab.models.tokenizers import WordPieceTokenizer


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
