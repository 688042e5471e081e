"""What is kept of an executed notebook: itself without noise, its pictures, its figures."""

import base64
import shutil
from pathlib import Path
from typing import Any

from cliplab.report.notebook import RESULTS_PATH, read_notebook, tags
from cliplab.runtime import atomic_write


def keep(partial: Path, source: Path, folder: Path, *, failed: bool) -> Path | None:
    """Move the executed notebook, cleaned, into `folder`; None when none was written."""
    whole, part = folder / f"{source.stem}.ipynb", folder / f"{source.stem}.failed.ipynb"
    whole.unlink(missing_ok=True)
    part.unlink(missing_ok=True)
    try:
        notebook = read_notebook(partial)
    except (OSError, ValueError):  # ended in the middle of writing: nothing worth keeping
        partial.unlink(missing_ok=True)
        return None
    _hide_injection(notebook)
    clean(notebook)
    kept = part if failed else whole
    write_notebook(notebook, kept)
    partial.unlink()
    _copy_pictures(notebook, source.parent, folder)
    return kept


def _hide_injection(notebook: Any) -> None:
    """Leave of papermill's own cell what the user asked for; RESULTS_PATH is plumbing."""
    for cell in [cell for cell in notebook.cells if "injected-parameters" in tags(cell)]:
        lines = [s for s in cell.source.splitlines() if not s.startswith(RESULTS_PATH)]
        cell.source = "\n".join(lines)
        if all(line.startswith("#") for line in lines):
            notebook.cells.remove(cell)
    executed = [c for c in notebook.cells if c.get("execution_count") is not None]
    for count, cell in enumerate(executed, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count


def clean(notebook: Any) -> None:
    """Drop what the execution put into a notebook beside its outputs, in place."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {k: cell.metadata[k] for k in ("tags", "alt") if cell.metadata.get(k)}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).pop("papermill", None)


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook atomically, in the one form that gives small diffs."""
    import nbformat

    with atomic_write(path, "w") as file:
        file.write(nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n")


def _copy_pictures(notebook: Any, source: Path, target: Path) -> None:
    """Copy the local pictures that the text shows, so that the executed notebook shows them too."""
    from cliplab.report.exporter import addresses, picture

    for address in addresses(notebook):
        original, copy = picture(address, source), picture(address, target)
        if original and copy and original.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, copy)


def write_figures(notebook: Path, folder: Path) -> list[Path]:
    """Write the PNG figures among a notebook's outputs into `folder`, named by their cell."""
    for old in folder.glob(f"{notebook.stem}_cell*"):
        old.unlink()
    written = []
    for i, cell in enumerate(read_notebook(notebook).cells, start=1):
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures = [kinds["image/png"] for kinds in data if "image/png" in kinds]
        for k, picture in enumerate(pictures, start=1):
            path = folder / f"{notebook.stem}_cell{i:02d}_{k}.png"
            with atomic_write(path) as file:
                file.write(base64.b64decode(picture))
            written.append(path)
    return written
