"""``python -m cliplab train STEM``: hand over to the recipe that made a shipped checkpoint."""

import argparse
import importlib
import sys
from pathlib import Path

from cliplab.runtime import unknown_name

DESCRIPTION = """\
Train a shipped checkpoint again. Each recipe has its own arguments and says what it takes."""

EXAMPLES = """\
examples:
  python -m cliplab train clip --help      arguments of one recipe
  python -m cliplab train clip

exit code: that of the recipe; 130 when interrupted, and the recipe says how to go on"""


def recipes() -> list[str]:
    """Names of the recipes: the modules of cliplab.training that can be called."""
    folder = Path(__file__).parents[1] / "training"
    return [
        path.stem
        for path in sorted(folder.glob("*.py"))
        if "\ndef add_arguments(" in path.read_text(encoding="utf-8")
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; the recipe's own are read when it is known."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("stem", metavar="STEM", help=f"one of: {', '.join(recipes())}")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="the recipe's own")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    if args.stem not in recipes():
        raise ValueError(unknown_name("recipe", args.stem, recipes()))
    recipe = importlib.import_module(f"cliplab.training.{args.stem}")
    parser = argparse.ArgumentParser(
        prog=f"cliplab train {args.stem}",
        description=(recipe.__doc__ or "").partition("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    recipe.add_arguments(parser)
    options = parser.parse_args(args.rest)
    try:
        return int(recipe.run(options))
    except KeyboardInterrupt:
        print("the same command goes on from the last state that was saved", file=sys.stderr)
        raise
