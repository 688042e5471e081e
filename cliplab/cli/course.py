"""`cliplab course`: a course for nbgrader, from lessons with exercises."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cliplab import report
from cliplab.cli.options import Call, Common, Positional, opt
from cliplab.cli.tables import aligned

ABOUT = """\
Make a course for nbgrader: lessons and labs with solved exercises and hidden tests, from which
nbgrader makes what students get; its configuration, an example of a class, a plan of eight weeks.

It runs without a server and without a network: hand-ins come by mail or on a stick.
docs/teaching.md says how, from handing out to giving back."""

EPILOG = """\
examples:
  python -m cliplab course vision-2027
  python -m cliplab course vision-2027 --lessons 01 02 03 --name "Vision and language 2027"
  cd vision-2027 && nbgrader generate_assignment 01_clip_contrastive_loss

exit code: 0 made; 2 the command is wrong, or FOLDER has something in it"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `course` can be told."""

    folder: Annotated[Path, Positional, opt("FOLDER")]
    """the course, which is made"""
    lessons: Annotated[tuple[str, ...], opt("NN ...")] = ()
    """these lessons, and the labs that go with them; none: all"""
    name: Annotated[str | None, opt("NAME")] = None
    """of the course; none: that of FOLDER"""
    seed: Annotated[int | None, opt("N")] = None
    """of the hidden tests; none: a new one, which stands in the sources alone"""


def run(options: Options) -> int:
    """Make the course, and say what is in it -> exit code."""
    from cliplab.exercises import make_course  # it needs torch, which the help does not

    notebooks = report.with_labs(report.find_notebooks(options.lessons))
    seed = 1000 + secrets.randbelow(10**9) if options.seed is None else options.seed
    name = options.name or options.folder.resolve().name
    made = make_course(options.folder, notebooks, name, seed)
    rows = [["assignment", "exercises"], *([one.name, str(len(one.exercises))] for one in made)]
    print("\n".join(aligned(rows)))
    print(f"\ncourse: {options.folder}; what to do next: {options.folder / 'README.md'}")
    return 0


COURSE = Call(Options, ABOUT, EPILOG, run)
