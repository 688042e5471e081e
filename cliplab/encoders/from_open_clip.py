"""`open_clip:` - open_clip's models, from a tag, a checkpoint, a folder or the hub."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cliplab.encoders.from_huggingface import TOKEN_FILES, TOKENS, first_of, lacking, read_json
from cliplab.encoders.hub import find_file, find_snapshot
from cliplab.encoders.official import (
    Found,
    HuggingFaceTokenizer,
    OpenClipBytePairs,
    Towers,
    check_weights,
    hushed,
    official,
    reading,
)
from cliplab.models.tokenizers import Tokenizer
from cliplab.models.weights import is_torchscript
from cliplab.runtime import nearest, unknown_name

_MANY_LANGUAGES = 200_000  # tokens; vocabularies of XLM-R, mT5 and Gemma are larger
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # preferred first
_FORCED = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation",
           "resize_mode": "image_resize_mode"}  # fmt: skip


def load_open_clip(where: str, offline: bool) -> Found:
    """Of "<arch>/<tag>", "<arch>/<checkpoint>", "hf-hub:<repo>[@revision]" or a folder."""
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
    many = tokenizer.vocab_size > _MANY_LANGUAGES
    languages = ("en", "zh") if many else ("en",)
    towers, weights = OpenClipTowers(model), [source.weights]
    return Found(towers, tokenizer, preprocess, languages, weights, source.revision)


class OpenClipTowers(Towers):
    """A model of open_clip, of whichever of its classes."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, R, R) -> (B, D)."""
        return self.model.encode_image(pixels)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Ids (B, L) -> (B, D)."""
        return self.model.encode_text(ids)


@dataclass
class Source:
    """Where one model comes from, all of it on this machine."""

    name: str  # what open_clip is to be asked for: an architecture, or local-dir:<folder>
    weights: Path
    revision: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # of the model, as open_clip keeps it
    options: dict[str, Any] = field(default_factory=dict)  # for create_model_and_transforms
    text_folder: Path | None = None  # with the tokenizer, if it is one of transformers


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


def find_source(where: str, *, offline: bool) -> Source:
    """Where the model is of what follows the colon; downloaded if it must be and can be."""
    spec = f"open_clip:{where}"
    if (folder := Path(where).expanduser()).is_dir():
        return _from_folder(spec, folder, "", offline=offline)
    if where.startswith("hf-hub:"):
        repo, _, revision = where.removeprefix("hf-hub:").partition("@")
        folder, commit = find_snapshot(
            spec, repo, revision, missing=_missing, choose=_wanted, offline=offline
        )
        return _from_folder(spec, folder, commit, offline=offline)
    return _from_name(spec, *split_name(where), offline=offline)


# ---- a built-in architecture ---------------------------------------------------------------


def split_name(where: str) -> tuple[str, str]:
    """ "ViT-B-32/laion2b_e16" -> its architecture and its tag or path."""
    import open_clip

    parts, known = where.split("/"), open_clip.list_models()
    # OpenAI's own spelling has a slash in it: ViT-B/32/openai
    for count in (2, 1):
        arch, rest = "-".join(parts[:count]), "/".join(parts[count:])
        if arch in known and len(parts) >= count:
            if rest:
                return arch, rest
            tags = open_clip.list_pretrained_tags_by_model(arch)
            raise ValueError(
                f"open_clip:{where}: no weights named; expected open_clip:{arch}/<tag or path>, "
                f"tags: {', '.join(tags) or 'none'}"
            )
    close = [f"open_clip:{name}/<tag or path>" for name in nearest(parts[0], known)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
        f"open_clip:{where}: unknown architecture {parts[0]!r}; {hint}"
        "open_clip.list_models() has them all"
    )


def _from_name(spec: str, arch: str, tag: str, *, offline: bool) -> Source:
    """A built-in architecture with a tag of open_clip, or with a checkpoint of your own."""
    import open_clip

    config, path = open_clip.get_model_config(arch), Path(tag).expanduser()
    source = Source(arch, path, config=config)
    if not path.is_file():
        known = open_clip.pretrained.get_pretrained_cfg(arch, tag)
        if not known and ("/" in tag or path.suffix):
            raise FileNotFoundError(f"{spec}: no such file; expected a checkpoint of {arch}")
        if not known:
            tags = open_clip.list_pretrained_tags_by_model(arch)
            raise ValueError(f"{spec}: {unknown_name('tag', tag, tags)}")
        source.options = {_FORCED[k]: known[k] for k in _FORCED if known.get(k) is not None}
        # The wrong activation costs accuracy and says nothing.
        trained = source.options["force_quick_gelu"] = bool(known.get("quick_gelu"))
        if config.get("quick_gelu") and not trained:
            raise ValueError(
                f"{spec}: the weights were trained with GELU, the architecture has QuickGELU; use "
                f"open_clip:{arch.removesuffix('-quickgelu')}/{tag}"
            )
        source.weights, source.revision = _find_weights(spec, known, offline=offline)
    source.options["pretrained"] = str(source.weights)
    _find_text(spec, source, config["text_cfg"].get("hf_tokenizer_name", ""), offline=offline)
    return source


def _find_weights(spec: str, known: dict[str, Any], *, offline: bool) -> tuple[Path, str]:
    """File and revision of a tag's weights: on Hugging Face's hub, else at an address."""
    if not known.get("hf_hub"):
        # The start of the SHA-256 that an address carries, if it carries one.
        hashes = re.search(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.[a-z]+$", known["url"])
        digest = (hashes[1] or hashes[2]) if hashes else ""
        named = "open_clip:<architecture>/<folder>/"
        return find_file(spec, known["url"], digest, named=named, offline=offline), "published"
    repo, _, name = known["hf_hub"].rpartition("/")
    stem, _, suffix = name.rpartition(".")
    names = (f"{stem}.safetensors", name) if suffix in ("bin", "pth") else (name,)
    names = names if name else WEIGHTS
    folder, revision = find_snapshot(
        spec,
        repo,
        "",
        missing=lambda folder: lacking(folder, names),
        choose=lambda listed: [n for n in names if n in listed][:1],
        offline=offline,
    )
    if (weights := first_of(folder, names)) is None:
        raise FileNotFoundError(f"{spec}: {repo} has none of {', '.join(names)}")
    return weights, revision


def _find_text(spec: str, source: Source, name: str, *, offline: bool) -> None:
    """Have tokenizer and text tower, where they are transformers' `name`, read from a snapshot."""
    if not name:
        return
    text = source.config["text_cfg"]
    needs = [("config.json",), TOKENS] if "hf_model_name" in text else [TOKENS]
    folder, _ = find_snapshot(
        f"{spec} (tokenizer {name})",
        name,
        "",
        missing=lambda folder: lacking(folder, *needs),
        choose=lambda names: [n for n in names if n in (*TOKEN_FILES, "config.json")],
        offline=offline,
    )
    source.text_folder = source.text_folder or folder
    if "hf_model_name" in text:
        local = {"hf_model_name": str(folder), "hf_model_pretrained": False}
        source.options["text_cfg"] = text | local


