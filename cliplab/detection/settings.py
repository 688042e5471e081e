"""What a detector can be told, and which model reads what. No torch: a parser is made from this."""

from dataclasses import dataclass, fields

from cliplab.runtime import ArgumentError, unknown_name

SCORE = 0.5  # least score of a box that counts as found, where no model card says
OVERLAP = 0.5  # IoU above which two boxes are one place
MOST = 100  # boxes of a picture that COCO's AP looks at
PUBLISHED = ("glip-t", "glip-t-a", "glip-t-b", "glip-t-c", "glip-l")  # GLIPs with files of others
WEIGHTS = "model.safetensors"  # of a folder


@dataclass(frozen=True)
class Model:
    """A kind of detector."""

    reads: frozenset[str]  # of what not all can be told: "boxes" to be named, "phrases", settings
    help: str


MODELS = {
    "vild": Model(
        frozenset({"boxes", "template"}),
        "one pass finds and names (default; vild:PATH for another checkpoint)",
    ),
    "crops": Model(
        frozenset({"boxes", "template", "teacher"}),
        "the teacher looks at a crop of each box, slowly (boxes as found by vild, or given)",
    ),
    "glip": Model(
        frozenset({"phrases"}),
        "reads a list or a sentence together with the picture (the pasture's; glip:PATH for "
        "another one; published files by variant: glip-t:PATH, glip-t-a:PATH, glip-t-b:PATH, "
        "glip-t-c:PATH or glip-l:PATH)",
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
    """How the model works, and what counts as found; a setting that it does not read is refused."""

    teacher: str | None = None
    """of crops: the encoder that looks at them (default: pasture)"""
    template: tuple[str, ...] | None = None
    """prompts with {} for the label, averaged (default: the pasture's own; of others "{}")"""
    score: float | None = None
    """least score of a box, 0 to 1 (default: its model card's, or 0.5; of given boxes 0)"""
    iou: float | None = None
    """boxes that overlap more are one place (default: 0.5; none of given ones; GLIP phrases 0.6)"""
    top: int | None = None
    """boxes of a picture at most (default: 100; of given boxes all)"""
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
        default = Cut(0.0, None, None) if given else Cut(score)
        return Cut(
            default.score if self.score is None else self.score,
            default.overlap if self.iou is None else self.iou,
            default.top if self.top is None else self.top,
        )


def check_settings(name: str, settings: Settings, *others: str) -> None:
    """Refuse what means nothing, or nothing to model `name`, before anything is read.

    Args:
        others: what else was given: "boxes" to be named, "phrases" to be found.

    Raises:
        ValueError: naming the setting and the models that read it.
    """
    settings.cut()
    told = [f.name for f in fields(settings) if getattr(settings, f.name) != f.default]
    for setting in (*others, *told):
        readers = [other for other, model in MODELS.items() if setting in model.reads]
        if readers and name not in readers:
            what = f"means nothing to the model {name}; drop it, or use the model "
            raise ArgumentError(setting, what + " or ".join(readers))


# ---- names of models -----------------------------------------------------------------------


def parse_model(spec: str) -> tuple[str, str]:
    """Entry of `MODELS` and what is to be loaded: "vild", "crops:PATH", "glip-t:PATH".

    Raises:
        ValueError: no such model, or one without the path of its file.
    """
    name, colon, where = spec.partition(":")
    if name in PUBLISHED and where:
        return "glip", spec
    if name in MODELS and (where or not colon):
        return name, where
    if name in (*MODELS, *PUBLISHED):
        raise ValueError(f"model {spec}: expected the path of its file after a colon, {name}:PATH")
    known = unknown_name("model", spec, (*MODELS, *PUBLISHED))
    raise ValueError(f"{known}; before the path of a file say what it holds, as in vild:PATH")
