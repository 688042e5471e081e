"""Where a model of open_clip is: a tag's snapshot, a checkpoint, a folder in its own format."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.encoders.hub import find_file, find_snapshot
from cliplab.encoders.huggingface_files import TOKEN_FILES, TOKENS, first_of
from cliplab.runtime import nearest, unknown_name

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # preferred first
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


# ---- a built-in architecture ---------------------------------------------------------------


def _from_name(spec: str, arch: str, tag: str, *, offline: bool) -> Source:
    """A built-in architecture with a tag of open_clip, or with a checkpoint of your own."""
    import open_clip

    config, path = open_clip.get_model_config(arch), Path(tag).expanduser()
    source = Source(arch, path, config=config)
    if not path.is_file():
        known = open_clip.pretrained.get_pretrained_cfg(arch, tag)
        if not known:
            raise _unknown_tag(arch, tag)
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
    if name := config["text_cfg"].get("hf_tokenizer_name", ""):
        source.text_folder = _text_snapshot(spec, name, config, offline=offline)
        source.options |= _local_text(config, source.text_folder)
    return source


def _unknown_tag(arch: str, tag: str) -> ValueError | FileNotFoundError:
    import open_clip

    if "/" in tag or Path(tag).suffix in (".pt", ".bin", ".safetensors", ".pth", ".npz"):
        return FileNotFoundError(
            f"open_clip:{arch}/{tag}: no such file; expected a checkpoint of {arch}"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    return ValueError(f"open_clip:{arch}/{tag}: {unknown_name('tag', tag, tags)}")


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
        missing=lambda folder: [] if first_of(folder, names) else [" or ".join(names)],
        choose=lambda listed: [n for n in names if n in listed][:1],
        offline=offline,
    )
    if (weights := first_of(folder, names)) is None:
        raise FileNotFoundError(f"{spec}: {repo} has none of {', '.join(names)}")
    return weights, revision


# ---- texts ---------------------------------------------------------------------------------


def _local_text(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Have a text tower of transformers read its config in `folder`, not on the hub."""
    if "hf_model_name" not in config["text_cfg"]:
        return {}
    local = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": config["text_cfg"] | local}


def _text_snapshot(spec: str, name: str, config: dict[str, Any], *, offline: bool) -> Path:
    """Folder with the tokenizer, and the config if the text tower is one of transformers."""
    needs = ("config.json",) if "hf_model_name" in config["text_cfg"] else ()

    def missing(folder: Path) -> list[str]:
        lacking = [n for n in needs if not (folder / n).is_file()]
        return lacking + ([] if first_of(folder, TOKENS) else [" or ".join(TOKENS)])

    folder, _ = find_snapshot(
        f"{spec} (tokenizer {name})",
        name,
        "",
        missing=missing,
        choose=lambda names: [n for n in names if n in (*TOKEN_FILES, "config.json")],
        offline=offline,
    )
    return folder


# ---- folders in open_clip's own format -----------------------------------------------------


def _missing(folder: Path) -> list[str]:
    groups = [(CONFIG,), WEIGHTS]
    if (folder / CONFIG).is_file() and "hf_tokenizer_name" in _read_config(folder)["text_cfg"]:
        groups.append(TOKENS)
    return [" or ".join(names) for names in groups if not first_of(folder, names)]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))["model_cfg"]
        dict(config["text_cfg"]), dict(config["vision_cfg"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a config of open_clip ({error!r}); copy it again") from error
    return config


def _wanted(names: list[str]) -> list[str]:
    weights = [name for name in WEIGHTS if name in names][:1]
    return [n for n in names if n in (CONFIG, "config.json", *TOKEN_FILES)] + weights


def _from_folder(spec: str, folder: Path, revision: str, *, offline: bool) -> Source:
    if lacking := _missing(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(lacking)}; copy the whole model")
    config, weights = _read_config(folder), first_of(folder, WEIGHTS)
    text = config["text_cfg"]
    source = Source(f"local-dir:{folder}", weights or folder, revision, config)
    source.text_folder = folder if "hf_tokenizer_name" in text else None
    if name := text.get("hf_model_name"):
        source.options |= _local_text(config, _text_snapshot(spec, name, config, offline=offline))
    return source
