"""What a model can read: words for the background, templates, and remarks on what it cannot read.

A text tower never refuses a word that it does not know; its scores are noise then. So what it
cannot read, or cannot tell apart, is told before anybody believes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cliplab.classification import READABLE, PromptReader, fold
from cliplab.pasture import SPECIES
from cliplab.pasture.stuff import NOUNS, class_of
from cliplab.segmentation.result import Segmenter
from cliplab.segmentation.settings import BACKGROUND_WORDS, Vocabulary, is_chinese, language_of

# One template for each language that a model with word pieces of its own was trained in.
_TEMPLATES = {"en": ("a photo of a {}.",), "zh": ("一张{}的照片",)}


def usual_background(segmenter: Segmenter, labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Words for the background that the model reads, and that mean no label.

    The list of the papers; for models with word pieces of their own, which are of the pasture, also
    its landscape, in the language of the labels. Of what a label means, every word is left out: a
    meadow in the background would take the pixels of the label grass.
    """
    given = [word for name, words in labels.items() for word in (name, *words)]
    language = language_of([word for words in labels.values() for word in words])
    taken = set(map(fold, given))
    meant = {class_of(word) for word in taken} - {None}
    landscape = [noun for noun in NOUNS[language] if class_of(noun) not in SPECIES]
    every = [*(landscape if segmenter.model.vocab else ())]
    every += BACKGROUND_WORDS if language == "en" else ()
    free = [w for w in dict.fromkeys(every) if fold(w) not in taken and class_of(w) not in meant]
    reader = reader_of(segmenter)
    return tuple(word for word in free if _is_read(reader, word))


def own_templates(
    segmenter: Segmenter, words: Sequence[str], *, best: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The template that the model learned with, in the language of the words; bare if they mix.

    `best`: those that its card says were best on val, for words of one language.
    """
    if not segmenter.model.vocab:
        return _TEMPLATES["en"]
    if len({is_chinese(word) for word in words}) > 1:
        return ("{}",)
    wanted = tuple(best or _TEMPLATES[language_of(words)])
    reader = reader_of(segmenter)
    return wanted if all(_is_read(reader, text.replace("{}", "")) for text in wanted) else ("{}",)


def unread_remarks(segmenter: Segmenter, vocabulary: Vocabulary) -> Iterator[str]:
    """What the text tower cannot read or tell apart, and the remedy."""
    reader = reader_of(segmenter)
    unread = [word for word in vocabulary.words if not _is_read(reader, word)]
    if unread:
        share = reader.coverage(unread[0])
        more = f" (nor {len(unread) - 1} more)" if len(unread) > 1 else ""
        yield (
            f"{segmenter.name} cannot read {unread[0]!r}{more}: it knows {share:.0%} of it, and "
            f"its scores will be close to noise; {_remedy(segmenter, vocabulary, unread[0])}"
        )
    first: dict[tuple[int, ...], str] = {}
    for word in (word for word in vocabulary.words if word not in unread):
        other = first.setdefault(reader.ids(word), word)
        if other is not word:
            pieces = " ".join(reader.tokenizer.pieces(word))
            yield (
                f"{segmenter.name} cannot tell {other!r} and {word!r} apart: both are {pieces!r} "
                "to it; use one of them"
            )


def _remedy(segmenter: Segmenter, vocabulary: Vocabulary, word: str) -> str:
    """What to do about a word that is not read."""
    if not is_chinese(word) or segmenter.model.vocab:  # one of the pasture reads Chinese
        return "use words that were in its captions"
    label = vocabulary.names[vocabulary.label_of[vocabulary.words.index(word)]]
    return (
        f'give the label an English word, as in {label}="sheep", or use a model that reads '
        "Chinese, such as pasture"
    )


def reader_of(segmenter: Segmenter) -> PromptReader:
    """The tokenizer with the tokens that training never met, whose rows are zeros."""
    rows = segmenter.model.text_encoder.token_embedding.weight  # (V, width)
    untrained = (rows == 0).all(dim=1).nonzero()[:, 0].tolist()
    return PromptReader(segmenter.tokenizer, frozenset(untrained))


def _is_read(reader: PromptReader, text: str) -> bool:
    return reader.coverage(text) >= READABLE
