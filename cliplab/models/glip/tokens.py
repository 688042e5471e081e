"""A prompt and its tokens: which of them speak of each phrase, and prompts of any length.

Letters: K phrases, L tokens, B prompts.

Source: GLIP, arXiv:2112.03857, section 3.1; spans and positive maps as in the released code.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.tokenizers import WordPieceTokenizer, clean_char, isolate_mark
from cliplab.runtime import ArgumentError

_SHOWN = 60  # characters of a prompt quoted in an error
Span = tuple[int, int]  # characters from, up to but not including


@dataclass(frozen=True)
class Prompt:
    """A caption and the phrases in it; spans may overlap, and a phrase may have several."""

    caption: str
    phrases: tuple[str, ...]  # K, in the order of the labels
    spans: tuple[tuple[Span, ...], ...]  # of each phrase, characters of the caption
    left_out: tuple[str, ...] = ()  # words that were typed and say which things are not meant


class Piece(NamedTuple):
    """A word piece and the characters that it came from."""

    id: int
    text: str
    start: int
    end: int


def pieces_of(tokenizer: WordPieceTokenizer, text: str) -> list[Piece]:
    """Word pieces of a text with their places in it; without [CLS] and [SEP].

    A piece covers the characters it was made of, accents and all.
    """
    found = []
    for word, places in _words_with_places(text):
        first = 0
        for piece in tokenizer.pieces(word):
            unknown = piece == tokenizer.unknown_token
            length = len(word) if unknown else len(piece.removeprefix("##") if first else piece)
            start, end = places[first], places[first + length - 1] + 1
            found.append(Piece(tokenizer._ids[piece], piece, start, end))
            first += length
    return found


def _words_with_places(text: str) -> list[tuple[str, list[int]]]:
    """Words as BERT's tokenizer cuts them, with the place of each of their characters."""
    words: list[tuple[str, list[int]]] = []
    open_word = False
    for place, char in enumerate(text):
        parts = unicodedata.normalize("NFD", clean_char(char).lower())
        for part in "".join(map(isolate_mark, parts)):
            if part.isspace():
                open_word = False
                continue
            if not open_word:
                words.append(("", []))
                open_word = True
            word, places = words[-1]
            words[-1] = (word + part, [*places, place])
    return words


def tokens_of_characters(pieces: Sequence[Piece], length: int) -> list[int | None]:
    """For each of `length` characters the token it is in, [CLS] being token 0; None for none."""
    tokens: list[int | None] = [None] * length
    for index, piece in enumerate(pieces, start=1):
        tokens[piece.start : piece.end] = [index] * (piece.end - piece.start)
    return tokens


def positive_map(prompt: Prompt, pieces: Sequence[Piece], length: int) -> Tensor:
    """Which tokens speak of each phrase, bool (K, L) with L = `length`, [CLS] being token 0.

    From the token of a span's first character to that of its last; up to two characters further in
    where these are in no token, as in the released code.
    """
    places = tokens_of_characters(pieces, len(prompt.caption))
    positive = torch.zeros(len(prompt.phrases), length, dtype=torch.bool)
    for row, spans in zip(positive, prompt.spans, strict=True):
        for start, end in spans:
            first = _first_token(places[start : start + 3])
            last = _first_token(reversed(places[max(end - 3, 0) : end]))
            if first is not None and last is not None:
                row[first : last + 1] = True
    return positive


def _first_token(places: Iterable[int | None]) -> int | None:
    return next((token for token in places if token is not None), None)


# ---- prompts of any length ---------------------------------------------------------------------


class Chunk(NamedTuple):
    """As much of a prompt as the model reads at a time."""

    caption: str
    token_ids: Tensor  # (L,) from [CLS] to [SEP]
    positive: Tensor  # (K', L) bool, the tokens of the phrases in this chunk
    labels: Tensor  # (K',) which of the prompt's phrases these are


