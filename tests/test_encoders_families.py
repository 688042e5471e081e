"""Every family of real encoders gives what its official library gives when called directly."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_checkpoints import HF_KINDS, OPEN_CLIP, make_hf, make_open_clip, noise_images

from cliplab.encoders import load_encoder
from cliplab.encoders.from_huggingface import canonical
from cliplab.encoders.two_towers import Encoder

TEXTS = ["a photo of a sheep lying down", "A goat, drinking!", "", "站着的羊 grass"]
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_OFFLINE", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hf")
    return {kind: make_hf(root / kind, kind) for kind in HF_KINDS}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path], data: Path) -> dict[str, Encoder]:
    specs, shipped = {k: f"hf:{folders[k]}" for k in HF_KINDS}, data / "checkpoints"
    specs["openai"] = f"openai:{shipped / 'clip-openai' / 'model.pt'}"
    specs["modelscope"] = f"modelscope:{shipped / 'clip-chinese'}"
    return {kind: load_encoder(spec, device="cpu") for kind, spec in specs.items()}


# ---- transformers ----------------------------------------------------------------------------


@torch.no_grad()
def official_rows(folder: Path, kind: str, images: list, texts: list[str]) -> tuple:
    """Unit embeddings from transformers as its documentation shows it, without cliplab."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    # the class that SigLIP 1 names needs sentencepiece, which no test may count on
    tokens = PreTrainedTokenizerFast if kind == "siglip" else AutoTokenizer
    padding = {"padding": "max_length", "max_length": 64} if "siglip" in kind else {"padding": True}
    ids = tokens.from_pretrained(folder)(texts, return_tensors="pt", **padding)
    if "siglip" in kind:
        ids = {"input_ids": ids["input_ids"]}
    image_emb = model.get_image_features(**processor(images=images, return_tensors="pt"))
    text_emb = model.get_text_features(**ids)
    return tuple(F.normalize(emb.pooler_output, dim=-1) for emb in (image_emb, text_emb))


@pytest.mark.parametrize("kind", HF_KINDS)
def test_huggingface_equals_transformers(
    folders: dict[str, Path], loaded: dict[str, Encoder], kind: str
) -> None:
    images, encoder = noise_images(3), loaded[kind]
    texts = [canonical(text) for text in TEXTS] if "siglip" in kind else TEXTS
    image_emb, text_emb = official_rows(folders[kind], kind, images, texts)
    torch.testing.assert_close(encoder.encode_image(images), image_emb, **CLOSE)
    torch.testing.assert_close(encoder.encode_text(TEXTS), text_emb, **CLOSE)
    assert (image_emb[0] - image_emb[1]).abs().max() > 0.01  # it does look at the pictures
    assert (text_emb[0] - text_emb[3]).abs().max() > 0.01
    assert encoder.dim == image_emb.shape[1]
    model = encoder.model.model
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    bias = float(model.logit_bias.detach()) if "siglip" in kind else None
    assert encoder.logit_bias == bias
    assert encoder.languages == (("zh",) if kind == "chinese_clip" else ("en",))


def test_naflex_equals_its_processor_called_directly(
    folders: dict[str, Path], loaded: dict[str, Encoder]
) -> None:
    from transformers import AutoModel, Siglip2Processor

    from cliplab.encoders.from_huggingface import PatchPreprocess

    folder = folders["siglip2-naflex"]
    encoder = loaded["siglip2-naflex"]
    processor = Siglip2Processor(encoder.preprocess.processor, encoder.tokenizer._tokenizer)
    wide, tall = Image.new("RGB", (90, 20), "red"), Image.new("RGB", (30, 70), "green")
    shown = processor(images=[wide, tall], max_num_patches=16, return_tensors="pt")
    text = processor(text=["a sheep"], return_tensors="pt")
    assert isinstance(encoder.preprocess, PatchPreprocess)
    assert shown["spatial_shapes"].tolist() != [[4, 4], [4, 4]]
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder).eval()
        image_emb = model.get_image_features(**shown).pooler_output
        text_emb = model.get_text_features(input_ids=text["input_ids"]).pooler_output
    together = encoder.encode_image([wide, tall])
    torch.testing.assert_close(together, F.normalize(image_emb, dim=-1), **CLOSE)
    torch.testing.assert_close(encoder.encode_image([tall])[0], together[1], **CLOSE)
    torch.testing.assert_close(
        encoder.encode_text("a sheep"), F.normalize(text_emb, dim=-1), **CLOSE
    )


@pytest.mark.parametrize("text", ["A photo of a Sheep.", " two_words,  (really)!\n", "躺着的羊。"])
def test_siglip_texts_are_cleaned_as_open_clip_does(text: str) -> None:
    from open_clip.tokenizer import canonicalize_text

    assert canonical(text) == canonicalize_text(text)


