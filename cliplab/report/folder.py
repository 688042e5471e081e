"""A run on disk: a folder that is complete under its name, and `NAME.unfinished` until then."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cliplab.report import provenance
from cliplab.report.execute import Failure, execute
from cliplab.report.notebook import (
    RESULTS_PATH,
    Parameter,
    bind,
    find_notebooks,
    read_notebook,
    read_parameters,
    tags,
    title,
)
from cliplab.report.outputs import keep, write_figures
from cliplab.runtime import write_json

RESULTS = "results.json"
_SUFFIX = ".unfinished"
_FORMAT = 1


PHOTOS = "PHOTOS"  # the parameter that names the reader's own pictures
MODELS = ("ENCODER", "MODEL")  # those that name a model, perhaps by a path: "openai:model.pt"
# Models, whatever folders are called so; `encoders.LOADERS` has the first two, and loads torch.
_SHIPPED = ("pasture", "pasture-zh", "twin")


@dataclass(frozen=True)
class Request:
    """What a run was asked for; kept in results.json, so that --resume needs no repetition."""

    notebooks: tuple[str, ...] = ()  # as find_notebooks takes them; none: all
    parameters: tuple[str, ...] = ()  # "NAME=VALUE"
    timeout_s: float = 1800.0  # for each notebook
    student: str = ""


@dataclass(frozen=True)
class Job:
    """One notebook of a run, with everything about it checked."""

    source: Path
    title: str
    parameters: dict[str, Any]  # all of them, without RESULTS_PATH
    given: dict[str, Any]  # those that differ from the notebook's defaults
    cells: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the notebook's file, without its ending."""
        return self.source.stem


class Watcher(Protocol):
    """Who is told how a run proceeds."""

    def start(self, job: Job) -> Callable[[int], None]:
        """A notebook starts; the result is called with the index of each of its cells."""

    def end(self, job: Job, seconds: float, failure: Failure | None) -> None:
        """A notebook ended."""

    def reuse(self, job: Job) -> None:
        """A notebook was finished before the interruption, and nothing changed since."""


# ---- places --------------------------------------------------------------------------------


def runs_dir() -> Path:
    """Folder that runs are put into: `runs` where the command is given."""
    return Path("runs")


def unfinished(final: Path) -> Path:
    """Where the run that will be `final` is written until it is complete."""
    return final.with_name(final.name + _SUFFIX)


def new_run(out: Path | None) -> Path:
    """Path for a new run, by default named after the time.

    Raises:
        FileExistsError: when a finished or an interrupted run of that name is there.
    """
    final = out or runs_dir() / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if final.exists():
        raise FileExistsError(
            f"{final} exists, and a finished run is never overwritten; "
            "choose another --out, or remove it first"
        )
    if unfinished(final).exists():
        raise FileExistsError(
            f"{unfinished(final)} is an interrupted run; continue it with "
            f"--out {final} --resume, choose another --out, or remove it"
        )
    return final


def old_run(out: Path | None) -> tuple[Path, Request]:
    """Path and request of the interrupted run `out`, by default of the latest one.

    Raises:
        FileNotFoundError: when there is none.
    """
    waiting = sorted(runs_dir().glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    works = [unfinished(out)] if out else waiting[-1:]
    if not works or not works[0].is_dir():
        where = unfinished(out) if out else f"{runs_dir()}/*{_SUFFIX}"
        raise FileNotFoundError(f"no interrupted run {where}; start one without --resume")
    state = load(works[0])
    request: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in state["request"].items()
    }
    return works[0].with_name(works[0].name.removesuffix(_SUFFIX)), Request(**request)


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


def plan(request: Request, folder: Path | None = None) -> list[Job]:
    """Jobs for a request, checked before anything is executed.

    Raises:
        FileNotFoundError: for an unknown notebook.
        ValueError: for an unknown parameter, a wrong value, or a notebook without RESULTS_PATH.
    """
    sources = find_notebooks(request.notebooks, folder)
    notebooks = {path.stem: read_notebook(path) for path in sources}
    if len(notebooks) < len(sources):
        raise ValueError(f"two of the notebooks have one name: {', '.join(map(str, sources))}")
    known = {name: read_parameters(nb, name) for name, nb in notebooks.items()}
    for name, parameters in known.items():
        if RESULTS_PATH not in parameters:
            raise ValueError(f'{name}: the cell tagged `parameters` lacks {RESULTS_PATH} = ""')
    given = bind(request.parameters, known)
    return [
        Job(
            source=path,
            title=title(notebooks[path.stem]) or path.stem,
            parameters=_effective(known[path.stem], given[path.stem]),
            given=given[path.stem],
            cells=len(notebooks[path.stem].cells),
            sha256=_source_hash(notebooks[path.stem]),
        )
        for path in sources
    ]


