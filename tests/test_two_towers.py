"""Two towers: precision, fingerprint and what a model without the usual attributes may be given."""

import pytest
import torch
from PIL import Image
from tiny_checkpoints import noise_images

from cliplab.encoders import two_towers
from cliplab.encoders.two_towers import Encoder, modelscope_preprocess, openai_preprocess
from cliplab.models.clip import CLIP, CLIPConfig


def make_clip(seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    config = CLIPConfig(
        embed_dim=64,
        image_resolution=64,
        vision_layers=3,
        vision_width=128,
        vision_patch_size=16,
        context_length=16,
        vocab_size=50,
        transformer_width=128,
        transformer_heads=2,
        transformer_layers=2,
    )
    return CLIP(config)


def letters(texts: list[str], *, truncate: bool = False) -> torch.Tensor:
    """Letters as ids, the end token 49 behind them."""
    rows = [[ord(letter) % 48 + 1 for letter in text][:15] for text in texts]
    return torch.tensor([[*row, 49] + [0] * (15 - len(row)) for row in rows])


def towers(model: torch.nn.Module | None = None, **kwargs: object) -> Encoder:
    defaults = {
        "tokenizer": letters,
        "preprocess": openai_preprocess(64),
        "languages": ("en",),
        "device": torch.device("cpu"),
    }
    return Encoder("tiny", make_clip() if model is None else model, **{**defaults, **kwargs})


# ---- precision -------------------------------------------------------------------------------


def test_bfloat16_is_close_to_float32_and_is_computed_in_bfloat16() -> None:
    images, texts = noise_images(6), ["a sheep", "goats", "x"]
    exact, rough = towers(), towers(precision="bfloat16")
    assert (exact.precision, rough.precision) == ("float32", "bfloat16")
    for a, b in [
        (exact.encode_image(images), rough.encode_image(images)),
        (exact.encode_text(texts), rough.encode_text(texts)),
    ]:
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.norm(dim=1), torch.ones(len(b)))
        assert (a * b).sum(dim=1).min() > 0.999
        assert not torch.allclose(a, b, rtol=0, atol=1e-6), "it was computed in float32"
    assert rough.logit_scale == exact.logit_scale


# ---- what a loader may say -------------------------------------------------------------------


class Bare(torch.nn.Module):
    """A model without `text_projection`, as an adapter may be, and with SigLIP's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 5)
        self.logit_scale, self.logit_bias = torch.tensor(9.0).log(), torch.tensor(-2.0)
        self.batches: list[int] = []

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(ids[:, :3].float())

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        return self.linear(pixels.mean(dim=(2, 3)))


def test_dim_scale_and_bias_are_those_of_the_model() -> None:
    encoder = towers(Bare(), provenance={"revision": "main"})
    assert (encoder.dim, encoder.logit_bias) == (5, -2.0)
    assert encoder.logit_scale == pytest.approx(9)
    assert encoder.provenance == {"revision": "main"}
    assert encoder.encode_image(noise_images(2)).shape == (2, 5)
    usual = towers()
    assert (usual.dim, usual.logit_bias, usual.provenance) == (64, None, {})
    assert usual.logit_scale == pytest.approx(1 / 0.07)


def test_pictures_are_read_batch_by_batch_and_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, images = towers(Bare()), noise_images(7)
    together, given = encoder.encode_image(images), []
    for values, parts in [(3 * 3 * 64 * 64, [3, 2, 2]), (1, [1] * 7), (10**9, [5, 2])]:
        monkeypatch.setattr(two_towers, "CACHED_VALUES", values)
        encoder.model.batches.clear()
        given.clear()
        lazily = (given.append(sum(encoder.model.batches)) or image for image in images)
        emb = encoder.encode_image(lazily, batch_size=5)
        assert encoder.model.batches == parts
        assert given == [0] * 5 + [5] * 2
        torch.testing.assert_close(emb, together, rtol=0, atol=1e-6)
    assert not encoder.model.training
    texts = encoder.encode_text(["a", "b", "c"])
    monkeypatch.setattr(two_towers, "TEXT_BATCH", 2)
    torch.testing.assert_close(encoder.encode_text(["a", "b", "c"]), texts, rtol=0, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown precision 'bf16'; .*valid: float32, bfloat16"):
        towers(precision="bf16")
    with pytest.raises(ValueError, match="batch_size: got 0; expected 1 or more"):
        towers().encode_image([], batch_size=0)
    damaged = Bare()
    damaged.linear.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="tiny: embeddings are not finite; its weights are dam"):
        towers(damaged).encode_image(noise_images(1))


# ---- fingerprint -----------------------------------------------------------------------------


class Gamma:
    """Preprocessing whose repr hides its setting, as functions' do."""

    def __init__(self, gamma: float) -> None:
        self.gamma, self.resize = gamma, openai_preprocess(64)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.resize(image) * self.gamma


def test_whatever_changes_the_embedding_changes_the_fingerprint() -> None:
    other_activation, one_bit = make_clip(), make_clip()
    other_activation.visual.transformer.resblocks[1].mlp.gelu = torch.nn.GELU()
    with torch.no_grad():
        one_bit.visual.proj[3, 3] += 1e-6
    encoders = [
        towers(),
        towers(make_clip(seed=1)),
        towers(one_bit),
        towers(other_activation),
        towers(precision="bfloat16"),
        towers(preprocess=modelscope_preprocess(64)),
        towers(preprocess=Gamma(1.0)),
        towers(preprocess=Gamma(1.1)),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert towers(preprocess=Gamma(1.1)).fingerprint == encoders[-1].fingerprint
    assert towers(languages=("zh",), provenance={"x": "a"}).fingerprint == encoders[0].fingerprint
