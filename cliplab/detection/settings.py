"""What a detector can be told, and which model reads what. No torch: a parser is made from this."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from cliplab.runtime import ArgumentError, nearest, unknown_name

SCORE = 0.5  # least score of a box that counts as found, where no model card says
OVERLAP = 0.5  # IoU above which two boxes are one place
MOST = 100  # boxes of a picture that COCO's AP looks at
REGIONS = 256  # regions or crops at a time
PUBLISHED = ("glip-t", "glip-t-a", "glip-t-b", "glip-t-c", "glip-l")  # GLIPs with files of others
WEIGHTS = "model.safetensors"  # of a folder
_TEXTS = {"teacher", "template", "truncate"}  # of models whose classes are texts of an encoder


@dataclass(frozen=True)
class Model:
    """What a kind of detector reads."""

    reads: frozenset[str]  # settings that mean something to it; "phrases": sentences
    help: str
    takes_boxes: bool = True  # whether it can name boxes that somebody else found


MODELS = {
    "vild": Model(
        frozenset({*_TEXTS, "base", "novel", "head"}),
        "one pass finds and names (default; vild:PATH or PATH for another checkpoint)",
    ),
    "crops": Model(
        frozenset({*_TEXTS, "scales"}),
        "the teacher looks at a crop of each box, slowly (boxes as found by vild, or given)",
    ),
    "glip": Model(
        frozenset({"phrases", "aggregate", "precision", "vocab"}),
        "reads a list or a sentence together with the picture (the pasture's; glip:PATH or PATH "
        "for another one; published files by variant: glip-t:PATH, glip-t-a:PATH, glip-t-b:PATH, "
        "glip-t-c:PATH or glip-l:PATH)",
        takes_boxes=False,
    ),
}


@dataclass(frozen=True)
class Cut:
    """Which of a detector's answers count as found.

    Raises:
        ValueError: a score or an overlap that is none, or no boxes at all.
    """

    score: float = SCORE
    overlap: float | None = OVERLAP  # IoU above which two boxes are one place; None: never
    all_names: bool = False  # a place may have several names
    top: int | None = MOST  # boxes of a picture; None: all

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ArgumentError("score", f"got {self.score:g}; expected 0 to 1")
        if self.overlap is not None and not 0 < self.overlap <= 1:
            raise ArgumentError("iou", f"got {self.overlap:g}; expected more than 0, at most 1")
        if self.top is not None and self.top < 1:
            raise ArgumentError("top", f"got {self.top}; expected 1 or more")


@dataclass(frozen=True)
class Settings:
    """How the model works, and what counts as found. `MODELS` says which model reads what."""

    teacher: str | None = None
    """encoder whose texts name the boxes (default: what a ViLD learned from; of crops pasture)"""
    template: tuple[str, ...] | None = None
    """prompts with {} for the label, averaged (default: the pasture's own; of others "{}")"""
    truncate: bool = False
    """cut prompts that are too long for the teacher"""
    base: tuple[str, ...] = ()
    """labels that had boxes in training: the text head names them (default: see the card)"""
    novel: tuple[str, ...] = ()
    """labels that had none"""
    head: str | None = None
    """of a ViLD: ensemble (default), text or image"""
    scales: tuple[float, ...] | None = None
    """sizes of the crops in boxes, added up (default: 1 1.5)"""
    aggregate: Literal["mean", "max", "power"] | None = None
    """of a GLIP: how the words of a phrase vote (default: mean; power: geometric mean)"""
    precision: Literal["float32", "bfloat16"] | None = None
    """of a GLIP's matrix products (default: float32)"""
    vocab: Path | None = None
    """of a published GLIP: BERT's vocab.txt (default: beside its file, or Hugging Face's cache)"""
    score: float | None = None
    """least score of a box, 0 to 1 (default: its model card's, or 0.5; of given boxes 0)"""
    iou: float | None = None
    """boxes that overlap more are one place (default: 0.5; none of given ones; GLIP phrases 0.6)"""
    all_names: bool = False
    """keep every name of a place, not the best alone"""
    top: int | None = None
    """boxes of a picture at most (default: 100; of given boxes all)"""
    batch_size: int | None = None
    """regions at a time (default: 256); for a GLIP pictures of one size (default: 1)"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    offline: bool = False
    """never use the network, whatever is missing"""

    @property
    def most(self) -> int:
        """Answers of a picture, unlikely ones too: what AP looks at, or more if they may count."""
        return max(MOST, self.top or 0)

    def cut(self, *, given: bool = False, score: float = SCORE) -> Cut:
        """What counts as found: as told, else all of given boxes, or of others those of `score`."""
        default = Cut(0.0, None, self.all_names, None) if given else Cut(score)
        return Cut(
            default.score if self.score is None else self.score,
            default.overlap if self.iou is None else self.iou,
            self.all_names,
            default.top if self.top is None else self.top,
        )


def check_settings(name: str, settings: Settings) -> None:
    """Refuse what means nothing, or nothing to model `name`, before anything is read.

    Raises:
        ValueError: naming the setting and the models that read it.
    """
    settings.cut()
    if settings.batch_size is not None and settings.batch_size < 1:
        raise ArgumentError("batch_size", f"got {settings.batch_size}; expected 1 or more")
    for scale in settings.scales or ():
        if not 0 < scale < float("inf"):
            raise ArgumentError("scales", f"got {scale:g}; expected numbers above 0, as in 1 1.5")
    for field in fields(settings):
        readers = [other for other, model in MODELS.items() if field.name in model.reads]
        told = getattr(settings, field.name) != field.default
        if told and readers and name not in readers:
            raise ArgumentError(
                field.name,
                f"means nothing to the model {name}; drop it, or use the model "
                f"{' or '.join(readers)}",
            )


# ---- names of models -----------------------------------------------------------------------


def parse_model(spec: str) -> tuple[str, str]:
    """Entry of `MODELS` and what is to be loaded: "vild", "crops:PATH", "glip-t:PATH", or PATH.

    Raises:
        ValueError: neither a model nor a path.
        FileNotFoundError: a path of weights where there are none.
    """
    name, colon, where = spec.partition(":")
    if name in PUBLISHED and where:
        return "glip", spec
    if name in MODELS and (where or not colon):
        return name, where
    if name in (*MODELS, *PUBLISHED):
        raise ValueError(f"model {spec}: expected the path of its file after a colon, {name}:PATH")
    path, known = Path(spec), [*MODELS, *PUBLISHED]
    if colon and nearest(name, known) and not path.exists():
        raise ValueError(unknown_name("model", spec, known))
    weights = path / WEIGHTS if path.is_dir() else path
    if weights.suffix in (".safetensors", ".pth") and not weights.is_file():
        raise FileNotFoundError(
            f"model {path}: no such file, {weights}; expected the weights of a ViLD or a GLIP: "
            "`python -m cliplab train vild` or `train glip` makes them"
        )
    if weights.suffix == ".pth":
        raise ValueError(
            f"model {spec}: does not say which model it holds; for a published GLIP write its "
            f"variant in front, {' or '.join(f'{one}:{spec}' for one in PUBLISHED)}"
        )
    if not path.exists():
        raise ValueError(f"{unknown_name('model', spec, known)}, or the path of a ViLD or a GLIP")
    return _kind_of(weights), spec


def _kind_of(weights: Path) -> str:
    """What the header of our own weights says; "vild" where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "np") as file:
            made = (file.metadata() or {}).get("format")
    except (OSError, SafetensorError):
        return "vild"  # whose loader says what is wrong with it
    return "glip" if made == "cliplab.glip" else "vild"
