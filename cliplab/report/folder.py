"""A run on disk: a folder that is complete under its name, and `NAME.unfinished` until then."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cliplab.report import provenance
from cliplab.report.crate import write_crate
from cliplab.report.execute import Failure, execute, keep, write_figures
from cliplab.report.notebook import RESULTS_PATH, Job, Request
from cliplab.runtime import held, write_json

RESULTS = "results.json"
_RUNS = Path("runs")  # where the command is given
_SUFFIX = ".unfinished"
_FORMAT = 1

End = Callable[[Job, float | None, Failure | None], None]  # seconds, None: it was done before


# ---- places --------------------------------------------------------------------------------


def unfinished(final: Path) -> Path:
    """Where the run that will be `final` is written until it is complete."""
    return final.with_name(final.name + _SUFFIX)


@contextmanager
def new_run(out: Path | None) -> Iterator[Path]:
    """Path of a new run, this process's alone; by default named after the time.

    Raises:
        FileExistsError: when a finished or an interrupted run of that name is there.
        BlockingIOError: when it is at work.
    """
    final = out or _free_name()
    with held(unfinished(final)):
        for path in (final, unfinished(final) / RESULTS):
            if path.exists():
                raise FileExistsError(
                    f"{path} exists, and no run is overwritten; resume it if it is unfinished, "
                    "choose another folder, or remove it first"
                )
        yield final


def _free_name() -> Path:
    """A run called after the time, whose folder is made, so that it is nobody else's."""
    while True:
        final = _RUNS / datetime.now().strftime("%Y-%m-%d-%H%M%S")
        with suppress(FileExistsError):  # another run of the same second
            unfinished(final).mkdir(parents=True)
            if not final.exists():  # so quick was the other
                return final
            unfinished(final).rmdir()
        time.sleep(0.2)


@contextmanager
def old_run(out: Path | None) -> Iterator[tuple[Path, Request]]:
    """Path and request of the interrupted run `out`, by default the latest; this process's alone.

    Raises:
        FileNotFoundError: when there is none.
        BlockingIOError: when it is at work.
    """
    waiting = sorted(_RUNS.glob(f"*{_SUFFIX}/{RESULTS}"), key=lambda path: path.stat().st_mtime)
    work = unfinished(out) if out else waiting[-1].parent if waiting else _RUNS / f"*{_SUFFIX}"
    with held(work):
        if not (work / RESULTS).is_file():
            raise FileNotFoundError(f"no interrupted run {work}: start a new one")
        asked: dict[str, Any] = load(work)["request"]
        asked |= {name: tuple(asked[name]) for name in ("notebooks", "parameters")}
        yield work.with_name(work.name.removesuffix(_SUFFIX)), Request(**asked)


def put_name(folder: Path, student: str) -> None:
    """Put a student's name on a run that is not at work."""
    with held(folder):
        write_json(folder / RESULTS, load(folder) | {"student": student})


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


def carry_out(jobs: Sequence[Job], request: Request, final: Path, end: End) -> dict[str, Any]:
    """Execute the jobs that are not done yet; the state, as written to results.json.

    A notebook that fails does not keep the others from running. Before and after each,
    results.json in `NAME.unfinished` says what is done: an interruption loses one notebook at most.
    """
    work, now = unfinished(final), provenance.snapshot()
    before = load(work) if (work / RESULTS).exists() else {"notebooks": {}}
    state: dict[str, Any] = {
        "format": _FORMAT,
        "finished": False,
        "started": before.get("started", _clock()),
        "resumed": before.get("resumed", []) + [_clock()] * ("started" in before),
        "student": request.student,
        "request": asdict(request),
        **now,
        "notebooks": before["notebooks"],
    }
    write_crate(state, work)  # takes away that of a run that was killed before it had its name
    for job in jobs:
        begun = _begun(job)
        key = _key(begun, now)
        if state["notebooks"].get(job.name, {}).get("key") == key:
            end(job, None, None)
            continue
        for left in work.glob(f"{job.name}.partial.*"):
            left.unlink()
        state["notebooks"][job.name] = begun
        _save(state, work)
        record = begun | _one(job, request, work, end)
        state["notebooks"][job.name] = record | ({"key": key} if record["finished"] else {})
        _save(state, work)
    return state


def _clock() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _save(state: dict[str, Any], work: Path) -> None:
    """Write what is done; the last time counts as the end of the run."""
    write_json(work / RESULTS, state | {"ended": _clock()})


def _begun(job: Job) -> dict[str, Any]:
    """Record of a notebook before its first cell; one that is interrupted keeps it."""
    return {
        "title": job.title,
        "finished": False,
        "started": _clock(),
        "seconds": 0.0,
        "parameters": job.parameters,
        "inputs": job.inputs(),
        "source_sha256": job.sha256,
        "notebook": f"{job.name}.partial.ipynb",
        "results": {},
        "figures": [],
    }


def _key(begun: dict[str, Any], now: dict[str, Any]) -> str:
    """Equal for two executions that must give the same: notebook, what it reads, code, weights."""
    own = [begun[name] for name in ("source_sha256", "parameters", "inputs")]
    shared = [now[name] for name in ("code_sha256", "checkpoints", "versions")]
    machine = [now["machine"].get(name) for name in ("threads", "device")]
    return hashlib.sha256(json.dumps(own + shared + machine, sort_keys=True).encode()).hexdigest()


def _one(job: Job, request: Request, work: Path, end: End) -> dict[str, Any]:
    """Execute one notebook into `work`; what that adds to its record."""
    partial, found = work / f"{job.name}.partial.ipynb", work / f"{job.name}.partial.json"
    begin, parameters = time.monotonic(), job.injected | {RESULTS_PATH: job.path_to(found)}
    failure = execute(job.source, partial, parameters=parameters, timeout_s=request.timeout_s)
    seconds = round(time.monotonic() - begin, 1)
    if failure is None and not found.exists():
        missing = "no cell called save_results(..., RESULTS_PATH)"
        failure = Failure(job.cells, job.cells, "", missing)
    kept = keep(partial, job.source, work / "notebooks", failed=failure is not None)
    end(job, seconds, failure)
    record: dict[str, Any] = {
        "finished": failure is None,
        "ended": _clock(),
        "seconds": seconds,
        "notebook": kept.relative_to(work).as_posix() if kept else "",
    }
    if failure:
        return record | {"failure": asdict(failure)}
    results = json.loads(found.read_text(encoding="utf-8"))
    found.unlink()
    figures = write_figures(kept, work / "figures") if kept else []
    names = [path.relative_to(work).as_posix() for path in figures]
    return record | {"results": results, "figures": names}


def finish(state: dict[str, Any], final: Path) -> None:
    """Give the complete run its name, and make it an RO-Crate.

    Raises:
        FileExistsError: when somebody made that name in the meantime.
    """
    work = unfinished(final)
    seconds = sum(record["seconds"] for record in state["notebooks"].values())
    _save(state | {"finished": True, "seconds": round(seconds, 1)}, work)
    if final.exists():  # os.replace would put up with an empty folder
        raise FileExistsError(f"{final} appeared meanwhile; the run stays in {work}")
    write_crate(load(work), work)
    os.replace(work, final)
