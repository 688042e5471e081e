"""GroupViT in files: the official layout, that of transformers, and ours."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
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
# A setting of ours -> its place in the configuration of transformers, whose defaults are ours.
_SETTINGS = {
    "image_resolution": ("vision_config", "image_size"),
    "patch_size": ("vision_config", "patch_size"),
    "depths": ("vision_config", "depths"),
    "assign_mlp_ratios": ("vision_config", "assign_mlp_ratio"),
    "context_length": ("text_config", "max_position_embeddings"),
    "vocab_size": ("text_config", "vocab_size"),
    "text_width": ("text_config", "hidden_size"),
    "text_heads": ("text_config", "num_attention_heads"),
    "text_layers": ("text_config", "num_hidden_layers"),
}
_KNOWN_SETTINGS = {  # with another value it is another model
    "vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "assign_eps": 1.0},
    "text_config": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}


def load_groupvit(path: str | Path) -> GroupViT:
    """The model of a file or folder, in float32, in eval mode, on the CPU.

    Args:
        path: what `save_groupvit` wrote; published weights under the official names (.pth,
            .safetensors); or a folder that transformers' `save_pretrained` wrote.

    Raises:
        FileNotFoundError: nothing there, or a folder without weights.
        ValueError: a damaged file, more than tensors in a pickle, or another model; with the
            missing and unexpected names.
    """
    folder, path = Path(path), weights_in(Path(path))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {' or '.join(WEIGHTS)}, unsharded")
    tensors = read_state_dict(path)
    if header := read_header(path, FORMAT):
        model = _build(GroupViTConfig(**header["config"]))
        model.vocab = tuple(header.get("vocab", ()))
        return load_strict(model, tensors, str(path))
    config = _config_in(folder) if folder.is_dir() else GroupViTConfig()
    config = replace(config, own_label_scale="multi_label_logit_scale" in tensors)
    if any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        tensors = official_names(tensors)
    return load_strict(_build(config), tensors, str(path))


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


def _build(config: GroupViTConfig) -> GroupViT:
    with torch.device("meta"):
        return GroupViT(config)


def _config_in(folder: Path) -> GroupViTConfig:
    """What the JSON files of a transformers folder say; the published sizes where they do not."""
    paths = folder / "config.json", folder / "preprocessor_config.json"
    whole, pictures = (read_object(path) if path.is_file() else {} for path in paths)
    parts = {name: whole.get(name) or {} for name in _KNOWN_SETTINGS}
    for name, known in _KNOWN_SETTINGS.items():
        if odd := {k: v for k, v in parts[name].items() if v != known.get(k, v)}:
            raise ValueError(f"{folder}/config.json: {name} has {odd}; expected {known}")
    vision, text = parts["vision_config"], parts["text_config"]
    found: dict[str, Any] = {k: pictures[k] for k in ("image_mean", "image_std") if k in pictures}
    for ours, (name, theirs) in _SETTINGS.items():
        if theirs in parts[name]:
            found[ours] = parts[name][theirs]
    stages, width = len(found.get("depths", (6, 3, 3))), vision.get("hidden_size", 384)
    return GroupViTConfig(
        widths=(width,) * stages,
        heads=(vision.get("num_attention_heads", 6),) * stages,
        group_tokens=vision.get("num_group_tokens", (64, 8, 0))[: stages - 1],
        output_groups=vision.get("num_output_groups", (64, 8, 8))[: stages - 1],
        embed_dim=whole.get("projection_dim", 256),
        projector_width=whole.get("projection_intermediate_dim", 4096),
        mlp_ratio=vision.get("intermediate_size", 1536) / width,
        text_mlp_ratio=text.get("intermediate_size", 1024) / found.get("text_width", 256),
        **found,
    )
