"""What a GroupViT of the pasture can do: all numbers of its model card, on scenes never trained on.

Every pixel of 15 classes counts, at the pictures' full resolution. A model is asked in three ways:
plainly, with the names of the classes and the settings of the official evaluation; tuned, with
whatever of synonyms, templates, top words, soft borders, more views and refined scores raised the
mean IoU on val ("cured" in cards); and balanced, with an offset for each class besides, so that no
class is given up for the mean. The command `segment` reads the last one. Test is asked once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cliplab.pasture import CLASS_WORDS as WORDS, SEMANTIC_CLASSES, SPECIES, labels
from cliplab.segmentation import (
    Features,
    GroupViTSegmenter,
    Quality,
    Settings,
    Tally,
    Vocabulary,
    confusion,
    iou_per_class,
    vocabulary,
)
from cliplab.training.groupvit_dataset import PROMPTS, SIZE, picture_of, scene_of

# Consecutive seeds, far from those of training and of other evaluations.
STARTS = {"val": 1_300_000, "test": 1_400_000}
_CHOSEN = ("language", "synonyms", "templates", "top_words", "hard", "scales", "flip", "refine")
_REFINE = (10, 20, 40)  # steps that are tried
_OFFSETS = (1.0, 0.5, 0.5, 0.25)  # by so much the offset of each class is moved, up or down


# ---- pictures and settings -----------------------------------------------------------------


@dataclass(frozen=True)
class LabelledScenes:
    """Pictures and the class of every pixel. Training never sees one of these."""

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


def draw_scenes(split: str, count: int, *, start: int | None = None) -> LabelledScenes:
    """`count` pictures of a split, as training has them: three herds, then a portrait.

    Raises:
        KeyError: a split without seeds for evaluations, such as train.
    """
    start = STARTS[split] if start is None else start
    scenes = [scene_of(seed, split) for seed in range(start, start + count)]
    images = np.stack([picture_of(scene) for scene in scenes])
    truth = np.stack([labels(scene, SIZE).semantic for scene in scenes])
    return LabelledScenes(images, torch.from_numpy(truth))


@dataclass(frozen=True)
class InferenceSettings(Settings):
    """How a model is asked; `tune` finds the best way on val."""

    language: str = "en"
    synonyms: bool = False  # all words for a class, or its name alone

    def words(self) -> Vocabulary:
        """The 15 classes; `names` are words of the language."""
        chosen = WORDS[self.language].values()
        return vocabulary({some[0]: some if self.synonyms else () for some in chosen})

    def as_dict(self) -> dict[str, Any]:
        """What was chosen, plain values for JSON; `InferenceSettings(**row)` reads it."""
        rows = asdict(self)
        chosen = (*_CHOSEN, *(("offsets",) if self.offsets else ()))
        return {k: list(rows[k]) if isinstance(rows[k], tuple) else rows[k] for k in chosen}


def plain(language: str = "en") -> InferenceSettings:
    """Names and the official settings; the template of another language is its own."""
    if language == "en":
        return InferenceSettings()
    return InferenceSettings(language=language, templates=("一张{}的照片",))


def read(
    features: Features, settings: InferenceSettings, words: Vocabulary | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each picture the scores of the labels (K, H, W) and the owners (H, W)."""
    for found in features.read(words or settings.words(), settings):
        yield found.scores, found.owner


# ---- all classes ---------------------------------------------------------------------------


def judge(features: Features, scenes: LabelledScenes, settings: InferenceSettings) -> Quality:
    """Everything about one way to ask: IoU, boundary IoU, oracle IoU, confusion."""
    tally = Tally(SEMANTIC_CLASSES)
    for (scores, owner), true in zip(read(features, settings), scenes.truth, strict=True):
        tally.add(scores.argmax(dim=0), true, owner)
    return tally.result()


