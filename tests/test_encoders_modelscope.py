"""ModelScope's own pipeline class, for which our module stands in for one of ModelScope's."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cliplab.encoders import modelscope_pipeline
from cliplab.encoders.modelscope_pipeline import THEIRS, CLIPPreprocessor

GOLDEN = Path(__file__).parent / "golden" / "chinese_clip"
FOLDER = str(GOLDEN / "model_dir")


def test_pipeline_gives_what_it_gave_in_its_own_environment() -> None:
    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks

    golden = load_file(GOLDEN / "model.safetensors")
    pipe = pipeline(task=Tasks.multi_modal_embedding, model=FOLDER, model_revision="v1.0.1")
    assert type(pipe).__module__.startswith("modelscope.pipelines.")
    text_emb = pipe.forward({"text": ["站立的羊", "进食的羊", "躺着的羊"]})["text_embedding"]
    torch.testing.assert_close(text_emb, golden["out.dir.text_embedding"], rtol=0, atol=1e-5)
    images = [Image.fromarray(golden[f"in.rgb{i}"].numpy()) for i in (0, 1)]
    img_emb = torch.cat([pipe.forward({"img": image})["img_embedding"] for image in images])
    torch.testing.assert_close(img_emb, pipe.forward({"img": images})["img_embedding"])
    logits = (img_emb / pipe.model.temperature) @ text_emb.t()
    torch.testing.assert_close(logits, golden["out.dir.logits_per_image"], rtol=0, atol=0.05)


def test_long_texts_are_cut_and_end_in_sep() -> None:
    preprocess = CLIPPreprocessor(FOLDER)
    ids = preprocess({"text": ["羊" * 60, "羊"], "img": None})
    assert ids.keys() == {"text"}
    assert ids["text"].shape == (2, 52)
    start, sheep, end = ids["text"][1, :3].tolist()
    assert ids["text"][0].tolist() == [start] + [sheep] * 50 + [end]


def test_training_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="got 'train'; expected 'inference' or 'eval'"):
        CLIPPreprocessor(FOLDER, mode="train")


def test_nothing_is_replaced_where_the_original_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ModuleType(THEIRS)
    monkeypatch.setitem(sys.modules, THEIRS, original)
    assert not modelscope_pipeline.stand_in()
    assert sys.modules[THEIRS] is original


@pytest.mark.parametrize("error", [ImportError, AttributeError])  # absent; broken
def test_the_original_is_replaced_where_it_does_not_import(
    monkeypatch: pytest.MonkeyPatch, error: type
) -> None:
    def refuse(name: str) -> None:
        raise error(name)

    monkeypatch.delitem(sys.modules, THEIRS)
    monkeypatch.setattr(importlib, "import_module", refuse)
    assert modelscope_pipeline.stand_in()
    assert sys.modules[THEIRS].CLIPPreprocessor is CLIPPreprocessor


def test_without_modelscope_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope.metainfo", None)
    monkeypatch.delitem(sys.modules, modelscope_pipeline.__name__)
    with pytest.raises(ImportError, match=r'pip install "modelscope\[framework\]"'):
        importlib.import_module(modelscope_pipeline.__name__)
