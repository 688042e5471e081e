"""Write notebooks in tests."""

from pathlib import Path
from typing import Any

import nbformat

#: What results.json says of a run, but for its notebooks.
RUN: dict[str, Any] = {
    "finished": True, "student": "", "commit": None, "code_sha256": "c0de", "checkpoints": {},
    "started": "2026-01-01T10:00:00+01:00", "ended": "2026-01-01T10:20:00+01:00",
    "versions": {"cliplab": "0.1.0"}, "machine": {"cores": 1, "device": "cpu"},
}  # fmt: skip


def markdown(source: str, *tags: str) -> Any:
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def code(
    source: str, *tags: str, outputs: list[Any] | None = None, count: int | None = None
) -> Any:
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(
        source, metadata=metadata, outputs=outputs or [], execution_count=count
    )


def stream(text: str, name: str = "stdout") -> Any:
    return nbformat.v4.new_output("stream", name=name, text=text)


def write(path: Path, *cells: Any) -> Path:
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path
