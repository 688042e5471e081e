"""What `segment` can be told."""

import argparse
from pathlib import Path

from cliplab.cli.arguments import add_source

ALL = "all"  # of --top-words: no limit

DESCRIPTION = """\
Give every pixel one of your labels, with a model that learned from captions alone (GroupViT).

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. A label is a
name, or a name with the words that stand for it: --labels 羊=sheep person="man|woman|child"

What is none of your labels needs words, too, since no caption ever said "background": --background
with words for what else may be there, --threshold for pixels that no label fits, or both.

Where masks are known, the answer is judged: mean IoU, the IoU of each label, IoU at the borders,
and the oracle's: every group with its best true label, what the masks alone are worth. Masks are
those of a COCO JSON, or label PNGs with classes.txt, one name a line: NAME_labels.png beside the
pictures, NAME_labels.png or NAME.png in --truth."""

EXAMPLES = """\
examples:
  cliplab segment flock --labels sheep dog --background grass sky tree --html gallery.html
  cliplab segment flock --labels sheep --background --out masks        the usual backgrounds
  cliplab segment flock --labels 羊 狗 草地 天空 --out masks --panoptic masks.json
  cliplab segment herd.json --images frames --labels sheep goat --background grass sky
  cliplab segment photos --labels sheep --background --model hf:nvidia/groupvit-gcc-yfcc

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments of `segment`."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("source", metavar="SOURCE", type=Path, help="images, see above")
    _add_source(parser.add_argument_group("source"))
    _add_words(parser.add_argument_group("what to look for"))
    _add_model(parser.add_argument_group("model"))
    _add_outputs(parser.add_argument_group("outputs"))


def _add_source(group: "argparse._ArgumentGroup") -> None:
    add_source(group)
    add = group.add_argument
    add("--limit", type=int, metavar="N", help="only the first N images")
    add(
        "--truth",
        type=Path,
        metavar="PATH",
        help="masks to judge by: a COCO JSON, or a folder of label PNGs and classes.txt "
        "(default: those of SOURCE)",
    )


def _add_words(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="apart by spaces or commas; quote labels that contain spaces; LABEL=WORD|WORD gives a "
        "label its words; default: the classes of the known masks",
    )
    add(
        "--background",
        nargs="*",
        metavar="WORD",
        help="words for all that is none of the labels; without words the usual ones that mean "
        "none of them: the 26 that papers use, or for models of the pasture its landscape",
    )
    add(
        "--threshold",
        type=float,
        metavar="S",
        help="pixels whose best score is lower become background, 0 to 1, except that the best of "
        "a picture are always kept (default: none)",
    )
    add(
        "--top-words",
        metavar="N",
        help="only the N words that fit a picture best may be in it; all: every one (default: 5, "
        "or what the model's card says was best on val)",
    )
    add(
        "--templates",
        nargs="+",
        metavar="TEXT",
        help='prompts with {} for the word, averaged (default: "a photo of a {}.")',
    )


def _add_model(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--model",
        default="pasture",
        metavar="NAME",
        help="pasture (shipped, default), hf:nvidia/groupvit-gcc-yfcc (photographs), or the path "
        "of a GroupViT",
    )
    add(
        "--side",
        type=int,
        metavar="PX",
        help="of the shorter side, and of a window, a multiple of the patch (default: the model's)",
    )
    add(
        "--scales",
        nargs="+",
        type=float,
        metavar="X",
        help="look at each picture at these times --side, and average (default: 1, or what the "
        "model's card says was best on val)",
    )
    add(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="look at the mirrored picture as well, at every scale (default: as for --scales)",
    )
    add(
        "--refine",
        type=int,
        metavar="N",
        help="let borders follow the edges of the picture, N steps of averaging among neighbours "
        "of like colour; 0: none (default: as for --scales)",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda or mps")
    add("--offline", action="store_true", help="never use the network, whatever is missing")


def _add_outputs(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write NAME_labels.png, NAME_overlay.png and, last, summary.json",
    )
    add(
        "--panoptic",
        type=Path,
        metavar="JSON",
        help="write COCO panoptic segments; their PNGs go to a folder of the same name",
    )
    add("--html", type=Path, metavar="HTML", help="write a gallery to look through")
    add("--json", type=Path, metavar="JSON", help="write the summary there, too")
    add("--force", action="store_true", help="overwrite existing output files")
