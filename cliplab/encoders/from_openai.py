"""`openai:` - the official `clip` package: its loading, model, preprocessing and tokenizer."""

from pathlib import Path

import torch

from cliplab.encoders.hub import find_file
from cliplab.encoders.official import check_weights, official, provenance, reading
from cliplab.encoders.tokenizers import OfficialBytePairs
from cliplab.encoders.two_towers import TwoTowers
from cliplab.runtime import nearest, verify_checkpoint


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
