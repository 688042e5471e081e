"""Sizes of a GroupViT, and how to read them off weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cliplab.models.layers import HEAD_WIDTH
from cliplab.models.weights import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
_TUPLES = ("widths", "depths", "heads", "group_tokens", "output_groups", "stem_blocks",
           "assign_mlp_ratios", "image_mean", "image_std")  # fmt: skip
_MARKS = ("img_encoder.pos_embed", "img_encoder.patch_embed.proj.weight", "img_encoder.norm.weight",
          "text_encoder.token_embedding.weight", "text_encoder.positional_embedding",
          "img_projector.linear_out.weight", "logit_scale")  # fmt: skip


@dataclass(frozen=True)
class GroupViTConfig:
    """Sizes of a GroupViT; the defaults are the official model's.

    `widths`, `depths` and `heads` have one entry more than `group_tokens` and `output_groups`:
    every stage but the last ends in a grouping block. With no stages, `group_tokens=()`, it is a
    plain vision transformer that pools its patches: the control for "does grouping help?".
    """

    image_resolution: int = 224  # pixels per side that the positions are made for
    patch_size: int = 16  # pixels per side; the stride of a convolutional stem: 4, 8, 16 or 32
    widths: tuple[int, ...] = (384, 384, 384)  # C of each stage
    depths: tuple[int, ...] = (6, 3, 3)  # transformer blocks of each stage
    heads: tuple[int, ...] = (6, 6, 6)
    group_tokens: tuple[int, ...] = (64, 8)  # T, learned, that ask
    output_groups: tuple[int, ...] = (64, 8)  # G that come out
    embed_dim: int = 256  # D
    projector_width: int = 4096  # hidden layer of both projections; 0: one linear layer
    context_length: int = 77  # longest text in tokens, start and end included
    vocab_size: int = 49408
    text_width: int = 256
    text_heads: int = 4
    text_layers: int = 12
    mlp_ratio: float = 4.0  # hidden layer / width, in blocks and cross-attention
    assign_mlp_ratios: tuple[float, float] = (
        0.5,
        4.0,
    )  # in grouping blocks: of tokens, of channels
    text_mlp_ratio: float = 4.0
    hard: bool = True  # one-hot assignment with a straight-through gradient; False: soft
    gumbel: bool = True  # noise on the assignment in training
    own_label_scale: bool = True  # a temperature of its own for the multi-label loss
    drop_path: float = 0.0  # of the last block, rising from 0; the official training has 0.1
    stem: str = "patch"  # or "conv"
    stem_width: int = 32  # channels behind the first convolutions of a convolutional stem
    stem_blocks: tuple[int, ...] = (1, 1)  # of its layers at strides 4, 8, 16, 32
    test_resolution: int | None = None  # px of the shorter side in segmenting; None: twice as many
    image_mean: tuple[float, ...] = IMAGENET_MEAN  # subtracted from RGB in [0, 1]
    image_std: tuple[float, ...] = IMAGENET_STD

    @property
    def stages(self) -> int:
        """How many times patches are grouped: 0, 1 or 2."""
        return len(self.group_tokens)

    def __post_init__(self) -> None:
        """Accept lists, as JSON gives them; refuse what cannot be built."""
        for name in _TUPLES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("widths", "depths", "heads", "output_groups"):
            expected = self.stages + (name != "output_groups")
            if len(getattr(self, name)) != expected:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}; expected {expected} numbers for "
                    f"{self.stages} grouping stages (group_tokens={self.group_tokens})"
                )
        widths = [*zip(self.widths, self.heads, strict=True), (self.text_width, self.text_heads)]
        if odd := [f"{w} / {h}" for w, h in widths if h < 1 or w % h]:
            raise ValueError(f"heads: got {', '.join(odd)}; expected divisors of the widths")
        if self.patch_size < 1 or self.image_resolution % self.patch_size:
            raise ValueError(
                f"image_resolution: got {self.image_resolution}; expected a multiple of patch_size "
                f"({self.patch_size})"
            )

    @classmethod
    def from_state_dict(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        heads: tuple[int, ...] | None = None,
        text_heads: int | None = None,
    ) -> "GroupViTConfig":
        """Configuration of the model with these weights, under the official names.

        Weights do not tell the heads of the image tower's stages and of the text tower; the default
        is width / 64.

        Raises:
            ValueError: not a GroupViT (the missing names are listed).
        """
        require(tensors, _MARKS, "an official GroupViT")
        tokens = _per_stage(tensors, "group_token", 1)
        stages = range(len(tokens) + 1)
        widths = (*_per_stage(tensors, "group_token", 2), len(tensors["img_encoder.norm.weight"]))
        patch = tensors["img_encoder.patch_embed.proj.weight"].shape[-1]
        text = tensors["text_encoder.token_embedding.weight"]
        first, width = "img_encoder.layers.0.", widths[0]
        return cls(
            image_resolution=patch * _side(tensors["img_encoder.pos_embed"]),
            patch_size=patch,
            widths=widths,
            depths=tuple(_depth(tensors, f"img_encoder.layers.{s}.blocks.") for s in stages),
            heads=heads or tuple(max(1, width // HEAD_WIDTH) for width in widths),
            group_tokens=tokens,
            output_groups=_per_stage(tensors, "downsample.mlp_inter.fc2.bias", 0),
            embed_dim=tensors["img_projector.linear_out.weight"].shape[0],
            projector_width=tensors["img_projector.linear_out.weight"].shape[1],
            context_length=tensors["text_encoder.positional_embedding"].shape[0],
            vocab_size=text.shape[0],
            text_width=text.shape[1],
            text_heads=text_heads or max(1, text.shape[1] // HEAD_WIDTH),
            text_layers=_depth(tensors, "text_encoder.transformer.resblocks."),
            mlp_ratio=_ratio(tensors, first, ".mlp.fc1.bias", width, 4),
            assign_mlp_ratios=(
                _ratio(tensors, first, ".mlp_inter.fc1.bias", width, 0.5),
                _ratio(tensors, first, ".mlp_channels.fc1.bias", width, 4),
            ),
            text_mlp_ratio=_ratio(tensors, "text_encoder.", ".c_fc.bias", text.shape[1], 4),
            own_label_scale="multi_label_logit_scale" in tensors,
        )


def _per_stage(tensors: Mapping[str, Tensor], name: str, axis: int) -> tuple[int, ...]:
    """The length along `axis` of one tensor in every stage that has it."""
    sizes: list[int] = []
    while (key := f"img_encoder.layers.{len(sizes)}.{name}") in tensors:
        sizes.append(tensors[key].shape[axis])
    return tuple(sizes)


def _depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    rest = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({name.partition(".")[0] for name in rest})


def _ratio(tensors: Mapping[str, Tensor], prefix: str, end: str, width: int, usual: float) -> float:
    """Hidden layer / width of the first MLP so named; the usual one if there is none."""
    names = (name for name in tensors if name.startswith(prefix) and name.endswith(end))
    return next((len(tensors[name]) / width for name in names), usual)


def _side(pos_embed: Tensor) -> int:
    """Patches per side, from the (1, P, C) positions of a square picture."""
    patches = pos_embed.shape[1]
    if math.isqrt(patches) ** 2 != patches:
        raise ValueError(f"img_encoder.pos_embed: got {patches} positions; expected a square")
    return math.isqrt(patches)
