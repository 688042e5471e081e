"""Pictures with boxes from every source, what counts as found, and how it is judged."""

from pathlib import Path

import pytest
import torch
from cliplab.cli.detect.summary import summarise
from cliplab.cli.detect.words import background_note, match, read_words
from detect_world import Oracle, coco, picture, write

from cliplab.data import ProblemKind
from cliplab.detection.boxes import Detections
from cliplab.detection.finding import Cut, Found, find
from cliplab.detection.judging import judge
from cliplab.detection.pictures import Pictures, read_boxes, read_pictures

NAMES = ["sheep", "goat"]
LEFT, RIGHT = [5.0, 5.0, 20.0, 30.0], [30.0, 5.0, 25.0, 30.0]  # x, y, width, height
LEFT_XYXY, RIGHT_XYXY = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for i, name in enumerate(["a.png", "b.png", "empty.png"]):
        picture(tmp_path / "frames" / name, seed=i)
    return tmp_path / "frames"


def labelled(frames: Path, **changes: object) -> Path:
    """a.png has a sheep and a goat, b.png a goat, empty.png nothing."""
    boxes = {"a.png": [("sheep", LEFT), ("goat", RIGHT)], "b.png": [("goat", LEFT)]}
    return write(frames / "herd.json", coco(NAMES, boxes | {"empty.png": []}, **changes))


def told(found: Pictures) -> dict[str, list[tuple[str | None, list[float]]]]:
    return {one.name: list(zip(one.labels, one.boxes_xyxy.tolist(), strict=True)) for one in found}


# ---- sources -----------------------------------------------------------------------------------


def test_a_coco_file_gives_whole_pictures_the_empty_ones_too(frames: Path) -> None:
    found = read_pictures(labelled(frames))
    assert told(found) == {
        "a.png": [("sheep", LEFT_XYXY), ("goat", RIGHT_XYXY)],
        "b.png": [("goat", LEFT_XYXY)],
        "empty.png": [],
    }
    assert [one.judged for one in found] == [True] * 3
    assert (found.class_names, found.boxes) == (["goat", "sheep"], 3)
    assert found.problems == ()
    assert told(read_pictures(frames)) == told(found)  # the folder that holds it


def test_pictures_that_a_json_does_not_list_are_remarked_on(frames: Path) -> None:
    path = labelled(frames)
    assert read_pictures(frames).problems == ()
    picture(frames / "new" / "d.png")
    (problem,) = read_pictures(frames).problems
    assert (problem.kind, problem.where) == (ProblemKind.STRAY_PICTURES, ("new/d.png",))
    assert read_pictures(path).problems == ()  # the file was asked for, not the folder


def test_a_coco_file_without_any_box_is_a_list_of_pictures(frames: Path) -> None:
    path = labelled(frames, annotations=[])
    assert told(read_pictures(path)) == {"a.png": [], "b.png": [], "empty.png": []}


def test_sub_folders_are_no_classes_here(tmp_path: Path) -> None:
    for name in ("top.png", "lying/a.png", "train/b.png"):
        picture(tmp_path / name)
    found = read_pictures(tmp_path)
    assert told(found) == {"lying/a.png": [], "top.png": [], "train/b.png": []}
    assert not any(one.judged for one in found)


def test_a_single_picture_is_a_source(frames: Path) -> None:
    found = read_pictures(frames / "a.png")
    assert [one.path for one in found] == [frames / "a.png"]


def test_yolo_and_csv(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "yolo" / "images" / f"{name}.png")
    labels = tmp_path / "yolo" / "labels" / "a.txt"
    labels.parent.mkdir()
    labels.write_text("1 0.25 0.5 0.5 0.5\n", encoding="utf-8")
    (tmp_path / "yolo" / "classes.txt").write_text("sheep\ngoat\n", encoding="utf-8")
    found = read_pictures(tmp_path / "yolo")
    assert told(found) == {"images/a.png": [("goat", [0.0, 10.0, 30.0, 30.0])], "images/b.png": []}
    assert [one.judged for one in found] == [True, True]
    table = tmp_path / "yolo" / "t.csv"
    rows = "image,label,x1,y1,x2,y2\nimages/a.png,,0,0,9,9\nimages/b.png,sheep,,,,\n"
    table.write_text(rows, encoding="utf-8")
    found = read_pictures(table)
    assert told(found) == {"images/a.png": [(None, [0.0, 0.0, 9.0, 9.0])], "images/b.png": []}
    assert [one.judged for one in found] == [True, False]  # b has a class, but who knows its boxes


