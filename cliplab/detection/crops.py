"""CLIP on crops as a detector: boxes from anywhere, a teacher that looks at each, texts as classes.

This is the baseline that ViLD starts from, and it is what its teacher does: every box is an image.
It needs no training and knows every word its teacher knows; it costs one pass of the teacher for
each box and scale. Boxes come from `cliplab.detection.proposals`.

Letters: N pictures, R regions, S scales, K classes, D embedding.

Source: ViLD, arXiv:2104.13921, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification.prompts import check_class_names
from cliplab.classification.scores import Scores
from cliplab.detection.boxes import SCALES, Detections, crop_boxes
from cliplab.detection.proposals import Proposals
from cliplab.encoders.two_towers import Encoder
from cliplab.models.vild import suppress

# The rows of ViLD's comparison: what the teacher looks at.
LOOKS = {"1x": (1.0,), "1.5x": (1.5,), "both": SCALES}
BATCH = 64  # crops encoded at a time: of 224 px 39 MB, whatever the number of boxes

Images = Sequence[Image.Image]


@dataclass(frozen=True, eq=False)
class CropDetector:
    """A teacher, K classes in its words, and the scales that it looks at.

    Raises:
        ValueError: no, one or repeated phrases (a softmax over one class is always sure), or texts
            of another shape than the teacher's, or not finite.
    """

    teacher: Encoder
    phrases: tuple[str, ...]  # K
    text_emb: Tensor  # (K, D) unit rows, from build_classifier with this teacher
    scales: tuple[float, ...] = SCALES
    objectness: bool = True  # weigh names by the proposals' objectness, where they have one
    iou: float = 0.5  # of non-maximum suppression
    top: int = 100  # detections of a picture
    batch_size: int = BATCH

    def __post_init__(self) -> None:
        """Refuse words that cannot be told apart, and texts of another teacher."""
        object.__setattr__(self, "phrases", tuple(check_class_names(self.phrases)))
        _check_texts(self.teacher, self.text_emb, len(self.phrases))

    def __call__(self, images: Images, proposals: Sequence[Proposals]) -> list[Detections]:
        """What is found in each of N pictures, best first; a picture may have no boxes at all.

        Boxes are cut off at the frame, and those of which nothing is inside are left out.
        """
        pairs = zip(images, proposals, strict=True)
        inside = [boxes.inside(image.size) for image, boxes in pairs]
        views = look(
            self.teacher,
            images,
            [one.boxes_xyxy for one in inside],
            scales=self.scales,
            batch_size=self.batch_size,
        )
        return [self.name(*each) for each in zip(inside, views, strict=True)]

    def name(self, proposals: Proposals, views: Tensor) -> Detections:
        """Regions and what the teacher saw in them (S, R, D), from `look` -> detections."""
        objectness = proposals.objectness if self.objectness else None
        scores = crop_scores(self.teacher, together(views), self.text_emb, objectness)
        kept = suppress(proposals.boxes_xyxy, scores, iou=self.iou, top=self.top)
        return Detections(*kept, phrases=self.phrases)


# ---- scores --------------------------------------------------------------------------------


def crop_scores(
    teacher: Encoder, image_emb: Tensor, text_emb: Tensor, objectness: Tensor | None = None
) -> Tensor:
    """How sure a teacher is of each class in each region, (R, D), (K, D) -> (R, K), 0 to 1.

    A CLIP has no background, neither a word nor a learned embedding: whatever is in a box, the
    softmax over the classes shares out all of it, and a box around half an animal is as sure as one
    around all of it. Suppression cannot tell the two apart; objectness, which the network that
    proposed the box has learned, can: the score is then the geometric mean of both.

    Args:
        teacher: whose temperature is used.
        image_emb: of regions, unit rows.
        text_emb: unit rows.
        objectness: (R,), 0 to 1; None leaves it out, as section 3.2 of the paper does.

    Raises:
        ValueError: embeddings of another teacher, or not finite.

    Source: ViLD, section 3.2: cosines, softmax, suppression within each class. The geometric mean
        is that of RegionCLIP (arXiv:2112.09106; MULTIPLY_RPN_SCORE of its code) and of
        `cliplab.models.vild.class_scores` for the head of images, which is distilled from this.
    """
    _check_texts(teacher, text_emb, len(text_emb))
    if image_emb.ndim != 2 or image_emb.shape[1] != teacher.dim:
        raise ValueError(
            f"image_emb: got shape {tuple(image_emb.shape)}; expected (R, {teacher.dim}) for "
            f"{teacher.name}: these regions were embedded by another teacher"
        )
    names = [str(k) for k in range(len(text_emb))]
    cosine = image_emb @ text_emb.T  # (R, K)
    scale, bias = teacher.logit_scale, getattr(teacher, "logit_bias", None)
    probability = Scores.from_cosine(names, cosine, scale, bias).probability
    return probability if objectness is None else (probability * objectness[:, None]).sqrt()


def _check_texts(teacher: Encoder, text_emb: Tensor, count: int) -> None:
    if tuple(text_emb.shape) != (count, teacher.dim):
        raise ValueError(
            f"text_emb: got shape {tuple(text_emb.shape)}; expected ({count}, {teacher.dim}) for "
            f"{teacher.name}: build it with build_classifier and this teacher"
        )
    if not text_emb.isfinite().all():
        raise ValueError("text_emb: not finite; expected unit rows, as build_classifier gives them")


# ---- what the teacher sees -----------------------------------------------------------------


def look(
    teacher: Encoder, images: Images, boxes_xyxy: Sequence[Tensor], *,
    scales: Sequence[float] = SCALES, batch_size: int = BATCH,
) -> list[Tensor]:  # fmt: skip
    """What the teacher sees in boxes at each scale: N pictures -> N tensors (S, R, D), unit rows.

    Scales stay apart, so that one look serves all rows of a comparison; see `together`. Crops are
    made as large as the teacher takes them in, and never more than `batch_size` are in memory.

    Args:
        teacher: any encoder.
        images: N pictures.
        boxes_xyxy: N tensors (R, 4) px; something of each box must be inside its picture.
        scales: 1 is the box itself.
        batch_size: crops encoded at a time, those of several pictures together.

    Raises:
        ValueError: no scales, or a box outside its picture.
    """
    if not scales:
        raise ValueError("scales: got none; expected at least one, such as (1.0, 1.5)")
    size = crop_size(teacher)
    pairs = list(zip(images, boxes_xyxy, strict=True))
    crops = (
        crop
        for image, boxes in pairs
        for scale in scales
        for crop in crop_boxes(image, boxes, scale=scale, size=size)
    )
    emb = _encode(teacher, crops, size, batch_size)
    parts = emb.split([len(scales) * len(boxes) for _, boxes in pairs])
    return [
        part.view(len(scales), len(boxes), -1)
        if len(boxes)
        else part.new_zeros(len(scales), 0, teacher.dim)
        for part, (_, boxes) in zip(parts, pairs, strict=True)
    ]


def together(views: Tensor) -> Tensor:
    """Embeddings of S scales (S, R, D) summed, (R, D) unit rows: the teacher's view of a region."""
    return F.normalize(views.sum(0), dim=-1)


