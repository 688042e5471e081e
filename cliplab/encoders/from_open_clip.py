"""`open_clip:` - open_clip's models, from a tag, a checkpoint, a folder or the hub."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliplab.encoders.adapt import HuggingFaceTokenizer, OpenClipBytePairs
from cliplab.encoders.from_huggingface import TOKEN_FILES, TOKENS, find_snapshot
from cliplab.encoders.from_openai import openai_cache
from cliplab.encoders.hub import Wanted, download, whole_file
from cliplab.encoders.official import (
    check_weights,
    hushed,
    is_torchscript,
    official,
    provenance,
    reading,
)  # fmt: skip
from cliplab.runtime import nearest, sha256, unknown_name
from cliplab.tokenizers import Tokenizer
from cliplab.two_towers import TwoTowers

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # preferred first
_MANY_LANGUAGES = 200_000  # tokens; vocabularies of XLM-R, mT5 and Gemma are larger
_FORCED = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation",
           "resize_mode": "image_resize_mode"}  # fmt: skip


@dataclass
class Source:
    """Where one model comes from, all of it on this machine."""

    name: str  # what open_clip is to be asked for: an architecture, or local-dir:<folder>
    weights: Path
    revision: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # of the model, as open_clip keeps it
    options: dict[str, Any] = field(default_factory=dict)  # for create_model_and_transforms
    text_folder: Path | None = None  # with the tokenizer, if it is one of transformers


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
        dim=_width(towers, tokenizer),
        logit_scale=float(model.logit_scale.detach().exp()),
        logit_bias=None if model.logit_bias is None else float(model.logit_bias.detach()),
        provenance=provenance(spec, source.revision, [source.weights]),
    )


class OpenClipTowers(nn.Module):
    """A model of open_clip, of whichever of its classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

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


# ---- where the files are -------------------------------------------------------------------


def find_source(where: str, *, offline: bool) -> Source:
    """Where the model is of what follows the colon; downloaded if it must be and can be."""
    if (folder := Path(where).expanduser()).is_dir():
        return _from_folder(folder, "")
    if where.startswith("hf-hub:"):
        repo, _, revision = where.removeprefix("hf-hub:").partition("@")
        return _from_folder(
            *find_snapshot(
                f"open_clip:{where}",
                repo,
                revision,
                missing=_missing,
                choose=_wanted,
                offline=offline,
            )
        )
    arch, tag = split_name(where)
    return _from_name(where, arch, tag, offline=offline)


def split_name(where: str) -> tuple[str, str]:
    """ "ViT-B-32/laion2b_e16" -> its architecture and its tag or path.

    Raises:
        ValueError: no such architecture, or nothing after it.
    """
    import open_clip

    parts, known = where.split("/"), open_clip.list_models()
    # OpenAI's own spelling has a slash in it: ViT-B/32/openai
    for count in (2, 1):
        arch, rest = "-".join(parts[:count]), "/".join(parts[count:])
        if arch in known and rest:
            return arch, rest
    if "-".join(parts[:2]) in known or parts[0] in known:
        arch = parts[0] if parts[0] in known else "-".join(parts[:2])
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ValueError(
            f"open_clip:{where}: no weights named; expected open_clip:{arch}/<tag or path>, tags: "
            f"{', '.join(tags) or 'none'}"
        )
    close = [f"open_clip:{name}/<tag or path>" for name in nearest(parts[0], known)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
        f"open_clip:{where}: unknown architecture {parts[0]!r}; {hint}"
        "open_clip.list_models() has them all"
    )


def _from_name(where: str, arch: str, tag: str, *, offline: bool) -> Source:
    """A built-in architecture with a tag of open_clip, or with a checkpoint of your own."""
    import open_clip

    config, path = open_clip.get_model_config(arch), Path(tag).expanduser()
    source = Source(arch, path, config=config)
    if not path.is_file():
        known = open_clip.pretrained.get_pretrained_cfg(arch, tag)
        if not known:
            raise _unknown_tag(arch, tag)
        source.weights, source.revision = _find_weights(where, known, offline=offline)
        source.options = {_FORCED[k]: known[k] for k in _FORCED if known.get(k) is not None}
        source.options["force_quick_gelu"] = _quick_gelu(arch, tag, config, known)
    source.options["pretrained"] = str(source.weights)
    name = config["text_cfg"].get("hf_tokenizer_name", "")
    if name:
        source.text_folder = _text_snapshot(where, name, config, offline=offline)
        if "hf_model_name" in config["text_cfg"]:  # its config too comes from that folder
            local = {"hf_model_name": str(source.text_folder), "hf_model_pretrained": False}
            source.options["text_cfg"] = config["text_cfg"] | local
    return source


