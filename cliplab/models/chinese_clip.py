"""Chinese-CLIP: CLIP's image tower and a BERT that reads Chinese; ModelScope's directories.

Source: Chinese CLIP, arXiv:2211.01335; file format and parameter names are those of
`modelscope.models.multi_modal.clip` (Apache-2.0).
"""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cliplab.models.bert import Bert, BertConfig
from cliplab.models.layers import HEAD_WIDTH, TwoTowers, check_token_ids
from cliplab.models.tokenizers import PAD_ID, check_vocab, read_vocab
from cliplab.models.weights import (
    lists_to_tuples,
    load_strict,
    read_object,
    read_state_dict,
    to_published_precision,
)
from cliplab.runtime import atomic_write

_VISION, _TEXT = "vision_model_config.json", "text_model_config.json"
_WEIGHTS, _VOCAB = "pytorch_model.bin", "vocab.txt"
_CONFIGURATION = {
    "framework": "pytorch",
    "task": "multi-modal-embedding",
    "pipeline": {"type": "multi-modal-embedding"},
    "model": {"type": "clip-multi-modal-embedding"},
}


@dataclass(frozen=True)
class ChineseCLIPConfig:
    """Sizes of a Chinese-CLIP; fields are the keys of ModelScope's two JSON files."""

    embed_dim: int  # D, length of both towers' output
    image_resolution: int  # pixels per side; a multiple of the patch size (ViT) or of 32 (ResNet)
    vision_layers: int | tuple[int, int, int, int]  # int: ViT depth; four: ResNet blocks per layer
    vision_width: int  # channels
    vision_patch_size: int | None  # pixels per side; None for a ResNet
    vocab_size: int
    text_hidden_size: int
    text_num_hidden_layers: int
    text_num_attention_heads: int
    text_intermediate_size: int  # inside a layer's MLP
    text_max_position_embeddings: int  # longest text, in tokens
    text_type_vocab_size: int = 2
    text_hidden_act: str = "gelu"  # exact GELU, the only one in published models
    text_hidden_dropout_prob: float = 0.1
    text_attention_probs_dropout_prob: float = 0.1
    text_initializer_range: float = 0.02  # standard deviation of new weights
    vision_head_width: int = HEAD_WIDTH

    def __post_init__(self) -> None:
        """Refuse activations that are not built."""
        lists_to_tuples(self)
        if self.text_hidden_act != "gelu":
            raise ValueError(f"text_hidden_act: got {self.text_hidden_act!r}; expected 'gelu'")

    @property
    def bert(self) -> BertConfig:
        """Sizes of the text tower."""
        return BertConfig(
            vocab_size=self.vocab_size,
            width=self.text_hidden_size,
            layers=self.text_num_hidden_layers,
            heads=self.text_num_attention_heads,
            hidden_width=self.text_intermediate_size,
            positions=self.text_max_position_embeddings,
            segments=self.text_type_vocab_size,
            hidden_dropout=self.text_hidden_dropout_prob,
            attention_dropout=self.text_attention_probs_dropout_prob,
            init_std=self.text_initializer_range,
        )


class ChineseCLIP(TwoTowers):
    """Image tower and BERT into one space of D dimensions.

    A new model is initialised for training from scratch as in the official code; seed first.
    """

    def __init__(self, config: ChineseCLIPConfig) -> None:
        super().__init__(config, head_width=config.vision_head_width)
        self.bert = Bert(config.bert)
        width = config.text_hidden_size
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of 1 / temperature

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (B, L), 0 = padding -> features (B, D), not of unit length.

        The feature of a text is the last vector of its first token, [CLS], which has looked at
        all the others. Padding is masked out, so rows may be cut at the longest text of the batch.
        """
        check_token_ids(token_ids, self.config.text_max_position_embeddings)
        tok = self.bert(token_ids, token_ids != PAD_ID)  # (B, L, C)
        return tok[:, 0] @ self.text_projection  # (B, D)


def load_modelscope(directory: str | Path) -> ChineseCLIP:
    """Chinese-CLIP from a ModelScope directory: two JSON files, vocab.txt, pytorch_model.bin.

    Returns:
        The model in float32, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: the directory or one of its files is missing.
        ValueError: a damaged file, unknown settings, or weights of another model (names listed).
    """
    directory = Path(directory)
    settings = {**_read_json(directory / _VISION), **_read_json(directory / _TEXT)}
    try:  # a ResNet's file may leave out the patch size
        config = ChineseCLIPConfig(**{"vision_patch_size": None, **settings})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{directory}: {error} in {_VISION} or {_TEXT}") from error
    with torch.device("meta"):
        model = ChineseCLIP(config)
    _check_vocab(read_vocab(directory / _VOCAB), config)
    return load_strict(model, read_state_dict(directory / _WEIGHTS), str(directory / _WEIGHTS))


def save_modelscope(model: ChineseCLIP, directory: str | Path, vocab: Sequence[str]) -> None:
    """Write the directory that ModelScope's CLIPForMultiModalEmbedding(directory) loads.

    Weights are rounded to fp16 where that class rounds them. No file gets its final name before
    all are written: a full disk or Ctrl-C leaves an older model whole.

    Args:
        model: any Chinese-CLIP.
        directory: created when missing; files of the same names are replaced.
        vocab: the tokens in the order of their ids, [PAD] first.

    Raises:
        ValueError: a vocabulary that does not fit the model, or weights that fp16 cannot hold.
    """
    directory = Path(directory)
    _check_vocab(vocab, model.config)
    weights = to_published_precision(model.state_dict())
    text = {k: v for k, v in asdict(model.config).items() if k.startswith(("text_", "vocab_size"))}
    vision = {k: v for k, v in asdict(model.config).items() if k not in text}
    contents = {"configuration.json": _CONFIGURATION, _VISION: vision, _TEXT: text}
    with ExitStack() as stack:  # renames happen when it closes
        for name, settings in contents.items():
            file = stack.enter_context(atomic_write(directory / name, "w"))
            file.write(json.dumps(settings, indent=1) + "\n")
        file = stack.enter_context(atomic_write(directory / _VOCAB, "w"))
        file.writelines(f"{token}\n" for token in vocab)
        file = stack.enter_context(atomic_write(directory / _WEIGHTS))
        torch.save(weights, file)


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a ModelScope directory with {_VISION}, {_TEXT}, "
            f"{_VOCAB} and {_WEIGHTS}; `python -m cliplab train clip` makes the shipped one"
        )
    return read_object(path)


def _check_vocab(vocab: Sequence[str], config: ChineseCLIPConfig) -> None:
    """Raise ValueError unless both tokenizers would give the ids the model was trained on."""
    check_vocab(vocab)
    if len(vocab) != config.vocab_size:
        raise ValueError(
            f"vocab: got {len(vocab)} tokens; expected {config.vocab_size}, as in the model's "
            "configuration: use the vocabulary that the model was trained with"
        )
