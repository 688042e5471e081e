"""README's examples of `segment` on fresh herds: what they find, what not.

`HERDS=100 pytest -s tests/test_segment_herds.py` prints the numbers that README tells.
"""

import os
from pathlib import Path

import pytest
from json_files import read
from PIL import Image
from segment_world import run

from cliplab import pasture

HERDS = int(os.environ.get("HERDS", "20"))


@pytest.fixture(scope="module")
def herds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in flock, their label PNGs in truth."""
    folder = tmp_path_factory.mktemp("herds")
    for name in ("flock", "truth"):
        (folder / name).mkdir()
    for seed in range(5_000_000, 5_000_000 + HERDS):
        scene = pasture.herd(seed, split="test")
        pasture.draw(scene, 256).save(folder / "flock" / f"{seed}.png")
        Image.fromarray(pasture.labels(scene, 256).semantic).save(folder / "truth" / f"{seed}.png")
    (folder / "truth" / "classes.txt").write_text("\n".join(pasture.SEMANTIC_CLASSES), "utf-8")
    return folder


def asked(herds: Path, *labels: str) -> tuple[list[float], list[float], list[str]]:
    """IoU and recall of the pixels of each label, the background first, and the remarks."""
    report = herds / "report.json"
    options = ("--truth", herds / "truth", "--background", "--json", report, "--force")
    assert run(herds / "flock", "--labels", *labels, *options) == 0
    said = read(report)
    counts = said["quality"]["confusion"]["pixels"]
    recall = [row[k] / sum(row) for k, row in enumerate(counts)]
    print(dict(zip(("background", *labels), (round(x, 2) for x in recall), strict=True)), "recall")
    return [row["iou"] for row in said["labels"]], recall, said["remarks"]


@pytest.mark.parametrize(
    "labels", [("sheep", "cow", "tree", "barn"), ("sheep=羊", "cow=牛", "tree=树", "barn=谷仓")]
)
def test_readmes_example_finds_what_it_asks_for(herds: Path, labels: tuple[str, ...]) -> None:
    ious, _, remarks = asked(herds, *labels)
    assert min(ious) >= 0.55
    assert not remarks


@pytest.mark.parametrize(
    "labels",
    [
        ("sheep", "goat", "cow", "dog", "horse"),
        ("sheep=羊", "goat=山羊", "cow=牛", "dog=狗", "horse=马"),
    ],
)
def test_no_animal_is_given_up_and_the_weak_ones_are_named(
    herds: Path, labels: tuple[str, ...]
) -> None:
    ious, recall, remarks = asked(herds, *labels)
    assert recall[2] >= 0.15  # of goats; 0.05 and 0.06 when the mean of all classes counted
    assert sum(ious[1:]) / 5 >= 0.45
    (weak,) = remarks
    assert f"weak in some of the labels (IoU in its card: {labels[1].split('=')[-1]} 0." in weak
