"""ViLD as a detector: pictures of any size, classes in the words of the teacher it learned from.

Letters: R regions, K classes, D embedding, H W pixels.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cliplab.classification import Classes, fold, is_chinese
from cliplab.data import shown, some
from cliplab.detection.boxes import Detections, clip_boxes, name_boxes
from cliplab.detection.settings import MOST, OVERLAP, PUBLISHED, WEIGHTS, Settings
from cliplab.detection.words import Query, Words, as_classes, embed_words, unlearned_words
from cliplab.encoders import LOADERS, Encoder
from cliplab.models.vild import HEADS, Contest, Regions, ViLD, class_scores, load_vild
from cliplab.runtime import (
    ArgumentError,
    checkpoint_dir,
    pick_device,
    sha256,
    unknown_name,
    verify_checkpoint,
)

_LONGEST = 8  # times its height that a picture may be wide, or else it is made smaller
_INSTEAD = {
    "vild": "name boxes that you have: the model crops with boxes of a file",
    "glip": f"load a published one, {PUBLISHED[0]}:PATH",
}


# ---- pictures and regions ------------------------------------------------------------------


def to_pixels(image: Image.Image, height: int) -> Tensor:
    """A picture of any size, `height` px high and its aspect kept -> (1, 3, H, W) in [0, 1].

    A very wide one is made so small that it is at most 8 times as wide as `height`.
    """
    scale = min(height / image.height, _LONGEST * height / image.width)
    size = [max(1, round(side * scale)) for side in image.size]
    small = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255


def _ratios(pixels: Tensor, image: Image.Image) -> Tensor:
    """What pixels of the picture are multiplied by to be those of `pixels`, (4,) for xyxy."""
    return torch.tensor([pixels.shape[-1] / image.width, pixels.shape[-2] / image.height] * 2)


def inside(boxes_xyxy: Tensor, image: Image.Image) -> Tensor:
    """Boxes cut off at the frame (R, 4); those of which nothing is left are dropped."""
    clipped, left = clip_boxes(boxes_xyxy.float(), image.size)
    return clipped[left]


@torch.no_grad()
def propose(model: ViLD, image: Image.Image) -> tuple[Tensor, Tensor]:
    """Boxes that may hold something (R, 4) px of the picture, and their objectness (R,), 0 to 1."""
    pixels = to_pixels(image, model.config.height)
    maps, size = model.maps(pixels.to(model.background_emb.device))
    (boxes,), (objectness,), _ = model.propose(maps, size)
    found = boxes.cpu() / _ratios(pixels, image)
    solid = (found[:, 2:] > found[:, :2]).all(1)
    return found[solid], objectness.cpu()[solid]


def name_regions(
    model: ViLD, regions: Regions, text_emb: Tensor, base: Tensor, phrases: Sequence[str], *,
    head: str = "ensemble", iou: float | None = OVERLAP, top: int = MOST,
    contest: Contest | None = None,
) -> Detections:  # fmt: skip
    """The regions of a picture under the names of K classes, best first.

    Args:
        text_emb: (K, D) unit rows of the teacher's text tower; (M, D) with a contest.
        base: (K,) bool, classes that had boxes in training.
        head: of `cliplab.models.vild.HEADS`.
        iou: of suppression within each class; None: each region stays, under its best name.
        contest: of `cliplab.models.vild.class_scores`.
    """
    scores = class_scores(model, regions, text_emb, base, head=head, contest=contest).cpu()
    return name_boxes(regions.boxes_xyxy.cpu(), scores, phrases, iou=iou, top=top)


# ---- what excludes what --------------------------------------------------------------------


def contest_of(prompts: Sequence[str], known: Sequence[str] = ()) -> Contest:
    """What counts for and against K labels, by their words; M texts: `prompts`, then `known`.

    A label with more words is a kind of one with fewer: "black sheep" says nothing against "sheep",
    and must beat it to be more than that. Kinds that the detector knows speak, too, though nobody
    asks for them: "sheep eating" for "sheep", "cow eating" against "sheep" and "sheep standing",
    and neither for nor against "black sheep", which may stand or eat.
    """
    asked, kinds = [_words(text) for text in prompts], [_words(text) for text in known]
    read = frozenset[str]().union(*kinds)  # words that the detector knows kinds by
    own, rivals = [], []
    for k, label in enumerate(asked):
        said = label & read
        own.append([m == k for m in range(len(asked))] + [label <= kind for kind in kinds])
        rivals.append([m != k and not label < other for m, other in enumerate(asked)])
        rivals[k] += [bool(said) and not said <= kind for kind in kinds]
    return Contest(torch.tensor(own), torch.tensor(rivals))


def nested(contest: Contest) -> Tensor:
    """(K, K) bool: pairs of labels of which one is a kind of the other: a box may be both."""
    both = contest.rivals[:, : len(contest.rivals)]
    return ~(both & both.T | torch.eye(len(both), dtype=torch.bool))


def _words(text: str) -> frozenset[str]:
    """Words of a label, without articles and endings of plurals; Chinese ones are apart by 的."""
    found = re.findall(r"[^\W_]+", fold(text).replace("的", " "))
    return frozenset(w[:-1] if re.search("[^s]s$", w) else w for w in found) - {"a", "an", "the"}


# ---- the detector --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class ViLDQuery(Query):
    """K classes in the words of the teacher."""

    text_emb: Tensor  # (M, D) unit rows: the classes, then kinds that they are compared with
    contest: Contest
    base: Tensor  # (K,) bool: had boxes in training
    head: str  # of HEADS


@dataclass(eq=False)
class ViLDDetector:
    """A ViLD and its teacher; see `Detector`."""

    model: ViLD
    teacher: Encoder
    settings: Settings = field(default_factory=Settings)
    card: Mapping[str, Any] = field(default_factory=dict)  # what its model card says
    source: Mapping[str, Any] = field(default_factory=dict)  # path, hash
    pictures: int = 1

    def __post_init__(self) -> None:
        """Refuse an unknown head before words are read, whose errors bear another name."""
        self._head(single=True)

    @property
    def name(self) -> str:
        """For people: the model, and which head answers."""
        return f"ViLD ({self.settings.head or 'ensemble'})" if self.model.image_head else "ViLD"

    def read(self, prompts: Words) -> ViLDQuery:
        """See `Detector.read`.

        Raises:
            ValueError: an unknown head, or base and novel labels that are not looked for.
        """
        if isinstance(prompts, ViLDQuery):
            return prompts
        classes, device = as_classes(prompts), self.model.background_emb.device
        base, on_base = base_flags(classes, self.card, self.settings)
        kinds = self._kinds(classes.prompts)
        texts = (*classes.prompts, *kinds)
        head = self._head(single=len(classes.names) == 1)
        text_emb, unread = embed_words(self.teacher, Classes(texts, texts), self.settings)
        said = [*unread, *self._on_chinese(classes)] if unread else []
        contest = contest_of(classes.prompts, kinds)
        groups = {
            group: tuple(k for k, flag in enumerate(base.tolist()) if flag is kind)
            for group, kind in (("base", True), ("novel", False))
        }
        return ViLDQuery(
            classes=classes,
            groups={group: ks for group, ks in groups.items() if ks},
            notes=list(self._notes(classes, head, on_base, kinds)),
            remarks=[*said, *unlearned_words(classes.prompts, self.card)],
            nested=nested(contest),
            threshold=self.card.get("thresholds", {}).get(f"en, {head}", {}),
            text_emb=text_emb.to(device),
            contest=contest,
            base=base.to(device),
            head=head,
        )

    def detect(
        self, images: Iterable[Image.Image], prompts: Words,
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Detections]:  # fmt: skip
        """See `Detector.detect`."""
        query = self.read(prompts)
        pairs = zip(images, repeat(None) if boxes is None else boxes, strict=False)
        return [self._one(image, query, given) for image, given in pairs]

    def _one(self, image: Image.Image, query: ViLDQuery, boxes_xyxy: Tensor | None) -> Detections:
        pixels, device = to_pixels(image, self.model.config.height), query.base.device
        ratios, given = _ratios(pixels, image), None
        if boxes_xyxy is not None:
            boxes_xyxy = inside(boxes_xyxy, image)
            given = [(boxes_xyxy * ratios).to(device)]
        regions = self.model(pixels.to(device), given)[0]
        found = regions.boxes_xyxy.cpu() / ratios if boxes_xyxy is None else boxes_xyxy
        return name_regions(
            self.model, regions._replace(boxes_xyxy=found), query.text_emb, query.base,
            query.classes.names, head=query.head, top=self.settings.most, contest=query.contest,
            iou=self.settings.cut(given=given is not None).overlap,
        )  # fmt: skip

    def describe(self, prompts: Words) -> dict[str, Any]:
        """See `Detector.describe`."""
        query = self.read(prompts)
        names = zip(query.classes.names, query.base.tolist(), strict=True)
        bases = [name for name, flag in names if flag]
        kinds = self._kinds(query.classes.prompts)
        return {"model": "vild", **self.source, "head": query.head, "base": bases, "besides": kinds}

    def _head(self, *, single: bool) -> str:
        """The head that answers: as told, else both, or the one that a single head was trained as.

        Raises:
            ValueError: an unknown head.
        """
        told = self.settings.head
        if told and told not in HEADS:
            raise ArgumentError("head", unknown_name("head", told, HEADS))
        if told or self.model.image_head:
            return told or ("text" if single else "ensemble")
        return "image" if (self.card.get("recipe") or {}).get("variant") == "image" else "text"

    def _kinds(self, prompts: Sequence[str]) -> list[str]:
        """Kinds that its card says it or its teacher has learned, but those that are asked for."""
        categories, asked = self.card.get("categories") or {}, set(map(_words, prompts))
        known = [one for group in ("base", "novel") for one in categories.get(group, ())]
        return [one for one in known if _words(one) not in asked]

    def _notes(
        self, classes: Classes, head: str, on_base: str, kinds: Sequence[str]
    ) -> Iterator[str]:
        if not (self.model.teacher or self.card.get("teacher")):
            yield f"the checkpoint does not say who taught it; taken to be {self.teacher.name}"
        if head == "ensemble":
            yield on_base
        if kinds:
            yield (
                f"{len(kinds)} other kinds of its card are compared, too ({some(kinds)}), so that "
                "they are not taken for the labels"
            )
        if len(classes.names) == 1 and not self.settings.head and self.model.image_head:
            yield (
                "one label: the text head decides, against its learned background; the teacher's "
                "view has nothing to compare it with, so that more labels (what else may be "
                "there) make it surer"
            )

    def _on_chinese(self, classes: Classes) -> list[str]:
        """What to do with Chinese labels, since its teacher's texts are the only ones it knows."""
        names = zip(classes.names, classes.prompts, strict=True)
        chinese = [name for name, prompt in names if is_chinese(prompt)]
        if "zh" in self.teacher.languages or not chinese:
            return []
        return [
            f"this detector speaks the language of its teacher, {self.teacher.name}, and a teacher "
            "that reads Chinese cannot take its place: give Chinese names an English text, "
            f'{chinese[0]}="sheep lying down" and so on, or let a Chinese teacher look at the '
            "boxes: the model crops with the teacher pasture-zh"
        ]


