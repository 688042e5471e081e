"""Which class a label means: by a name alone, or an error that says how to go on."""

import pytest

from cliplab.classification.prompts import Classes, fold, resolve_classes, split_labels

POSTURES = ["lying", "standing"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a sheep", "goat"], ["a sheep", "goat"]),
        (["a sheep, goat,"], ["a sheep", "goat"]),
        (["a sheep，goat、dog；cow;b"], ["a sheep", "goat", "dog", "cow", "b"]),
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


@pytest.mark.parametrize(
    ("given", "source", "names", "prompts"),
    [
        (None, ["lying_down", "躺着"], None, ("lying down", "躺着")),
        (["b = x", "a＝y"], [], ("b", "a"), ("x", "y")),
        (["standing=x", "lying=a sheep"], POSTURES, ("standing", "lying"), ("x", "a sheep")),
        (
            ["躺着=lying", "站立=standing"],
            ["站立", "躺着"],
            ("躺着", "站立"),
            ("lying", "standing"),
        ),
        (["Standing", "LYING"], POSTURES, ("standing", "lying"), ("Standing", "LYING")),
        (["Ｓtanding，lying"], POSTURES, ("standing", "lying"), ("Ｓtanding", "lying")),
        (["cafe\u0301", "b"], ["b", "caf\u00e9"], ("caf\u00e9", "b"), ("cafe\u0301", "b")),
        (["else", *POSTURES], POSTURES, ("else", *POSTURES), ("else", *POSTURES)),
    ],
)
def test_names_fit_whatever_their_case_and_order_and_may_have_prompts(
    given: list[str] | None, source: list[str], names: tuple[str, ...], prompts: tuple[str, ...]
) -> None:
    assert resolve_classes(given, source) == Classes(names or tuple(source), prompts)


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
        (["a", "b", "c"], ["k", "l", "m", "n"], r"3 labels for 4 classes \(k, l, m, n\)"),
        (["standing", "a sheep"], POSTURES, "none of the labels is 'lying'"),
        (["a calm sheep", "a lying sheep"], POSTURES, "none of the labels is 'standing', or names"),
        (["a sheep lying or standing", "standing"], POSTURES, "none of the labels is 'lying', or"),
        (["lying left", "lying right", "standing"], POSTURES, "none of the labels is 'lying', or"),
        (["an understanding sheep", "lying"], POSTURES, "none of the labels is 'standing'"),
        (["not lying", "standing"], POSTURES, "none of the labels is 'lying'"),
        (["羊不要山羊", "猫"], ["羊", "山羊"], "none of the labels is"),
        (["不是躺着的羊", "站着的羊"], ["躺着", "站着"], "none of the labels is '躺着'"),
        ([f"{n}0 sheep" for n in range(11)], [f"{n}" for n in range(11)], "none of the labels"),
        (["standing=x", "lyng=y"], POSTURES, "'lyng' is no class; did you mean 'lying'"),
        (["a", "b"], [f"c{i}" for i in range(20)], r"c0, .*c7 and 12 more\)"),
        (["lying=", "standing=x"], POSTURES, "expected CLASS=PROMPT with text on both sides"),
        (["a=x", "A=y"], [], "'A', 'a' repeated"),
        (["a=x", "b=X"], [], "repeated; expected each once"),
        (None, [], "no labels: the source has no classes .* expected some"),
        (None, ["lying"], "got only 'lying', which would always get 100 %"),
        (["a", "b", "c"], ["k", "l"], 'k="what it looks like"; or take the source as `unl'),
    ],
)
def test_labels_that_fit_no_class_are_refused(
    given: list[str] | None, source: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_classes(given, source)
