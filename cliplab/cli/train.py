"""`cliplab train STEM`: hand over to the recipe that made a shipped checkpoint."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from cliplab.cli.options import parse
from cliplab.runtime import unknown_name

# Name -> what it makes; the recipe is the module of that name in cliplab.training, which has
# Options and run(options).
RECIPES = {
    "clip": "two CLIPs, English and Chinese",
    "vild": "a detector that learned from CLIP",
    "glip": "a detector that reads sentences",
    "groupvit": "segmentation from captions alone",
}

PAGE = """\
usage: cliplab train STEM ...

Train a shipped checkpoint again. Each recipe has its own options and says what it takes.

stems:
{stems}

examples:
  cliplab train clip --help                options of one recipe
  cliplab train clip

exit code: 0 done; 130 when interrupted, and the same command goes on"""


def call(typed: Sequence[str]) -> int:
    """Train what was typed -> exit code.

    Raises:
        ValueError: no such recipe, or options that it does not have.
    """
    if not typed or typed[0] in ("-h", "--help"):
        print(PAGE.format(stems="\n".join(f"  {stem:9} {what}" for stem, what in RECIPES.items())))
        return 0 if typed else 2
    stem, rest = typed[0], [word for word in typed[1:] if word != "--debug"]
    if stem not in RECIPES:
        raise ValueError(unknown_name("recipe", stem, RECIPES))
    recipe = importlib.import_module(f"cliplab.training.{stem}")
    about = (recipe.__doc__ or "").strip()
    epilog = f"examples:\n  cliplab train {stem}"
    if hasattr(recipe, "add_arguments"):  # of before the skeleton
        parser = argparse.ArgumentParser(prog=f"cliplab train {stem}", description=about)
        recipe.add_arguments(parser)
        options = parser.parse_args(rest)
    else:
        prog = f"cliplab train {stem}"
        options = parse(recipe.Options, rest, prog=prog, about=about, epilog=epilog)
    log = logging.getLogger("cliplab.training")
    log.setLevel(logging.INFO)
    log.handlers[:] = [logging.StreamHandler(sys.stdout)]  # plain lines
    try:
        return int(recipe.run(options) or 0)
    except KeyboardInterrupt:
        print("the same command goes on from the last state that was saved", file=sys.stderr)
        raise
