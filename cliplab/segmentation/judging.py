"""Answers in numbers, and against what is known of the pixels: masks of users, as labels.

A source has classes of its own. A pixel of a class that nobody asked for, or of none, is background
where there is a background, and is not judged where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cliplab.classification import fold, is_nothing
from cliplab.data import (
    Masks,
    Problem,
    ProblemKind,
    Sample,
    SampleSet,
    read_pictures,
    resized,
    shown,
    some,
    within,
)
from cliplab.segmentation.quality import IGNORE, Quality, Tally
from cliplab.segmentation.scene import Segmentation
from cliplab.segmentation.settings import Vocabulary

NAMES = "classes.txt"  # of label PNGs: one name a line, the first is number 0
LABELS, OVERLAY = "_labels.png", "_overlay.png"  # what the files of a picture end with
MOST_PIXELS = 2**20  # of a picture that is judged; larger ones are judged smaller, with their truth


# ---- where masks come from -----------------------------------------------------------------


def without_labels(pictures: SampleSet) -> SampleSet:
    """Without the label PNGs that lie beside their pictures."""
    stems = {str(one.path.with_suffix("")) for one in pictures}
    beside = {stem + LABELS for stem in stems}
    kept = tuple(one for one in pictures if str(one.path) not in beside)
    return replace(pictures, samples=kept)


def read_truth(pictures: SampleSet, truth: Path | None = None) -> tuple[SampleSet, list[str]]:
    """The same pictures with the masks that are known of them, and what was assumed.

    Args:
        pictures: of `read_pictures`.
        truth: a COCO JSON, or a folder of label PNGs and `classes.txt`; None: the masks of the
            source itself, or label PNGs beside the pictures.

    Raises:
        FileNotFoundError, ValueError: no such truth, or of none of the pictures.
    """
    told, notes = pictures, list[str]()
    if truth is not None and not truth.is_dir():
        told = read_pictures(truth, kind="coco", images=pictures.root)
    masks = {one.path.resolve(): one.masks for one in told if one.masks}
    if told is pictures and (truth is not None or not masks):
        masks = _label_pngs(pictures, truth)
    elif told.are_answers:
        notes.append("the masks have scores, so a model drew them: nothing is judged by them")
        masks = {}
    if truth is not None and not masks and not notes:
        raise ValueError(
            f"{shown(truth)}: nothing about any of the {len(pictures)} pictures of "
            f"{shown(pictures.root)}; expected NAME.png or NAME{LABELS} of the same name, or a "
            "COCO JSON with masks"
        )
    known = tuple(replace(one, masks=masks.get(one.path.resolve())) for one in pictures)
    return replace(pictures, samples=known), notes


def _label_pngs(pictures: SampleSet, truth: Path | None) -> dict[Path, Masks]:
    """Label PNGs of the same names, beside the pictures or in a folder of their own."""
    found = dict[Path, Path]()
    for one in pictures:
        beside = [one.path.with_name(one.path.stem + LABELS)]
        places = _places(truth, one.name) if truth else beside
        found |= {one.path.resolve(): p for p in places[::-1] if p.is_file() and p != one.path}
    names = _read_names(truth or pictures.root) if found else ()
    return {path: Masks(names, png=png) for path, png in found.items()}


def _places(folder: Path, name: str) -> list[Path]:
    """Candidates for the picture `name`, in the same sub-folder or in none."""
    whole = within(name).with_suffix("")
    stems = [folder / whole, folder / whole.name]
    return [stem.with_name(stem.name + end) for stem in stems for end in (LABELS, ".png")]


def _read_names(folder: Path) -> tuple[str, ...]:
    """Lines of classes.txt: what the numbers of label PNGs mean.

    Raises:
        FileNotFoundError, ValueError: not there or not UTF-8, an empty line, or a name twice.
    """
    path = folder / NAMES
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown(path)}: no such file; expected the names of the numbers in label PNGs, one a "
            "line, the first for 0"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}: not UTF-8 ({error}); save it as UTF-8") from error
    names = tuple(map(str.strip, lines))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(
            f"{shown(path)}: got an empty line or a name twice; expected one name a line, the "
            "first of which is number 0"
        )
    return names


# ---- what they mean for the labels ---------------------------------------------------------


def match_classes(vocabulary: Vocabulary, names: Sequence[str]) -> dict[str, int]:
    """Class of a source -> the label that means it, by name or else by one of its words."""
    first = int(vocabulary.has_background)
    pairs = zip(vocabulary.words, vocabulary.label_of, strict=True)
    index = {fold(word): k for word, k in pairs if k >= first}
    index |= {fold(name): k for k, name in enumerate(vocabulary.names) if k >= first}
    if vocabulary.has_background:
        index |= {fold(name): 0 for name in names if is_nothing(name)}
    return {name: index[fold(name)] for name in names if fold(name) in index}


def compare_classes(vocabulary: Vocabulary, names: Sequence[str]) -> tuple[bool, str]:
    """Whether masks of classes `names` can judge the labels, and what is to be said about it."""
    asked = match_classes(vocabulary, names)
    if not any(k >= vocabulary.has_background for k in asked.values()):
        return False, (
            f"not judged: none of the labels is a class of the masks ({some(names, 6)}); name "
            f"them as they are called, as in {names[0]}=WORD"
        )
    how = "are left out, and so are pixels without a mask"
    how = "count as background" if vocabulary.has_background else how
    left = some([name for name in names if name not in asked], 6)
    others = f"; pixels of {left} were not asked for and {how}" if left else ""
    return True, f"masks are known, by which the answer is judged{others}"


def true_labels(
    masks: Masks, path: Path, vocabulary: Vocabulary, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Masks of the picture at `path` -> labels at a width and height, IGNORE where nothing is said.

    Raises:
        UnreadableImage, ValueError: as `Masks.draw`; or a number that is no class.
    """
    table = _table(masks.names, vocabulary)
    found = masks.draw(path, size)
    if int(found.max()) >= len(table) - 2:
        raise ValueError(
            f"number {int(found.max())} is no class; expected less than {len(table) - 2}, or "
            f"{IGNORE} for what is not judged"
        )
    return table[found]


