"""Numbers that others have published, with their source.

The figures lie in `data/published`; none of them was measured here, and the table says so.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cliplab.runtime import data_dir, unknown_name

NOT_RUN = "not run here"
COLUMNS = ("model", "measure", "published", "unit", "protocol", "source", "fact", "here", "remark")


def table(topic: str) -> pd.DataFrame:
    """What others report about a topic, one row per figure.

    Returns:
        Indexed by id: model, measure, published, unit, protocol, source, fact ("read in the source"
        or "second-hand"), here ("not run here") and remark.

    Raises:
        ValueError: unknown topic.
        FileNotFoundError: the data of cliplab are elsewhere.
    """
    known = _read(data_dir() / "published")
    if topic not in known:
        raise ValueError(unknown_name("topic", topic, known))
    bare = {"protocol": "", "remark": "", "here": NOT_RUN}
    rows = pd.DataFrame([bare | row for row in known[topic]["rows"]]).set_index("id")
    return rows.rename(columns={"value": "published"})[list(COLUMNS)]


def _read(folder: Path) -> dict[str, Any]:
    """The topics of every file in a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        found |= json.loads(path.read_text(encoding="utf-8"))["topics"]
    if not found:
        raise FileNotFoundError(
            f"{folder.as_posix()}: no published numbers; they come with cliplab: restore "
            "data/published, or unset $CLIPLAB_DATA"
        )
    return found
