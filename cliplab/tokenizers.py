"""Texts to token ids: OpenAI's byte pairs and BERT's word pieces, exactly as the models expect.

Both have the same shape: `tokenizer(texts)` gives ids, `tokenizer.pieces(text)` shows what the
model is given, which is where a model meant for another language betrays itself.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from clip.simple_tokenizer import SimpleTokenizer

_SHOWN = 60  # characters of a text quoted in an error


class BytePairTokenizer:
    """OpenAI's byte-level byte-pair encoding, 49,408 tokens, lower case, padded with 0.

    Nothing is unknown to it: a text it has no words for falls apart into bytes, about three per
    Chinese character, which the model has seen too rarely to mean anything.

    Source: `clip.tokenize` and `SimpleTokenizer` of https://github.com/openai/CLIP (MIT).
    """

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length
        self._bpe = _simple_tokenizer()
        self.start_id: int = self._bpe.encoder["<|startoftext|>"]
        self.end_id: int = self._bpe.encoder["<|endoftext|>"]
        self.vocab_size: int = len(self._bpe.encoder)

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> int64 ids (K, context_length): start, tokens, end, zeros.

        Args:
            texts: one text or several.
            truncate: cut a text that is too long; its last token becomes the end token.

        Raises:
            ValueError: a text longer than the context (unless `truncate`), or not a string.
        """
        texts = _as_list(texts)
        rows = [[self.start_id, *self.encode(text), self.end_id] for text in texts]
        return _pad(rows, texts, self.context_length, truncate)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start, end and padding."""
        return self._bpe.encode(text)

    def pieces(self, text: str) -> list[str]:
        """One readable fragment per token; bytes that are no character alone as <0xE7>."""
        return [self._readable(self._bpe.decoder[token]) for token in self.encode(text)]

    def _readable(self, token: str) -> str:
        raw = bytes(self._bpe.byte_decoder[symbol] for symbol in token.removesuffix("</w>"))
        # surrogateescape parks each byte that is not UTF-8 at U+DC00 + byte.
        symbols = raw.decode("utf-8", errors="surrogateescape")
        return "".join(
            f"<0x{ord(s) - 0xDC00:02X}>" if "\udc80" <= s <= "\udcff" else s for s in symbols
        )


def _simple_tokenizer() -> "SimpleTokenizer":
    try:
        with warnings.catch_warnings():  # `clip` asks pkg_resources for versions, which complains
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            from clip.simple_tokenizer import SimpleTokenizer
    except ImportError as error:
        raise ImportError(
            f"the byte-pair tokenizer needs OpenAI's `clip` package, which cannot be imported "
            f'({error}); run: pip install "openai-clip==1.0.1" "setuptools<81" (newer setuptools '
            "lack the pkg_resources that it imports; the PyPI package named `clip` is another one)"
        ) from error
    return SimpleTokenizer()


def _as_list(texts: str | Sequence[str]) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}]: got a {type(text).__name__}; expected a string")
    return texts


def _pad(rows: list[list[int]], texts: list[str], length: int, truncate: bool) -> Tensor:
    """Rows of ids -> (K, length), zeros after the end; a row cut short keeps its end token."""
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if len(row) > length:
            if not truncate:
                quoted = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
                raise ValueError(
                    f"text too long: {quoted!r} has {len(row)} tokens with start and end; expected "
                    f"at most {length}: shorten it, or pass truncate=True to cut it"
                )
            row = [*row[: length - 1], row[-1]]
        ids[index, : len(row)] = torch.tensor(row)
    return ids
