"""Which segmenter is meant, and what to say if it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.data import shown
from cliplab.runtime import checkpoint_dir, sha256, unknown_name, verify_checkpoint

if TYPE_CHECKING:
    from cliplab.segmentation import Segmenter

_SHIPPED = "pasture"
_PHOTOGRAPHS = "hf:nvidia/groupvit-gcc-yfcc"


def checkpoint_path(spec: str, *, offline: bool) -> Path:
    """The file of the weights, or the folder that holds them.

    Args:
        spec: "pasture", the shipped model; "hf:<repo>[@revision]" or "hf:<folder>"; or a path.
        offline: whether downloads are forbidden.

    Raises:
        FileNotFoundError: nothing there, and how to get it.
        ValueError: neither a model nor a path, or damaged.
    """
    prefix, colon, where = spec.partition(":")
    if prefix == "hf" and colon:
        from cliplab.segmentation.segmenter import hub_folder

        return hub_folder(where, offline=offline)
    path = checkpoint_dir("groupvit") if spec == _SHIPPED else Path(spec).expanduser()
    if spec == _SHIPPED and not _weights(path).is_file():
        raise FileNotFoundError(
            f"{shown(_weights(path))}: there is no shipped segmenter; make it with "
            "`python -m cliplab train groupvit`, restore data/checkpoints/groupvit, or use "
            f"another: --model {_PHOTOGRAPHS}, or the path of one"
        )
    if not path.exists():
        looks_like_path = path.suffix or len(path.parts) > 1
        known = unknown_name("model", spec, [_SHIPPED, _PHOTOGRAPHS])
        if looks_like_path:
            raise FileNotFoundError(f"{shown(path)}: no such file or folder; check --model")
        raise ValueError(f"--model: {known}, or the path of a GroupViT")
    verify_checkpoint(_weights(path).parent, [_weights(path).name])
    return path


def _weights(path: Path) -> Path:
    """The file that is read at `path`."""
    from cliplab.models.groupvit.files import WEIGHTS

    if path.is_file():
        return path
    return next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])


def chosen_reading(path: Path, language: str) -> dict[str, Any]:
    """How a model is best read, as its training chose on val; {} if its card does not say.

    Args:
        path: of the weights, or the folder that holds them.
        language: "en" or "zh", of the words.

    Returns:
        "top_words" (None: all), "templates", "hard", "scales", "flip" and "refine" of
        `cliplab.segmentation.Settings`.
    """
    card = _weights(path).parent / "model_card.json"
    if not card.is_file():
        return {}
    metrics = json.loads(card.read_text("utf-8")).get("metrics", {})
    reading = metrics.get(language, {}).get("reading", {})
    names = ("top_words", "templates", "hard", "scales", "flip", "refine")
    return {name: reading[name] for name in names if name in reading}


def load(spec: str, *, device: str, offline: bool) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter called `spec`, and where it came from, for a report.

    "readings" of the second is how it is best read in each language, see `chosen_reading`.

    Raises:
        FileNotFoundError, ValueError: as `checkpoint_path`; or another model than a GroupViT.
    """
    path = checkpoint_path(spec, offline=offline)
    from cliplab.segmentation import load_segmenter

    segmenter = load_segmenter(str(path), device=device, offline=True)
    segmenter.name = spec
    config, weights = segmenter.model.config, _weights(path)
    return segmenter, {
        "model": "groupvit",
        "name": spec,
        "readings": {language: chosen_reading(path, language) for language in ("en", "zh")},
        "file": shown(weights),
        "sha256": sha256(weights),
        "groups": config.output_groups[-1] if config.stages else None,
        "patch": config.patch_size,
        "side": config.test_resolution or 2 * config.image_resolution,
        "tokenizer": type(segmenter.tokenizer).__name__,
        "device": str(segmenter.device),
    }
