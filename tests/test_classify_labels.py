"""Which class a label means: by a name alone, or an error that says how to go on."""

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
        (["a sheep；goat;cow"], ["a sheep", "goat", "cow"]),
        (["sheep,", "a goat,", "cow"], ["sheep", "a goat", "cow"]),
        (["sheep", ",goat"], ["sheep", "goat"]),
        (["a photo of a sheep, an animal", "a goat"], ["a photo of a sheep, an animal", "a goat"]),
        (["一只羊，躺着", "一只羊，站着"], ["一只羊，躺着", "一只羊，站着"]),
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


@pytest.mark.parametrize(
    ("source", "prompts"),  # each prompt shows the class at its place
    [
        (POSTURES, ["a sheep lying down", "a sheep standing"]),
        (["goat", "wild_goat"], ["a GOAT", "a wild goat seen from afar"]),
        (["lying", "lying down"], ["it is lying", "it is lying-down"]),
        (["horn", "no_horn"], ["a sheep with a horn", "a sheep with no horn"]),
        ([str(n) for n in range(1, 12)], [f"{n} sheep" for n in range(1, 12)]),
        ([str(n) for n in range(1, 12)], [f"{n}只羊" for n in range(1, 12)]),
        (["1", "11"], ["图片1号", "第11号"]),
        (["躺着", "站着"], ["躺着的羊", "一只站着的羊"]),
        (["有角", "没有角"], ["有角的羊", "没有角的羊"]),
        (["躺", "躺着睡"], ["躺在地上", "躺着睡的羊"]),
        (["lying", "goat"], ["lying", "a goat"]),
        (["standing", "lying"], ["standing and not lying", "lying and never standing"]),
    ],
)
def test_prompts_are_paired_with_the_classes_that_they_name(
    source: list[str], prompts: list[str]
) -> None:
    for order in (1, -1):
        classes = resolve_classes(prompts[::order], source)
        assert (classes.names, classes.prompts) == (tuple(source[::order]), tuple(prompts[::order]))
        assert all(
            f"{n} = {p}" in classes.note
            for n, p in zip(source, prompts, strict=True)
            if fold(n) != fold(p)
        )
    classes = resolve_classes([*prompts, "something else"], source)
    assert classes.names == (*source, "something else")


@pytest.mark.parametrize(
    ("given", "source", "message"),
    [
        (["a", "b", "c"], ["k", "l", "m", "n"], r"3 labels but 4 classes \(k, l, m, n\)"),
        (["a", "b"], ["k"], r"2 labels but 1 class \(k\)"),
        (["standing", "a sheep"], POSTURES, "none of the labels is 'lying'"),
        (["on its legs", "on its belly"], POSTURES, 'expected one for each class, as in lying="wh'),
        (["a calm sheep", "a lying sheep"], POSTURES, "none of the labels is 'standing', or names"),
        (["a sheep lying or standing", "standing"], POSTURES, "none of the labels is 'lying', or"),
        (["lying left", "lying right", "standing"], POSTURES, "none of the labels is 'lying', or"),
        (["lying=y", "Standng"], POSTURES, "'Standng' is no class; did you mean 'standing'"),
        (["an understanding sheep", "lying"], POSTURES, "none of the labels is 'standing'"),
        (["not lying", "standing"], POSTURES, "none of the labels is 'lying'"),
        (["羊不要山羊", "猫"], ["羊", "山羊"], "none of the labels is"),
        (["不是躺着的羊", "站着的羊"], ["躺着", "站着"], "none of the labels is '躺着'"),
        ([f"{n}0 sheep" for n in range(11)], [f"{n}" for n in range(11)], "fit the classes"),
        (["standing=x", "lyng=y"], POSTURES, "'lyng' is no class; did you mean 'lying'"),
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
