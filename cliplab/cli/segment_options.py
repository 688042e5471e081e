"""What `cliplab segment` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cliplab.cli.options import Common, Device, Offline, Outputs, Source, opt

ABOUT = """\
Give every pixel one of your labels, with a model that learned from captions alone (GroupViT).

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. A label is a
name, or a name with the words that stand for it: --labels 羊=sheep person="man|woman|child"

What is none of your labels needs words, too, since no caption ever said "background": --background
with words for what else may be there, --threshold for pixels that no label fits, or both.

Where masks are known, the answer is judged: mean IoU, the IoU of each label, IoU at the borders,
and the oracle's: every group with its best true label, what the masks alone are worth. Masks are
those of a COCO JSON, or label PNGs with classes.txt, one name a line: NAME_labels.png beside the
pictures, NAME_labels.png or NAME.png in --truth."""

EPILOG = """\
examples:
  cliplab segment flock --labels sheep dog --background grass sky tree --html gallery.html
  cliplab segment flock --labels sheep --background --out masks        the usual backgrounds
  cliplab segment flock --labels 羊 狗 草地 天空 --out masks --panoptic masks.json
  cliplab segment herd.json --images frames --labels sheep goat --background grass sky
  cliplab segment photos --labels sheep --background --model hf:nvidia/groupvit-gcc-yfcc

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the pictures are."""

    limit: Annotated[int | None, opt("N")] = None
    """only the first N images"""
    truth: Annotated[Path | None, opt("PATH")] = None
    """masks to judge by: a COCO JSON, or a folder of label PNGs and classes.txt (default: those of
    SOURCE)"""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to look for."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """apart by spaces or commas; quote labels that contain spaces; LABEL=WORD|WORD gives a label
    its words; default: the classes of the known masks"""
    background: Annotated[tuple[str, ...] | None, opt("[WORD ...]")] = None
    """words for all that is none of the labels; without words the usual ones that mean none of
    them: the 26 that papers use, or for models of the pasture its landscape"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The model, and how it is read; what is left open is as its card says was best on val."""

    model: Annotated[str, opt("NAME")] = "pasture"
    """pasture (shipped), hf:nvidia/groupvit-gcc-yfcc (photographs), or the path of a GroupViT"""
    threshold: Annotated[float | None, opt("S")] = None
    """pixels whose best score is lower become background, 0 to 1, except that the best of a picture
    are always kept"""
    top_words: Annotated[Literal["all"] | int | None, opt("N")] = None
    """only the N words that fit a picture best may be in it; all: every one"""
    template: Annotated[tuple[str, ...] | None, opt("TEXT ...")] = None
    """prompts with {} for the word, averaged, such as "a photo of a {}." """
    side: Annotated[int | None, opt("PX")] = None
    """of the shorter side, and of a window, a multiple of the patch"""
    scales: Annotated[tuple[float, ...] | None, opt("X ...")] = None
    """look at each picture at these times --side, and average"""
    flip: bool | None = None
    """look at the mirrored picture as well, at every scale"""
    refine: Annotated[int | None, opt("N")] = None
    """let borders follow the edges of the picture, N steps of averaging among neighbours of like
    colour; 0: none"""
    device: Device = "auto"
    offline: Offline = False

    def given(self) -> dict[str, Any]:
        """The fields of the library's settings that the command line does not leave open."""
        names = ("threshold", "side", "scales", "flip", "refine")
        found = {name: getattr(self, name) for name in names}
        found = {name: value for name, value in found.items() if value is not None}
        if self.top_words is not None:
            found["top_words"] = None if self.top_words == "all" else self.top_words
        return found | ({"templates": self.template} if self.template else {})


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("FOLDER")] = None
    """NAME_labels.png and NAME_overlay.png of each image and, last, summary.json"""
    panoptic: Annotated[Path | None, opt("JSON")] = None
    """COCO panoptic segments; their PNGs go to a folder of the same name"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `segment` can be told."""

    pictures: Pictures
    words: Words = field(default_factory=Words)
    model: Reading = field(default_factory=Reading)
    outputs: Written = field(default_factory=Written)
