"""Our Chinese-CLIP against tensors of ModelScope's, and our directories against its loader."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity.reference import GOLDEN, Reference, read_reference
from PIL import Image
from torch import Tensor, nn

from cliplab.encoders.two_towers import modelscope_preprocess
from cliplab.models.chinese_clip import (
    ChineseCLIP,
    ChineseCLIPConfig,
    load_modelscope,
    save_modelscope,
)
from cliplab.models.tokenizers import WordPieceTokenizer, read_vocab
from cliplab.models.weights import load_strict

MODEL_DIR = GOLDEN / "chinese_clip" / "model_dir"


@pytest.fixture(scope="module")
def golden() -> Reference:
    return read_reference("chinese_clip/model")


@pytest.fixture
def model() -> ChineseCLIP:
    return load_modelscope(MODEL_DIR)


@pytest.fixture(scope="module")
def official() -> Callable[[Path], nn.Module]:
    module = pytest.importorskip(
        "modelscope.models.multi_modal.clip.model", reason="needs modelscope[framework]"
    )
    return lambda folder: module.CLIPForMultiModalEmbedding(str(folder))


def test_configuration_is_the_one_in_the_files(golden: Reference, model: ChineseCLIP) -> None:
    config = golden.notes["config"]
    assert model.config == ChineseCLIPConfig(**config["vision"], **config["text"])


@torch.no_grad()
def test_embeddings_and_logits(golden: Reference, model: ChineseCLIP) -> None:
    pixels, token_ids = golden.inputs["image"], golden.inputs["ids"]
    golden.assert_close("encode_image", model.encode_image(pixels))
    golden.assert_close("encode_text", model.encode_text(token_ids))
    golden.assert_close("logit_scale_exp", model.logit_scale.exp())
    per_image, per_text = model(pixels, token_ids)
    golden.assert_close("logits_per_image", per_image)
    golden.assert_close("logits_per_text", per_text)


@torch.no_grad()
def test_directory_from_pictures_and_words_to_embeddings(
    golden: Reference, model: ChineseCLIP
) -> None:
    tokenizer = WordPieceTokenizer(MODEL_DIR / "vocab.txt")
    token_ids = tokenizer(golden.notes["texts"])
    assert torch.equal(token_ids, golden.inputs["text_ids52"])
    golden.assert_close("dir.text_embedding", F.normalize(model.encode_text(token_ids), dim=-1))
    preprocess = modelscope_preprocess(model.config.image_resolution)
    images = [Image.fromarray(golden.inputs[f"rgb{i}"].numpy()) for i in (0, 1)]
    pixels = torch.stack([preprocess(image) for image in images])
    # One 8-bit step is 0.015 after normalisation; another Pillow may resample one step away.
    torch.testing.assert_close(pixels, golden.outputs["dir.preprocessed"], atol=0.02, rtol=0)
    image_emb = F.normalize(model.encode_image(golden.outputs["dir.preprocessed"]), dim=-1)
    golden.assert_close("dir.img_embedding", image_emb)


@torch.no_grad()
@pytest.mark.parametrize(
    "mistake", ["bert_gelu_tanh", "bert_ln_eps_1e-5_instead_of_1e-12", "no_pad_mask"]
)
def test_the_tolerance_catches_typical_mistakes(
    mistake: str, golden: Reference, model: ChineseCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in model.bert.modules():
        if mistake == "bert_gelu_tanh" and isinstance(module, nn.GELU):
            module.approximate = "tanh"
        if mistake.startswith("bert_ln") and isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    if mistake == "no_pad_mask":
        forward = model.bert.forward
        monkeypatch.setattr(model.bert, "forward", lambda ids, mask: forward(ids, mask | True))
    error = (model.encode_text(golden.inputs["ids"]) - golden.outputs["encode_text"]).abs().max()
    assert error.item() == pytest.approx(
        golden.notes["mutations"][mistake]["encode_text"], rel=0.05
    )
    assert error > 10 * golden.atol("encode_text")


@torch.no_grad()
def test_official_class_reads_the_golden_directory_saved_again(
    golden: Reference, model: ChineseCLIP, official: Callable, tmp_path: Path
) -> None:
    save_modelscope(model, tmp_path / "again", read_vocab(MODEL_DIR / "vocab.txt"))
    reader = official(tmp_path / "again")
    text = reader({"text": golden.inputs["text_ids52"]})["text_embedding"]
    image = reader({"img": golden.outputs["dir.preprocessed"]})["img_embedding"]
    golden.assert_close("dir.text_embedding", text)
    golden.assert_close("dir.img_embedding", image)
    assert reader.temperature.item() == pytest.approx(1 / model.logit_scale.exp().item(), rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "tower",
    [
        {"vision_layers": (2, 1, 1, 1), "vision_width": 4, "vision_patch_size": None},
        {"vision_layers": 2, "vision_width": 96, "vision_patch_size": 16, "vision_head_width": 32},
    ],
    ids=["resnet", "vit with narrow heads"],
)
def test_official_class_agrees_on_other_towers(
    tower: dict, golden: Reference, official: Callable, tmp_path: Path
) -> None:
    text = {**golden.notes["config"]["text"], "text_num_attention_heads": 8}
    config = ChineseCLIPConfig(embed_dim=24, image_resolution=64, **tower, **text)
    torch.manual_seed(3)
    model = ChineseCLIP(config)
    redrawn = {name: _redraw(tensor) for name, tensor in model.state_dict().items()}
    save_modelscope(
        load_strict(model, redrawn, "redrawn"), tmp_path, read_vocab(MODEL_DIR / "vocab.txt")
    )
    ours, theirs = load_modelscope(tmp_path), official(tmp_path)
    assert ours.config == config
    pixels, token_ids = golden.inputs["image"], golden.inputs["text_ids52"]
    expected = (
        theirs({"img": pixels})["img_embedding"],
        theirs({"text": token_ids})["text_embedding"],
    )
    torch.testing.assert_close(
        F.normalize(ours.encode_image(pixels), dim=-1), expected[0], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        F.normalize(ours.encode_text(token_ids), dim=-1), expected[1], atol=1e-6, rtol=0
    )


def _redraw(tensor: Tensor) -> Tensor:
    """Vectors anew, so that zero biases and unit norms hide nothing; variances stay positive."""
    return tensor + 0.2 * torch.rand(tensor.shape) if tensor.ndim == 1 else tensor