def text_ious(features: Features, scenes: LabelledScenes, settings: InferenceSettings) -> Tensor:
    """IoU of each class (K,), which is all that choosing needs."""
    count = len(SEMANTIC_CLASSES)
    total = torch.zeros(count, count, dtype=torch.long)
    for (scores, _), true in zip(read(features, settings), scenes.truth, strict=True):
        total += confusion(scores.argmax(dim=0), true, count)
    return iou_per_class(total)


def tune(
    features: Features, scenes: LabelledScenes, language: str = "en"
) -> tuple[InferenceSettings, list[dict[str, Any]]]:
    """One knob after another, each left where the mean IoU is best.

    The scenes are of val; tuning on test would make its number worthless. -> the settings, and
    what was tried: {"changed", "to", "miou"} in order.
    """
    best = plain(language)
    reached = float(text_ious(features, scenes, best).nanmean())
    tried = [{"changed": "nothing", "to": "plain", "miou": round(reached, 6)}]
    knobs: dict[str, Sequence[Any]] = {
        "top_words": (3, 4, 6, 7, 8, 10, None),
        "templates": (PROMPTS[language],),
        "synonyms": (True,),
        "hard": (False,),
        "flip": (True,),
        "scales": ((1.0, 1.33), (1.0, 1.33, 2.0)),
        "refine": _REFINE,
    }
    for name, value in ((name, value) for name, values in knobs.items() for value in values):
        changed = replace(best, **{name: value})
        miou = float(text_ious(features, scenes, changed).nanmean())
        shown = list(value) if isinstance(value, tuple) else value  # as it is read from JSON
        tried.append({"changed": name, "to": shown, "miou": round(miou, 6)})
        if miou > reached:
            best, reached = changed, miou
    return best, tried


def balance(
    features: Features, scenes: LabelledScenes, settings: InferenceSettings
) -> InferenceSettings:
    """`settings` with an offset for each class, and steps of `refine`, so that none is given up.

    A mean of IoUs lets a rare class go where that helps a common one. Here the geometric mean is
    raised, which a lost class pulls to 0: the offset of one class after another, as if it
    multiplied the class's scores, which is nearly so; then the steps along the edges.

    Source: offsets of logits for rare classes are logit adjustment, arXiv:2007.07314; there they
    come from frequencies, here from `scenes`, of val.
    """
    middle = replace(settings, refine=_REFINE[1])
    seen = torch.stack([scores for scores, _ in read(features, middle)])  # (N, K, H, W)

    def reached(offsets: Tensor) -> float:
        named = (seen * offsets.exp()[:, None, None]).argmax(dim=1)
        return _geometric(iou_per_class(confusion(named, scenes.truth, len(SEMANTIC_CLASSES))))

    offsets = torch.zeros(len(SEMANTIC_CLASSES))
    best = reached(offsets)
    for step in _OFFSETS:
        for move in (*(step * torch.eye(len(offsets))), *(-step * torch.eye(len(offsets)))):
            if (value := reached(offsets + move)) > best:
                best, offsets = value, offsets + move
    offsets -= offsets.mean()  # that of words without a class is 0
    told = dict(zip(SEMANTIC_CLASSES, (round(x, 3) for x in offsets.tolist()), strict=True))
    ways = [replace(settings, offsets=told, refine=n) for n in _REFINE]
    return max(ways, key=lambda how: _geometric(text_ious(features, scenes, how)))


def _geometric(ious: Tensor) -> float:
    """The geometric mean of those that exist."""
    return float(ious[~ious.isnan()].clamp(min=1e-3).log().mean().exp())


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
    features: Features,
    scenes: LabelledScenes,
    settings: InferenceSettings,
    *,
    background: bool,
    thresholds: Sequence[float | None],
) -> list[float]:
    """Mean IoU of background and five species, as `Segmentation` labels them; one a threshold.

    Below a threshold a pixel is background; None: where a word for it fits best. `background`:
    there are words for it, see `animal_words`.
    """
    words = animal_words(settings.language, background=background)
    count = len(words.names)
    totals = [torch.zeros(count, count, dtype=torch.long) for _ in thresholds]
    for found, true in zip(features.read(words, settings), scenes.animals(), strict=True):
        for total, threshold in zip(totals, thresholds, strict=True):
            total += confusion(replace(found, threshold=threshold).labels, true, count)
    return [float(iou_per_class(total).nanmean()) for total in totals]


