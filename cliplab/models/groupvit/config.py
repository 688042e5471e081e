"""Sizes of a GroupViT."""

from dataclasses import dataclass

from cliplab.models.weights import lists_to_tuples

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    assign_mlp_ratios: tuple[float, float] = (0.5, 4.0)  # in grouping blocks: tokens, channels
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
        lists_to_tuples(self)
