"""Encoders: readable and official give the same vectors, and every bad input says what to do."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_checkpoints import RESNET, VIT, make_openai, noise_images

from cliplab import encoders
from cliplab.encoders import load_encoder
from cliplab.encoders.official import Found
from cliplab.encoders.two_towers import openai_preprocess
from cliplab.models.weights import read_state_dict
from cliplab.runtime import OFFLINE_VARIABLES, checkpoint_dir, sha256

GOLDEN = Path(__file__).parent / "golden"
ENGLISH = ["a sheep lying down", "A goat, drinking!", "", "站着的羊"]
CHINESE = ["站立的羊", "进食的羊", "一只 sheep", ""]


@pytest.fixture(autouse=True)
def _use_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(data))
    monkeypatch.setenv("CLIPLAB_OFFLINE", "1")


@pytest.fixture
def copied(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints once more, to be damaged."""
    monkeypatch.setenv("CLIPLAB_DATA", str(shutil.copytree(data, tmp_path / "copy")))
    return tmp_path / "copy" / "checkpoints"


ALL = ["pasture", "pasture-zh", "openai", "modelscope"]


def spec_of(key: str) -> str:
    """The shipped name, or the official code on the same files."""
    files = {"openai": "clip-openai/model.pt", "modelscope": "clip-chinese"}
    return f"{key}:{checkpoint_dir(files[key])}" if key in files else key


# ---- the same vectors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readable", "official", "texts"),
    [("pasture", "openai", ENGLISH), ("pasture-zh", "modelscope", CHINESE)],
)
def test_readable_and_official_agree(readable: str, official: str, texts: list[str]) -> None:
    ours, theirs = (load_encoder(spec_of(key), device="cpu") for key in (readable, official))
    images = noise_images(5)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), **close)
    torch.testing.assert_close(ours.encode_text(texts), theirs.encode_text(texts), **close)
    torch.testing.assert_close(ours.tokenizer(texts), theirs.tokenizer(texts))
    assert [ours.tokenizer.pieces(t) for t in texts] == [theirs.tokenizer.pieces(t) for t in texts]
    assert ours.logit_scale == pytest.approx(theirs.logit_scale, abs=1e-5)
    assert (ours.dim, ours.languages) == (theirs.dim, theirs.languages)


@pytest.mark.parametrize("tower", [RESNET, VIT])
def test_a_state_dict_is_the_model_that_it_was_saved_from(tmp_path: Path, tower: dict) -> None:
    """As fine-tuning leaves it: plain, or beside the optimizer's state, and in full precision."""
    archive = make_openai(tmp_path, tower)
    weights = read_state_dict(archive)
    weights = {name: t for name, t in weights.items() if t.ndim or name == "logit_scale"}
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"epoch": 3, "model_state_dict": {f"module.{n}": t for n, t in weights.items()}},
               tmp_path / "epoch3.pt")  # fmt: skip
    finer = {name: t.float() * (1 + 2**-14) for name, t in weights.items()}  # lost in fp16
    torch.save(finer, tmp_path / "finer.pt")
    whole, plain, epoch, fine = (
        load_encoder(f"openai:{tmp_path / name}.pt", device="cpu").encode_text(ENGLISH)
        for name in ("model", "plain", "epoch3", "finer")
    )
    assert torch.equal(whole, plain)
    assert torch.equal(whole, epoch)
    ours = encoders.read_openai(tmp_path / "finer.pt").encoder("finer", torch.device("cpu"))
    torch.testing.assert_close(fine, ours.encode_text(ENGLISH), atol=1e-6, rtol=0)
    assert not torch.equal(fine, whole)


@pytest.mark.parametrize("official", [False, True])
def test_chinese_model_dir_gives_the_golden_vectors(official: bool) -> None:
    golden = load_file(GOLDEN / "chinese_clip" / "model.safetensors")
    folder = GOLDEN / "chinese_clip" / "model_dir"
    encoder = (
        load_encoder(f"modelscope:{folder}", device="cpu")
        if official
        else encoders.read_modelscope(folder).encoder("golden", torch.device("cpu"))
    )
    texts = ["站立的羊", "进食的羊", "躺着的羊"]
    torch.testing.assert_close(encoder.tokenizer(texts), golden["in.text_ids52"])
    emb = encoder.encode_text(texts)
    torch.testing.assert_close(emb, golden["out.dir.text_embedding"], rtol=0, atol=1e-5)
    images = [Image.fromarray(golden[f"in.rgb{i}"].numpy()) for i in (0, 1)]
    pixels = torch.stack([encoder.preprocess(image) for image in images])
    # One 8-bit step is 0.015: Pillow's resizing may differ by that between versions.
    torch.testing.assert_close(pixels, golden["out.dir.preprocessed"], rtol=0, atol=0.02)
    if torch.equal(pixels, golden["out.dir.preprocessed"]):
        emb = encoder.encode_image(images)
        torch.testing.assert_close(emb, golden["out.dir.img_embedding"], rtol=0, atol=1e-5)


# ---- preprocessing ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(64, 64), (63, 200), (201, 40), (5, 7)])
def test_openai_preprocessing_equals_clips_own_exactly(mode: str, size: tuple[int, int]) -> None:
    import clip.clip

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
    assert torch.equal(openai_preprocess(32)(image), clip.clip._transform(32)(image))


