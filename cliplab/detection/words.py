"""What a detector is asked for: labels or a sentence, and what is to be said about them."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from cliplab.classification import (
    Classes,
    check_class_names,
    embed_classes,
    fold,
    templates,
    typed_classes,
)
from cliplab.detection.phrases import (
    SEPARATOR,
    beside_phrases,
    class_prompt,
    prompt_of,
    read_prompt,
)
from cliplab.detection.settings import SCORE, Settings
from cliplab.encoders import Encoder
from cliplab.models.glip import Prompt, Span, pieces_of
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.runtime import ArgumentError

_BRACKETS = re.compile(r"[\[\]【】［］]")  # around the phrases of a sentence
_QUOTED = 6  # words quoted in a sentence of ours


@dataclass(frozen=True, eq=False, kw_only=True)
class Query:
    """K classes as a detector has read them, once for any number of pictures."""

    classes: Classes
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # such as base and novel
    notes: Sequence[str] = ()  # what was assumed, for the user to check
    remarks: Sequence[str] = ()  # what is likely wrong, with the remedy
    nested: Tensor | None = None  # (K, K) bool: pairs of names that a place may have both
    threshold: Mapping[str, Any] = field(default_factory=dict)  # of the card, for what is asked so

    @property
    def score(self) -> float:
        """Least score of a box that counts as found, where nobody says otherwise."""
        return float(self.threshold.get("score", SCORE))


Words: TypeAlias = str | Sequence[str] | Classes | Prompt | Query


def as_classes(words: Words) -> Classes:
    """The classes of a list, or of one text with commas; a single one is fine for a detector.

    Raises:
        ValueError: none, one twice, or a sentence.
    """
    if isinstance(words, Classes | Query):
        return words.classes if isinstance(words, Query) else words
    if isinstance(words, Prompt):
        raise ValueError("a sentence: only a GLIP reads one; expected a list of labels")
    return read_labels([words] if isinstance(words, str) else words)


def read_labels(given: Sequence[str] | None, class_names: Sequence[str] = ()) -> Classes:
    """The classes to look for, in the order given; without `given` those of the source's boxes.

    Args:
        given: labels, "LABEL=PROMPT" too. A single one is fine here: a detector may find nothing,
            where a classifier has to choose.
        class_names: of the boxes of the source; empty if there are none.

    Raises:
        ValueError: no labels at all, one twice, or a class without its prompt.
    """
    if given is None and not class_names:
        raise ValueError(
            "no labels: the source has no boxes with classes; give labels, such as "
            '"sheep lying down" "sheep standing" goat'
        )
    classes = typed_classes(given, class_names)
    if len(classes.names) != 1:
        check_class_names(classes.names)
        check_class_names(classes.prompts)
    return classes


def match(classes: Classes, class_names: Sequence[str]) -> dict[str, int]:
    """Class name of a source -> the label that means it, by name or else by prompt."""
    index = {fold(prompt): k for k, prompt in enumerate(classes.prompts)}
    index |= {fold(name): k for k, name in enumerate(classes.names)}
    return {name: index[fold(name)] for name in class_names if fold(name) in index}


def threshold_note(query: Query) -> str:
    """What boxes that count by the model card's threshold are worth."""
    return (
        "boxes count from a score of {score:g} on: on validation pictures {precision:.2f} of such "
        "boxes were right, and they were {recall:.2f} of what was asked for (its model card)"
    ).format_map(query.threshold)


def unlearned_words(texts: Sequence[str], card: Mapping[str, Any]) -> Iterator[str]:
    """A remark on words that the card says were never learned."""
    never, asked = card.get("words never learned", ()), " . ".join(map(fold, texts))
    if found := [word for word in never if re.search(rf"(?<![a-z]){word}s?(?![a-z])", asked)]:
        yield (
            f"its model card says that it never learned {quoted(found)}: boxes of that name are "
            "guesses; say it in words that it was trained on"
        )


# ---- texts of an encoder -----------------------------------------------------------------------


