"""Model cards: what a checkpoint is, how it was made, what it reaches; and tables of many of them.

Every training leaves a card beside its weights. `tools/gather_rows.py` gathers those of all
variants and seeds in `data/checkpoints/<stem>/rows.json`, which the lessons show.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliplab.runtime import atomic_write, checkpoint_dir, sha256, write_json

_COMMON = {
    "licence": "Apache-2.0; trained on generated pictures and captions only",
    "intended use": "teaching, on pictures of cliplab.pasture; it knows nothing of photographs",
}

# What may lie beside weights and is no part of them: the card, a table of several trainings, and
# how far the pictures they were trained on reach (tools/measure_world.py).
FAILURES = "failures.webp"  # drawn by `failures.add_failures`
BESIDES = (
    "model_card.json", "model_card.md", FAILURES, "rows.json", "rows_captions.json", "world.npz"
)  # fmt: skip


# ---- one card ------------------------------------------------------------------------------


def write_model_card(folder: Path, **card: Any) -> Path:
    """Write `model_card.json` with the hashes of the folder's other files, which loaders check."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in BESIDES)
    hashes = {p.name: sha256(p) for p in files if not p.name.startswith(".")}
    return save_card(folder, {**_COMMON, **card, "files": hashes, "commit": _commit()})


def save_card(folder: Path, card: Mapping[str, Any]) -> Path:
    """Write a card as `model_card.json`, for programs, and as `model_card.md`, for people."""
    write_json(folder / "model_card.json", dict(card))
    with atomic_write(folder / "model_card.md") as file:
        file.write(rendered(card).encode())
    return folder / "model_card.json"


def rendered(card: Mapping[str, Any]) -> str:
    """A card as Markdown: what it is, where it fails, and a table for each group of numbers."""
    plain = {k: v for k, v in card.items() if not isinstance(v, Mapping)}
    lines = [f"# {card['name']}", "", *_table(plain)]
    if fails := card.get("where it fails"):
        picture = f"![The pictures that the sentence above speaks of]({fails['picture']})"
        lines += ["", "## Where it fails", "", fails["rule"], "", picture]
    for name, group in card.items():
        if isinstance(group, Mapping) and group is not fails:
            lines += ["", f"## {name[0].upper()}{name[1:]}", "", *_table(group)]
    return "\n".join([*lines, ""])


def _table(group: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for path, value in _leaves(group):
        yield f"| {' · '.join(path)} | {value} |"


def _leaves(group: Mapping[str, Any], *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a person reads of a card: its texts, numbers with their intervals, lists of words."""
    for name, value in group.items():
        if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
            interval = f"{value['low']:.3f}–{value['high']:.3f}, n = {value['n']}"
            yield (*path, name), f"{value['value']:.3f} ({interval})"
        elif isinstance(value, Mapping):
            yield from _leaves(value, *path, name)
        elif isinstance(value, list) and not all(isinstance(one, str) for one in value):
            continue  # confusions and rounds: they are for programs
        else:
            text = f"{value:.3f}" if isinstance(value, float) and value >= 0.01 else str(value)
            shown = ", ".join(value) if isinstance(value, list) else text
            yield (*path, name), f"`{shown}`" if name in ("command", "commit") else shown


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
