"""What a run is asked for, checked before anything is executed."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.data import read_photos
from cliplab.report.notebook import (
    PHOTOS,
    RESULTS_PATH,
    Parameter,
    bind,
    find_notebooks,
    read_notebook,
    read_parameters,
    tags,
    title,
)
from cliplab.report.provenance import fingerprint

MODELS = ("ENCODER", "MODEL")  # those that name a model, perhaps by a path: "openai:model.pt"
_SHIPPED = ("pasture", "pasture-zh", "twin", "glip", "groupvit")  # models, not folders


@dataclass(frozen=True)
class Request:
    """What a run was asked for; kept in results.json, so that a resumed one needs no repetition."""

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
    sha256: str  # of what the notebook says and does; outputs and metadata do not count

    @property
    def name(self) -> str:
        """Name of the notebook's file, without its ending."""
        return self.source.stem

    @property
    def injected(self) -> dict[str, Any]:
        """The parameters given, with what lies where the command was called found from there.

        A notebook runs in its own folder, so PHOTOS=../data/photos is meant as seen from it; but
        people who type a path on the command line see it from where they stand.
        """
        moved = {
            name: self.given[name].removesuffix(path) + self.path_to(Path(path))
            for name, path in _paths_in(self.given, Path()).items()
        }
        return self.given | moved

    def inputs(self) -> dict[str, str]:
        """SHA-256 of the reader's own pictures and models, by parameter."""
        here, found = self.source.parent, {}
        for name, text in _paths_in(self.parameters | self.injected, here).items():
            path = here / text
            files = {path, *path.rglob("*")}
            if name == PHOTOS:  # what a table names may lie elsewhere
                with suppress(OSError, ValueError):  # the notebook says that in its first cells
                    files |= {one.path for one in read_photos(path)}
            found[name] = fingerprint(path, files)
        return found

    def path_to(self, path: Path) -> str:
        """A path as its notebook sees it: relative if it can be, since the report shows it."""
        try:
            return Path(os.path.relpath(path.resolve(), self.source.parent.resolve())).as_posix()
        except ValueError:  # another drive on Windows
            return path.resolve().as_posix()


def _paths_in(parameters: Mapping[str, Any], place: Path) -> dict[str, str]:
    """Of parameters that name pictures or models: the path in each, if it is one from `place`."""
    values = {n: parameters[n] for n in (PHOTOS, *MODELS) if isinstance(parameters.get(n), str)}
    found = {n: _path_in(value, place, is_model=n in MODELS) for n, value in values.items()}
    return {name: path for name, path in found.items() if path}


def _path_in(value: str, place: Path, *, is_model: bool) -> str:
    """The end of a parameter's value that is a path, as seen from `place`; "" if there is none."""
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
    return next((text for text, is_there in places if text and is_there(place / text)), "")


def plan(request: Request, folder: Path | None = None) -> list[Job]:
    """Jobs for a request.

    Raises:
        FileNotFoundError: for an unknown notebook.
        ValueError: for an unknown parameter, a wrong value, or a notebook without RESULTS_PATH.
    """
    sources = find_notebooks(request.notebooks, folder)
    notebooks = {path.stem: read_notebook(path) for path in sources}
    if len(notebooks) < len(sources):
        raise ValueError(f"two of the notebooks have one name: {', '.join(map(str, sources))}")
    known = {name: read_parameters(notebook, name) for name, notebook in notebooks.items()}
    for name, parameters in known.items():
        if not parameters.pop(RESULTS_PATH, None):  # set by the run itself
            raise ValueError(f'{name}: the cell tagged `parameters` lacks {RESULTS_PATH} = ""')
    given = bind(request.parameters, known)
    return [
        _job(path, notebooks[path.stem], known[path.stem], given[path.stem]) for path in sources
    ]


def _job(path: Path, notebook: Any, known: Mapping[str, Parameter], given: dict[str, Any]) -> Job:
    cells = [(cell.cell_type, cell.source, tags(cell)) for cell in notebook.cells]
    digest = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    parameters = {name: p.default for name, p in known.items()} | given
    return Job(path, title(notebook) or path.stem, parameters, given, len(cells), digest)