def test_boxes_outside_or_of_no_area_are_told_and_dropped(frames: Path) -> None:
    odd = [("goat", [70.0, 5.0, 9.0, 9.0]), ("goat", [5.0, 5.0, 0.0, 9.0]), ("goat", LEFT)]
    odd += [("goat", LEFT), ("sheep", [50.0, 30.0, 30.0, 30.0])]
    path = write(frames / "odd.json", coco(NAMES, {"a.png": odd}))
    found = read_pictures(path)
    assert told(found) == {"a.png": [("goat", LEFT_XYXY), ("sheep", [50.0, 30.0, 60.0, 40.0])]}
    said = " ".join(map(str, found.problems))
    for what in ("outside their picture", "without area", "given twice", "clipped"):
        assert what in said


def test_boxes_with_scores_are_answers_and_no_truth(frames: Path) -> None:
    path = labelled(frames)
    table = coco(NAMES, {"a.png": [("sheep", LEFT)]})
    table["annotations"][0]["score"] = 0.9
    found = read_pictures(write(path, table))
    assert told(found) == {"a.png": [(None, LEFT_XYXY)]}
    assert not found[0].judged
    assert "a detector drew them" in found.notes[0]


def test_a_split_is_chosen(tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / part / f"{part}.png")
        boxes = {f"{part}.png": [("sheep", LEFT)], f"no-{part}.png": []}
        picture(tmp_path / part / f"no-{part}.png")
        write(tmp_path / part / "boxes.json", coco(NAMES, boxes))
    found = read_pictures(tmp_path)
    assert [one.name for one in found.select("val")] == ["val/no-val.png", "val/val.png"]
    with pytest.raises(ValueError, match="unknown split 'vla'; did you mean 'val'"):
        found.select("vla")
    with pytest.raises(ValueError, match=r"no picture of .* is in test"):
        found.select("test")


def test_boxes_for_pictures_that_are_there(frames: Path) -> None:
    pictures = read_pictures(frames)
    boxes = labelled(frames).rename(frames.parent / "herd.json")
    given, other = read_boxes(boxes, pictures)
    assert {path.name: len(rows) for path, rows in given.items()} == {
        "a.png": 2, "b.png": 1, "empty.png": 0,
    }  # fmt: skip
    assert other.class_names == ["goat", "sheep"]
    bare = write(frames.parent / "bare.json", coco(NAMES, {"a.png": []}))
    with pytest.raises(ValueError, match="no box for any of the 3 pictures"):
        read_boxes(bare, pictures)


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_pictures(tmp_path / "absent")
    with pytest.raises(ValueError, match="no images in"):
        read_pictures(tmp_path)
    with pytest.raises(ValueError, match="unknown kind 'coko'"):
        read_pictures(tmp_path, kind="coko")


# ---- words -------------------------------------------------------------------------------------


def test_labels_are_read_as_those_of_classify_are() -> None:
    assert read_words(["羊，山羊"], ()).names == ("羊", "山羊")
    words = read_words(["躺着的羊=lying sheep", "goat=a goat, brown"], ["sheep"])
    assert (words.names, words.prompts) == (
        ("躺着的羊", "goat"), ("lying sheep", "a goat, brown"),
    )  # fmt: skip
    assert read_words(None, ["a_goat", "sheep"]).prompts == ("a goat", "sheep")
    assert read_words(None, ["a_goat"]).prompts == ("a goat",)
    assert read_words(["sheep"], ()).names == ("sheep",)
    with pytest.raises(ValueError, match="'goat' repeated"):
        read_words(["goat", "goat"], ())
    with pytest.raises(ValueError, match="no labels: the source has no boxes with classes"):
        read_words(None, ())
    with pytest.raises(ValueError, match="expected CLASS=PROMPT"):
        read_words(["goat="], ())
    with pytest.raises(ValueError, match="class_names: got none"):
        read_words([","], ())


