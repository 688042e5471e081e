"""One table from many trainings: the model cards of all variants and seeds side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliplab.runtime import checkpoint_dir, write_json

Card = dict[str, Any]


def load_table(stem: str, command: str) -> dict[str, Any]:
    """The table that is shipped, `data/checkpoints/<stem>/rows.json`.

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    path = checkpoint_dir(stem) / "rows.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; restore it with `git checkout`, or train and run `{command}`"
        )
    return json.loads(path.read_text("utf-8"))


def read_cards(folders: Sequence[Path]) -> list[Card]:
    """All model cards anywhere below some folders."""
    paths = sorted({p.resolve() for folder in folders for p in folder.glob("**/model_card.json")})
    return [json.loads(path.read_text("utf-8")) for path in paths]


def check_alike(cards: Sequence[Card], facts: Mapping[str, Callable[[Card], Any]]) -> None:
    """Refuse cards that must not stand in one table.

    Args:
        cards: of one stem.
        facts: what has to be the same in all of them: name -> how to read it.

    Raises:
        ValueError: no card at all, or two that differ.
    """
    if not cards:
        raise ValueError("no model card found; train first: `python -m cliplab train <stem>`")
    for what, read in facts.items():
        values = {str(read(card)) for card in cards}
        if len(values) > 1:
            raise ValueError(
                f"{what}: the cards have {', '.join(sorted(values))}; expected one value "
                "for all: train and examine the others again, or give other folders"
            )


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Raise ValueError where one training stands twice in a row."""
    if len(set(seeds)) != len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"row {name!r}: two cards of seed {twice}; expected one")


def gather_command(
    stem: str,
    gather: Callable[[list[Card]], dict[str, Any]],
    argv: Sequence[str] | None,
    *,
    shipped: Sequence[str] = (),
) -> dict[str, Any]:
    """The command line of a table: read cards, gather them, write `rows.json`, return the table.

    Args:
        stem: of the recipe.
        gather: cards -> table.
        argv: arguments; None: those of the process.
        shipped: names of the checkpoints that are rows too; none: the stem alone.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m cliplab.training.{stem}_table",
        description=f"Gather the model cards of all trainings of {stem} in one table.",
    )
    everywhere = [Path(f"runs/train/{stem}"), *map(checkpoint_dir, shipped or [stem])]
    parser.add_argument("folders", nargs="*", type=Path, default=everywhere,
                        help=f"of cards (default: runs/train/{stem} and the shipped)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=checkpoint_dir(stem) / "rows.json",
                        help="the table")  # fmt: skip
    args = parser.parse_args(argv)
    table = gather(read_cards(args.folders))
    write_json(args.out, table)
    return table
