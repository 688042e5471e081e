"""The drawn architectures: up to date, true to the shipped models."""

import re
from pathlib import Path
from xml.etree import ElementTree

import draw_diagrams
import pytest
import torch
from test_notation import symbols

from cliplab import pasture
from cliplab.encoders import load_encoder
from cliplab.models import glip
from cliplab.models.groupvit import load_groupvit
from cliplab.models.vild import load_vild
from cliplab.runtime import checkpoint_dir

NAMES = list(draw_diagrams.FACTS)
LESSON = {"clip": "01", "zero_shot": "02", "vild": "03", "glip": "04", "groupvit": "05"}
SVG = "{http://www.w3.org/2000/svg}"


def read(name: str) -> ElementTree.Element:
    return ElementTree.parse(draw_diagrams.FOLDER / f"{name}.svg").getroot()


def lines(name: str) -> list[str]:
    return ["".join(text.itertext()) for text in read(name).iter(f"{SVG}text")]


def test_the_committed_pictures_are_those_of_the_shipped_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_diagrams.main(tmp_path)
    for name in NAMES:
        committed = (draw_diagrams.FOLDER / f"{name}.svg").read_bytes()
        assert (tmp_path / f"{name}.svg").read_bytes() == committed, (
            f"{name}: run python tools/draw_diagrams.py"
        )
        assert len(committed) < 60_000
    shown = re.findall(r"^!\[(.{200,}?)\]\(figures/(\w+)\.svg\)$", capsys.readouterr().out, re.M)
    assert [name for _, name in shown] == NAMES
    assert all(alt == read(name).findtext(f"{SVG}title") for alt, name in shown)


def test_shapes_on_the_arrows_are_what_the_package_gives() -> None:
    drawn = {name: {line.replace("\xa0", " ") for line in lines(name)} for name in NAMES}
    portrait = pasture.draw(pasture.portrait(3, split="test"), 64)
    clip = load_encoder("pasture", device="cpu")
    assert f"(N, {clip.encode_text(['a sheep']).shape[1]})" in drawn["clip"]
    assert f"un  (N, {clip.encode_image([portrait]).shape[1]})" in drawn["zero_shot"]
    ids, pixels = torch.ones(1, 12, dtype=torch.long), torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        found = load_vild(checkpoint_dir("vild") / "model.safetensors")(pixels)[0]
        scores = glip.load_glip("pasture")(pixels, ids, ids.bool()).token_logits[0]
        groups = load_groupvit(checkpoint_dir("groupvit")).group(pixels[..., :96, :96])
    assert f"er  {tuple(found.image_emb.shape)}" in drawn["vild"]
    assert f"b  {tuple(found.boxes_xyxy.shape)}" in drawn["vild"]
    assert f"S  {tuple(scores.shape)}" in drawn["glip"]
    assert f"A  {tuple(groups.assignments[0].soft[0].shape)}" in drawn["groupvit"]


@pytest.mark.parametrize("name", NAMES)
def test_symbols_are_those_of_the_lesson(name: str) -> None:
    table = {re.sub(r"\W|mathbf", "", s) for s, of in symbols().items() if LESSON[name] in of}
    bold = {t.text for t in read(name).iter(f"{SVG}tspan") if t.get("font-weight")}
    italic = {t.text for t in read(name).iter(f"{SVG}tspan") if t.get("font-style")}
    used = {letter for words in bold | italic if words and len(words) < 3 for letter in words}
    assert used <= table | set("hw√T"), used - table  # map sides; a root; rows of t_k
