"""Whole pictures with boxes from every source, what counts as found, and how it is judged."""

from pathlib import Path

import pytest
import torch
from detect_world import Oracle, picture, said
from json_files import coco, write

from cliplab.data import read_pictures
from cliplab.detection import (
    Cut,
    Found,
    Judged,
    find,
    judge,
    match,
    postprocess,
    read_labels,
    summarise,
    with_boxes,
)

NAMES = ["sheep", "goat"]
LEFT, RIGHT = [5.0, 5.0, 20.0, 30.0], [30.0, 5.0, 25.0, 30.0]  # x, y, width, height
LEFT_XYXY, RIGHT_XYXY = [5.0, 5.0, 25.0, 35.0], [30.0, 5.0, 55.0, 35.0]
Answers = list[list[tuple[int, float, list[float]]]]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for i, name in enumerate(["a.png", "b.png", "empty.png"]):
        picture(tmp_path / "frames" / name, seed=i)
    return tmp_path / "frames"


def labelled(frames: Path, **changes: object) -> Path:
    """a.png has a sheep and a goat, b.png a goat, empty.png nothing."""
    boxes = {"a.png": [("sheep", LEFT), ("goat", RIGHT)], "b.png": [("goat", LEFT)]}
    return write(frames / "herd.json", coco(NAMES, boxes | {"empty.png": []}, **changes))


def test_boxes_for_pictures_that_are_there(frames: Path) -> None:
    pictures = read_pictures(frames)
    boxes = labelled(frames).rename(frames.parent / "herd.json")
    given = with_boxes(pictures, read_pictures(boxes, images=frames))
    assert {one.name: len(one.regions) for one in given} == {"a.png": 2, "b.png": 1, "empty.png": 0}
    bare = write(frames.parent / "bare.json", coco(NAMES, {"a.png": []}))
    with pytest.raises(ValueError, match="no box for any of the 3 pictures"):
        with_boxes(pictures, read_pictures(bare, images=frames))


# ---- words -------------------------------------------------------------------------------------


def test_labels_are_read_as_those_of_classify_are() -> None:
    assert read_labels(["羊，山羊"]).names == ("羊", "山羊")
    words = read_labels(["躺着的羊=lying sheep", "goat=a goat, brown"], ["sheep"])
    assert (words.names, words.prompts) == (
        ("躺着的羊", "goat"), ("lying sheep", "a goat, brown"),
    )  # fmt: skip
    assert read_labels(None, ["a_goat", "sheep"]).prompts == ("a goat", "sheep")
    assert read_labels(None, ["a_goat"]).prompts == ("a goat",)
    assert read_labels(["sheep"]).names == ("sheep",)


def test_a_chinese_name_is_judged_by_its_english_text() -> None:
    words = read_labels(["山羊=Goat", "绵羊=a woolly one"])
    assert match(words, ["goat", "sheep"]) == {"goat": 0}
    assert match(read_labels(["a=goat", "goat=b"]), ["goat"]) == {"goat": 1}


# ---- what counts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["sheep", "goat"]),
        ({"iou": None}, ["sheep", "goat", "goat"]),
        ({"nested": ~torch.eye(2).bool()}, ["sheep", "goat", "goat"]),
        ({"iou": None, "score": 0}, ["sheep", "goat", "goat", "sheep"]),
        ({"top": 1}, ["sheep"]),
        ({"score": 1}, []),
        ({"score": 0.2, "iou": 0.99}, ["sheep", "goat", "goat"]),
    ],
)
def test_one_place_has_one_name(options: dict, names: list[str]) -> None:
    near = [6.0, 5.0, 25.0, 35.0]
    answers = [(0, 0.9, LEFT_XYXY), (1, 0.8, near), (1, 0.7, RIGHT_XYXY), (0, 0.2, RIGHT_XYXY)]
    assert postprocess(said(NAMES, answers), **options).names == names


# ---- judging -----------------------------------------------------------------------------------


def found_by(
    answers: Answers, source: Path, names: list[str] = NAMES, cut: Cut | None = None,
    groups: dict | None = None,
) -> tuple[Found, Judged]:  # fmt: skip
    oracle = Oracle(answers, groups)
    found = find(oracle, read_pictures(source), names, cut)
    judged = judge(found, oracle.read(names))
    assert judged is not None
    return found, judged


