"""Published numbers: every row says where it stands."""

import json
from pathlib import Path

import pytest

from cliplab.report.published import COLUMNS, NOT_RUN, table
from cliplab.runtime import data_dir

FILES = sorted((data_dir() / "published").glob("*.json"))
TOPICS = [name for file in FILES for name in json.loads(file.read_text("utf-8"))["topics"]]
UNITS = {"%", "points", "shots", "GPUs", "days", "pairs a second", "GFLOPs"}
FIGURES = {
    "vild-ensemble-rare": 16.6, "glip-a-zero-shot": 42.9, "glip-l-fine-tuned": 61.7,
    "clip-vit-l14-v100-days": 12, "clip-rn50x64-v100-gpus": 592, "groupvit-soft-nouns": 25.1,
    "groupvit-yfcc-two-stages": 52.3, "groupvit-coco-oracle": 54, "clip-l14-336-top1": 76.2,
    "clip-l14-336-top5": 95, "openclip-b32": 63.32, "notebook-b32-v2-top1": 55.93,
    "cnclip-l14-336": 56.7, "tipf-eurosat-16": 84.54, "xm-b32-zh": 0.36,
}  # fmt: skip


def test_every_row_has_figure_unit_source_and_standing() -> None:
    assert len(TOPICS) == 10
    found: dict[str, float] = {}
    for topic in TOPICS:
        rows = table(topic)
        assert tuple(rows.columns) == COLUMNS
        assert rows.index.is_unique
        assert set(rows["fact"]) <= {"read in the source", "second-hand"}
        assert set(rows["unit"]) <= UNITS
        assert (rows["published"] > 0).all()
        assert (rows["here"] == NOT_RUN).all()
        assert rows["source"].str.contains(r"arXiv:\d{4}\.\d{5}|\w+/[\w-]+[,#]").all()
        assert not rows.isna().any(axis=None)
        found |= rows["published"].to_dict()
    assert {name: found[name] for name in FIGURES} == FIGURES  # as their sources have them


def test_wrong_names_and_places_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown topic 'imagnet'; did you mean 'imagenet'"):
        table("imagnet")
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no published numbers; .* unset \$CLIPLAB_DATA"):
        table("imagenet")