def _effective(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    return {n: given.get(n, p.default) for n, p in known.items() if n != RESULTS_PATH}


def _source_hash(notebook: Any) -> str:
    """Hash of what a notebook says and does; outputs and metadata do not count."""
    cells = [(cell.cell_type, cell.source, tags(cell)) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def carry_out(
    jobs: Sequence[Job], request: Request, final: Path, watcher: Watcher
) -> dict[str, Any]:
    """Execute the jobs that are not done yet; the state, as written to results.json.

    A notebook that fails does not keep the others from running. After each, results.json in
    `NAME.unfinished` says what is done, so that an interruption loses one notebook at most.
    """
    work = unfinished(final)
    now = provenance.snapshot()
    state = _begin(work, request, now)
    wanted = {job.name for job in jobs}
    state["notebooks"] = {k: v for k, v in state["notebooks"].items() if k in wanted}
    for job in jobs:
        key = _key(job, now)
        if state["notebooks"].get(job.name, {}).get("key") == key:
            watcher.reuse(job)
            continue
        record = _one(job, request, work, watcher)
        state["notebooks"][job.name] = record | ({"key": key} if record["finished"] else {})
        write_json(work / RESULTS, state)
    return state


def _begin(work: Path, request: Request, now: dict[str, Any]) -> dict[str, Any]:
    before = load(work)["notebooks"] if (work / RESULTS).exists() else {}
    state = {
        "format": _FORMAT,
        "finished": False,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "student": request.student,
        "request": asdict(request),
        **now,
        "notebooks": before,
    }
    write_json(work / RESULTS, state)
    return state


def _key(job: Job, now: dict[str, Any]) -> str:
    """Equal for two executions that must give the same: notebook, parameters, code and weights."""
    decisive = [job.sha256, job.parameters, now["code_sha256"], now["checkpoints"], now["versions"]]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _one(job: Job, request: Request, work: Path, watcher: Watcher) -> dict[str, Any]:
    """Execute one notebook into `work`; its record."""
    (work / "notebooks").mkdir(exist_ok=True)
    partial, found = work / f"{job.name}.partial.ipynb", work / f"{job.name}.partial.json"
    found.unlink(missing_ok=True)
    on_cell = watcher.start(job)
    start = time.monotonic()
    failure = execute(
        job.source,
        partial,
        parameters=_with_paths(job) | {RESULTS_PATH: _seen_from(job.source.parent, found)},
        timeout_s=request.timeout_s,
        on_cell=on_cell,
    )
    seconds = round(time.monotonic() - start, 1)
    if failure is None and not found.exists():
        failure = Failure(
            job.cells, job.cells, "", "no cell called save_results(..., RESULTS_PATH)"
        )
    kept = keep(partial, job.source, work / "notebooks", failed=failure is not None)
    watcher.end(job, seconds, failure)
    record = {
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
    return record | {
        "results": results,
        "figures": [path.relative_to(work).as_posix() for path in figures],
    }


def _with_paths(job: Job) -> dict[str, Any]:
    """The parameters given, with what lies where the command was called found from there.

    A notebook runs in its own folder, so PHOTOS=../data/photos is meant as seen from it; but people
    who type a path on the command line see it from where they stand.
    """
    moved = {}
    for name in (PHOTOS, *MODELS):
        value = job.given.get(name)
        if isinstance(value, str) and (path := _path_in(value, is_model=name in MODELS)):
            moved[name] = value.removesuffix(path) + _seen_from(job.source.parent, Path(path))
    return job.given | moved


def _path_in(value: str, *, is_model: bool) -> str:
    """The end of a parameter's value that is the path of something here; "" if there is none."""
    if is_model and value in _SHIPPED:
        return ""
    places = [(value, Path.exists)]
    if is_model:
        prefix, _, where = value.partition(":")
        # of these, only a file is meant before a name: openai:ViT-B/32, open_clip:RN50/openai
        places.append((where, Path.is_file if prefix == "openai" else Path.exists))
        if prefix == "open_clip":  # <architecture>/<file>, and ViT-B/32 has a slash of its own
            tails = ["/".join(where.split("/")[count:]) for count in (1, 2)]
            places += [(tail, Path.is_file) for tail in tails]
    return next((text for text, is_there in places if text and is_there(Path(text))), "")


def _seen_from(folder: Path, path: Path) -> str:
    """Path for a notebook in `folder`: relative if it can be, since it is printed in the report."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return path.resolve().as_posix()


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
