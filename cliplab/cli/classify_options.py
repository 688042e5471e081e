"""What `cliplab classify` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cliplab.cli.options import (
    BatchSize,
    Common,
    Device,
    Flag,
    Offline,
    Outputs,
    Precision,
    Source,
    opt,
)

# The first is the default: in notebook 02 it gained most of those that take no time to fit.
METHODS = (
    "text-probe", "linear-probe", "tip-adapter", "tip-adapter-f", "coop", "wise-ft", "temperature",
    "zero-shot",
)  # fmt: skip
ABOUT = """\
Sort photos by labels of your own, without training, and see how well it went.

SOURCE is a folder of images (flat; or one sub-folder per class; or train, val and test with those),
a CSV manifest, a COCO JSON, or a YOLO folder or data.yaml. Each box becomes a crop of its own.

Where the source knows the classes, they are the labels, and the answer is judged: accuracy with
its interval, confusion, calibration, and the worst mistakes first. The text that stands for a class
is its name, or what you write for it: --labels lying="a sheep lying down" 躺着=躺着的羊

What has been encoded is kept, so that the next run is quick: in the folder cliplab of your user
cache, or in $CLIPLAB_CACHE; --no-cache does without."""

EPILOG = """\
examples:
  cliplab classify photos --labels "a sheep standing" "a sheep lying down"
  cliplab classify flock --html gallery.html                   sub-folders are the classes
  cliplab classify flock --labels lying="a sheep lying down" standing="a sheep standing"
  cliplab classify flock --encoder pasture-zh --template "{}的羊"       sub-folders 躺着, 站立
  cliplab classify herd.json --images frames --box-scale 1.5 --html gallery.html
  cliplab classify flock --examples flock --shots 16           learn from a part, judge the rest
  cliplab classify barn --examples flock --save-classifier sheep.safetensors
  cliplab classify barn2 --classifier sheep.safetensors --out scores.csv

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""

ENCODERS = (
    "pasture, pasture-zh, openai:<name or .pt>, modelscope:<id>[@revision] or <folder>, "
    "hf:<repo>[@revision] or <folder>, open_clip:<architecture>/<tag or file>"
)


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the photos are."""

    boxes: Annotated[Path | None, opt("JSON")] = None
    """COCO file with boxes for the folder SOURCE"""
    box_scale: Annotated[float, opt("X")] = 1.0
    """enlarge boxes about their centres, 1.5 takes in surroundings"""
    unlabelled: Flag = False
    """sub-folders and label columns are no truth: do not judge by them"""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What there is to choose between."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """two or more, apart by spaces or commas; quote labels that contain spaces; CLASS=PROMPT gives
    a class its text; default: the classes of SOURCE"""
    template: Annotated[tuple[str, ...], opt("TEXT ...")] = ("{}",)
    """prompts with {} for the label, averaged, such as "a photo of a {}." """
    truncate: Flag = False
    """cut prompts that are too long for the encoder"""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Learning from examples."""

    examples: Annotated[Path | None, opt("LABELLED")] = None
    """fit a classifier on this labelled source; the same as SOURCE: fit on its train and val parts,
    judge on test, and make these parts where there are none"""
    method: Annotated[str, opt("NAME", help=f"how to learn: {', '.join(METHODS)}")] = METHODS[0]
    shots: Annotated[int | None, opt("K")] = None
    """use K examples of each class; default: all"""
    seed: Annotated[int, opt("N")] = 0
    """of splits and of the choice of shots"""
    save_classifier: Annotated[Path | None, opt("FILE")] = None
    """keep what was fitted"""
    classifier: Annotated[Path | None, opt("FILE")] = None
    """use what was kept"""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What reads photos and texts."""

    encoder: Annotated[str, opt("SPEC", help=ENCODERS)] = "pasture"
    precision: Precision = "float32"
    device: Device = "auto"
    batch_size: BatchSize = 64
    offline: Offline = False
    no_cache: Flag = False
    """neither use nor keep embeddings"""


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("CSV")] = None
    """the scores of every image"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `classify` can be told."""

    pictures: Pictures
    classes: Classes = field(default_factory=Classes)
    learning: Learning = field(default_factory=Learning)
    encoder: Encoding = field(default_factory=Encoding)
    outputs: Written = field(default_factory=Written)
