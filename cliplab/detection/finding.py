"""Samples through a detector: one protocol, its models by name, and what came of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cliplab.classification import Classes
from cliplab.data import Ids, Sample, SampleSet, UnreadableImage, open_image, shown
from cliplab.detection.boxes import Detections, coco_truth, postprocess
from cliplab.detection.crops import load_crops_detector
from cliplab.detection.glip import load_glip_detector
from cliplab.detection.settings import Cut, Settings, check_settings, parse_model
from cliplab.detection.vild import load_vild_detector
from cliplab.detection.words import Query, Words, match
from cliplab.encoders import Encoder
from cliplab.viz import box_colour, plot_boxes

_SHORTEST, _LONGEST = 800, 1600  # pixels of the longer side of an annotated picture
_INCHES = 8.0  # of it, so that tags grow with the picture
_LOADERS: dict[str, Callable[[str, Settings], Detector]] = {
    "vild": load_vild_detector,
    "crops": load_crops_detector,
    "glip": load_glip_detector,
}


class Detector(Protocol):
    """Finds what words say. A new model is one entry of `MODELS` and of `_LOADERS`."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def teacher(self) -> Encoder | None:
        """The encoder whose texts are the classes, if there is one."""

    def read(self, prompts: Words) -> Query:
        """The words as the model understands them, once for any number of pictures.

        Raises:
            ValueError: words that cannot be meant.
        """

    def detect(
        self, images: Iterable[Image.Image], prompts: Words,
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Detections]:  # fmt: skip
        """All that it has an opinion on in N pictures, best first, unlikely ones too.

        Args:
            images: RGB, any size.
            prompts: what to look for, or what `read` made of that.
            boxes: N tensors (R, 4) px: name these instead of finding some.
        """

    def describe(self, prompts: Words) -> dict[str, Any]:
        """What was used, for a report: plain values."""


def load_detector(model: str = "vild", settings: Settings | None = None) -> Detector:
    """The detector called `model`.

    Args:
        model: "vild" (shipped), "vild:<path>", "crops", "crops:<path of a ViLD>", "glip" (shipped),
            "glip:<path>", or a published one, "glip-t:<path>".
        settings: of the model.

    Raises:
        ValueError: an unknown model, settings that mean nothing to it, a damaged or another file,
            a teacher of another space.
        FileNotFoundError: no such checkpoint (it says how to make it), or no vocabulary beside it.
    """
    settings = settings or Settings()
    name, where = parse_model(model)
    check_settings(name, settings)
    return _LOADERS[name](where, settings)


# ---- picture after picture -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """What came of N readable pictures."""

    pictures: tuple[Sample, ...]  # N
    sizes: tuple[tuple[int, int], ...]  # N of (width, height)
    said: tuple[Detections, ...]  # N: everything, for average precision
    found: tuple[Detections, ...]  # N: what counts
    unreadable: tuple[UnreadableImage, ...]  # the others
    cut: Cut  # what counts

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def boxes(self) -> int:
        """How many boxes count as found."""
        return sum(map(len, self.found))


def find(
    detector: Detector, pictures: Iterable[Sample], prompts: Words,
    cut: Cut | None = None, *, given: SampleSet | None = None,
    on_found: Callable[[Sample, Image.Image, Detections], None] | None = None,
    progress: bool = False,
) -> Found:  # fmt: skip
    """Every picture once; one is in memory at a time.

    Args:
        cut: what counts as found; default: by the model card's threshold for what is asked.
        given: of `with_boxes`: name their boxes instead of finding some.
        on_found: called for every readable one, with its pixels and what counts as found.
    """
    query = detector.read(prompts)
    cut = cut or Cut(query.score)
    by_path = {one.path: torch.from_numpy(one.boxes_xyxy) for one in given or ()}
    unreadable = list[UnreadableImage]()
    rows = list[tuple[Sample, tuple[int, int], Detections, Detections]]()
    for picture in tqdm(list(pictures), unit="picture", disable=not progress):
        try:
            image = open_image(picture.path)
        except UnreadableImage as error:
            unreadable.append(error)
            continue
        boxes = None if given is None else [by_path[picture.path]]
        (said,) = detector.detect([image], query, boxes)
        found = postprocess(
            said, score=cut.score, iou=cut.overlap, top=cut.top, nested=query.nested
        )
        if on_found is not None:
            on_found(picture, image, found)
        rows.append((picture, image.size, said, found))
    kept, sizes, said_of, found_of = zip(*rows, strict=True) if rows else ((),) * 4
    return Found(kept, sizes, said_of, found_of, tuple(unreadable), cut)


