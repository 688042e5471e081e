"""What loaders of official code share: its imports, noise, errors, weights and tokenizers."""

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.encoders.two_towers import Encoder
from cliplab.models.tokenizers import (
    BYTE_OF_SYMBOL,
    Tokenizer,
    as_list,
    readable_bytes,
    too_long,
)
from cliplab.models.weights import is_torchscript
from cliplab.runtime import sha256

PACKAGES = {  # prefix of a spec -> what pip installs for it
    "openai": ("openai-clip==1.0.1", "setuptools<81"),
    "modelscope": ("modelscope[framework]",),
    "hf": ("transformers", "sentencepiece", "protobuf"),  # the last two for SigLIP 1 alone
    "open_clip": ("open-clip-torch",),
}
_UNSAFE = (
    "it holds more than tensors, and loading such a pickle could run any program; take the "
    "safetensors file of the same model, or weights from somebody you trust"
)


@dataclass(frozen=True)
class Found:
    """What a loader makes of the files of a model: an encoder but for its name and device."""

    model: Any
    tokenizer: Tokenizer
    preprocess: Callable
    languages: tuple[str, ...]
    weights: Sequence[Path]
    revision: str = ""  # of the hub; "": a file or folder of your own

    def encoder(self, name: str, device: torch.device, precision: str = "float32") -> Encoder:
        """The encoder, with what a report says of it: spec, revision, SHA-256 of each file."""
        hashes = {f"sha256 {path.name}": sha256(path) for path in self.weights}
        revision = self.revision or "none (a local file or folder)"
        return Encoder(
            name,
            self.model,
            tokenizer=self.tokenizer,
            preprocess=self.preprocess,
            languages=self.languages,
            device=device,
            precision=precision,
            provenance={"spec": name, "revision": revision} | hashes,
        )


@contextmanager
def official(prefix: str) -> Iterator[None]:
    """Say which packages an encoder needs when importing them fails; hide their own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, in Jupyter
            yield
    except ImportError as error:
        wanted = " ".join(f'"{package}"' for package in PACKAGES[prefix])
        reason = str(error).strip().splitlines()[0]
        raise ImportError(
            f"{prefix}: needs a package that cannot be imported ({reason}); pip install {wanted}"
        ) from error


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever the official loaders raise on a bad file into one error with a remedy."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"{path}: not {expected}, or damaged ({reason}); copy or train it again"
        ) from error


@contextmanager
def hushed(*names: str) -> Iterator[None]:
    """Silence libraries that log every step of loading; "" is the root logger."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars that transformers draws while it loads, and its remarks."""
    from transformers.utils import logging as theirs

    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        with hushed("transformers"):
            yield
    finally:
        if shown:
            theirs.enable_progress_bar()


# ---- weights -------------------------------------------------------------------------------


def check_weights(path: Path) -> None:
    """Raise unless `path` is a file of weights that can be loaded without running code.

    The official loaders are handed the file only after this: one of them calls `torch.load`
    without saying `weights_only`, another falls back to doing so.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` there")
    if path.suffix != ".safetensors" and not is_torchscript(path):
        _check_pickle(path)


def _check_pickle(path: Path) -> None:
    try:
        # "meta": the pickle is read and judged, the tensors are not
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        _, found, rest = text.partition("GLOBAL ")
        if found and isinstance(error, pickle.UnpicklingError):
            # the only part of torch's long message that tells what the pickle would do
            raise ValueError(f"{path}: refused, {_UNSAFE} (it calls {rest.split()[0]})") from error
        raise ValueError(
            f"{path}: truncated or no weights ({text[:80]}); download or copy it again"
        ) from error


# ---- tokenizers -----------------------------------------------------------------------------

CHINESE_CONTEXT = 52  # tokens; ModelScope's preprocessor pads to it, whatever BERT could take
UNKNOWN = "[UNK]"  # what an unknown piece reads, whatever a tokenizer calls it
SPACE = "\u2581"  # sentencepiece's


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
