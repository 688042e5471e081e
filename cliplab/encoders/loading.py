"""`load_encoder`: a spec to an encoder; the shipped models, and any others, through our code.

A new source of encoders is one entry in `LOADERS`. The official packages are each imported when
they are asked for.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from cliplab.encoders.from_huggingface import load_huggingface
from cliplab.encoders.from_modelscope import CHINESE_CONTEXT, WEIGHTS, load_modelscope
from cliplab.encoders.from_open_clip import load_open_clip
from cliplab.encoders.hub import find_file
from cliplab.encoders.official import check_weights, official, provenance, reading
from cliplab.encoders.tokenizers import OfficialBytePairs
from cliplab.encoders.two_towers import (
    Encoder,
    TwoTowers,
    modelscope_preprocess,
    openai_preprocess,
)
from cliplab.models.tokenizers import BytePairTokenizer, WordPieceTokenizer
from cliplab.runtime import checkpoint_dir, is_offline, nearest, pick_device, verify_checkpoint


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
    from cliplab.models import clip

    verify_checkpoint(path.parent, [path.name])
    model = clip.load_openai(path)
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
    from cliplab.models import chinese_clip

    verify_checkpoint(folder)
    model = chinese_clip.load_modelscope(folder)
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


# ---- OpenAI's own -------------------------------------------------------------------------


def load_openai(where: str, device: torch.device, offline: bool, precision: str) -> TwoTowers:
    """Encoder of a published model ("ViT-B/32") or of a file in the same format."""
    with official("openai"):
        import clip
    revision, path = "", Path(where).expanduser()
    if where in clip.clip._MODELS:
        url = clip.clip._MODELS[where]  # which holds the hash
        digest, named = url.split("/")[-2], "openai:<folder>/"
        path = find_file(f"openai:{where}", url, digest, named=named, offline=offline)
        revision = "published"
    elif not path.is_file():
        raise FileNotFoundError(_no_such(where, clip.available_models()))
    verify_checkpoint(path.parent, [path.name])
    check_weights(path)
    with reading(path, "an OpenAI CLIP checkpoint (TorchScript archive)"):
        model, preprocess = clip.load(str(path), device="cpu")
    spec = f"openai:{where}"
    return TwoTowers(
        spec,
        model,
        tokenizer=OfficialBytePairs(clip.tokenize, model.context_length),
        preprocess=preprocess,
        languages=("en",),
        device=device,
        precision=precision,
        provenance=provenance(spec, revision, [path]),
    )


def _no_such(where: str, names: list[str]) -> str:
    close = [f"openai:{name}" for name in nearest(where, names)]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"openai:{where}: no such model and no such file; {hint}expected a file such as "
        f"data/checkpoints/clip-openai/model.pt, or one of {', '.join(names)}"
    )


# ---- by name -------------------------------------------------------------------------------

Loader = Callable[[str, torch.device, bool, str], Encoder]
# A name, or a prefix with its colon -> loader(what follows the colon, device, offline, precision).
LOADERS: dict[str, Loader] = {
    "pasture": load_pasture,
    "pasture-zh": load_pasture_zh,
    "openai:": load_openai,
    "modelscope:": load_modelscope,
    "hf:": load_huggingface,
    "open_clip:": load_open_clip,
}
_AFTER = {  # what follows each colon, for errors
    "openai:": "<name or path>",
    "modelscope:": "<model id or path>",
    "hf:": "<repo or path>",
    "open_clip:": "<arch>/<tag or path>",
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
            "open_clip:<arch>/<tag>", "open_clip:<arch>/<checkpoint>", "open_clip:<folder>" or
            "open_clip:hf-hub:<repo>[@revision]".
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
    prefix, colon, where = spec.partition(":")
    loader = LOADERS.get(prefix + colon)
    if loader is None:
        raise ValueError(_unknown(spec, prefix + colon))
    if colon and not where and prefix != "modelscope":
        after = _AFTER.get(prefix + colon, "a path")
        raise ValueError(f"encoder {spec!r}: nothing after the colon; expected {after}")
    return loader(where, pick_device(device), is_offline(offline), precision)


def _unknown(spec: str, key: str) -> str:
    close = nearest(key, LOADERS)
    if spec and (path := Path(spec)).exists():
        close = [f"{'openai' if path.is_file() else _kind_of_folder(path)}:{spec}"]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    valid = [name + _AFTER.get(name, "") for name in LOADERS]
    return f"unknown encoder {spec!r}; {hint}valid: {', '.join(valid)}"


def _kind_of_folder(folder: Path) -> str:
    """The prefix for a folder, by the file that only its format has."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    return "hf" if (folder / "config.json").is_file() else "modelscope"