# ---- what comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ALL)
def test_rows_are_unit_float32_on_the_cpu_and_may_serve_in_training(key: str) -> None:
    encoder = load_encoder(spec_of(key))
    for emb in (encoder.encode_image(noise_images(3)), encoder.encode_text(["羊", "a"])):
        assert emb.dtype == torch.float32
        assert emb.device == torch.device("cpu")
        assert emb.shape[1] == encoder.dim == 32
        torch.testing.assert_close(emb.norm(dim=1), torch.ones(len(emb)))
        assert not emb.is_inference()
        assert not emb.requires_grad
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    assert encoder.languages == (("zh",) if key in ("pasture-zh", "modelscope") else ("en",))
    assert encoder.name == spec_of(key)
    assert encoder.encode_image([]).shape == encoder.encode_text([]).shape == (0, 32)


# ---- names and files that are wrong ----------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("pastur", "did you mean 'pasture'"),
        ("PASTURE-ZH", "did you mean 'pasture-zh'"),
        ("opnai:ViT-B/32", "did you mean 'openai:'"),
        ("model-scope:x", "did you mean 'modelscope:'"),
        ("zzz", "valid: pasture, pasture-zh, openai:, modelscope:, hf:, open_clip:"),
        ("", "unknown encoder ''; valid: pasture"),
    ],
)
def test_unknown_encoder_lists_the_nearest(spec: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)) as caught:
        load_encoder(spec)
    assert str(caught.value).startswith(f"unknown encoder {spec!r}; ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai:absent/x.pt", r"openai:absent/x\.pt: no such model and no such file"),
        ("openai:ViT-B32", r"did you mean 'openai:ViT-B/32'"),
        ("modelscope:absent", r"modelscope:absent: no such path; expected a folder such as"),
        ("modelscope:./absent/x", r"no such path; .*or a model such as damo/multi-modal_clip"),
        ("hf:absent", r"hf:absent: no such path"),
        (f"hf:{__file__}", rf"a file; give its folder, {Path(__file__).parent}"),
        (f"modelscope:{__file__}", rf"a file; give its folder, {Path(__file__).parent}"),
        ("hf:/absent/x", r"no such path; .*or a repository such as openai/clip-vit-base-patch32"),
    ],
)
def test_missing_paths(spec: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        load_encoder(spec)


@pytest.mark.parametrize("content", [None, b"<html>404</html>", b""])
@pytest.mark.parametrize("key", ["pasture", "pasture-zh"])
def test_corrupt_checkpoint(copied: Path, key: str, content: bytes | None) -> None:
    for name in ("clip-openai/model.pt", "clip-chinese/pytorch_model.bin"):
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=r"(model\.pt|pytorch_model\.bin): .{40}"):
        load_encoder(key)


def write_card(folder: Path, **files: str) -> None:
    hashes = {
        path.name: sha256(path) for path in folder.iterdir() if path.name != "model_card.json"
    }
    card = json.dumps({"files": hashes | files})
    (folder / "model_card.json").write_text(card, encoding="utf-8")


@pytest.mark.parametrize("key", ALL)
def test_hashes_of_the_model_card(copied: Path, key: str) -> None:
    for folder in copied.iterdir():
        write_card(folder)
    assert load_encoder(spec_of(key)).dim == 32
    write_card(copied / "clip-openai", **{"model.pt": "0" * 64})
    write_card(copied / "clip-chinese", **{"vocab.txt": "0" * 64})
    with pytest.raises(
        ValueError,
        match=r"(model\.pt|vocab\.txt): its sha256 is \w{12}\.\.\., model_card\.json says 000000.*"
        r"restore the folder with `git checkout",
    ):
        load_encoder(spec_of(key))


@pytest.mark.parametrize(
    ("key", "module", "remedy"),
    [
        ("openai", "clip", r'openai: .*pip install "openai-clip==1\.0\.1" "setuptools<81"'),
        (
            "modelscope",
            "modelscope.models.multi_modal.clip.model",
            r'modelscope: .*pip install "modelscope\[framework\]"',
        ),
    ],
)
def test_official_package_missing(
    monkeypatch: pytest.MonkeyPatch, key: str, module: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    with pytest.raises(ImportError, match=remedy):
        load_encoder(spec_of(key))


def test_another_package_called_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("clip")
    other.x = 1
    monkeypatch.setitem(sys.modules, "clip", other)
    remedy = (
        r"<module 'clip'> is not OpenAI's; first `pip uninstall clip`.*pip install \"openai-clip"
    )
    with pytest.raises(ImportError, match=remedy):
        load_encoder(spec_of("openai"))


def test_loaders_are_told_whether_they_are_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loader(where: str, offline: bool) -> Found:
        asked.append((where, offline))
        return encoders.read_openai(checkpoint_dir("clip-openai") / "model.pt")

    monkeypatch.setitem(encoders.LOADERS, "hub:", loader)
    for variable in OFFLINE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert load_encoder("hub:a/b:c@v1", device="cpu").name == "hub:a/b:c@v1"
    monkeypatch.setenv("CLIPLAB_OFFLINE", "1")
    load_encoder("hub:x", device="cpu")
    encoder = load_encoder("hub:x", device="cpu", offline=False, precision="bfloat16")
    assert (encoder.precision, encoder.device) == ("bfloat16", torch.device("cpu"))
    assert asked == [("a/b:c@v1", False), ("x", True), ("x", False)]


def test_the_default_encoder_needs_no_official_package() -> None:
    code = (
        "import sys; from cliplab.encoders import load_encoder; "
        "load_encoder('pasture', device='cpu').encode_text('a'); "
        "theirs = {'clip', 'modelscope', 'open_clip', 'transformers', 'huggingface_hub'}; "
        "print(sorted(theirs & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
