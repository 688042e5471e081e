"""Texts to token ids: OpenAI's byte pairs and BERT's word pieces, exactly as the models expect.

Both have the same shape: `tokenizer(texts)` gives ids, `tokenizer.pieces(text)` shows what the
model is given, which is where a model meant for another language betrays itself.
"""

import gzip
import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

PAD_ID = 0  # of both: CLIP's weights and ModelScope's preprocessor leave no choice
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # what a WordPiece vocabulary must have

UNKNOWN_PIECES = ("[UNK]", "<unk>")  # BERT's word pieces, SentencePiece

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SHOWN = 60  # characters of a text quoted in an error
_LONGEST_WORD = 200  # characters; BERT calls longer ones unknown without looking
_CJK = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class Tokenizer:
    """What the two tokenizers share: start + tokens + end, padded with zeros to one length."""

    start_id: int
    end_id: int
    vocab_size: int

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> int64 ids (K, context_length): start, tokens, end, zeros.

        Args:
            texts: one text or several.
            truncate: cut a text that is too long; its last token becomes the end token.

        Raises:
            ValueError: a text longer than the context (unless `truncate`), or not a string.
        """
        texts = as_list(texts)
        ids = torch.full((len(texts), self.context_length), PAD_ID)
        for index, text in enumerate(texts):
            row = [self.start_id, *self.encode(text), self.end_id]
            if len(row) > self.context_length:
                if not truncate:
                    raise ValueError(too_long(text, len(row), self.context_length))
                row = [*row[: self.context_length - 1], self.end_id]
            ids[index, : len(row)] = torch.tensor(row)
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start, end and padding."""
        raise NotImplementedError

    def pieces(self, text: str) -> list[str]:
        """One readable fragment per token of `encode(text)`."""
        raise NotImplementedError

    def coverage(self, text: str) -> float:
        """Share of the tokens that are writing, neither bytes nor unknown: 0 to 1; 1 if none are.

        A text tower that gets mostly the others cannot know what the text says. The reverse does
        not hold: a word in the vocabulary may never have been in a caption.
        """
        pieces = self.pieces(text)
        return sum(map(self.is_read, pieces)) / len(pieces) if pieces else 1.0

    @staticmethod
    def is_read(piece: str) -> bool:
        """Whether a piece is writing, and not a byte fragment <0xE7> nor an unknown word."""
        return piece not in UNKNOWN_PIECES and _BYTE.search(piece) is None


class BytePairTokenizer(Tokenizer):
    """OpenAI's byte-level byte-pair encoding, 49,408 tokens, lower case, padded with 0.

    Nothing is unknown to it: a text it has no words for falls apart into bytes, about three per
    Chinese character, which the model has seen too rarely to mean anything.

    Source: `clip.tokenize` and `SimpleTokenizer` of https://github.com/openai/CLIP (MIT), from
    which the vocabulary beside this module comes.
    """

    def __init__(self, context_length: int = 77) -> None:
        super().__init__(context_length)
        self._ids = _byte_pairs()[0]
        self._tokens = list(self._ids)
        self.start_id = self._ids["<|startoftext|>"]
        self.end_id = self._ids["<|endoftext|>"]
        self.vocab_size = len(self._ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start, end and padding."""
        import ftfy
        import regex

        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = regex.sub(r"\s+", " ", text).strip().lower()
        words = regex.findall(_WORD, text, regex.IGNORECASE)
        return [self._ids[piece] for word in words for piece in _merged(word)]

    def pieces(self, text: str) -> list[str]:
        """One readable fragment per token; bytes that are no character alone as <0xE7>."""
        tokens = [self._tokens[index].removesuffix("</w>") for index in self.encode(text)]
        return [readable_bytes(BYTE_OF_SYMBOL[symbol] for symbol in token) for token in tokens]


# Printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards in order.
# Source: GPT-2's vocabulary, which CLIP's follows.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF_SYMBOL = {chr(b): b for b in _PRINTABLE} | {chr(256 + i): b for i, b in enumerate(_OTHERS)}
_SYMBOL_OF_BYTE = {byte: symbol for symbol, byte in BYTE_OF_SYMBOL.items()}
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_MERGES = 49_408 - 2 * 256 - 2  # that CLIP uses of the file, beside single bytes and _SPECIAL


@lru_cache
def _byte_pairs() -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Token -> id, and pair -> rank."""
    path = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 1 + _MERGES]
    pairs = [(first, second) for first, second in map(str.split, lines)]
    tokens = [*BYTE_OF_SYMBOL, *(symbol + "</w>" for symbol in BYTE_OF_SYMBOL)]
    tokens += [*map("".join, pairs), *_SPECIAL]
    return {token: i for i, token in enumerate(tokens)}, {pair: i for i, pair in enumerate(pairs)}


