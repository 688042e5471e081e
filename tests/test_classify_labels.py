"""Which class a label means: by name, by place, or an error that says how to go on."""

import pytest

from cliplab.classification.prompts import Classes, fold, resolve_classes, split_labels

POSTURES = ["lying", "standing"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a sheep", "goat"], ["a sheep", "goat"]),
        (["a sheep,goat"], ["a sheep", "goat"]),
        (["a sheep, goat,"], ["a sheep", "goat"]),
        (["a sheep，goat"], ["a sheep", "goat"]),
        (["a sheep、goat"], ["a sheep", "goat"]),
        (["a=x,b=y"], ["a=x", "b=y"]),
        (["a＝x，b=y"], ["a＝x", "b=y"]),
        (["lying＝a sheep, lying down"], ["lying＝a sheep, lying down"]),
        (
            ["lying=a sheep, lying down", "standing=one"],
            ["lying=a sheep, lying down", "standing=one"],
        ),
    ],
)
def test_labels_may_be_apart_by_commas(given: list[str], expected: list[str]) -> None:
    assert split_labels(given) == expected


def test_without_labels_the_classes_of_the_source_are_meant() -> None:
    classes = resolve_classes(None, ["lying_down", "躺着"])
    assert classes == Classes(("lying_down", "躺着"), ("lying down", "躺着"))


@pytest.mark.parametrize("source", [[], POSTURES])
def test_a_class_can_be_given_its_prompt(source: list[str]) -> None:
    given = ["standing = a sheep standing", "lying=a sheep lying down"]
    for equals in "=＝":
        asked = [label.replace("=", equals) for label in given]
        assert resolve_classes(asked, source) == resolve_classes(given, source)
    classes = resolve_classes(given, source)
    assert classes.names == ("standing", "lying")
    assert classes.prompts == ("a sheep standing", "a sheep lying down")
    assert classes.note == ""


def test_chinese_classes_can_be_given_english_prompts_and_the_other_way_round() -> None:
    classes = resolve_classes(["躺着=a sheep lying", "站立=a sheep standing"], ["站立", "躺着"])
    assert classes.names == ("躺着", "站立")
    assert (
        resolve_classes(["lying=躺着的羊", "standing=站立的羊"], POSTURES).prompts[0] == "躺着的羊"
    )


@pytest.mark.parametrize(
    "given", [["Standing", "LYING"], ["standing，lying"], ["Ｓtanding", "lying"]]
)
def test_names_fit_whatever_their_case_and_order(given: list[str]) -> None:
    classes = resolve_classes(given, POSTURES)
    assert classes.names == ("standing", "lying")
    assert classes.note == ""


def test_accents_may_be_composed_or_not() -> None:
    assert fold("cafe\u0301_au LAIT ") == fold("caf\u00e9 au lait")


def test_more_labels_than_classes_are_welcome_by_name() -> None:
    classes = resolve_classes(["something else", "lying", "standing"], POSTURES)
    assert classes.names == ("something else", "lying", "standing")


def test_as_many_labels_as_classes_are_taken_in_order_and_that_is_said() -> None:
    classes = resolve_classes(["a sheep lying down", "a sheep standing"], POSTURES)
    assert classes.names == ("lying", "standing")
    assert classes.prompts == ("a sheep lying down", "a sheep standing")
    assert classes.note == (
        "labels taken in the order of the classes: lying = a sheep lying down, "
        "standing = a sheep standing"
    )


@pytest.mark.parametrize(
    ("given", "source", "message"),
    [
        (["a", "b", "c"], ["k", "l", "m", "n"], r"3 labels but 4 classes \(k, l, m, n\)"),
        (["a", "b"], ["k"], r"2 labels but 1 class \(k\)"),
        (["standing", "a sheep lying"], POSTURES, "none of the labels is 'lying'"),
        (["standing=x", "lyng=y"], POSTURES, "none of the labels is 'lying', did you mean 'lyng'"),
        (["a=x", "b=y"], POSTURES, "none of the labels is 'lying'"),
        (["a", "b"], [f"c{i}" for i in range(20)], r"c0, .*c7, and 12 more\)"),
        (["lying=", "standing=x"], POSTURES, "expected CLASS=PROMPT with text on both sides"),
        (["=a"], POSTURES, "expected CLASS=PROMPT with text on both sides"),
        (["a=x", "A=y"], [], "'A', 'a' repeated"),
        (["a=x", "b=X"], [], "repeated; expected each once"),
        (None, [], "no labels: the source has no classes .* expected some"),
        (None, ["lying"], "got only 'lying', which would always get 100 %"),
        (["a", "b", "c"], ["k", "l"], 'k="what it looks like"; or read the source as'),
    ],
)
def test_labels_that_fit_no_class_are_refused(
    given: list[str] | None, source: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_classes(given, source)
