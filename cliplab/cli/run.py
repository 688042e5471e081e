"""`cliplab run` and `cliplab report`: execute notebooks; make the page again, compare two runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from cliplab import report
from cliplab.cli.options import Call, Common, Flag, Positional, Repeatable, opt
from cliplab.cli.tables import aligned

ABOUT = """\
Execute notebooks and leave a folder with a report to hand in: index.html (one file, no network
needed), results.json, the executed notebooks and their figures.

The folder is complete when it has its name; until then it is called NAME.unfinished, and an
interrupted run continues where it stopped with --resume. A notebook that fails does not keep the
others from running."""

EPILOG = """\
examples:
  python -m cliplab run                              all notebooks, into runs/DATE-TIME
  python -m cliplab run 02 -p QUICK=True             one notebook, with fewer images
  python -m cliplab run --student "Li Lei" --out runs/homework-1
  python -m cliplab run --resume                     continue the latest interrupted run

exit code: 0 all ran, 1 a notebook failed, 2 the command is wrong, 130 interrupted"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `run` can be told."""

    notebooks: Annotated[tuple[str, ...], Positional, opt("[NN ...]")] = ()
    """number, name or path of a notebook; none: all"""
    parameter: Annotated[Repeatable, opt("NAME=VALUE", "-p")] = ()
    """set a notebook's parameter; goes to every notebook that knows it"""
    out: Annotated[Path | None, opt("FOLDER")] = None
    """the run; default: runs/DATE-TIME"""
    timeout: Annotated[float, opt("S")] = 1800.0
    """seconds for each notebook, then it is ended"""
    student: Annotated[str, opt("NAME")] = ""
    """name on the report"""
    resume: Flag = False
    """continue an interrupted run, with its own notebooks and parameters"""
    labs: Flag = False
    """the labs of these notebooks as well, which go deeper"""


def run(options: Options) -> int:
    """Carry out the command -> exit code."""
    if not 0 < options.timeout < math.inf:
        raise ValueError(f"--timeout: got {options.timeout:g}; expected seconds above 0")
    names = options.notebooks
    if options.labs:
        names = tuple(path.stem for path in report.with_labs(report.find_notebooks(names)))
    asked = report.Request(names, options.parameter, options.timeout, options.student)
    if options.resume:
        with report.old_run(options.out) as (final, before):
            request = _resumed(asked, before)
            return _carry_out(report.plan(request), request, final)
    jobs = report.plan(asked)
    with report.new_run(options.out) as final:
        return _carry_out(jobs, asked, final)


def _resumed(asked: report.Request, before: report.Request) -> report.Request:
    """What a run goes on with: what it was asked for, but for a name and a time that are new."""
    notebooks, given = asked.notebooks or before.notebooks, asked.parameters or before.parameters
    if (notebooks, given) != (before.notebooks, before.parameters):
        raise ValueError(
            "--resume goes on with the notebooks and parameters of the run; leave them out, or "
            "start another run without --resume"
        )
    timeout_s = before.timeout_s if asked.timeout_s == Options.timeout else asked.timeout_s
    return replace(before, student=asked.student or before.student, timeout_s=timeout_s)


def _carry_out(jobs: Sequence[report.Job], request: report.Request, final: Path) -> int:
    """Execute, and leave the folder -> exit code; what one that failed left is said."""
    work = report.unfinished(final)
    again = f"python -m cliplab run --resume --out {_quoted(final)}"
    try:
        state = report.carry_out(jobs, request, final, tell)
        records = state["notebooks"]
        failed = {name: one["notebook"] for name, one in records.items() if not one["finished"]}
        for name, kept in failed.items():
            where = f"executed until there, kept in {work / kept}" if kept else "nothing is kept"
            print(f"{name}: {where}", file=sys.stderr)
        if failed:
            print(
                f"{len(failed)} of {len(records)} failed; mend it, then: {again}", file=sys.stderr
            )
            return 1
        report.write_page(state | {"finished": True}, work)
        report.finish(state, final)
    except (KeyboardInterrupt, OSError):
        if work.is_dir():
            print(f"\nwhat was executed is kept; continue with: {again}")
            print(f"or make a page of it: python -m cliplab report {_quoted(work)}")
        raise
    print(f"report: {final / 'index.html'}")
    return 0


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)  # as every system's shell reads it


