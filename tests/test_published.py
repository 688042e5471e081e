"""Published numbers: every row says where it stands, and one's own figure finds its row."""

import json
from pathlib import Path
from typing import Any

import pytest

from cliplab.classification.metrics import Rate
from cliplab.report.published import COLUMNS, NOT_RUN, table, topics

RATE = {"value": 0.7611, "low": 0.7574, "high": 0.7648, "n": 50_000}


def report(path: Path, **changed: Any) -> Path:
    """A result of `cliplab evaluate imagenet --json`, so far as the table reads it."""
    values = {
        "benchmark": "imagenet",
        "split": "val",
        "top1": RATE,
        "top5": {**RATE, "value": 0.9499, "low": 0.948, "high": 0.9518},
        "encoder": {"name": "openai", "spec": "openai:ViT-L/14@336px"},
        "prompts": {"name": "openai80", "templates": 80},
        "partial": [],
        "unreadable": {},
    }
    path.write_text(json.dumps(values | changed), encoding="utf-8")
    return path


def test_every_row_has_figure_unit_source_and_standing() -> None:
    assert list(topics()) == [
        "vild", "glip", "groupvit", "groupvit_names", "imagenet", "prompts", "imagenet_zh",
        "few_shot", "multilingual"
    ]  # fmt: skip
    for topic in topics():
        rows = table(topic)
        assert tuple(rows.columns) == COLUMNS
        assert rows.index.is_unique
        assert set(rows["fact"]) <= {"read in the source", "second-hand"}
        assert set(rows["unit"]) <= {"%", "points", "shots"}
        assert (rows["published"] > 0).all()
        assert (rows["here"] == NOT_RUN).all()
        assert rows["source"].str.contains(r"arXiv:\d{4}\.\d{5}|\w+/[\w-]+[,#]").all()


@pytest.mark.parametrize(
    ("topic", "row", "value"),
    [
        ("vild", "vild-ensemble-rare", 16.6),
        ("glip", "glip-a-zero-shot", 42.9),
        ("glip", "glip-l-fine-tuned", 61.7),
        ("groupvit", "groupvit-soft-nouns", 25.1),
        ("groupvit", "groupvit-yfcc-two-stages", 52.3),
        ("groupvit_names", "groupvit-coco-oracle", 54),
        ("imagenet", "clip-l14-336-top1", 76.2),
        ("imagenet", "clip-l14-336-top5", 95),
        ("imagenet", "openclip-b32", 63.32),
        ("imagenet", "notebook-b32-v2-top1", 55.93),
        ("imagenet_zh", "cnclip-l14-336", 56.7),
        ("few_shot", "tipf-eurosat-16", 84.54),
        ("multilingual", "xm-b32-zh", 0.36),
    ],
)
def test_figures_are_those_of_their_sources(topic: str, row: str, value: float) -> None:
    assert table(topic).loc[row, "published"] == value


def test_a_result_finds_its_rows_and_no_others(tmp_path: Path) -> None:
    rows = table("imagenet", report(tmp_path / "a.json"))
    shown = "76.11% (75.74%-76.48%, n=50,000)"
    assert rows.loc["clip-l14-336-top1", "here"] == shown
    assert rows.loc["openclip-l14-336", "here"] == shown
    assert rows.loc["clip-l14-336-top5", "here"].startswith("94.99%")
    assert (rows["here"] != NOT_RUN).sum() == 3
    assert len(rows) == len(table("imagenet"))
    assert (table("imagenet")["here"] == NOT_RUN).all()  # nothing is remembered


def test_a_revision_is_the_same_encoder(tmp_path: Path) -> None:
    spec = "modelscope:damo/multi-modal_clip-vit-large-patch14_336_zh@v1.0.1"
    own = report(
        tmp_path / "a.json",
        encoder={"name": "x", "spec": spec},
        prompts={"name": "chinese", "templates": 80},
    )
    assert table("imagenet_zh", [own]).loc["cnclip-l14-336", "here"].startswith("76.11%")


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": {"name": "one", "templates": 1}},
        {"split": "test"},
        {"encoder": {"name": "mine", "spec": "openai:mine.pt"}},
        {"encoder": {"name": "mine"}},
    ],
)
def test_what_fits_no_row_gets_one_of_its_own(tmp_path: Path, changed: dict) -> None:
    rows = table("imagenet", [report(tmp_path / "mine.json", **changed)])
    assert (rows.iloc[:-1]["here"] == NOT_RUN).all()
    assert rows.index[-1] == "mine"
    assert rows.iloc[-1]["here"].startswith("76.11%")
    assert rows["published"].isna().sum() == 1


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    own = report(tmp_path / "a.json", partial=["--limit: 10"], unreadable={"a": "b", "c": "d"})
    here = table("imagenet", own).loc["clip-l14-336-top1", "here"]
    assert here.endswith("; not the whole set; 2 unreadable, counted as wrong")


def test_figures_may_be_named_by_row(tmp_path: Path) -> None:
    own = {
        "openclip-b32": 63.4,
        "openclip-b16": Rate(0.683, 0.679, 0.687, 50_000),
        "clip-l14-336-top5": report(tmp_path / "a.json"),
    }
    here = table("imagenet", own)["here"]
    assert here["openclip-b32"] == "63.4 %"
    assert here["openclip-b16"] == "68.30% (67.90%-68.70%, n=50,000)"
    assert here["clip-l14-336-top5"].startswith("94.99%")
    assert table("prompts", {"template-gain": 0.9})["here"].iloc[0] == "0.9 points"


def test_wrong_names_and_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown topic 'imagnet'; did you mean 'imagenet'"):
        table("imagnet")
    with pytest.raises(ValueError, match="unknown row 'openclip-b33'; did you mean 'openclip-b32'"):
        table("imagenet", {"openclip-b33": 1.0})
    for text in ("{}", "half", "[]", '{"top1": {"value": 1}}'):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"a.json: not a result .*cliplab evaluate imagenet"):
            table("imagenet", tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        table("imagenet", tmp_path / "absent.json")
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no published numbers; .* unset \$CLIPLAB_DATA"):
        topics()
