"""Rows of a table from many trainings: `python -m cliplab.training.vild_table`.

Every training of `python -m cliplab train vild` leaves a model card. This gathers those of all
variants and seeds into `data/checkpoints/vild/rows.json`, which notebook 03 shows beside the
paper's table.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from cliplab.training.tables import check_alike, check_seeds, gather_command, load_table

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
COMMAND = "python -m cliplab.training.vild_table"
_FACTS = {
    "pictures in the exam": lambda card: card["metrics"]["pictures"],
    "steps": lambda card: card["recipe"]["steps"],
    "teacher": lambda card: card["teacher"]["fingerprint"],
}


def load_rows() -> dict[str, Any]:
    """The table that is shipped.

    Returns:
        "command", "pictures" of the exam, "trainings" (the command of each), and "rows": name ->
        {"seeds": [...], "recall": {...}, "base": {"ap50": [...], "ap": [...], "ar": [...]},
        "novel": {...}}, a number per seed, 0 to 1.

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    return load_table("vild", COMMAND)


def gather(cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Model cards -> the table of `load_rows`.

    Raises:
        ValueError: no card at all; cards of exams or trainings of different length, which must not
            stand in one table; two cards of one training.
    """
    check_alike(cards, _FACTS)
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
    row["seeds"].append(card["recipe"]["seed"])
    check_seeds(name, row["seeds"])
    metrics = card["metrics"]
    for group in GROUPS:
        row["recall"][group].append(metrics["recall"][group]["value"])
        for measure in MEASURES:
            row[group][measure].append(metrics[head][group][measure])


def main(argv: list[str] | None = None) -> int:
    """Gather the cards below some folders."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, row in gather_command("vild", gather, argv)["rows"].items():
        values = {g: " ".join(f"{v:.3f}" for v in row[g]["ap50"]) for g in GROUPS}
        log.info(f"{name:36}  base {values['base']:20}  novel {values['novel']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
