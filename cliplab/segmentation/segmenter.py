"""Pictures of any size and words of any kind to a `Segmentation`, in bounded memory.

A picture is brought to a working size, looked at through square windows that overlap, and the
windows' scores are averaged. Only the shape of the picture decides how much memory that takes: its
longer side counts for at most `LONGEST` times the shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification import check_templates, fill_templates
from cliplab.models.groupvit import GroupViT, load_groupvit
from cliplab.models.tokenizers import BytePairTokenizer, Tokenizer, WordPieceTokenizer
from cliplab.runtime import checkpoint_dir, is_offline, pick_device
from cliplab.segmentation.refine import refine
from cliplab.segmentation.result import Segmentation, check_threshold
from cliplab.segmentation.scene import read_scenes
from cliplab.segmentation.vocabulary import Vocabulary

LONGEST = 4  # times the shorter side; longer pictures are seen smaller
MOST = 4  # times the side; larger scales would take the memory that `LONGEST` saves
_TEXTS = 256  # read at a time
SHIPPED = "pasture"  # the name of the model that comes with the package
_CONFIG, _WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
_EXTRA = ("preprocessor_config.json",)


@dataclass(frozen=True)
class Settings:
    """How a picture is read; choose on val, report on test."""

    threshold: float | None = None  # classes that score less are background; 0 to 1
    top_words: int | None = 5  # words that a window may show; None: all
    templates: tuple[str, ...] = ("a photo of a {}.",)  # their features are averaged
    hard: bool = True  # a pixel has its group's scores; False: the mean over its groups
    side: int | None = None  # px of the shorter side, and of a window; None: the model's choice
    slide: bool = True  # windows; False: the picture in one piece, positions interpolated
    scales: tuple[float, ...] = (1.0,)  # times the side; scores of several sizes are averaged
    flip: bool = False  # with the scores of the mirrored picture, at every scale
    refine: int = 0  # steps of `refine`, of the averaged scores

    def __post_init__(self) -> None:
        """Accept lists, as JSON gives them; refuse numbers out of range."""
        object.__setattr__(self, "templates", tuple(check_templates(self.templates)))
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or not all(0 < scale <= MOST for scale in self.scales):
            raise ValueError(f"scales: got {self.scales}; expected one or more, over 0 to {MOST}")
        check_threshold(self.threshold, has_background=True)
        for name in ("top_words", "side"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}: got {value}; expected 1 or more, or None")
        if self.refine < 0:
            raise ValueError(f"refine: got {self.refine} steps; expected 0 or more")

    def views(self) -> list[tuple[float, bool]]:
        """Scale of each view of a picture, and whether it is mirrored; the first is not."""
        return [(scale, flip) for scale in self.scales for flip in (False, True)[: 1 + self.flip]]


class Segmenter:
    """A GroupViT with its tokenizer: pictures and words in, labels out."""

    def __init__(
        self,
        model: GroupViT,
        *,
        tokenizer: Tokenizer | None = None,
        device: str = "auto",
        name: str = "GroupViT",
    ) -> None:
        self.name, self.device = name, pick_device(device)
        self.model = model.float().eval().to(self.device)
        self.tokenizer = tokenizer or tokenizer_of(model)
        check_tokenizer(self.tokenizer, model)
        self._last: tuple[object, Tensor] | None = None  # words and templates, their embeddings

    def __repr__(self) -> str:
        config = self.model.config
        return f"<segmenter {self.name}: groups {config.output_groups}, {config.embed_dim} D>"

    @torch.no_grad()
    def embed(self, words: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """W words in T templates -> (W, D) unit rows, on the segmenter's device.

        The last result is kept, for the next picture with the same words.

        Deviates: features are averaged over the templates before they are made unit rows, as the
        official evaluation does; CLIP makes them unit rows first.
        """
        key = tuple(words), tuple(templates)
        if self._last is None or self._last[0] != key:
            ids = self.tokenizer(fill_templates(words, check_templates(templates)))
            parts = (self.model.encode_text(i.to(self.device)).float() for i in ids.split(_TEXTS))
            features = torch.cat(list(parts)).unflatten(0, (len(words), -1))  # (W, T, D)
            self._last = key, F.normalize(features.mean(dim=1), dim=-1)
        return self._last[1]

    @torch.no_grad()
    def segment(
        self, image: Image.Image, vocabulary: Vocabulary, settings: Settings | None = None
    ) -> Segmentation:
        """One picture of any size and mode -> its labels.

        Raises:
            ValueError: something that is no picture, a side that is no multiple of the patch, a
                threshold without a background, or words longer than the context.
        """
        settings = settings or Settings()
        check_threshold(settings.threshold, has_background=vocabulary.has_background)
        (scale, _), *others = settings.views()
        total, owner = self._view(image, vocabulary, settings, scale=scale)
        for scale, flipped in others:
            scores, _ = self._view(image, vocabulary, settings, scale=scale, flipped=flipped)
            total += F.interpolate(scores[None], total.shape[1:], mode="bilinear")[0]
        scores = self._refined(total / (1 + len(others)), image, settings.refine)
        found = Segmentation(scores, owner, vocabulary.names, image.size, vocabulary.has_background)
        return replace(found, threshold=settings.threshold)

    def _view(
        self,
        image: Image.Image,
        vocabulary: Vocabulary,
        settings: Settings,
        *,
        scale: float,
        flipped: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Scores (K, H, W) and owners (H, W) of the picture at one scale, as it is or mirrored."""
        settings = replace(settings, side=scaled_side(self._side(settings), scale, self._patch))
        word_emb = self.embed(vocabulary.words, settings.templates)
        pixels, size = self._pixels(image, settings)
        pixels = pixels.flip(2) if flipped else pixels
        canvas = _Canvas(len(vocabulary.names), (pixels.shape[1], pixels.shape[2]))
        window = self._side(settings) if settings.slide else max(pixels.shape[1:])
        for top, left in _windows(pixels.shape[1:], window):
            view = pixels[None, :, top : top + window, left : left + window].to(self.device)
            seen = read_scenes(
                self.model, view, word_emb, top_words=settings.top_words, hard=settings.hard
            )
            canvas.add(vocabulary.by_label(seen.scores[0]).cpu(), seen.owner[0].cpu(), (top, left))
        if flipped:
            canvas.mirror()
        return canvas.result(size)

    def _refined(self, scores: Tensor, image: Image.Image, steps: int) -> Tensor:
        """Scores (K, H, W) after some steps of `refine`, with the picture at their size."""
        if not steps:
            return scores
        height, width = scores.shape[1:]
        shown = _tensor(_resized(image, (width, height)))  # (3, H, W)
        return refine(scores[None].to(self.device), shown[None].to(self.device), steps)[0].cpu()

    @property
    def _patch(self) -> int:
        return self.model.config.patch_size

    def _side(self, settings: Settings) -> int:
        config = self.model.config
        side = settings.side or config.test_resolution or 2 * config.image_resolution
        if side % config.patch_size:
            raise ValueError(
                f"side: got {side} px; expected a multiple of the patch, {config.patch_size}"
            )
        return side

    def _pixels(self, image: Image.Image, settings: Settings) -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels (3, H, W), at least a window large; rows and columns that are real."""
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"image: got a {type(image).__name__}; expected a PIL image: open files with "
                "cliplab.data.open_image(path)"
            )
        side, patch = self._side(settings), self.model.config.patch_size
        width, height = working_size(image.size, side)
        pixels = _tensor(_resized(image, (width, height)))  # (3, height, width)
        config = self.model.config
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.image_mean, config.image_std))
        least = side if settings.slide else patch
        down, right = (_missing(length, least, patch) for length in (height, width))
        filled = F.pad(((pixels - mean) / std)[None], (0, right, 0, down), mode="replicate")[0]
        return filled, (height, width)


def scaled_side(side: int, scale: float, patch: int) -> int:
    """`side` times `scale`, to the nearest multiple of the patch, px."""
    return max(1, round(side * scale / patch)) * patch


def working_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height at which a picture of `size` is looked at, in pixels.

    Its shorter side becomes `side`, unless its longer one would exceed `LONGEST` times that.

    Raises:
        ValueError: a picture without pixels.
    """
    if min(size) < 1:
        raise ValueError(f"image: got {size[0]} x {size[1]} px; expected at least one pixel")
    scale = min(side / min(size), LONGEST * side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def _missing(length: int, least: int, patch: int) -> int:
    """Pixels to add so that a length is a multiple of the patch, and not less than `least`."""
    return max(least, math.ceil(length / patch) * patch) - length


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    rgb = image.convert("RGB")
    if rgb.size == size:
        return rgb
    return rgb.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _tensor(image: Image.Image) -> Tensor:
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3).permute(2, 0, 1).float() / 255


