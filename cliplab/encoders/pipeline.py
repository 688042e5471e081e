"""ModelScope's embedding pipeline, on any encoder."""

from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cliplab.encoders.two_towers import Encoder


class EmbeddingPipeline:
    """What ModelScope's multi-modal embedding pipeline offers, on any encoder."""

    def __init__(self, encoder: Encoder, *, truncate: bool = False) -> None:
        self.encoder, self.truncate = encoder, truncate
        self.model = SimpleNamespace(temperature=torch.tensor(1 / encoder.logit_scale))

    def forward(self, input: dict[str, Any]) -> dict[str, Tensor | None]:
        """{'img': image or list, 'text': text or list} -> unit rows under '..._embedding' keys.

        Either key may be missing; its embedding is None then.
        """
        if not isinstance(input, dict) or not input.keys() & {"img", "text"}:
            raise ValueError(f"input: got {input!r}; expected a dict with 'img', 'text' or both")
        images, texts = input.get("img"), input.get("text")
        images = [images] if isinstance(images, Image.Image) else images
        return {
            "img_embedding": None if images is None else self.encoder.encode_image(images),
            "text_embedding": None
            if texts is None
            else self.encoder.encode_text(texts, truncate=self.truncate),
        }

    __call__ = forward
