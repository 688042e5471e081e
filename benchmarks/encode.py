"""How fast are pictures and texts embedded, beside the seed's listing and the official code?

One random ViT-B/32 in everybody's classes, all threads that torch takes. The contenders take turns,
so that whatever else the machine does hits all alike; the figures are medians over the rounds.
"""

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from _shared import VIT_B_32, Work, take_turns, verdicts
from safetensors.torch import save_file
from torch import Tensor

from cliplab.data import open_image
from cliplab.encoders import Encoder, embed_photos, load_encoder, read_openai
from cliplab.models.clip import CLIP
from cliplab.models.weights import to_published_precision
from cliplab.pasture import caption, draw, herd, portrait
from cliplab.runtime import checkpoint_dir

BATCH, ROUNDS = 64, 3
LISTED = 6  # pictures for the listing, which takes them one by one
PICTURES = {"float32": 128, "bfloat16": 256}  # read from files, about as many seconds each
TEXTS = ["喝水的羊", "吃饭的羊", "躺着的羊", "站着的羊"]  # the listing's
SHIPPED = (
    ("pasture", f"openai:{checkpoint_dir('clip-openai') / 'model.pt'}", "en"),
    ("pasture-zh", f"modelscope:{checkpoint_dir('clip-chinese')}", "zh"),
)


def rates(contenders: dict[str, tuple[int, Work]]) -> dict[str, float]:
    """name -> (pictures, work): pictures per second."""
    took = take_turns({name: work for name, (_, work) in contenders.items()}, ROUNDS)
    return {name: count / took[name] for name, (count, _) in contenders.items()}


# ---- one set of weights in everybody's classes -----------------------------------------------


def random_weights() -> dict[str, Tensor]:
    """A ViT-B/32 drawn at random, its matrices rounded to fp16 as published ones are."""
    torch.manual_seed(0)
    return to_published_precision(CLIP(VIT_B_32).state_dict())


def in_clip(weights: dict[str, Tensor]) -> torch.nn.Module:
    """What `clip.load` builds from these weights on a CPU."""
    from clip.model import build_model

    return build_model(dict(weights)).float()


def in_open_clip(weights: dict[str, Tensor]) -> torch.nn.Module:
    import open_clip

    model = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    return model


def in_transformers(weights: dict[str, Tensor]) -> torch.nn.Module:
    from transformers import CLIPConfig as Config, CLIPModel

    model = CLIPModel(Config()).eval()  # its default is the ViT-B/32
    tensors = {}
    for name, tensor in weights.items():
        tensors |= renamed(name, tensor.float())
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    if missing:
        raise ValueError(f"transformers: no weights for {missing}; its names have changed")
    return model


NAMES = (  # OpenAI's -> transformers'
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"\.attn\.out_proj", ".self_attn.out_proj"),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc", ".mlp.fc1"),
    (r"\.mlp\.c_proj", ".mlp.fc2"),
    (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),
    (r"^visual\.ln_post", "vision_model.post_layernorm"),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^token_embedding", "text_model.embeddings.token_embedding"),
    (r"^positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final", "text_model.final_layer_norm"),
    (r"^text_projection", "text_projection.weight"),
)


def renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor under transformers' names; the three projections of attention apart."""
    for old, new in NAMES:
        name = re.sub(old, new, name)
    if ".attn.in_proj_" in name:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {
            name.replace(".attn.in_proj_", f".self_attn.{part}_proj."): rows for part, rows in parts
        }
    return {name: tensor.T if name.endswith("projection.weight") else tensor}


# ---- from pixels in memory -------------------------------------------------------------------


