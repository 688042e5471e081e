"""What `detect` can be told."""

import argparse
from pathlib import Path

from cliplab.cli.arguments import add_source
from cliplab.detection.settings import MODELS, MOST, REGIONS, SCORE

AGGREGATES = ("mean", "max", "power")  # as in cliplab.models.glip, which takes torch to import
PRECISIONS = ("float32", "bfloat16")

DESCRIPTION = """\
Find what you have words for: boxes with names and scores, in pictures that nobody labelled for it.

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. Labels are
words of your own, not only those that the detector learned boxes for. The text that stands for a
label is its name, or what you write for it: --labels 躺着的羊="sheep lying down"
A GLIP may be asked with a list or a sentence instead, in the languages that it was trained on:
--phrases "the [black goat] left of the [trough]". Without brackets it looks for the things between
the relations.

Where SOURCE (or --boxes) knows boxes of these labels, the answer is judged: average precision,
hits and misses for each label. The models:"""

EXAMPLES = """\
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments of `detect`."""
    models = "\n".join(f"  {name:8} {model.help}" for name, model in MODELS.items())
    parser.description, parser.epilog = f"{DESCRIPTION}\n{models}", EXAMPLES
    parser.add_argument("source", metavar="SOURCE", type=Path, help="images, see above")
    _add_source(parser.add_argument_group("source"))
    _add_words(parser.add_argument_group("what to look for"))
    _add_model(parser.add_argument_group("model"))
    _add_cut(parser.add_argument_group("what counts as found"))
    _add_outputs(parser.add_argument_group("outputs"))


def _add_source(group: "argparse._ArgumentGroup") -> None:
    add_source(group)
    add = group.add_argument
    add(
        "--boxes",
        metavar="FILE",
        help="name these boxes instead of finding some: COCO JSON, CSV or YOLO with paths relative "
        "to SOURCE; the word source: those of SOURCE itself",
    )


def _add_words(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="apart by spaces or commas; quote labels that contain spaces; LABEL=PROMPT gives a "
        "label its text; default: the classes of SOURCE's boxes",
    )
    add(
        "--phrases",
        nargs="+",
        metavar="TEXT",
        help="of a GLIP, instead of --labels: a list or a sentence, quoted; [brackets] mark the "
        "phrases of a sentence, else those between its relations are found",
    )
    add(
        "--template",
        nargs="+",
        metavar="TEXT",
        help="prompts with {} for the label, averaged (default: those that the pasture's models "
        'learned with, such as "a photo of a {}"; for other teachers "{}")',
    )
    add("--truncate", action="store_true", help="cut prompts that are too long for the teacher")
    add(
        "--base",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="labels that had boxes in training, where the text head is trusted more "
        "(default: as the checkpoint says)",
    )
    add("--novel", nargs="+", default=[], metavar="LABEL", help="labels that had none")


def _add_model(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--model", default="vild", metavar="NAME", help="see above (default: vild)")
    add(
        "--teacher",
        metavar="SPEC",
        help="encoder whose texts name the boxes: for vild the one that it learned from (default), "
        "for crops any: pasture (default), pasture-zh, openai:..., modelscope:..., hf:..., "
        "open_clip:...",
    )
    add("--head", metavar="NAME", help="of a ViLD: ensemble (default), text or image")
    add(
        "--scales",
        nargs="+",
        type=float,
        metavar="X",
        help="sizes of the crops in boxes, added up (default: 1 1.5)",
    )
    add(
        "--aggregate",
        choices=AGGREGATES,
        help="of a GLIP: how the words of a phrase vote (default: mean; power is their geometric "
        "mean)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        help="of a GLIP's matrix products (default: float32)",
    )
    add(
        "--vocab",
        type=Path,
        metavar="FILE",
        help="of a published GLIP: vocab.txt of bert-base-uncased (default: beside its file, else "
        "in Hugging Face's cache)",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda or mps")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"regions at a time (default: {REGIONS}); for a GLIP pictures of one size (default: "
        "1)",
    )
    add("--offline", action="store_true", help="never use the network, whatever is missing")


def _add_cut(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--score",
        type=float,
        metavar="S",
        help=f"least score of a box, 0 to 1 (default: {SCORE:g}; with --boxes 0)",
    )
    add(
        "--iou",
        type=float,
        metavar="X",
        help="boxes that overlap more are one place, and the best name stays (default: 0.5; with "
        "--boxes they all stay, each under its best name; within a phrase of a GLIP 0.6)",
    )
    add("--all-names", action="store_true", help="keep every name of a place, not the best alone")
    add(
        "--top",
        type=int,
        metavar="N",
        help=f"boxes of a picture at most (default: {MOST}; with --boxes all)",
    )


def _add_outputs(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--out", type=Path, metavar="JSON", help="write boxes and scores as COCO")
    add("--pictures", type=Path, metavar="FOLDER", help="write the pictures with boxes drawn in")
    add("--html", type=Path, metavar="HTML", help="write a gallery to look through")
    add("--json", type=Path, metavar="JSON", help="write the report for other programs")
    add("--force", action="store_true", help="overwrite existing output files")
