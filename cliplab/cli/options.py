"""Options: dataclasses that say what a command can be told, and their reading by tyro.

A command's `Options` is made of groups; a group is a dataclass whose fields are the options. The
groups that several commands share are here.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from itertools import groupby, takewhile
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal, TypeVar

import tyro

T = TypeVar("T")

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --force, without a --no-force
Positional = tyro.conf.Positional
Repeatable = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]  # -p A -p B

_CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
_BAD_VALUE = re.compile(r"Error parsing (\S+): [^'\"]*?\[?(['\"].*['\"])\]?")
_NO_DEFAULT = re.compile(r"\s*\((?:default:\s*(?:None|False|)|required)\)")


# Arguments that an option has another name for; the others are called alike.
_OPTIONS = {
    "class_names": "--labels", "few_shot": "--examples", "per_class": "--shots",
    "few_shot.TemperatureScaling": "--method temperature", "prompt": "--phrases",
    "templates": "--template",
}  # fmt: skip


class UsageError(ValueError):
    """Options that cannot be read."""


def opt(metavar: str | None, *aliases: str, help: str | None = None) -> Any:
    """What `Annotated` tells of an option; its help is the docstring below the field."""
    return tyro.conf.arg(metavar=metavar, help=help, aliases=aliases or None)


Device = Annotated[str, opt("NAME", help="auto, cpu, cuda or mps")]
Offline = Annotated[Flag, opt(None, help="never use the network, whatever is missing")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command can be told."""

    debug: Flag = False
    """show the traceback of an error"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the pictures are."""

    source: Annotated[Path, Positional, opt("SOURCE")]
    """images, see above"""
    kind: Literal["auto", "folder", "csv", "coco", "yolo"] = "auto"
    """what SOURCE is; auto: by its looks"""
    images: Annotated[Path | None, opt("FOLDER")] = None
    """where the images are, if not beside SOURCE"""
    split: Annotated[str | None, opt("NAME")] = None
    """only this part of SOURCE, such as test"""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What reads pictures and texts."""

    encoder: Annotated[str, opt("SPEC")]
    """pasture, pasture-zh, openai:<name or .pt>, modelscope:<id>[@revision] or <folder>,
    hf:<repo>[@revision] or <folder>, open_clip:<architecture>/<tag or file>"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is quicker on processors that have it, and a little coarser"""
    device: Device = "auto"
    batch_size: Annotated[int, opt("N")] = 64
    """images at a time"""
    offline: Offline = False


@dataclass(frozen=True, kw_only=True)
class CachedEncoding(Encoding):
    """What reads pictures and texts, and remembers them."""

    no_cache: Flag = False
    """neither use nor keep what was encoded: in the folder cliplab of your user cache, or in
    $CLIPLAB_CACHE, from where the next run or one that was stopped goes on"""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("FILE")] = None
    """the main result"""
    html: Annotated[Path | None, opt("HTML")] = None
    """a gallery to look through"""
    json: Annotated[Path | None, opt("JSON")] = None
    """the report for other programs"""
    force: Flag = False
    """overwrite existing output files"""


@dataclass(frozen=True)
class Call:
    """How a command is called, with the texts around its options in `--help`."""

    options: type[Any]  # a dataclass made of groups
    about: str
    epilog: str  # examples, exit codes
    run: Callable[[Any], int]  # options -> exit code


