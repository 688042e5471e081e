"""CLIP on crops as a detector: a teacher looks at each box, cut out, and texts are the classes.

This is the baseline that ViLD starts from, and it is what its teacher does: every box is an image.
It needs no training and knows every word its teacher knows; it costs one pass of the teacher for
each box and scale.

Letters: N pictures, R regions, K classes, D embedding.

Source: ViLD, arXiv:2104.13921, section 3.2.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification import Scores, check_class_names
from cliplab.data import shown
from cliplab.detection.boxes import Detections, clip_boxes, expand_boxes, name_boxes
from cliplab.detection.settings import Settings
from cliplab.detection.vild import (
    checkpoint_path,
    contest_of,
    inside,
    nested,
    propose,
    weights_at,
)
from cliplab.detection.words import Query, Words, as_classes, embed_words
from cliplab.encoders import Encoder
from cliplab.models.vild import Contest, ViLD, load_vild, shares
from cliplab.runtime import pick_device, read_card, sha256

SCALES = (1.0, 1.5)  # of the crops that ViLD's teacher looks at


def crop_boxes(
    image: Image.Image, boxes_xyxy: Tensor, *, scale: float = 1.0, size: int = 64
) -> Iterator[Image.Image]:
    """Squares of `size` px, one a box: the expanded box, cut off at the frame and squeezed.

    Squeezing keeps the whole box and loses its proportions; cutting a square out of its middle, as
    CLIP's own preprocessing would, loses the heads of long animals.

    Raises:
        ValueError: a box with nothing of it inside the picture.
    """
    clipped, left = clip_boxes(expand_boxes(boxes_xyxy, scale).double(), image.size)
    for row, box in enumerate(clipped.tolist()):
        if not left[row]:
            raise ValueError(
                f"boxes_xyxy: row {row} is {boxes_xyxy[row].tolist()}, of which nothing is inside "
                f"the picture of {image.width} x {image.height} px; drop it (see clip_boxes)"
            )
        yield image.resize((size, size), Image.Resampling.BICUBIC, tuple(box))


def embed_boxes(
    teacher: Encoder, images: Sequence[Image.Image], boxes_xyxy: Sequence[Tensor], *,
    scales: Sequence[float] = SCALES, size: int = 64, batch_size: int = 256,
) -> Tensor:  # fmt: skip
    """What the teacher sees in the boxes: embeddings of the scales summed, (R, D) unit rows.

    Args:
        images: N pictures.
        boxes_xyxy: N tensors (R_n, 4) px; R is their sum. None at all gives (0, D).
        scales: 1 is the box itself.
        size: pixels per side of a crop; what the teacher takes in, or more.
        batch_size: crops encoded at a time; no more than these are in memory.

    Source: ViLD, arXiv:2104.13921, section 3.2: the 1x and 1.5x crops together.
    """
    views = []
    for scale in scales:
        pairs = zip(images, boxes_xyxy, strict=True)
        crops = (c for i, b in pairs for c in crop_boxes(i, b, scale=scale, size=size))
        views.append(teacher.encode_image(crops, batch_size=batch_size))
    return F.normalize(torch.stack(views).sum(0), dim=-1)


def crop_scores(
    teacher: Encoder, image_emb: Tensor, text_emb: Tensor, objectness: Tensor | None = None,
    *, contest: Contest | None = None,
) -> Tensor:  # fmt: skip
    """How sure a teacher is of each class in each region, (R, D), (K, D) -> (R, K), 0 to 1.

    A CLIP has no background: its softmax shares out all of a box, half an animal too. Objectness
    (R,), 0 to 1, which the network that proposed the box has learned, tells these apart: the score
    is then the geometric mean of both.

    Source: ViLD, section 3.2. The geometric mean is that of RegionCLIP (arXiv:2112.09106) and of
        `cliplab.models.vild.class_scores` for the head of images, which is distilled from this.
    """
    names = [str(k) for k in range(len(text_emb))]
    probability = Scores.by(teacher, names, image_emb @ text_emb.T).probability
    probability = probability if contest is None else shares(probability, contest)
    return probability if objectness is None else (probability * objectness[:, None]).sqrt()


@dataclass(frozen=True, eq=False, kw_only=True)
class CropsQuery(Query):
    """K classes in the words of the teacher."""

    text_emb: Tensor  # (K, D) unit rows
    contest: Contest


@dataclass(eq=False)
class CropsDetector:
    """A teacher that looks at boxes, and somebody who finds them; see `Detector`."""

    teacher: Encoder
    settings: Settings = field(default_factory=Settings)
    where: str = ""  # the ViLD that proposes boxes, loaded when pictures come without

    @property
    def name(self) -> str:
        """For people: the teacher, and what it looks at."""
        return f"{self.teacher.name} on crops ({' and '.join(f'{s:g}x' for s in SCALES)})"

    def read(self, prompts: Words) -> CropsQuery:
        """See `Detector.read`.

        Raises:
            ValueError: no, one or repeated names: a softmax over one class is always sure.
        """
        if isinstance(prompts, CropsQuery):
            return prompts
        classes = as_classes(prompts)
        check_class_names(classes.names)
        text_emb, remarks = embed_words(self.teacher, classes, self.settings)
        contest = contest_of(classes.prompts)
        try:
            thresholds = read_card(weights_at(self.where).parent).get("thresholds", {})
        except FileNotFoundError:  # no folder of data; boxes are given
            thresholds = {}
        form = f"{self.teacher.languages[0]}, crops of {self.teacher.name}"
        return CropsQuery(
            classes=classes, text_emb=text_emb, remarks=remarks, contest=contest,
            nested=nested(contest), threshold=thresholds.get(form, {}),
        )  # fmt: skip

    def detect(
        self, images: Iterable[Image.Image], prompts: Words,
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Detections]:  # fmt: skip
        """See `Detector.detect`.

        A CLIP has no background: to it every box holds one of the classes. Boxes that were found
        are scored by the geometric mean of its probability and of the proposal's objectness, given
        ones by the probability alone.
        """
        query = self.read(prompts)
        pairs = zip(images, repeat(None) if boxes is None else boxes, strict=False)
        return [self._one(image, query, given) for image, given in pairs]

    def _one(self, image: Image.Image, query: CropsQuery, boxes_xyxy: Tensor | None) -> Detections:
        if boxes_xyxy is None:
            found, objectness = propose(self.proposer, image)
        else:
            found, objectness = inside(boxes_xyxy, image), None
        image_emb = embed_boxes(self.teacher, [image], [found], size=self._side)
        scores = crop_scores(
            self.teacher, image_emb, query.text_emb, objectness, contest=query.contest
        )
        iou = self.settings.cut(given=boxes_xyxy is not None).overlap
        return name_boxes(found, scores, query.classes.names, iou=iou, top=self.settings.most)

    @cached_property
    def _side(self) -> int:
        """Pixels that the teacher takes in; a crop of another size would be resized twice."""
        return int(self.teacher.preprocess(Image.new("RGB", (64, 64))).shape[-1])

    @cached_property
    def proposer(self) -> ViLD:
        """The ViLD whose proposal network finds boxes; its teacher does not matter."""
        return load_vild(checkpoint_path(self.where)).to(pick_device(self.settings.device))

    def describe(self, prompts: Words) -> dict[str, Any]:
        """See `Detector.describe`."""
        about: dict[str, Any] = {"model": "crops", "scales": list(SCALES)}
        if "proposer" in vars(self):
            path = weights_at(self.where)
            about["proposals"] = {"file": shown(path), "sha256": sha256(path)}
        return about


def load_crops_detector(where: str, settings: Settings) -> CropsDetector:
    """Any encoder as the judge of crops; `where` is the ViLD that proposes boxes."""
    from cliplab.encoders import load_encoder

    spec = settings.teacher or "pasture"
    teacher = load_encoder(spec, device=settings.device, offline=settings.offline or None)
    return CropsDetector(teacher, settings, where)
