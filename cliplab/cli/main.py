"""The command line: ``python -m cliplab COMMAND``, or ``cliplab COMMAND``."""

import importlib
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from cliplab.runtime import ArgumentError, held, pick_device, unknown_name
from cliplab.training import RECIPES


@dataclass(frozen=True)
class Command:
    """A command; its module is imported only when it is chosen."""

    module: str  # has the `Call` of the command, under its name in capitals
    help: str


COMMANDS = {
    "run": Command("cliplab.cli.run", "execute notebooks and leave a report"),
    "report": Command("cliplab.cli.run", "make a report again, or compare two runs"),
    "slides": Command("cliplab.cli.slides", "make slides of a lesson, to project in class"),
    "classify": Command("cliplab.cli.classify", "sort a folder of images by labels of yours"),
    "detect": Command("cliplab.cli.detect", "find what you have words for, as boxes"),
    "segment": Command("cliplab.cli.segment", "label every pixel with words of yours"),
    "embed": Command("cliplab.cli.embed", "embed a collection of any size, to search it"),
    "search": Command("cliplab.cli.search", "find pictures by words or by a picture"),
    "evaluate": Command("cliplab.cli.evaluate", "zero-shot ImageNet, as the papers do it"),
    "course": Command("cliplab.cli.course", "make a course that grades itself, for nbgrader"),
    "train": Command("cliplab.training", "train a shipped checkpoint again"),
    "doctor": Command("cliplab.cli.doctor", "check this installation, and say what to mend"),
}

HEAD = """\
usage: cliplab [-h] [--version] COMMAND ...

Image-text models, from a contrastive loss to segmentation without labels.

commands:"""

EXAMPLES = """\
examples:
  python -m cliplab run                    execute all notebooks, report in runs/
  python -m cliplab classify photos --labels "a sheep standing" "a sheep lying down"
  python -m cliplab detect photos --labels "sheep lying down" goat --html gallery.html
  python -m cliplab embed photos --out vectors     then: search vectors "a sheep lying down"
  python -m cliplab doctor                 when something does not work
  python -m cliplab COMMAND --help         everything about one command"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit code: 0 good, 1 something it looked at is not good, 2 it was called wrongly or
        could not work, 3 some pictures could not be read, 130 interrupted.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    if not typed or typed[0] in ("-h", "--help"):
        lines = [f"    {name:9} {command.help}" for name, command in COMMANDS.items()]
        print("\n".join([HEAD, *lines, "", EXAMPLES]))
        return 0 if typed else 2
    if typed[0] == "--version":
        from cliplab import __version__

        print(f"cliplab {__version__}")
        return 0
    if typed[0] not in COMMANDS:
        print(f"cliplab: error: {unknown_name('command', typed[0], COMMANDS)}", file=sys.stderr)
        return 2
    return _command(typed[0], typed[1:])


def _command(name: str, typed: Sequence[str]) -> int:
    """One command; what users can cause becomes one line."""
    try:
        module = importlib.import_module(COMMANDS[name].module)
    except ImportError as error:
        return _fail(name, f"{error}; a part is missing: pip install -e '.[all]'")
    options = None
    try:
        if name == "train":
            return _train(typed)
        from cliplab.cli.options import parse

        call = getattr(module, name.upper())
        texts = {"prog": f"cliplab {name}", "about": call.about, "epilog": call.epilog}
        options = parse(call.options, typed, **texts)
        return int(call.run(options))
    except SystemExit as end:  # after --help, or of the second parser of `train`
        return int(end.code or 0)
    except KeyboardInterrupt:
        print(f"cliplab {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        return 0
    except (ValueError, OSError, ImportError) as error:
        if "--debug" in typed:
            raise
        return _fail(name, _worded(error, options))


def _worded(error: Exception, options: Any) -> str:
    """What an error says, about an option where it is about an argument."""
    from cliplab.cli.options import option_of, worded

    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the name"
    if not isinstance(error, ArgumentError) or error.name.startswith("-"):
        return worded(str(error), options)
    return worded(f"{option_of(error.name)}: {error.what}", options)


def _fail(name: str, message: str) -> int:
    print(f"cliplab {name}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


# ---- train: the options are those of a recipe --------------------------------------------------

TRAIN = """\
usage: cliplab train STEM ...

Train a shipped checkpoint again. Each recipe has its own options and says what it takes.

stems:
{stems}

examples:
  cliplab train clip --help                options of one recipe
  cliplab train clip

exit code: 0 done; 130 when interrupted, and the same command goes on"""

_FORMER = {"--more": "--second-round-steps"}  # in the commands of shipped cards and tables

# Rounds and pictures that a training can do without; of what else it counts, one is the least.
_MAY_BE_NONE = {"stages", "crops", "locked_steps", "joint_steps", "second_round_steps"}


def _train(typed: Sequence[str]) -> int:
    """Train what was typed -> exit code."""
    if not typed or typed[0] in ("-h", "--help"):
        stems = [f"  {stem:9} {makes}" for stem, makes in RECIPES.items()]
        print(TRAIN.format(stems="\n".join(stems)))
        return 0 if typed else 2
    options = read_recipe(*typed)
    from cliplab.scale import joined

    work, log = options.folder(typed[0]), logging.getLogger("cliplab.training")
    log.handlers[:] = [logging.StreamHandler(sys.stdout)]  # plain lines
    try:
        with joined(pick_device(options.device), work) as (rank, ranks):
            if ranks > 1 and typed[0] != "clip":
                raise ValueError(f"train {typed[0]} runs in one process: start it without torchrun")
            log.setLevel(logging.WARNING if rank else logging.INFO)
            with nullcontext() if rank else held(work, *filter(None, [options.out])):
                importlib.import_module(f"cliplab.training.{typed[0]}").run(options)
    except KeyboardInterrupt:
        print("the same command goes on from the last state that was saved", file=sys.stderr)
        raise
    return 0


def read_recipe(stem: str, *typed: str) -> Any:
    """The options of a recipe."""
    from cliplab.cli.options import flat, parse

    if stem not in RECIPES:
        raise ValueError(unknown_name("recipe", stem, RECIPES))
    recipe = importlib.import_module(f"cliplab.training.{stem}")
    words = [_FORMER.get(word, word) for word in typed if word != "--debug"]
    about, epilog = (recipe.__doc__ or "").strip(), f"examples:\n  cliplab train {stem}"
    options = parse(recipe.Options, words, prog=f"cliplab train {stem}", about=about, epilog=epilog)
    usual = flat(recipe.Options())
    for name, value in flat(options).items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        least = int(isinstance(value, int) and usual[name] > 0 and name not in _MAY_BE_NONE)
        if not least <= value < math.inf:
            raise ArgumentError(name, f"got {value:g}; expected {least} or more")
    return options
