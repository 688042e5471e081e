"""Encoders: images and texts to unit vectors, ours and the official ones behind one interface.

The only module that talks to `clip` and `modelscope`; both are imported when they are asked for.
A new source of encoders is one entry in `LOADERS`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cliplab.runtime import checkpoint_dir, is_offline, nearest, pick_device, verify_checkpoint
from cliplab.tokenizers import BytePairTokenizer, Tokenizer, WordPieceTokenizer
from cliplab.two_towers import Encoder, TwoTowers, modelscope_preprocess, openai_preprocess

__all__ = ["LOADERS", "EmbeddingPipeline", "Encoder", "TwoTowers", "load_encoder", "pipeline"]

MODELSCOPE_FILES = (
    "vision_model_config.json",
    "text_model_config.json",
    "vocab.txt",
    "pytorch_model.bin",
)
CHINESE_CONTEXT = 52  # tokens; ModelScope's preprocessor pads to it, whatever BERT could take


# ---- sources -------------------------------------------------------------------------------


def _load_pasture(_where: str, device: torch.device, _offline: bool) -> TwoTowers:
    return read_openai(checkpoint_dir("clip-openai") / "model.pt", name="pasture", device=device)


def _load_pasture_zh(_where: str, device: torch.device, _offline: bool) -> TwoTowers:
    return read_modelscope(checkpoint_dir("clip-chinese"), name="pasture-zh", device=device)


def read_openai(path: Path, *, name: str, device: torch.device) -> TwoTowers:
    """Encoder of our readable CLIP on weights in OpenAI's format."""
    from cliplab.models.clip import load_openai

    verify_checkpoint(path.parent, [path.name])
    model = load_openai(path)
    return TwoTowers(
        name,
        model,
        tokenizer=BytePairTokenizer(model.config.context_length),
        preprocess=openai_preprocess(model.config.image_resolution),
        languages=("en",),
        device=device,
    )


def read_modelscope(folder: Path, *, name: str, device: torch.device) -> TwoTowers:
    """Encoder of our readable Chinese-CLIP on a folder in ModelScope's format."""
    from cliplab.models.chinese_clip import load_modelscope

    verify_checkpoint(folder)
    model = load_modelscope(folder)
    context = min(CHINESE_CONTEXT, model.config.text_max_position_embeddings)
    return TwoTowers(
        name,
        model,
        tokenizer=WordPieceTokenizer(folder / "vocab.txt", context),
        preprocess=modelscope_preprocess(model.config.image_resolution),
        languages=("zh",),
        device=device,
    )


def _load_openai(where: str, device: torch.device, offline: bool) -> TwoTowers:
    """The official `clip` package: its loading, model, preprocessing and tokenizer."""
    path = _local(where, "openai", "a file such as data/checkpoints/clip-openai/model.pt", offline)
    verify_checkpoint(path.parent, [path.name])
    with _official("openai", "openai-clip==1.0.1", "setuptools<81"):
        import clip
    with _reading(path, "an OpenAI CLIP checkpoint (TorchScript archive)"):
        model, preprocess = clip.load(str(path), device="cpu")
    return TwoTowers(
        f"openai:{where}",
        model,
        tokenizer=_OfficialBytePairs(clip.tokenize, model.context_length),
        preprocess=preprocess,
        languages=("en",),
        device=device,
    )


def _load_modelscope(where: str, device: torch.device, offline: bool) -> TwoTowers:
    """ModelScope's own model class; its preprocessing restated, since that does not import here."""
    folder = _local(where, "modelscope", "a folder such as data/checkpoints/clip-chinese", offline)
    for name in MODELSCOPE_FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: missing; expected a ModelScope folder of Chinese-CLIP"
            )
    verify_checkpoint(folder)
    with _official("modelscope", "modelscope[framework]"):
        from modelscope.models.multi_modal.clip.model import CLIPForMultiModalEmbedding
    with _reading(folder, "a ModelScope folder of Chinese-CLIP"), _hushed("modelscope"):
        model = CLIPForMultiModalEmbedding(str(folder))
    positions = model.model_info["text_max_position_embeddings"]
    return TwoTowers(
        f"modelscope:{where}",
        model.clip_model,
        tokenizer=_OfficialWordPieces(model.tokenizer, min(CHINESE_CONTEXT, positions)),
        preprocess=modelscope_preprocess(model.model_info["image_resolution"]),
        languages=("zh",),
        device=device,
    )


Loader = Callable[[str, torch.device, bool], Encoder]
# A name, or a prefix with its colon -> loader(what follows the colon, device, offline).
LOADERS: dict[str, Loader] = {
    "pasture": _load_pasture,
    "pasture-zh": _load_pasture_zh,
    "openai:": _load_openai,
    "modelscope:": _load_modelscope,
}


def load_encoder(spec: str, *, device: str = "auto", offline: bool | None = None) -> Encoder:
    """The encoder called `spec`, in eval mode, on `device`.

    Args:
        spec: "pasture" (English) or "pasture-zh" (Chinese), the shipped models through our
            readable code; "openai:<model.pt>" or "modelscope:<folder>", the official code.
        device: "auto", "cpu", "cuda" or "mps".
        offline: True forbids downloads, False allows them; None asks $CLIPLAB_OFFLINE.

    Raises:
        ValueError: unknown name (the nearest are listed), damaged file, wrong hash.
        FileNotFoundError: missing checkpoint.
        ImportError: the official package is not installed.
    """
    prefix, colon, where = spec.partition(":")
    loader = LOADERS.get(prefix + colon)
    if loader is None:
        raise ValueError(_unknown(spec, prefix + colon))
    if colon and not where:
        raise ValueError(f"encoder {spec!r}: nothing after the colon; expected a path")
    return loader(where, pick_device(device), is_offline(offline))


