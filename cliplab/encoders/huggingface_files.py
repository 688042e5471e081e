"""Which files make a model of transformers: in a folder, in a snapshot, or still on the hub."""

import json
from pathlib import Path

from cliplab.encoders.hub import find_snapshot
from cliplab.runtime import unknown_name

KINDS = ("clip", "chinese_clip", "siglip", "siglip2")
PICTURES = ("preprocessor_config.json", "processor_config.json")  # either describes the resizing
TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKEN_FILES = (*TOKENS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
               "added_tokens.json")  # fmt: skip
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference


def find_folder(where: str, *, offline: bool) -> tuple[Path, str]:
    """Folder and commit ("" for a folder of your own) of what follows the colon.

    Raises:
        FileNotFoundError: no such folder; or a repository that is neither cached nor to be had.
    """
    if (folder := Path(where).expanduser()).is_dir():
        return folder, ""
    repo, _, revision = where.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or repo.startswith((".", "~")):
        raise FileNotFoundError(
            f"hf:{where}: no such path; expected a folder that save_pretrained wrote, or a "
            "repository such as openai/clip-vit-base-patch32[@revision]"
        )
    return find_snapshot(
        f"hf:{where}", repo, revision, missing=missing_files, choose=wanted_files, offline=offline
    )


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a model, alternatives joined by "or"; [] if it is whole."""
    weights = any((folder / name).is_file() for name in (*WEIGHTS, *map(_index, WEIGHTS)))
    lacking = [] if weights else [" or ".join(WEIGHTS)]
    lacking += [name for name in _shards(folder) if not (folder / name).is_file()]
    if not (folder / "config.json").is_file():
        lacking.insert(0, "config.json")
    for names in (PICTURES, TOKENS):
        if not any((folder / name).is_file() for name in names):
            lacking.append(" or ".join(names))
    return lacking


def wanted_files(names: list[str]) -> list[str]:
    """Which files of a repository to download: safetensors, not the same weights once more."""
    stems = [w.partition(".")[0] for w in WEIGHTS]
    for stem, suffix in zip(stems, (".safetensors", ".bin"), strict=True):
        shards = [n for n in names if n.startswith(f"{stem}-") and n.endswith(suffix)]
        whole = [n for n in names if n == stem + suffix]
        index = [n for n in names if n == _index(stem + suffix)] if shards and not whole else []
        if whole or index:
            weights = whole or [*shards, *index]
            break
    else:
        weights = []
    return [n for n in names if n in ("config.json", *PICTURES, *TOKEN_FILES)] + weights


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers will read: safetensors if there are any.

    Raises:
        FileNotFoundError: naming all that the folder lacks.
    """
    if lacking := missing_files(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(lacking)}; copy the whole model")
    if shards := _shards(folder):
        return [folder / name for name in shards]
    return [next(folder / name for name in WEIGHTS if (folder / name).is_file())]


def read_kind(folder: Path) -> str:
    """model_type of config.json.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: it cannot be read, or is of a model without two towers.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; expected a folder that save_pretrained wrote")
    try:
        kind = json.loads(path.read_text("utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a model's config ({error!r}); copy it again") from error
    if kind not in KINDS:
        raise ValueError(f"{path}: {unknown_name('model_type', str(kind), KINDS)}")
    return kind


def _index(name: str) -> str:
    return f"{name}.index.json"


def _shards(folder: Path) -> list[str]:
    """Files that the weights are spread over; [] if they are in one."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return []
        if (index := folder / _index(name)).is_file():
            try:
                return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{index}: not an index of weights ({error!r})") from error
    return []