def base_flags(classes: Classes, card: Mapping[str, Any], settings: Settings) -> tuple[Tensor, str]:
    """Which of K classes had boxes in training, (K,) bool, and the sentence that says so.

    Raises:
        ValueError: base or novel labels that are not looked for, or both.
    """
    index = {fold(name): k for k, name in enumerate(classes.names)}
    told = []
    for setting, names in (("base", settings.base), ("novel", settings.novel)):
        if absent := [name for name in names if fold(name) not in index]:
            raise ValueError(f"{setting}: {unknown_name('label', absent[0], classes.names)}")
        told.append({index[fold(name)] for name in names})
    base, novel = told
    if base & novel:
        raise ValueError(f"base and novel both name {classes.names[min(base & novel)]!r}")
    known = {fold(name) for name in (card.get("categories") or {}).get("base", ())}
    pairs = zip(classes.names, classes.prompts, strict=True)
    own = {k for k, words in enumerate(pairs) if known & set(map(fold, words))}
    flags = torch.tensor([k in base | own - novel for k in range(len(classes.names))])
    if not (known or base or novel):
        return flags, (
            "no card says which labels had boxes in training, so all are taken as novel; say so "
            "of those that had"
        )
    trained = f"of the {len(flags)} labels had boxes in the detector's training"
    if not flags.any():
        return flags, f"none {trained}: for all (novel) its teacher's view counts more"
    return flags, (
        f"{int(flags.sum())} {trained} (base), so its text head names them; for the others (novel) "
        "its teacher's view counts more"
    )


