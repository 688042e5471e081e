"""Learning from examples on the command line: who may be judged, and what is kept."""

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from classify_world import class_folders, rows, run
from json_files import read as report

from cliplab.classification.few_shot import METHODS
from cliplab.cli.classify import Method


@pytest.fixture
def flock(world: Path, tmp_path: Path) -> Path:
    return class_folders(tmp_path / "flock", 12)


def test_the_methods_of_the_help_are_those_there_are() -> None:
    assert set(get_args(Method)) == set(METHODS)


def test_one_source_is_split_and_judged_by_its_test_part(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, js, html = (tmp_path / name for name in ("s.csv", "r.json", "g.html"))
    written = ("--out", out, "--json", js, "--html", html)
    assert run(flock, "--examples", flock, *written) == 0
    printed, complaints = capsys.readouterr()
    counts = {k: int(n) for k, n in re.findall(r"(train|val|test) (\d+)", complaints)}
    assert sum(counts.values()) == 36
    assert len(rows(out)) == counts["test"]
    assert f"is judged by its {counts['test']} test photos only" in complaints
    found = report(js)
    assert found["assessment"]["n"] == counts["test"]
    examples = found["few_shot"]["examples"]
    assert {part: sum(n.values()) for part, n in examples.items()} == {
        "train": counts["train"], "val": counts["val"],
    }  # fmt: skip
    assert found["few_shot"]["choices"]["method"] == "text-probe"
    before = found["few_shot"]["zero_shot"]["accuracy"]["value"]
    after = found["assessment"]["accuracy"]["value"]
    assert found["few_shot"]["zero_shot"]["gain"][0] == pytest.approx(after - before, abs=1e-3)
    assert "  prompts alone    " in printed
    assert "prompts alone" in html.read_text(encoding="utf-8")
    assert re.search(r"classifier <b>text-probe</b>", html.read_text(encoding="utf-8"))


def test_what_random_towers_cannot_read_is_learned(flock: Path, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "barn", 4, start=50)
    js = tmp_path / "r.json"
    asked = ("--examples", flock, "--method", "linear-probe", "--shots", 5, "--json", js)
    assert run(other, *asked) == 0
    found = report(js)
    assert found["few_shot"]["examples"]["train"] == {"eating": 5, "lying": 5, "standing": 5}
    assert found["assessment"]["accuracy"]["value"] == 1.0
    assert found["few_shot"]["zero_shot"]["accuracy"]["value"] < 0.9


def test_prompts_of_the_classes_go_to_the_classifier(flock: Path, tmp_path: Path) -> None:
    labels = [f"{name}=a sheep {name}" for name in ("standing", "lying", "eating")]
    out, js = tmp_path / "s.csv", tmp_path / "r.json"
    code = run(
        *(flock, "--examples", flock, "--method", "linear-probe"),
        *("--labels", *labels, "--out", out, "--json", js),
    )
    assert code == 0
    assert report(js)["classes"][0] == {"name": "standing", "prompt": "a sheep standing"}
    for row in rows(out):  # labels of examples and pictures were put in the order of --labels
        assert row["file"].split("/")[0] == row["true"] == row["predicted"]


# ---- kept classifiers ------------------------------------------------------------------------


def test_a_classifier_is_kept_and_used_again_with_its_encoder(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = class_folders(tmp_path / "barn", 2, start=50)
    kept = tmp_path / "sheep.safetensors"
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    assert run(other, "--examples", flock, "--save-classifier", kept, "--out", first) == 0
    assert run(other, "--classifier", kept, "--out", second) == 0
    assert first.read_bytes() == second.read_bytes()
    assert run(other, "--classifier", kept, "--encoder", "pasture-zh") == 2
    assert "made for the encoder pasture" in capsys.readouterr().err


def test_a_kept_classifier_is_not_judged_by_what_it_learned_from(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes by coin toss: on its own examples it would be far better than luck."""
    kept, js = tmp_path / "coins.safetensors", tmp_path / "r.json"
    for i, photo in enumerate(sorted(flock.rglob("*.png"))):
        coin = tmp_path / "coins" / ("heads" if i % 2 else "tails") / f"{i}.png"
        coin.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, coin)
    coins = tmp_path / "coins"
    assert run(coins, "--examples", coins, "--save-classifier", kept) == 0
    train, val, test = map(int, re.findall(r"(?:train|val|test) (\d+)", capsys.readouterr().err))
    assert run(coins, "--classifier", kept, "--json", js) == 0
    assert f"note: {train + val} of 36 labelled photos are not judged" in capsys.readouterr().err
    assert report(js)["counts"]["read"] == 36
    assert report(js)["assessment"]["n"] == test
    other = class_folders(tmp_path / "fresh", 1, "lying", start=90)
    (other / "lying").rename(other / "heads")
    assert run(flock, "--examples", coins) == 2
    assert run(other, "--examples", coins, "--save-classifier", kept, "--force") == 0
    assert run(coins, "--classifier", kept) == 2
    assert "learned from all 36 labelled photos" in capsys.readouterr().err
    assert run(coins, "--classifier", kept, "--unlabelled") == 0


# ---- what is refused ---------------------------------------------------------------------------


def test_pictures_that_were_learned_from_are_not_judged(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = class_folders(tmp_path / "barn", 2, start=50), tmp_path / "s.csv"
    shutil.copy(flock / "lying" / "3.png", other / "lying" / "renamed.png")
    assert run(other, "--examples", flock, "--out", out) == 0
    said = "1 of 7 labelled photos are not judged, since the classifier learned from them: lying/re"
    assert said in capsys.readouterr().err
    assert [row["file"] for row in rows(out) if not row["true"]] == ["lying/renamed.png"]


def test_copies_within_fixed_splits_are_not_judged(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, start in (("train", 0), ("val", 20), ("test", 40)):
        class_folders(tmp_path / "flock" / split, 4, start=start)
    here, js = tmp_path / "flock", tmp_path / "r.json"
    shutil.copy(here / "train/lying/1.png", here / "test/lying/twin.png")
    shutil.copy(here / "train/eating/1.png", here / "val/eating/twin.png")
    assert run(here, "--examples", here, "--json", js) == 0
    assert "1 of 13 labelled photos are not judged" in capsys.readouterr().err
    assert report(js)["assessment"]["n"] == 12
    assert report(js)["few_shot"]["examples"]["val"]["eating"] == 4


def test_examples_that_do_not_fit(
    flock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flying = ["--labels", "lying=x", "standing=y", "eating=z", "flying=w"]
    for arguments, message in (
        (["--split", "val"], "--split: got 'val'; expected test"),
        (flying, "no image of 'flying'; expected one or more of each class"),
        (["--labels", "a", "b"], "2 labels for 3 classes"),
    ):
        assert run(flock, "--examples", flock, *arguments) == 2
        assert message in capsys.readouterr().err
    assert run(flock, "--examples", flock / "lying") == 2
    assert "examples without classes" in capsys.readouterr().err
    other = class_folders(tmp_path / "barn", 1, start=50)
    (other / "lying").rename(other / "flying")
    assert run(other, "--examples", flock) == 2
    assert "unknown class 'flying'; did you mean 'lying'" in capsys.readouterr().err
