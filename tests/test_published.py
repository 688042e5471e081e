"""Published numbers: every row says where it stands."""

from pathlib import Path

import pytest

from cliplab.report.published import COLUMNS, NOT_RUN, table, topics

UNITS = {"%", "points", "shots", "GPUs", "days", "pairs a second", "GFLOPs"}


def test_every_row_has_figure_unit_source_and_standing() -> None:
    assert list(topics()) == [
        "vild", "glip", "training_cost", "groupvit", "groupvit_names", "imagenet", "prompts",
        "imagenet_zh", "few_shot", "multilingual"
    ]  # fmt: skip
    for topic in topics():
        rows = table(topic)
        assert tuple(rows.columns) == COLUMNS
        assert rows.index.is_unique
        assert set(rows["fact"]) <= {"read in the source", "second-hand"}
        assert set(rows["unit"]) <= {
            "%",
            "points",
            "shots",
            "GPUs",
            "days",
            "pairs a second",
            "GFLOPs",
        }
        assert (rows["published"] > 0).all()
        assert (rows["here"] == NOT_RUN).all()
        assert rows["source"].str.contains(r"arXiv:\d{4}\.\d{5}|\w+/[\w-]+[,#]").all()
        assert not rows.isna().any(axis=None)


@pytest.mark.parametrize(
    ("topic", "row", "value"),
    [
        ("vild", "vild-ensemble-rare", 16.6),
        ("glip", "glip-a-zero-shot", 42.9),
        ("glip", "glip-l-fine-tuned", 61.7),
        ("training_cost", "clip-vit-l14-v100-days", 12),
        ("training_cost", "clip-rn50x64-v100-gpus", 592),
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


def test_wrong_names_and_places_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown topic 'imagnet'; did you mean 'imagenet'"):
        table("imagnet")
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no published numbers; .* unset \$CLIPLAB_DATA"):
        topics()
