"""Small random checkpoints in the official formats, laid out like data/checkpoints."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cliplab.models.chinese_clip import ChineseCLIP, ChineseCLIPConfig, save_modelscope
from cliplab.models.clip import CLIP, CLIPConfig, save_openai

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"站立的羊进食躺着喝水吃饭一只绵马牛狗山"]
VIT = {"vision_layers": 1, "vision_width": 64, "vision_patch_size": 16}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None}


def make_openai(folder: Path, tower: dict, *, seed: int = 0) -> Path:
    """A 64 px CLIP of 32 dimensions with the full byte-pair vocabulary -> its model.pt."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        embed_dim=32,
        image_resolution=64,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
        **tower,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = CLIP(config)
    with torch.no_grad():  # zeros compress well: most of the time goes into writing these rows
        model.token_embedding.weight[16_000:49_000] = 0
    save_openai(model, folder / "model.pt")
    return folder / "model.pt"


def make_modelscope(folder: Path, tower: dict, *, seed: int = 0) -> Path:
    """A 64 px Chinese-CLIP of 32 dimensions with the vocabulary VOCAB -> its folder."""
    torch.manual_seed(seed)
    config = ChineseCLIPConfig(
        embed_dim=32,
        image_resolution=64,
        vocab_size=len(VOCAB),
        text_hidden_size=32,
        text_num_hidden_layers=1,
        text_num_attention_heads=2,
        text_intermediate_size=64,
        text_max_position_embeddings=64,
        **tower,
    )
    save_modelscope(ChineseCLIP(config), folder, VOCAB)
    return folder


def noise_images(n: int, *, seed: int = 0) -> list[Image.Image]:
    """Random RGB images of different sizes, wide and tall."""
    rng = np.random.default_rng(seed)
    sizes = [(int(h), int(w)) for h, w in rng.integers(50, 120, (n, 2))]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
