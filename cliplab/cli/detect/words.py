"""What is looked for: labels, the phrases of a sentence, or the classes that the boxes have."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import combinations

from cliplab.classification.labels import (
    Classes,
    fold,
    name_and_prompt,
    resolve_classes,
    split_labels,
)
from cliplab.detection.phrases import SEPARATOR, Prompt, class_prompt, pieces_of, read_prompt
from cliplab.detection.phrases.prompt import SHOWN
from cliplab.models.tokenizers import WordPieceTokenizer

# What annotators call that which is nothing; to a detector with a learned background it is a word.
NOTHING = ("background", "backgrounds", "__background__", "nothing", "背景")
_BRACKETS = re.compile(r"[\[\]【】［］]")  # around the phrases of a sentence
_SHOWN = 6  # words quoted in a sentence of ours


def read_words(given: Sequence[str] | None, class_names: Sequence[str]) -> Classes:
    """The classes to look for, in the order given; without `given` those of the source's boxes.

    Args:
        given: texts of --labels; None if there were none. A single one is fine here: a detector
            may find nothing, where a classifier has to choose.
        class_names: of the boxes of the source; empty if there are none.

    Raises:
        ValueError: no labels at all, one twice, or a class without its prompt.
    """
    if given is None and not class_names:
        raise ValueError(
            "no labels: the source has no boxes with classes; give --labels, such as "
            '--labels "sheep lying down" "sheep standing" goat'
        )
    texts = split_labels(given) if given is not None else list(class_names)
    if len(texts) != 1:
        return resolve_classes(given, () if given is not None else class_names)
    name, prompt = (
        name_and_prompt(texts[0]) if given is not None else (texts[0], texts[0].replace("_", " "))
    )
    return Classes((name,), (prompt,))


def match(classes: Classes, class_names: Sequence[str]) -> dict[str, int]:
    """Class name of a source -> the label that means it, by name or else by prompt."""
    index = {fold(prompt): k for k, prompt in enumerate(classes.prompts)}
    index |= {fold(name): k for k, name in enumerate(classes.names)}
    return {name: index[fold(name)] for name in class_names if fold(name) in index}


def background_note(classes: Classes) -> str:
    """A remark if a label is a word for nothing; "" if none is."""
    words = {fold(word) for word in NOTHING}
    for name, prompt in zip(classes.names, classes.prompts, strict=True):
        if {fold(name), fold(prompt)} & words:
            return (
                f"{name!r} is a class like the others here, found by its text: a detector's own "
                "background has no word, it was learned, and regions of nothing are dropped "
                "without being asked for; leave the label out unless you want boxes called so"
            )
    return ""


# ---- phrases, for models that read sentences ---------------------------------------------------


def read_phrases(texts: Sequence[str]) -> Prompt:
    """What --phrases asks: each text is a list or a sentence, and all together are one prompt.

    Raises:
        ValueError: a text without a phrase, or with brackets that do not match.
    """
    parts = [_read_phrases(text, alone=len(texts) == 1) for text in texts]
    if len(parts) == 1:
        return parts[0]
    caption, known = "", dict[str, tuple[str, list[tuple[int, int]]]]()
    for part in parts:
        if caption:
            caption += " " if caption[-1] in ".,;!?" else SEPARATOR
        start = len(caption)
        caption += part.caption
        for phrase, spans in zip(part.phrases, part.spans, strict=True):
            places = known.setdefault(phrase.casefold(), (phrase, []))[1]
            places += [(a + start, b + start) for a, b in spans]
    names, places_of = zip(*known.values(), strict=True)
    return Prompt(caption, names, tuple(map(tuple, places_of)))


def _read_phrases(text: str, *, alone: bool) -> Prompt:
    try:
        return read_prompt(text)
    except ValueError as error:
        message = str(error).removeprefix("prompt: ")
        _, nothing, remedy = message.rpartition(", in which there is no phrase")
        if nothing:  # in the words of the user, not as a list that was divided
            short = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            message = f"got {short!r}{nothing}{remedy}"
        hint = "" if alone else "; quote a sentence, so that its words stay together"
        raise ValueError(f"--phrases: {message}{hint}") from error


def classes_of(prompt: Prompt) -> Classes:
    """Phrase k as class k."""
    return Classes(prompt.phrases, prompt.phrases)


def prompt_of(classes: Classes) -> Prompt:
    """Labels as a prompt, label k as phrase k.

    Raises:
        ValueError: labels that are the same phrase or none, or that mark phrases.
    """
    if marked := [text for text in classes.prompts if _BRACKETS.search(text)]:
        raise ValueError(
            f"--labels: got {marked[0]!r}; brackets mark the phrases of a sentence: drop them, or "
            f"ask for the sentence, --phrases {marked[0]!r}"
        )
    same: dict[str, str] = {}
    for text in classes.prompts:
        try:
            phrase = class_prompt([text]).phrases[0]
        except ValueError as error:
            raise ValueError(f"--labels: {str(error).removeprefix('prompt: ')}") from error
        if (other := same.setdefault(phrase.casefold(), text)) != text:
            raise ValueError(
                f"--labels: {other!r} and {text!r} are the same phrase; expected each once"
            )
    return class_prompt(classes.prompts)


def phrases_note(texts: Sequence[str]) -> str:
    """Which phrases were taken from sentences that do not mark them; "" if all do."""
    found: list[str] = []
    for text in texts:
        prompt = read_prompt(text)
        inside = {c for spans in prompt.spans for a, b in spans for c in range(a, b)}
        others = (char for c, char in enumerate(prompt.caption) if c not in inside)
        if not _BRACKETS.search(text) and any(map(str.isalnum, others)):
            found += prompt.phrases
    if not found:
        return ""
    return (
        f"phrases of the sentence: {quoted(found)}; where you mean others, mark them: "
        "--phrases 'the [black goat] left of the [trough]'"
    )


def overlap_note(prompt: Prompt) -> str:
    """Two phrases that share characters, so that a place may have both names; "" if none do."""
    for one, other in combinations(range(len(prompt.phrases)), 2):
        pairs = ((a, b) for a in prompt.spans[one] for b in prompt.spans[other])
        if any(a[0] < b[1] and b[0] < a[1] for a, b in pairs):
            both = quoted([prompt.phrases[one], prompt.phrases[other]])
            return f"phrases overlap ({both}), so that a place may have several names"
    return ""


def unread_words(prompt: Prompt, tokenizer: WordPieceTokenizer) -> list[str]:
    """A remark on words that the model knows no piece of; [] if it knows all."""
    pieces = [p for p in pieces_of(tokenizer, prompt.caption) if p.text == tokenizer.unknown_token]
    unread = dict.fromkeys(prompt.caption[piece.start : piece.end] for piece in pieces)
    words = [word for word in unread if not all(map(_is_punctuation, word))]
    if not words:
        return []
    return [
        f"the model does not know {quoted(words)}, and takes such words for one another; say it in "
        "words that it was trained on"
    ]


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P")


def quoted(words: Sequence[str]) -> str:
    """The first few of them, in quotation marks."""
    more = len(words) - _SHOWN
    return ", ".join(map(repr, words[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
