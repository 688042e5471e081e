"""A GroupViT that looks at pictures of any size, once, and is then asked about them in many ways.

A picture is brought to a working size, looked at through square windows that overlap, and the
windows' scores are averaged. Only the shape of the picture decides how much memory that takes: its
longer side counts for at most `LONGEST` times the shorter one.

Letters: B pictures of one size, K labels, H W pixels as looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification import check_templates, fill_templates
from cliplab.models.groupvit import Groups, GroupViT
from cliplab.models.groupvit.model import weights_in
from cliplab.models.tokenizers import BytePairTokenizer, Tokenizer, WordPieceTokenizer
from cliplab.pasture import class_of
from cliplab.runtime import ArgumentError, pick_device, sha256
from cliplab.segmentation.scene import Scenes, Segmentation, name_groups, refine
from cliplab.segmentation.settings import Settings, Vocabulary

LONGEST = 4  # times the shorter side; longer pictures are seen smaller
_BATCH = 25  # pictures of one size at a time
_TEXTS = 256  # read at a time


class GroupViTSegmenter:
    """A GroupViT with its tokenizer."""

    def __init__(
        self,
        model: GroupViT,
        *,
        device: str = "auto",
        name: str = "GroupViT",
        path: Path | None = None,
    ) -> None:
        self.name, self.device, self.path = name, pick_device(device), path
        self.model = model.float().eval().to(self.device)
        context = model.config.context_length  # its own word pieces, or OpenAI's byte pairs
        self.tokenizer: Tokenizer = (
            WordPieceTokenizer(model.vocab, context) if model.vocab else BytePairTokenizer(context)
        )
        self._last: tuple[object, Tensor] | None = None  # words and templates, their embeddings

    @property
    def groups(self) -> int | None:
        """Groups of a window; None for a model without them."""
        config = self.model.config
        return config.output_groups[-1] if config.stages else None

    @property
    def side(self) -> int:
        """Px of the shorter side of a picture as it is looked at, and of a window."""
        return self.model.config.test_resolution or 2 * self.model.config.image_resolution

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

    def segment(
        self,
        images: Sequence[Image.Image],
        vocabulary: Vocabulary,
        settings: Settings | None = None,
    ) -> list[Segmentation]:
        """Pictures of any size and mode -> what is said of each.

        Raises:
            ValueError: as `Features`.
        """
        settings = settings or Settings()
        return [
            found
            for image in images
            for found in Features(self, [image]).read(vocabulary, settings)
        ]

    def describe(self) -> dict[str, Any]:
        """What it is and where it came from, plain values for a report."""
        config, weights = self.model.config, self.path and weights_in(self.path)
        return {
            "model": "groupvit",
            "name": self.name,
            "file": weights and weights.as_posix(),
            "sha256": weights and sha256(weights),
            "groups": self.groups,
            "patch": config.patch_size,
            "side": self.side,
            "tokenizer": type(self.tokenizer).__name__,
            "device": str(self.device),
        }


# ---- pictures, looked at once ---------------------------------------------------------------


class Features:
    """Pictures after the image tower: to be read in many ways, without being looked at again.

    The one path of inference: of `segment`, of the evaluation of training and of the notebooks.
    """

    def __init__(
        self, segmenter: GroupViTSegmenter, images: Sequence[Image.Image], *, grouped: bool = True
    ) -> None:
        """Pictures of any size and mode; a view is looked at when it is first asked for.

        `grouped=False` leaves the groups out: every patch is a segment of its own, which tells what
        the same weights know without grouping.
        """
        self.segmenter, self.grouped = segmenter, grouped
        runs = [list(run) for _, run in groupby(images, key=lambda image: image.size)]
        self._batches = [run[i : i + _BATCH] for run in runs for i in range(0, len(run), _BATCH)]
        self._views: dict[tuple[int, int, bool], _View] = {}

    @torch.no_grad()
    def read(self, vocabulary: Vocabulary, settings: Settings) -> Iterator[Segmentation]:
        """What is said of each picture, in their order.

        Raises:
            ValueError: a threshold without a background, or words longer than the context.
        """
        if settings.threshold is not None and not vocabulary.has_background:
            raise ArgumentError(
                "threshold",
                f"got {settings.threshold}, but there is no background to give to pixels below it; "
                "give words for the background",
            )
        name = partial(
            name_groups, self.segmenter.model,
            word_emb=self.segmenter.embed(vocabulary.words, settings.templates),  # (W, D)
            top_words=settings.top_words, hard=settings.hard,
            offsets=self._offsets(vocabulary.words, settings),
        )  # fmt: skip
        for number, images in enumerate(self._batches):
            found = self._read_batch(number, vocabulary, name, settings)
            for image, scores, owner, best in zip(images, *found, strict=True):
                yield Segmentation(
                    scores, owner, vocabulary.names, image.size, vocabulary.has_background,
                    settings.threshold, float(best),
                )  # fmt: skip

    def _offsets(self, words: Sequence[str], settings: Settings) -> Tensor:
        """What is added to the logits of words, (W,); 0 without a class that has an offset."""
        found = [settings.offsets.get(class_of(word) or "", 0.0) for word in words]
        return torch.tensor(found, device=self.segmenter.device)

    def _read_batch(
        self, number: int, vocabulary: Vocabulary, name: Callable[..., Scenes], settings: Settings
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean scores of all views (B, K, H, W), refined; owners of the first; best scores (B,)."""
        views = [self._view(number, *view) for view in settings.views()]
        total, owner, best = self._read_view(views[0], vocabulary, name)
        for view in views[1:]:
            scores, _, other = self._read_view(view, vocabulary, partial(name, owned=False))
            best = torch.maximum(best, other)
            total += F.interpolate(scores, total.shape[2:], mode="bilinear")
        mean = total / len(views)
        if not settings.refine:
            return mean, owner, best
        shown = _as_tensor(self._batches[number], (mean.shape[3], mean.shape[2]))
        device = self.segmenter.device
        return refine(mean.to(device), shown.to(device), settings.refine).cpu(), owner, best

    def _read_view(
        self, view: _View, vocabulary: Vocabulary, name: Callable[..., Scenes]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, K, H, W), owners (B, H, W), best scores (B,); not mirrored any more."""
        batch = len(next(iter(view.windows.values())).tok)
        best = torch.zeros(batch)
        canvas = _Canvas((batch, len(vocabulary.names), *view.canvas))
        for corner, groups in view.windows.items():
            seen = name(groups, view.window)
            scores = vocabulary.by_label(seen.scores.transpose(0, 1)).transpose(0, 1)
            canvas.add(scores.cpu(), seen.owner.cpu(), corner)
            of_groups = vocabulary.by_label(seen.group_scores.permute(2, 0, 1))  # (K, B, G)
            best = torch.maximum(best, of_groups[vocabulary.has_background :].amax((0, 2)).cpu())
        scores, owner = canvas.scores / canvas.count, canvas.owner
        if view.mirrored:
            scores, owner = scores.flip(3), owner.flip(2)
        rows, columns = view.size
        return scores[:, :, :rows, :columns], owner[:, :rows, :columns], best

    def _view(self, number: int, scale: float, mirrored: bool) -> _View:
        """One view of a batch, looked at only once."""
        patch = self.segmenter.model.config.patch_size
        side = scaled_side(self.segmenter.side, scale, patch)
        key = number, side, mirrored
        if key not in self._views:
            self._views[key] = self._look(*key)
        return self._views[key]

    def _look(self, number: int, side: int, mirrored: bool) -> _View:
        images, config = self._batches[number], self.segmenter.model.config
        width, height = working_size(images[0].size, side)
        pixels = _as_tensor(images, (width, height))  # (B, 3, height, width)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.image_mean, config.image_std))
        down, right = (
            max(side, math.ceil(n / config.patch_size) * config.patch_size) - n
            for n in (height, width)
        )  # px to add for whole patches, and a window at least
        pixels = F.pad((pixels - mean) / std, (0, right, 0, down), mode="replicate")
        pixels = pixels.flip(3) if mirrored else pixels
        rows, columns = pixels.shape[2:]
        windows = {
            (top, left): self._group(pixels[:, :, top : top + side, left : left + side])
            for top, left in _windows((rows, columns), side)
        }
        return _View(windows, (side, side), (rows, columns), (height, width), mirrored)

    def _group(self, pixels: Tensor) -> Groups:
        """The image tower's groups of windows (B, 3, h, w)."""
        model = self.segmenter.model
        groups = model.group(pixels.to(self.segmenter.device))
        if not self.grouped and groups.patch_tok is not None:
            groups = Groups(model.img_encoder.norm(groups.patch_tok), (), groups.grid)
        return groups._replace(patch_tok=None)  # not needed, and large