EXIT_CODES = """\
exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""


# ---- what libraries say --------------------------------------------------------------------


def option_of(argument: str) -> str:
    """The option that an argument of a library is given by."""
    return _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")


def worded(text: str, options: Any) -> str:
    """A library's sentence with options in place of arguments, which it has in backquotes.

    Brackets around one that this command has no option for are left out.
    """
    given = flat(options) if options else {}
    if "`" in str([*given.values()]):  # a user's own backquotes are no argument's
        return text
    known = {option_of(name) for name in given}

    def typed(found: re.Match[str]) -> str:
        option = option_of(found[1])
        return option if option.split()[0] in known else found[0]

    return re.sub(r" \([^()`]*`[\w.]+`[^()`]*\)", "", re.sub(r"`([\w.]+)`", typed, text))


# ---- reading -------------------------------------------------------------------------------


def parse(options: type[T], typed: Sequence[str], *, prog: str, about: str, epilog: str) -> T:
    """What was typed, as `options`, a dataclass made of groups; the texts are for `--help`.

    Raises:
        UsageError: words that are no options, or not what an option takes.
        SystemExit: 0, after `--help` was shown.
    """
    out, err = io.StringIO(), io.StringIO()  # tyro draws boxes; a file gets plain text
    try:
        with redirect_stdout(out), redirect_stderr(err):
            read = tyro.cli(options, prog=prog, description="", args=typed, config=_CONFIG)
    except SystemExit as end:
        if end.code:
            raise UsageError(f"{_message(err.getvalue())}; see {prog} --help") from None
        print(_page(out.getvalue(), about, epilog))
        raise
    if "" in typed and "." not in typed and Path() in flat(read).values():
        raise UsageError("got an empty path; give one, or . for the folder where you are")
    for name, value in flat(read).items():
        option = f"--{name.replace('_', '-')}"
        if value == () and option in typed and name != "background":
            raise UsageError(f"{option}: nothing follows; expected a value or more")
    return read


def _page(help_text: str, about: str, epilog: str) -> str:
    """tyro's help with our texts in it, without its rules and without defaults that say nothing."""
    usage, _, rest = help_text.strip().partition("\n\n")
    rest = re.sub(r"^ (\w+) options +$", r" \1", rest, flags=re.MULTILINE)
    rest = re.sub(r"\{?\[(\w+) \[\1 \.\.\.\]\]\}?", r"\1 ...", _NO_DEFAULT.sub("", rest))
    lines = [line.rstrip() for line in rest.splitlines()]
    lines = [line for line in lines if not set(line) <= {"-", " "} or not line]
    return "\n\n".join([usage, about, "\n".join(_flowing(lines)).strip("\n"), epilog])


def _margin(line: str) -> str:
    """The spaces before a line of help that goes on; "" before others."""
    found = re.match(r" {10,}", line)
    return found[0] if found else ""


def _flowing(lines: Sequence[str]) -> Iterator[str]:
    """The lines of an option's help filled again: its docstring has breaks of its own."""
    for margin, some in groupby(lines, _margin):
        if not margin:
            yield from some
            continue
        text = " ".join(map(str.strip, some))
        yield from wrap(text, 80, initial_indent=margin, subsequent_indent=margin)


def _message(box: str) -> str:
    """The first paragraph of what tyro prints about an error, and the option it thinks of."""
    title, _, *rows = [line.strip() for line in box.strip().splitlines()]
    if title == "Required options":
        return f"missing: {rows[1]}"
    said = takewhile(lambda row: row and not row.startswith("---"), rows)
    message = " ".join(said).rstrip(".")
    bad = _BAD_VALUE.fullmatch(message)  # in the words of Python's types
    if bad and (takes := re.search(rf"^ +{bad[1]} (.+?) *$", box, re.MULTILINE)):
        number = "a whole number" if "int()" in box else "a number" if "to float" in box else ""
        return f"{bad[1]}: got {bad[2]}; expected {number or takes[1]}"
    if absent := re.match(r"Missing value for argument '(\S+)'", message):
        return f"{absent[1]}: nothing follows; expected a value"
    if (unread := message.removeprefix("Unrecognized options: ")) != message:
        typed = [word.partition("=")[0] for word in unread.split(", ") if word.startswith("-")]
        close = re.search(r"(?:Perhaps you meant|similar to --[\w-]+):\s+(--[\w-]+)", box)
        hint = f"; did you mean {close[1]}" if close else ""
        if not typed:
            return f"nothing takes {unread!r}; drop it, or quote words that belong together"
        return f"unknown option {', '.join(typed)}{hint}"
    message = re.sub(r"(?<=argument )'[a-z]\w*\.(\w+)'", lambda one: one[1].upper(), message)
    return re.sub(r"(?<=\()'.+'(?=\))", _in_order, message)


def _in_order(choices: re.Match[str]) -> str:
    """What can be typed; tyro has it in another order every time, and None among it."""
    return ", ".join(sorted(set(choices[0].split(", ")) - {"'None'"}))


def flat(options: Any) -> dict[str, Any]:
    """Every option by its name, whatever group it is in."""
    found: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        found |= flat(value) if is_dataclass(value) else {field.name: value}
    return found
