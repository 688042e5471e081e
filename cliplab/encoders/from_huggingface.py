"""`hf:` - CLIP, Chinese-CLIP, SigLIP and SigLIP 2 through transformers."""

import json
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from cliplab.encoders.hub import find_folder
from cliplab.encoders.official import (
    CHINESE_CONTEXT,
    Found,
    HuggingFaceTokenizer,
    check_weights,
    official,
    quiet,
    reading,
)
from cliplab.runtime import unknown_name

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_GEMMA_VOCABULARY = 200_000  # tokens; more than any English one: SigLIP 2 and multilingual SigLIP
KINDS = ("clip", "chinese_clip", "siglip", "siglip2")
PICTURES = ("preprocessor_config.json", "processor_config.json")  # either describes the resizing
TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKEN_FILES = (*TOKENS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
               "added_tokens.json")  # fmt: skip
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
INDEXES = tuple(f"{name}.index.json" for name in WEIGHTS)  # of weights spread over several files


def load_huggingface(where: str, offline: bool) -> Found:
    """The model "<organisation>/<name>[@revision]", or in a folder that save_pretrained wrote.

    Code that a repository brings along is never run. Preprocessing is the repository's own image
    processor. Texts are padded to the context: 77 tokens for CLIP, 52 for Chinese-CLIP, 64 for
    SigLIP, whose texts are also cleaned, see `canonical`.
    """
    folder, revision = find_folder(
        where, "openai/clip-vit-base-patch32", missing=missing_files, choose=wanted_files,
        offline=offline,
    )  # fmt: skip
    kind = read_kind(folder)
    weights = weight_files(folder)
    for path in weights:
        check_weights(path)
    with official("hf"), reading(folder, f"a {kind} model of transformers"), quiet():
        from transformers import AutoImageProcessor

        model, tokenizer = _read_model(folder), _read_tokenizer(folder)
        processor = AutoImageProcessor.from_pretrained(folder, **LOCAL)
    text = model.config.text_config
    is_chinese, is_siglip = kind == "chinese_clip", kind.startswith("siglip")
    many = is_siglip and text.vocab_size > _GEMMA_VOCABULARY
    context = text.max_position_embeddings
    return Found(
        HuggingFaceTowers(model, pad_id=tokenizer.pad_token_id),
        tokenizer=HuggingFaceTokenizer(
            tokenizer,
            min(context, CHINESE_CONTEXT) if is_chinese else context,
            clean=canonical if is_siglip else str,
        ),
        preprocess=(PatchPreprocess if kind == "siglip2" else PixelPreprocess)(processor),
        languages=("en", "zh") if many else ("zh",) if is_chinese else ("en",),
        weights=weights,
        revision=revision,
    )


# ---- the model -----------------------------------------------------------------------------


class HuggingFaceTowers(nn.Module):
    """A two-tower model of transformers under the names that every encoder's model has."""

    def __init__(self, model: Any, *, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id, self.kind = model, pad_id, model.config.model_type
        self.logit_scale = model.logit_scale
        self.logit_bias = getattr(model, "logit_bias", None)  # SigLIP's

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, R, R), or SigLIP 2's packed patches (B, 1, P, C + 3) -> (B, D)."""
        if self.kind != "siglip2":
            return self.model.get_image_features(pixel_values=pixels).pooler_output
        patches, extra = pixels[:, 0, :, :-3], pixels[:, 0, :, -3:]  # (B, P, C), (B, P, 3)
        return self.model.get_image_features(
            pixel_values=patches,
            pixel_attention_mask=extra[..., 0].long(),
            spatial_shapes=extra[:, 0, 1:].long(),
        ).pooler_output

    def encode_text(self, ids: Tensor) -> Tensor:
        """Padded ids (B, L) -> (B, D).

        Only BERT needs to be told where the padding is: CLIP looks back only, from the end token,
        and SigLIP learned with the padding in sight.
        """
        mask = {"attention_mask": (ids != self.pad_id).long()} if self.kind == KINDS[1] else {}
        return self.model.get_text_features(input_ids=ids, **mask).pooler_output