def _quick_gelu(arch: str, tag: str, config: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether the weights learned with QuickGELU; the wrong one costs accuracy and says nothing."""
    trained, built = bool(known.get("quick_gelu")), bool(config.get("quick_gelu"))
    if built and not trained:
        raise ValueError(
            f"open_clip:{arch}/{tag}: the weights were trained with GELU, the architecture has "
            f"QuickGELU; use open_clip:{arch.removesuffix('-quickgelu')}/{tag}"
        )
    return trained


def _unknown_tag(arch: str, tag: str) -> ValueError | FileNotFoundError:
    import open_clip

    if "/" in tag or Path(tag).suffix in (".pt", ".bin", ".safetensors", ".pth", ".npz"):
        return FileNotFoundError(
            f"open_clip:{arch}/{tag}: no such file; expected a checkpoint of {arch}"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    return ValueError(f"open_clip:{arch}/{tag}: {unknown_name('tag', tag, tags)}")


def _find_weights(where: str, known: dict[str, Any], *, offline: bool) -> tuple[Path, str]:
    """File and revision of a tag's weights: on Hugging Face's hub, else at an address."""
    spec = f"open_clip:{where}"
    if known.get("hf_hub"):
        repo, _, name = known["hf_hub"].rpartition("/")
        names = _alternatives(name) if name else WEIGHTS
        folder, revision = find_snapshot(
            spec,
            repo,
            "",
            missing=lambda folder: [] if _first(folder, names) else [" or ".join(names)],
            choose=lambda listed: [n for n in names if n in listed][:1],
            offline=offline,
        )
        weights = _first(folder, names)
        if weights is None:
            raise FileNotFoundError(f"{spec}: {repo} has none of {', '.join(names)}")
        return weights, revision
    return _find_at_address(spec, known["url"], offline=offline), "published"


def _find_at_address(spec: str, url: str, *, offline: bool) -> Path:
    """The cached file of an address, in the folder that open_clip shares with `clip`."""
    from open_clip.pretrained import download_pretrained_from_url

    folder = openai_cache()
    path = folder / url.rpartition("/")[2]
    expected = _hash_in(url)
    if path.is_file() and (not expected or sha256(path).startswith(expected)):
        return path
    if path.is_file() and offline:
        raise ValueError(f"{path}: its sha256 is not {expected}..., the published one; delete it")

    def fetch() -> None:
        whole_file(path, lambda empty: download_pretrained_from_url(url, cache_dir=empty))

    wanted = Wanted(spec, (path.name,), folder, f"curl -LO {url}")
    download(wanted, url, fetch, offline=offline)
    return path


def _hash_in(url: str) -> str:
    """The start of the SHA-256 that an address carries, "" if it carries none."""
    found = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.[a-z]+$", url)
    return (found[1] or found[2]) if found else ""


def _alternatives(name: str) -> tuple[str, ...]:
    """The same weights as safetensors first, as open_clip prefers them."""
    stem, _, suffix = name.rpartition(".")
    return (f"{stem}.safetensors", name) if suffix in ("bin", "pth") else (name,)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _text_snapshot(where: str, name: str, config: dict[str, Any], *, offline: bool) -> Path:
    """Folder with the tokenizer, and the config if the text tower is one of transformers."""
    needs = ("config.json",) if "hf_model_name" in config["text_cfg"] else ()

    def missing(folder: Path) -> list[str]:
        lacking = [n for n in needs if not (folder / n).is_file()]
        return lacking + ([] if _first(folder, TOKENS) else [" or ".join(TOKENS)])

    def choose(names: list[str]) -> list[str]:
        return [n for n in names if n in (*TOKEN_FILES, "config.json")]

    spec = f"open_clip:{where} (tokenizer {name})"
    folder, _ = find_snapshot(spec, name, "", missing=missing, choose=choose, offline=offline)
    return folder


# ---- folders in open_clip's own format -----------------------------------------------------


def _missing(folder: Path) -> list[str]:
    lacking = [] if (folder / CONFIG).is_file() else [CONFIG]
    return lacking + ([] if _first(folder, WEIGHTS) else [" or ".join(WEIGHTS)])


def _wanted(names: list[str]) -> list[str]:
    weights = [name for name in WEIGHTS if name in names][:1]
    return [n for n in names if n in (CONFIG, "config.json", *TOKEN_FILES)] + weights


def _from_folder(folder: Path, revision: str) -> Source:
    if lacking := _missing(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(lacking)}; copy the whole model")
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))["model_cfg"]
        name = config["text_cfg"].get("hf_tokenizer_name", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a config of open_clip ({error!r}); copy it again") from error
    weights = _first(folder, WEIGHTS)
    return Source(
        f"local-dir:{folder}", weights, revision, config, text_folder=folder if name else None
    )


@torch.inference_mode()
def _width(towers: OpenClipTowers, tokenizer: Tokenizer) -> int:
    return towers.eval().encode_text(tokenizer([""])).shape[-1]
