"""Our CLIP against tensors of openai/CLIP, and our files against its loader."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from parity.reference import GOLDEN, Reference, read_reference
from PIL import Image

from cliplab.encoders.two_towers import openai_preprocess
from cliplab.models.clip import CLIP, CLIPConfig, load_openai, save_openai
from cliplab.models.layers import QuickGELU
from cliplab.models.losses import clip_loss
from cliplab.models.weights import load_strict


@pytest.fixture(scope="module", params=["vit", "rn"])
def golden(request: pytest.FixtureRequest) -> Reference:
    return read_reference(f"clip/{request.param}")


@pytest.fixture
def model(golden: Reference) -> CLIP:
    return _build(golden)


def _build(golden: Reference) -> CLIP:
    return load_strict(CLIP(CLIPConfig.from_state_dict(golden.weights)), golden.weights, "golden")


def test_golden_files_are_the_ones_in_the_readme() -> None:
    listed = re.findall(
        r"^([0-9a-f]{64})  (\S+)$", (GOLDEN / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    files = {p.relative_to(GOLDEN).as_posix() for p in GOLDEN.rglob("*") if p.is_file()}
    assert {name for _, name in listed} == files - {"README.md"}
    for digest, name in listed:
        assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == digest, name


@torch.no_grad()
def test_embeddings_and_logits(golden: Reference, model: CLIP) -> None:
    pixels, token_ids = golden.inputs["image"], golden.inputs["text"]
    golden.assert_close("encode_image", model.encode_image(pixels))
    golden.assert_close("encode_text", model.encode_text(token_ids))
    per_image, per_text = model(pixels, token_ids)
    golden.assert_close("logits_per_image", per_image)
    golden.assert_close("logits_per_text", per_text)


def test_loss_and_its_gradients(golden: Reference, model: CLIP) -> None:
    pixels, token_ids = golden.inputs["image"], golden.inputs["text"]
    n = min(len(pixels), len(token_ids))
    image_emb = F.normalize(model.encode_image(pixels[:n]), dim=-1)
    text_emb = F.normalize(model.encode_text(token_ids[:n]), dim=-1)
    loss = clip_loss(image_emb, text_emb, model.logit_scale.exp())
    golden.assert_close("train.loss", loss)
    loss.backward()
    names = [name for name in golden.outputs if name.startswith("grad.")]
    assert len(names) >= 7
    for name in names:
        golden.assert_close(name, model.get_parameter(name.removeprefix("grad.")).grad)


@torch.no_grad()
@pytest.mark.parametrize("mistake", ["gelu_instead_of_quickgelu", "no_causal_mask"])
def test_the_tolerance_catches_typical_mistakes(mistake: str) -> None:
    golden = read_reference("clip/vit")
    model = _build(golden)
    for block in model.transformer.resblocks:
        if mistake == "no_causal_mask":
            block.attn.causal = False
        else:
            assert isinstance(block.mlp.gelu, QuickGELU)
            block.mlp.gelu = torch.nn.GELU()
    error = (model.encode_text(golden.inputs["text"]) - golden.outputs["encode_text"]).abs().max()
    assert error.item() == pytest.approx(
        golden.notes["mutations"][mistake]["encode_text"], rel=0.01
    )
    assert error > 100 * golden.atol("encode_text")


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:pkg_resources")
def test_official_loader_reads_our_file(golden: Reference, model: CLIP, tmp_path: Path) -> None:
    clip = pytest.importorskip("clip", reason="needs openai-clip")
    path = tmp_path / "model.pt"
    save_openai(model.state_dict(), path)
    official, preprocess = clip.load(str(path), device="cpu")
    pixels, token_ids = golden.inputs["image"], golden.inputs["text"]
    # The golden weights are exact in fp16, so the rounding in the file loses nothing.
    for reader in (official, load_openai(path)):
        golden.assert_close("encode_image", reader.encode_image(pixels))
        golden.assert_close("encode_text", reader.encode_text(token_ids))
        golden.assert_close("logits_per_image", reader(pixels, token_ids)[0])
    assert preprocess.transforms[0].size == golden.notes["config"]["image_resolution"]


@pytest.mark.parametrize("index", [0, 1])
def test_preprocessing(index: int) -> None:
    golden = read_reference("clip/preprocess")
    image = Image.fromarray(golden.inputs[f"rgb{index}"].numpy())
    pixels = openai_preprocess(golden.notes["config"]["n_px"])(image)
    # One 8-bit step is 0.015 after normalisation; another Pillow may resample one step away.
    atol = golden.notes["suggested_tolerance"]["atol"]
    torch.testing.assert_close(pixels, golden.outputs[f"pre{index}"], atol=atol, rtol=0)
