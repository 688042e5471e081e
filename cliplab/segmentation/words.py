"""Words of the command line: labels, the background, and what a model reads of them.

`sheep` is a label and its own word; `羊=sheep` is a label with another word, `person="man|woman"`
one with several: the best of them counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cliplab.classification import fold, name_and_prompt, split_labels
from cliplab.detection import NOTHING

if TYPE_CHECKING:
    from cliplab.classification import PromptReader
    from cliplab.segmentation import Segmenter, Vocabulary

MAX_LABELS = 255  # with the background: a label is a byte, and 255 means "not judged"
_OR = "|"
_ORS = re.compile("[|｜]")  # a Chinese keyboard has the full-width one
# One template for each language that a model with word pieces of its own was trained in.
_TEMPLATES = {"en": ("a photo of a {}.",), "zh": ("一张{}的照片",)}
_BARE = ("{}",)
_ANIMALS = {
    "sheep",
    "goat",
    "cow",
    "dog",
    "horse",
    "羊",
    "山羊",
    "牛",
    "狗",
    "马",
}  # of the pasture


@dataclass(frozen=True)
class Labels:
    """K labels to choose between, each with its words."""

    names: tuple[str, ...]  # K, as reports show them
    words: tuple[tuple[str, ...], ...]  # K of at least one


def read_labels(given: Sequence[str] | None, class_names: Sequence[str]) -> Labels:
    """The labels in the order given; without `given` the classes of the masks that are known.

    Raises:
        ValueError: none at all, an empty or repeated one, or a name without words.
    """
    if given is None:
        known = [name for name in class_names if not is_nothing(name)]
        if not known:
            raise ValueError(
                "no labels: the source has no masks with classes; give --labels, such as "
                "--labels sheep dog --background grass sky tree"
            )
        return Labels(tuple(known), tuple((name.replace("_", " "),) for name in known))
    if not all(text.strip() for text in given):
        raise ValueError(f"--labels: got an empty text among {len(given)}; expected names")
    pairs = [name_and_prompt(text) for text in split_labels(given)]
    if not pairs:
        raise ValueError("--labels: got none; expected at least one name")
    words = [tuple(word.strip() for word in _ORS.split(prompt)) for _, prompt in pairs]
    names = [words[k][0] if name == prompt else name for k, (name, prompt) in enumerate(pairs)]
    _check(names, [word for some in words for word in some])
    return Labels(tuple(names), tuple(words))


def _check(names: Sequence[str], words: Sequence[str]) -> None:
    for what, texts in (("names", names), ("words", words)):
        if not all(texts):
            raise ValueError(
                f"--labels: got an empty word among the {what}; expected text on both sides of "
                f"= and {_OR}"
            )
        counts = Counter(map(fold, texts))
        if twice := [text for text in texts if counts[fold(text)] > 1]:
            raise ValueError(
                f"--labels: {', '.join(map(repr, dict.fromkeys(twice)))} repeated among the "
                f"{what}; expected each once, since duplicates would share their probability"
            )


def is_nothing(name: str) -> bool:
    """Whether a name is one that annotators give to what is nothing, such as background."""
    return fold(name) in {fold(word) for word in NOTHING}


def background_note(labels: Labels) -> str:
    """A remark if a label is a word for nothing; "" if none is."""
    for name, words in zip(labels.names, labels.words, strict=True):
        if any(map(is_nothing, words)):
            return (
                f"{name!r} is a word like the others here, and no caption ever said it: a model "
                "that learned from captions does not know what it means; leave it out, and give "
                "--background words for what else may be there, or --threshold"
            )
    return ""


# ---- vocabulary ----------------------------------------------------------------------------


def make_vocabulary(labels: Labels, background: Sequence[str] | None) -> Vocabulary:
    """Labels and background as the segmenter takes them; names[0] is the background if there is.

    Args:
        labels: of `read_labels`.
        background: its words, () for one by threshold alone, None for none.

    Raises:
        ValueError: a word twice, nothing to choose between, or more labels than a byte tells apart.
    """
    from cliplab.segmentation import BACKGROUND, vocabulary

    first = {some[0]: some[1:] for some in labels.words}
    try:
        made = vocabulary(first, background=background)
    except ValueError as error:
        raise ValueError(as_options(str(error))) from error
    names = (BACKGROUND, *labels.names) if background is not None else labels.names
    if background is not None and fold(BACKGROUND) in map(fold, labels.names):
        raise ValueError(
            f"--labels: {BACKGROUND!r} is the name of what --background and --threshold find; "
            "call your label otherwise, or drop them"
        )
    if len(names) > MAX_LABELS:
        raise ValueError(
            f"--labels: got {len(labels.names)}; expected at most {MAX_LABELS} with the "
            "background, since a label is one byte of a PNG: name synonyms of one label as "
            "LABEL=WORD|WORD"
        )
    return replace(made, names=names)


def as_options(message: str) -> str:
    """A message of `cliplab.segmentation` in the words of the command line."""
    for ours, theirs in (
        ("or words for the background", "or words for the background: --background grass sky"),
        ("background: got", "--background: got"),
        ("top_words: ", "--top-words: "),
        ("scales: ", "--scales: "),
        ("refine: ", "--refine: "),
        ("threshold: ", "--threshold: "),
        ("classes: ", "--labels: "),
        ("words: '", "--labels and --background: '"),
        ("side: ", "--side: "),
    ):
        message = message.replace(ours, theirs)
    return message


def read_background(
    given: Sequence[str] | None, threshold: float | None
) -> tuple[tuple[str, ...] | None, bool]:
    """Words of --background (None: no background), and whether the usual ones are meant."""
    if given is None:
        return (None if threshold is None else ()), False
    words = tuple(part for text in given for part in split_labels([text]))
    if given and not words:
        raise ValueError("--background: got an empty text; expected words, or none for the usual")
    return words, not given


def usual_background(segmenter: Segmenter, labels: Labels) -> tuple[str, ...]:
    """Words for the background that the model reads, and that mean no label.

    The list of the papers; for models with word pieces of their own, which are of the pasture, also
    its landscape, in the language of the labels. Of what a label means, every word is left out: a
    meadow in the background would take the pixels of the label grass.
    """
    from cliplab.pasture.stuff import NOUNS, class_of
    from cliplab.segmentation import BACKGROUND_WORDS

    words: list[str] = []
    if segmenter.model.vocab:
        words = [noun for noun in NOUNS[language_of(labels)] if noun not in _ANIMALS]
    taken = {fold(word) for some in (labels.names, *labels.words) for word in some}
    meant = {class_of(word) for word in taken} - {None}
    reader = reader_of(segmenter)
    every = [*words, *(word for word in BACKGROUND_WORDS if language_of(labels) == "en")]
    free = [w for w in dict.fromkeys(every) if fold(w) not in taken and class_of(w) not in meant]
    return tuple(w for w in free if _is_read(reader, w))


# ---- what the model reads ------------------------------------------------------------------


def language_of(labels: Labels) -> str:
    """ "zh" if every word has a Chinese character, else "en"."""
    from cliplab.models.tokenizers import is_cjk

    words = [word for some in labels.words for word in some]
    return "zh" if all(any(map(is_cjk, word)) for word in words) else "en"


def own_templates(
    segmenter: Segmenter, vocabulary: Vocabulary, *, best: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The template that the model learned with, in the language of the words; bare if they mix.

    `best`: those that its card says were best on val, for words of one language.
    """
    from cliplab.models.tokenizers import is_cjk

    chinese = {any(map(is_cjk, word)) for word in vocabulary.words}
    if not segmenter.model.vocab:
        return _TEMPLATES["en"]
    if len(chinese) > 1:
        return _BARE
    wanted = tuple(best or _TEMPLATES["zh" if chinese == {True} else "en"])
    frames = (template.replace("{}", "") for template in wanted)
    return wanted if all(_is_read(reader_of(segmenter), frame) for frame in frames) else _BARE