def _unknown(spec: str, key: str) -> str:
    close = nearest(key, LOADERS)
    if spec and Path(spec).exists():
        close = ["modelscope:" + spec] if Path(spec).is_dir() else ["openai:" + spec]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    valid = [name + "<path>" if name.endswith(":") else name for name in LOADERS]
    return f"unknown encoder {spec!r}; {hint}valid: {', '.join(valid)}"


def _local(where: str, prefix: str, expected: str, offline: bool) -> Path:
    """The path `where`; fetching of hub names belongs here, and must ask `offline` first."""
    path = Path(where).expanduser()
    if not path.exists():
        network = "offline" if offline else "names of online models are not fetched"
        raise FileNotFoundError(f"{prefix}:{where}: no such path ({network}); expected {expected}")
    return path


@contextmanager
def _official(prefix: str, *packages: str) -> Iterator[None]:
    """Say which packages an encoder needs when importing them fails; hide their own warnings."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            yield
    except ImportError as error:
        wanted = " ".join(f'"{package}"' for package in packages)
        raise ImportError(
            f"{prefix}: needs a package that cannot be imported ({error}); pip install {wanted}"
        ) from error


@contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever the official loaders raise on a bad file into one error with a remedy."""
    try:
        with warnings.catch_warnings():  # clip.load uses TorchScript, which torch calls deprecated
            warnings.filterwarnings("ignore", message=r".*torch\.jit.* is deprecated")
            yield
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"{path}: not {expected}, or damaged ({reason}); copy or train it again"
        ) from error


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Silence a library that logs every step of loading."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _OfficialBytePairs(BytePairTokenizer):
    """`clip.tokenize`, with the house's errors and readable pieces."""

    def __init__(self, tokenize: Callable[..., Tensor], context_length: int) -> None:
        super().__init__(context_length)
        self._tokenize = tokenize

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        if not truncate:
            super().__call__(texts)  # its error tells the length and the remedy, clip's neither
        return self._tokenize(texts, self.context_length, truncate=truncate).long()


class _OfficialWordPieces(Tokenizer):
    """ModelScope's FullTokenizer, framed and padded as its CLIPPreprocessor does.

    Deviates: that class cuts long texts silently; here they are refused unless `truncate`.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        super().__init__(context_length)
        self._tokenizer, self.vocab_size = tokenizer, len(tokenizer.vocab)
        self.start_id, self.end_id = tokenizer.vocab["[CLS]"], tokenizer.vocab["[SEP]"]

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.convert_tokens_to_ids(self.pieces(text))

    def pieces(self, text: str) -> list[str]:
        return self._tokenizer.tokenize(text)


# ---- ModelScope's pipeline -----------------------------------------------------------------


class EmbeddingPipeline:
    """What ModelScope's multi-modal embedding pipeline offers, on any encoder."""

    def __init__(self, encoder: Encoder, *, truncate: bool = False) -> None:
        self.encoder, self.truncate = encoder, truncate
        self.model = SimpleNamespace(temperature=torch.tensor(1 / encoder.logit_scale))

    def forward(self, input: dict[str, Any]) -> dict[str, Tensor | None]:
        """{'img': image or list, 'text': text or list} -> unit rows under '..._embedding' keys.

        Either key may be missing; its embedding is None then.
        """
        if not isinstance(input, dict) or not input.keys() & {"img", "text"}:
            raise ValueError(f"input: got {input!r}; expected a dict with 'img', 'text' or both")
        images, texts = input.get("img"), input.get("text")
        images = [images] if isinstance(images, Image.Image) else images
        return {
            "img_embedding": None if images is None else self.encoder.encode_image(images),
            "text_embedding": None
            if texts is None
            else self.encoder.encode_text(texts, truncate=self.truncate),
        }

    __call__ = forward


def pipeline(
    task: str,
    model: str,
    model_revision: str | None = None,
    *,
    device: str = "auto",
    truncate: bool = False,
) -> EmbeddingPipeline:
    """Drop-in for `modelscope.pipelines.pipeline(task=Tasks.multi_modal_embedding, model=...)`.

    ModelScope's own cannot be built on a current stack: its preprocessing module imports decord,
    timm, fairseq and some twenty more. Its model class can, and is what a folder is loaded with.

    Args:
        task: Tasks.multi_modal_embedding, which is "multi-modal-embedding".
        model: a ModelScope folder of Chinese-CLIP, or any name that `load_encoder` knows.
        model_revision: accepted for the sake of the drop-in; a folder has only one.
        device: as in `load_encoder`.
        truncate: cut long texts silently, as ModelScope does, instead of refusing them.

    Raises:
        ValueError, FileNotFoundError, ImportError: another task, or what `load_encoder` raises.
    """
    if task.replace("_", "-") != "multi-modal-embedding":
        raise ValueError(f"task: got {task!r}; expected 'multi-modal-embedding'")
    prefix, colon, _ = model.partition(":")
    known = prefix + colon in LOADERS and not Path(model).is_dir()
    encoder = load_encoder(model if known else f"modelscope:{model}", device=device)
    return EmbeddingPipeline(encoder, truncate=truncate)