@dataclass(frozen=True)
class _View:
    """B pictures as they were looked at: at one scale, mirrored or not."""

    windows: dict[tuple[int, int], Groups]  # top left corner -> groups of B windows
    window: tuple[int, int]  # rows and columns of each
    canvas: tuple[int, int]  # rows and columns of all windows together
    size: tuple[int, int]  # rows and columns that are real; the rest was added
    mirrored: bool


class _Canvas:
    """The sum of overlapping windows, and for every pixel a group of the window it is deepest in.

    Groups of two windows have nothing to do with one another, so they are numbered through.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        """Empty, (B, K, H, W)."""
        batch, _, *size = shape
        self.scores, self.count = torch.zeros(shape), torch.zeros(size)
        self.owner = torch.zeros(batch, *size, dtype=torch.long)
        self.depth = torch.full(size, -1.0)
        self.groups = torch.zeros(batch, 1, 1, dtype=torch.long)

    def add(self, scores: Tensor, owner: Tensor, corner: tuple[int, int]) -> None:
        """Scores (B, K, h, w) and owner (B, h, w) of the windows at `corner`."""
        height, width = owner.shape[1:]
        area = (slice(corner[0], corner[0] + height), slice(corner[1], corner[1] + width))
        self.scores[:, :, *area] += scores
        self.count[area] += 1
        depth = torch.minimum(_from_edge(height)[:, None], _from_edge(width))
        deeper = depth > self.depth[area]
        self.depth[area] = torch.where(deeper, depth, self.depth[area])
        self.owner[:, *area] = torch.where(deeper, owner + self.groups, self.owner[:, *area])
        self.groups += owner.amax(dim=(1, 2), keepdim=True) + 1


# ---- sizes ---------------------------------------------------------------------------------


def scaled_side(side: int, scale: float, patch: int) -> int:
    """`side` times `scale`, to the nearest multiple of the patch, px."""
    return max(1, round(side * scale / patch)) * patch


def working_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height at which a picture of `size` is looked at, in pixels.

    Its shorter side becomes `side`, unless its longer one would exceed `LONGEST` times that.
    """
    scale = min(side / min(size), LONGEST * side / max(size))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def _as_tensor(images: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    """Pictures at a width and height -> (B, 3, height, width), 0 to 1."""
    how = size, Image.Resampling.BICUBIC, None, 3.0  # which leaves what has the size as it is
    found = np.stack([np.asarray(image.convert("RGB").resize(*how)) for image in images])
    return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255


def _windows(size: Sequence[int], window: int) -> Iterator[tuple[int, int]]:
    """Top left corners of windows half a window apart; the last ones end with the picture."""
    rows, columns = (
        sorted({*range(0, max(1, length - window), max(1, window // 2)), max(0, length - window)})
        for length in size
    )
    return ((top, left) for top in rows for left in columns)


def _from_edge(length: int) -> Tensor:
    place = torch.arange(length).float()
    return torch.minimum(place, length - 1 - place)
