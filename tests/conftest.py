"""Shared by all tests: options and small notebooks."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from notebook_builder import code, markdown, write

os.environ.setdefault("CLIPLAB_OFFLINE", "1")  # no test may touch the network
# Before torch is imported, and for the kernels of notebooks: on tensors this small two threads wait
# for one another longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-baselines",
        action="store_true",
        help="write tests/baselines/NN.json from what the notebooks find now, tolerances kept",
    )


@pytest.fixture
def ax() -> Iterator[Any]:
    """Axes of a new figure in the house style, whose settings end with the test."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from cliplab.viz import figures

    with mpl.rc_context():
        figures.use_style()
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


@cache
def _load_once(data: str | None, spec: str, **options: Any) -> Any:
    from cliplab.encoders.loading import load_encoder

    return load_encoder(spec, **options)


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands load an encoder once for all tests."""
    from cliplab import encoders

    def load(spec: str, **options: Any) -> Any:
        return _load_once(os.environ.get("CLIPLAB_DATA"), spec, **options)

    monkeypatch.setattr(encoders, "load_encoder", load)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which encoders and ViLD are tiny and random."""
    from detect_world import make_data

    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def world(
    data: Path,
    loaded_once: None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """What is shipped is tiny, and the cache of embeddings empty -> folder of the checkpoints."""
    monkeypatch.setenv("CLIPLAB_DATA", str(data))
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    return data / "checkpoints"


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that `runs/` of a test is its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_notebook(path: Path, *, title: str, step: str = "x = 2 * SIZE") -> Path:
    """A complete notebook of five cells; `step` is its fourth."""
    return write(
        path,
        markdown(f"# {title}\n\nDoes it run?"),
        code(
            "SEED = 0          # of everything\n"
            "QUICK = False     # True: less\n"
            "SIZE = 3          # of the world\n"
            'RESULTS_PATH = ""  # where results go',
            "parameters",
        ),
        code("from cliplab.runtime import save_results", "setup"),
        code(step),
        code('save_results({"x": x, "quick": QUICK}, RESULTS_PATH)', "results"),
    )


@pytest.fixture
def lab(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the n-th notebook of a laboratory that `python -m cliplab run` then finds."""
    folder = in_tmp / "notebooks"
    folder.mkdir()
    monkeypatch.setattr("cliplab.report.notebook.notebooks_dir", lambda: folder)
    # constant, since somebody may be editing the package while its tests run
    monkeypatch.setattr("cliplab.report.provenance.code_hash", lambda: "c0de")

    def make(number: int, step: str = "x = 2 * SIZE") -> Path:
        path = folder / f"{number:02d}_small.ipynb"
        return small_notebook(path, title=f"{number:02d} Small", step=step)

    return make
