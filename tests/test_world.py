"""Photographs shown to a model of drawings: it is remarked; drawings of any kind: it is not."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
from PIL import Image
from tiny_checkpoints import RESNET, make_openai

from cliplab import pasture
from cliplab.cli.main import main
from cliplab.encoders import foreign

FRESH = 4_000_000  # seeds that neither the trainings nor tools/measure_world.py drew
REMARK = "pictures are unlike the drawn ones, the only ones that this model knows"


def photographs() -> dict[str, Image.Image]:
    """Not china.jpg of scikit-learn, a lawn below a sky, which is taken for a drawing."""
    arrays = {name: getattr(skimage.data, name)() for name in ("astronaut", "coffee", "cat")}
    arrays["motorcycle"] = skimage.data.stereo_motorcycle()[0]
    arrays["flower"] = sklearn.datasets.load_sample_image("flower.jpg")
    return {name: Image.fromarray(array) for name, array in arrays.items()}


def drawings(count: int) -> Iterator[Image.Image]:
    for seed in range(FRESH, FRESH + count):
        yield pasture.draw(pasture.portrait(seed, split="test", combos=pasture.COMBOS), 128)
        yield pasture.draw(pasture.herd(seed, split="test", combos=pasture.COMBOS), 192)


def as_kept(image: Image.Image, i: int) -> Image.Image:
    """As it is, smaller, larger, as JPEG, or larger as a poor JPEG."""
    scale, quality = ((1, 0), (0.8, 0), (2, 0), (1, 75), (1.5, 50))[i % 5]
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality) if quality else image.save(file, "PNG")
    return Image.open(file)


def saved(folder: Path, images: dict[str, Image.Image]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, image in images.items():
        image.convert("RGB").save(folder / f"{name}.png")
    return sorted(folder.iterdir())


def test_every_photograph_is_foreign_however_it_was_kept(tmp_path: Path) -> None:
    shown = photographs().items()
    kept = {f"{name}{i}": as_kept(image, i) for name, image in shown for i in range(5)}
    paths = saved(tmp_path / "photos", kept)
    assert foreign(paths) == paths


def test_of_fresh_drawings_one_in_a_hundred_at_most_is_foreign(tmp_path: Path) -> None:
    images = [*drawings(60), *pasture.crops("test", 80, start=FRESH).pil()]
    kept = {f"{i:03}": as_kept(image, i) for i, image in enumerate(images)}
    assert len(foreign(saved(tmp_path / "drawn", kept))) <= len(images) // 100


def test_nothing_is_said_of_what_cannot_be_read_or_by_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = saved(tmp_path / "photos", {"a": photographs()["coffee"]})
    (tmp_path / "photos" / "b.png").write_bytes(b"torn")
    assert foreign([*paths, tmp_path / "photos" / "b.png"]) == paths
    assert foreign([]) == []
    checkpoint = make_openai(tmp_path / "data" / "checkpoints" / "clip-openai", RESNET)
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "data"))
    assert foreign(paths) == []  # no measurement
    np.savez(checkpoint.with_name("world.npz"), weights="of another model")
    assert foreign(paths) == []


COMMANDS = {
    "classify": (["classify", "--labels", "a sheep", "a dog"], "--encoder, such as openai:"),
    "zh": (["classify", "--labels", "羊", "狗", "--encoder", "pasture-zh"], "--encoder, such as"),
    "vild": (["detect", "--labels", "sheep"], "--model glip-t:PATH, or --model crops --teacher"),
    "glip": (["detect", "--phrases", "sheep", "--model", "glip"], "--model glip-t:PATH"),
    "segment": (["segment", "--labels", "sheep", "--background"], "--model hf:nvidia/groupvit"),
}


@pytest.mark.parametrize("key", COMMANDS)
def test_every_command_remarks_on_photographs_and_not_on_drawings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    (command, *options), remedy = COMMANDS[key]
    shown = {name: photographs()[name] for name in ("astronaut", "coffee")}
    saved(tmp_path / "photos", shown | {"drawn": next(drawings(1))})
    html, js = tmp_path / "g.html", tmp_path / "r.json"
    written = ["--html", str(html), "--json", str(js)]
    assert main([command, str(tmp_path / "photos"), *options, *written]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if REMARK in line]
    assert said.startswith(f"remark: 2 of 3 {REMARK}")
    assert "(astronaut.png, coffee.png)" in said
    assert remedy in said
    assert json.loads(js.read_text("utf-8"))["remarks"][0] == said.removeprefix("remark: ")
    assert html.read_text("utf-8").count(REMARK) == 1
    saved(tmp_path / "drawn", dict(zip("abcd", drawings(2), strict=True)))
    assert main([command, str(tmp_path / "drawn"), *options]) == 0
    assert REMARK not in capsys.readouterr().err


def test_another_encoder_may_be_shown_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "photos", {"a": photographs()["coffee"]})
    encoder = f"openai:{make_openai(tmp_path / 'tiny', RESNET)}"
    assert main(["classify", str(tmp_path / "photos"), "--labels", "a", "b",
                 "--encoder", encoder, "--no-cache"]) == 0  # fmt: skip
    assert REMARK not in capsys.readouterr().err
