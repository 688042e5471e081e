"""`open_clip:` - open_clip's models, an architecture with a published tag or a checkpoint."""

import re
from pathlib import Path
from typing import Any

from cliplab.encoders.from_huggingface import TOKEN_FILES, TOKENS, first_of, lacking
from cliplab.encoders.hub import find_file, find_snapshot
from cliplab.encoders.official import (
    Found,
    HuggingFaceTokenizer,
    check_weights,
    hushed,
    official,
    reading,
)
from cliplab.models.tokenizers import BytePairTokenizer, Tokenizer
from cliplab.models.weights import is_torchscript
from cliplab.runtime import nearest, unknown_name

_MANY_LANGUAGES = 200_000  # tokens; vocabularies of XLM-R, mT5 and Gemma are larger
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # preferred first
_FORCED = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation",
           "resize_mode": "image_resize_mode"}  # fmt: skip


def load_open_clip(where: str, offline: bool) -> Found:
    """Of "<arch>/<tag>" or "<arch>/<checkpoint>"."""
    with official("open_clip"):
        import open_clip
    spec, (arch, tag) = f"open_clip:{where}", split_name(where)
    path, revision, options = Path(tag).expanduser(), "", dict[str, Any]()
    if not path.is_file():
        known = _published(spec, arch, tag)
        options = {_FORCED[k]: known[k] for k in _FORCED if known.get(k) is not None}
        options["force_quick_gelu"] = bool(known.get("quick_gelu"))
        path, revision = _find_weights(spec, known, offline=offline)
    text = open_clip.get_model_config(arch)["text_cfg"]
    folder = _find_text(spec, text, offline=offline)
    if "hf_model_name" in text:
        options["text_cfg"] = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    check_weights(path)
    if is_torchscript(path):
        raise ValueError(
            f"{path}: a TorchScript archive, as OpenAI published; load it with openai:{path}"
        )
    with reading(path, "a checkpoint of that architecture"), hushed("", "open_clip"):
        model, _, preprocess = open_clip.create_model_and_transforms(
            arch, pretrained=str(path), weights_only=True, pretrained_text=False, **options
        )
        tokenizer = read_tokenizer(text, folder)
    languages = ("en", "zh") if tokenizer.vocab_size > _MANY_LANGUAGES else ("en",)
    return Found(model, tokenizer, preprocess, languages, [path], revision)


def read_tokenizer(text: dict[str, Any], folder: Path | None) -> Tokenizer:
    """The tokenizer that `open_clip.get_tokenizer` would give, without its look at the hub."""
    from open_clip.tokenizer import HFTokenizer

    length = text.get("context_length", 77)
    if folder is None:  # OpenAI's byte pairs, for which no architecture has options
        return BytePairTokenizer(length)
    theirs = HFTokenizer(
        str(folder),
        context_length=length,
        tokenizer_mode=text.get("tokenizer_mode"),
        local_files_only=True,
        **text.get("tokenizer_kwargs", {}),
    )
    return HuggingFaceTokenizer(
        theirs.tokenizer, length, clean=theirs.clean_fn, tokenize=theirs.__call__
    )


# ---- names and files -----------------------------------------------------------------------


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


def _published(spec: str, arch: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag's weights."""
    import open_clip

    known = open_clip.pretrained.get_pretrained_cfg(arch, tag)
    if not known and ("/" in tag or Path(tag).suffix):
        raise FileNotFoundError(f"{spec}: no such file; expected a checkpoint of {arch}")
    if not known:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ValueError(f"{spec}: {unknown_name('tag', tag, tags)}")
    return known


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
        otherwise=", or name the file: open_clip:<architecture>/<folder>/<file>",
    )
    if (weights := first_of(folder, names)) is None:
        raise FileNotFoundError(f"{spec}: {repo} has none of {', '.join(names)}")
    return weights, revision


def _find_text(spec: str, text: dict[str, Any], *, offline: bool) -> Path | None:
    """The folder of the tokenizer (and config of the text tower) if these are transformers'."""
    name = text.get("hf_tokenizer_name", "")
    if not name:
        return None
    needs = [("config.json",), TOKENS] if "hf_model_name" in text else [TOKENS]
    folder, _ = find_snapshot(
        f"{spec} (tokenizer {name})",
        name,
        "",
        missing=lambda folder: lacking(folder, *needs),
        choose=lambda names: [n for n in names if n in (*TOKEN_FILES, "config.json")],
        offline=offline,
        otherwise="",
    )
    return folder