@pytest.mark.parametrize("label", ["Background", "背景", "other=background"])
def test_a_word_for_nothing_is_remarked_on(label: str) -> None:
    assert "is a class like the others here" in background_note(read_words(["goat", label], ()))
    assert background_note(read_words(["goat", "grass"], ())) == ""


# ---- what counts -------------------------------------------------------------------------------


def said(*answers: tuple[int, float, list[float]]) -> Detections:
    return Oracle(NAMES, [list(answers)]).find(None)  # type: ignore[arg-type]


def test_one_place_has_one_name() -> None:
    near = [6.0, 5.0, 25.0, 35.0]
    answers = said((0, 0.9, LEFT_XYXY), (1, 0.8, near), (1, 0.7, RIGHT_XYXY), (0, 0.2, RIGHT_XYXY))
    assert Cut()(answers).names == ["sheep", "goat"]
    assert Cut(all_names=True)(answers).names == ["sheep", "goat", "goat"]
    assert Cut(overlap=None)(answers).names == ["sheep", "goat", "goat"]
    assert Cut(overlap=None, score=0)(answers).names == ["sheep", "goat", "goat", "sheep"]
    assert Cut(top=1)(answers).names == ["sheep"]
    assert Cut(score=1)(answers).names == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": 1.5}, "--score: got 1.5; expected 0 to 1"),
        ({"score": float("nan")}, "--score: got nan"),
        ({"overlap": 0.0}, "--iou: got 0; expected more than 0"),
        ({"top": 0}, "--top: got 0; expected 1 or more"),
    ],
)
def test_cuts_that_cut_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cut(**options)


# ---- judging -----------------------------------------------------------------------------------


def found_by(answers: list, source: Path, cut: Cut | None = None) -> tuple[Found, Oracle]:
    oracle = Oracle(NAMES, answers, {"base": (1,), "novel": (0,)})
    return find(oracle, read_pictures(source), cut), oracle


def test_everything_found_is_all_right(frames: Path) -> None:
    answers = [[(0, 0.9, LEFT_XYXY), (1, 0.8, RIGHT_XYXY)], [(1, 0.7, LEFT_XYXY)], []]
    found, oracle = found_by(answers, labelled(frames))
    judged = judge(found, oracle.classes, oracle.groups)
    assert judged is not None
    assert [round(one.ap50, 6) for one in judged.groups.values()] == [1, 1, 1]
    assert list(judged.groups) == ["all", "base", "novel"]
    assert (judged.true, judged.hit, judged.counted) == ((1, 2), (1, 2), (1, 2))
    assert not any(len(boxes) for boxes in judged.missed.values())
    assert not any(bool(wrong.any()) for wrong in judged.wrong.values())


def test_misses_wrong_names_and_boxes_in_empty_pictures_count(frames: Path) -> None:
    answers = [
        [(1, 0.9, LEFT_XYXY), (1, 0.8, RIGHT_XYXY)],  # the sheep is called a goat
        [(1, 0.1, LEFT_XYXY)],  # below the threshold: AP knows it, the count does not
        [(1, 0.95, LEFT_XYXY)],  # nothing is there
    ]
    found, oracle = found_by(answers, labelled(frames))
    judged = judge(found, oracle.classes, oracle.groups)
    assert judged is not None
    assert (judged.true, judged.hit, judged.counted) == ((1, 2), (0, 1), (0, 3))
    assert [judged.missed[i].boxes_xyxy.tolist() for i in range(3)] == [
        [LEFT_XYXY],
        [LEFT_XYXY],
        [],
    ]
    assert [judged.wrong[i].tolist() for i in range(3)] == [[True, False], [], [True]]
    # By score: wrong, wrong, right, right. COCO's precision at recall 0.5 and 1 is 1/3 and 1/2,
    # made monotone: 1/2 everywhere.
    assert judged.classes[1].ap50 == pytest.approx(0.5, abs=0.01)
    assert judged.classes[0].ap50 == 0
    assert judged.groups["all"].ap50 == pytest.approx(0.25, abs=0.01)


