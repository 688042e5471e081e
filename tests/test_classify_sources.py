"""Every kind of source through the command, with what is reported where the truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from classify_world import class_folders, coloured, rows, run
from json_files import read as report
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
)

from cliplab.classification.answer import Answer, assess, gained
from cliplab.classification.prompts import Classes
from cliplab.classification.zero_shot import Scores, build_classifier, classify
from cliplab.cli.tables import classify_verdict
from cliplab.data import Sample, SampleSet
from cliplab.encoders import load_encoder
from cliplab.encoders.two_towers import Encoder

pytestmark = pytest.mark.usefixtures("world")


# ---- kinds of sources --------------------------------------------------------------------------


def test_class_folders_are_labels_and_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flock = class_folders(tmp_path / "flock", 3)
    out, js = tmp_path / "s.csv", tmp_path / "r.json"
    assert run(flock, "--out", out, "--json", js) == 0
    written = rows(out)
    assert [row["true"] for row in written] == [row["file"].split("/")[0] for row in written]
    found = report(js)
    right = sum(row["true"] == row["predicted"] for row in written)
    assert found["assessment"]["accuracy"]["value"] == pytest.approx(right / 9, abs=1e-4)
    assert found["assessment"]["n"] == 9
    counts = {"images": 9, "read": 9, "unreadable": 0, "labelled": 9, "problems": 0}
    assert found["counts"] == counts
    assert found["classes"][0] == {"name": "eating", "prompt": "eating"}
    matrix = torch.tensor(found["assessment"]["confusion"]["true_by_predicted"])
    assert matrix.trace() == right
    assert matrix.sum(dim=1).tolist() == [3, 3, 3]
    printed = capsys.readouterr().out
    assert f"accuracy           {right / 9:.3f} (" in printed
    assert "true \\ predicted" in printed


def test_the_order_of_labels_never_matters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flock, found = class_folders(tmp_path / "flock", 2), []
    labels = ["a sheep eating", "a lying one", "a standing one"]
    for order in (1, -1):
        js = tmp_path / f"{order}.json"
        assert run(flock, "--labels", *labels[::order], "--json", js) == 0
        found.append(report(js)["assessment"]["accuracy"])
    assert found[0] == found[1]
    note = "note: labels paired with the classes that they name: eating = a sheep eating, lying = "
    assert capsys.readouterr().err.count(note) == 2
    assert run(flock, "--labels", "on its legs", "on its belly", "at the trough") == 2
    assert 'as in eating="what it looks like"' in capsys.readouterr().err


def test_sub_folders_need_not_be_classes_and_splits_can_be_chosen(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("test", 1)):
        class_folders(tmp_path / "flock" / split, count, start=5 * count)
    flock, out = tmp_path / "flock", tmp_path / "s.csv"
    assert run(flock, "--split", "test", "--out", out) == 0
    assert [row["file"] for row in rows(out)] == [
        "test/eating/5.png", "test/lying/5.png", "test/standing/5.png",
    ]  # fmt: skip
    coloured("lying", 7).save(flock / "test" / "loose.png")
    assert run(flock, "--labels", "a", "b", "--out", out, "--force") == 2
    assert run(flock, "--labels", "a", "b", "--out", out, "--force", "--unlabelled") == 0
    assert len(rows(out)) == 10
    assert "true" not in rows(out)[0]


def coco(folder: Path, boxes: list[tuple[int, list[float], int]]) -> Path:
    """Two pictures of 100 x 60 px, left half red, right half blue, and their boxes."""
    folder.mkdir(parents=True)
    picture = Image.new("RGB", (100, 60), (200, 40, 40))
    picture.paste((40, 60, 200), (50, 0, 100, 60))
    pictures = []
    for i in (1, 2):
        picture.save(folder / f"{i}.png")
        pictures.append({"id": i, "file_name": f"{i}.png", "width": 100, "height": 60})
    content = {
        "images": pictures,
        "annotations": [
            {"id": n, "image_id": i, "bbox": box, "category_id": c}
            for n, (i, box, c) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "lying"}, {"id": 2, "name": "standing"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "boxes.json"


def test_each_box_is_a_crop_with_its_name(tmp_path: Path) -> None:
    path = coco(tmp_path / "herd", [(1, [0, 0, 40, 60], 1), (1, [60, 0, 40, 60], 2),
                                    (2, [5, 5, 30, 30], 1)])  # fmt: skip
    out, js = tmp_path / "s.csv", tmp_path / "r.json"
    assert run(path, "--out", out, "--json", js) == 0
    assert report(js)["assessment"]["accuracy_by_group"]["groups"] == 2  # boxes of one picture
    written = rows(out)
    assert [row["true"] for row in written] == ["lying", "standing", "lying"]
    assert [row["file"] for row in written] == ["1.png#1", "1.png#2", "2.png#1"]
    encoder = load_encoder("pasture", device="cpu")
    red = Image.new("RGB", (40, 60), (200, 40, 40))
    expected = classify(encoder, [red], build_classifier(encoder, ["lying", "standing"]))
    assert float(written[0]["cosine(lying)"]) == pytest.approx(
        float(expected.cosine[0, 0]), abs=1e-5
    )


def test_boxes_may_lie_elsewhere_and_take_in_their_surroundings(tmp_path: Path) -> None:
    path = coco(tmp_path / "herd", [(1, [10, 10, 38, 40], 1), (2, [60, 10, 20, 20], 2)])
    other, out, found = tmp_path / "boxes.json", tmp_path / "s.csv", []
    path.rename(other)
    for arguments in (
        ["--boxes", other, tmp_path / "herd"],
        [other, "--images", tmp_path / "herd"],
        [other, "--images", tmp_path / "herd", "--box-scale", "1.5"],
    ):
        assert run(*arguments, "--out", out, "--force") == 0
        found.append([float(row["cosine(lying)"]) for row in rows(out)])
    assert found[0] == found[1]
    assert found[0][0] != pytest.approx(found[2][0], abs=1e-5)  # 1.5 times reaches the blue half
    flock = class_folders(tmp_path / "flock", 8, "lying", "standing")  # has no boxes to enlarge
    assert run(*arguments, "--examples", flock) == 0


# ---- mistakes, remarks, provenance -------------------------------------------------------------


def test_the_worst_mistakes_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flock = class_folders(tmp_path / "flock", 4)
    html, js = tmp_path / "g.html", tmp_path / "r.json"
    assert run(flock, "--html", html, "--json", js) == 0
    assert any("shuffled" in remark for remark in report(js)["remarks"])  # told the truth
    worst = report(js)["most_wrong"]
    assert worst
    shares = [row["probability"] for row in worst]
    assert shares == sorted(shares, reverse=True)
    lines = capsys.readouterr().out.splitlines()
    page = html.read_text(encoding="utf-8")
    cards = [part.partition('"')[0] for part in page.split(' alt="')[1:]]
    for i, row in enumerate(worst):
        assert row["true"] != row["predicted"]
        assert lines[1 + i].startswith(row["file"])
        assert cards[i] == row["file"]
    assert page.count("data:image/") == 12
    encoder = load_encoder("pasture", device="cpu")
    assert report(js)["encoder"]["fingerprint"] == encoder.fingerprint
    assert report(js)["encoder"]["provenance"] == encoder.provenance
    assert {"python", "torch", "cliplab"} <= set(report(js)["versions"])


def test_prompts_that_cannot_be_read_are_remarked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flock = class_folders(tmp_path / "flock", 1, "lying", "standing")
    assert run(flock, "--labels", "lying=躺着的羊", "standing=站着的羊", "--device", "cpu") == 0
    complaints = capsys.readouterr().err
    assert "remark: pasture cannot read the prompt '躺着的羊'" in complaints
    assert complaints.count("cannot read") == 1
    assert "Warning" not in complaints


# ---- the cache ---------------------------------------------------------------------------------


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    from cliplab.encoders import embeddings

    opened: list[Path] = []
    original = embeddings.open_image

    def counting(path: Path, **options: object) -> Image.Image:
        opened.append(Path(path))
        return original(path, **options)

    monkeypatch.setattr(embeddings, "open_image", counting)
    return opened


def test_an_interrupted_run_keeps_what_it_encoded_and_the_next_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flock = class_folders(tmp_path / "flock", 4)
    encode, batches = Encoder.encode_pixels, []

    def interrupted(self: Encoder, pixels: list) -> torch.Tensor:
        batches.append(1)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return encode(self, pixels)

    monkeypatch.setattr(Encoder, "encode_pixels", interrupted)
    assert run(flock, "--batch-size", 2, "--out", tmp_path / "s.csv") == 130
    assert not (tmp_path / "s.csv").exists()
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.setattr(Encoder, "encode_pixels", encode)
    opened = count_decoded(monkeypatch)
    assert run(flock, "--batch-size", 2, "--out", tmp_path / "s.csv") == 0
    assert 0 < len(opened) < 12
    assert len(rows(tmp_path / "s.csv")) == 12
    opened.clear()
    assert run(flock, "--out", tmp_path / "2.csv") == 0
    assert not opened
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert run(flock, "--no-cache") == 0
    assert len(opened) == 12


# ---- what other programs make of it --------------------------------------------------------------


def test_pandas_reads_the_scores_and_scikit_learn_finds_the_same_numbers(tmp_path: Path) -> None:
    names, rng = ("a sheep, lying", "羊", 'the "goat"'), np.random.default_rng(0)
    photos = [Sample(Path(f"{i}.png"), name=f'{i}, "羊".png') for i in range(300)]
    true, cosine = rng.integers(3, size=300), torch.from_numpy(rng.normal(size=(300, 3)))
    cosine[range(300), true] += torch.tensor([0.2, 2.0]).repeat(150)  # too sure here, not there
    found = Answer(SampleSet.of(photos, tmp_path), Classes(names, names), tuple(range(300)),
                   tuple(true.tolist()), Scores.from_cosine(names, cosine, 1.5))  # fmt: skip
    found.write_csv(tmp_path / "s.csv")
    table, judged = pd.read_csv(tmp_path / "s.csv"), found.as_dict()["assessment"]
    assert table["file"].tolist() == [photo.name for photo in photos]
    assert not table.isna().any().any()
    shares = table[[f"probability({name})" for name in names]].to_numpy()
    said, top, right = table["predicted"], shares.max(1), table["true"] == table["predicted"]
    hit, sure = calibration_curve(right, top, n_bins=15)
    full = np.histogram(top, np.linspace(0, 1, 16))[0]
    order = sorted(range(3), key=lambda k: names[k])  # in which scikit-learn takes the columns
    theirs = {
        "n": len(table),
        "balanced_accuracy": balanced_accuracy_score(table["true"], said),
        "expected_calibration_error": (np.abs(hit - sure) * full[full > 0]).sum() / 300,
        "negative_log_likelihood": log_loss(table["true"], shares[:, order]),
        "mean_confidence": top.mean(),
    }
    assert {name: judged[name] for name in theirs} == pytest.approx(theirs, abs=1e-4)
    assert judged["accuracy"]["value"] == pytest.approx(
        accuracy_score(table["true"], said), abs=1e-4
    )
    counts = confusion_matrix(table["true"], said, labels=list(names)).tolist()
    assert judged["confusion"] == {"classes": list(names), "true_by_predicted": counts}
    assert pd.json_normalize(judged)["accuracy.n"].tolist() == [300]


# ---- the numbers -------------------------------------------------------------------------------


def test_an_assessment_by_hand() -> None:
    cosine = torch.tensor([[0.9, 0.1], [0.2, 0.1], [0.0, 0.9], [0.5, 0.1]])
    scores = Scores.from_cosine(["a", "b"], cosine, 10.0)
    judged = assess(scores, [0, 1, 1, None], ["x", "x", "y", None])
    assert judged is not None
    assert judged.confusion.tolist() == [[1, 0], [1, 1]]
    assert judged.accuracy.value == pytest.approx(2 / 3)
    assert judged.balanced_accuracy == pytest.approx(3 / 4)
    assert judged.majority == ("b", pytest.approx(2 / 3))
    assert judged.pairs() == [("b", "a", 1)]
    assert judged.by_group == pytest.approx((0.5, 1.0))
    assert judged.groups == ("x", "x", "y")


def test_what_was_gained_has_the_interval_of_its_pairs() -> None:
    before = Scores.from_cosine(["a", "b"], torch.eye(2)[[1, 1, 1, 0, 0, 0, 0, 0]], 10.0)
    after = Scores.from_cosine(["a", "b"], torch.eye(2)[[0, 0, 0, 0, 0, 0, 0, 1]], 10.0)
    judged = [assess(scores, [0] * 8, [None] * 8) for scores in (before, after)]
    gain, low, high = gained(*judged)
    assert gain == pytest.approx((3 - 1) / 8)
    assert -0.4 < low < 0 < gain < high < 0.8
    alone = [assess(scores, [0] * 8, ["x"] * 8) for scores in (before, after)]
    assert gained(*alone) == (gain, -1.0, 1.0)
    many = [assess(scores, [0] * 8, list("aabbccdd")) for scores in (before, after)]
    assert gained(*many)[1] < 0 < gained(*many)[2]


def test_of_two_pictures_nothing_is_gained_for_sure() -> None:
    same = assess(Scores.from_cosine(["a", "b"], torch.eye(2), 10.0), [0, 1], [None] * 2)
    gain, low, high = gained(same, same)
    assert gain == 0
    assert low <= -0.5 <= 0.5 <= high
    told = next(line for line in classify_verdict(same, same) if "gained" in line)
    assert told.endswith(f"+0.000 ({low:+.3f} to {high:+.3f}: not decided)")
    assert same.by_group is None
    assert assess(same.scores, [0, 1], ["x", "x"]).by_group is None
    assert assess(same.scores, [None, None], [None, None]) is None
