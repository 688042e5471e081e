"""`load_encoder`: a spec to an encoder; the shipped models, and any others, through our code.

A new source of encoders is one entry in `LOADERS`. The official packages are each imported when
they are asked for.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cliplab.encoders import hub
from cliplab.encoders.from_huggingface import load_huggingface
from cliplab.encoders.from_open_clip import load_open_clip
from cliplab.encoders.official import (
    CHINESE_CONTEXT,
    Found,
    check_weights,
    hushed,
    official,
    reading,
)
from cliplab.encoders.two_towers import Encoder, modelscope_preprocess, openai_preprocess
from cliplab.models.tokenizers import BytePairTokenizer, WordPieceTokenizer
from cliplab.models.weights import read_state_dict
from cliplab.runtime import (
    checkpoint_dir,
    is_offline,
    nearest,
    pick_device,
    unknown_name,
    verify_checkpoint,
)

MODEL = "damo/multi-modal_clip-vit-large-patch14_336_zh"  # the seed notes'
REVISION = "v1.0.1"
WEIGHTS = "pytorch_model.bin"
FILES = ("vision_model_config.json", "text_model_config.json", "vocab.txt", WEIGHTS)


# ---- our own code --------------------------------------------------------------------------


def read_openai(path: Path) -> Found:
    """Our readable CLIP on weights in OpenAI's format."""
    from cliplab.models import clip

    verify_checkpoint(path.parent, [path.name])
    model = clip.load_openai(path)
    tokenizer = BytePairTokenizer(model.config.context_length)
    preprocess = openai_preprocess(model.config.image_resolution)
    return Found(model, tokenizer, preprocess, ("en",), [path])


def read_modelscope(folder: Path) -> Found:
    """Our readable Chinese-CLIP on a folder in ModelScope's format."""
    from cliplab.models import chinese_clip

    verify_checkpoint(folder)
    model = chinese_clip.load_modelscope(folder)
    context = min(CHINESE_CONTEXT, model.config.text_max_position_embeddings)
    tokenizer = WordPieceTokenizer(folder / "vocab.txt", context)
    preprocess = modelscope_preprocess(model.config.image_resolution)
    return Found(model, tokenizer, preprocess, ("zh",), [folder / WEIGHTS])


# ---- OpenAI's ------------------------------------------------------------------------------


def load_openai(where: str, offline: bool) -> Found:
    """A published model ("ViT-B/32"), or a file: such an archive, or a fine-tuned state dict."""
    with official("openai"):
        import clip

        if not hasattr(clip, "available_models"):
            raise ImportError(f"{clip} is not OpenAI's; first `pip uninstall clip`, or remove it")
    revision, path = "", Path(where).expanduser()
    if where in clip.clip._MODELS:
        url = clip.clip._MODELS[where]  # which holds the hash
        digest, named = url.split("/")[-2], "openai:<folder>/"
        path = hub.find_file(f"openai:{where}", url, digest, named=named, offline=offline)
        revision = "published"
    elif not path.is_file():
        close = [f"openai:{name}" for name in nearest(where, clip.available_models())]
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise FileNotFoundError(
            f"openai:{where}: no such model and no such file; {hint}expected a file such as "
            "data/checkpoints/clip-openai/model.pt, or one of "
            f"{', '.join(clip.available_models())}"
        )
    verify_checkpoint(path.parent, [path.name])
    check_weights(path)
    with reading(path, "an OpenAI CLIP checkpoint (TorchScript archive or state dict)"):
        weights = read_state_dict(path)  # clip.load reads no state dict since torch 2.6
        model = clip.model.build_model(weights).float()  # in fp16 until here
        model.load_state_dict(weights)
    preprocess = clip.clip._transform(model.visual.input_resolution)
    tokenizer = BytePairTokenizer(model.context_length)
    return Found(model, tokenizer, preprocess, ("en",), [path], revision)


# ---- ModelScope's --------------------------------------------------------------------------


def load_modelscope(where: str, offline: bool) -> Found:
    """A Chinese-CLIP "<owner>/<name>[@revision]" of ModelScope's hub, or in a folder.

    The model is ModelScope's CLIPForMultiModalEmbedding. Its CLIPPreprocessor is restated; why,
    and how to get ModelScope's own pipeline, says `cliplab.encoders.modelscope_pipeline`.
    """
    folder, revision = _find_folder(where, offline=offline)
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder}: missing {', '.join(absent)}; copy the whole model")
    verify_checkpoint(folder)
    check_weights(folder / WEIGHTS)
    with official("modelscope"):
        from modelscope.models.multi_modal.clip.model import CLIPForMultiModalEmbedding
    with reading(folder, "a ModelScope folder of Chinese-CLIP"), hushed("modelscope"):
        model = CLIPForMultiModalEmbedding(str(folder))
    context = min(CHINESE_CONTEXT, model.model_info["text_max_position_embeddings"])
    tokenizer = WordPieceTokenizer(folder / "vocab.txt", context)
    preprocess = modelscope_preprocess(model.model_info["image_resolution"])
    weights = [folder / WEIGHTS]
    return Found(model.clip_model, tokenizer, preprocess, ("zh",), weights, revision)


