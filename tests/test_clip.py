"""The CLIP models: invariances, initialisation, and files that are read, written or refused."""

import json
import math
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cliplab.models.chinese_clip import (
    ChineseCLIP,
    ChineseCLIPConfig,
    load_modelscope,
    save_modelscope,
)
from cliplab.models.clip import CLIP, CLIPConfig, load_openai, save_openai
from cliplab.models.weights import load_strict, read_state_dict

VIT = {"vision_layers": 3, "vision_width": 64, "vision_patch_size": 16}
RESNET = {"vision_layers": (2, 1, 1, 3), "vision_width": 4, "vision_patch_size": None}
TOWERS = [pytest.param(VIT, id="vit"), pytest.param(RESNET, id="resnet")]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"站立的羊"]
END = 99


def config(tower: dict = RESNET, **changes: object) -> CLIPConfig:
    sizes = {
        "embed_dim": 24,
        "image_resolution": 64,
        "context_length": 11,
        "vocab_size": 100,
        "transformer_width": 64,
        "transformer_heads": 1,
        "transformer_layers": 2,
    }
    return CLIPConfig(**{**sizes, **tower, **changes})


def chinese_config(tower: dict = RESNET, **changes: object) -> ChineseCLIPConfig:
    sizes = {
        "embed_dim": 24,
        "image_resolution": 64,
        "vocab_size": len(VOCAB),
        "text_hidden_size": 32,
        "text_num_hidden_layers": 2,
        "text_num_attention_heads": 4,
        "text_intermediate_size": 48,
        "text_max_position_embeddings": 11,
    }
    return ChineseCLIPConfig(**{**sizes, **tower, **changes})


def build(sizes: CLIPConfig | ChineseCLIPConfig, *, seed: int = 0) -> CLIP | ChineseCLIP:
    """A random model whose vectors are redrawn, so that zero biases and unit norms hide nothing."""
    torch.manual_seed(seed)
    model = (CLIP if isinstance(sizes, CLIPConfig) else ChineseCLIP)(sizes)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor += 0.2 * torch.rand(tensor.shape)
    return model.eval()


