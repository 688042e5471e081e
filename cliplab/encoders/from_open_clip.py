"""`open_clip:` - open_clip's models, from a tag, a checkpoint, a folder or the hub."""

from typing import Any

import torch
from torch import Tensor, nn

from cliplab.encoders.official import check_weights, hushed, official, provenance, reading
from cliplab.encoders.open_clip_files import Source, find_source
from cliplab.encoders.tokenizers import HuggingFaceTokenizer, OpenClipBytePairs
from cliplab.encoders.two_towers import TwoTowers
from cliplab.models.tokenizers import Tokenizer
from cliplab.models.weights import is_torchscript

_MANY_LANGUAGES = 200_000  # tokens; vocabularies of XLM-R, mT5 and Gemma are larger


def load_open_clip(where: str, device: torch.device, offline: bool, precision: str) -> TwoTowers:
    """Encoder of "<arch>/<tag>", "<arch>/<checkpoint>", "hf-hub:<repo>[@revision]" or a folder.

    Raises:
        ValueError: an unknown architecture or tag, or QuickGELU where the tag had GELU.
        FileNotFoundError: weights that are neither here nor to be had.
    """
    with official("open_clip"):
        import open_clip
    source = find_source(where, offline=offline)
    check_weights(source.weights)
    if is_torchscript(source.weights):
        raise ValueError(
            f"{source.weights}: a TorchScript archive, as OpenAI published; load it with "
            f"openai:{source.weights}"
        )
    with reading(source.weights, "a checkpoint of that architecture"), hushed("", "open_clip"):
        model, _, preprocess = open_clip.create_model_and_transforms(
            source.name, weights_only=True, pretrained_text=False, **source.options
        )
        tokenizer = read_tokenizer(source)
    towers = OpenClipTowers(model)
    many = tokenizer.vocab_size > _MANY_LANGUAGES
    spec = f"open_clip:{where}"
    return TwoTowers(
        spec,
        towers,
        tokenizer=tokenizer,
        preprocess=preprocess,
        languages=("en", "zh") if many else ("en",),
        device=device,
        precision=precision,
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=None if model.logit_bias is None else float(model.logit_bias.detach()),
        provenance=provenance(spec, source.revision, [source.weights]),
    )


class OpenClipTowers(nn.Module):
    """A model of open_clip, of whichever of its classes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, R, R) -> (B, D)."""
        return self.model.encode_image(pixels)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Ids (B, L) -> (B, D)."""
        return self.model.encode_text(ids)


def read_tokenizer(source: Source) -> Tokenizer:
    """The tokenizer that `open_clip.get_tokenizer` would give, without its look at the hub."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = source.config["text_cfg"]
    length, options = text.get("context_length", 77), dict(text.get("tokenizer_kwargs", {}))
    if source.text_folder is None:
        return OpenClipBytePairs(SimpleTokenizer(context_length=length, **options))
    theirs = HFTokenizer(
        str(source.text_folder),
        context_length=length,
        tokenizer_mode=text.get("tokenizer_mode"),
        local_files_only=True,
        **options,
    )
    return HuggingFaceTokenizer(
        theirs.tokenizer, length, clean=theirs.clean_fn, tokenize=theirs.__call__
    )