# ---- folders in open_clip's own format -----------------------------------------------------


def _missing(folder: Path) -> list[str]:
    found = lacking(folder, (CONFIG,), WEIGHTS)
    named = (folder / CONFIG).is_file() and "hf_tokenizer_name" in _read_config(folder)["text_cfg"]
    return found + (lacking(folder, TOKENS) if named else [])


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG, "a config of open_clip", "model_cfg")
    if not all(isinstance(config.get(part), dict) for part in ("text_cfg", "vision_cfg")):
        raise ValueError(f"{folder / CONFIG}: not a config of open_clip; copy it again")
    return config


def _wanted(names: list[str]) -> list[str]:
    weights = [name for name in WEIGHTS if name in names][:1]
    return [n for n in names if n in (CONFIG, "config.json", *TOKEN_FILES)] + weights


def _from_folder(spec: str, folder: Path, revision: str, *, offline: bool) -> Source:
    if absent := _missing(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(absent)}; copy the whole model")
    config, weights = _read_config(folder), first_of(folder, WEIGHTS)
    source = Source(f"local-dir:{folder}", weights or folder, revision, config)
    text = config["text_cfg"]
    source.text_folder = folder if "hf_tokenizer_name" in text else None
    _find_text(spec, source, text.get("hf_model_name", ""), offline=offline)
    return source
