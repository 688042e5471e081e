"""Pictures of any size, looked at once and then asked about in many ways, in bounded memory.

A picture is brought to a working size, looked at through square windows that overlap, and the
windows' scores are averaged. Only the shape of the picture decides how much memory that takes: its
longer side counts for at most `LONGEST` times the shorter one.

Letters: B pictures of one size, K labels, H W pixels as looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.models.groupvit import Groups
from cliplab.segmentation.result import Segmentation, Segmenter, check_threshold
from cliplab.segmentation.scene import name_groups, refine
from cliplab.segmentation.settings import Settings, Vocabulary

LONGEST = 4  # times the shorter side; longer pictures are seen smaller
_BATCH = 25  # pictures of one size at a time


class Features:
    """Pictures after the image tower: to be read in many ways, without being looked at again.

    The one path of inference: `Segmenter.segment`, the evaluation of training and the notebooks.
    """

    def __init__(
        self, segmenter: Segmenter, images: Sequence[Image.Image], *, grouped: bool = True
    ) -> None:
        """Pictures of any size and mode; a view is looked at when it is first asked for.

        `grouped=False` leaves the groups out: every patch is a segment of its own, which tells what
        the same weights know without grouping.
        """
        self.segmenter, self.grouped = segmenter, grouped
        runs = [list(run) for _, run in groupby(images, key=lambda image: image.size)]
        self._batches = [run[i : i + _BATCH] for run in runs for i in range(0, len(run), _BATCH)]
        self._views: dict[tuple[int, int, bool, bool], _View] = {}

    @torch.no_grad()
    def read(self, vocabulary: Vocabulary, settings: Settings) -> Iterator[Segmentation]:
        """What is said of each picture, in their order.

        Raises:
            ValueError: a side that is no multiple of the patch, a threshold without a background,
                or words longer than the context.
        """
        check_threshold(settings.threshold, has_background=vocabulary.has_background)
        word_emb = self.segmenter.embed(vocabulary.words, settings.templates)  # (W, D)
        for number, images in enumerate(self._batches):
            scores, owner = self._read_batch(number, vocabulary, word_emb, settings)
            for image, one, groups in zip(images, scores, owner, strict=True):
                yield Segmentation(
                    one, groups, vocabulary.names, image.size, vocabulary.has_background,
                    settings.threshold,
                )  # fmt: skip

    def _read_batch(
        self, number: int, vocabulary: Vocabulary, word_emb: Tensor, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """Mean scores of all views (B, K, H, W), refined; owners (B, H, W) of the first."""
        views = [self._view(number, settings, *view) for view in settings.views()]
        total, owner = self._read_view(views[0], vocabulary, word_emb, settings)
        for view in views[1:]:
            scores, _ = self._read_view(view, vocabulary, word_emb, settings, owned=False)
            total += F.interpolate(scores, total.shape[2:], mode="bilinear")
        mean = total / len(views)
        if not settings.refine:
            return mean, owner
        shown = _as_tensor(self._batches[number], (mean.shape[3], mean.shape[2]))
        device = self.segmenter.device
        return refine(mean.to(device), shown.to(device), settings.refine).cpu(), owner

    def _read_view(
        self, view: _View, vocabulary: Vocabulary, word_emb: Tensor, settings: Settings,
        owned: bool = True,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Scores (B, K, H, W) and owners (B, H, W) of one view, turned back if it is mirrored."""
        batch = len(next(iter(view.windows.values())).tok)
        canvas = _Canvas((batch, len(vocabulary.names), *view.canvas))
        for corner, groups in view.windows.items():
            seen = name_groups(
                self.segmenter.model, groups, view.window, word_emb,
                top_words=settings.top_words, hard=settings.hard, owned=owned,
            )  # fmt: skip
            scores = vocabulary.by_label(seen.scores.transpose(0, 1)).transpose(0, 1)
            canvas.add(scores.cpu(), seen.owner.cpu(), corner)
        scores, owner = canvas.scores / canvas.count, canvas.owner
        if view.mirrored:
            scores, owner = scores.flip(3), owner.flip(2)
        rows, columns = view.size
        return scores[:, :, :rows, :columns], owner[:, :rows, :columns]

    def _view(self, number: int, settings: Settings, scale: float, mirrored: bool) -> _View:
        """One view of a batch, looked at only once."""
        patch = self.segmenter.model.config.patch_size
        side = scaled_side(self.segmenter.side(settings), scale, patch)
        key = number, side, settings.slide, mirrored
        if key not in self._views:
            self._views[key] = self._look(*key)
        return self._views[key]

    def _look(self, number: int, side: int, slide: bool, mirrored: bool) -> _View:
        images, config = self._batches[number], self.segmenter.model.config
        width, height = working_size(images[0].size, side)
        pixels = _as_tensor(images, (width, height))  # (B, 3, height, width)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.image_mean, config.image_std))
        least = side if slide else config.patch_size
        down, right = (
            max(least, math.ceil(n / config.patch_size) * config.patch_size) - n
            for n in (height, width)
        )  # px to add for whole patches, and a window at least
        pixels = F.pad((pixels - mean) / std, (0, right, 0, down), mode="replicate")
        pixels = pixels.flip(3) if mirrored else pixels
        rows, columns = pixels.shape[2:]
        window = side if slide else max(rows, columns)
        windows = {
            (top, left): self._group(pixels[:, :, top : top + window, left : left + window])
            for top, left in _windows((rows, columns), window)
        }
        seen = min(window, rows), min(window, columns)
        return _View(windows, seen, (rows, columns), (height, width), mirrored)

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
    found = []
    for image in images:
        rgb = image.convert("RGB")
        if rgb.size != size:
            rgb = rgb.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
        found.append(flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1).float() / 255)
    return torch.stack(found)


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
