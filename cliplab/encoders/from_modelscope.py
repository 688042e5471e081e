"""`modelscope:` - ModelScope's own Chinese-CLIP class, on a folder or a model of its hub."""

import os
from pathlib import Path

import torch

from cliplab.encoders.hub import (
    Wanted,
    check_answer,
    downloading,
    modelscope_cache,
    modelscope_snapshot,
)
from cliplab.encoders.official import check_weights, hushed, official, provenance, reading
from cliplab.encoders.tokenizers import OfficialWordPieces
from cliplab.encoders.two_towers import TwoTowers, modelscope_preprocess
from cliplab.runtime import verify_checkpoint

MODEL = "damo/multi-modal_clip-vit-large-patch14_336_zh"  # the seed notes'
REVISION = "v1.0.1"
WEIGHTS = "pytorch_model.bin"
FILES = ("vision_model_config.json", "text_model_config.json", "vocab.txt", WEIGHTS)
CHINESE_CONTEXT = 52  # tokens; ModelScope's preprocessor pads to it, whatever BERT could take
_OWNERS = {"damo": "iic", "iic": "damo"}  # the same models under two names


def load_modelscope(where: str, device: torch.device, offline: bool, precision: str) -> TwoTowers:
    """Encoder of "" (the seed's model), "<owner>/<name>[@revision]" or a folder.

    The model is ModelScope's CLIPForMultiModalEmbedding. Its CLIPPreprocessor is restated; why,
    and how to get ModelScope's own pipeline, says `cliplab.encoders.modelscope_pipeline`.
    """
    folder, revision = find_folder(where, offline=offline)
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: missing; expected a ModelScope folder of Chinese-CLIP with "
                f"{', '.join(FILES)}"
            )
    verify_checkpoint(folder)
    check_weights(folder / WEIGHTS)
    with official("modelscope"):
        from modelscope.models.multi_modal.clip.model import CLIPForMultiModalEmbedding
    with reading(folder, "a ModelScope folder of Chinese-CLIP"), hushed("modelscope"):
        model = CLIPForMultiModalEmbedding(str(folder))
    positions = model.model_info["text_max_position_embeddings"]
    spec = f"modelscope:{where or MODEL}"
    return TwoTowers(
        spec,
        model.clip_model,
        tokenizer=OfficialWordPieces(model.tokenizer, min(CHINESE_CONTEXT, positions)),
        preprocess=modelscope_preprocess(model.model_info["image_resolution"]),
        languages=("zh",),
        device=device,
        precision=precision,
        provenance=provenance(spec, revision, [folder / WEIGHTS]),
    )


def find_folder(where: str, *, offline: bool) -> tuple[Path, str]:
    """Folder and revision ("" for a folder of your own) of what follows the colon.

    Raises:
        FileNotFoundError: no such folder; or a model that is neither cached nor to be had.
    """
    if where and (folder := Path(where).expanduser()).is_dir():
        return folder, ""
    model, _, revision = (where or MODEL).partition("@")
    owner, slash, name = model.partition("/")
    if not (owner and slash and name) or "/" in name or owner.startswith((".", "~")):
        raise FileNotFoundError(
            f"modelscope:{where}: no such path; expected a folder such as "
            f"data/checkpoints/clip-chinese, or a model such as {MODEL}[@{REVISION}]"
        )
    revision = revision or (REVISION if name == MODEL.partition("/")[2] else "master")
    for same in filter(None, (owner, _OWNERS.get(owner))):
        snapshot = modelscope_snapshot(f"{same}/{name}", revision)
        if snapshot and all((snapshot / file).is_file() for file in FILES):
            return snapshot, revision
    return _fetch(model, revision, offline=offline), revision


def _fetch(model: str, revision: str, *, offline: bool) -> Path:
    owner, _, name = model.partition("/")
    folder = modelscope_cache() / "models" / f"{owner}--{name}" / "snapshots" / revision
    present = modelscope_snapshot(model, revision) or folder
    missing = tuple(file for file in FILES if not (present / file).is_file())
    command = f"modelscope download --model {model} --revision {revision} --local_dir {name}"
    wanted = Wanted(f"modelscope:{model}@{revision}", missing, present, command)
    with downloading(wanted, offline=offline), official("modelscope"), hushed("modelscope"):
        from modelscope.hub.snapshot_download import snapshot_download

        endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "").rstrip("/") or "modelscope.cn"
        check_answer(endpoint if "://" in endpoint else f"https://{endpoint}")  # else it retries
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FILES)))