@pytest.mark.parametrize(
    ("kind", "text", "pieces"),
    [
        ("clip", "a sheep 羊", ["a", "sheep", "<0xE7>", "<0xBE>", "<0x8A>"]),
        ("chinese_clip", "站立的羊 sheeps ö", [*"站立的羊", "sheep", "##s", "[UNK]"]),
        ("siglip", "photo 羊", ["photo", " ", "[UNK]"]),
        ("siglip2", "a sheep 羊马", ["a", " ", "sheep", " ", "羊", "<0xE9>", "<0xA9>", "<0xAC>"]),
    ],
)
def test_pieces_betray_what_a_tokenizer_cannot_read(
    loaded: dict[str, Encoder], kind: str, text: str, pieces: list[str]
) -> None:
    tokenizer = loaded[kind].tokenizer
    assert tokenizer.pieces(text) == pieces
    assert len(tokenizer.encode(text)) == len(pieces)
    unread = sum(piece.startswith("<0x") or piece == "[UNK]" for piece in pieces)
    assert tokenizer.coverage(text) == pytest.approx(1 - unread / len(pieces))


@pytest.mark.parametrize(
    ("kind", "word", "fits", "limit"),
    [
        *(("openai", "sheep ", 75, 77), ("clip", "sheep ", 75, 77), ("siglip2", "羊", 63, 64)),
        *(("modelscope", "羊", 50, 52), ("chinese_clip", "羊", 50, 52)),
    ],
)
def test_long_texts_are_refused_unless_cut(
    loaded: dict[str, Encoder], kind: str, word: str, fits: int, limit: int
) -> None:
    encoder = loaded[kind]
    assert encoder.tokenizer([word * fits]).shape == (1, limit)
    message = rf"text too long: .* has {limit + 1} tokens.*at most {limit}.*cut: `truncate`\)"
    with pytest.raises(ValueError, match=message):
        encoder.encode_text(["羊", word * (fits + 1)])
    cut = encoder.encode_text([word * (fits + 9)], truncate=True)
    torch.testing.assert_close(cut, encoder.encode_text([word * fits]), **CLOSE)


def test_preprocessing_settings_are_in_the_fingerprint(
    folders: dict[str, Path], loaded: dict[str, Encoder], tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(folders["siglip"], tmp_path / "copy")
    same = load_encoder(f"hf:{folder}", device="cpu")
    assert same.fingerprint == loaded["siglip"].fingerprint
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text("utf-8")) | {"resample": 0}
    path.write_text(json.dumps(settings), encoding="utf-8")
    other = load_encoder(f"hf:{folder}", device="cpu")
    assert other.fingerprint != same.fingerprint


@pytest.mark.filterwarnings("error")
def test_loading_is_quiet(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    for kind in HF_KINDS:
        load_encoder(f"hf:{folders[kind]}")
    assert capfd.readouterr() == ("", "")


# ---- open_clip -------------------------------------------------------------------------------

SIGLIP = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": OPEN_CLIP["vision_cfg"],
    "text_cfg": {
        "context_length": 64, "vocab_size": 400, "width": 32, "heads": 2, "layers": 1,
        "hf_tokenizer_name": "tiny/gemma", "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
    },
}  # fmt: skip
BERT = {
    "embed_dim": 24,
    "vision_cfg": OPEN_CLIP["vision_cfg"],
    "text_cfg": {
        "hf_model_name": "tiny/bert", "hf_tokenizer_name": "tiny/bert", "context_length": 32,
        "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "hf_model_pretrained": False,
    },
}  # fmt: skip


