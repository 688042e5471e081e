"""ViLD for `detect`: any picture, the classes in the words of the teacher it learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.data import shown
from cliplab.detection.boxes import Detections
from cliplab.detection.checkpoints import (
    base_flags,
    checkpoint_path,
    choose_head,
    load_teacher,
    own_templates,
    read_card,
)
from cliplab.detection.detectors import REGIONS, Options
from cliplab.detection.regions import named, ratios, regions_of, to_pixels, usable
from cliplab.detection.texts import chinese_remedy, embed_classes
from cliplab.encoders import Encoder
from cliplab.models.vild import ViLD, class_scores, load_vild
from cliplab.runtime import pick_device, sha256


@dataclass(eq=False)
class ViLDDetector:
    """A ViLD and K classes; see `Detector`."""

    model: ViLD
    teacher: Encoder
    classes: Classes
    text_emb: Tensor  # (K, D) unit rows
    base: Tensor  # (K,) bool: had boxes in training
    head: str  # of HEADS
    options: Options
    source: Mapping[str, Any] = field(default_factory=dict)  # path, hash
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @property
    def name(self) -> str:
        """For people: the model, and which head answers."""
        return f"ViLD ({self.head})" if self.model.image_head else "ViLD"

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Base and novel classes."""
        flags = self.base.tolist()
        both = {"base": True, "novel": False}
        groups = {
            name: tuple(k for k, b in enumerate(flags) if b is kind) for name, kind in both.items()
        }
        return {name: ks for name, ks in groups.items() if ks}

    def find(self, image: Image.Image, boxes_xyxy: Tensor | None = None) -> Detections:
        """See `Detector.find`."""
        device = self.text_emb.device
        pixels = to_pixels(image, self.model.config.height)
        ratio = ratios(pixels, image)
        if boxes_xyxy is None:
            regions = self.model(pixels.to(device))[0]
            found = regions.boxes_xyxy.cpu() / ratio
        else:
            found = usable(boxes_xyxy, image)
            regions = regions_of(
                self.model,
                pixels.to(device),
                (found * ratio).to(device),
                batch_size=self.options.batch_size or REGIONS,
            )
        scores = class_scores(self.model, regions, self.text_emb, self.base, head=self.head).cpu()
        return named(found, scores, self.classes, self.options, given=boxes_xyxy is not None)

    def describe(self) -> dict[str, Any]:
        """See `Detector.describe`."""
        bases = [n for n, b in zip(self.classes.names, self.base.tolist(), strict=True) if b]
        return {"model": "vild", **self.source, "head": self.head, "base": bases}


def load_vild_detector(where: str, classes: Classes, options: Options) -> ViLDDetector:
    """The ViLD at `where` (default: the shipped one), its teacher, and the classes in its words.

    Raises:
        FileNotFoundError: no such checkpoint, or none yet.
        ValueError: a damaged one, a teacher of another space, labels of --base that are not asked.
    """
    path = checkpoint_path(where)
    card = read_card(path)
    model = load_vild(path)
    teacher, notes = load_teacher(model, card, options)
    base, said = base_flags(classes, card, options)
    head = choose_head(model, card, options.head, single=len(classes.names) == 1)
    wording = options.templates or own_templates(teacher)
    texts = embed_classes(teacher, classes, wording, truncate=options.truncate)
    remedy = chinese_remedy(teacher, classes) if texts.remarks else ""
    device = pick_device(options.device)
    return ViLDDetector(
        model.to(device),
        teacher,
        classes,
        texts.emb.to(device),
        base.to(device),
        head,
        options,
        {"file": shown(path), "sha256": sha256(path)},
        notes=[
            *notes,
            *(said if head == "ensemble" else []),
            *_on_one_label(classes, model, options),
        ],
        remarks=[*texts.remarks, *([remedy] if remedy else [])],
    )


def _on_one_label(classes: Classes, model: ViLD, options: Options) -> list[str]:
    if len(classes.names) > 1 or options.head or model.image_head is None:
        return []
    return [
        "one label: the text head decides, against its learned background; the teacher's view has "
        "nothing to compare it with, so that more labels (what else may be there) make it surer"
    ]
