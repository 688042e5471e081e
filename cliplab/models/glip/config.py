"""What a GLIP is made of: one frozen dataclass for the pasture's and for every published one.

Numbers of the published models: configs/pretrain/*.yaml and config/defaults.py of
https://github.com/microsoft/GLIP (MIT), and bert-base-uncased for the text.
"""

from dataclasses import dataclass
from typing import Any

from cliplab.models.bert import BertConfig
from cliplab.models.weights import lists_to_tuples


@dataclass(frozen=True)
class GLIPConfig:
    """Sizes and choices of a GLIP; the defaults are the pasture's.

    The last group holds the points where the released code departs from the paper or from common
    sense. Published weights need the released behaviour, which is therefore the default.
    """

    # the picture
    body: str = "conv"  # "conv": a small residual network; "swin"
    finest: int = 8  # stride of the finest level, pixels per cell; "swin" has 8
    widths: tuple[int, ...] = (32, 64, 128, 160)  # channels at strides 4, 8, 16, 32, if that is 8
    depths: tuple[int, ...] = (1, 2, 2, 1)  # blocks at these strides
    stem_widths: tuple[int, ...] = (32,)  # channels at strides before these, from 2 on; for "conv"
    swin_heads: tuple[int, ...] = ()  # attention heads at these strides; for "swin"
    window: int = 7  # patches per side of a window; for "swin"
    drop_path: float = 0.0  # probability of skipping the deepest Swin block in training
    extra_levels: int = 0  # levels of the pyramid beyond stride 32
    channels: int = 64  # C of every level
    anchor_sizes: tuple[int, ...] = (32, 64, 128)  # pixels, of the one anchor per cell of a level
    short_side: int = 128  # pixels that a picture's shorter side is resized to,
    long_side: int = 256  # unless the longer one would exceed this
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)  # of the channels, in the model's order
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    bgr: bool = False  # the model's channels are blue, green, red

    # the text: BERT
    vocab_size: int = 512  # the most word pieces; a shorter vocabulary leaves rows unused
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    text_hidden: int = 256  # inside a layer's MLP
    text_positions: int = 256  # longest prompt in tokens, with [CLS] and [SEP]
    max_tokens: int = 256  # per prompt; longer ones are split

    # the head
    blocks: int = 2  # fusion + BERT layer + DyConv
    fusion: bool = True  # without it (GLIP-T A) raw BERT tokens are scored
    fusion_width: int = 128  # of queries, keys and values of all heads together
    fusion_heads: int = 4
    norm_groups: int = 16  # of the group norm after each convolution
    log_scale: float = -2.0  # of a new model: scores are divided by exp(log_scale). With 0 a small
    # model takes many times as long to tell one word from another as to find the boxes
    dropout: float = 0.0  # of fusion and BERT, probability
    unused_classes: int = 0  # outputs of a classifier that published weights carry and nobody reads

    # what the released code does
    normed_residual: bool = True  # fusion adds to its LayerNormed input; False: to the input
    clamp: bool = True  # attention logits and scores to +-50,000, meant for fp16
    batch_max: bool = False  # subtract the maximum of the whole batch before the softmax
    flat_offsets: bool = True  # read offsets of a finer level from the start of its flat buffer;
    # False: resize them to the level they are used on

    def __post_init__(self) -> None:
        lists_to_tuples(self)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        return tuple(self.finest * 2**level for level in range(3 + self.extra_levels))

    def cells(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level, for a picture of this many pixels."""
        return tuple((-(-height // stride), -(-width // stride)) for stride in self.strides)

    @property
    def bert(self) -> BertConfig:
        """The text encoder; the layers inside the head have its sizes too."""
        return BertConfig(
            self.vocab_size, self.text_width, self.text_layers, self.text_heads, self.text_hidden,
            self.text_positions, hidden_dropout=self.dropout, attention_dropout=self.dropout,
        )  # fmt: skip


def _published(**changes: Any) -> GLIPConfig:
    """The settings that all released models share."""
    shared: dict[str, Any] = {
        "body": "swin", "stem_widths": (), "extra_levels": 2, "channels": 256,
        "anchor_sizes": (64, 128, 256, 512, 1024), "short_side": 800, "long_side": 1333,
        "mean": (103.53 / 255, 116.28 / 255, 123.675 / 255),
        "std": (57.375 / 255, 57.12 / 255, 58.395 / 255), "bgr": True,
        "vocab_size": 30522, "text_width": 768, "text_layers": 12, "text_heads": 12,
        "text_hidden": 3072, "text_positions": 512,
        "fusion_width": 2048, "fusion_heads": 8, "log_scale": 0.0, "dropout": 0.1,
        "unused_classes": 80,
    }  # fmt: skip
    return GLIPConfig(**(shared | changes))


_TINY: dict[str, Any] = {
    "widths": (96, 192, 384, 768), "depths": (2, 2, 6, 2), "swin_heads": (3, 6, 12, 24),
    "drop_path": 0.2, "blocks": 6,
}  # fmt: skip
GLIP_T = _published(**_TINY)
GLIP_T_A = _published(**_TINY, fusion=False)
GLIP_L = _published(
    widths=(192, 384, 768, 1536), depths=(2, 2, 18, 2), swin_heads=(6, 12, 24, 48), window=12,
    drop_path=0.4, blocks=8,
)  # fmt: skip


# Published models, and the files that their authors gave them: B and C differ from the released
# GLIP-T in what they learned from only, which their files name.
VARIANTS = {
    "glip-t-a": GLIP_T_A, "glip-t-b": GLIP_T, "glip-t-c": GLIP_T, "glip-t": GLIP_T, "glip-l": GLIP_L
}  # fmt: skip
FILES = (
    "glip_a_tiny_o365.pth", "glip_tiny_model_o365.pth", "glip_tiny_model_o365_goldg.pth",
    "glip_tiny_model_o365_goldg_cc_sbu.pth", "glip_large_model.pth",
)  # fmt: skip
