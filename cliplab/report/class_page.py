"""Hand-ins of a class on one page and in one table: who ran what, what differs, what is alike."""

import csv
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.report import provenance
from cliplab.report.folder import RESULTS, load
from cliplab.report.galleries import write_html
from cliplab.report.notebook import find_notebooks, read_notebook, tags, with_labs
from cliplab.report.page import ATOL, close, lasting, show
from cliplab.runtime import atomic_write

PAGE, TABLE = "class.html", "class.csv"
_COLUMNS = (
    "folder", "name", "notebook", "state", "exercises right", "of", "quiz right", "of quiz",
    "results that differ", "of results", "cells edited", "cells added", "cells removed", "seconds",
    "parameters", "environment", "alike",
)  # fmt: skip
_FEWEST = 3  # hand-ins that say together what is expected
_OWN = 40  # characters of own code in a cell from which on two alike are worth a look
_REPLY = re.compile(r"^\d\d\.(\w+) (right|wrong|not yet)", re.MULTILINE)
_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)

Given = tuple[dict[str, dict[str, Any]], set[str]]  # notebook -> id -> cell; lines of them all


@dataclass
class Work:
    """One notebook that one hand-in executed, or what is wrong with the hand-in."""

    folder: str
    state: str  # "finished", or what is wrong
    name: str = ""
    notebook: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    parameters: str = ""
    seconds: float = 0.0
    environment: str = ""
    replies: dict[str, str] = field(default_factory=dict)  # "1" -> right, of exercise NN.1
    cells: tuple[list[str], ...] = ([], [], [])  # ids of those edited, added, removed
    marks: set[Any] = field(default_factory=set)  # what another's should not have: times, own cells
    differing: list[tuple[str, str, str]] = field(default_factory=list)  # key, got, expected
    compared: int = 0
    alike: list[str] = field(default_factory=list)

    def right(self) -> list[int]:
        """Exercises right, of how many; questions of the quiz right, of how many."""
        kinds = [[self.replies[k] for k in self.replies if k.isdigit() == n] for n in (True, False)]
        return [n for kind in kinds for n in (kind.count("right"), len(kind))]

    def row(self) -> list[Any]:
        """As in the table; text that a spreadsheet would execute begins with an apostrophe."""
        texts = [self.folder, self.name, self.notebook, self.state]
        counts = [*self.right(), len(self.differing), self.compared, *map(len, self.cells)]
        rest = [self.seconds, self.parameters, self.environment, "; ".join(self.alike)]
        return [f"'{c}" if str(c)[:1] in set("=+-@\t\r") else c for c in [*texts, *counts, *rest]]


def write_class(folder: Path, expected: Mapping[str, Any] | None, rtol: float) -> list[Work]:
    """Write class.html and class.csv into `folder`, whose folders are hand-ins -> what they say.

    Args:
        expected: a run (as in results.json) with the results to be had; None: what most
            hand-ins have, where three or more executed a notebook with the same parameters.
        rtol: relative difference of results, where the course's own baselines name none.

    Raises:
        NotADirectoryError: `folder` is none.
        FileExistsError: a file of one of these names is there that is not ours.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one with a folder per hand-in")
    for name, ours in ((PAGE, 'content="cliplab class"'), (TABLE, ",".join(_COLUMNS))):
        path = folder / name
        if path.exists() and ours not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise FileExistsError(f"{path} is there and not ours; move it away, or rename it")
    given = _given_out()
    works = [work for path in sorted(folder.iterdir()) for work in _read(path, given)]
    _compare(works, expected, rtol)
    _find_alike(works)
    write_html(folder / PAGE, "class.html.j2", works=works, folder=folder.name)
    with atomic_write(folder / TABLE, "w") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *(w.row() for w in works)])
    return works


# ---- one hand-in ---------------------------------------------------------------------------


def _given_out() -> Given:
    """The cells of the course's notebooks, and every line of these and of the solutions."""
    paths = with_labs(find_notebooks())
    read = {path.stem: read_notebook(path).cells for path in paths}
    solved = [read_notebook(path).cells for path in paths[0].parent.glob("solutions/*.ipynb")]
    cells = (cell for some in [*read.values(), *solved] for cell in some)
    lines = {line.strip() for cell in cells for line in cell.source.splitlines()}
    return {name: {cell.id: cell for cell in some} for name, some in read.items()}, lines


def _read(path: Path, given: Given) -> Iterator[Work]:
    """The notebooks of a hand-in; what is no run is named."""
    if path.name in (PAGE, TABLE) or path.name.startswith("."):
        return
    if not path.is_dir():
        yield Work(path.name, "no folder; if it is an archive, unpack it into one")
        return
    inner = [p.parent for p in (path / RESULTS, *sorted(path.glob(f"*/{RESULTS}"))) if p.is_file()]
    try:
        state = load(inner[0] if inner else path)
        if not (names := sorted(state["notebooks"])):
            raise ValueError("no notebook was executed")
        yield from [_work(path.name, inner[0], state, name, given) for name in names]
    except _BROKEN as error:
        said = str(error) if isinstance(error, OSError | ValueError) else f"{RESULTS} is damaged"
        yield Work(path.name, " ".join(said.replace(f"{path.parent}/", "").split())[:200])