def reader_of(segmenter: Segmenter) -> PromptReader:
    """The tokenizer with the tokens that training never met, whose rows are zeros."""
    from cliplab.classification import PromptReader

    rows = segmenter.model.text_encoder.token_embedding.weight  # (V, width)
    untrained = (rows == 0).all(dim=1).nonzero()[:, 0].tolist()
    return PromptReader(segmenter.tokenizer, frozenset(untrained))


def _is_read(reader: PromptReader, text: str) -> bool:
    from cliplab.classification import READABLE

    return reader.coverage(text) >= READABLE


def unread_remarks(segmenter: Segmenter, vocabulary: Vocabulary) -> Iterator[str]:
    """What the text tower cannot read or tell apart, and the remedy."""
    reader = reader_of(segmenter)
    unread = [word for word in vocabulary.words if not _is_read(reader, word)]
    if unread:
        yield _cannot_read(segmenter, vocabulary, unread, reader)
    first: dict[tuple[int, ...], str] = {}
    for word in (word for word in vocabulary.words if word not in unread):
        other = first.setdefault(reader.ids(word), word)
        if other is not word:
            pieces = " ".join(reader.tokenizer.pieces(word))
            yield (
                f"{segmenter.name} cannot tell {other!r} and {word!r} apart: both are {pieces!r} "
                "to it; use one of them"
            )


def _cannot_read(
    segmenter: Segmenter, vocabulary: Vocabulary, unread: Sequence[str], reader: PromptReader
) -> str:
    from cliplab.models.tokenizers import is_cjk

    word = unread[0]
    more = f" (nor {len(unread) - 1} more)" if len(unread) > 1 else ""
    label = vocabulary.names[vocabulary.label_of[vocabulary.words.index(word)]]
    remedy = "use words that were in its captions"
    if any(map(is_cjk, word)) and not segmenter.model.vocab:  # one of the pasture reads Chinese
        remedy = f'give the label an English word, --labels {label}="sheep" and so on'
        remedy += ", or use a model that reads Chinese: --model pasture"
    return (
        f"{segmenter.name} cannot read {word!r}{more}: it knows {reader.coverage(word):.0%} of it, "
        f"and its scores will be close to noise; {remedy}"
    )