def pixels(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def token_ids() -> Tensor:
    """Texts of 2, 5 and 11 tokens, zeros after the end token."""
    ids = torch.randint(1, END, (3, 11), generator=torch.Generator().manual_seed(2))
    for row, length in zip(ids, (2, 5, 11), strict=True):
        row[length - 1], row[length:] = END, 0
    return ids


def same_embeddings(first: nn.Module, second: nn.Module, ids: Tensor, *, atol: float) -> None:
    with torch.no_grad():
        for one, other in (
            (first.encode_image(pixels()), second.encode_image(pixels())),
            (first.encode_text(ids), second.encode_text(ids)),
        ):
            assert not torch.equal(one, one.flip(0))  # a constant would agree with itself
            torch.testing.assert_close(one, other, atol=atol, rtol=0)


# ---- the model -----------------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_a_new_model_is_initialised_as_in_the_paper(tower: dict) -> None:
    torch.manual_seed(0)
    model = CLIP(config(tower, transformer_width=128, transformer_heads=2, vocab_size=1000))
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    block = model.transformer.resblocks[1]
    expected = {  # 128 wide, 2 layers
        model.token_embedding.weight: 0.02,
        model.positional_embedding: 0.01,
        model.text_projection: 128**-0.5,
        block.attn.in_proj_weight: 128**-0.5,
        block.attn.out_proj.weight: 128**-0.5 / 2,
        block.mlp.c_fc.weight: 256**-0.5,
        block.mlp.c_proj.weight: 128**-0.5 / 2,
    }
    for parameter, std in expected.items():
        assert parameter.std().item() == pytest.approx(std, rel=0.05)
        assert parameter.mean().item() == pytest.approx(0, abs=0.1 * std)
    if tower is RESNET:
        assert model.visual.layer4[2].bn3.weight.abs().max() == 0


@torch.no_grad()
def test_text_may_be_cut_at_its_end_token() -> None:
    model, ids = build(config()), token_ids()
    whole = model.encode_text(ids)
    torch.testing.assert_close(model.encode_text(ids[:2, :5]), whole[:2], atol=1e-5, rtol=0)
    after = ids.clone()
    after[0, 2:] = 7  # causal: what follows the end token is never seen
    torch.testing.assert_close(model.encode_text(after), whole, atol=1e-5, rtol=0)
    before = ids.clone()
    before[0, 0] = (ids[0, 0] + 1) % END
    assert (model.encode_text(before)[0] - whole[0]).abs().max() > 1e-3


@torch.no_grad()
def test_padding_is_invisible_to_bert() -> None:
    model = build(chinese_config())
    ids = torch.tensor([[2, 4, 7, 3, 0, 0], [2, 4, 5, 6, 7, 3]])
    whole = model.encode_text(ids)
    torch.testing.assert_close(model.encode_text(ids[:1, :4]), whole[:1], atol=1e-5, rtol=0)
    ids[0, 4] = 7  # no padding any more: the class token looks at what follows, too
    assert (model.encode_text(ids)[0] - whole[0]).abs().max() > 1e-3


@pytest.mark.parametrize("bad", [(3, 64, 64), (2, 3, 32, 32)])
def test_pixels_of_another_shape_are_refused(bad: tuple[int, ...]) -> None:
    for model in (build(config()), build(chinese_config(VIT))):
        with pytest.raises(ValueError, match=r"pixels: got shape .*expected \(B, 3, 64, 64\)"):
            model.encode_image(torch.zeros(bad))


@pytest.mark.parametrize("bad", [torch.ones(2, 12).long(), torch.ones(2, 4)])
def test_token_ids_of_another_kind_are_refused(bad: Tensor) -> None:
    for model in (build(config()), build(chinese_config(VIT))):
        with pytest.raises(ValueError, match=r"token_ids: got shape .*L <= 11"):
            model.encode_text(bad)


# ---- OpenAI's format -----------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_openai_file_holds_the_model(tower: dict, tmp_path: Path) -> None:
    model, path = build(config(tower)), tmp_path / "model.pt"
    save_openai(model.state_dict(), path)
    loaded = load_openai(path)
    assert loaded.config == model.config
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    same_embeddings(model, loaded, token_ids(), atol=5e-3)  # fp16 keeps three digits
    save_openai(loaded.state_dict(), path)  # nothing is rounded twice
    same_embeddings(loaded, load_openai(path), token_ids(), atol=0)


def test_openai_weights_in_other_files(tmp_path: Path) -> None:
    model = build(config(VIT))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "plain.pt")
    wrapped = {"state_dict": {f"module.clip_model.{n}": t for n, t in tensors.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    for name in ("model.safetensors", "plain.pt", "wrapped.pt"):
        same_embeddings(model, load_openai(tmp_path / name), token_ids(), atol=0)


def test_openai_file_is_what_the_official_archives_are(tmp_path: Path) -> None:
    model = build(config(vocab_size=5000))
    with torch.no_grad():
        model.token_embedding.weight[100:] = 0  # words that no caption had
    save_openai(model.state_dict(), tmp_path / "one.pt")
    save_openai(model.state_dict(), tmp_path / "two.pt")
    content = (tmp_path / "one.pt").read_bytes()
    assert content == (tmp_path / "two.pt").read_bytes()  # no clock, no path, no chance
    tensors = read_state_dict(tmp_path / "one.pt")
    sizes = {"input_resolution": 64, "context_length": 11, "vocab_size": 5000}
    assert {name: tensors[name].item() for name in sizes} == sizes
    half = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert {"visual.conv1.weight", "text_projection", "token_embedding.weight"} <= half
    assert {"visual.attnpool.q_proj.bias", "transformer.resblocks.0.mlp.c_fc.bias"} <= half
    assert not half & {"logit_scale", "ln_final.weight", "positional_embedding"}
    assert not half & {n for n in tensors if "bn" in n or "downsample.1" in n or ".ln_" in n}
    with zipfile.ZipFile(tmp_path / "one.pt") as archive:
        assert not [n for n in archive.namelist() if n.endswith("debug_pkl")]
        raw = sum(record.file_size for record in archive.infolist())
    assert len(content) < 0.6 * raw  # 4900 of 5000 rows are zeros


def test_loading_leaves_the_callers_tensors_alone() -> None:
    tensors = build(config()).state_dict()
    twin = load_strict(build(config(), seed=1), tensors, "twin")
    with torch.no_grad():
        twin.text_projection.zero_()
    assert tensors["text_projection"].abs().min() > 0


@pytest.mark.parametrize("value", [math.nan, 1e5])
def test_weights_that_fp16_cannot_hold_are_refused(value: float, tmp_path: Path) -> None:
    model = build(config())
    with torch.no_grad():
        model.text_projection[0, 0] = value
    with pytest.raises(ValueError, match="text_projection: has values that are NaN, infinite"):
        save_openai(model.state_dict(), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_missing_and_unexpected_weights_are_listed(tmp_path: Path) -> None:
    tensors = build(config()).state_dict()
    del tensors["transformer.resblocks.1.ln_2.bias"]
    tensors["visual.extra"] = torch.zeros(2)
    tensors["transformer.resblocks.0.mlp.c_fc.bias"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"model\.pt: these weights are not those of a CLIP"
    ) as caught:
        load_openai(tmp_path / "model.pt")
    message = str(caught.value)
    assert "1 missing: transformer.resblocks.1.ln_2.bias" in message
    assert "1 unexpected: visual.extra" in message
    assert "transformer.resblocks.0.mlp.c_fc.bias (3,) instead of (256,)" in message


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save(build(chinese_config()).state_dict(), tmp_path / "zh.bin")
    with pytest.raises(ValueError, match=r"zh\.bin: not an OpenAI CLIP: missing 'ln_final"):
        load_openai(tmp_path / "zh.bin")
    with pytest.raises(FileNotFoundError, match=r"no such weight file; .*cliplab train clip"):
        load_openai(tmp_path / "none.pt")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    tensors, paths = build(config()).state_dict(), [tmp_path / f"{i}.pt" for i in range(4)]
    save_openai(tensors, paths[0])
    torch.save(tensors, paths[1])
    for path, kept in zip(paths[:2], (0.3, 0.99), strict=True):
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    paths[2].write_bytes(b"PK\x03\x04 nearly a zip")
    paths[3] = paths[3].with_suffix(".safetensors")
    paths[3].write_bytes(b"not weights")
    for path in paths:
        with pytest.raises(ValueError, match=r"cannot be read as weights .*cut short or damaged"):
            load_openai(path)


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_that_would_run_code_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"weight": torch.zeros(2), "payload": Payload(trace)}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Payload(trace)))
    for name in ("new.pt", "old.pt"):
        with pytest.raises(ValueError, match="Python objects, which are refused because"):
            load_openai(tmp_path / name)
    assert not trace.exists()
    pickle.loads((tmp_path / "old.pt").read_bytes())  # the payload does work
    assert trace.exists()


