"""`cliplab report`: make a run's page again, or compare two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cliplab.cli.options import Common, Positional, opt
from cliplab.cli.skeleton import aligned

if TYPE_CHECKING:
    from cliplab.report import Difference

ABOUT = """\
Make the index.html of a run again (with a name on it, for instance), or set the results of two
runs side by side."""

EPILOG = """\
examples:
  cliplab report runs/homework-1 --student "Li Lei"
  cliplab report --compare runs/monday runs/tuesday --rtol 0.02

exit code: 0 made, or all results agree; 1 some results differ by more than the tolerance;
2 the command is wrong"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `report` can be told."""

    folder: Annotated[Path | None, Positional, opt("[RUN]")] = None
    """folder of a run"""
    student: Annotated[str | None, opt("NAME")] = None
    """name on the report; default: as it was"""
    compare: Annotated[tuple[Path, Path] | None, opt("A B")] = None
    """compare two runs instead"""
    rtol: Annotated[float, opt("R")] = 0.01
    """relative difference that numbers may have"""
    atol: Annotated[float, opt("D")] = 1e-06
    """absolute difference that they may have besides"""


def run(options: Options) -> int:
    """Make the page or the comparison -> exit code."""
    if options.compare is None and options.folder is not None:
        return _rebuild(options.folder, options.student)
    if options.compare is None or options.folder is not None:
        raise ValueError("give one RUN, or --compare A B; see `cliplab report --help`")
    return _compare(options.compare, rtol=options.rtol, atol=options.atol)


def _rebuild(folder: Path, student: str | None) -> int:
    from cliplab.report import RESULTS, load, write_page
    from cliplab.runtime import write_json

    state = load(folder)
    if student is not None:
        state["student"] = student
        write_json(folder / RESULTS, state)
    print(f"report: {write_page(state, folder)}")
    return 0


def _compare(folders: tuple[Path, Path], *, rtol: float, atol: float) -> int:
    from cliplab.report import compare, load

    a, b = (load(folder) for folder in folders)
    differences = compare(a, b, rtol=rtol, atol=atol)
    if not differences:
        raise ValueError("neither run has results to compare")
    print("\n".join(_table(differences, [folder.name for folder in folders])))
    out = sum(not d.agrees for d in differences)
    print(f"\n{out} of {len(differences)} out of tolerance (rtol {rtol:g}, atol {atol:g})")
    return 1 if out else 0


def _table(differences: Sequence[Difference], names: Sequence[str]) -> Iterator[str]:
    """The differences as text, a mark before each that is out of tolerance."""
    rows, notebook = [["", "result", *names, "difference"]], ""
    for d in differences:
        if d.notebook != notebook:
            notebook = d.notebook
            rows.append(["", notebook, "", "", ""])
        change = "" if d.relative is None else f"{d.relative:+.2%}" if d.relative else "0"
        rows.append(["" if d.agrees else "*", f"  {d.key}", _short(d.a), _short(d.b), change])
    return aligned(rows)


def _short(value: Any) -> str:
    from cliplab.report import show

    text = "-" if value is None else show(value)
    return text if len(text) <= 28 else text[:27] + "…"
