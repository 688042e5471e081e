"""What the tests of `detect` share: tiny checkpoints as data, pictures with boxes, the command."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vild_world
from json_files import read
from PIL import Image
from tiny_checkpoints import RESNET, make_modelscope, make_openai

from cliplab.__main__ import main
from cliplab.detection import Detections, Query, as_classes
from cliplab.detection.words import Words
from cliplab.encoders import load_encoder
from cliplab.models.vild import ViLD, save_vild
from cliplab.runtime import data_dir, sha256

TINY = replace(vild_world.TINY, embed_dim=32, height=32)
BASE = ["standing sheep", "goat"]  # categories of the shipped card that had boxes


def make_data(folder: Path) -> Path:
    """Tiny random encoders and a ViLD taught by `pasture`, as they are shipped -> their folder."""
    make_openai(folder / "checkpoints" / "clip-openai", RESNET)
    make_modelscope(folder / "checkpoints" / "clip-chinese", RESNET)
    for name in ("prompts", "fonts"):
        shutil.copytree(data_dir() / name, folder / name)
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("CLIPLAB_DATA", str(folder))
        teacher = {"name": "pasture", "fingerprint": load_encoder("pasture").fingerprint}
    categories = {"base": BASE, "novel": ["lying sheep"]}
    make_vild(folder / "checkpoints" / "vild", {"categories": categories, "teacher": teacher})
    return folder


def make_vild(
    folder: Path, card: dict[str, Any] | None, teacher: dict[str, str] | None = None, **changes: Any
) -> Path:
    """A random ViLD with TINY's sizes and `changes`, beside `card` -> its folder."""
    torch.manual_seed(0)
    model = ViLD(replace(TINY, **changes))
    model.teacher = teacher or {}
    path = folder / "model.safetensors"
    save_vild(model, path)
    if card is not None:
        card = {**card, "files": {path.name: sha256(path)}}
        (folder / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def run(*arguments: object) -> int:
    return main(["detect", *map(str, arguments)])


def told(path: Path) -> dict[str, list[tuple[str, list[float], float]]]:
    """A COCO file as file name -> (class, box, score)."""
    table = read(path)
    names = {one["id"]: one["name"] for one in table["categories"]}
    files = {one["id"]: one["file_name"] for one in table["images"]}
    found: dict[str, list] = {name: [] for name in files.values()}
    for one in table["annotations"]:
        row = (names[one["category_id"]], one["bbox"], one["score"])
        found[files[one["image_id"]]].append(row)
    return found


def picture(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0) -> Path:
    """Coarse noise, so that a detector has something to look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)
    return path


class Oracle:
    """A detector that says what it was told to say, picture after picture."""

    name, teacher = "oracle", None

    def __init__(
        self, answers: list[list[tuple[int, float, list[float]]]],
        groups: dict[str, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.groups, self._answers = groups or {}, iter(answers)

    def read(self, prompts: Words) -> Query:
        return Query(classes=as_classes(prompts), groups=self.groups, notes=["it knows"])

    def detect(self, images, prompts: Words, boxes=None) -> list[Detections]:
        names = self.read(prompts).classes.names
        return [said(names, next(self._answers)) for _ in images]

    def describe(self, prompts: Words) -> dict[str, Any]:
        return {"model": "oracle"}


def said(names: Sequence[str], answers: list[tuple[int, float, list[float]]]) -> Detections:
    """(class, score, box) -> detections, best first."""
    answers = sorted(answers, key=lambda answer: -answer[1])
    boxes = torch.tensor([box for *_, box in answers]).reshape(-1, 4).float()
    scores = torch.tensor([score for _, score, _ in answers])
    labels = torch.tensor([k for k, *_ in answers]).long()
    return Detections(boxes, scores, labels, tuple(names))
