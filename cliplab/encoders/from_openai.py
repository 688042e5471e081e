"""`openai:` - the official `clip` package: its loading, model, preprocessing and tokenizer."""

from pathlib import Path
from typing import Any

import torch

from cliplab.encoders.adapt import OfficialBytePairs
from cliplab.encoders.hub import Wanted, download, whole_file
from cliplab.encoders.official import check_weights, official, provenance, reading
from cliplab.encoders.two_towers import TwoTowers
from cliplab.runtime import nearest, sha256, verify_checkpoint


def load_openai(where: str, device: torch.device, offline: bool, precision: str) -> TwoTowers:
    """Encoder of a published model ("ViT-B/32") or of a file in the same format."""
    with official("openai"):
        import clip
    revision, path = "", Path(where).expanduser()
    if where in clip.clip._MODELS:
        revision, path = "published", find_model(where, clip.clip, offline=offline)
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


def openai_cache() -> Path:
    """Where `clip` keeps its models, ~/.cache/clip; it has no variable for another place."""
    return Path.home() / ".cache" / "clip"


def find_model(name: str, clip: Any, *, offline: bool) -> Path:
    """File of a published model: the cached one, else downloaded; its hash is in its address.

    Raises:
        ValueError: the cached file is damaged, and offline it cannot be replaced.
        FileNotFoundError: not cached and not to be had.
    """
    url = clip._MODELS[name]
    expected, path = url.split("/")[-2], openai_cache() / url.rpartition("/")[2]
    damaged = path.is_file() and sha256(path) != expected
    if path.is_file() and not damaged:
        return path
    if damaged and offline:
        raise ValueError(
            f"{path}: its sha256 is not {expected[:12]}..., the published one; the download was "
            "cut short: delete it and load again with the network allowed"
        )

    def fetch() -> None:
        whole_file(path, lambda folder: clip._download(url, folder))

    command, otherwise = f"curl -LO {url}", f"name the file: openai:<folder>/{path.name}"
    wanted = Wanted(f"openai:{name}", (path.name,), path.parent, command, otherwise)
    download(wanted, url, fetch, offline=offline)
    return path


def _no_such(where: str, names: list[str]) -> str:
    close = [f"openai:{name}" for name in nearest(where, names)]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return (
        f"openai:{where}: no such model and no such file; {hint}expected a file such as "
        f"data/checkpoints/clip-openai/model.pt, or one of {', '.join(names)}"
    )