def _table(names: Sequence[str], vocabulary: Vocabulary) -> NDArray[np.uint8]:
    """Number of a class -> label; the last two are for -2, not judged, and -1, in no mask."""
    other = 0 if vocabulary.has_background else IGNORE
    asked = match_classes(vocabulary, names)
    return np.array([*(asked.get(name, other) for name in names), IGNORE, other], np.uint8)


# ---- judging -------------------------------------------------------------------------------


class Judge:
    """Judges one picture after the other; `quality` is that of all."""

    def __init__(self, names: Sequence[str], vocabulary: Vocabulary) -> None:
        """`names`: classes of the masks."""
        known = {int(k) for k in _table(names, vocabulary)[:-2]} - {IGNORE}
        known |= {0} if vocabulary.has_background else set()
        self.vocabulary, self.known = vocabulary, known
        self.pictures: dict[Path, float] = {}  # mean IoU of each that was judged
        self.refused: list[Problem] = []  # pictures whose truth does not fit, and why
        self._total: Tally | None = None  # of all that were judged

    def add(
        self, sample: Sample, found: Segmentation, labels: NDArray[np.uint8]
    ) -> NDArray[np.uint8] | None:
        """Judge a picture, of which `labels` (height, width) are -> its truth as labels.

        At most MOST_PIXELS large; None if no masks are known, or if they do not fit.
        """
        path, masks = sample.path, sample.masks
        if masks is None:
            return None
        size = judged_size(found.size)
        try:
            true = true_labels(masks, path, self.vocabulary, size)
        except ValueError as error:  # of which UnreadableImage is one
            self.refused.append(Problem(ProblemKind.NOT_JUDGED, (shown(path),), str(error)))
            return None
        predicted = torch.from_numpy(labels) if size == found.size else found.labels_at(size)
        owner = torch.from_numpy(resized(found.owner.numpy(), size))
        one = Tally(self.vocabulary.names, known=self.known)
        one.add(predicted, torch.from_numpy(true), owner)
        if one.named.any():
            self.pictures[path] = one.result().miou
            if self._total:
                self._total.include(one)
            else:
                self._total = one
        return true

    @property
    def quality(self) -> Quality | None:
        """The numbers of all pictures; None if nothing was known of any."""
        return self._total.result() if self._total else None

    def as_dict(self) -> dict[str, Any] | None:
        """Plain values for JSON; None if nothing was judged."""
        if (quality := self.quality) is None:
            return None
        return {
            "pictures": len(self.pictures),
            **{k: None if v is None else round(v, 4) for k, v in quality.means().items()},
            "confused": [
                {"true": true, "called": called, "share": round(share, 4)}
                for true, called, share in quality.confusions(10)
            ],
            "confusion": {"names": list(quality.names), "pixels": quality.confusion.tolist()},
        }


