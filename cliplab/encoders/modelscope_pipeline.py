"""Makes ModelScope's own embedding pipeline importable, by being imported.

After `import cliplab.encoders.modelscope_pipeline` the listing of the study notes runs:
`modelscope.pipelines.pipeline(task=Tasks.multi_modal_embedding, model=...)` builds ModelScope's
real pipeline class around its real model class. That class takes two names from the module
`modelscope.preprocessors.multi_modal`, which also serves other models and therefore imports
decord, audio and fairseq code that Chinese-CLIP does not need. Where that import fails, this
module stands in for it; where it works, ModelScope stays as it is.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.encoders.official import CHINESE_CONTEXT, official
from cliplab.encoders.two_towers import modelscope_preprocess
from cliplab.models.tokenizers import WordPieceTokenizer

with official("modelscope"):
    from modelscope.metainfo import Preprocessors
    from modelscope.preprocessors.base import Preprocessor
    from modelscope.preprocessors.builder import PREPROCESSORS
    from modelscope.utils.constant import Fields, ModeKeys, ModelFile

THEIRS = "modelscope.preprocessors.multi_modal"


class CLIPPreprocessor(Preprocessor):
    """Images and texts -> what CLIPForMultiModalEmbedding takes; for inference alone.

    Source: `CLIPPreprocessor` of modelscope/preprocessors/multi_modal.py, 1.40.2.

    Args:
        model_dir: folder with vocab.txt and vision_model_config.json.
        mode: "inference" or "eval"; the original's "train" augments with timm.
    """

    def __init__(self, model_dir: str, mode: str = ModeKeys.INFERENCE, **kwargs: Any) -> None:
        if mode == ModeKeys.TRAIN:
            raise NotImplementedError(
                f"mode: got {mode!r}; expected 'inference' or 'eval', since {THEIRS} cannot be "
                "imported here and cliplab replaces only its inference"
            )
        super().__init__(mode, **kwargs)
        folder = Path(model_dir)
        config = (folder / "vision_model_config.json").read_text(encoding="utf-8")
        self.tokenizer = WordPieceTokenizer(folder / ModelFile.VOCAB_FILE, CHINESE_CONTEXT)
        self.img_preprocess = modelscope_preprocess(json.loads(config)["image_resolution"])

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Tensor]:
        """{"img": one or a list, "text": one or a list} -> the same keys, as tensors.

        "img": float32 (N, 3, R, R), squashed to a square (bicubic) and normalised; "text": int64
        (K, 52), long texts cut. A key that is missing or None stays away.
        """
        output = {}
        if (images := data.get("img")) is not None:
            images = images if isinstance(images, list) else [images]
            output["img"] = torch.stack([self.img_preprocess(image) for image in images])
        if (texts := data.get("text")) is not None:
            output["text"] = self.tokenizer(texts, truncate=True)
        return output


def stand_in() -> bool:
    """Be `modelscope.preprocessors.multi_modal`, if that cannot be imported; -> whether it was."""
    try:
        importlib.import_module(THEIRS)
    except Exception:  # ImportError of what is missing; others where a library is broken
        sys.modules[THEIRS] = sys.modules[__name__]
        name = Preprocessors.clip_preprocessor
        PREPROCESSORS.register_module(Fields.multi_modal, name, CLIPPreprocessor, force=True)
        return True
    return False


stand_in()
