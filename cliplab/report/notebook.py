"""Notebooks and their parameters; what a run is asked for, checked before anything is executed."""

import ast
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cliplab.data import iter_images, read_photos
from cliplab.report.provenance import fingerprint
from cliplab.runtime import data_dir, pick_device, unknown_name

#: Set by whoever executes a notebook: where its last cell writes its results.
RESULTS_PATH = "RESULTS_PATH"
PHOTOS = "PHOTOS"  # the parameter that names the reader's own pictures
MODELS = ("ENCODER", "MODEL")  # those that name a model, perhaps by a path: "openai:model.pt"
_SHIPPED = ("pasture", "pasture-zh", "twin", "glip", "groupvit")  # models, not folders


@dataclass(frozen=True)
class Parameter:
    """One constant of a notebook's cell tagged `parameters`."""

    name: str
    default: Any
    note: str  # the comment behind it


def notebooks_dir() -> Path:
    """Folder of the notebooks: beside the package, else (of a wheel) beside cliplab's data."""
    beside = Path(__file__).resolve().parents[2] / "notebooks"
    return beside if beside.is_dir() else data_dir().parent / "notebooks"


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Paths of the notebooks called `names`, in that order; every lesson for no name.

    A name is the number of a lesson ("2" or "02"), a file name without its ending, also of a lab,
    or a path.

    Raises:
        FileNotFoundError: there are no notebooks, or none of that name.
    """
    folder = notebooks_dir()
    numbered = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not numbered and not any(name.endswith(".ipynb") for name in names):
        raise FileNotFoundError(f"no notebook NN_name.ipynb in {folder}; run from a checkout")
    if not names:
        return list(numbered.values())
    known = numbered | {path.stem: path for path in sorted(folder.glob("labs/[0-9][0-9]_*.ipynb"))}
    return list(dict.fromkeys(_find(name, known, folder) for name in names))


def with_labs(lessons: Sequence[Path]) -> list[Path]:
    """Each lesson, and behind it the labs that go deeper: `labs/NN_*.ipynb` with its number."""
    return [
        path
        for lesson in lessons
        for path in (lesson, *sorted(lesson.parent.glob(f"labs/{lesson.stem[:2]}_*.ipynb")))
    ]


def _find(name: str, numbered: Mapping[str, Path], folder: Path) -> Path:
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name).resolve()
    stem = name.removesuffix(".ipynb")
    for key, path in numbered.items():
        if key == stem or (name.isdigit() and key[:2] == name.zfill(2)):
            return path
    raise FileNotFoundError(f"{unknown_name('notebook', name, numbered)} (in {folder})")


def read_notebook(path: Path) -> Any:
    """The notebook at `path`, as nbformat's version 4 node.

    Raises:
        ValueError: naming a file that is no notebook.
    """
    import nbformat

    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable notebook: {str(error)[:200]}") from error


def tags(cell: Any) -> list[str]:
    """Tags of a cell."""
    return list(cell.metadata.get("tags", []))


def title(notebook: Any) -> str:
    """Text of the first heading, "" if there is none."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    lines = (line for text in texts for line in text.splitlines() if line.startswith("# "))
    return next(lines, "# ")[2:].strip()


def read_parameters(notebook: Any, name: str) -> dict[str, Parameter]:
    """Parameters of a notebook, by name, as papermill reads them in the cell tagged `parameters`.

    Raises:
        ValueError: when there is not exactly one such cell, or it holds anything but constants.
    """
    from papermill.translators import PythonTranslator

    cells = [c for c in notebook.cells if c.cell_type == "code" and "parameters" in tags(c)]
    if len(cells) != 1:
        raise ValueError(f"{name}: {len(cells)} cells have the tag `parameters`; expected one")
    found = PythonTranslator.inspect(cells[0])
    try:
        return {p.name: Parameter(p.name, ast.literal_eval(p.default), p.help) for p in found}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"{name}: the cell tagged `parameters` holds more than constants ({error}); expected "
            "only NAME = constant"
        ) from error


_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


def parse_value(parameter: Parameter, text: str) -> Any:
    """`text` from the command line as a value of the kind that the parameter's default has.

    Raises:
        ValueError: with what was expected.
    """
    default = parameter.default
    if isinstance(default, str):
        return text
    value: Any = text
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(text.capitalize() if isinstance(default, bool) else text)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    kind_fits = default is None or type(value) is type(default)
    if not kind_fits or (isinstance(value, float) and not math.isfinite(value)):
        expected = _KINDS.get(type(default), type(default).__name__)
        raise ValueError(
            f"parameter {parameter.name}: got {text[:60]!r}; expected {expected}, like {default!r}"
        )
    return value


def bind(
    assignments: Iterable[str], parameters: Mapping[str, Mapping[str, Parameter]]
) -> dict[str, dict[str, Any]]:
    """Values for each notebook from "NAME=VALUE" texts; each goes to all notebooks that know it.

    Args:
        assignments: as typed; of two for one name the later counts.
        parameters: notebook's name -> its parameters.

    Raises:
        ValueError: for a text without "=", an unknown name (with the nearest), a wrong kind.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in parameters}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ValueError(f"{assignment}: expected NAME=VALUE, for instance QUICK=True")
        takers = [key for key, known in parameters.items() if name in known]
        if not takers:
            raise ValueError(
                unknown_name("parameter", name, dict.fromkeys(chain(*parameters.values())))
            )
        for key in takers:
            values[key][name] = parse_value(parameters[key][name], text)
    return values


# ---- what a notebook asks for in its first cells -------------------------------------------------


def open_inputs(
    load: Callable[..., Any], *, device: str = "auto", split_seed: int | None = None, **given: str
) -> list[Any]:
    """What the parameters of a notebook name, opened before anything is computed.

    Args:
        load: (name, device=) -> the model of that name.
        device: of the model.
        split_seed: pictures must have classes, and are dealt into train, val and test by this seed.
        given: the parameters by name: PHOTOS, of which "" gives None, and those that name a model.

    Raises:
        ValueError: with a line for each parameter whose value cannot be had, and what to do.
    """
    pick_device(device)
    opened, wrong = [], []
    for name, value in given.items():
        try:
            is_model = name != PHOTOS
            opened.append(load(value, device=device) if is_model else _photos(value, split_seed))
        except (OSError, ValueError, ImportError) as error:
            wrong.append(f"parameter {name}: got {value!r}; {error}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return opened


def _photos(source: str, split_seed: int | None) -> Any:
    if not source:
        return None
    found, unreadable = read_photos(source), list[Any]()
    if not any(iter_images((one.path for one in found), unreadable)):
        raise ValueError(f"no picture in it can be read: {unreadable[0]}")
    if split_seed is not None and len(found.class_names) < 2:
        raise ValueError("its pictures have fewer than two classes; give each class a sub-folder")
    return found if split_seed is None else found.with_splits(seed=split_seed)


# ---- what a run is asked for ------------------------------------------------------------------


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


def plan(request: Request) -> list[Job]:
    """Jobs for a request.

    Raises:
        FileNotFoundError: for an unknown notebook.
        ValueError: for an unknown parameter, a wrong value, or a notebook without RESULTS_PATH.
    """
    sources = find_notebooks(request.notebooks)
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
