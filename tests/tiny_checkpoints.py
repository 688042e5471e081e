"""Small random checkpoints in the official formats, laid out like data/checkpoints."""

import json
from pathlib import Path
from typing import Any

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
    save_openai(model.state_dict(), folder / "model.pt")
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


# ---- transformers ----------------------------------------------------------------------------

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TOWER |= {"num_attention_heads": 2}
PICTURE = TOWER | {"image_size": 32, "patch_size": 16}
WORDS = ["sheep", "grass", "lying", "photo", "goat"]
HF_KINDS = ("clip", "chinese_clip", "siglip", "siglip2", "siglip2-naflex")


def make_hf(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A model of transformers of 32 px and a tokenizer of its kind -> its folder, official layout.

    "siglip2" is one of the fixed-size SigLIP 2, which are published as a `siglip` with Gemma's
    tokenizer; "siglip2-naflex" keeps the aspect ratio.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = {"clip": _clip_tokens, "chinese_clip": _bert_tokens, "siglip": _siglip_tokens}
    tokenizer = tokenizer.get(kind, _gemma_tokens)(folder)
    model, processor = _hf_model(kind, len(tokenizer))
    for name, tensor in model.named_parameters():  # the initial ones are so small that
        if tensor.dim() > 1 and "logit" not in name:  # every picture would look the same
            torch.nn.init.normal_(tensor, std=0.3)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _hf_model(kind: str, vocab_size: int) -> tuple:
    import transformers as t

    text = TOWER | {"vocab_size": vocab_size}
    if kind == "clip":
        text |= {"max_position_embeddings": 77, "eos_token_id": vocab_size - 1}
        text |= {"bos_token_id": vocab_size - 2, "pad_token_id": vocab_size - 1}
        config = t.CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=24)
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        return t.CLIPModel(config), t.CLIPImageProcessor(**size)
    if kind == "chinese_clip":
        text |= {"max_position_embeddings": 64}
        config = t.ChineseCLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=24)
        square = {"height": 32, "width": 32}  # as published: squashed, not cropped
        size = {"size": square, "do_center_crop": False}
        return t.ChineseCLIPModel(config), t.ChineseCLIPImageProcessor(**size)
    text |= {"max_position_embeddings": 64, "projection_size": 32}
    if kind == "siglip2-naflex":
        picture = TOWER | {"num_patches": 16, "patch_size": 16}
        config = t.Siglip2Config(text_config=text, vision_config=picture)
        return t.Siglip2Model(config), t.Siglip2ImageProcessor(patch_size=16, max_num_patches=16)
    config = t.SiglipConfig(text_config=text, vision_config=PICTURE)
    return t.SiglipModel(config), t.SiglipImageProcessor(size={"height": 32, "width": 32})


def _clip_tokens(folder: Path) -> Any:
    """Byte pairs: every byte, every byte at the end of a word, five whole words."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    merges = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        merges += [("".join(parts[:i]), parts[i]) for i in range(1, len(parts))]
    merges = list(dict.fromkeys(merges))
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _bert_tokens(folder: Path) -> Any:
    """Word pieces; only vocab.txt, which is all that OFA-Sys published."""
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join([*VOCAB, "sheep", "##s"]) + "\n", encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def _siglip_tokens(folder: Path) -> Any:
    """A unigram vocabulary with </s> at the end, as the tokenizer.json of SigLIP has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<unk>", "</s>", "\u2581", *letters, *("\u2581" + w for w in WORDS)]
    raw = Tokenizer(models.Unigram([(t, -float(i)) for i, t in enumerate(tokens)], unk_id=0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    raw.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, **names)
    return _save_tokens(tokenizer, folder, "SiglipTokenizer")


def _gemma_tokens(folder: Path) -> Any:
    """Byte pairs with a fallback to bytes, <eos> at the end, as Gemma's in SigLIP 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = list("abcdefghijklmnopqrstuvwxyzABCDE羊山.,!\u2581")
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{b:02X}>" for b in range(256)), *letters]
    vocab, merges = {token: i for i, token in enumerate(tokens)}, []
    for word in WORDS:
        for i in range(1, len(word)):
            merges.append((word[:i], word[i]))
            vocab.setdefault(word[: i + 1], len(vocab))
    raw = Tokenizer(
        models.BPE(vocab, list(dict.fromkeys(merges)), unk_token="<unk>", byte_fallback=True)
    )
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_previous")
    raw.decoder = decoders.ByteFallback()
    raw.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    names = {"eos_token": "<eos>", "pad_token": "<pad>", "bos_token": "<bos>"}
    names |= {"unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, **names)
    return _save_tokens(tokenizer, folder, "GemmaTokenizer")


def _save_tokens(tokenizer: Any, folder: Path, published: str) -> Any:
    """Save under the class that the published repositories name, padded on the right as there."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"tokenizer_class": published, "padding_side": "right"}
    path.write_text(json.dumps(config), encoding="utf-8")
    return tokenizer


# ---- open_clip -------------------------------------------------------------------------------

OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def make_open_clip(folder: Path, name: str, config: dict, *, seed: int = 0) -> Path:
    """Registers the architecture `name` with open_clip -> a checkpoint of it in `folder`."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(seed)
    model = open_clip.create_model(name, pretrained_text=False)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                torch.nn.init.normal_(tensor, std=0.3)
    path = folder / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path
