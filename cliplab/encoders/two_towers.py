"""Two towers: what every encoder is, and the preprocessing.

Any model with `encode_image`, `encode_text` and `logit_scale` becomes an `Encoder` here; where
such models come from is the business of `cliplab.encoders.loading`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from cliplab.models.layers import SelfAttention
from cliplab.models.tokenizers import Tokenizer
from cliplab.runtime import ArgumentError, unknown_name

TEXT_BATCH = 256  # texts are short, so one size suits every machine
PRECISIONS = ("float32", "bfloat16")
# What a processor computes at a time, whatever the batch: the activations of 16 pictures of 224 px
# stay in its cache and in memory that is already mapped. Measured on ViT-B/32, images a second and
# core: 8.9 against 8.3 for 32 at a time in float32, 17.4 against 15.7 in bfloat16.
CACHED_VALUES = 16 * 3 * 224 * 224


class Encoder:
    """An encoder: images and texts to rows of unit length in one space of `dim` dimensions.

    Args:
        name: shown to people, and in errors.
        model: (B, 3, R, R) -> (B, D) and ids (B, L) -> (B, D), of any length; with `logit_scale`,
            the logarithm of 1 / temperature. It becomes this encoder's own: moved, cast, in eval
            mode.
        tokenizer: texts -> ids (B, L).
        preprocess: PIL image -> normalised pixels (3, R, R).
        languages: that the captions of the training were in.
        device: where the model computes.
        precision: "float32", or "bfloat16" for matrix products in that format (norms, softmax and
            the residual sums stay float32): twice as fast or more where the processor has it.
        provenance: where the weights come from.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # CLIP, ChineseCLIP, an official one or an adapter of one
        *,
        tokenizer: Tokenizer,
        preprocess: Callable[[Image.Image], Tensor],
        languages: tuple[str, ...],
        device: torch.device,
        precision: str = "float32",
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(unknown_name("precision", precision, PRECISIONS))
        self.name, self.languages, self.device = name, languages, device
        self.tokenizer, self.preprocess, self.precision = tokenizer, preprocess, precision
        self.model = model.float().eval()  # float32: official CUDA weights come as fp16
        self.logit_scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias: float | None = None if bias is None else float(bias.detach())
        self.provenance: Mapping[str, str] = dict(provenance or {})
        if precision == "bfloat16":
            _cast_products(self.model)
        self.model.to(device)
        self.dim = self._width()

    @torch.inference_mode()
    def _width(self) -> int:
        projection = getattr(self.model, "text_projection", None)
        if isinstance(projection, Tensor):
            return projection.shape[1]
        with self._mixed():
            return int(self.model.encode_text(self.tokenizer([""]).to(self.device)).shape[-1])

    def __repr__(self) -> str:
        return f"<encoder {self.name}: {self.dim} dimensions, {'/'.join(self.languages)}>"

    def encode_image(
        self, images: Iterable[Image.Image], *, batch_size: int = 64, progress: bool = False
    ) -> Tensor:
        """N images -> (N, dim) unit rows, float32, on the CPU.

        A generator is read batch by batch, so that the images need not fit in memory.
        """
        if batch_size < 1:
            raise ArgumentError("batch_size", f"got {batch_size}; expected 1 or more")
        total = len(images) if isinstance(images, Sized) else None
        bar = tqdm(images, total=total, unit="image", disable=not progress)
        pixels = map(self.preprocess, bar)
        stacks = iter(lambda: list(islice(pixels, batch_size)), [])
        return self.encode_pixels(map(torch.stack, stacks))

    def encode_pixels(self, batches: Iterable[Tensor]) -> Tensor:
        """Batches (B, 3, R, R) of `preprocess` -> (N, dim) unit rows, float32, on the CPU."""
        if self.device.type == "cpu":
            batches = (
                part
                for batch in batches
                for part in batch.split(max(1, CACHED_VALUES // max(1, batch[:1].numel())))
            )
        return self._encode(self.model.encode_image, batches)

    def encode_text(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> (K, dim) unit rows, float32, on the CPU; too long ones only if `truncate`."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        starts = range(0, len(texts), TEXT_BATCH)
        ids = (self.tokenizer(texts[i : i + TEXT_BATCH], truncate=truncate) for i in starts)
        return self._encode(self.model.encode_text, ids)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of weights, architecture, preprocessing and precision.

        Two encoders with the same one give the same embedding to the same picture. Preprocessing
        counts by its repr and by what it does to a picture, so that a repr which hides a setting
        does no harm. Computed when first asked for: 1 GB of weights takes about a second.
        """
        digest = hashlib.sha256(f"{self.precision}\n{_plain_repr(self.model)}\n".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
        digest.update(_plain_repr(self.preprocess).encode())
        digest.update(_bytes(self.preprocess(_probe())))
        return digest.hexdigest()

    def _encode(self, encode: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
        with torch.inference_mode(), self._mixed():
            parts = [encode(batch.to(self.device)).float().cpu() for batch in batches]
        # Outside inference mode, so that the result may serve in training, as in a linear probe.
        emb = F.normalize(torch.cat([torch.zeros(0, self.dim), *parts]), dim=-1)  # (N, D)
        if not emb.isfinite().all():
            raise ValueError(f"{self.name}: embeddings are not finite; its weights are damaged")
        return emb

    def _mixed(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16")


def _cast_products(model: nn.Module) -> None:
    """Keep the weights of matrix products in bfloat16: autocast would cast them at every call."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention | SelfAttention):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _plain_repr(thing: Any) -> str:
    """`repr` without the addresses in memory that functions and objects show."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def _probe() -> Image.Image:
    """A picture, wider than tall, that shows how it was resized, cropped and scaled."""
    y, x = torch.meshgrid(torch.arange(61.0), torch.arange(97.0), indexing="ij")
    waves = torch.stack([(x * y / 40).sin(), (x / 3).cos(), (y / 5 + x / 7).sin()], dim=-1)
    return Image.fromarray(((waves + 1) * 127.5).round().byte().numpy())


# ---- preprocessing -------------------------------------------------------------------------


def openai_preprocess(resolution: int) -> Callable[[Image.Image], Tensor]:
    """OpenAI's: shorter side to R = `resolution` (bicubic), centre crop, normalise -> (3, R, R)."""
    return _preprocess(resolution, resolution)


def modelscope_preprocess(resolution: int) -> Callable[[Image.Image], Tensor]:
    """Chinese-CLIP's: squash to a square (bicubic), no crop, normalise -> (3, R, R)."""
    return _preprocess((resolution, resolution), None)


def _preprocess(size: int | tuple[int, int], crop: int | None) -> Callable[[Image.Image], Tensor]:
    from torchvision import transforms as T

    from cliplab.models.clip import IMAGE_MEAN, IMAGE_STD

    resize = T.Resize(size, interpolation=T.InterpolationMode.BICUBIC)
    steps = [resize] if crop is None else [resize, T.CenterCrop(crop)]
    # RGB after resizing, as both official ones do: for RGB input the order makes no difference.
    return T.Compose([*steps, _to_rgb, T.ToTensor(), T.Normalize(IMAGE_MEAN, IMAGE_STD)])


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
