"""What `cliplab detect` can be told."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cliplab.cli.options import Common, Outputs, Source, opt
from cliplab.detection import MODELS, Settings

OWN = Path("source")  # --boxes source: those of SOURCE itself

ABOUT = """\
Find what you have words for: boxes with names and scores, in pictures that nobody labelled for it.

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. Labels are
words of your own, not only those that the detector learned boxes for. The text that stands for a
label is its name, or what you write for it: --labels 躺着的羊="sheep lying down"
A GLIP may be asked with a list or a sentence instead, in the languages that it was trained on:
--phrases "the [black goat] left of the [trough]". Without brackets it looks for the things between
the relations.

Where SOURCE (or --boxes) knows boxes of these labels, the answer is judged: average precision,
hits and misses for each label. The models:
""" + "\n".join(
    textwrap.fill(
        f"  {name:8} {model.help}", 96, subsequent_indent=" " * 11, break_on_hyphens=False
    )
    for name, model in MODELS.items()
)

EPILOG = """\
examples:
  cliplab detect flock --labels "sheep lying down" "sheep standing" goat --html gallery.html
  cliplab detect flock --labels 躺着的羊="sheep lying down" 山羊=goat --pictures drawn
  cliplab detect herd.json --images frames --out found.json    boxes of herd.json judge it
  cliplab detect frames --labels sheep goat --boxes herd.json  name these boxes, find none
  cliplab detect flock --labels 躺着的羊 站着的羊 --model crops --teacher pasture-zh
  cliplab detect flock --labels sheep goat --model runs/my-vild --score 0.5
  cliplab detect flock --model glip --phrases "the [black goat] left of the [trough]"
  cliplab detect flock --model glip --phrases "羊、黑山羊" --html gallery.html
  cliplab detect photos --model glip-t:glip_tiny_model_o365_goldg_cc_sbu.pth --phrases "a sheep"

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the pictures are."""

    boxes: Annotated[Path | None, opt("FILE")] = None
    """name these boxes instead of finding some: COCO JSON, CSV or YOLO with paths relative to
    SOURCE; the word source: those of SOURCE itself"""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to look for."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """apart by spaces or commas; quote labels that contain spaces; LABEL=PROMPT gives a label its
    text; default: the classes of SOURCE's boxes"""
    phrases: Annotated[tuple[str, ...] | None, opt("TEXT ...")] = None
    """of a GLIP, instead of --labels: a list or a sentence, quoted; [brackets] mark the phrases of
    a sentence, else those between its relations are found"""
    model: Annotated[str, opt("NAME")] = "vild"
    """see above"""


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("JSON")] = None
    """boxes and scores as COCO"""
    pictures: Annotated[Path | None, opt("FOLDER")] = None
    """the pictures with boxes drawn in"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `detect` can be told."""

    pictures: Pictures
    words: Words = field(default_factory=Words)
    settings: Annotated[Settings, tyro.conf.FlagCreatePairsOff] = field(default_factory=Settings)
    outputs: Written = field(default_factory=Written)