def tell(job: report.Job, seconds: float | None, failure: report.Failure | None) -> None:
    """Say how a notebook ended; without seconds it had ended before."""
    if failure:
        print(f"{job.name}  FAILED after {seconds:.0f} s, {failure}", file=sys.stderr)
        return
    how = "before, unchanged" if seconds is None else f"in {seconds:.0f} s"
    print(f"{job.name}  done {how}", flush=True)


# ---- report -----------------------------------------------------------------------------------

REPORT_ABOUT = """\
Make the index.html of a run again (with a name on it, for instance), set the results of two runs
side by side, or gather the runs of a class."""

REPORT_EPILOG = """\
examples:
  cliplab report runs/homework-1 --student "Li Lei"
  cliplab report --compare runs/monday runs/tuesday --rtol 0.02
  cliplab report --class hand-ins runs/mine

exit code: 0 made, or all results agree; 1 some results differ by more than the tolerance, or some
hand-ins cannot be read; 2 the command is wrong"""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Common):
    """What `report` can be told."""

    folder: Annotated[Path | None, Positional, opt("[RUN]")] = None
    """folder of a run"""
    student: Annotated[str | None, opt("NAME")] = None
    """name on the report; default: as it was"""
    compare: Annotated[tuple[Path, Path] | None, opt("A B")] = None
    """compare two runs instead"""
    hand_ins: Annotated[Path | None, tyro.conf.arg(name="class", metavar="FOLDER")] = None
    """a page and a table of a class, whose runs FOLDER has; RUN: with what is expected"""
    rtol: Annotated[float, opt("R")] = 0.01
    """relative difference that numbers may have"""


def make_report(options: ReportOptions) -> int:
    """Make the page or the comparison -> exit code."""
    folder, compare, hand_ins = options.folder, options.compare, options.hand_ins
    if hand_ins is not None and compare is None:
        return _gather(hand_ins, folder, options.rtol)
    if folder is None and compare is not None and hand_ins is None:
        return _compare(compare, options.rtol)
    if folder is None or compare is not None:
        raise ValueError("give one RUN, or --compare A B, or --class FOLDER; see `report --help`")
    if options.student is not None:
        report.put_name(folder, options.student)
    state = report.load(folder)
    print(f"report: {report.write_page(state, folder)}")
    report.write_crate(state, folder)
    return 0


def _gather(hand_ins: Path, mine: Path | None, rtol: float) -> int:
    works = report.write_class(hand_ins, report.load(mine) if mine else None, rtol)
    if not works:
        print(f"{hand_ins}: there are no hand-ins", file=sys.stderr)
    for work in (work for work in works if not work.notebook):
        print(f"{work.folder}: {work.state}", file=sys.stderr)
    print(f"report: {hand_ins / 'class.html'}, {hand_ins / 'class.csv'}")
    return int(not all(work.notebook for work in works))


def _compare(folders: tuple[Path, Path], rtol: float) -> int:
    a, b = (report.load(folder) for folder in folders)
    names = [folder.name for folder in folders]
    left, right = report.origin(a), report.origin(b)
    unlike = [key for key in left | right if left.get(key) != right.get(key)]
    rows = [[key, _short(left.get(key)), _short(right.get(key))] for key in unlike]
    print("\n".join([*aligned([["made from", *names], *rows]), ""] if rows else []))
    differences = report.compare(a, b, rtol)
    if not differences:
        raise ValueError("neither run has results to compare")
    print("\n".join(_table(differences, names)))
    out = sum(not d.agrees for d in differences)
    print(f"\n{out} of {len(differences)} out of tolerance (rtol {rtol:g})")
    return 1 if out else 0


def _table(differences: Sequence[report.Difference], names: Sequence[str]) -> Iterator[str]:
    """The differences as text, a mark before each that is out of tolerance."""
    rows = [["", "result", *names, "difference"]]
    for d in differences:
        change = "" if d.relative is None else f"{d.relative:+.2%}" if d.relative else "0"
        rows.append(
            ["" if d.agrees else "*", f"{d.notebook}: {d.key}", _short(d.a), _short(d.b), change]
        )
    return aligned(rows)


def _short(value: Any) -> str:
    text = "-" if value is None else report.show(value)
    return text if len(text) <= 28 else text[:27] + "…"


RUN = Call(Options, ABOUT, EPILOG, run)
REPORT = Call(ReportOptions, REPORT_ABOUT, REPORT_EPILOG, make_report)