@lru_cache(maxsize=2**14)
def _merged(word: str) -> list[str]:
    """The symbols of a word, neighbours joined in the order in which they were learned."""
    if word in _SPECIAL:
        return [word]
    ranks = _byte_pairs()[1]
    symbols = [_SYMBOL_OF_BYTE[byte] for byte in word.encode()]
    symbols[-1] += "</w>"
    while len(symbols) > 1:
        pair = min(pairwise(symbols), key=lambda pair: ranks.get(pair, math.inf))
        if pair not in ranks:
            break
        symbols = _joined(symbols, pair)
    return symbols


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with each neighbouring `pair` as one."""
    found: list[str] = []
    for symbol in symbols:
        if found and (found[-1], symbol) == pair:
            found[-1] += symbol
        else:
            found.append(symbol)
    return found


def readable_bytes(raw: Iterable[int]) -> str:
    """UTF-8 as text, each byte that is no part of a whole character as <0xE7>."""
    # surrogateescape parks each byte that is not UTF-8 at U+DC00 + byte.
    symbols = bytes(raw).decode("utf-8", errors="surrogateescape")
    return "".join(
        f"<0x{ord(s) - 0xDC00:02X}>" if "\udc80" <= s <= "\udcff" else s for s in symbols
    )


class WordPieceTokenizer(Tokenizer):
    """BERT's word pieces over a vocabulary of your own, lower case, padded with [PAD] = 0.

    Words are cut greedily into the longest pieces the vocabulary has; `##` marks a piece that
    continues a word. Every Chinese character is a word. A word that cannot be cut is [UNK].

    Source: BERT, arXiv:1810.04805; ids equal those of ModelScope's FullTokenizer.
    """

    unknown_token = "[UNK]"

    def __init__(self, vocab: str | Path | Sequence[str], context_length: int = 52) -> None:
        """`vocab`: a vocab.txt, or the tokens in the order of their ids."""
        super().__init__(context_length)
        self.vocab = read_vocab(vocab) if isinstance(vocab, str | Path) else list(vocab)
        check_vocab(self.vocab)
        self._ids = {token: index for index, token in enumerate(self.vocab)}
        self.start_id, self.end_id = self._ids["[CLS]"], self._ids["[SEP]"]
        self.vocab_size = len(self.vocab)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without [CLS], [SEP] and padding."""
        return [self._ids[piece] for piece in self.pieces(text)]

    def pieces(self, text: str) -> list[str]:
        """The word pieces of a text, [UNK] for each word that the vocabulary cannot spell."""
        return [piece for word in _words(text) for piece in self._cut(word)]

    def _cut(self, word: str) -> list[str]:
        if len(word) > _LONGEST_WORD:
            return [self.unknown_token]
        pieces, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if mark + word[start:e] in self._ids), None)
            if end is None:
                return [self.unknown_token]
            pieces.append(mark + word[start:end])
            start = end
        return pieces


def read_vocab(path: str | Path) -> list[str]:
    """Tokens of a vocab.txt in the order of their ids, one per line, UTF-8.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: not UTF-8 text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such vocabulary; expected one token per line, UTF-8")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save the vocabulary as UTF-8") from error
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def check_vocab(vocab: Sequence[str]) -> None:
    """Raise ValueError unless BERT's special tokens are there and [PAD] is the first."""
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing or vocab[PAD_ID] != "[PAD]":
        raise ValueError(
            f"vocab: got {list(vocab[:4])} ... without {', '.join(missing) or '[PAD] at 0'}; "
            f"expected {', '.join(SPECIAL_TOKENS)} among the tokens and [PAD] first"
        )


def _words(text: str) -> list[str]:
    """Lower-case words without accents; punctuation and CJK characters are words of their own."""
    words = []
    for word in "".join(map(clean_char, text)).split():
        plain = unicodedata.normalize("NFD", word.lower())
        words += "".join(isolate_mark(char) for char in plain).split()
    return words


@lru_cache(maxsize=2**14)
def clean_char(char: str) -> str:
    """Nothing for control characters, a space for white space, room around a CJK character."""
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char == "\ufffd" or category in ("Cc", "Cf"):
        return ""
    return f" {char} " if is_cjk(char) else char


def is_cjk(char: str) -> bool:
    """Whether a character is a Chinese one (Japanese kanji and Korean hanja are, kana are not)."""
    return any(low <= ord(char) <= high for low, high in _CJK)


@lru_cache(maxsize=2**14)
def isolate_mark(char: str) -> str:
    """Nothing for an accent, room around punctuation (all of ASCII's symbols count as such)."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    is_symbol = char.isascii() and char.isprintable() and not char.isalnum()
    return f" {char} " if is_symbol or category.startswith("P") else char


def as_list(texts: str | Sequence[str]) -> list[str]:
    """One text or several as a list.

    Raises:
        ValueError: not all of them are strings; the first that is not is named.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}]: got a {type(text).__name__}; expected a string")
    return texts


def too_long(text: str, count: int, limit: int) -> str:
    """What to say of a text that has more tokens than a model takes, and the remedy."""
    quoted = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return (
        f"text too long: {quoted!r} has {count} tokens with start and end; expected at most "
        f"{limit}: shorten it (or let it be cut: `truncate`)"
    )