def chunks_of(prompt: Prompt, tokenizer: WordPieceTokenizer, max_tokens: int = 256) -> list[Chunk]:
    """The prompt in pieces of at most `max_tokens` tokens, cut after punctuation where possible.

    No phrase is cut. A phrase that occurs in several places may be in several chunks, whose
    detections are merged under its one label. Parts without a phrase are dropped.

    Raises:
        ValueError: a phrase that is too long for one chunk, or one that the vocabulary cannot
            spell at all.
    """
    pieces = pieces_of(tokenizer, prompt.caption)
    _check_known(prompt, pieces, tokenizer)
    edges = _cuts(prompt, pieces, max_tokens - 2)
    made = (_chunk(prompt, pieces[a:b], tokenizer) for a, b in pairwise(edges))
    return [chunk for chunk in made if len(chunk.labels)]


def _check_known(prompt: Prompt, pieces: Sequence[Piece], tokenizer: WordPieceTokenizer) -> None:
    known = torch.tensor([False, *(piece.text != tokenizer.unknown_token for piece in pieces)])
    spelled = (positive_map(prompt, pieces, len(pieces) + 1) & known).any(1).tolist()
    unknown = [phrase for phrase, yes in zip(prompt.phrases, spelled, strict=True) if not yes]
    if unknown:
        raise ArgumentError(
            "phrases",
            f"{', '.join(map(repr, unknown[:5]))}: no word of it is in the model's "
            "vocabulary, so that it cannot tell it from any other; say it in words that the model "
            "was trained on",
        )


def _cuts(prompt: Prompt, pieces: Sequence[Piece], budget: int) -> list[int]:
    """Indices of pieces where chunks begin, and the end; at most `budget` pieces apart."""
    inside = {c for spans in prompt.spans for start, end in spans for c in range(start + 1, end)}
    edges = [0]
    while len(pieces) - edges[-1] > budget:
        first = edges[-1]
        allowed = [i for i in range(first + 1, first + budget + 1) if _may_cut(pieces, i, inside)]
        if not allowed:
            start = pieces[first].start
            raise ArgumentError(
                "prompt",
                f"no place to cut in the {budget} tokens from "
                f"{prompt.caption[start : start + _SHOWN]!r} on; expected phrases of fewer tokens",
            )
        stops = [i for i in allowed if pieces[i - 1].text in ".;,!?" and i > first + budget // 2]
        edges.append(max(stops or allowed))
    return [*edges, len(pieces)]


def _may_cut(pieces: Sequence[Piece], index: int, inside: set[int]) -> bool:
    """Whether a chunk may begin with this piece: not within a word, not within a phrase."""
    here = pieces[index]
    return here.start not in inside and not here.text.startswith("##")


def _chunk(prompt: Prompt, pieces: Sequence[Piece], tokenizer: WordPieceTokenizer) -> Chunk:
    """What these pieces say of the prompt."""
    ids = torch.tensor([tokenizer.start_id, *(p.id for p in pieces), tokenizer.end_id])
    positive = positive_map(prompt, pieces, len(ids))
    labels = positive.any(1).nonzero().flatten()
    caption = prompt.caption[pieces[0].start : pieces[-1].end]
    return Chunk(caption, ids, positive[labels], labels)


def batch_of(chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Prompts of one batch, filled up to the longest: ids (B, L), mask (B, L), B maps (K, L)."""
    longest = max(len(chunk.token_ids) for chunk in chunks)
    room = [longest - len(chunk.token_ids) for chunk in chunks]
    ids = torch.stack([F.pad(c.token_ids, (0, r)) for c, r in zip(chunks, room, strict=True)])
    mask = torch.arange(longest) < torch.tensor([len(c.token_ids) for c in chunks])[:, None]
    maps = [F.pad(c.positive, (0, r)) for c, r in zip(chunks, room, strict=True)]
    return ids, mask, maps