def _find_folder(where: str, *, offline: bool) -> tuple[Path, str]:
    """Folder and revision ("" for a folder of your own) of what follows the colon."""
    if (folder := Path(where).expanduser()).is_dir():
        return folder, ""
    model, _, revision = where.partition("@")
    owner, _, name = model.partition("/")
    if not owner or not name or "/" in name or owner.startswith((".", "~")):
        raise FileNotFoundError(
            f"modelscope:{where}: {hub.no_folder(folder)}; expected a folder such as "
            f"data/checkpoints/clip-chinese, or a model such as {MODEL}[@{REVISION}]"
        )
    revision = revision or (REVISION if name == MODEL.partition("/")[2] else "master")
    folder = hub.modelscope_cache() / "models" / f"{owner}--{name}" / "snapshots" / revision
    present = hub.modelscope_snapshot(model, revision) or folder
    missing = tuple(file for file in FILES if not (present / file).is_file())
    if not missing:
        return present, revision
    command = f"modelscope download --model {model} --revision {revision} --local_dir {name}"
    otherwise = ", or give their own folder: modelscope:<folder>"
    wanted = hub.Wanted(f"modelscope:{model}@{revision}", missing, present, command, otherwise)
    with hub.downloading(wanted, offline=offline), official("modelscope"), hushed("modelscope"):
        from modelscope.hub.snapshot_download import snapshot_download

        endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "").rstrip("/") or "modelscope.cn"
        hub.check_answer(
            endpoint if "://" in endpoint else f"https://{endpoint}"
        )  # else it retries
        found = snapshot_download(model, revision=revision, allow_patterns=list(FILES))
    return Path(found), revision


# ---- by name -------------------------------------------------------------------------------

# A name, or a prefix with its colon -> loader(what follows the colon, offline).
LOADERS: dict[str, Callable[[str, bool], Found]] = {
    "pasture": lambda _, __: read_openai(checkpoint_dir("clip-openai") / "model.pt"),
    "pasture-zh": lambda _, __: read_modelscope(checkpoint_dir("clip-chinese")),
    "openai:": load_openai,
    "modelscope:": load_modelscope,
    "hf:": load_huggingface,
    "open_clip:": load_open_clip,
}


def load_encoder(
    spec: str, *, device: str = "auto", offline: bool | None = None, precision: str = "float32"
) -> Encoder:
    """The encoder called `spec`, in eval mode, on `device`.

    What is on this machine, a path or a snapshot in the cache of its hub, is loaded without the
    network; the rest is downloaded, unless `offline`.

    Args:
        spec: "pasture" (English) or "pasture-zh" (Chinese), the shipped models through our
            readable code; or the official code:
            "openai:ViT-B/32" or "openai:<model.pt>", the package `clip`;
            "modelscope:" (the seed notes' Chinese-CLIP), "modelscope:<id>[@revision]" or
            "modelscope:<folder>";
            "hf:<repo>[@revision]" or "hf:<folder>", a CLIP, Chinese-CLIP, SigLIP or SigLIP 2 of
            transformers;
            "open_clip:<arch>/<tag>" or "open_clip:<arch>/<checkpoint>".
        device: "auto", "cpu", "cuda" or "mps".
        offline: True forbids downloads, False allows them; None asks $CLIPLAB_OFFLINE and the
            hubs' own variables.
        precision: "float32", or "bfloat16": faster where the processor has it.

    Raises:
        ValueError: unknown name (the nearest are listed), damaged file, wrong hash.
        FileNotFoundError: files that are missing and could not be downloaded; it says which,
            where they belong and how to fetch them.
        ImportError: the official package is not installed.
    """
    spec = f"{spec}{MODEL}" if spec == "modelscope:" else spec
    prefix, colon, where = spec.partition(":")
    loader = LOADERS.get(prefix + colon)
    if loader is None:
        raise ValueError(unknown_name("encoder", spec, LOADERS))
    if colon and not where:
        raise ValueError(f"encoder {spec!r}: nothing after the colon; expected a name or a path")
    found = loader(where, is_offline(offline))
    return found.encoder(spec, pick_device(device), precision)
