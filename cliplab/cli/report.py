"""``python -m cliplab report``: make a run's page again, or compare two runs."""

import argparse
from pathlib import Path

DESCRIPTION = """\
Make the index.html of a run again (with a name on it, for instance), or set the results of two
runs side by side."""

EXAMPLES = """\
examples:
  python -m cliplab report runs/homework-1 --student "Li Lei"
  python -m cliplab report --compare runs/monday runs/tuesday --rtol 0.02

exit code: 0 made, or all results agree; 1 some results differ by more than the tolerance;
2 the command is wrong"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--student", metavar="NAME", help="name on the report (as it was)")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two runs instead"
    )
    parser.add_argument(
        "--rtol", type=float, default=0.01, metavar="R",
        help="relative difference that numbers may have (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--atol", type=float, default=1e-6, metavar="D",
        help="absolute difference that they may have besides (%(default)g)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Carry out the command; its exit code."""
    if (args.folder is None) == (args.compare is None):
        raise ValueError("give one RUN, or --compare A B; see `python -m cliplab report --help`")
    return _rebuild(args.folder, args.student) if args.folder else _compare(args)


def _rebuild(folder: Path, student: str | None) -> int:
    from cliplab.report.folder import RESULTS, load
    from cliplab.report.page import write_page
    from cliplab.runtime import write_json

    state = load(folder)
    if student is not None:
        state["student"] = student
        write_json(folder / RESULTS, state)
    print(f"report: {write_page(state, folder)}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from cliplab.report.compare import compare, table
    from cliplab.report.folder import load

    a, b = (load(folder) for folder in args.compare)
    differences = compare(a, b, rtol=args.rtol, atol=args.atol)
    if not differences:
        raise ValueError("neither run has results to compare")
    print(table(differences, (args.compare[0].name, args.compare[1].name)))
    out = sum(not d.agrees for d in differences)
    print(
        f"\n{out} of {len(differences)} out of tolerance (rtol {args.rtol:g}, atol {args.atol:g})"
    )
    return 1 if out else 0
