"""Detectors behind one interface: a picture and the words in, boxes with names and scores out.

A new model is one entry in `MODELS`: a loader, the options that mean something to it, and a line
for the help. It is given the words once, when it is loaded, since a model may read all of them at
once (a sentence) or one by one (a classifier); then it is shown pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cliplab.classify.labels import Classes
from cliplab.runtime import unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cliplab.detection import Detections

SCORE = 0.5  # least score of a found box that counts; given boxes all count
MOST = 100  # boxes of a picture that COCO's AP looks at


class Detector(Protocol):
    """Finds what its words say, one picture at a time."""

    classes: Classes  # that it was given
    notes: Sequence[str]  # what was assumed, for the user to check
    remarks: Sequence[str]  # what is likely wrong, with the remedy

    @property
    def name(self) -> str:
        """For people."""

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Such as base and novel: indices of classes; {} if the model knows no such thing."""

    def find(self, image: "Image", boxes_xyxy: "Tensor | None" = None) -> "Detections":
        """All that it has an opinion on, best first, unlikely ones too.

        Args:
            image: RGB, any size.
            boxes_xyxy: (R, 4) px: name these instead of finding some; each gets its best name.
        """

    def describe(self) -> dict[str, Any]:
        """What was used, for a report: plain values."""


@dataclass(frozen=True)
class Options:
    """What a loader may be told; a model reads those that `MODELS` says."""

    teacher: str | None = None  # encoder whose texts name the boxes; None: the model's own
    templates: tuple[str, ...] | None = None  # None: the model's own
    truncate: bool = False
    base: tuple[str, ...] = ()  # labels that had boxes in training, whatever the checkpoint says
    novel: tuple[str, ...] = ()  # labels that had none
    head: str | None = None  # of HEADS; None: the model's own
    scales: tuple[float, ...] | None = None  # of crops; None: SCALES
    iou: float | None = None  # above it the weaker of two boxes of one name goes; None: see find
    most: int = MOST  # boxes of a picture, unless they are given
    batch_size: int = 256  # regions or crops at a time
    device: str = "auto"
    offline: bool | None = None


def _load_vild(where: str, classes: Classes, options: Options) -> Detector:
    from cliplab.detect.vild_detector import load_vild_detector

    return load_vild_detector(where, classes, options)


def _load_crops(where: str, classes: Classes, options: Options) -> Detector:
    from cliplab.detect.crops_detector import load_crops_detector

    return load_crops_detector(where, classes, options)


@dataclass(frozen=True)
class Model:
    """An entry of `MODELS`."""

    load: Callable[[str, Classes, Options], Detector]  # the text is what follows a colon, or ""
    reads: frozenset[str]  # options that mean something to it
    takes_boxes: bool  # whether it can name boxes that somebody else found
    help: str


_TEXTS = {"teacher", "templates", "truncate"}  # of models whose classes are texts of an encoder
MODELS: dict[str, Model] = {
    "vild": Model(
        _load_vild,
        frozenset(_TEXTS | {"base", "novel", "head"}),
        takes_boxes=True,
        help="one pass finds and names (default; vild:PATH or PATH for another checkpoint)",
    ),
    "crops": Model(
        _load_crops,
        frozenset(_TEXTS | {"scales"}),
        takes_boxes=True,
        help="the teacher looks at a crop of each box, slowly (boxes as found by vild, or --boxes)",
    ),
}
_EVERYBODY = frozenset({"iou", "most", "batch_size", "device", "offline"})


def parse_model(spec: str) -> tuple[str, str]:
    """Entry of `MODELS` and what is to be loaded: "vild", "crops:PATH", or PATH of a ViLD.

    Raises:
        ValueError: neither a model nor a path.
    """
    name, colon, where = spec.partition(":")
    if name in MODELS:
        if colon and not where:
            raise ValueError(f"--model {spec}: nothing after the colon; expected a path")
        return name, where
    if Path(spec).exists() or Path(spec).suffix == ".safetensors":
        return "vild", spec
    raise ValueError(f"{unknown_name('model', spec, MODELS)}, or the path of a ViLD")


def load_detector(
    model: str, classes: Classes | Sequence[str], options: Options | None = None
) -> Detector:
    """The detector called `model`, told what to look for.

    Args:
        model: "vild" (shipped), "vild:<path>" or a path, "crops", or "crops:<path of a ViLD>".
        classes: labels, or labels with their prompts.
        options: of the model.

    Raises:
        ValueError: an unknown model, options that mean nothing to it, words that cannot be meant.
        FileNotFoundError: no such checkpoint; it says how to make it.
    """
    from cliplab.detect.words import read_words

    name, where = parse_model(model)
    options = options or Options()
    check_options(name, options)
    if not isinstance(classes, Classes):
        classes = read_words([f"{text}={text}" for text in classes], ())
    return MODELS[name].load(where, classes, options)


def check_options(name: str, options: Options) -> None:
    """Refuse what model `name` would ignore.

    Raises:
        ValueError: naming the option and the models that read it.
    """
    for field in fields(options):
        own = field.name in MODELS[name].reads | _EVERYBODY
        if not own and getattr(options, field.name) != field.default:
            others = [other for other, model in MODELS.items() if field.name in model.reads]
            raise ValueError(
                f"--{field.name}: means nothing to the model {name}; drop it, or use --model "
                f"{' or '.join(others)}"
            )


def scales_of(options: Options) -> tuple[float, ...]:
    """Scales of the crops, each above 0.

    Raises:
        ValueError: one that is not.
    """
    from cliplab.detection import SCALES

    scales = options.scales if options.scales is not None else SCALES
    for scale in scales:
        if not 0 < scale < float("inf"):
            raise ValueError(f"--scales: got {scale:g}; expected numbers above 0, as in 1 1.5")
    return tuple(dict.fromkeys(scales))
