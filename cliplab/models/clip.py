"""CLIP: an image tower and a text tower that meet in one space; reads and writes OpenAI's weights.

Source: CLIP, arXiv:2103.00020, section 2 and Fig. 3; parameter names and sizes follow the official
code, https://github.com/openai/CLIP (MIT).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cliplab.models.layers import HEAD_WIDTH, Transformer, TwoTowers, check_token_ids
from cliplab.models.weights import (
    StateDict,
    load_strict,
    read_state_dict,
    to_published_precision,
    write_torchscript,
)

# Mean and standard deviation of OpenAI's training images, RGB in [0, 1].
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# Sizes that the official archives carry beside the weights; all three can be read off the weights.
_SIZE_BUFFERS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes of a CLIP; `from_state_dict` reads them off the weights, as official loading does."""

    embed_dim: int  # D, length of both towers' output
    image_resolution: int  # pixels per side; a multiple of the patch size (ViT) or of 32 (ResNet)
    vision_layers: int | tuple[int, int, int, int]  # int: ViT depth; four: ResNet blocks per layer
    vision_width: int  # channels; ViT: a multiple of 64; ResNet: after the stem, even
    vision_patch_size: int | None  # pixels per side; None for a ResNet
    context_length: int  # longest text, in tokens, start and end included
    vocab_size: int
    transformer_width: int  # text tower
    transformer_heads: int  # always transformer_width / 64 in files: the official loader assumes it
    transformer_layers: int

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> "CLIPConfig":
        """Configuration of the model whose weights these are.

        Raises:
            KeyError: not the state dict of an OpenAI CLIP, with a name that is missing.
        """
        blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resbl")}
        width = tensors["ln_final.weight"].shape[0]
        return cls(
            **(_vit_sizes(tensors) if "visual.proj" in tensors else _resnet_sizes(tensors)),
            embed_dim=tensors["text_projection"].shape[1],
            context_length=tensors["positional_embedding"].shape[0],
            vocab_size=tensors["token_embedding.weight"].shape[0],
            transformer_width=width,
            transformer_heads=width // HEAD_WIDTH,
            transformer_layers=len(blocks),
        )


class CLIP(TwoTowers):
    """Two towers into one space of D dimensions; what is said of an image lies near the image.

    A new model is initialised for training from scratch as in the official code; seed first.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        width = config.transformer_width
        self.transformer = Transformer(
            width, config.transformer_layers, config.transformer_heads, causal=True
        )
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of 1 / temperature
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        self.transformer.initialize()

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (B, L), L <= context_length -> features (B, D), not of unit length.

        The feature of a text is that of its end token, the highest id in every row. Attention is
        causal, so nothing after that token can change it: rows may be cut at the longest text of
        the batch with the same result, and cost less.
        """
        check_token_ids(token_ids, self.config.context_length)
        tok = self.token_embedding(token_ids)  # (B, L, C)
        tok = self.transformer(tok + self.positional_embedding[: token_ids.shape[1]])
        rows = torch.arange(len(tok), device=tok.device)  # (B,)
        end_tok = tok[rows, token_ids.argmax(dim=-1)]  # (B, C)
        return self.ln_final(end_tok) @ self.text_projection  # (B, D)


def load_openai(path: str | Path) -> CLIP:
    """CLIP from OpenAI's TorchScript archive or from a plain state dict (.pt, .safetensors).

    Returns:
        The model in float32, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, or weights of something else (names listed).
    """
    tensors = _without_sizes(read_state_dict(path))
    try:
        config = CLIPConfig.from_state_dict(tensors)
    except KeyError as error:
        raise ValueError(f"{path}: not an OpenAI CLIP: missing {error}") from error
    with torch.device("meta"):
        model = CLIP(config)
    return load_strict(model, tensors, str(path))


def save_openai(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write the state dict of a CLIP as the archive that `load_openai` and `clip.load` read.

    Weights are rounded to fp16 where the official models are, and the token embedding too. The
    format has no place for the number of heads: they are 64 channels wide.

    Raises:
        ValueError: weights that fp16 cannot hold.
    """
    tensors = _without_sizes(tensors)
    config = CLIPConfig.from_state_dict(tensors)
    sizes = (config.image_resolution, config.context_length, config.vocab_size)
    buffers = {name: torch.tensor(size) for name, size in zip(_SIZE_BUFFERS, sizes, strict=True)}
    write_torchscript({**to_published_precision(tensors), **buffers}, path)


def _without_sizes(tensors: Mapping[str, Tensor]) -> StateDict:
    return {name: tensor for name, tensor in tensors.items() if name not in _SIZE_BUFFERS}


def _vit_sizes(tensors: Mapping[str, Tensor]) -> dict:
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    blocks = [n for n in tensors if n.startswith("visual.") and n.endswith(".attn.in_proj_weight")]
    return {
        "image_resolution": patch * _grid(tensors["visual.positional_embedding"]),
        "vision_layers": len(blocks),
        "vision_width": width,
        "vision_patch_size": patch,
    }


def _resnet_sizes(tensors: Mapping[str, Tensor]) -> dict:
    blocks = [
        {n.split(".")[2] for n in tensors if n.startswith(f"visual.layer{i}.")} for i in "1234"
    ]
    return {
        "image_resolution": 32 * _grid(tensors["visual.attnpool.positional_embedding"]),
        "vision_layers": tuple(len(names) for names in blocks),
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _grid(positional_embedding: Tensor) -> int:
    """Cells per side of an image tower, from its cells * cells + 1 positions."""
    return math.isqrt(len(positional_embedding) - 1)
