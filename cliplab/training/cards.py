"""Model cards: what a checkpoint is, how it was made, what it reaches; and tables of many of them.

Every training leaves a card beside its weights. `tools/gather_rows.py` gathers those of all
variants and seeds in `data/checkpoints/<stem>/rows.json`, which the lessons show.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.runtime import checkpoint_dir, sha256, write_json

_COMMON = {
    "licence": "Apache-2.0; trained on generated pictures and captions only",
    "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
}


# ---- one card ------------------------------------------------------------------------------


def write_model_card(folder: Path, **card: Any) -> Path:
    """Write `model_card.json` with the hashes of the folder's other files, which loaders check."""
    # A table of several trainings may lie beside the weights; it is no part of any of them.
    others = ("model_card.json", "rows.json")
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in others)
    hashes = {p.name: sha256(p) for p in files if not p.name.startswith(".")}
    path = folder / "model_card.json"
    write_json(path, {**_COMMON, **card, "files": hashes, "commit": _commit()})
    return path


def command_of(stem: str, options: Mapping[str, Any]) -> str:
    """The command line that repeats a training."""
    return " ".join(["python -m cliplab train", stem, *(_flag(*one) for one in options.items())])


def _flag(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    values = value if isinstance(value, tuple) else [value]
    return f"--{option} " + " ".join(str(one) or "''" for one in values)


def _commit() -> str:
    """The commit that the code was at, with "+" after it if the code had been edited since."""
    root = Path(__file__).resolve().parent
    try:
        head, changes = (
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True)
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ".."])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


# ---- many ----------------------------------------------------------------------------------


def load_rows(stem: str) -> dict[str, Any]:
    """The table that is shipped, `data/checkpoints/<stem>/rows.json`.

    Returns:
        "command", "pictures" of the evaluation, "trainings" (the command of each), and "rows":
        name -> {"seeds": [...], ...}, lists with an entry for each seed. "metrics" in them are
        those of the cards; ViLD's rows have numbers, such as row["base"]["ap50"].

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    path = checkpoint_dir(stem) / "rows.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; restore it with `git checkout`, or train and run "
            f"`python tools/gather_rows.py {stem}`"
        )
    return json.loads(path.read_text("utf-8"))


def values(row: Mapping[str, Any], *path: str) -> list[Any]:
    """One number of each seed: `values(row, "detection", "seen", "en", "species", "ap50")`."""
    found = []
    for metrics in row["metrics"]:
        for key in path:
            metrics = metrics[key]
        found.append(metrics["value"] if isinstance(metrics, dict) else metrics)
    return found
