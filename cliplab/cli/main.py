"""The command line: ``python -m cliplab COMMAND``, or ``cliplab COMMAND``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A sub-command; its module is imported only when it is chosen."""

    module: str  # has add_arguments(parser) and run(args) -> int
    help: str


COMMANDS = {
    "run": Command("cliplab.cli.run", "execute notebooks and leave a report"),
    "report": Command("cliplab.cli.report", "make a report again, or compare two runs"),
    "classify": Command("cliplab.cli.classify", "sort a folder of images by labels of yours"),
    "detect": Command("cliplab.cli.detect", "find what you have words for, as boxes"),
    "segment": Command("cliplab.cli.segment", "label every pixel with words of yours"),
    "evaluate": Command("cliplab.cli.evaluate", "zero-shot ImageNet, as the papers do it"),
    "train": Command("cliplab.cli.train", "train a shipped checkpoint again"),
    "bench": Command("cliplab.cli.bench", "run the benchmarks"),
    "doctor": Command("cliplab.cli.doctor", "check this installation, and say what to mend"),
}

EXAMPLES = """\
examples:
  python -m cliplab run                    execute all notebooks, report in runs/
  python -m cliplab classify photos --labels "a sheep standing" "a sheep lying down"
  python -m cliplab detect photos --labels "sheep lying down" goat --html gallery.html
  python -m cliplab doctor                 when something does not work
  python -m cliplab COMMAND --help         everything about one command"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions and examples, and a column wide enough for them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=96)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the `chosen` command only."""
    from cliplab import __version__

    parser = argparse.ArgumentParser(
        prog="cliplab",
        description="Image-text models, from a contrastive loss to segmentation without labels.",
        epilog=EXAMPLES,
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"cliplab {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, formatter_class=Formatter)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            importlib.import_module(command.module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit code: 0 good, 1 something it looked at is not good, 2 it was called wrongly or
        could not work, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    if not arguments:
        build_parser().print_help()
        return 2
    if chosen is None and not arguments[0].startswith("-"):
        from cliplab.runtime import unknown_name

        print(f"cliplab: error: {unknown_name('command', arguments[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        parser = build_parser(chosen)
    except ImportError as error:
        return _fail(chosen, f"{error}; a part is missing: pip install -e '.[all]'")
    try:
        args = parser.parse_args(arguments)
    except SystemExit as end:  # argparse has already said why
        return int(end.code or 0)
    return _call(str(chosen), args)


def _call(chosen: str, args: argparse.Namespace) -> int:
    """Run the command; what users can cause becomes one line."""
    try:
        return int(importlib.import_module(COMMANDS[chosen].module).run(args))
    except SystemExit as end:  # of the second parser of `train`
        return int(end.code or 0)
    except KeyboardInterrupt:
        print(f"cliplab {chosen}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        return 0
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        return _fail(chosen, str(error))


def _fail(chosen: str | None, message: str) -> int:
    print(f"cliplab {chosen}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
