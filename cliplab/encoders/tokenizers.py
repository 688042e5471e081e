"""Official tokenizers with the house's errors and readable pieces."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.models.tokenizers import (
    BYTE_OF_SYMBOL,
    BytePairTokenizer,
    Tokenizer,
    as_list,
    readable_bytes,
    too_long,
)

CHINESE_CONTEXT = 52  # tokens; ModelScope's preprocessor pads to it, whatever BERT could take
UNKNOWN = "[UNK]"  # what an unknown piece reads, whatever a tokenizer calls it
SPACE = "\u2581"  # sentencepiece's


class OfficialBytePairs(BytePairTokenizer):
    """`clip.tokenize`, with the house's errors and readable pieces."""

    def __init__(self, tokenize: Callable[..., Tensor], context_length: int) -> None:
        super().__init__(context_length)
        self._tokenize = tokenize

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> int64 ids (K, context_length) from clip itself; errors as in `Tokenizer`."""
        if not truncate:
            super().__call__(texts)  # its error tells the length and the remedy, clip's neither
        return self._tokenize(texts, self.context_length, truncate=truncate).long()


class OfficialWordPieces(Tokenizer):
    """ModelScope's FullTokenizer, framed and padded as its CLIPPreprocessor does.

    Deviates: that class cuts long texts silently; here they are refused unless `truncate`.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        super().__init__(context_length)
        self._tokenizer, self.vocab_size = tokenizer, len(tokenizer.vocab)
        self.start_id, self.end_id = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without [CLS], [SEP] and padding."""
        return self._tokenizer.convert_tokens_to_ids(self.pieces(text))

    def pieces(self, text: str) -> list[str]:
        """The word pieces of a text, [UNK] for each word that the vocabulary cannot spell."""
        return self._tokenizer.tokenize(text)


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of transformers, always padded to the context, long texts refused.

    `clean` is what becomes of a text first; `tokenize` makes ids (K, L) of texts, cleaning
    included, by default the tokenizer itself, cut and padded to the context.
    """

    def __init__(
        self,
        tokenizer: Any,
        context_length: int,
        *,
        clean: Callable[[str], str] = str,
        tokenize: Callable[[list[str]], Tensor] | None = None,
    ) -> None:
        super().__init__(context_length)
        self._tokenizer, self._clean = tokenizer, clean
        self._tokenize = tokenize or self._padded
        self._added = len(tokenizer("").input_ids)  # start and end, or end alone
        self.vocab_size = len(tokenizer)
        splitter = repr(getattr(tokenizer, "backend_tokenizer", tokenizer).pre_tokenizer)
        self._byte_of = BYTE_OF_SYMBOL if "ByteLevel" in splitter else {}

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> int64 ids (K, context_length), framed and padded as the official one does."""
        texts = as_list(texts)
        for text in [] if truncate else texts:
            count = len(self.encode(text)) + self._added
            if count > self.context_length:
                raise ValueError(too_long(text, count, self.context_length))
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.long)
        return self._tokenize(texts)

    def _padded(self, texts: list[str]) -> Tensor:
        return self._tokenizer(
            [self._clean(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        ).input_ids

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start, end and padding."""
        # verbose: it would log a remark on every text longer than the model takes
        text = self._clean(text)
        return self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def pieces(self, text: str) -> list[str]:
        """One readable fragment per token; bytes that are no character alone as <0xE7>."""
        tokens = self._tokenizer.convert_ids_to_tokens(self.encode(text))
        return [self._readable(token) for token in tokens]

    def _readable(self, token: str) -> str:
        if token == self._tokenizer.unk_token:
            return UNKNOWN
        if self._byte_of:
            return readable_bytes(self._byte_of[c] for c in token.removesuffix("</w>"))
        return token.removeprefix(SPACE).replace(SPACE, " ") or " "


class OpenClipBytePairs(Tokenizer):
    """open_clip's SimpleTokenizer: OpenAI's byte pairs after the cleaning that a model asks for."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer.context_length)
        self._tokenizer, self.vocab_size = tokenizer, tokenizer.vocab_size
        self.start_id, self.end_id = tokenizer.sot_token_id, tokenizer.eot_token_id

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """K texts -> int64 ids (K, context_length) from open_clip itself."""
        if not truncate:
            super().__call__(texts)  # only for its error: open_clip cuts silently
        texts = as_list(texts)
        return self._tokenizer(texts) if texts else super().__call__(texts)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without start, end and padding."""
        return self._tokenizer.encode(text)

    def pieces(self, text: str) -> list[str]:
        """One readable fragment per token; bytes that are no character alone as <0xE7>."""
        byte_of = self._tokenizer.byte_decoder
        tokens = [self._tokenizer.decoder[index] for index in self.encode(text)]
        return [readable_bytes(byte_of[c] for c in t.removesuffix("</w>")) for t in tokens]
