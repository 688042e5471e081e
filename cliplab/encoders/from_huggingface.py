"""`hf:` - CLIP, Chinese-CLIP, SigLIP and SigLIP 2 through transformers."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from cliplab.encoders.from_modelscope import CHINESE_CONTEXT
from cliplab.encoders.huggingface_files import find_folder, read_kind, weight_files
from cliplab.encoders.official import check_weights, official, provenance, quiet, reading
from cliplab.encoders.tokenizers import HuggingFaceTokenizer
from cliplab.encoders.two_towers import TwoTowers

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_GEMMA_VOCABULARY = 200_000  # tokens; more than any English one: SigLIP 2 and multilingual SigLIP


def load_huggingface(where: str, device: torch.device, offline: bool, precision: str) -> TwoTowers:
    """Encoder of "<organisation>/<name>[@revision]" or of a folder that save_pretrained wrote.

    Code that a repository brings along is never run. Preprocessing is the repository's own image
    processor. Texts are padded to the context: 77 tokens for CLIP, 52 for Chinese-CLIP, 64 for
    SigLIP, whose texts are also cleaned, see `canonical`.
    """
    spec = f"hf:{where}"
    folder, revision = find_folder(where, offline=offline)
    kind = read_kind(folder)
    weights = weight_files(folder)
    for path in weights:
        check_weights(path)
    with official("hf"), reading(folder, f"a {kind} model of transformers"), quiet():
        from transformers import AutoImageProcessor

        model, tokenizer = _read_model(folder), _read_tokenizer(folder)
        processor = AutoImageProcessor.from_pretrained(folder, **LOCAL)
    towers = HuggingFaceTowers(model, pad_id=tokenizer.pad_token_id)
    context = model.config.text_config.max_position_embeddings
    is_siglip = kind.startswith("siglip")
    many = is_siglip and model.config.text_config.vocab_size > _GEMMA_VOCABULARY
    adapter = HuggingFaceTokenizer(
        tokenizer,
        min(context, CHINESE_CONTEXT) if kind == "chinese_clip" else context,
        clean=canonical if is_siglip else str,
    )
    return TwoTowers(
        spec,
        towers,
        tokenizer=adapter,
        preprocess=(PatchPreprocess if kind == "siglip2" else PixelPreprocess)(processor),
        languages=("en", "zh") if many else ("zh",) if kind == "chinese_clip" else ("en",),
        device=device,
        precision=precision,
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=float(model.logit_bias.detach()) if is_siglip else None,
        provenance=provenance(spec, revision, weights),
    )


class HuggingFaceTowers(nn.Module):
    """A two-tower model of transformers under the names that every encoder's model has."""

    def __init__(self, model: Any, *, pad_id: int) -> None:
        super().__init__()
        self.model: Any = model
        self.pad_id = pad_id
        self.kind: str = model.config.model_type

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, R, R), or SigLIP 2's packed patches (B, 1, P, C + 3) -> (B, D)."""
        if self.kind != "siglip2":
            return _tensor(self.model.get_image_features(pixel_values=pixels))
        patches, extra = pixels[:, 0, :, :-3], pixels[:, 0, :, -3:]  # (B, P, C), (B, P, 3)
        return _tensor(
            self.model.get_image_features(
                pixel_values=patches,
                pixel_attention_mask=extra[..., 0].long(),
                spatial_shapes=extra[:, 0, 1:].long(),
            )
        )

    def encode_text(self, ids: Tensor) -> Tensor:
        """Padded ids (B, L) -> (B, D).

        Only BERT needs to be told where the padding is: CLIP looks back only, from the end token,
        and SigLIP learned with the padding in sight.
        """
        if self.kind != "chinese_clip":
            return _tensor(self.model.get_text_features(input_ids=ids))
        mask = (ids != self.pad_id).long()
        return _tensor(self.model.get_text_features(input_ids=ids, attention_mask=mask))


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


def _tensor(features: Any) -> Tensor:
    """The embedding (B, D): transformers 5 wraps it, 4 did not."""
    return getattr(features, "pooler_output", features)
