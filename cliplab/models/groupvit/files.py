"""GroupViT in files: the official layout, that of transformers, and ours."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.models.groupvit.config import GroupViTConfig
from cliplab.models.groupvit.model import GroupViT
from cliplab.models.weights import (
    StateDict,
    load_strict,
    read_header,
    read_object,
    read_state_dict,
    save_model,
)

FORMAT = "cliplab.groupvit"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder, in the order of preference
_PROJECTORS = ("img_projector.", "text_projector.")
_ATTENTION = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$")
# transformers' name -> the official one; all that match are applied, in this order.
_RENAMES = (
    (r"^vision_model\.embeddings\.position_embeddings$", "img_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embeddings\.projection\.", "img_encoder.patch_embed.proj."),
    (r"^vision_model\.embeddings\.layernorm\.", "img_encoder.patch_embed.norm."),
    (r"^vision_model\.layernorm\.", "img_encoder.norm."),
    (r"^vision_model\.encoder\.stages\.(\d+)\.layers\.", r"img_encoder.layers.\1.blocks."),
    (r"^vision_model\.encoder\.stages\.", "img_encoder.layers."),
    (r"\.pre_assign_attn\.attn\.out_proj\.", ".pre_assign_attn.attn.proj."),
    (r"^(img_encoder\..*blocks\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^(img_encoder\..*blocks\.\d+)\.self_attn\.out_proj\.", r"\1.attn.proj."),
    (r"^(img_encoder\..*blocks\.\d+)\.self_attn\.qkv\.", r"\1.attn.qkv."),
    (r"^text_model\.embeddings\.token_embedding\.", "text_encoder.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text_encoder.positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "text_encoder.ln_final."),
    (r"^text_model\.encoder\.layers\.", "text_encoder.transformer.resblocks."),
    (r"(resblocks\.\d+)\.layer_norm(\d)\.", r"\1.ln_\2."),
    (r"(resblocks\.\d+)\.self_attn\.qkv\.", r"\1.attn.in_proj_"),
    (r"(resblocks\.\d+)\.self_attn\.", r"\1.attn."),
    (r"(resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"(resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
    (r"^visual_projection\.", "img_projector."),
    (r"^text_projection\.", "text_projector."),
    (r"^(img|text)_projector\.([01])\.", r"\1_projector.linear_hidden.\2."),
    (r"^(img|text)_projector\.3\.", r"\1_projector.linear_out."),
)
_KNOWN_SETTINGS = {  # of transformers' configuration: with another value it is another model
    "vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "assign_eps": 1.0},
    "text_config": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}


def load_groupvit(path: str | Path) -> GroupViT:
    """The model of a file or folder, in float32, in eval mode, on the CPU.

    Args:
        path: what `save_groupvit` wrote; weights under the official names (.pth, .safetensors); or
            a folder that transformers' `save_pretrained` wrote.

    Raises:
        FileNotFoundError: nothing there, or a folder without weights.
        ValueError: a damaged file, more than tensors in a pickle, or another model; with the
            missing and unexpected names.
    """
    path, folder = Path(path), None
    if path.is_dir():
        folder, path = path, weights_in(path)
        if not path.is_file():
            expected = f"{' or '.join(WEIGHTS)} (in one piece, not in shards)"
            raise FileNotFoundError(f"{folder}: no weights; expected {expected}")
    tensors = read_state_dict(path)
    if header := read_header(path, FORMAT):
        model = _build(GroupViTConfig(**header["config"]), path)
        model.vocab = tuple(header.get("vocab", ()))
        return load_strict(model, tensors, str(path))
    settings = _settings(folder) if folder else {}
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        tensors = official_names(tensors)
    try:
        config = GroupViTConfig.from_state_dict(
            tensors, heads=settings.get("heads"), text_heads=settings.get("text_heads")
        )
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: {error}") from error
    colours = {k: v for k, v in settings.items() if k in ("image_mean", "image_std")}
    return load_strict(_build(GroupViTConfig(**asdict(config) | colours), path), tensors, str(path))


def weights_in(path: Path) -> Path:
    """The file that is read at `path`."""
    if path.is_file():
        return path
    return next((path / name for name in WEIGHTS if (path / name).is_file()), path / WEIGHTS[0])


def save_groupvit(model: GroupViT, path: str | Path) -> None:
    """Write weights (matrices in fp16), configuration and vocabulary to a .safetensors file."""
    save_model(model, path, FORMAT, config=asdict(model.config), vocab=model.vocab)


def official_names(tensors: Mapping[str, Tensor]) -> StateDict:
    """transformers' names and shapes -> the official ones; unknown names stay as they are.

    transformers keeps query, key and value apart and has linear layers for the convolutions of
    kernel 1. Its buffer of position numbers is left out.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    joined = {}
    for name, tensor in tensors.items():
        if found := _ATTENTION.fullmatch(name):
            parts.setdefault(f"{found[1]}.self_attn.qkv.{found[3]}", {})[found[2]] = tensor
        elif not name.endswith("embeddings.position_ids"):
            joined[name] = tensor
    for name, qkv in parts.items():  # an incomplete one keeps a shape that will be refused
        joined[name] = torch.cat([qkv[part] for part in "qkv" if part in qkv])
    renamed = {_rename(name): tensor for name, tensor in joined.items()}
    return {
        name: tensor[..., None] if name.startswith(_PROJECTORS) and tensor.ndim == 2 else tensor
        for name, tensor in renamed.items()
    }


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _build(config: GroupViTConfig, path: Path) -> GroupViT:
    with torch.device("meta"):
        try:
            return GroupViT(config)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _settings(folder: Path) -> dict[str, Any]:
    """What the JSON files of a transformers folder tell that the weights do not."""
    paths = folder / "config.json", folder / "preprocessor_config.json"
    config, pictures = (read_object(path) if path.is_file() else {} for path in paths)
    for part, known in _KNOWN_SETTINGS.items():
        said = config.get(part) or {}
        if odd := {k: said[k] for k, v in known.items() if k in said and said[k] != v}:
            raise ValueError(f"{folder}/config.json: {part} has {odd}; expected {known}")
    found: dict[str, Any] = {k: pictures[k] for k in ("image_mean", "image_std") if k in pictures}
    vision = config.get("vision_config") or {}
    if "num_attention_heads" in vision:
        found["heads"] = (vision["num_attention_heads"],) * len(vision.get("depths", (6, 3, 3)))
    if "num_attention_heads" in (config.get("text_config") or {}):
        found["text_heads"] = config["text_config"]["num_attention_heads"]
    return found
