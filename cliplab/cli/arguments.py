"""Options that say where pictures are, the same for every command that takes pictures."""

import argparse
from pathlib import Path

_KINDS = ("auto", "folder", "csv", "coco", "yolo")  # as in cliplab.data.source


def add_source(group: "argparse._ArgumentGroup") -> None:
    """Give `group` the options --kind, --images and --split of a positional SOURCE."""
    add = group.add_argument
    add("--kind", choices=_KINDS, default="auto", help="what SOURCE is (default: by its looks)")
    add("--images", type=Path, metavar="FOLDER", help="where the images are, if not beside SOURCE")
    add("--split", metavar="NAME", help="only this part of SOURCE, such as test")