# ---- files ---------------------------------------------------------------------------------


def checkpoint_path(where: str, stem: str = "vild") -> Path:
    """The weights of a ViLD or a GLIP: shipped (where it is ""), in a folder, or a file.

    Raises:
        FileNotFoundError: nothing there, and how to make it.
        ValueError: damaged.
    """
    path = Path(where) if where else checkpoint_dir(stem) / WEIGHTS
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown(path)}: no such file; make it with `python -m cliplab train {stem}`, restore "
            f"data/checkpoints/{stem}, or {_INSTEAD[stem]}"
        )
    verify_checkpoint(path.parent, [path.name])
    return path


def read_card(weights: Path) -> dict[str, Any]:
    """The model card beside weights; {} if there is none."""
    path = weights.with_name("model_card.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def load_vild_detector(where: str, settings: Settings) -> ViLDDetector:
    """The ViLD at `where` ("": the shipped one) and its teacher; errors as `load_detector`."""
    from cliplab.encoders import load_encoder

    path = checkpoint_path(where)
    model, card = load_vild(path), read_card(path)
    taught: Mapping[str, Any] = model.teacher or card.get("teacher") or {}
    own = taught.get("spec") or taught.get("name") or ""
    spec = settings.teacher or (own if own in LOADERS or ":" in own else "pasture")
    teacher = load_encoder(spec, device=settings.device, offline=settings.offline or None)
    if teacher.dim != model.config.embed_dim or not _is_same(teacher, taught):
        raise ValueError(
            f"teacher {spec}: has {teacher.dim} dimensions and fingerprint {teacher.fingerprint}; "
            f"this detector learned from another one, {taught.get('name', 'see its card')} with "
            f"{model.config.embed_dim} (fingerprint {taught.get('fingerprint', '?')}), and speaks "
            "its language only: drop it, or let it look at crops, with the model crops"
        )
    source = {"file": shown(path), "sha256": sha256(path)}
    return ViLDDetector(model.to(pick_device(settings.device)), teacher, settings, card, source)


def _is_same(teacher: Encoder, taught: Mapping[str, Any]) -> bool:
    """By fingerprint; or by the weights' own hashes, where libraries of another version differ."""
    if not taught or taught.get("fingerprint") == teacher.fingerprint:
        return True
    own, told = (
        {k: v for k, v in about.items() if k.startswith("sha256 ")}
        for about in (teacher.provenance, taught)
    )
    return bool(own) and own == told
