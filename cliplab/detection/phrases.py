"""What a detector is asked for, as GLIP takes it: one sentence, and which of its words are phrases.

A class list becomes a sentence ("sheep. goat. dog"); a sentence keeps its words and its phrases are
found in it, or marked by the user: "the [black goat] left of the [trough]". English and Chinese.

Letters: K phrases. Source: GLIP, arXiv:2112.03857, section 3.1.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain, pairwise

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

_ANY = rf"[^{_MARKS}\n\[\]]*"  # as far as the next mark
_MEASURE = "[只头匹条个群棵座片堆道名]"
_ALSO = r".*(?:还|也)有"  # 除了羊还有山羊: both
_FRAME = r"(?:the|this) (?:photo|picture|image|photograph|scene)"
_FRAME_ZH = "(?:照片|图片|画面|图)[上里中]?的?"

# What function words do -> their patterns in English and in Chinese; the other words are things.
_WORDS = {
    # a picture, which says no more than that things are there
    "frames": (
        r"(?:a |an |the )?(?:photo|picture|image|photograph)s? (?:of|showing)|"
        r"in (?:the|this) (?:photo|picture|image|photograph)",
        r"照片(?:上|里|中)?|图片(?:上|里|中)?|画面(?:上|里|中)|图[里中]|一张",
    ),
    # articles, numbers and quantifiers, which change nothing in what is found
    "counts": (
        r"(?:few|couple|lot|number|group|herd|flock)s? of|all of|an?|the|this|that|these|those|"
        r"all|every|each|any|some|both|several|many|few|"
        r"one|two|three|four|five|six|seven|eight|nine|ten|\d+",
        rf"(?:[一二两三四五六七八九十几这那每某]|\d+){_MEASURE}|"
        r"(?:所有|全部|任何|一些|这些|那些|有些|许多|很多)的?",
    ),
    "joining": (
        "is|are|was|were|there|here|and|or|but|besides|in addition to|as well as|also|too",
        rf"这是|[这那]里有?|以及|[和与跟有是]|除了?(?={_ALSO})|[以之]外(?=[,\s]*(?:还|也)有)|(?:还|也)有",
    ),
    # which of the things is meant
    "relating": (
        r"(?:(?:to|on|at) the )?(?:left|right)(?: hand)?(?: side)? of|in front of|next to|"
        r"on top of|be|being|it|its|with|of|in|on|at|by|near|behind|beside|between|under|over|"
        r"above|below|beneath|into|onto|from|to|for|while|as|who|which|has|have|having",
        r"(?:左|右|前|后|上|下|里|外)(?:边|侧|面|方)|旁边?|附近|[上里边下内](?=的)|中间|之间|对面|"
        r"正在|正|在",
    ),
    # what is not meant
    "negation": (
        r"(?:(?:that|which|who) )?(?:(?:is|are|do|does|has|have) )?"
        r"(?:not|no|without|except(?: for)?|excluding|other than|apart from|\w+n['’]t)"
        r"(?: (?!(?:left|right|in front|next|near|behind|beside|under|and|or|but)\b)[\w'’-]+)*",
        rf"除了?(?!{_ALSO}){_ANY}?外的?|(?:不[要找]|别找|除了(?!{_ALSO})){_ANY}|"
        rf"(?:不(?!锈)|没)(?:{_ANY}?的|{_ANY})",
    ),
    # one among several; a side of the picture, not of a thing
    "superlatives": (
        r"(?:in|at|on|to) the (?:left|right|top|bottom|middle|cent(?:er|re)|foreground|background)"
        rf"(?: hand)?(?: (?:side|corner))?(?: of {_FRAME})?(?! (?:hand |side )*of)|"
        r"(?:left|right|top|upper|lower|front|rear)[ -]?most|(?:most|least) \w+|"
        r"(?:nearest|closest) to (?:the |an? )?[\w-]+|nearest|closest|farthest|largest|biggest|"
        r"smallest|tallest|shortest|longest|highest|lowest|oldest|youngest|darkest|brightest|"
        r"(?:first|second|third|fourth|fifth|last)(?! (?:aid|hand|class|floor|base|name)\b)",
        rf"(?:(?<![^{_MARKS}])|(?:在|位于)|{_FRAME_ZH})[左右前后上下中](?:边|侧|面|方|间)的?|"
        rf"离{_ANY}?最近的|最靠近{_ANY}?的|最[左右前后上下里外中间远近大小高矮低胖瘦长短老年轻黑白]+"
        rf"[边侧面]?的?|第[一二三四五六七八九十\d]+{_MEASURE}?的?",
    ),
}


def _words(*kinds: str) -> str:
    """A pattern of these function words."""
    return "|".join(rf"(?<![\w-])(?:{_WORDS[k][0]})(?![\w-])|{_WORDS[k][1]}" for k in kinds)


_JOINING = re.compile(_words("frames", "counts", "joining") + "|[这的]", re.IGNORECASE)
_TELLING = re.compile(_words("frames", "relating", "joining"), re.IGNORECASE)
_BETWEEN = re.compile(
    rf"{_words('frames', 'relating', 'counts', 'joining')}|{_BREAK.pattern}", re.IGNORECASE
)
_COUNTS = re.compile(rf"^(?:(?:{_words('counts')})(?=[\s\w])\s*)+", re.IGNORECASE)
_LEFT_OUT = re.compile(  # [what is marked] stays, but not behind a negation
    rf"(\[[^\]]*\])|(?:(?:{_words('negation')})(?: *\[[^\]]*\])?|{_words('superlatives')}) ?",
    re.IGNORECASE,
)
_SIDE = re.compile(  # "left of it" may speak of what comes before or behind
    r"\b(left|right)(?:[ -]hand)?(?: side)? of\b(?! (?:it|them|which|whom)\b)", re.IGNORECASE
)
_SIDE_ZH = re.compile("[在的 ]*([左右])[边侧面方]")
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
    plain, left_out = _understood(text)
    if not plain.strip(f" {_MARKS}\n"):
        raise ArgumentError("prompt", _nothing(text))
    parts = [_COUNTS.sub("", part.strip()) for part in _BREAK.split(plain)]
    relates = "[" in plain or "]" in plain or any(map(_TELLING.search, parts))
    prompt = sentence_prompt(plain) if relates else class_prompt(parts)
    return replace(prompt, left_out=left_out)


def _understood(text: str) -> tuple[str, tuple[str, ...]]:
    """A text without negation, superlatives and ordinals, and these words of it."""
    plain = text.translate(_PLAIN)
    left_out = tuple(match[0].strip() for match in _LEFT_OUT.finditer(plain) if not match[1])
    return _LEFT_OUT.sub(r"\1", plain).strip(), left_out


def class_prompt(names: Sequence[str], separator: str = SEPARATOR) -> Prompt:
    """Classes joined to a sentence; one that occurs twice (whatever its case) is asked for once.

    Articles, counts, negation and superlatives are left out.

    Raises:
        ValueError: no name has anything in it.
    """
    read = [_understood(" ".join(name.split())) for name in names]
    unique: dict[str, str] = {}
    for plain, _ in read:
        name = _COUNTS.sub("", plain.strip(f" {_MARKS}"))
        unique.setdefault(name.casefold(), name)
    unique.pop("", None)
    phrases = tuple(unique.values())
    if not phrases:
        raise ArgumentError("prompt", _nothing(", ".join(names)))
    starts = accumulate((len(phrase) + len(separator) for phrase in phrases), initial=0)
    spans = tuple(((s, s + len(p)),) for s, p in zip(starts, phrases, strict=False))
    left_out = tuple(chain(*(words for _, words in read)))
    return Prompt(separator.join(phrases), phrases, spans, left_out)


def sentence_prompt(sentence: str, phrases: Sequence[str] | None = None) -> Prompt:
    """A sentence with the phrases to be found in the picture.

    Args:
        sentence: may mark its phrases: "the [black goat] left of the [trough]".
        phrases: parts of the sentence, whatever their case, when it does not mark them. One that
            occurs several times is one phrase with several spans. None: what stands between
            function words; mark phrases where that is not what you mean.

    Raises:
        ValueError: nothing in it, unmatched brackets, or a phrase that is not in the sentence.
    """
    caption, marked = _unmarked(sentence.translate(_PLAIN))
    if phrases is not None:
        found = [_occurrences(caption, p.translate(_PLAIN).strip()) for p in phrases]
    else:
        found = [[span] for span in marked or _between(caption)]
    if not found:
        raise ArgumentError("prompt", _nothing(sentence))
    return prompt_of(caption, found)


def prompt_of(
    caption: str, found: Sequence[Sequence[Span]], left_out: tuple[str, ...] = ()
) -> Prompt:
    """Phrases by their places; those that differ in nothing but case are one."""
    table: dict[str, tuple[str, list[Span]]] = {}
    for spans in found:
        phrase = caption[slice(*spans[0])]
        known = table.setdefault(phrase.casefold(), (phrase, []))[1]
        known.extend(span for span in spans if span not in known)
    names, places = zip(*table.values(), strict=True)
    return Prompt(caption, names, tuple(map(tuple, places)), left_out)


def beside_phrases(prompt: Prompt) -> str:
    """The caption, with a dot for each character of a phrase."""
    rest = list(prompt.caption)
    for start, end in chain(*prompt.spans):
        rest[start:end] = "." * (end - start)
    return "".join(rest)


def relating_words(prompt: Prompt) -> list[str]:
    """Words beside the phrases that say which of them are meant: "left", "of"; [] of a list.

    Not those that only say that things are there: "a photo of", "and", "the", "there is".
    """
    return re.findall(r"\w+", _JOINING.sub(" ", beside_phrases(prompt)))


def side_of(prompt: Prompt) -> tuple[int, int, int] | None:
    """Of two phrases: which lies on the named side, of which, and -1 for left or 1 for right.

    (0, 1, -1) for "the [goat] left of the [trough]"; None where no side is named between two.
    """
    if [len(spans) for spans in prompt.spans] != [1, 1]:
        return None
    (start, first), (end, second) = sorted((spans[0], k) for k, spans in enumerate(prompt.spans))
    between, behind = prompt.caption[start[1] : end[0]], prompt.caption[end[1] :]
    for thing, mark, said in (
        (first, second, _SIDE.search(between)),
        (second, first, _SIDE_ZH.match(between)),  # 水槽左边的山羊
        (first, second, between[:1] == "在" and _SIDE_ZH.match(behind)),  # 山羊在水槽的左边
    ):
        if said:
            return thing, mark, -1 if said[1].lower() in ("left", "左") else 1
    return None


def _nothing(text: str) -> str:
    return (
        f"got {text[:_SHOWN]!r}, in which there is no phrase; expected a list such as "
        "'sheep, goat' or a sentence such as 'the [black goat] left of the [trough]'"
    )


def _unmarked(text: str) -> tuple[str, list[Span]]:
    """The text without brackets, and what they held.

    Blanks at the edges of a span stay in the text: tokens are looked up at its first characters.
    """
    caption, marked, end = "", list[Span](), 0
    for found in re.finditer(r"\[([^\[\]]*)\]", text):
        caption += text[end : found.start()] + found[1]
        start = len(caption) - len(found[1].lstrip())
        marked.append((start, len(caption.rstrip())))
        end = found.end()
    caption += text[end:]
    if re.search(r"[\[\]]", caption) or any(start >= stop for start, stop in marked):
        raise ArgumentError("prompt", f"got {text!r}; expected words in matching brackets")
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
    holes = [(0, 0), *(m.span() for m in _BETWEEN.finditer(caption)), (len(caption),) * 2]
    spans = []
    for (_, start), (end, _) in pairwise(holes):
        rest = caption[start:end].lstrip(_EDGES)
        if phrase := _PLACE.sub("", rest.rstrip(_EDGES)):
            spans.append((end - len(rest), end - len(rest) + len(phrase)))
    return spans