@torch.inference_mode()
def plainly(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """The official call for images, whoever's model it is -> (B, D)."""
    if not hasattr(model, "get_image_features"):
        return model.encode_image(pixels)
    features = model.get_image_features(pixel_values=pixels)
    return features if isinstance(features, Tensor) else features.pooler_output


def listing(model: torch.nn.Module, pixels: Tensor) -> None:
    """The seed notes' second listing for each picture: both towers, and then both once more."""
    import clip

    for image in pixels:
        text = clip.tokenize(TEXTS)
        with torch.no_grad():
            model.encode_image(image.unsqueeze(0))
            model.encode_text(text)
            logits_per_image, _ = model(image.unsqueeze(0), text)
            logits_per_image.softmax(dim=-1)


def check_same(name: str, found: Tensor, expected: Tensor, least: float) -> float:
    """The lowest cosine between rows; an error if the contenders do not compute the same."""
    cosine = torch.cosine_similarity(found.float(), expected.float()).min().item()
    if cosine < least:
        raise ValueError(f"{name}: cosine {cosine:.5f} to ours; expected {least} or more")
    return cosine


def from_pixels(
    weights: dict[str, Tensor], encoders: dict[str, Encoder], pixels: Tensor
) -> tuple[dict[str, float], float]:
    """Pictures per second of every contender, and the lowest cosine of bfloat16 to float32."""
    official = {
        "`clip`": in_clip(weights),
        "`open_clip`": in_open_clip(weights),
        "`transformers`": in_transformers(weights),
    }
    ours = encoders["float32"].encode_pixels([pixels])
    for name, model in official.items():
        check_same(name, plainly(model, pixels), ours, 0.9999)
    cosine = check_same("bfloat16", encoders["bfloat16"].encode_pixels([pixels]), ours, 0.99)
    contenders: dict[str, tuple[int, Work]] = {
        "the seed's listing": (LISTED, lambda: listing(official["`clip`"], pixels[:LISTED]))
    }
    for name, model in official.items():
        contenders[f"{name}, float32"] = (BATCH, lambda m=model: plainly(m, pixels))
    for precision, encoder in encoders.items():
        contenders[f"ours, {precision}"] = (BATCH, lambda e=encoder: e.encode_pixels([pixels]))
    return rates(contenders), cosine


# ---- from files ------------------------------------------------------------------------------


def make_photos(folder: Path) -> list[Path]:
    """64 photos of 640 x 480, as JPEG."""
    paths = [folder / f"{i:02}.jpg" for i in range(BATCH)]
    for i, path in enumerate(paths):
        draw(herd(i, split="test"), 640).crop((0, 80, 640, 560)).save(path, quality=90)
    return paths


def from_files(encoders: dict[str, Encoder], paths: list[Path], pixels: Tensor) -> dict:
    """Pictures per second from files and, taking turns with that, from pixels in memory."""
    contenders: dict[str, tuple[int, Work]] = {}
    for precision, encoder in encoders.items():
        times = PICTURES[precision] // BATCH
        work = (lambda e=encoder, n=times: e.encode_pixels([pixels] * n),)
        contenders[f"{precision}, from pixels in memory"] = (times * BATCH, *work)
        work = (lambda e=encoder, n=times: embed_photos(e, paths * n, batch_size=BATCH),)
        contenders[f"{precision}, from JPEG files of 640 x 480"] = (times * BATCH, *work)
    return rates(contenders)


# ---- the shipped models ----------------------------------------------------------------------


def shipped() -> None:
    """Our readable classes beside `clip` and `modelscope`, same weights, 64-pixel pictures."""
    scenes = [portrait(i, split="test") for i in range(256)]
    images = [draw(scene, 64) for scene in scenes]
    print("| shipped model, 64 px | images per second | texts per second |\n|---|---:|---:|")
    for ours, official, language in SHIPPED:
        texts = [caption(scene, language) for scene in scenes]
        names = {ours: ours, official: f"{official.split(':')[0]}, official code"}
        work: dict[str, tuple[int, Work]] = {}
        for spec in names:
            encoder = load_encoder(spec, device="cpu")
            work[f"{spec} images"] = (len(images), lambda e=encoder: e.encode_image(images))
            work[f"{spec} texts"] = (len(texts), lambda e=encoder, t=texts: e.encode_text(t))
        found = rates(work)
        for spec, name in names.items():
            print(f"| {name} | {found[f'{spec} images']:,.0f} | {found[f'{spec} texts']:,.0f} |")


# ---- the report ------------------------------------------------------------------------------


def beside_goals(
    pixels: dict[str, float], files: dict[str, float], cosine: float
) -> Iterator[tuple[str, float, float]]:
    """What, what was meant, at least, and measured."""
    best = max(rate for name, rate in pixels.items() if name.startswith("`"))
    ours, half = pixels["ours, float32"], pixels["ours, bfloat16"]
    yield "float32 / the seed's listing", 6, ours / pixels["the seed's listing"]
    yield "float32 / the best of the official ones", 1, ours / best
    yield "bfloat16 / float32", 3, half / ours
    yield "lowest cosine of bfloat16 to float32", 0.999, cosine
    memory, jpeg = list(files.values())[::2], list(files.values())[1::2]
    for precision, fast, slow in zip(PICTURES, memory, jpeg, strict=True):
        yield f"{precision}, files / memory", 0.9, slow / fast


def main() -> None:
    warnings.simplefilter("ignore")  # of the official packages, which are on stderr
    logging.disable(logging.WARNING)
    weights = random_weights()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(weights, folder / "model.safetensors")
        encoders = {
            precision: read_openai(folder / "model.safetensors").encoder(
                "ViT-B/32", torch.device("cpu"), precision
            )
            for precision in PICTURES
        }
        paths = make_photos(folder)
        pixels = torch.stack([encoders["float32"].preprocess(open_image(p)) for p in paths])
        by_pixels, cosine = from_pixels(weights, encoders, pixels)
        by_files = from_files(encoders, paths, pixels)
    print(f"ViT-B/32, random weights, batches of {BATCH}:\n")
    print("| encoder | images per second |\n|---|---:|")
    for name, rate in {**by_pixels, **by_files}.items():
        print(f"| {name} | {rate:,.1f} |")
    verdicts(beside_goals(by_pixels, by_files, cosine))
    shipped()


if __name__ == "__main__":
    main()
