"""`cliplab train STEM`: hand over to the recipe that made a shipped checkpoint."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

from cliplab.cli.options import parse
from cliplab.runtime import unknown_name
from cliplab.training import RECIPES

PAGE = """\
usage: cliplab train STEM ...

Train a shipped checkpoint again. Each recipe has its own options and says what it takes.

stems:
{stems}

examples:
  cliplab train clip --help                options of one recipe
  cliplab train clip

exit code: 0 done; 130 when interrupted, and the same command goes on"""

_FORMER = {"--more": "--second-round-steps"}  # in the commands of shipped cards and tables


def call(typed: Sequence[str]) -> int:
    """Train what was typed -> exit code.

    Raises:
        ValueError: no such recipe, or options that it does not have.
    """
    if not typed or typed[0] in ("-h", "--help"):
        stems = [f"  {stem:9} {recipe.makes}" for stem, recipe in RECIPES.items()]
        print(PAGE.format(stems="\n".join(stems)))
        return 0 if typed else 2
    stem, options = typed[0], read_options(*typed)
    log = logging.getLogger("cliplab.training")
    log.setLevel(logging.INFO)
    log.handlers[:] = [logging.StreamHandler(sys.stdout)]  # plain lines
    try:
        importlib.import_module(RECIPES[stem].module).run(options)
    except KeyboardInterrupt:
        print("the same command goes on from the last state that was saved", file=sys.stderr)
        raise
    return 0


def read_options(stem: str, *typed: str) -> Any:
    """The options of a recipe.

    Raises:
        ValueError: no such recipe, or options that it does not have.
    """
    if stem not in RECIPES:
        raise ValueError(unknown_name("recipe", stem, RECIPES))
    recipe = importlib.import_module(RECIPES[stem].module)
    words = [_FORMER.get(word, word) for word in typed if word != "--debug"]
    about, epilog = (recipe.__doc__ or "").strip(), f"examples:\n  cliplab train {stem}"
    return parse(recipe.Options, words, prog=f"cliplab train {stem}", about=about, epilog=epilog)
