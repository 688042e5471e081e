"""GroupViT: an image tower that ends in a few groups of patches, a text tower, two projections.

Letters in shape comments: B images, P patches, G groups, N pairs, K texts, L tokens, C width,
D embedding.

Source: GroupViT, arXiv:2202.11094, section 3. Parameter names and sizes are the official ones, so
that the released weights load; the code is written from the paper.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.groupvit.encoder import GroupingEncoder, Groups, GroupViTConfig
from cliplab.models.layers import Transformer, check_token_ids, pair_logits, unit_rows
from cliplab.models.losses import clip_loss, multi_label_loss
from cliplab.models.weights import (
    StateDict,
    load_strict,
    read_header,
    read_object,
    read_state_dict,
    save_model,
)

MAX_SCALE = 100.0  # the largest 1 / temperature, as in CLIP


class Losses(NamedTuple):
    """The two losses of a batch, scalars in nats."""

    caption: Tensor  # InfoNCE of images and captions
    multi_label: Tensor  # InfoNCE of images and prompted nouns; 0 if there are none


class TextTransformer(nn.Module):
    """CLIP's text tower without its projection: ids (B, L) -> (B, C)."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        width, self.context_length = config.text_width, config.context_length
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(
            width, config.text_layers, config.text_heads, causal=True, ratio=config.text_mlp_ratio
        )
        self.ln_final = nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        self.transformer.initialize()

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, L) -> (B, C), the feature of the end token: the highest id of its row.

        Attention is causal: what stands behind the longest text of a batch is not computed.
        """
        check_token_ids(token_ids, self.context_length)
        ends = token_ids.argmax(dim=-1)  # (B,)
        token_ids = token_ids[:, : int(ends.max()) + 1]
        tok = self.token_embedding(token_ids)  # (B, L, C)
        tok = self.transformer(tok + self.positional_embedding[: token_ids.shape[1]])
        return self.ln_final(tok[torch.arange(len(tok), device=tok.device), ends])


class Pointwise(nn.Conv1d):
    """A linear layer whose weight has the shape of the official convolution of kernel 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C) -> (N, C')."""
        return F.linear(feature, self.weight[..., 0], self.bias)


class Projector(nn.Module):
    """A hidden layer with batch norm between features and embedding, (..., C) -> (..., D)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear_hidden: nn.Module = (
            nn.Sequential(Pointwise(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
            if hidden
            else nn.Identity()
        )
        self.linear_out = Pointwise(hidden or inputs, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C) or (B, G, C) -> (B, D) or (B, G, D)."""
        rows = feature.reshape(-1, feature.shape[-1])  # (B or B*G, C)
        return self.linear_out(self.linear_hidden(rows)).unflatten(0, feature.shape[:-1])


class GroupViT(nn.Module):
    """Images and texts into one space of D dimensions, by way of groups that become segments.

    A new model is untrained; seed first. In training mode assignments are noisy (`config.gumbel`)
    and the projections use the statistics of the batch.
    """

    multi_label_logit_scale: nn.Parameter | None
    vocab: tuple[str, ...]  # word pieces, "[SEP]" last; () for OpenAI's byte pairs

    def __init__(self, config: GroupViTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GroupViTConfig()
        self.vocab = ()
        self.img_encoder = GroupingEncoder(config)
        self.text_encoder = TextTransformer(config)
        hidden, dim = config.projector_width, config.embed_dim
        self.img_projector = Projector(config.widths[-1], hidden, dim)
        self.text_projector = Projector(config.text_width, hidden, dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of 1 / temperature
        self.multi_label_logit_scale = (
            nn.Parameter(torch.tensor(math.log(1 / 0.07))) if config.own_label_scale else None
        )
        for linear in (m for m in self.img_encoder.modules() if isinstance(m, nn.Linear)):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def scale(self, *, labels: bool = False) -> Tensor:
        """1 / temperature, at most 100; `labels`: of the multi-label loss."""
        own = self.multi_label_logit_scale
        log_scale = own if labels and own is not None else self.logit_scale
        return log_scale.exp().clamp(max=MAX_SCALE)

    def group(self, pixels: Tensor) -> Groups:
        """Normalised pixels (B, 3, H, W), sides multiples of the patch -> groups, owners."""
        self._check(pixels)
        return self.img_encoder(pixels)

    def encode_groups(self, groups: Groups) -> tuple[Tensor, Tensor]:
        """Groups -> embeddings of the images (B, D) and of their groups (B, G, D), any length.

        An image's feature is the mean of its groups' features, before the projection.
        """
        return self.img_projector(groups.tok.mean(dim=1)), self.img_projector(groups.tok)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) -> (B, D), not of unit length."""
        return self.img_projector(self.group(pixels).tok.mean(dim=1))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (B, L), L <= context_length -> (B, D), not of unit length."""
        return self.text_projector(self.text_encoder(token_ids))

    def forward(self, pixels: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W), (K, L) -> scaled cosines per image (N, K) and per text (K, N)."""
        image, text = self.encode_image(pixels), self.encode_text(token_ids)
        logits = pair_logits(unit_rows(image), unit_rows(text), self.scale())
        return logits, logits.T

    def losses(self, pixels: Tensor, token_ids: Tensor) -> Losses:
        """Both losses of a batch.

        Args:
            pixels: (N, 3, H, W).
            token_ids: (N, 1 + M, L), the caption of each image and M prompted nouns of it; or
                (N, L), captions only.
        """
        texts = token_ids if token_ids.ndim == 3 else token_ids[:, None]  # (N, 1 + M, L)
        image_emb = unit_rows(self.encode_image(pixels))  # (N, D)
        text_emb = unit_rows(self.encode_text(texts.flatten(0, 1)))
        text_emb = text_emb.unflatten(0, texts.shape[:2])  # (N, 1 + M, D)
        caption = clip_loss(image_emb, text_emb[:, 0], self.scale())
        if texts.shape[1] == 1:
            return Losses(caption, caption.new_zeros(()))
        scale = self.scale(labels=True)
        return Losses(caption, multi_label_loss(image_emb, text_emb[:, 1:], scale))

    def _check(self, pixels: Tensor) -> None:
        patch = self.config.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not all(
            side >= patch and side % patch == 0 for side in pixels.shape[2:]
        ):  # fmt: skip
            raise ValueError(
                f"pixels: got shape {tuple(pixels.shape)}; expected (B, 3, H, W) with sides that "
                f"are multiples of {patch}, as cliplab.segmentation cuts them"
            )


# ---- files: the official layout, that of transformers, and ours -----------------------------

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