class PixelPreprocess:
    """An image processor of transformers for one image -> (3, R, R)."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image -> what the processor makes of it, RGB."""
        return self._all(image)["pixel_values"][0]

    def _all(self, image: Image.Image) -> Any:
        return self.processor(images=image.convert("RGB"), return_tensors="pt")

    def __repr__(self) -> str:  # all the settings: it becomes part of the fingerprint
        settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return f"{type(self).__name__}({type(self.processor).__name__}, {settings})"


class PatchPreprocess(PixelPreprocess):
    """SigLIP 2 with the aspect ratio kept: one image -> its patches, packed (1, P, C + 3).

    Beside the C pixels of a patch stand 1 for a real patch (0: padding), and the numbers of rows
    and columns of patches, so that images of all shapes make one batch.
    """

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image -> (1, P, C + 3)."""
        made = self._all(image)
        patches = made["pixel_values"][0]  # (P, C)
        mask = made["pixel_attention_mask"][0].to(patches)[:, None]
        shape = made["spatial_shapes"][0].to(patches).expand(len(patches), 2)
        return torch.cat([patches, mask, shape], dim=1)[None]


def canonical(text: str) -> str:
    """SigLIP's text: lower case, ASCII punctuation gone, single spaces.

    Source: big_vision's `_canonicalize_text` in evaluators/proj/image_text/prompt_engineering.py,
    which made the published zero-shot numbers; open_clip does the same for SigLIP and SigLIP 2.
    Deviates: transformers' tokenizer of SigLIP 2 only lowers the case.
    """
    kept = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(kept.lower().split())


def _read_model(folder: Path) -> Any:
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        folder, **LOCAL, dtype=torch.float32, output_loading_info=True
    )
    # transformers makes up what a file lacks and only logs it
    lacking = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lacking:
        raise ValueError(f"the weights lack {len(lacking)} tensors, {lacking[0]} for one")
    return model


def _read_tokenizer(folder: Path) -> Any:
    """The repository's tokenizer.

    The class that SigLIP 1 names needs sentencepiece; the tokenizer.json beside it does not, and
    what the class does on top, the cleaning, is done here anyway.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except ImportError:
        if not (folder / "tokenizer.json").is_file():
            raise
        return PreTrainedTokenizerFast.from_pretrained(folder, **LOCAL)


# ---- its files -----------------------------------------------------------------------------


def first_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of several files that a folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def lacking(folder: Path, *groups: Sequence[str]) -> list[str]:
    """Of which groups a folder has no file, each as text."""
    return [" or ".join(names) for names in groups if not first_of(folder, names)]


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a model, alternatives joined by "or"; [] if it is whole."""
    weights = () if first_of(folder, INDEXES) else (WEIGHTS,)
    shards = [(name,) for name in _shards(folder)]
    return lacking(folder, ("config.json",), *weights, *shards, PICTURES, TOKENS)


def wanted_files(names: list[str]) -> list[str]:
    """Which files of a repository to download: safetensors, not the same weights once more."""
    weights: list[str] = []
    for whole in reversed(WEIGHTS):
        shards = re.compile(whole.replace(".", r"(-\S+|)\.") + r"(\.index\.json)?")
        weights = [name for name in names if shards.fullmatch(name)] or weights
    return [n for n in names if n in ("config.json", *PICTURES, *TOKEN_FILES)] + weights


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers will read: safetensors if there are any."""
    if absent := missing_files(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(absent)}; copy the whole model")
    whole = first_of(folder, WEIGHTS)
    return [folder / name for name in _shards(folder)] or ([whole] if whole else [])


def read_kind(folder: Path) -> str:
    """model_type of config.json, one with two towers."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; expected a folder that save_pretrained wrote")
    kind = read_json(path, "a model's config", "model_type")
    if kind not in KINDS:
        raise ValueError(f"{path}: {unknown_name('model_type', str(kind), KINDS)}")
    return kind


def read_json(path: Path, what: str, key: str) -> Any:
    """One entry of a JSON object."""
    try:
        return json.loads(path.read_text("utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not {what} ({error!r}); copy it again") from error


def _shards(folder: Path) -> list[str]:
    """Files that the weights are spread over; [] if they are in one."""
    index = first_of(folder, INDEXES)
    if index is None or first_of(folder, WEIGHTS):
        return []
    return sorted(set(read_json(index, "an index of weights", "weight_map").values()))