def _work(folder: str, run: Path, state: Mapping[str, Any], name: str, given: Given) -> Work:
    record, code = state["notebooks"][name], state["code_sha256"][:8]
    said = "finished" if record["finished"] else "not finished"
    if failure := record.get("failure"):
        said = f"stopped at cell {failure['cell']}: {failure['error']}"[:200]
    work = Work(folder, said, str(state["student"]), name, lasting(record["results"]))
    work.parameters = json.dumps(record["parameters"], sort_keys=True)
    work.seconds = float(record["seconds"])
    version, device = state["versions"]["cliplab"], state["machine"]["device"]
    work.environment = f"cliplab {version}, {device}, code {code}"
    times = record.get("started", state["started"]), record["seconds"]
    work.marks.add(("the same execution", *map(str, times)))
    kept = (run / str(record["notebook"])).resolve()
    if kept.is_relative_to(run.resolve()) and kept.is_file():
        _look(work, read_notebook(kept), given)
    return work


def _look(work: Work, notebook: Any, given: Given) -> None:
    """What the cells of an executed notebook reply, and how they differ from those given out."""
    before, lines = given[0].get(work.notebook, {}), given[1]
    sources, seen = {cell.source for cell in before.values()}, set()
    edited, added = list[str](), list[str]()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            work.replies |= dict(_REPLY.findall(text))
        seen |= {key := str(cell.get("id")), cell.source}
        if not before or cell.source in sources or "injected-parameters" in tags(cell):
            continue
        if key not in before:
            added.append(key)
        elif not _is_answer(before[key]):
            edited.append(key)
        stripped = map(str.strip, cell.source.splitlines())
        own = "\n".join(line for line in stripped if line not in lines)
        work.marks |= {("own cells", own)} if len(own) >= _OWN else set()
    removed = [key for key, cell in before.items() if not {key, cell.source} & seen]
    work.cells = edited, added, removed


def _is_answer(cell: Any) -> bool:
    """Whether a cell was given out to be filled in: an exercise, a quiz, a guess."""
    return bool({"exercise", "quiz"} & set(tags(cell))) or cell.source.startswith("guess")


# ---- all of them ---------------------------------------------------------------------------


def _compare(works: list[Work], expected: Mapping[str, Any] | None, rtol: float) -> None:
    """Note which results are out of the range that is expected."""
    groups = defaultdict(list)
    for work in works:
        if work.state == "finished":
            groups[work.notebook, work.parameters].append(work)
    for (name, parameters), some in groups.items():
        wanted, known = _usual(some), _tolerances(name)
        if expected is not None:
            record = expected["notebooks"].get(name, {"parameters": None, "results": {}})
            same = json.dumps(record["parameters"], sort_keys=True) == parameters
            wanted = lasting(record["results"]) if same else {}
        for work in some:
            work.compared = len(wanted)
            for key, value in wanted.items():
                got, near = work.results.get(key), known.get(key, {"rtol": rtol, "atol": ATOL})
                if not close(value, got, rtol=near.get("rtol", 0), atol=near.get("atol", 0)):
                    work.differing.append((key, show(got)[:80], show(value)[:80]))


def _usual(works: list[Work]) -> dict[str, Any]:
    """The median of each result, or what most have; {} if these are too few."""
    found = {}
    for key in sorted({key for work in works for key in work.results}):
        values = [work.results[key] for work in works if key in work.results]
        numbers = [v for v in values if type(v) in (int, float) and v == v]  # NaN is not
        if 2 * len(numbers) > len(works):
            found[key] = statistics.median_low(numbers)
        elif 2 * len(values) > len(works):
            found[key] = json.loads(statistics.mode(sorted(json.dumps(v) for v in values)))
    return found if len(works) >= _FEWEST else {}


def _tolerances(name: str) -> dict[str, Any]:
    """Result -> its tolerance in the course's own baselines, which a checkout has."""
    folder = provenance.root() / "tests" / "baselines"
    found = [p for p in (folder / f"{name}.json", folder / f"{name[:2]}.json") if p.is_file()]
    return json.loads(found[0].read_text(encoding="utf-8")) if found else {}


def _find_alike(works: list[Work]) -> None:
    """Note what two hand-ins share that was not given out."""
    holders = defaultdict(list)
    for work in works:
        for mark in work.marks:
            holders[work.notebook, mark].append(work.folder)
    for work in works:
        others = [(o, m[0]) for m in work.marks for o in holders[work.notebook, m]]
        own = sum(mark[0] == "own cells" for mark in work.marks)
        for (other, what), count in sorted(Counter(others).items()):
            if other != work.folder:
                work.alike.append(f"{other}: {f'{count} of {own} ' * (what == 'own cells')}{what}")