def _windows(size: Sequence[int], window: int) -> Iterator[tuple[int, int]]:
    """Top left corners of windows half a window apart; the last ones end with the picture."""
    rows, columns = (
        sorted({*range(0, max(1, length - window), max(1, window // 2)), max(0, length - window)})
        for length in size
    )
    return ((top, left) for top in rows for left in columns)


class _Canvas:
    """The mean of overlapping windows, and for every pixel a group of the window it is deepest in.

    Groups of two windows have nothing to do with one another, so they are numbered through.
    """

    def __init__(self, labels: int, size: tuple[int, int]) -> None:
        self.scores = torch.zeros(labels, *size)
        self.count = torch.zeros(size)
        self.owner = torch.zeros(size, dtype=torch.long)
        self.depth = torch.full(size, -1.0)
        self.groups = 0

    def add(self, scores: Tensor, owner: Tensor, corner: tuple[int, int]) -> None:
        """Scores (K, h, w) and owner (h, w) of the window at `corner`."""
        height, width = owner.shape
        area = (slice(corner[0], corner[0] + height), slice(corner[1], corner[1] + width))
        self.scores[:, *area] += scores
        self.count[area] += 1
        depth = torch.minimum(_from_edge(height)[:, None], _from_edge(width))
        deeper = depth > self.depth[area]
        self.depth[area] = torch.where(deeper, depth, self.depth[area])
        self.owner[area] = torch.where(deeper, owner + self.groups, self.owner[area])
        self.groups += int(owner.max()) + 1

    def mirror(self) -> None:
        """Turn what was seen of a mirrored picture back."""
        self.scores, self.count = self.scores.flip(2), self.count.flip(1)
        self.owner = self.owner.flip(1)

    def result(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Scores (K, H, W) and owners (H, W) of the real rows and columns."""
        rows, columns = size
        self.scores /= self.count
        return self.scores[:, :rows, :columns], self.owner[:rows, :columns]


def _from_edge(length: int) -> Tensor:
    place = torch.arange(length).float()
    return torch.minimum(place, length - 1 - place)


# ---- tokenizers and files ------------------------------------------------------------------


def tokenizer_of(model: GroupViT) -> Tokenizer:
    """The tokenizer that a model was trained with: its own word pieces, or OpenAI's byte pairs."""
    context = model.config.context_length
    return WordPieceTokenizer(model.vocab, context) if model.vocab else BytePairTokenizer(context)


def check_tokenizer(tokenizer: Tokenizer, model: GroupViT) -> None:
    """Raise ValueError unless ids fit the model and the end token has the highest of them.

    The feature of a text is read at its highest id, as in CLIP.
    """
    rows = model.config.vocab_size
    if tokenizer.vocab_size > rows or tokenizer.end_id != tokenizer.vocab_size - 1:
        raise ValueError(
            f"tokenizer: got {tokenizer.vocab_size} tokens of which number {tokenizer.end_id} ends "
            f"a text; expected at most {rows}, and the end token last: put [SEP] at the end"
        )


def load_segmenter(
    spec: str = SHIPPED, *, device: str = "auto", offline: bool | None = None
) -> Segmenter:
    """The segmenter called `spec`.

    Args:
        spec: "pasture", the shipped model; a file or folder, see `load_groupvit`; or
            "hf:<repo>[@revision]", such as "hf:nvidia/groupvit-gcc-yfcc", from this machine's
            cache if it is there, else downloaded.
        device: "auto", "cpu", "cuda" or "mps".
        offline: True forbids downloads; None asks $CLIPLAB_OFFLINE and the hub's own variables.

    Raises:
        FileNotFoundError: nothing there, and not to be downloaded; it says what to do.
        ValueError: not a GroupViT; with the missing and unexpected names.
    """
    prefix, colon, where = spec.partition(":")
    if prefix == "hf" and colon:
        path = hub_folder(where, offline=is_offline(offline))
    elif spec == SHIPPED:
        path = checkpoint_dir("groupvit")
    else:
        path = Path(spec).expanduser()
    return Segmenter(load_groupvit(path), device=device, name=spec)


def hub_folder(where: str, *, offline: bool) -> Path:
    """The folder of `hf:<where>`: one on this disk, else the hub's snapshot, local first.

    Raises:
        FileNotFoundError: neither a folder nor the name of a repository.
    """
    from cliplab.encoders.huggingface_files import find_snapshot

    if (folder := Path(where).expanduser()).is_dir():
        return folder
    repo, _, revision = where.partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or repo.startswith((".", "~")):
        raise FileNotFoundError(
            f"hf:{where}: no such folder; expected one that save_pretrained wrote, or a repository "
            "such as nvidia/groupvit-gcc-yfcc[@revision]"
        )
    return find_snapshot(
        f"hf:{where}", repo, revision, missing=_lacking, choose=_wanted, offline=offline
    )[0]


def _lacking(folder: Path) -> list[str]:
    """What a folder lacks to be a GroupViT."""
    lacking = [] if (folder / _CONFIG).is_file() else [_CONFIG]
    if not any((folder / name).is_file() for name in _WEIGHTS):
        lacking.append(" or ".join(_WEIGHTS))
    return lacking


def _wanted(names: list[str]) -> list[str]:
    """Which files of a repository to download: safetensors, not the same weights once more."""
    weights = [name for name in _WEIGHTS if name in names][:1]
    return [name for name in names if name in (_CONFIG, *_EXTRA)] + weights
