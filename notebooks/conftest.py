"""`pytest --nbval-lax notebooks/`: every notebook, in its quick form, prints what it did before.

nbval executes the cells and compares what those tagged `nbval-check-output` print. Before that,
papermill puts QUICK=True into the notebooks that know it. With $CLIPLAB_RESULTS set to a folder,
each notebook also leaves its results there, as <name>.json.
"""

import os
import tempfile
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from cliplab.report import read_parameters

SANITIZE = Path(__file__).parent / "nbval_sanitize.cfg"
OUTPUT_TIMEOUT_S = 120  # nbval waits 5 s for a message, too short on a machine that is busy


def pytest_configure(config: pytest.Config) -> None:
    """Run the kernels on this Python, offline, without progress bars and start-up files."""
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(SANITIZE)
    scratch = tempfile.mkdtemp(prefix="cliplab-ipython-")
    os.environ |= {"TQDM_DISABLE": "1", "IPYTHONDIR": scratch, "PYTHONUTF8": "1"}
    os.environ.setdefault("CLIPLAB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tensors this small two threads wait
    os.environ.pop("MPLBACKEND", None)  # the kernel's own backend puts figures into cells


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every notebook its quick parameters."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.output_timeout = OUTPUT_TIMEOUT_S
            if "parameters" in item.cell.metadata.get("tags", []):
                item.cell.source += "\n" + quick_parameters(item.path)


def quick_parameters(path: Path) -> str:
    """Source of the cell that papermill puts below the parameters."""
    notebook = load_notebook_node(str(path))
    folder = os.environ.get("CLIPLAB_RESULTS")
    results = str(Path(folder) / f"{path.stem}.json") if folder else ""
    known = read_parameters(notebook, path.stem)
    values = {"QUICK": True, "RESULTS_PATH": results}
    given = {name: value for name, value in values.items() if name in known}
    quick = parameterize_notebook(notebook, given, kernel_name="python3", language="python")
    return str(next(c.source for c in quick.cells if "injected-parameters" in c.metadata.tags))
