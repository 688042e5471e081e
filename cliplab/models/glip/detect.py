"""The whole way: pictures and a prompt in, boxes with phrases out.

Letters: B pictures, K phrases, L tokens, R boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from cliplab.detection.phrases import Chunk, Prompt, chunks_of, read_prompt
from cliplab.models.glip.inference import Found, Selection, select, suppress
from cliplab.models.glip.model import GLIP
from cliplab.models.glip.pictures import groups, prepare, to_picture

if TYPE_CHECKING:
    from cliplab.detection.boxes import Detections

PRECISIONS = ("float32", "bfloat16")


def detect(
    model: GLIP, images: Iterable[Image.Image], prompt: str | Sequence[str] | Prompt, *,
    selection: Selection | None = None, batch_size: int = 1, precision: str = "float32",
) -> Iterator[Detections]:  # fmt: skip
    """What the prompt speaks of, picture by picture, in the order of the pictures.

    A prompt of more tokens than the model reads at a time is read in parts; what they find is
    merged, the best first, so that a hundred boxes remain in all.

    Args:
        model: with a tokenizer.
        images: are read as they are needed.
        prompt: a class list or a sentence; see `cliplab.detection.phrases.read_prompt`.
        selection: what becomes a detection.
        batch_size: pictures of one size that are computed together.
        precision: "float32", or "bfloat16" for the matrix products.

    Raises:
        ValueError: a prompt without phrases or with words that are unknown to the model, a model
            without tokenizer, a picture without pixels, another precision.
    """
    if precision not in PRECISIONS or batch_size < 1:
        raise ValueError(
            f"detect: got precision {precision!r} and batch_size {batch_size}; expected "
            f"{' or '.join(PRECISIONS)} and at least 1"
        )
    if model.tokenizer is None:
        raise ValueError("model: has no tokenizer; load it with its vocabulary (load_glip)")
    spoken, chosen = read_prompt(prompt), selection or Selection()
    chunks = chunks_of(spoken, model.tokenizer, model.config.max_tokens)
    finder = Finder(model, chunks, chosen, precision)
    return answers(finder, images, spoken, batch_size=batch_size)


def answers(
    finder: Finder, images: Iterable[Image.Image], spoken: Prompt, *, batch_size: int = 1
) -> Iterator[Detections]:
    """What a finder says of picture after picture, at most `batch_size` in memory at a time."""
    from cliplab.detection.boxes import Detections

    source = iter(images)
    while block := list(islice(source, batch_size)):
        prepared = [prepare(image, finder.model.config) for image in block]
        for batch in groups([pixels for pixels, _ in prepared], batch_size):
            shapes = [prepared[i][1] for i in batch]
            found = finder(torch.stack([prepared[i][0] for i in batch]), shapes)
            for i, shape, one in zip(batch, shapes, found, strict=True):
                boxes = to_picture(one.boxes.float().cpu(), shape, block[i].size)
                scores, labels = one.scores.float().cpu(), one.labels.cpu()
                yield Detections(boxes, scores, labels, phrases=spoken.phrases)


class Finder:
    """A model that has read a prompt: pixels (B, 3, H, W) -> what is found in each picture.

    The text encoder runs once, the image's pyramid once for all parts of the prompt.
    """

    @torch.no_grad()
    def __init__(
        self, model: GLIP, chunks: Sequence[Chunk], selection: Selection, precision: str
    ) -> None:
        self.model, self.chunks, self.selection = model.eval(), chunks, selection
        self.device = next(model.parameters()).device
        self.precision = precision
        ids = [chunk.token_ids[None].to(self.device) for chunk in chunks]
        self.masks = [torch.ones_like(x, dtype=torch.bool) for x in ids]
        with self._autocast():
            encode = model.language_backbone
            self.texts = [encode(x, mask) for x, mask in zip(ids, self.masks, strict=True)]

    @torch.no_grad()
    def __call__(self, pixels: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Found]:
        """(B, 3, H, W), own (H, W) of each -> `Found` of each, labels of the whole prompt."""
        count = len(pixels)
        with self._autocast():
            maps = self.model.backbone(pixels.to(self.device))
        parts = []
        for chunk, text, mask in zip(self.chunks, self.texts, self.masks, strict=True):
            given = (x.expand(count, *x.shape[1:]) for x in (*text, mask))
            with self._autocast():
                raw = self.model.head(maps, *given)
            found = select(raw, chunk.positive, shapes, self.model.config, self.selection)
            labels = chunk.labels.to(self.device)
            parts.append([one._replace(labels=labels[one.labels]) for one in found])
        return [self._merged(one) for one in zip(*parts, strict=True)]

    def _merged(self, parts: Sequence[Found]) -> Found:
        if len(parts) == 1:
            return parts[0]
        boxes, scores, labels = (torch.cat(x) for x in zip(*parts, strict=True))
        return suppress(Found(boxes, scores, labels), self.selection)

    def _autocast(self) -> torch.autocast:
        half = self.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)
