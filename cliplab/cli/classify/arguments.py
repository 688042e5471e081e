"""What `classify` can be told."""

import argparse
from pathlib import Path

from cliplab.cli.arguments import add_source

# The first is the default: in notebook 02 it gained most of those that take no time to fit.
METHODS = (
    "text-probe", "linear-probe", "tip-adapter", "tip-adapter-f", "coop", "wise-ft", "temperature",
    "zero-shot",
)  # fmt: skip

DESCRIPTION = """\
Sort photos by labels of your own, without training, and see how well it went.

SOURCE is a folder of images (flat; or one sub-folder per class; or train, val and test with those),
a CSV manifest, a COCO JSON, or a YOLO folder or data.yaml. Each box becomes a crop of its own.

Where the source knows the classes, they are the labels, and the answer is judged: accuracy with
its interval, confusion, calibration, and the worst mistakes first. The text that stands for a class
is its name, or what you write for it: --labels lying="a sheep lying down" 躺着=躺着的羊

What has been encoded is kept, so that the next run is quick: in the folder cliplab of your user
cache, or in $CLIPLAB_CACHE; --no-cache does without."""

EXAMPLES = """\
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

ENCODERS = """\
pasture (default), pasture-zh, openai:<name or .pt>, modelscope:<id>[@revision] or <folder>,
hf:<repo>[@revision] or <folder>, open_clip:<architecture>/<tag or file>"""


def add_parser(subparsers: "argparse._SubParsersAction") -> argparse.ArgumentParser:
    """Add the `classify` sub-command."""
    parser = subparsers.add_parser(
        "classify",
        help="sort photos by labels of yours",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments of `classify`."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("source", metavar="SOURCE", type=Path, help="images, see above")
    _add_source(parser.add_argument_group("source"))
    _add_classes(parser.add_argument_group("classes"))
    _add_few_shot(parser.add_argument_group("learning from examples"))
    _add_encoder(parser.add_argument_group("encoder"))
    _add_outputs(parser.add_argument_group("outputs"))


def _add_source(group: "argparse._ArgumentGroup") -> None:
    add_source(group)
    add = group.add_argument
    add("--boxes", type=Path, metavar="JSON", help="COCO file with boxes for the folder SOURCE")
    add(
        "--box-scale",
        type=float,
        default=1.0,
        metavar="X",
        help="enlarge boxes about their centres, 1.5 takes in surroundings (default: 1)",
    )
    add(
        "--unlabelled",
        action="store_true",
        help="sub-folders and label columns are no truth: do not judge by them",
    )


def _add_classes(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="two or more, apart by spaces or commas; quote labels that contain spaces; "
        "CLASS=PROMPT gives a class its text; default: the classes of SOURCE",
    )
    add(
        "--template",
        nargs="+",
        default=["{}"],
        metavar="TEXT",
        help='prompts with {} for the label, averaged, such as "a photo of a {}." (default: "{}")',
    )
    add("--truncate", action="store_true", help="cut prompts that are too long for the encoder")


def _add_few_shot(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--examples",
        type=Path,
        metavar="LABELLED",
        help="fit a classifier on this labelled source; the same as SOURCE: fit on its train and "
        "val parts, judge on test, and make these parts where there are none",
    )
    add(
        "--method",
        default=METHODS[0],
        metavar="NAME",
        help=f"how to learn: {', '.join(METHODS)} (default: {METHODS[0]})",
    )
    add("--shots", type=int, metavar="K", help="use K examples of each class (default: all)")
    add("--seed", type=int, default=0, help="of splits and of the choice of shots (default: 0)")
    add("--save-classifier", type=Path, metavar="FILE", help="keep what was fitted")
    add("--classifier", type=Path, metavar="FILE", help="use what was kept")


def _add_encoder(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--encoder", default="pasture", metavar="SPEC", help=ENCODERS)
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is quicker on processors that have it, and a little coarser",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda or mps")
    add("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    add("--offline", action="store_true", help="never use the network, whatever is missing")
    add("--no-cache", action="store_true", help="neither use nor keep embeddings")


def _add_outputs(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--out", type=Path, metavar="CSV", help="write the scores of every image")
    add("--html", type=Path, metavar="HTML", help="write a gallery to look through")
    add("--json", type=Path, metavar="JSON", help="write the report for other programs")
    add("--force", action="store_true", help="overwrite existing output files")
