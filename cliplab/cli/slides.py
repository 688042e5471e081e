"""`cliplab slides`: a lesson as slides to project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cliplab import report
from cliplab.cli.options import Call, Common, Flag, Positional, opt
from cliplab.cli.skeleton import check_outputs

ABOUT = """\
Make slides of a lesson, to project in class: one HTML file that needs no network, with the text,
the figures and what was printed, and of the code what is short. Press S, → or space to go on, O for
an overview, F for the full screen; ?print-pdf behind the address prints them."""

EPILOG = """\
examples:
  python -m cliplab slides 03                        03_vild_region_classification.slides.html
  python -m cliplab slides 03 --out vild.html
  python -m cliplab slides runs/a/notebooks/03_vild_region_classification.ipynb

exit code: 0 made, 2 the command is wrong"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `slides` can be told."""

    notebook: Annotated[str, Positional, opt("NN")]
    """number, name or path of an executed notebook"""
    out: Annotated[Path | None, opt("FILE")] = None
    """the slides; default: NAME.slides.html where you are"""
    force: Flag = False
    """overwrite FILE"""


def run(options: Options) -> int:
    """Carry out the command -> exit code."""
    (source,) = report.find_notebooks([options.notebook])
    out = options.out or Path(f"{source.stem}.slides.html")
    check_outputs({"--out": out}, force=options.force, inputs={"NN": source})
    print(f"{report.write_slides(source, out)} slides: {out}")
    return 0


SLIDES = Call(Options, ABOUT, EPILOG, run)
