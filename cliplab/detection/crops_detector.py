"""ViLD's baseline for `detect`: each box is cut out and shown to the teacher, whole CLIP passes.

Source: ViLD, arXiv:2104.13921, section 3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.classification.prompts import check_class_names
from cliplab.data import shown
from cliplab.detection.boxes import Detections
from cliplab.detection.checkpoints import checkpoint_path, own_templates
from cliplab.detection.crops import crop_scores, look, together
from cliplab.detection.detectors import REGIONS, Options, scales_of
from cliplab.detection.regions import named, ratios, to_pixels, usable
from cliplab.detection.texts import embed_classes
from cliplab.encoders import Encoder
from cliplab.models.vild import ViLD, load_vild
from cliplab.runtime import pick_device, sha256


@dataclass(eq=False)
class CropsDetector:
    """A teacher, K classes, and somebody who finds boxes; see `Detector`."""

    teacher: Encoder
    classes: Classes
    text_emb: Tensor  # (K, D) unit rows
    scales: tuple[float, ...]
    options: Options
    where: str = ""  # the ViLD that proposes boxes, loaded when a picture comes without
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _proposer: ViLD | None = None

    @property
    def name(self) -> str:
        """For people: the teacher, and what it looks at."""
        return f"{self.teacher.name} on crops ({' and '.join(f'{s:g}x' for s in self.scales)})"

    def find(self, image: Image.Image, boxes_xyxy: Tensor | None = None) -> Detections:
        """See `Detector.find`.

        A CLIP has no background: to it every box holds one of the classes. Boxes that were found
        are scored by the geometric mean of its probability and of the proposal's objectness, given
        ones by the probability alone.
        """
        if boxes_xyxy is None:
            found, objectness = self.propose(image)
        else:
            found, objectness = usable(boxes_xyxy, image), None
        (views,) = look(
            self.teacher,
            [image],
            [found],
            scales=self.scales,
            batch_size=self.options.batch_size or REGIONS,
        )
        scores = crop_scores(self.teacher, together(views), self.text_emb, objectness)  # (R, K)
        return named(found, scores, self.classes, self.options, given=objectness is None)

    @torch.no_grad()
    def propose(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Boxes that may hold something (R, 4) px of the picture, and their objectness (R,)."""
        if self._proposer is None:
            self._proposer = load_proposer(self.where, self.options.device)
        model = self._proposer
        pixels = to_pixels(image, model.config.height)
        maps, size = model.maps(pixels.to(model.background_emb.device))
        boxes, objectness, _ = model.propose(maps, size)
        found = boxes[0].cpu() / ratios(pixels, image)
        inside = (found[:, 2:] > found[:, :2]).all(1)
        return found[inside], objectness[0].cpu()[inside]

    def describe(self) -> dict[str, Any]:
        """See `Detector.describe`."""
        about: dict[str, Any] = {"model": "crops", "scales": list(self.scales)}
        if self._proposer is not None:
            path = checkpoint_path(self.where)
            about["proposals"] = {"file": shown(path), "sha256": sha256(path)}
        return about


def load_crops_detector(where: str, classes: Classes, options: Options) -> CropsDetector:
    """Any encoder as the judge of crops.

    Raises:
        ValueError: a single label, scales that are no scales, or what `load_encoder` raises.
    """
    from cliplab.encoders import load_encoder

    check_class_names(classes.names)  # a softmax over one class is always sure
    scales = scales_of(options)
    teacher = load_encoder(
        options.teacher or "pasture", device=options.device, offline=options.offline
    )
    wording = options.templates or own_templates(teacher)
    texts = embed_classes(teacher, classes, wording, truncate=options.truncate)
    return CropsDetector(teacher, classes, texts.emb, scales, options, where, remarks=texts.remarks)


def load_proposer(where: str, device: str) -> ViLD:
    """The ViLD whose proposal network finds boxes; its teacher does not matter."""
    return load_vild(checkpoint_path(where)).to(pick_device(device))
