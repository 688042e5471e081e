"""Two towers: the interface of every encoder, its one implementation, and the preprocessing.

Any model with `encode_image`, `encode_text` and `logit_scale` becomes an `Encoder` here; where
such models come from is the business of `cliplab.encoders`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.tokenizers import Tokenizer

TEXT_BATCH = 256  # texts are short, so one size suits every machine


class Encoder(Protocol):
    """Images and texts to rows of unit length in one space of `dim` dimensions."""

    name: str
    dim: int
    languages: tuple[str, ...]  # that its captions were in
    logit_scale: float  # 1 / temperature
    tokenizer: Tokenizer
    preprocess: Callable[[Image.Image], Tensor]  # PIL image -> normalised pixels (3, R, R)

    def encode_image(
        self, images: Iterable[Image.Image], *, batch_size: int = 64, progress: bool = False
    ) -> Tensor:
        """N images -> (N, dim) unit rows, float32, on the CPU."""

    def encode_text(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> (K, dim) unit rows, float32, on the CPU."""


class TwoTowers:
    """An `Encoder` made of a model with `encode_image`, `encode_text`, `logit_scale` (a log)."""

    def __init__(
        self,
        name: str,
        model: Any,  # CLIP, ChineseCLIP or an official one
        *,
        tokenizer: Tokenizer,
        preprocess: Callable[[Image.Image], Tensor],
        languages: tuple[str, ...],
        device: torch.device,
    ) -> None:
        self.name, self.languages, self.device = name, languages, device
        self.tokenizer, self.preprocess = tokenizer, preprocess
        self.model = model.float().eval().to(device)  # float32: official CUDA weights come as fp16
        self.dim = int(model.text_projection.shape[1])
        self.logit_scale = float(model.logit_scale.detach().exp())

    def __repr__(self) -> str:
        return f"<encoder {self.name}: {self.dim} dimensions, {'/'.join(self.languages)}>"

    def encode_image(
        self, images: Iterable[Image.Image], *, batch_size: int = 64, progress: bool = False
    ) -> Tensor:
        """N images -> (N, dim) unit rows, float32, on the CPU.

        Args:
            images: PIL images; a generator is read batch by batch, so they need not fit in memory.
            batch_size: images encoded at a time; smaller takes less memory, same result.
            progress: show a bar on stderr.

        Raises:
            ValueError: something that is not a PIL image, or weights that give NaN.
        """
        if isinstance(images, Image.Image | str | Path):
            raise ValueError(f"images: got one {type(images).__name__}; expected several: use [x]")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}; expected 1 or more")
        from tqdm import tqdm

        total = len(images) if isinstance(images, Sized) else None
        bar = tqdm(images, total=total, unit="image", disable=not progress)
        pixels = (self.preprocess(_checked(image, i)) for i, image in enumerate(bar))
        return self._encode(self.model.encode_image, _stacks(pixels, batch_size))

    def encode_text(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> (K, dim) unit rows, float32, on the CPU.

        Args:
            texts: strings; one alone counts as a list of one.
            truncate: cut texts that are longer than the context, instead of refusing them.

        Raises:
            ValueError: a text that is too long, something that is no text, or weights giving NaN.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        starts = range(0, len(texts), TEXT_BATCH)
        ids = (self.tokenizer(texts[i : i + TEXT_BATCH], truncate=truncate) for i in starts)
        return self._encode(self.model.encode_text, ids)

    def _encode(self, encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
        with torch.inference_mode():
            parts = [encode(batch.to(self.device)).float().cpu() for batch in batches]
        # Outside inference mode, so that the result may serve in training, as in a linear probe.
        emb = F.normalize(torch.cat([torch.zeros(0, self.dim), *parts]), dim=-1)  # (N, D)
        if not emb.isfinite().all():
            raise ValueError(f"{self.name}: embeddings are not finite; its weights are damaged")
        return emb


def _checked(image: Any, index: int) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"images[{index}]: got a {type(image).__name__}; expected a PIL image: open files with "
            "cliplab.photos.open_image(path)"
        )
    return image


def _stacks(tensors: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while batch := list(islice(tensors, size)):
        yield torch.stack(batch)


# ---- preprocessing -------------------------------------------------------------------------


def openai_preprocess(resolution: int) -> Callable[[Image.Image], Tensor]:
    """OpenAI's: shorter side to R = `resolution` (bicubic), centre crop, normalise -> (3, R, R)."""
    from torchvision import transforms as T

    bicubic = T.InterpolationMode.BICUBIC
    return _normalised(T.Resize(resolution, interpolation=bicubic), T.CenterCrop(resolution))


def modelscope_preprocess(resolution: int) -> Callable[[Image.Image], Tensor]:
    """Chinese-CLIP's: squash to a square (bicubic), no crop, normalise -> (3, R, R)."""
    from torchvision import transforms as T

    bicubic = T.InterpolationMode.BICUBIC
    return _normalised(T.Resize((resolution, resolution), interpolation=bicubic))


def _normalised(*resize: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], Tensor]:
    from torchvision import transforms as T

    from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD

    # RGB after resizing, as both official ones do: for RGB input the order makes no difference.
    return T.Compose([*resize, _to_rgb, T.ToTensor(), T.Normalize(IMAGE_MEAN, IMAGE_STD)])


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