def judge_animals(
    features: Features, scenes: LabelledScenes, settings: InferenceSettings
) -> Quality:
    """Background and five species, with words for all that is no animal."""
    tally = Tally(("background", *SPECIES))
    words = animal_words(settings.language, background=True)
    for found, true in zip(features.read(words, settings), scenes.animals(), strict=True):
        tally.add(found.labels, true)
    return tally.result()


def choose_threshold(
    features: Features, scenes: LabelledScenes, settings: InferenceSettings, *, background: bool
) -> float | None:
    """The threshold with the best `animal_miou`."""
    grid: list[float | None] = [round(0.05 * k, 2) for k in range(1, 20)]
    grid = [None, *grid] if background else grid
    found = animal_miou(features, scenes, settings, background=background, thresholds=grid)
    rounded = [round(value, 4) for value in found]
    return grid[rounded.index(max(rounded))]


# ---- the card ------------------------------------------------------------------------------


def evaluate(segmenter: GroupViTSegmenter, *, count: int = 200) -> dict[str, Any]:
    """All metrics of a model card, on `count` test pictures; val has three for every eight."""
    val_count = max(2, count * 3 // 8)
    scenes = {"val": draw_scenes("val", val_count), "test": draw_scenes("test", count)}
    features = {split: Features(segmenter, some.pil()) for split, some in scenes.items()}
    if segmenter.model.config.stages:
        features["alone"] = Features(segmenter, scenes["test"].pil(), grouped=False)
    report: dict[str, Any] = {"pictures": count, "val pictures": val_count}
    return report | {language: _rows(features, scenes, language) for language in WORDS}


def _rows(
    features: dict[str, Features], scenes: dict[str, LabelledScenes], language: str
) -> dict[str, Any]:
    """The numbers of one language."""
    settings, tried = tune(features["val"], scenes["val"], language)
    rows: dict[str, Any] = {"reading": settings.as_dict(), "chosen on val": tried}
    for name, how in (("plain", plain(language)), ("cured", settings)):
        quality = judge(features["test"], scenes["test"], how)
        rows[name] = {**quality.as_dict(), "confusions": quality.confusions(8)}
    rows["share of the gap closed"] = gap_closed(rows["plain"], rows["cured"])
    if "alone" in features:
        alone = float(text_ious(features["alone"], scenes["test"], settings).nanmean())
        rows["without its groups"] = round(alone, 4)
    rows["animals"] = {}
    for name, background in (("threshold", False), ("vocabulary", True)):
        how_far = {"background": background}
        best = choose_threshold(features["val"], scenes["val"], settings, **how_far)
        (miou,) = animal_miou(
            features["test"], scenes["test"], settings, thresholds=[best], **how_far
        )
        rows["animals"][name] = {"miou": round(miou, 4), "threshold": best}
    even = balance(features["val"], scenes["val"], settings)
    quality, animals = (
        ask(features["test"], scenes["test"], even) for ask in (judge, judge_animals)
    )
    found = {**quality.as_dict(), "confusions": quality.confusions(8)}
    rows["balanced"] = {"reading": even.as_dict(), **found, "animals": animals.as_dict()}
    return rows


def gap_closed(plain: dict[str, Any], tuned: dict[str, Any]) -> float:
    """How much of the distance from plain text labels to oracle labels tuning covers.

    1: text labels are as good as labels given by the truth; below 0: tuning harms.
    """
    gap = plain["oracle_miou"] - plain["miou"]
    return round((tuned["miou"] - plain["miou"]) / max(gap, 1e-6), 4)