def test_everything_found_is_all_right(frames: Path) -> None:
    answers = [[(0, 0.9, LEFT_XYXY), (1, 0.8, RIGHT_XYXY)], [(1, 0.7, LEFT_XYXY)], []]
    groups = {"base": (1,), "novel": (0,)}
    _, judged = found_by(answers, labelled(frames), groups=groups)
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
    _, judged = found_by(answers, labelled(frames))
    assert (judged.true, judged.hit, judged.counted) == ((1, 2), (0, 1), (0, 3))
    missed = [judged.missed[i].boxes_xyxy.tolist() for i in range(3)]
    assert missed == [[LEFT_XYXY], [LEFT_XYXY], []]
    assert [judged.wrong[i].tolist() for i in range(3)] == [[True, False], [], [True]]
    # By score: wrong, wrong, right, right. COCO's precision at recall 0.5 and 1 is 1/3 and 1/2,
    # made monotone: 1/2 everywhere.
    assert judged.classes[1].ap50 == pytest.approx(0.5, abs=0.01)
    assert judged.classes[0].ap50 == 0
    assert judged.groups["all"].ap50 == pytest.approx(0.25, abs=0.01)


def test_a_true_box_is_hit_once(frames: Path) -> None:
    twice = [[(0, 0.9, LEFT_XYXY), (0, 0.8, LEFT_XYXY), (1, 0.7, RIGHT_XYXY)], [], []]
    _, judged = found_by(twice, labelled(frames), cut=Cut(overlap=None))
    assert (judged.hit, judged.counted) == ((1, 1), (2, 1))
    assert judged.wrong[0].tolist() == [False, True, False]


def test_boxes_without_a_class_are_neither_right_nor_wrong(frames: Path) -> None:
    table = frames / "t.csv"
    rows = ["image,label,x1,y1,x2,y2", "a.png,,5,5,25,35", "a.png,goat,30,5,55,35", ""]
    table.write_text("\n".join(rows), encoding="utf-8")
    _, judged = found_by([[(0, 0.9, LEFT_XYXY), (1, 0.8, RIGHT_XYXY)]], table)
    assert judged.wrong[0].tolist() == [False, False]
    assert (judged.true, judged.hit) == ((0, 1), (0, 1))
    assert judged.groups["all"].ap50 == pytest.approx(1)


def test_only_what_was_asked_for_is_judged(frames: Path) -> None:
    source, asked = labelled(frames), ["goat", "cow"]
    _, judged = found_by([[(0, 0.9, LEFT_XYXY)], [], []], source, asked)
    assert (judged.true, judged.hit, set(judged.classes)) == ((2, 0), (0, 0), {0})
    assert judged.known == {0}
    assert judged.wrong[0].tolist() == [True]
    found = find(Oracle([[], [], []]), read_pictures(source), ["cow", "dog"])
    assert judge(found, Oracle([]).read(["cow", "dog"])) is None


def test_a_label_that_the_source_does_not_know_is_not_wrong(frames: Path) -> None:
    names = ["goat", "cow"]
    found, judged = found_by([[(1, 0.9, LEFT_XYXY)], [], []], labelled(frames), names)
    assert judged.wrong[0].tolist() == [False]
    goat, cow = summarise(found, Oracle([]).read(names), judged)
    assert (goat.true, goat.hit, goat.wrong) == (2, 0, 0)
    assert (cow.boxes, cow.true, cow.hit, cow.wrong, cow.ap) == (1, None, None, None, None)
    assert (cow.pictures, cow.score) == (1, pytest.approx(0.9))


def test_a_class_may_be_called_all_or_base(frames: Path) -> None:
    names = ["all", "base"]
    source = write(frames / "n.json", coco(names, {"a.png": [("all", LEFT), ("base", RIGHT)]}))
    _, judged = found_by([[(0, 0.9, LEFT_XYXY)]], source, names, groups={"base": (0, 1)})
    assert judged.groups["base"].ap50 == pytest.approx(0.5)
    assert [judged.classes[k].ap50 for k in (0, 1)] == pytest.approx([1, 0])
