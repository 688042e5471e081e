"""Whatever words hypothesis types: refused with a sentence, or nothing is lost."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from cliplab.classification import prompts
from cliplab.detection import read_prompt
from cliplab.report.notebook import Parameter, bind, parse_value
from cliplab.segmentation import read_labels

FUZZ = settings(
    max_examples=200, derandomize=True, database=None, deadline=timedelta(seconds=5),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
PIECES = [
    *("sheep", "goat", "a", "the", "not", "no", "left of", "the largest", "two", "羊", "山羊"),
    *("左边的", "不要", "最大的", "旁边", "[", "]", ",", "，", "、", ";", "=", "＝", "|", "｜"),
    *(".", "。", " ", "\n", "{}", "😀", "\x00", "\ud800", "\u200b", "𝒜"),
]  # fmt: skip
typed = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def told(call: Callable[[], Any]) -> Any:
    """What a call returns; None where it is refused in a length that people read."""
    try:
        return call()
    except ValueError as error:
        if not 0 < len(str(error)) < 2_000:
            raise AssertionError(f"an error of {len(str(error))} characters") from error
        return None


@FUZZ
@given(st.lists(typed, max_size=5))
def test_labels_are_kept_or_refused(texts: list[str]) -> None:
    parts = prompts.split_labels(texts)
    kept = "".join(parts)
    for sign in ",，、;；":
        kept = kept.replace(sign, "")
    for letter in set("".join(texts)) - set(",，、;； \n\t"):
        assert not letter.strip() or letter in kept, "a letter of a label is lost"
    classes = told(lambda: prompts.resolve_classes(texts, ()))
    if classes is None:
        return
    assert len(set(classes.names)) == len(classes.names) == len(classes.prompts) >= 1
    assert all(name.strip() for name in (*classes.names, *classes.prompts))


@FUZZ
@given(st.lists(typed, max_size=4))
def test_labels_of_segments_are_kept_or_refused(texts: list[str]) -> None:
    labels = told(lambda: read_labels(texts))
    if labels is None:
        return
    assert all(name.strip() and words for name, words in labels.items())


@FUZZ
@given(typed)
@example("the [black goat] left of the [trough]")
def test_a_prompt_has_phrases_in_its_caption_or_is_refused(text: str) -> None:
    prompt = told(lambda: read_prompt(text))
    if prompt is None:
        return
    assert prompt.phrases
    for phrase, spans in zip(prompt.phrases, prompt.spans, strict=True):
        assert phrase.strip()
        assert all(0 <= start < end <= len(prompt.caption) for start, end in spans)


DEFAULTS = (0, 0.5, True, "text", (1, 2), [1], {"a": 1}, None)


@FUZZ
@given(
    st.sampled_from(DEFAULTS), typed | st.sampled_from(["{[]: 1}", "(" * 500, "1e999", "-0", "[1"])
)
@example((1, 2), "{[]: 1}")
@example(0, "9" * 5_000)
@example([1], "[" * 5_000)
def test_a_parameter_is_of_its_kind_or_refused(default: object, text: str) -> None:
    parameter = Parameter("P", default, "")
    value = told(lambda: parse_value(parameter, text))
    assert value is None or default is None or type(value) is type(default)


KNOWN = {"01": {"SEED": Parameter("SEED", 0, ""), "WORDS": Parameter("WORDS", "", "")}}


@FUZZ
@given(st.lists(typed, max_size=3))
def test_assignments_are_bound_or_refused(assignments: list[str]) -> None:
    bound = told(lambda: bind(assignments, KNOWN))
    if bound is None:
        return
    assert set(bound["01"]) <= {"SEED", "WORDS"}
    assert bool(bound["01"]) == bool(assignments)


@pytest.mark.parametrize("text", ["WORDS=a=b", "SEED=7", "WORDS="])
def test_sound_assignments_are_bound(text: str) -> None:
    name, _, value = text.partition("=")
    assert bind([text], KNOWN)["01"] == {name: int(value) if name == "SEED" else value}