def embed_words(
    teacher: Encoder, classes: Classes, settings: Settings
) -> tuple[Tensor, tuple[str, ...]]:
    """Mean of unit prompt embeddings (K, D), and what the text tower could not read.

    Templates are those that were told, else those that the pasture's models learned with, and the
    bare label for all others.

    Raises:
        ValueError: prompts that are too long, templates without {}.
    """
    own = teacher.name.startswith("pasture")
    usual = templates("pasture", teacher.languages[0]) if own else ("{}",)
    text_emb, unread = embed_classes(teacher, classes.prompts, settings.template or usual)
    return text_emb, tuple(unread)


# ---- phrases, for models that read sentences ---------------------------------------------------


def read_phrases(texts: Sequence[str]) -> Prompt:
    """Each text is a list or a sentence, and all together are one prompt.

    Raises:
        ValueError: a text without a phrase, or with brackets that do not match.
    """
    caption, found, left_out = "", list[list[Span]](), list[str]()
    for text in texts:
        try:
            part = read_prompt(text)
        except ArgumentError as error:
            hint = "; quote a sentence, so that its words stay together" * (len(texts) > 1)
            raise ArgumentError(error.name, f"{error.what}{hint}") from error
        if caption:
            caption += " " if caption[-1] in ".,;!?" else SEPARATOR
        start = len(caption)
        caption += part.caption
        left_out += part.left_out
        found += [[(a + start, b + start) for a, b in spans] for spans in part.spans]
    return prompt_of(caption, found, tuple(left_out))


def as_prompt(words: Words) -> tuple[Prompt, Classes]:
    """What is asked of a GLIP: label k is phrase k.

    Raises:
        ValueError: labels that are the same phrase or none, or that mark phrases.
    """
    if isinstance(words, str | Prompt):
        prompt = read_prompt(words)
        return prompt, Classes(prompt.phrases, prompt.phrases)
    classes = as_classes(words)
    if marked := [text for text in classes.prompts if _BRACKETS.search(text)]:
        drop = "brackets mark the phrases of a sentence: drop them, or ask for the sentence"
        raise ArgumentError("labels", f"got {marked[0]!r}; {drop}")
    prompt = class_prompt(classes.prompts)
    if len(prompt.phrases) < len(classes.prompts):
        told = (
            f"got {quoted(classes.prompts)}, which are the phrases {quoted(prompt.phrases)} alone"
        )
        raise ArgumentError("labels", f"{told}; expected each once")
    return prompt, classes


def phrases_note(prompt: Prompt, texts: Sequence[str]) -> str:
    """Which phrases were taken from sentences that do not mark them; "" where nobody guessed."""
    if any(map(_BRACKETS.search, texts)) or not re.search(r"\w", beside_phrases(prompt)):
        return ""
    return (
        f"phrases of the sentence: {quoted(prompt.phrases)}; where you mean others, mark them: "
        "'the [black goat] left of the [trough]'"
    )


def remarks_on(
    prompt: Prompt, tokenizer: WordPieceTokenizer, card: Mapping[str, Any]
) -> Iterator[str]:
    """Remarks on words that were typed and are not asked for, not known, or never learned."""
    if prompt.left_out:
        yield (
            f"{quoted(prompt.left_out)}: left out; no shipped model was taught negation, "
            "superlatives, ordinals or sides of the picture, so look at which things were found"
        )
    pieces = [p for p in pieces_of(tokenizer, prompt.caption) if p.text == tokenizer.unknown_token]
    unread = dict.fromkeys(prompt.caption[piece.start : piece.end] for piece in pieces)
    words = [w for w in unread if any(unicodedata.category(char)[0] != "P" for char in w)]
    if words:
        yield (
            f"the model does not know {quoted(words)}, and takes such words for one another; say "
            "it in words that it was trained on"
        )
    yield from unlearned_words(prompt.phrases, card)


def quoted(words: Sequence[str]) -> str:
    """The first few of them, in quotation marks."""
    more = len(words) - _QUOTED
    return ", ".join(map(repr, words[:_QUOTED])) + (f" and {more} more" if more > 0 else "")
