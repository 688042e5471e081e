"""ViLD as a detector: pictures of any size, classes in the words of the teacher it learned from.

Letters: R regions, K classes, D embedding, H W pixels.
"""

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
from cliplab.detection.settings import WEIGHTS, Settings
from cliplab.detection.words import Query, Words, as_classes, embed_words, unlearned_words
from cliplab.encoders import Encoder
from cliplab.models.vild import Contest, ViLD, class_scores, load_vild
from cliplab.runtime import checkpoint_dir, pick_device, read_card, sha256, verify_checkpoint

_LONGEST = 8  # times its height that a picture may be wide, or else it is made smaller


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

    @property
    def name(self) -> str:
        """For people."""
        return "ViLD (ensemble)" if self.model.image_head else "ViLD"

    def read(self, prompts: Words) -> ViLDQuery:
        """See `Detector.read`."""
        if isinstance(prompts, ViLDQuery):
            return prompts
        classes, device = as_classes(prompts), self.model.background_emb.device
        base, kinds = self._base(classes), self._kinds(classes.prompts)
        texts, head = (*classes.prompts, *kinds), self._head(len(classes.names))
        text_emb, unread = embed_words(self.teacher, Classes(texts, texts), self.settings)
        said = [*unread, *self._on_chinese(classes.prompts)] if unread else []
        contest = contest_of(classes.prompts, kinds)
        groups = {
            group: tuple(k for k, flag in enumerate(base) if flag is kind)
            for group, kind in (("base", True), ("novel", False))
        }
        return ViLDQuery(
            classes=classes,
            groups={group: ks for group, ks in groups.items() if ks},
            notes=list(self._notes(head, base, kinds)),
            remarks=[*said, *unlearned_words(classes.prompts, self.card)],
            nested=nested(contest),
            threshold=self.card.get("thresholds", {}).get(f"en, {head}", {}),
            text_emb=text_emb.to(device),
            contest=contest,
            base=torch.tensor(base, device=device),
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
        scores = class_scores(
            self.model, regions, query.text_emb, query.base, head=query.head, contest=query.contest
        ).cpu()
        iou = self.settings.cut(given=given is not None).overlap
        return name_boxes(found, scores, query.classes.names, iou=iou, top=self.settings.most)

    def describe(self, prompts: Words) -> dict[str, Any]:
        """See `Detector.describe`."""
        query = self.read(prompts)
        names = zip(query.classes.names, query.base.tolist(), strict=True)
        bases = [name for name, flag in names if flag]
        kinds = self._kinds(query.classes.prompts)
        return {"model": "vild", **self.source, "head": query.head, "base": bases, "besides": kinds}

    def _base(self, classes: Classes) -> list[bool]:
        """Which of K labels had boxes in training, by name or prompt, as its card says."""
        known = set(map(fold, (self.card.get("categories") or {}).get("base", ())))
        pairs = zip(classes.names, classes.prompts, strict=True)
        return [bool(known & {fold(name), fold(prompt)}) for name, prompt in pairs]

    def _head(self, labels: int) -> str:
        """The head that answers: both for several labels; a single one is as it was trained."""
        if self.model.image_head:
            return "text" if labels == 1 else "ensemble"
        return "image" if (self.card.get("recipe") or {}).get("variant") == "image" else "text"

    def _kinds(self, prompts: Sequence[str]) -> list[str]:
        """Kinds that its card says it or its teacher has learned, but those that are asked for."""
        categories, asked = self.card.get("categories") or {}, set(map(_words, prompts))
        known = [one for group in ("base", "novel") for one in categories.get(group, ())]
        return [one for one in known if _words(one) not in asked]

    def _notes(self, head: str, base: Sequence[bool], kinds: Sequence[str]) -> Iterator[str]:
        if head == "ensemble":
            yield (
                f"{sum(base)} of the {len(base)} labels had boxes in the detector's training "
                "(base): for such its text head counts more, for others (novel) its teacher's view"
            )
        if kinds:
            yield (
                f"{len(kinds)} other kinds of its card are compared, too ({some(kinds)}), so that "
                "they are not taken for the labels"
            )
        if len(base) == 1 and self.model.image_head:
            yield (
                "one label: the text head decides, against its learned background; more labels "
                "(what else may be there) make it surer"
            )

    def _on_chinese(self, prompts: Sequence[str]) -> Iterator[str]:
        """What to do with Chinese labels, since its teacher's texts are the only ones it knows."""
        if chinese := [text for text in prompts if is_chinese(text)]:
            yield (
                f"this detector speaks the language of its teacher, {self.teacher.name}: give "
                f'Chinese names an English text, {chinese[0]}="sheep lying down" and so on, or let '
                "a Chinese teacher look at the boxes: the model crops with the teacher pasture-zh"
            )


# ---- files ---------------------------------------------------------------------------------


def weights_at(where: str, stem: str = "vild") -> Path:
    """Where the weights of a ViLD or a GLIP are: shipped (where it is ""), in a folder, a file."""
    path = Path(where) if where else checkpoint_dir(stem) / WEIGHTS
    return path / WEIGHTS if path.is_dir() else path


def checkpoint_path(where: str, stem: str = "vild") -> Path:
    """`weights_at`, of which the file is there.

    Raises:
        FileNotFoundError: nothing there, and how to make it.
        ValueError: damaged.
    """
    path = weights_at(where, stem)
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown(path)}: no such file; make it with `python -m cliplab train {stem}`, or "
            f"restore data/checkpoints/{stem}"
        )
    verify_checkpoint(path.parent, [path.name])
    return path


def load_vild_detector(where: str, settings: Settings) -> ViLDDetector:
    """The ViLD at `where` ("": the shipped one) and its teacher; errors as `load_detector`."""
    from cliplab.encoders import load_encoder

    path = checkpoint_path(where)
    model, card = load_vild(path), read_card(path.parent)
    taught: Mapping[str, Any] = model.teacher or card.get("teacher") or {}
    spec = taught.get("name", "pasture")
    teacher = load_encoder(spec, device=settings.device, offline=settings.offline or None)
    if not _is_same(teacher, taught):
        raise ValueError(
            f"teacher {spec}: has fingerprint {teacher.fingerprint}, and this detector learned "
            f"from another one ({taught['fingerprint']}), whose language alone it speaks: train "
            f"it again, or let the teacher look at crops, with the model crops"
        )
    source = {"file": shown(path), "sha256": sha256(path)}
    return ViLDDetector(model.to(pick_device(settings.device)), teacher, settings, card, source)


def _is_same(teacher: Encoder, taught: Mapping[str, Any]) -> bool:
    """By fingerprint; or by the weights' own hashes, where libraries of another version differ."""
    told = {k: v for k, v in taught.items() if k.startswith("sha256 ")}
    own = {k: v for k, v in teacher.provenance.items() if k.startswith("sha256 ")}
    return taught.get("fingerprint", teacher.fingerprint) == teacher.fingerprint or (
        bool(own) and own == told
    )
