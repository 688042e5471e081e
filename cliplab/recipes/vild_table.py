"""Rows of a table from many trainings: `python -m cliplab.recipes.vild_table`.

Every training of `python -m cliplab train vild` leaves a model card. This gathers those of all
variants and seeds into `data/checkpoints/vild/rows.json`, which notebook 03 shows beside the
paper's table.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from cliplab.runtime import checkpoint_dir, write_json

log = logging.getLogger(__name__)

MEASURES = ("ap50", "ap", "ar")
GROUPS = ("base", "novel")
# (variant, novel) of a recipe -> head that is asked -> name of the row
ROWS: dict[tuple[str, str], dict[str, str]] = {
    ("text", "zero"): {"text": "text"},
    ("image", "zero"): {"image": "image"},
    ("vild", "zero"): {"text": "vild"},
    ("ensemble", "zero"): {
        "ensemble": "ensemble",
        "text": "ensemble: text head",
        "image": "ensemble: image head",
    },
    ("supervised", "zero"): {"text": "supervised"},
    ("text", "masked"): {"text": "text, masked"},
    ("ensemble", "masked"): {"ensemble": "ensemble, masked"},
}
COMMAND = "python -m cliplab.recipes.vild_table"


def load_rows() -> dict[str, Any]:
    """The table that is shipped.

    Returns:
        "command", "pictures" of the exam, "trainings" (the command of each), and "rows": name ->
        {"seeds": [...], "recall": {...}, "base": {"ap50": [...], "ap": [...], "ar": [...]},
        "novel": {...}}, a number per seed, 0 to 1.

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    path = checkpoint_dir("vild") / "rows.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; restore it with `git checkout`, or train and run `{COMMAND}`"
        )
    return json.loads(path.read_text("utf-8"))


def gather(cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Model cards -> the table of `load_rows`.

    Raises:
        ValueError: no card at all; cards of exams or trainings of different length, which must not
            stand in one table; two cards of one training.
    """
    if not cards:
        raise ValueError("no model card found; train first: `python -m cliplab train vild`")
    _check_alike(cards)
    rows: dict[str, dict[str, Any]] = {}
    for card in sorted(cards, key=lambda c: c["recipe"]["seed"]):
        recipe = card["recipe"]
        heads = ROWS.get((recipe["variant"], recipe["novel"]), {})
        for head, name in heads.items():
            _append(rows, name, card, head)
    order = [name for heads in ROWS.values() for name in heads.values()]
    return {
        "command": COMMAND,
        "pictures": cards[0]["metrics"]["pictures"],
        "trainings": sorted(card["command"] for card in cards),
        "rows": {name: rows[name] for name in order if name in rows},
    }


def _append(rows: dict[str, dict[str, Any]], name: str, card: dict[str, Any], head: str) -> None:
    empty: dict[str, Any] = {group: {m: [] for m in MEASURES} for group in GROUPS}
    row = rows.setdefault(name, {"seeds": [], "recall": {g: [] for g in GROUPS}, **empty})
    if card["recipe"]["seed"] in row["seeds"]:
        raise ValueError(f"row {name!r}: two cards of seed {card['recipe']['seed']}; expected one")
    row["seeds"].append(card["recipe"]["seed"])
    metrics = card["metrics"]
    for group in GROUPS:
        row["recall"][group].append(metrics["recall"][group]["value"])
        for measure in MEASURES:
            row[group][measure].append(metrics[head][group][measure])


def _check_alike(cards: list[dict[str, Any]]) -> None:
    for what, values in {
        "pictures in the exam": {card["metrics"]["pictures"] for card in cards},
        "steps": {card["recipe"]["steps"] for card in cards},
        "teacher": {card["teacher"]["fingerprint"] for card in cards},
    }.items():
        if len(values) > 1:
            raise ValueError(
                f"{what}: the cards have {', '.join(sorted(map(str, values)))}; expected one value "
                "for all: train and examine the others again, or give other folders"
            )


def main(argv: list[str] | None = None) -> int:
    """Gather the cards below some folders."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n\n")[0])
    everywhere = [Path("runs/train/vild"), checkpoint_dir("vild")]
    parser.add_argument("folders", nargs="*", type=Path, default=everywhere,
                        help="of cards (default: runs/train/vild and the shipped one)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=None,
                        help="default: data/checkpoints/vild/rows.json")  # fmt: skip
    args = parser.parse_args(argv)
    paths = sorted(p for folder in args.folders for p in folder.glob("**/model_card.json"))
    table = gather([json.loads(p.read_text("utf-8")) for p in paths])
    write_json(args.out or checkpoint_dir("vild") / "rows.json", table)
    for name, row in table["rows"].items():
        values = {g: " ".join(f"{v:.3f}" for v in row[g]["ap50"]) for g in GROUPS}
        log.info(f"{name:36}  base {values['base']:20}  novel {values['novel']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