def judged_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a picture is judged: its own, unless that is very large."""
    scale = min(1.0, math.sqrt(MOST_PIXELS / (size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


# ---- rows of numbers ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PictureRow:
    """One picture that was labelled."""

    path: Path
    name: str  # for people and files
    size: tuple[int, int]  # width and height
    groups: int  # that own a pixel, in all windows together
    shares: tuple[float, ...]  # K, of its pixels

    @classmethod
    def of(cls, sample: Sample, found: Segmentation, labels: NDArray[np.uint8]) -> PictureRow:
        """What was found in a picture, of which `labels` (height, width) are."""
        shares, groups = label_shares(labels, len(found.names)), len(found.owner.unique())
        return cls(sample.path, sample.name, found.size, groups, tuple(shares.tolist()))

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain values for JSON; shares of the labels that occur."""
        shares = {name: round(x, 5) for name, x in zip(names, self.shares, strict=True) if x > 0}
        width, height = self.size
        head = {"file": self.name, "width": width, "height": height, "groups": self.groups}
        return head | {"shares": shares}


@dataclass(frozen=True)
class LabelRow:
    """One label in all pictures."""

    index: int  # in label PNGs
    name: str
    words: tuple[str, ...]
    colour: str  # "#RRGGBB"
    share: float  # of the pixels of all pictures
    pictures: int  # with a pixel of it
    true_share: float | None = None  # of the judged pixels, None if nothing is known
    iou: float | None = None
    oracle_iou: float | None = None
    boundary_iou: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fractions with 4 decimals."""
        plain = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}


def label_rows(
    vocabulary: Vocabulary,
    colours: Sequence[str],
    pictures: Sequence[PictureRow],
    quality: Quality | None,
) -> list[LabelRow]:
    """A row for each of K labels, of which `colours` are "#RRGGBB"; at least one picture."""
    shares = np.array([one.shares for one in pictures])  # (N, K)
    pixels = [one.size[0] * one.size[1] for one in pictures]
    whole = np.average(shares, axis=0, weights=pixels)  # (K,)
    return [
        LabelRow(
            k, name, vocabulary.words_of(k), colours[k], float(whole[k]),
            int((shares[:, k] > 0).sum()), **(quality.of(k) if quality else {}),
        )
        for k, name in enumerate(vocabulary.names)
    ]  # fmt: skip


def label_shares(labels: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Shares of the pixels of each of K labels, (H, W) -> (K,)."""
    return np.array(Image.fromarray(labels).histogram()[:count]) / labels.size


def percent(share: float) -> str:
    """A share of a picture for people: "12%", and "<1%" for what is there but rounds to nothing."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