def test_a_true_box_is_hit_once(frames: Path) -> None:
    twice = [[(0, 0.9, LEFT_XYXY), (0, 0.8, LEFT_XYXY), (1, 0.7, RIGHT_XYXY)], [], []]
    found, oracle = found_by(twice, labelled(frames), Cut(overlap=None))
    judged = judge(found, oracle.classes)
    assert judged is not None
    assert (judged.hit, judged.counted) == ((1, 1), (2, 1))
    assert judged.wrong[0].tolist() == [False, True, False]


def test_boxes_without_a_class_are_neither_right_nor_wrong(frames: Path) -> None:
    table = frames / "t.csv"
    rows = ["image,label,x1,y1,x2,y2", "a.png,,5,5,25,35", "a.png,goat,30,5,55,35", ""]
    table.write_text("\n".join(rows), encoding="utf-8")
    found, oracle = found_by([[(0, 0.9, LEFT_XYXY), (1, 0.8, RIGHT_XYXY)]], table)
    judged = judge(found, oracle.classes)
    assert judged is not None
    assert judged.wrong[0].tolist() == [False, False]
    assert (judged.true, judged.hit) == ((0, 1), (0, 1))
    assert judged.groups["all"].ap50 == pytest.approx(1)


def test_only_what_was_asked_for_is_judged(frames: Path) -> None:
    source = labelled(frames)
    oracle = Oracle(["goat", "cow"], [[(0, 0.9, LEFT_XYXY)], [], []])
    judged = judge(find(oracle, read_pictures(source)), oracle.classes)
    assert judged is not None
    assert (judged.true, judged.hit, set(judged.classes)) == ((2, 0), (0, 0), {0})
    assert judged.known == {0}
    assert judged.wrong[0].tolist() == [True]
    oracle = Oracle(["cow", "dog"], [[(0, 0.9, LEFT_XYXY)], [], []])
    assert judge(find(oracle, read_pictures(source)), oracle.classes) is None


def test_a_label_that_the_source_does_not_know_is_not_wrong(frames: Path) -> None:
    oracle = Oracle(["goat", "cow"], [[(1, 0.9, LEFT_XYXY)], [], []])
    found = find(oracle, read_pictures(labelled(frames)))
    judged = judge(found, oracle.classes)
    assert judged is not None
    assert judged.wrong[0].tolist() == [False]
    goat, cow = summarise(found, oracle, judged)
    assert (goat.true, goat.hit, goat.wrong) == (2, 0, 0)
    assert (cow.boxes, cow.true, cow.hit, cow.wrong, cow.ap) == (1, None, None, None, None)


def test_a_chinese_name_is_judged_by_its_english_text(frames: Path) -> None:
    words = read_words(["山羊=Goat", "绵羊=a woolly one"], ())
    assert match(words, ["goat", "sheep"]) == {"goat": 0}
    assert match(read_words(["a=goat", "goat=b"], ()), ["goat"]) == {"goat": 1}


def test_a_class_may_be_called_all_or_base(frames: Path) -> None:
    names = ["all", "base"]
    source = write(frames / "n.json", coco(names, {"a.png": [("all", LEFT), ("base", RIGHT)]}))
    oracle = Oracle(names, [[(0, 0.9, LEFT_XYXY)]], {"base": (0, 1)})
    judged = judge(find(oracle, read_pictures(source)), oracle.classes, oracle.groups)
    assert judged is not None
    assert judged.groups["base"].ap50 == pytest.approx(0.5)
    assert [judged.classes[k].ap50 for k in (0, 1)] == pytest.approx([1, 0])


def test_unreadable_pictures_are_kept_apart(frames: Path) -> None:
    (frames / "b.png").write_text("<html>", encoding="utf-8")
    oracle = Oracle(NAMES, [[(0, 0.9, LEFT_XYXY)], []])
    found = find(oracle, read_pictures(frames))
    assert [one.name for one in found.pictures] == ["a.png", "empty.png"]
    assert [error.path.name for error in found.unreadable] == ["b.png"]
    assert [len(one) for one in found.found] == [1, 0]
    assert torch.equal(found.found[0].boxes_xyxy, torch.tensor([LEFT_XYXY]))