def test_what_is_not_a_state_dict_is_refused(tmp_path: Path) -> None:
    for content in ([torch.zeros(2)], {"epoch": 3}, {}):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="not a state dict; expected names mapped to tensors"):
            load_openai(tmp_path / "model.pt")


# ---- ModelScope's format -------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_modelscope_directory_holds_the_model(tower: dict, tmp_path: Path) -> None:
    model, ids = build(chinese_config(tower)), torch.tensor([[2, 4, 7, 3], [2, 5, 3, 0]])
    save_modelscope(model, tmp_path / "zh", VOCAB)
    loaded = load_modelscope(tmp_path / "zh")
    assert loaded.config == model.config
    assert not loaded.training
    same_embeddings(model, loaded, ids, atol=5e-3)
    save_modelscope(loaded, tmp_path / "zh", VOCAB)  # over itself, and nothing is rounded twice
    same_embeddings(loaded, load_modelscope(tmp_path / "zh"), ids, atol=0)
    tensors = read_state_dict(tmp_path / "zh" / "pytorch_model.bin")
    assert {t.dtype for n, t in tensors.items() if n.startswith("bert.")} == {torch.float16}
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= tensors.keys()


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (VOCAB[:-1], "vocab: got 7 tokens; expected 8"),
        ([*VOCAB[1:], "[PAD]"], r"without \[PAD\] at 0"),
    ],
)
def test_vocabularies_that_do_not_fit_are_refused(
    vocab: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save_modelscope(build(chinese_config()), tmp_path / "zh", vocab)
    assert not (tmp_path / "zh").exists()


@pytest.mark.parametrize("name", ["text_model_config.json", "vocab.txt", "pytorch_model.bin"])
def test_directories_without_a_file_are_named(name: str, tmp_path: Path) -> None:
    save_modelscope(build(chinese_config()), tmp_path, VOCAB)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such"):
        load_modelscope(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a ModelScope directory with"):
        load_modelscope(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "text_model_config.json: not a JSON object"),
        ('{"text_hidden_act": "relu"}', "text_hidden_act: got 'relu'; expected 'gelu'"),
        ('{"surprise": 1}', "argument 'surprise' in vision_model_config.json or text_model"),
        ('{"vocab_size": null}', "missing .*'vocab_size'"),
        ('{"vocab_size": 9}', "vocab: got 8 tokens; expected 9"),
        ('{"text_intermediate_size": 50}', "intermediate.dense.bias .48,. instead of .50,."),
    ],
)
def test_settings_that_do_not_fit_are_named(text: str, message: str, tmp_path: Path) -> None:
    save_modelscope(build(chinese_config()), tmp_path, VOCAB)
    path = tmp_path / "text_model_config.json"
    if text.startswith("{") and text.endswith("}"):
        settings = {**json.loads(path.read_text(encoding="utf-8")), **json.loads(text)}
        text = json.dumps({k: v for k, v in settings.items() if v is not None})
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_modelscope(tmp_path)


def interrupted(*_args: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_save_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(seed: int) -> None:
        save_modelscope(build(chinese_config(), seed=seed), tmp_path, VOCAB)

    save(0)
    save_openai(build(config()).state_dict(), tmp_path / "model.pt")
    older = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(torch, "save", interrupted)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(1)
    with pytest.raises(KeyboardInterrupt):
        save_openai(build(config(), seed=1).state_dict(), tmp_path / "model.pt")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == older
