"""Detectors behind one interface: a picture and the words in, boxes with names and scores out.

A new model is one entry in `MODELS`: a loader, the options that mean something to it, and a line
for the help. It is given the words once, when it is loaded, since a model may read all of them at
once (a sentence) or one by one (a classifier); then it is shown pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cliplab.classification.labels import Classes
from cliplab.runtime import unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cliplab.detection.boxes import Detections
    from cliplab.detection.phrases import Prompt

# Least score of a found box that counts, unless --score says another; given boxes all count.
SCORE = 0.5  # of the models whose scores are probabilities of classes
GLIP_SCORE = 0.5  # of the pasture's GLIP and its like
PUBLISHED_GLIP_SCORE = 0.5  # of the published ones, as in the demo of their authors
MOST = 100  # boxes of a picture that COCO's AP looks at
REGIONS = 256  # regions or crops at a time
PUBLISHED = ("glip-t", "glip-t-a", "glip-t-b", "glip-t-c", "glip-l")  # GLIPs with files of others
WEIGHTS = "model.safetensors"  # of a folder


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

    # A model that is quicker with several pictures has also `together`, how many it takes, and
    # `find_all(images) -> list[Detections]`.
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
    phrases: "Prompt | None" = None  # what is asked, as a sentence; None: the classes are
    aggregate: str | None = None  # of a phrase's words; None: mean
    precision: str | None = None  # of matrix products; None: float32
    vocab: Path | None = None  # vocab.txt of a published GLIP; None: beside its file
    score: float | None = None  # least score that will count, so that nothing above it is dropped
    iou: float | None = None  # above it the weaker of two boxes of one name goes; None: see find
    most: int = MOST  # boxes of a picture, unless they are given
    batch_size: int | None = None  # at a time; None: REGIONS, or a single picture
    device: str = "auto"
    offline: bool | None = None


def _load_vild(where: str, classes: Classes, options: Options) -> Detector:
    from cliplab.detection.vild_detector import load_vild_detector

    return load_vild_detector(where, classes, options)


def _load_crops(where: str, classes: Classes, options: Options) -> Detector:
    from cliplab.detection.crops_detector import load_crops_detector

    return load_crops_detector(where, classes, options)


def _load_glip(where: str, classes: Classes, options: Options) -> Detector:
    from cliplab.detection.glip_detector import load_glip_detector

    return load_glip_detector(where, classes, options)


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
    "glip": Model(
        _load_glip,
        frozenset({"phrases", "aggregate", "precision", "vocab"}),
        takes_boxes=False,
        help="reads a list or a sentence together with the picture (the pasture's; glip:PATH or "
        "PATH\n           for another one; published files by variant: glip-t:PATH, glip-t-a:PATH, "
        "glip-t-b:PATH,\n           glip-t-c:PATH or glip-l:PATH)",
    ),
}
_TYPED = {"templates": "template"}  # fields whose option is called otherwise
_EVERYBODY = frozenset({"iou", "most", "score", "batch_size", "device", "offline"})


def parse_model(spec: str) -> tuple[str, str]:
    """Entry of `MODELS` and what is to be loaded: "vild", "crops:PATH", "glip-t:PATH", or PATH.

    Raises:
        ValueError: neither a model nor a path.
        FileNotFoundError: a path of weights where there are none.
    """
    name, colon, where = spec.partition(":")
    if name in PUBLISHED:
        if not where:
            raise ValueError(
                f"--model {spec}: its published file is not part of cliplab; expected the path "
                f"after a colon, {name}:PATH"
            )
        return "glip", spec
    if name in MODELS:
        if colon and not where:
            raise ValueError(f"--model {spec}: nothing after the colon; expected a path")
        return name, where
    path = Path(spec)
    _check_there(path)
    if path.is_file() and path.suffix == ".pth":
        raise ValueError(
            f"--model {spec}: does not say which model it holds; for a published GLIP write its "
            f"variant in front, {' or '.join(f'{one}:{spec}' for one in PUBLISHED)}"
        )
    if path.exists():
        return _kind_of(path), spec
    known = [*MODELS, *PUBLISHED]
    raise ValueError(f"{unknown_name('model', spec, known)}, or the path of a ViLD or a GLIP")


def _check_there(path: Path) -> None:
    """Refuse a folder without weights, and what can only be meant as a file of them.

    Raises:
        FileNotFoundError: naming the file.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.suffix in (".safetensors", ".pth") and not weights.is_file():
        raise FileNotFoundError(
            f"--model {path}: no such file, {weights}; expected the weights of a "
            "ViLD or a GLIP: `python -m cliplab train vild` or `train glip` makes them"
        )


def _kind_of(path: Path) -> str:
    """What the header of our own weights says; "vild" where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path / WEIGHTS if path.is_dir() else path, "np") as file:
            made = (file.metadata() or {}).get("format")
    except (OSError, SafetensorError):
        return "vild"  # whose loader says what is wrong with it
    return "glip" if made == "cliplab.glip" else "vild"


def least_score(name: str, where: str) -> float:
    """The least score of a found box that counts, of a model that `parse_model` found."""
    if name != "glip":
        return SCORE
    published = where.partition(":")[0] in PUBLISHED
    return PUBLISHED_GLIP_SCORE if published else GLIP_SCORE


def load_detector(
    model: str, classes: "Classes | Prompt | Sequence[str]", options: Options | None = None
) -> Detector:
    """The detector called `model`, told what to look for.

    Args:
        model: "vild" (shipped), "vild:<path>" or a path, "crops", "crops:<path of a ViLD>",
            "glip" (shipped), "glip:<path>" or a path, or a published one, "glip-t:<path>".
        classes: labels, or labels with their prompts; for a GLIP also a sentence, as text or as a
            prompt of `cliplab.detection.phrases`.
        options: of the model.

    Raises:
        ValueError: an unknown model, options that mean nothing to it, words that cannot be meant.
        FileNotFoundError: no such checkpoint; it says how to make it.
    """
    from cliplab.cli.detect.words import classes_of, read_phrases, read_words
    from cliplab.detection.phrases import Prompt

    name, where = parse_model(model)
    options = options or Options()
    if isinstance(classes, str | Prompt):
        asked = read_phrases([classes]) if isinstance(classes, str) else classes
        classes, options = classes_of(asked), replace(options, phrases=asked)
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
                f"--{_TYPED.get(field.name, field.name)}: means nothing to the model {name}; "
                f"drop it, or use --model {' or '.join(others)}"
            )


def scales_of(options: Options) -> tuple[float, ...]:
    """Scales of the crops, each above 0.

    Raises:
        ValueError: one that is not.
    """
    from cliplab.detection.boxes import SCALES

    scales = options.scales if options.scales is not None else SCALES
    for scale in scales:
        if not 0 < scale < float("inf"):
            raise ValueError(f"--scales: got {scale:g}; expected numbers above 0, as in 1 1.5")
    return tuple(dict.fromkeys(scales))
