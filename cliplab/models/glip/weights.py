"""GLIP's files: the published .pth, and our own small ones.

A published file holds the weights under "model" (and, beside an optimizer, averaged ones under
"model_ema", which its authors say to leave alone: microsoft/GLIP#59). Ours are .safetensors with
configuration and vocabulary in the header.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from cliplab.models.glip.config import FILES, VARIANTS, GLIPConfig
from cliplab.models.glip.model import GLIP
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.models.weights import load_strict, read_header, read_state_dict, save_model
from cliplab.runtime import checkpoint_dir, pick_device, unknown_name

FORMAT = "cliplab.glip"
# name -> its folder of checkpoints
SHIPPED = {"pasture": "glip", "glip": "glip", "twin": "glip-no-fusion"}
_CLASSIFIER = "rpn.head.cls_logits.weight"
# Computed anew, or never used: buffers of old libraries, anchors, BERT's pooler.
_LEFT_OUT = re.compile(
    r"relative_position_index$|^rpn\.anchor_generator\.|\.embeddings\.position_ids$|"
    r"^language_backbone\.body\.model\.pooler\."
)


def load_glip(
    spec: str | Path, *, vocab: str | Path | Sequence[str] | None = None, device: str = "cpu"
) -> GLIP:
    """A GLIP with its weights and its tokenizer, in float32, in eval mode.

    Args:
        spec: "pasture" or "glip", or "twin", the same without fusion; "glip-t:<path>" for a
            published file, by variant: glip-t-a, glip-t-b, glip-t-c, glip-t or glip-l; or the path
            of a file that `save_glip` wrote.
        vocab: vocab.txt of bert-base-uncased for a published file, or its tokens. None: the
            vocab.txt beside the file.
        device: "cpu", "cuda", "mps" or "auto".

    Raises:
        FileNotFoundError: no file, or no vocabulary.
        ValueError: an unknown variant, a damaged file, or weights of another model; missing and
            unexpected names are listed.
    """
    if spec in SHIPPED:
        spec = checkpoint_dir(SHIPPED[spec]) / "model.safetensors"
    path, (name, colon, where) = Path(spec), str(spec).partition(":")
    is_name = len(name) > 1 if colon else path.name == str(spec) and not path.suffix
    if name in VARIANTS and where:
        model = _load_published(name, Path(where), vocab)
    elif is_name and name not in VARIANTS and not path.exists():
        raise ValueError(unknown_name("GLIP", name, [*SHIPPED, *VARIANTS]))
    else:
        model = _load_ours(path)
    return model.to(pick_device(device))


def _load_published(name: str, path: Path, vocab: str | Path | Sequence[str] | None) -> GLIP:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a published checkpoint of GLIP ({', '.join(FILES)}; "
            "see the model zoo of https://github.com/microsoft/GLIP)"
        )
    tensors = {k: v for k, v in read_state_dict(path).items() if not _LEFT_OUT.search(k)}
    config = VARIANTS[name]
    if _CLASSIFIER in tensors:  # of any number of classes, since nobody reads it
        config = replace(config, unused_classes=len(tensors[_CLASSIFIER]))
    model = load_strict(build(config), tensors, f"{name}:{path}")
    model.tokenizer = _tokenizer(path, vocab, config)
    return model


def build(config: GLIPConfig) -> GLIP:
    """A model whose weights take no memory yet."""
    with torch.device("meta"):
        return GLIP(config)


def _tokenizer(
    path: Path, vocab: str | Path | Sequence[str] | None, config: GLIPConfig
) -> WordPieceTokenizer:
    beside = path.parent / "vocab.txt"
    if vocab is None and not beside.is_file():
        raise FileNotFoundError(
            f"{path}: the file has no vocabulary, and there is no {beside}; expected vocab.txt of "
            "bert-base-uncased there (hf download bert-base-uncased vocab.txt --local-dir "
            f"{path.parent}), or its path as `vocab`"
        )
    tokenizer = WordPieceTokenizer(vocab or beside, config.max_tokens)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"vocab: got {tokenizer.vocab_size} tokens; expected {config.vocab_size}, those of "
            "bert-base-uncased, with which the model was trained"
        )
    return tokenizer


# ---- our own format ------------------------------------------------------------------------


def save_glip(model: GLIP, path: str | Path) -> None:
    """Write weights (matrices in fp16), configuration and vocabulary to one .safetensors file.

    Raises:
        ValueError: weights that are not finite in fp16.
    """
    assert model.tokenizer
    vocab = model.tokenizer.vocab
    save_model(model, path, FORMAT, config=asdict(model.config), vocab=vocab)


def _load_ours(path: Path) -> GLIP:
    variants = ", ".join(f"{name}:<path>" for name in VARIANTS)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected one that save_glip wrote, or, for a published file, "
            f"its variant in front: {variants}"
        )
    tensors, header = read_state_dict(path), read_header(path, FORMAT)
    if not header:
        raise ValueError(
            f"{path}: not a GLIP of this package (its header has no configuration); for a "
            f"published file write its variant in front: {variants}"
        )
    config = GLIPConfig(**header["config"])
    model = load_strict(build(config), tensors, str(path))
    model.tokenizer = WordPieceTokenizer(header["vocab"], config.max_tokens)
    return model
