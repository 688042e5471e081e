"""Model cards: what a checkpoint is, how it was made and what it reaches; and tables of many.

Every training leaves a card beside its weights. `python -m cliplab train table --stem <stem>`
gathers those of all variants and seeds in `data/checkpoints/<stem>/rows.json`, which the lessons
show beside the tables of the papers.
"""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cliplab.runtime import checkpoint_dir, sha256, write_json
from cliplab.training import RECIPES

log = logging.getLogger(__name__)

Card = dict[str, Any]
# What a row keeps of one card: where in the row -> the value, one a seed
Entry = Mapping[tuple[str, ...], Any]

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


@dataclass(frozen=True)
class Table:
    """How the cards of a stem become rows."""

    entries: Callable[[Card], Mapping[str, Entry]]  # rows that a card has a part in; none: left out
    alike: Mapping[
        str, Callable[[Card], Any]
    ]  # what has to be the same in all: name -> how to read
    order: Sequence[str] = ()  # of the rows; none: by name
    apart: tuple[str, ...] = ()  # rows that may differ from the others
    also: tuple[str, ...] = ()  # checkpoints besides the stem's own
    keep: tuple[str, ...] = ()  # parts of a row's first card that it holds as they are
    extra: Callable[[Sequence[Card]], dict[str, Any]] = field(default=lambda cards: {})


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
            f"`{table_command(stem)}`"
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


def table_command(stem: str) -> str:
    """The command line that gathers a table."""
    return f"python -m cliplab train table --stem {stem}"


def read_cards(folders: Iterable[Path]) -> list[Card]:
    """All model cards anywhere below some folders."""
    paths = sorted({p.resolve() for folder in folders for p in folder.glob("**/model_card.json")})
    return [json.loads(path.read_text("utf-8")) for path in paths]


def gather(stem: str, table: Table, cards: Sequence[Card]) -> dict[str, Any]:
    """Model cards -> the table of `load_rows`.

    Raises:
        ValueError: no card at all; cards of evaluations or trainings of different length, which
            must not stand in one table; two cards of one training.
    """
    entries = [(card, table.entries(card)) for card in cards]
    for card, some in entries:
        if not some:
            log.info("left out, since it is in no row: %s", card["command"])
    used = [card for card, some in entries if some]
    compared = [card for card, some in entries if some and not set(some) & set(table.apart)]
    check_alike(compared or used, table.alike)
    rows: dict[str, dict[str, Any]] = {}
    for card, some in sorted(entries, key=lambda entry: entry[0]["recipe"]["seed"]):
        for name, entry in some.items():
            row = rows.setdefault(name, {part: card[part] for part in table.keep})
            _append(row, {("seeds",): card["recipe"]["seed"], **entry})
            _check_seeds(name, row["seeds"])
    order = [name for name in table.order if name in rows] or sorted(rows)
    return {
        "command": table_command(stem),
        "pictures": (compared or used)[0]["metrics"]["pictures"],
        "trainings": sorted(card["command"] for card in used),
        "rows": {name: rows[name] for name in order},
        **table.extra(compared or used),
    }


def check_alike(cards: Sequence[Card], facts: Mapping[str, Callable[[Card], Any]]) -> None:
    """Refuse cards that must not stand in one table.

    Raises:
        ValueError: no card at all, or two that differ in one of the facts.
    """
    if not cards:
        raise ValueError("no model card found; train first: `python -m cliplab train <stem>`")
    for what, read in facts.items():
        found = {str(read(card)) for card in cards}
        if len(found) > 1:
            raise ValueError(
                f"{what}: the cards have {', '.join(sorted(found))}; expected one value for all: "
                "train and evaluate the others again, or give other folders"
            )


def _check_seeds(name: str, seeds: Sequence[int]) -> None:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"row {name!r}: two cards of seed {seeds[-1]}; expected one")


def _append(row: dict[str, Any], entry: Entry) -> None:
    """Add the values of one card to the lists of a row."""
    for path, value in entry.items():
        *parents, last = path
        inner = row
        for key in parents:
            inner = inner.setdefault(key, {})
        inner.setdefault(last, []).append(value)


@dataclass(frozen=True)
class Options:
    """Options of `python -m cliplab train table`."""

    stem: Literal["vild", "glip", "groupvit"]
    folders: tuple[Path, ...] = ()  # of cards (default: runs/train/<stem> and the shipped)
    out: Path | None = None  # the table (default: rows.json beside the shipped weights)


def run(options: Options) -> None:
    """Read cards, gather them, write the table."""
    stem = options.stem
    table: Table = importlib.import_module(RECIPES[stem].module).TABLE
    shipped = [checkpoint_dir(name) for name in (stem, *table.also)]
    cards = read_cards(options.folders or [Path("runs/train") / stem, *shipped])
    path = options.out or checkpoint_dir(stem) / "rows.json"
    write_json(path, gather(stem, table, cards))
    log.info("%d cards in %s", len(cards), path)
