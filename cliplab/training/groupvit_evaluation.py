"""What a GroupViT of the pasture can do: all numbers of its model card, on scenes never trained on.

Every pixel of 15 classes counts, at the pictures' full resolution. A model is asked in two ways:
*plain*, with the names of the classes and the settings of the official evaluation; and *cured*,
with whatever of synonyms, templates, top words, soft borders, more views and refined scores helped
on val. What the cure is, is chosen on val; test is asked once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliplab.models.groupvit import Groups
from cliplab.pasture import SEMANTIC_CLASSES, SPECIES, labels
from cliplab.pasture.stuff import CLASS_WORDS as WORDS
from cliplab.segmentation import (
    Quality,
    Scenes,
    Segmenter,
    Settings,
    Tally,
    Vocabulary,
    best_labels,
    confusion,
    iou_per_class,
    name_groups,
    refine,
    scaled_side,
    vocabulary,
)
from cliplab.training.groupvit_dataset import PROMPTS, SIZE, picture_of, scene_of
from cliplab.training.pictures import to_pixels

# Consecutive seeds, far from those of training and of other exams.
STARTS = {"val": 1_300_000, "test": 1_400_000}
_BATCH = 25  # pictures at a time


# ---- pictures ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exam:
    """Pictures to be judged on, and the class of every pixel. Training never sees one of these."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    truth: Tensor  # (N, S, S) uint8, into SEMANTIC_CLASSES

    def __len__(self) -> int:
        return len(self.images)

    def pil(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [Image.fromarray(image) for image in self.images]

    def animals(self) -> Tensor:
        """(N, S, S) uint8: 0 background, k + 1 the species k; everything else is background."""
        first = len(SEMANTIC_CLASSES) - len(SPECIES)
        return (self.truth.int() - first + 1).clamp(min=0).to(torch.uint8)


def draw_exam(split: str, count: int, *, start: int | None = None) -> Exam:
    """`count` pictures of a split, as training has them: three herds, then a portrait.

    Raises:
        KeyError: a split without seeds for exams, such as train.
    """
    start = STARTS[split] if start is None else start
    scenes = [scene_of(seed, split) for seed in range(start, start + count)]
    images = np.stack([picture_of(scene) for scene in scenes])
    truth = np.stack([labels(scene, SIZE).semantic for scene in scenes])
    return Exam(images, torch.from_numpy(truth))


# ---- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How a model is asked; `choose` finds the best one on val."""

    language: str = "en"
    synonyms: bool = False  # all words for a class, or its name alone
    templates: tuple[str, ...] = Settings.templates
    top_words: int | None = Settings.top_words
    hard: bool = True
    scales: tuple[float, ...] = (1.0,)  # at which a picture is looked at
    flip: bool = False  # and mirrored
    refine: int = 0  # steps that the averaged scores are refined in

    def words(self) -> Vocabulary:
        """The 15 classes as this reading says them; `names` are words of its language."""
        chosen = WORDS[self.language].values()
        return vocabulary({some[0]: some if self.synonyms else () for some in chosen})

    def settings(self, **changes: Any) -> Settings:
        """The same for `Segmenter.segment`."""
        settings = Settings(
            templates=self.templates, top_words=self.top_words, hard=self.hard,
            scales=self.scales, flip=self.flip, refine=self.refine,
        )  # fmt: skip
        return replace(settings, **changes)


def plain(language: str = "en") -> Reading:
    """Names and the official settings; the template of another language is its own."""
    if language == "en":
        return Reading()
    return Reading(language=language, templates=("一张{}的照片",))


class Seen:
    """Pictures after the image tower: to be read in many ways, without being looked at again.

    `grouped=False` leaves the groups out: every patch is a segment of its own, as the patch losses
    of training have it. What the same weights know without grouping.
    """

    def __init__(
        self, segmenter: Segmenter, images: NDArray[np.uint8], *, grouped: bool = True
    ) -> None:
        self.segmenter, self.images, self.grouped = segmenter, images, grouped
        self.size = images.shape[1], images.shape[2]
        self._views: dict[tuple[float, bool], list[Groups]] = {}

    def read(self, reading: Reading, words: Vocabulary | None = None) -> Iterator[tuple]:
        """For each picture the scores of the labels (K, H, W) and the owners (H, W)."""
        words = words or reading.words()
        word_emb = self.segmenter.embed(words.words, reading.templates)
        views = [(self._view(*view), view[1]) for view in reading.settings().views()]
        for batch in range(len(views[0][0])):
            found = [
                self._named(view[batch], word_emb, reading, flip, owned=not number)
                for number, (view, flip) in enumerate(views)  # the first has its owners read
            ]
            scores = torch.stack([one.scores for one in found]).mean(dim=0)  # (B, W, H, W)
            labelled = words.by_label(scores.transpose(0, 1)).transpose(0, 1)  # (B, K, H, W)
            refined = refine(labelled, self._shown(batch).to(labelled), reading.refine)
            yield from zip(refined.cpu(), found[0].owner.cpu(), strict=True)

    def _shown(self, batch: int) -> Tensor:
        """The pictures of a batch as they are, (B, 3, H, W), 0 to 1."""
        part = self.images[batch * _BATCH : (batch + 1) * _BATCH]
        return torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255

    def _named(
        self, groups: Groups, word_emb: Tensor, reading: Reading, flipped: bool, *, owned: bool
    ) -> Scenes:
        patch = self.segmenter.model.config.patch_size
        seen = groups.grid[0] * patch, groups.grid[1] * patch
        found = name_groups(
            self.segmenter.model, groups, seen, word_emb,
            top_words=reading.top_words, hard=reading.hard, owned=owned,
        )  # fmt: skip
        scores = found.scores.flip(3) if flipped else found.scores
        if seen != self.size:
            scores = F.interpolate(scores, self.size, mode="bilinear")
        return found._replace(scores=scores)

    def _view(self, scale: float, flipped: bool) -> list[Groups]:
        """The image tower's groups of all pictures at one scale, a batch each."""
        if (scale, flipped) not in self._views:
            parts = range(0, len(self.images), _BATCH)
            self._views[scale, flipped] = [self._look(i, scale, flipped) for i in parts]
        return self._views[scale, flipped]

    @torch.no_grad()
    def _look(self, begin: int, scale: float, flipped: bool) -> Groups:
        model = self.segmenter.model
        config = model.config
        part = self.images[begin : begin + _BATCH]
        pixels = to_pixels(part, config.image_mean, config.image_std)
        if scale != 1:
            size = [scaled_side(length, scale, config.patch_size) for length in self.size]
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
        pixels = pixels.flip(3) if flipped else pixels
        groups = model.group(pixels.to(self.segmenter.device))
        if not self.grouped and groups.patch_tok is not None:
            groups = Groups(model.img_encoder.norm(groups.patch_tok), (), groups.grid)
        return groups._replace(patch_tok=None)  # not needed, and large


def judge(seen: Seen, exam: Exam, reading: Reading) -> Quality:
    """Everything about one reading: IoU, boundary IoU, oracle IoU, confusion."""
    tally = Tally(SEMANTIC_CLASSES)
    for (scores, owner), true in zip(seen.read(reading), exam.truth, strict=True):
        tally.add(scores.argmax(dim=0), true, owner)
    return tally.result()


def text_miou(seen: Seen, exam: Exam, reading: Reading) -> float:
    """Mean IoU only, which is all that choosing needs."""
    count = len(SEMANTIC_CLASSES)
    total = torch.zeros(count, count, dtype=torch.long)
    for (scores, _), true in zip(seen.read(reading), exam.truth, strict=True):
        total += confusion(scores.argmax(dim=0), true, count)
    return float(iou_per_class(total).nanmean())


def choose(seen: Seen, exam: Exam, language: str = "en") -> tuple[Reading, list[dict[str, Any]]]:
    """The cure: one knob after another, each left where the mean IoU is best on `exam`.

    Args:
        seen: pictures of val; choosing on test would make its number worthless.
        exam: the same pictures.
        language: of the words.

    Returns:
        The reading, and what was tried: {"changed", "to", "miou"} in order.
    """
    best = plain(language)
    reached = text_miou(seen, exam, best)
    tried = [{"changed": "nothing", "to": "plain", "miou": round(reached, 4)}]
    knobs: dict[str, Sequence[Any]] = {
        "top_words": (3, 4, 6, 7, 8, 10, None),
        "templates": (PROMPTS[language],),
        "synonyms": (True,),
        "hard": (False,),
        "flip": (True,),
        "scales": ((1.0, 1.33), (1.0, 1.33, 2.0)),
        "refine": (10, 20, 40),
    }
    for name, values in knobs.items():
        for value in values:
            reading = replace(best, **{name: value})
            miou = text_miou(seen, exam, reading)
            shown = list(value) if isinstance(value, tuple) else value  # as it is read from JSON
            tried.append({"changed": name, "to": shown, "miou": round(miou, 4)})
            if miou > reached:
                best, reached = reading, miou
    return best, tried


# ---- only the animals ----------------------------------------------------------------------


def animal_words(language: str = "en", *, background: bool) -> Vocabulary:
    """Five species and the background: by threshold alone, or with words for all that is not one.

    This is where GroupViT fails on photos: whoever knows five words must call a tree one of them.
    """
    table = WORDS[language]
    species = {table[name][0]: table[name] for name in SPECIES}
    others = [word for name in SEMANTIC_CLASSES if name not in SPECIES for word in table[name]]
    return vocabulary(species, background=others if background else ())


def animal_miou(
    seen: Seen,
    exam: Exam,
    reading: Reading,
    *,
    background: bool,
    thresholds: Sequence[float | None],
) -> list[float]:
    """Mean IoU of background and five species, as `Segmentation` labels them; one a threshold.

    Args:
        seen: the pictures of `exam`.
        exam: where the animals are.
        reading: words, templates and the rest.
        background: with words for it, see `animal_words`.
        thresholds: below which a pixel is background; None: where a word for it fits best.
    """
    words = animal_words(reading.language, background=background)
    count = len(words.names)
    totals = [torch.zeros(count, count, dtype=torch.long) for _ in thresholds]
    for (scores, _), true in zip(seen.read(reading, words), exam.animals(), strict=True):
        best, sure = best_labels(scores, None), scores[1:].amax(dim=0)  # (H, W)
        for total, threshold in zip(totals, thresholds, strict=True):
            lowest = min(0.0 if threshold is None else threshold, float(sure.max()))
            total += confusion(torch.where(sure < lowest, 0, best), true, count)
    return [float(iou_per_class(total).nanmean()) for total in totals]


def choose_threshold(
    seen: Seen, exam: Exam, reading: Reading, *, background: bool
) -> tuple[float | None, dict[float | None, float]]:
    """The threshold with the best `animal_miou`, and the whole sweep."""
    grid: list[float | None] = [round(0.05 * k, 2) for k in range(1, 20)]
    grid = [None, *grid] if background else grid
    found = animal_miou(seen, exam, reading, background=background, thresholds=grid)
    swept = dict(zip(grid, (round(value, 4) for value in found), strict=True))
    return max(grid, key=lambda threshold: swept[threshold]), swept


# ---- the card ------------------------------------------------------------------------------


def evaluate(
    segmenter: Segmenter, *, count: int = 200, val_count: int | None = None
) -> dict[str, Any]:
    """All metrics of a model card.

    Args:
        segmenter: the model, from its file.
        count: test pictures.
        val_count: val pictures, for choosing; None: three for every eight of test.
    """
    val_count = max(2, count * 3 // 8) if val_count is None else val_count
    exams = {"val": draw_exam("val", val_count), "test": draw_exam("test", count)}
    seen = {split: Seen(segmenter, exam.images) for split, exam in exams.items()}
    alone = None
    if segmenter.model.config.stages:
        alone = Seen(segmenter, exams["test"].images, grouped=False)
    report: dict[str, Any] = {"pictures": count, "val pictures": val_count}
    for language in WORDS:
        reading, tried = choose(seen["val"], exams["val"], language)
        rows: dict[str, Any] = {"reading": _plain_dict(reading), "chosen on val": tried}
        for name, how in (("plain", plain(language)), ("cured", reading)):
            quality = judge(seen["test"], exams["test"], how)
            rows[name] = {**quality.as_dict(), "confusions": quality.confusions(8)}
        rows["share of the gap closed"] = gap_closed(rows["plain"], rows["cured"])
        if alone is not None:
            rows["without its groups"] = round(text_miou(alone, exams["test"], reading), 4)
        rows["animals"] = _animals(seen, exams, reading)
        report[language] = rows
    return report


def gap_closed(plain: dict[str, Any], cured: dict[str, Any]) -> float:
    """How much of the distance from plain text labels to oracle labels a cure covers.

    1: text labels are as good as labels given by the truth; below 0: the cure harms.
    """
    gap = plain["oracle_miou"] - plain["miou"]
    return round((cured["miou"] - plain["miou"]) / max(gap, 1e-6), 4)


def _animals(
    seen: dict[str, Seen], exams: dict[str, Exam], reading: Reading
) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, background in (("threshold", False), ("vocabulary", True)):
        best, _ = choose_threshold(seen["val"], exams["val"], reading, background=background)
        (miou,) = animal_miou(
            seen["test"], exams["test"], reading, background=background, thresholds=[best]
        )
        rows[name] = {"miou": round(miou, 4), "threshold": best}
    return rows


def reading_of(row: dict[str, Any]) -> Reading:
    """The reading that a model card writes down under "reading"."""
    lists = {name: tuple(row[name]) for name in ("templates", "scales")}
    return Reading(**{**row, **lists})


def _plain_dict(reading: Reading) -> dict[str, Any]:
    return {
        "language": reading.language,
        "synonyms": reading.synonyms,
        "templates": list(reading.templates),
        "top_words": reading.top_words,
        "hard": reading.hard,
        "scales": list(reading.scales),
        "flip": reading.flip,
        "refine": reading.refine,
    }
