"""Where the truth comes from, what it means for the labels asked for, and the numbers it gives."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from json_files import coco, read, write
from PIL import Image
from segment_world import Knowing, flat, knowing, numbers, run

from cliplab.cli.skeleton import targets_in
from cliplab.data import Masks, Sample, SampleSet, read_pictures
from cliplab.segmentation import (
    Judge,
    Quality,
    Settings,
    Vocabulary,
    judging,
    read_labels,
    vocabulary,
)
from cliplab.segmentation.judging import judged_size, match_classes, read_truth, without_labels

__all__ = ["knowing"]

LEFT = [0, 0, 10, 0, 10, 20, 0, 20]  # a polygon: the left half of 20 x 20 pixels
CORNER = [0, 0, 5, 0, 5, 5, 0, 5]
A_SHEEP = coco(["sheep"], {"a.png": [("sheep", [CORNER])]}, (20, 10))
FLOCK = ("--labels", "sheep", "dog", "--background", "grass", "sky")


def words(*labels: str, background: tuple[str, ...] | None = ("grass",)) -> Vocabulary:
    return vocabulary(read_labels(labels), background=background)


def known(source: Path, where: Path | None = None) -> SampleSet:
    """The pictures of a source with what is known of their pixels."""
    return read_truth(without_labels(read_pictures(source)), where)[0]


def labels_of(sample: Sample, vocabulary: Vocabulary) -> np.ndarray:
    assert sample.masks is not None
    return judging.true_labels(sample.masks, sample.path, vocabulary, sample.size)


# ---- masks -------------------------------------------------------------------------------------


def test_pixels_are_what_was_asked_for_background_or_not_judged(tmp_path: Path) -> None:
    flat(tmp_path / "a.png", "sd")
    flat(tmp_path / "b.png", "gg")
    masks = [("Sheep", [CORNER]), ("goat", [[10, 0, 20, 0, 20, 10, 10, 10]])]
    write(tmp_path / "herd.json", coco(["Sheep", "goat"], {"a.png": masks, "b.png": []}, (20, 10)))
    one, other = known(tmp_path)
    assert one.masks
    assert one.masks.names == ("Sheep", "goat")
    with_background, without = words("羊=sheep", "dog"), words("羊=sheep", "dog", background=None)
    found = labels_of(one, with_background)
    assert (found[0, 0], found[9, 0], found[0, 19]) == (1, 0, 0)  # goat: none of the labels
    assert Judge(one.masks.names, with_background).known == {0, 1}
    assert Judge(("sheep",), with_background).known == {0, 1}  # though no class of theirs is 0
    bare = labels_of(one, without)
    assert (bare[0, 0], bare[9, 0], bare[0, 19]) == (0, 255, 255)
    assert Judge(one.masks.names, without).known == {0}
    assert labels_of(other, with_background).max() == 0  # listed without a mask: shows none


def test_classes_are_matched_by_name_then_by_words() -> None:
    both = words("sheep=ewe", "lamb=x", "person=man|woman")
    assert match_classes(both, ["Sheep", "woman", "lamb", "cow"]) == {
        "Sheep": 1, "woman": 3, "lamb": 2,
    }  # fmt: skip
    assert match_classes(words("a=b", "b=c"), ["b", "c"]) == {"b": 2, "c": 2}
    assert match_classes(both, ["background", "grass"]) == {"background": 0}
    assert match_classes(words("a", "b", background=None), ["background", "b"]) == {"b": 1}


@pytest.mark.usefixtures("knowing")
@pytest.mark.parametrize(
    ("mask", "score", "labels", "message"),
    [
        ([CORNER], 0.9, FLOCK, "a model drew them: nothing is judged"),
        (None, None, FLOCK, "not judged: the source has boxes, but no masks"),
        ([CORNER], None, ("--labels", "cow", "sky"), "none of the labels is a class of the masks"),
    ],
)
def test_what_says_nothing_about_the_labels_judges_nothing(
    tmp_path: Path, mask: Any, score: float | None, labels: tuple[str, ...], message: str, capsys
) -> None:
    flat(tmp_path / "a.png", "sd")
    table = coco(["sheep"], {"a.png": [("sheep", mask)]}, (20, 10))
    table["annotations"][0] |= {} if score is None else {"score": score}
    assert run(write(tmp_path / "herd.json", table), *labels) == 0
    printed, complaints = capsys.readouterr()
    assert message in complaints
    assert "IoU" not in printed


def test_truth_that_does_not_fit_is_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], knowing: Knowing
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        flat(tmp_path / f"{name}.png", "sd")
    Image.fromarray(np.full((10, 20), 300, np.uint16)).save(tmp_path / "e_labels.png")
    (tmp_path / "classes.txt").write_text("background\nsheep\ndog", encoding="utf-8")
    flat(tmp_path / "a_labels.png", "sd")  # colours
    numbers(tmp_path / "b_labels.png", "19")  # no class
    numbers(tmp_path / "c_labels.png", "1", "1")  # another shape
    numbers(tmp_path / "d_labels.png", "12")
    html = tmp_path / "g.html"
    assert run(tmp_path, *FLOCK, "--json", tmp_path / "r.json", "--html", html) == 0
    printed, complaints = capsys.readouterr()
    for name, why in (
        ("a", r"has colours or more than 8 bits \(RGB\)"),
        ("b", "number 9 is no class; expected less than 3"),
        ("c", "10 x 20 px for a picture of 20 x 10"), ("e", r"has colours or more than 8 bits"),
    ):  # fmt: skip
        assert re.search(rf"not judged \(1\): \S*/{name}\.png: .*{why}", complaints)
    assert "judged in 1 picture," in printed
    said = read(tmp_path / "r.json")
    assert len(said["problems"]) == 4
    assert html.read_text(encoding="utf-8").count("whose truth cannot be used") == 4


# ---- label PNGs --------------------------------------------------------------------------------


def test_label_pngs_lie_beside_pictures_or_in_a_folder(tmp_path: Path) -> None:
    flat(tmp_path / "p" / "a.jpg", "sd")
    flat(tmp_path / "p" / "sub" / "b.png", "sd")
    numbers(tmp_path / "p" / "a_labels.png", "1x")
    numbers(tmp_path / "t" / "sub" / "b.png", "20")
    numbers(tmp_path / "t" / "a.png", "00")
    for folder in ("p", "t"):
        (tmp_path / folder / "classes.txt").write_text("cow\ngoat\nsheep\n", encoding="utf-8")
    one, other = known(tmp_path / "p")
    assert (one.name, other.name, other.masks) == ("a.jpg", "sub/b.png", None)
    asked = words("sheep", "goat")
    assert labels_of(one, asked)[0, ::10].tolist() == [2, 255]
    one, other = known(tmp_path / "p", tmp_path / "t")
    assert one.masks
    assert one.masks.png == tmp_path / "t" / "a.png"
    assert labels_of(other, asked)[0, ::10].tolist() == [1, 0]


def test_without_labels_the_classes_of_the_masks_are_asked_for(
    tmp_path: Path, knowing: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(labelled(tmp_path), "--background", "grass") == 0
    assert knowing.asked[0] == ("grass", "sheep", "dog")
    assert re.search(r"^mean IoU +1\.000$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a\n\nb", r"classes\.txt: got an empty line or a name twice"),
        ("a\na", "a name twice"),
        (b"\xb0\xd7", r"classes\.txt: not UTF-8"),
        (None, r"classes\.txt: no such file; expected the names"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(
    tmp_path: Path, names: str | bytes | None, message: str
) -> None:
    flat(tmp_path / "a.png", "sd")
    if names is not None:
        text = names.encode() if isinstance(names, str) else names
        (tmp_path / "classes.txt").write_bytes(text)
    numbers(tmp_path / "a_labels.png", "12")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        known(tmp_path)


def test_a_truth_may_be_elsewhere_but_not_about_other_pictures(tmp_path: Path) -> None:
    flat(tmp_path / "p" / "a.png", "sd")
    numbers(tmp_path / "t" / "b.png", "12")
    with pytest.raises(ValueError, match="nothing about any of the 1 pictures"):
        known(tmp_path / "p", tmp_path / "t")
    table = write(tmp_path / "herd.json", A_SHEEP)
    (one,) = known(tmp_path / "p", table)
    assert labels_of(one, words("sheep"))[0, ::10].tolist() == [1, 0]


def test_the_truth_of_pictures_elsewhere_lies_in_its_folder_as_answers_do(tmp_path: Path) -> None:
    """As `segment --out` has it, in a sub-folder; what lies beside the pictures is of others."""
    flat(tmp_path / "far" / "a.bmp", "sd")
    flat(tmp_path / "far" / "a.png", "ds")  # another picture, no mask of this one
    for name in (str(tmp_path / "far" / "a.bmp"), "../far/a.bmp"):
        (table := tmp_path / "p" / "t.csv").parent.mkdir(exist_ok=True)
        table.write_text(f"image\n{name}\n", encoding="utf-8")
        (one,) = read_pictures(table)
        (folder,) = {
            p.parent for (p,) in targets_in(tmp_path / "t", [one], ["_"], option="").values()
        }
        numbers(folder / "a_labels.png", "12")
        (tmp_path / "t" / "classes.txt").write_text("grass\nsheep\ndog", encoding="utf-8")
        (one,) = known(table, tmp_path / "t")
        assert one.masks
        assert one.masks.png == folder / "a_labels.png"


@pytest.mark.usefixtures("knowing")
def test_what_is_read_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat(tmp_path / "p" / "a.png", "sd")
    numbers(tmp_path / "t" / "a.png", "12")
    (tmp_path / "t" / "classes.txt").write_text("grass\nsheep\ndog", encoding="utf-8")
    table = write(tmp_path / "p" / "herd.json", A_SHEEP)
    truth = ("--truth", tmp_path / "t")
    for source, told, option, given, kept in (
        (table, (), "--json", table, table),
        (tmp_path / "p", (), "--panoptic", table, table),
        (tmp_path / "p" / "a.png", ("--truth", table), "--html", table, table),
        (tmp_path / "p", truth, "--json", *(tmp_path / "t" / "classes.txt",) * 2),
        (tmp_path / "p", truth, "--panoptic", tmp_path / "t.json", tmp_path / "t" / "a.png"),
    ):
        before = kept.read_bytes()
        assert run(source, *told, *FLOCK, option, given, "--force") == 2
        assert re.search("would overwrite .*, with --force too", capsys.readouterr().err)
        assert kept.read_bytes() == before


# ---- sizes -------------------------------------------------------------------------------------


def test_large_pictures_are_judged_at_a_bounded_size() -> None:
    assert judged_size((20, 10)) == (20, 10)
    width, height = judged_size((8000, 6000))
    assert 0.99 < width * height / judging.MOST_PIXELS <= 1
    assert width / height == pytest.approx(4 / 3, abs=0.01)


# ---- numbers -----------------------------------------------------------------------------------


def judge(tmp_path: Path, model: Knowing, vocabulary: Vocabulary) -> Judge:
    """What the model of `knowing` makes of the pictures, against their label PNGs."""
    pictures = known(tmp_path)
    judge = Judge(next(one.masks.names for one in pictures if one.masks), vocabulary)
    for sample in pictures:
        (found,) = model.segment([sample.open()], vocabulary, Settings(templates=("{}",)))
        judge.add(sample, found, found.labels_at().numpy())
    return judge


def quality_of(judge: Judge) -> Quality:
    assert judge.quality
    return judge.quality


def labelled(tmp_path: Path) -> Path:
    """A quarter is sheep, a quarter dog, half of it grass."""
    flat(tmp_path / "a.png", "sd", "gg")
    numbers(tmp_path / "a_labels.png", "12", "00")
    (tmp_path / "classes.txt").write_text("background\nsheep\ndog", encoding="utf-8")
    return tmp_path


def test_right_answers_are_all_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge(labelled(tmp_path), Knowing(), words("sheep", "dog"))
    assert set(quality_of(judged).means().values()) == {1.0}
    assert judged.pictures == {tmp_path / "a.png": 1.0}
    assert quality_of(judged).confusions() == []
    monkeypatch.setattr(judging, "MOST_PIXELS", 100)  # larger ones are judged smaller
    judged = judge(tmp_path, Knowing(), words("sheep", "dog"))
    assert (quality_of(judged).confusion.sum(), quality_of(judged).miou) == (100, 1.0)


def test_right_masks_with_wrong_names_have_a_perfect_oracle(tmp_path: Path) -> None:
    swapped = Knowing({"sheep": "dog", "dog": "sheep"})
    judged = judge(labelled(tmp_path), swapped, words("sheep", "dog"))
    assert quality_of(judged).means() == {
        "miou": pytest.approx(1 / 3), "oracle_miou": 1.0, "boundary_miou": pytest.approx(1 / 3),
        "pixel_accuracy": 0.5,
    }  # fmt: skip
    assert set(quality_of(judged).confusions()) == {("sheep", "dog", 1.0), ("dog", "sheep", 1.0)}
    said = judged.as_dict()
    assert said
    assert said["confusion"]["names"] == ["background", "sheep", "dog"]
    assert said["confusion"]["pixels"] == [[200, 0, 0], [0, 0, 100], [0, 100, 0]]


def test_labels_that_the_truth_does_not_know_count_for_nothing(tmp_path: Path) -> None:
    """Half of the grass is called sky, of which the truth has never heard."""
    flat(tmp_path / "a.png", "sd", "gk")
    numbers(tmp_path / "a_labels.png", "12", "00")
    (tmp_path / "classes.txt").write_text("grass\nsheep\ndog", encoding="utf-8")
    asked = words("grass", "sheep", "dog", "sky", background=None)
    judged = judge(tmp_path, Knowing(), asked)
    assert judged.known == {0, 1, 2}
    assert quality_of(judged).miou == pytest.approx((0.5 + 1 + 1) / 3)
    assert quality_of(judged).of(3)["iou"] is None
    assert quality_of(judged).of(0)["iou"] == 0.5


def test_pixels_are_added_up_over_pictures(tmp_path: Path) -> None:
    labelled(tmp_path)
    flat(tmp_path / "b.png", "ss")
    numbers(tmp_path / "b_labels.png", "12")  # half of it wrong: sheep where a dog is
    judged = judge(tmp_path, Knowing(), words("sheep", "dog"))
    assert judged.pictures[tmp_path / "b.png"] == pytest.approx((0.5 + 0) / 2)
    assert quality_of(judged).iou.tolist() == pytest.approx([1, 200 / 300, 100 / 200])
    assert quality_of(judged).oracle_iou.tolist() == pytest.approx([1, 200 / 300, 100 / 200])
    assert 0 < quality_of(judged).boundary_iou[1] < 1  # that of a.png alone is 1
    assert len(judged.pictures) == 2


def test_pictures_of_which_nothing_is_known_are_not_judged(tmp_path: Path) -> None:
    labelled(tmp_path)
    flat(tmp_path / "b.png", "ss")
    numbers(tmp_path / "b_labels.png", "xx")
    assert list(judge(tmp_path, Knowing(), words("sheep", "dog")).pictures) == [tmp_path / "a.png"]


def test_the_verdict_is_printed_and_written(
    tmp_path: Path, knowing: Knowing, capsys: pytest.CaptureFixture[str]
) -> None:
    knowing.swaps = {"sheep": "dog", "dog": "sheep"}
    report = tmp_path / "r.json"
    assert run(labelled(tmp_path), *FLOCK, "--json", report) == 0
    printed, complaints = capsys.readouterr()
    assert "note: masks are known, by which the answer is judged" in complaints
    assert re.search(r"^a\.png +3  0\.333  background 50%, ", printed, re.M)
    assert re.search(r"^sheep +25\.0% +1  25\.0%  0\.000 +1\.000 +0\.000$", printed, re.M)
    assert re.search(r"^oracle mean IoU +1\.000   every group with its best true", printed, re.M)
    assert "  100% of dog is called sheep" in printed
    said = read(report)
    assert (said["quality"]["oracle_miou"], said["quality"]["miou"]) == (1.0, 0.3333)
    assert said["pictures"][0]["miou"] == 0.3333
    assert [row["iou"] for row in said["labels"]] == [1.0, 0.0, 0.0]


def test_label_pngs_are_read_as_readme_says_and_judged_as_scikit_learn_does(
    tmp_path: Path, knowing: Knowing
) -> None:
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    rng, truths, folder = np.random.default_rng(3), tmp_path / "truth", tmp_path / "flock"
    for name in "abc":
        flat(folder / f"{name}.png", *("".join(row) for row in rng.choice([*"sdgk"], (4, 5))))
        numbers(truths / f"{name}.png", *("".join(row) for row in rng.choice([*"0012x"], (4, 5))))
    (truths / "classes.txt").write_text("background\nsheep\ndog\n", encoding="utf-8")
    knowing.swaps = {"dog": "sky", "sky": "dog"}
    out = tmp_path / "out"
    assert run(folder, *FLOCK, "--truth", truths, "--out", out) == 0
    said, total = read(out / "summary.json"), np.zeros((3, 3), int)
    for row in said["pictures"]:
        with Image.open(truths / row["file"]) as known, Image.open(out / row["labels"]) as found:
            true, given = np.asarray(known).ravel(), np.asarray(found).ravel()
        kept = true != 255
        total += confusion_matrix(true[kept], given[kept], labels=range(3))
    right = total.diagonal()
    ious = right / (total.sum(0) + total.sum(1) - right)
    assert said["quality"]["confusion"]["pixels"] == total.tolist()
    assert said["quality"]["miou"] == pytest.approx(ious.mean(), abs=5e-5)
    assert 0.1 < ious.mean() < 0.9
    assert pd.DataFrame(said["labels"])["iou"].tolist() == pytest.approx(ious, abs=5e-5)
    shares = pd.json_normalize(said["pictures"]).filter(like="shares.").fillna(0)
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1], abs=5e-5)

    colours = [row["colour"] for row in said["labels"]]  # which others read, as --help says
    with Image.open(out / "a_labels.png") as image:
        numbered, seen = np.asarray(image), np.asarray(image.convert("RGB"))
    table = np.array([[*bytes.fromhex(colour[1:])] for colour in colours], np.uint8)  # (K, 3)
    assert np.array_equal(seen, table[numbered])


def test_outlines_of_an_unknown_size_are_of_the_picture(tmp_path: Path) -> None:
    """A large picture is judged smaller, its polygons are in its own pixels all the same."""
    path = flat(tmp_path / "a.png", "sd", "gg")
    masks = Masks(("sheep",), outlines=(("sheep", [LEFT]),))
    found = judging.true_labels(masks, path, words("sheep"), (4, 4))
    assert found.tolist() == [[1, 1, 0, 0]] * 4
