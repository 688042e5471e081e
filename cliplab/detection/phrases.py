"""What a detector is asked for, as GLIP takes it: one sentence, and which of its words are phrases.

A class list becomes a sentence ("sheep. goat. dog"); a sentence keeps its words and its phrases are
found in it, or marked by the user: "the [black goat] left of the [trough]". English and Chinese.

Letters: K phrases. Source: GLIP, arXiv:2112.03857, section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from cliplab.models.glip import Prompt, Span
from cliplab.runtime import ArgumentError

SEPARATOR = ". "  # between classes; what the released models were trained with
_SHOWN = 60  # characters of a prompt quoted in an error

# Full-width punctuation, letters and digits, one for one, so that no character changes its place.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_PLAIN |= {ord(a): ord(b) for a, b in zip("\u3000。、【】", " .,[]", strict=True)}
_MARKS = ".,;:!?|"  # between the classes of a list that was typed, and the parts of a sentence
_BREAK = re.compile(rf"[{_MARKS}\n]+")
_EDGES = f" \t{_MARKS}的"

# What says that things are there, and no more: frames, articles, counts.
_EN_FRAMES = r"(?:a |an |the )?(?:photo|picture|image|photograph)s? (?:of|showing)"
_ZH_FRAMES = r"照片(?:上|里|中)?|图片(?:上|里|中)?|画面(?:上|里|中)|图[里中]"
_ZH_COUNTS = r"(?:[一二两三四五六七八九十几这那]|每)(?:只|头|匹|条|个|群|棵|座|片|堆|道)"
_JOINING = re.compile(
    rf"\b(?:{_EN_FRAMES}|in (?:the|this) (?:photo|picture|image|photograph)|"
    r"an?|the|this|that|these|those|is|are|was|were|there|here|and|or)\b|"
    rf"一张|这里|那里|{_ZH_FRAMES}|{_ZH_COUNTS}|以及|[这和与跟有是的]",
    re.IGNORECASE,
)

# Words between things: relations, verbs of being, articles, counts. The rest are things.
_EN = (
    r"(?:(?:to|on|at) the )?(?:left|right)(?: hand)?(?: side)? of|in front of|next to|on top of|"
    rf"{_EN_FRAMES}|"
    r"an?|the|this|that|these|those|is|are|was|were|be|being|there|here|it|its|and|or|with|"
    r"without|of|in|on|at|by|near|behind|beside|between|under|over|above|below|beneath|into|"
    r"onto|from|to|for|while|as|who|which|has|have|having"
)
_ZH = (
    rf"(?:一张|这是|这里有|那里有)|{_ZH_FRAMES}|"
    r"(?:左|右|前|后|上|下|里|外)(?:边|侧|面|方)|旁边?|附近|[上里边下内](?=的)|中间|之间|对面|以及|正在|正|在|"
    rf"和|与|跟|有|是|{_ZH_COUNTS}"
)
_BETWEEN = re.compile(rf"\b(?:{_EN})\b|{_ZH}", re.IGNORECASE)
_NOT_ARTICLE = re.compile(rf"\b(?!(?:an?|the|this|that|these|those)\b)(?:{_EN})\b|{_ZH}", re.I)
_PLACE = re.compile(r"(?<=[\u4e00-\u9fff])[上里旁边中下内外]+$")  # 草地上: 草地

# ---- from what people type -------------------------------------------------------------------


def read_prompt(text: str | Sequence[str] | Prompt) -> Prompt:
    """A class list, a sentence, or a prompt that is one already.

    A string is a list when nothing in it relates things to one another ("sheep, black goat" or
    "羊、黑山羊"), and a sentence otherwise ("the goat left of the trough" or "水槽左边的山羊").

    Raises:
        ValueError: nothing in it but separators.
    """
    if isinstance(text, Prompt):
        return text
    if not isinstance(text, str):
        return class_prompt(text)
    plain = text.translate(_PLAIN)
    if "[" in plain or "]" in plain or _NOT_ARTICLE.search(plain):
        return sentence_prompt(text)
    if not plain.strip(f" {_MARKS}\n"):
        raise ArgumentError("prompt", _nothing(text))
    return class_prompt(_BREAK.split(plain))


def class_prompt(names: Sequence[str], separator: str = SEPARATOR) -> Prompt:
    """Classes joined to a sentence; one that occurs twice (whatever its case) is asked for once.

    Raises:
        ValueError: no name has anything in it, or one is not a string.
    """
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"names[{index}]: got a {type(name).__name__}; expected a string")
    tidy = (" ".join(name.translate(_PLAIN).split()).strip(f" {_MARKS}") for name in names)
    unique: dict[str, str] = {}
    for name in filter(None, tidy):
        unique.setdefault(name.casefold(), name)
    phrases = tuple(unique.values())
    if not phrases:
        raise ArgumentError("prompt", _nothing(", ".join(names)))
    starts = [0]
    for phrase in phrases:
        starts.append(starts[-1] + len(phrase) + len(separator))
    spans = tuple(((s, s + len(p)),) for s, p in zip(starts, phrases, strict=False))
    return Prompt(separator.join(phrases), phrases, spans)


def sentence_prompt(sentence: str, phrases: Sequence[str] | None = None) -> Prompt:
    """A sentence with the phrases to be found in the picture.

    Args:
        sentence: may mark its phrases: "the [black goat] left of the [trough]".
        phrases: parts of the sentence, whatever their case, when it does not mark them. One that
            occurs several times is one phrase with several spans. None: what stands between
            relations, articles and verbs of being, by a short list of such words in English and
            Chinese; mark phrases where that is not what you mean.

    Raises:
        ValueError: nothing in it, unmatched brackets, or a phrase that is not in the sentence.
    """
    caption, marked = _unmarked(sentence.translate(_PLAIN))
    if phrases is not None:
        found = [_occurrences(caption, p.translate(_PLAIN).strip()) for p in phrases]
    else:
        found = [[span] for span in marked or _between(caption)]
    table: dict[str, tuple[str, list[Span]]] = {}
    for spans in found:
        phrase = caption[slice(*spans[0])]
        known = table.setdefault(phrase.casefold(), (phrase, []))[1]
        known.extend(span for span in spans if span not in known)
    if not table:
        raise ArgumentError("prompt", _nothing(sentence))
    names, places = zip(*table.values(), strict=True)
    return Prompt(caption, names, tuple(map(tuple, places)))


def relating_words(prompt: Prompt) -> list[str]:
    """Words beside the phrases that say which of them are meant: "left", "of"; [] of a list.

    Not those that only say that things are there: "a photo of", "and", "the", "there is".
    """
    rest = list(prompt.caption)
    for spans in prompt.spans:
        for start, end in spans:
            rest[start:end] = "." * (end - start)
    return re.findall(r"\w+", _JOINING.sub(" ", "".join(rest)))


def _nothing(text: str) -> str:
    quoted = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return (
        f"got {quoted!r}, in which there is no phrase; expected a list such as "
        "'sheep, goat' or a sentence such as 'the [black goat] left of the [trough]'"
    )


def _unmarked(text: str) -> tuple[str, list[Span]]:
    """The text without brackets, and what they held, in the order they open; they may nest.

    Blanks at the edges of a span stay in the text: tokens are looked up at its first characters.
    """
    caption, opened = "", []
    marked: list[Span] = []
    for char in text:
        if char == "[":
            opened.append(len(marked))
            marked.append((len(caption), -1))
        elif char == "]":
            inside = caption[marked[opened[-1]][0] :] if opened else ""
            if not inside.strip():
                raise ArgumentError("prompt", f"got {text!r}; expected words in matching brackets")
            start = len(caption) - len(inside.lstrip())
            marked[opened.pop()] = (start, len(caption.rstrip()))
        else:
            caption += char
    if opened:
        raise ArgumentError("prompt", f"got {text!r}; expected a ] for each [")
    return caption, marked


def _occurrences(caption: str, phrase: str) -> list[Span]:
    """Where a phrase stands, as whole words of Latin letters."""
    before = r"(?<![A-Za-z0-9])" if phrase[:1].isascii() else ""
    after = r"(?![A-Za-z0-9])" if phrase[-1:].isascii() else ""
    found = re.finditer(before + re.escape(phrase) + after, caption, re.IGNORECASE)
    spans = [match.span() for match in found] if phrase else []
    if not spans:
        raise ValueError(f"phrase {phrase!r}: not in the sentence {caption!r}; expected a part")
    return spans


def _between(caption: str) -> list[Span]:
    """Spans of what is left when relations and separators are taken away."""
    parts = re.compile(rf"{_BETWEEN.pattern}|{_BREAK.pattern}", re.IGNORECASE)
    holes = [(0, 0), *(m.span() for m in parts.finditer(caption)), (len(caption),) * 2]
    spans = []
    for (_, start), (end, _) in pairwise(holes):
        while start < end and caption[start] in _EDGES:
            start += 1
        while start < end and caption[end - 1] in _EDGES:
            end -= 1
        if place := _PLACE.search(caption[start:end]):
            end = start + place.start()
        if start < end:
            spans.append((start, end))
    return spans
