"""`pasture` and `pasture-zh` - the shipped models, and any others, through our readable code."""

from pathlib import Path

import torch

from cliplab.encoders.from_modelscope import CHINESE_CONTEXT, WEIGHTS
from cliplab.encoders.official import provenance
from cliplab.encoders.two_towers import TwoTowers, modelscope_preprocess, openai_preprocess
from cliplab.models.tokenizers import BytePairTokenizer, WordPieceTokenizer
from cliplab.runtime import checkpoint_dir, verify_checkpoint


def load_pasture(_where: str, device: torch.device, _offline: bool, precision: str) -> TwoTowers:
    """The English model of the pasture."""
    path = checkpoint_dir("clip-openai") / "model.pt"
    return read_openai(path, name="pasture", device=device, precision=precision)


def load_pasture_zh(_where: str, device: torch.device, _offline: bool, precision: str) -> TwoTowers:
    """The Chinese model of the pasture."""
    folder = checkpoint_dir("clip-chinese")
    return read_modelscope(folder, name="pasture-zh", device=device, precision=precision)


def read_openai(
    path: Path, *, name: str, device: torch.device, precision: str = "float32"
) -> TwoTowers:
    """Encoder of our readable CLIP on weights in OpenAI's format."""
    from cliplab.models.clip import load_openai

    verify_checkpoint(path.parent, [path.name])
    model = load_openai(path)
    return TwoTowers(
        name,
        model,
        tokenizer=BytePairTokenizer(model.config.context_length),
        preprocess=openai_preprocess(model.config.image_resolution),
        languages=("en",),
        device=device,
        precision=precision,
        provenance=provenance(name, "", [path]),
    )


def read_modelscope(
    folder: Path, *, name: str, device: torch.device, precision: str = "float32"
) -> TwoTowers:
    """Encoder of our readable Chinese-CLIP on a folder in ModelScope's format."""
    from cliplab.models.chinese_clip import load_modelscope

    verify_checkpoint(folder)
    model = load_modelscope(folder)
    context = min(CHINESE_CONTEXT, model.config.text_max_position_embeddings)
    return TwoTowers(
        name,
        model,
        tokenizer=WordPieceTokenizer(folder / "vocab.txt", context),
        preprocess=modelscope_preprocess(model.config.image_resolution),
        languages=("zh",),
        device=device,
        precision=precision,
        provenance=provenance(name, "", [folder / WEIGHTS]),
    )
