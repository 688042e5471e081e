"""A run on disk: a folder that is complete under its name, and `NAME.unfinished` until then."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cliplab.report import provenance
from cliplab.report.execute import Failure, execute
from cliplab.report.jobs import Job, Request
from cliplab.report.notebook import RESULTS_PATH
from cliplab.report.outputs import keep, write_figures
from cliplab.runtime import write_json

RESULTS = "results.json"
_RUNS = Path("runs")  # where the command is given
_SUFFIX = ".unfinished"
_FORMAT = 1


class Watcher(Protocol):
    """Who is told how a run proceeds."""

    def start(self, job: Job) -> Callable[[int], None]:
        """A notebook starts; the result is called with the index of each of its cells."""

    def end(self, job: Job, seconds: float, failure: Failure | None) -> None:
        """A notebook ended."""

    def reuse(self, job: Job) -> None:
        """A notebook was finished before the interruption, and nothing changed since."""


# ---- places --------------------------------------------------------------------------------


def unfinished(final: Path) -> Path:
    """Where the run that will be `final` is written until it is complete."""
    return final.with_name(final.name + _SUFFIX)


def new_run(out: Path | None) -> Path:
    """Path for a new run, by default named after the time.

    Raises:
        FileExistsError: when a finished or an interrupted run of that name is there.
    """
    final = out or _RUNS / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if final.exists():
        raise FileExistsError(
            f"{final} exists, and a finished run is never overwritten; choose another folder, or "
            "remove it first"
        )
    if unfinished(final).exists():
        raise FileExistsError(
            f"{unfinished(final)} is an interrupted run; resume it, choose another folder, or "
            "remove it"
        )
    return final


def old_run(out: Path | None) -> tuple[Path, Request]:
    """Path and request of the interrupted run `out`, by default of the latest one.

    Raises:
        FileNotFoundError: when there is none.
    """
    waiting = sorted(_RUNS.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    works = [unfinished(out)] if out else waiting[-1:]
    if not works or not works[0].is_dir():
        where = unfinished(out) if out else f"{_RUNS}/*{_SUFFIX}"
        raise FileNotFoundError(f"no interrupted run {where}: start a new one")
    asked: dict[str, Any] = load(works[0])["request"]
    asked |= {name: tuple(asked[name]) for name in ("notebooks", "parameters")}
    return works[0].with_name(works[0].name.removesuffix(_SUFFIX)), Request(**asked)


def load(folder: Path) -> dict[str, Any]:
    """What results.json of the run `folder` says.

    Raises:
        FileNotFoundError: when `folder` is no run.
        ValueError: when its results.json is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        hint = f"; did you mean {unfinished(folder)}?" if unfinished(folder).is_dir() else ""
        raise FileNotFoundError(f"{folder} is no run: it has no {RESULTS}{hint}")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return dict(state) | {"notebooks": dict(state["notebooks"])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not what a run writes: {error}") from error


# ---- running -------------------------------------------------------------------------------


def carry_out(
    jobs: Sequence[Job], request: Request, final: Path, watcher: Watcher
) -> dict[str, Any]:
    """Execute the jobs that are not done yet; the state, as written to results.json.

    A notebook that fails does not keep the others from running. After each, results.json in
    `NAME.unfinished` says what is done, so that an interruption loses one notebook at most.
    """
    work, now = unfinished(final), provenance.snapshot()
    before = load(work)["notebooks"] if (work / RESULTS).exists() else {}
    wanted = {job.name for job in jobs}
    state: dict[str, Any] = {
        "format": _FORMAT,
        "finished": False,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "student": request.student,
        "request": asdict(request),
        **now,
        "notebooks": {name: record for name, record in before.items() if name in wanted},
    }
    write_json(work / RESULTS, state)
    for job in jobs:
        key = _key(job, now)
        if state["notebooks"].get(job.name, {}).get("key") == key:
            watcher.reuse(job)
            continue
        record = _one(job, request, work, watcher)
        state["notebooks"][job.name] = record | ({"key": key} if record["finished"] else {})
        write_json(work / RESULTS, state)
    return state


def _key(job: Job, now: dict[str, Any]) -> str:
    """Equal for two executions that must give the same: notebook, parameters, code and weights."""
    decisive = [job.sha256, job.parameters, now["code_sha256"], now["checkpoints"], now["versions"]]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _one(job: Job, request: Request, work: Path, watcher: Watcher) -> dict[str, Any]:
    """Execute one notebook into `work`; its record."""
    partial, found = work / f"{job.name}.partial.ipynb", work / f"{job.name}.partial.json"
    found.unlink(missing_ok=True)
    on_cell, start = watcher.start(job), time.monotonic()
    parameters = job.injected | {RESULTS_PATH: job.path_to(found)}
    failure = execute(
        job.source, partial, parameters=parameters, timeout_s=request.timeout_s, on_cell=on_cell
    )
    seconds = round(time.monotonic() - start, 1)
    if failure is None and not found.exists():
        missing = "no cell called save_results(..., RESULTS_PATH)"
        failure = Failure(job.cells, job.cells, "", missing)
    kept = keep(partial, job.source, work / "notebooks", failed=failure is not None)
    watcher.end(job, seconds, failure)
    record: dict[str, Any] = {
        "title": job.title,
        "finished": failure is None,
        "seconds": seconds,
        "parameters": job.parameters,
        "source_sha256": job.sha256,
        "notebook": kept.relative_to(work).as_posix() if kept else "",
    }
    if failure:
        return record | {"failure": asdict(failure), "results": {}, "figures": []}
    results = json.loads(found.read_text(encoding="utf-8"))
    found.unlink()
    figures = write_figures(kept, work / "figures") if kept else []
    names = [path.relative_to(work).as_posix() for path in figures]
    return record | {"results": results, "figures": names}


def finish(state: dict[str, Any], final: Path) -> None:
    """Give the complete run its name.

    Raises:
        FileExistsError: when somebody made that name in the meantime.
    """
    work = unfinished(final)
    for left in work.glob("*.partial.*"):  # of a notebook that was interrupted and then left out
        left.unlink()
    seconds = sum(record["seconds"] for record in state["notebooks"].values())
    write_json(work / RESULTS, state | {"finished": True, "seconds": round(seconds, 1)})
    if final.exists():  # os.replace would put up with an empty folder
        raise FileExistsError(f"{final} appeared meanwhile; the run stays in {work}")
    os.replace(work, final)