@torch.no_grad()
def open_clip_rows(
    name: str, path: Path, images: list, texts: list[str], tokenizer: object
) -> tuple:
    """Unit embeddings from open_clip as its README shows it, without cliplab."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(
        name, pretrained=str(path), pretrained_text=False
    )
    pixels = torch.stack([preprocess(image) for image in images])
    model.eval()
    rows = model.encode_image(pixels), model.encode_text(tokenizer(texts))
    return tuple(F.normalize(emb, dim=-1) for emb in rows)


@pytest.mark.parametrize("quick", [False, True])
def test_open_clip_equals_open_clip(tmp_path: Path, quick: bool) -> None:
    import open_clip

    name = "tiny-hub-quickgelu" if quick else "tiny-hub"
    path = make_open_clip(tmp_path, name, OPEN_CLIP | {"quick_gelu": quick})
    encoder, images = load_encoder(f"open_clip:{name}/{path}", device="cpu"), noise_images(3)
    tokenizer = open_clip.get_tokenizer(name)
    image_emb, text_emb = open_clip_rows(name, path, images, TEXTS, tokenizer)
    torch.testing.assert_close(encoder.encode_image(images), image_emb, **CLOSE)
    torch.testing.assert_close(encoder.encode_text(TEXTS), text_emb, **CLOSE)
    assert torch.equal(encoder.tokenizer(TEXTS), tokenizer(TEXTS))
    assert (encoder.dim, encoder.logit_bias) == (24, None)
    assert encoder.tokenizer.vocab_size == tokenizer.vocab_size
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    assert encoder.tokenizer.pieces("Sheep 羊") == ["sheep", "<0xE7>", "<0xBE>", "<0x8A>"]
    with pytest.raises(ValueError, match="has 78 tokens"):
        encoder.encode_text("sheep " * 76)
    cut = encoder.encode_text("sheep " * 99, truncate=True)
    assert torch.equal(encoder.tokenizer("sheep " * 99, truncate=True), tokenizer("sheep " * 99))
    torch.testing.assert_close(cut, encoder.encode_text("sheep " * 75), **CLOSE)


def test_open_clip_with_a_tokenizer_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    from open_clip.tokenizer import HFTokenizer
    from test_encoders_hub import fill_huggingface

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    fill_huggingface(tmp_path / "hub", "tiny/gemma", folders["siglip2"])
    path = make_open_clip(tmp_path, "tiny-hub-siglip", SIGLIP)
    encoder, images = load_encoder(f"open_clip:tiny-hub-siglip/{path}"), noise_images(2)
    tokenizer = HFTokenizer(str(folders["siglip2"]), context_length=64, clean="canonicalize")
    image_emb, text_emb = open_clip_rows("tiny-hub-siglip", path, images, TEXTS, tokenizer)
    torch.testing.assert_close(encoder.encode_image(images), image_emb, **CLOSE)
    torch.testing.assert_close(encoder.encode_text(TEXTS), text_emb, **CLOSE)
    assert encoder.logit_bias == pytest.approx(-10)
    assert encoder.tokenizer.pieces("A sheep!") == ["a", " ", "sheep"]


def test_open_clip_with_a_text_tower_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip
    from test_encoders_hub import fill_huggingface
    from tiny_checkpoints import TOWER, _bert_tokens
    from transformers import BertConfig

    bert = tmp_path / "bert"
    bert.mkdir()
    size = len(_bert_tokens(bert))
    BertConfig(vocab_size=size, max_position_embeddings=32, **TOWER).save_pretrained(bert)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    fill_huggingface(tmp_path / "hub", "tiny/bert", bert)
    here = BERT | {"text_cfg": BERT["text_cfg"] | {"hf_model_name": str(bert)}}
    path = make_open_clip(tmp_path, "tiny-hub-bert-here", here)
    make_open_clip(tmp_path / "other", "tiny-hub-bert", here, seed=1)
    open_clip.factory._MODEL_CONFIGS["tiny-hub-bert"]["text_cfg"] = BERT["text_cfg"]
    tokenizer = open_clip.tokenizer.HFTokenizer(str(bert), context_length=32)
    texts = ["站立的羊", "一只 sheep"]
    _, text_emb = open_clip_rows("tiny-hub-bert-here", path, noise_images(1), texts, tokenizer)
    encoder = load_encoder(f"open_clip:tiny-hub-bert/{path}")
    torch.testing.assert_close(encoder.encode_text(texts), text_emb, **CLOSE)
    assert torch.equal(encoder.tokenizer(texts), tokenizer(texts))


def test_no_architecture_has_options_for_openais_byte_pairs() -> None:
    import open_clip

    for name in open_clip.list_models():
        text = open_clip.get_model_config(name)["text_cfg"]
        assert text.get("hf_tokenizer_name") or not text.get("tokenizer_kwargs"), name


@pytest.mark.parametrize(
    ("where", "kind", "message"),
    [
        ("ViT-B-33/openai", ValueError, r"unknown architecture 'ViT-B-33'; did you mean open_"),
        ("ViT-B-32", ValueError, r"no weights named; expected open_clip:ViT-B-32/<tag or path>"),
        ("ViT-B/32/", ValueError, r"no weights named; .*tags: openai"),
        ("ViT-B-32/laion2b_e17", ValueError, r"unknown tag 'laion2b_e17'; did you mean 'laion2b_e"),
        ("ViT-B-32/absent/x.pt", FileNotFoundError, r"no such file; expected a checkpoint of ViT"),
    ],
)
def test_open_clip_names_that_are_wrong(where: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        load_encoder(f"open_clip:{where}")