def with_boxes(pictures: SampleSet, told: SampleSet) -> SampleSet:
    """The pictures with the boxes that another source knows in them, to be named.

    Raises:
        ValueError: no box at all.
    """
    by_path = {one.path.resolve(): one for one in told}
    pairs = [(one, by_path.get(one.path.resolve(), Sample(one.path))) for one in pictures]
    found = tuple(replace(one, regions=o.regions, judged=o.judged) for one, o in pairs)
    if not any(one.regions for one in found):
        raise ValueError(
            f"{shown(told.root)}: no box for any of the {len(pictures)} pictures of "
            f"{shown(pictures.root)}; expected boxes in pixels for file names relative to it"
        )
    return replace(pictures, samples=found)


# ---- what came of it -----------------------------------------------------------------------


def as_coco(
    found: Found, classes: Classes, *, ids: Ids | None = None,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What was found as a COCO data set whose annotations have scores.

    It can be read back as boxes; its annotations alone are COCO results.

    Args:
        found: N pictures, of whose boxes those that count are written.
        classes: what was looked for, K.
        ids: of the source's COCO file; pictures and classes that it knows keep theirs.
        model: of `Detector.describe`; goes to "info", with what counted as found.
    """
    ids = ids or Ids()
    boxes, labels = [one.boxes_xyxy for one in found.found], [one.labels for one in found.found]
    table = coco_truth(found.sizes, boxes, labels, classes.names)
    keys = ids.of_images(found.pictures)
    for image, (key, name) in zip(table["images"], keys, strict=True):
        image |= {"id": key, "file_name": name}
    asked = match(classes, list(ids.categories))
    kept = {classes.names[k]: ids.categories[name] for name, k in asked.items()}
    categories = Ids(categories=kept).of_categories(classes.names)
    for category, number in zip(table["categories"], categories, strict=True):
        category["id"] = number
    scores = [score for one in found.found for score in one.scores.tolist()]
    for annotation, score in zip(table["annotations"], scores, strict=True):
        n, k = annotation["image_id"] - 1, annotation["category_id"] - 1
        annotation |= {"image_id": keys[n][0], "category_id": categories[k]}
        annotation["score"] = round(score, 7)  # of float32: fewer would make ties
    table["info"] = {"description": "boxes found by cliplab detect; scores are 0 to 1"}
    table["info"] |= {"cut": asdict(found.cut)} | ({"model": dict(model)} if model else {})
    return table


def annotated(image: Image.Image, found: Detections) -> Image.Image:
    """The picture with its boxes and tags, 800 to 1,600 pixels long."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    longer = max(image.size)
    scale = min(max(longer, _SHORTEST), _LONGEST) / longer
    size = [max(1, round(side * scale)) for side in image.size]
    large = image.resize(size, Image.Resampling.LANCZOS)
    dpi = max(size) / _INCHES
    # axes are placed by hand, whatever layout the settings ask for
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi, layout="none")  # type: ignore[arg-type]
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    colours = {name: box_colour(k) for k, name in enumerate(found.phrases)}
    boxes = (found.boxes_xyxy * scale).tolist()
    plot_boxes(ax, large, boxes, found.names, found.scores.tolist(), colours=colours)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
