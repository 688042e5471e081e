"""Which files make a model of transformers: in a folder, in a snapshot, or still on the hub."""

import json
from collections.abc import Sequence
from pathlib import Path

from cliplab.encoders.hub import find_snapshot
from cliplab.runtime import unknown_name

KINDS = ("clip", "chinese_clip", "siglip", "siglip2")
PICTURES = ("preprocessor_config.json", "processor_config.json")  # either describes the resizing
TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKEN_FILES = (*TOKENS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
               "added_tokens.json")  # fmt: skip
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
INDEXES = tuple(f"{name}.index.json" for name in WEIGHTS)  # of weights spread over several files


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


def first_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of several files that a folder has."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks to be a model, alternatives joined by "or"; [] if it is whole."""
    lacking = [] if first_of(folder, ("config.json",)) else ["config.json"]
    lacking += [] if first_of(folder, WEIGHTS + INDEXES) else [" or ".join(WEIGHTS)]
    lacking += [name for name in _shards(folder) if not (folder / name).is_file()]
    return lacking + [" or ".join(n) for n in (PICTURES, TOKENS) if not first_of(folder, n)]


def wanted_files(names: list[str]) -> list[str]:
    """Which files of a repository to download: safetensors, not the same weights once more."""
    weights: list[str] = []
    for whole, index in zip(WEIGHTS, INDEXES, strict=True):
        stem, suffix = whole.split(".")
        shards = [n for n in names if n.startswith(f"{stem}-") and n.endswith(suffix)]
        if not weights and whole in names:
            weights = [whole]
        elif not weights and shards and index in names:
            weights = [*shards, index]
    return [n for n in names if n in ("config.json", *PICTURES, *TOKEN_FILES)] + weights


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers will read: safetensors if there are any.

    Raises:
        FileNotFoundError: naming all that the folder lacks.
    """
    if lacking := missing_files(folder):
        raise FileNotFoundError(f"{folder}: missing {', '.join(lacking)}; copy the whole model")
    whole = first_of(folder, WEIGHTS)
    return [folder / name for name in _shards(folder)] or ([whole] if whole else [])


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


def _shards(folder: Path) -> list[str]:
    """Files that the weights are spread over; [] if they are in one."""
    index = first_of(folder, INDEXES)
    if index is None or first_of(folder, WEIGHTS):
        return []
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: not an index of weights ({error!r})") from error