def crop_size(teacher: Encoder) -> int:
    """Pixels per side that the teacher takes in; a crop of another size would be resized twice."""
    return int(teacher.preprocess(Image.new("RGB", (64, 64))).shape[-1])


def _encode(teacher: Encoder, crops: Iterable[Image.Image], size: int, batch_size: int) -> Tensor:
    """Squares of `size` px -> (R, D) unit rows."""
    if not hasattr(teacher, "encode_pixels"):  # not every encoder takes in what is preprocessed
        return teacher.encode_image(crops, batch_size=batch_size)
    return teacher.encode_pixels(map(_at_once(teacher, size), _batches(crops, batch_size)))


def _batches(crops: Iterable[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    crops = iter(crops)
    while batch := list(islice(crops, size)):
        yield batch


def _at_once(teacher: Encoder, size: int) -> Callable[[list[Image.Image]], Tensor]:
    """The teacher's preprocessing for lists of squares of `size` px -> pixels (B, 3, R, R).

    To a square of the right size most preprocessing does nothing but subtract a mean and divide by
    a deviation. Where that is so, which a black, a white and a random square tell, it is done to
    the whole batch in one go; it would be a tenth of the time of a small teacher.
    """

    def one_by_one(crops: list[Image.Image]) -> Tensor:
        return torch.stack([teacher.preprocess(crop) for crop in crops])

    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    squares = [Image.new("RGB", (size, size), grey) for grey in ("black", "white")]
    low, high, random = one_by_one([*squares, Image.fromarray(noise)])  # (3, R, R) each

    def at_once(crops: list[Image.Image]) -> Tensor:
        values = torch.from_numpy(np.stack([np.asarray(crop) for crop in crops]))
        return low + values.permute(0, 3, 1, 2).contiguous() * ((high - low) / 255)

    same = torch.allclose(at_once([Image.fromarray(noise)])[0], random, rtol=0, atol=1e-5)
    return at_once if same else one_by_one
