"""The two listings of the seed notes run on the shipped checkpoints, word for word.

tests/fixtures/seed_notes holds both code blocks as the notes have them. What a test changes is
written down here, and checked to be all that it changes: the model's name and the images' paths.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from cliplab.classification.zero_shot import build_classifier, classify
from cliplab.data import open_image
from cliplab.encoders import load_encoder
from cliplab.pasture import Combo, draw, herd, portrait

ROOT = Path(__file__).resolve().parent.parent
LISTINGS = ROOT / "tests" / "fixtures" / "seed_notes"
OPENAI = "data/checkpoints/clip-openai/model.pt"
CHINESE = "data/checkpoints/clip-chinese"


def listing(name: str) -> str:
    """Code of the notes; the second block ends in what it printed, which is not code."""
    lines = (LISTINGS / name).read_text(encoding="utf-8").rstrip().split("\n")
    return "\n".join(line for line in lines if not line.startswith("Label probs: [["))


def substitute(code: str, changes: Mapping[str, str]) -> str:
    """The code with each text replaced, and only in the lines where it stands."""
    changed = code
    for old, new in changes.items():
        assert old in changed, f"{old} is not in the notes"
        changed = changed.replace(old, new)
    pairs = zip(code.split("\n"), changed.split("\n"), strict=True)
    touched = [before for before, after in pairs if before != after]
    assert all(any(old in line for old in changes) for line in touched)
    return changed


def sheep(posture: str, seed: int, size: int = 256) -> Image.Image:
    """A white sheep of the test split, `size` px."""
    return draw(portrait(seed, split="test", combos=[Combo("sheep", posture, "white")]), size)


@pytest.fixture
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the listings name the checkpoints from here
    monkeypatch.delenv("CLIPLAB_DATA", raising=False)


def execute(code: str) -> None:
    exec(compile(code, "seed notes", "exec"), {"__name__": "__main__"})


# What the listing printed for the three sheep below, the probabilities of standing, eating and
# lying: here, and with ModelScope's own preprocessors.multi_modal (torch 2.11, transformers 4.57,
# decord, fairseq, torchaudio).
PRINTED = {
    "躺": ("躺着的羊", [0.0063, 0.0160, 0.9777]),
    "吃": ("进食的羊", [0.0223, 0.9475, 0.0302]),
    "站": ("站立的羊", [0.9551, 0.0114, 0.0335]),
}


@pytest.mark.usefixtures("_at_root")
def test_modelscope_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"damo/multi-modal_clip-vit-large-patch14_336_zh": CHINESE}
    for name, posture in {"躺": "lying", "吃": "eating", "站": "standing"}.items():
        path = tmp_path / f"{name}.jpg"
        sheep(posture, seed=11, size=224).save(path)  # the quality that Pillow takes, 75
        changes[f"./{name}.jpg"] = path.as_posix()
    import cliplab.encoders.modelscope_pipeline  # noqa: F401

    execute(substitute(listing("modelscope_listing.txt"), changes))
    printed = re.findall(
        r"真实类别: (\w)\n预测类别:  (\w+)\n图文匹配概率: \[\[(.*)\]\]\n", capsys.readouterr().out
    )
    assert {true: predicted for true, predicted, _ in printed} == {
        true: predicted for true, (predicted, _) in PRINTED.items()
    }
    for true, _, probabilities in printed:
        assert [float(x) for x in probabilities.split()] == pytest.approx(
            PRINTED[true][1], abs=5e-4
        )


def test_the_lab_has_the_modelscope_listing() -> None:
    changes = {
        "'damo/multi-modal_clip-vit-large-patch14_336_zh'": "model_folder",
        **{f"'./{name}.jpg'": f"photo_paths['{name}']" for name in "躺吃站"},
    }
    define, calls = substitute(listing("modelscope_listing.txt"), changes).split("    \n" * 3)
    path = ROOT / "notebooks" / "labs" / "02_lab_notes_and_language.ipynb"
    sources = ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"]]
    for part in (define, calls):
        assert any(part.rstrip() in source for source in sources), part


@pytest.mark.usefixtures("_at_root")
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_openai_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "一群羊.png"
    draw(herd(3, split="test"), 256).save(path)
    changes = {"ViT-B/32": OPENAI, "一群羊.png": path.as_posix()}
    execute(substitute(listing("openai_listing.txt"), changes))
    printed = re.fullmatch(r"Label probs: \[\[(.*)\]\]\s*", capsys.readouterr().out, re.DOTALL)[1]
    probabilities = torch.tensor([[float(x) for x in printed.split()]])
    labels = ["喝水的羊", "吃饭的羊", "躺着的羊", "站着的羊"]
    encoder = load_encoder("pasture", device="cpu")
    expected = classify(encoder, [open_image(path)], build_classifier(encoder, labels))
    torch.testing.assert_close(probabilities, expected.probability, rtol=1e-3, atol=1e-4)
