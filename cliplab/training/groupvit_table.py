"""Does grouping help? Rows of all trainings: `python -m cliplab.training.groupvit_table`.

Every training of `python -m cliplab train groupvit` leaves a model card, and
`python -m cliplab.training.groupvit_baselines` a file of baselines. This gathers them into
`data/checkpoints/groupvit/rows.json`, which notebook 05 shows beside the paper's table.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cliplab.runtime import checkpoint_dir
from cliplab.training.groupvit import Recipe, is_shipped, name_of
from cliplab.training.tables import Card, check_alike, check_seeds, gather_command, load_table

log = logging.getLogger(__name__)

COMMAND = "python -m cliplab.training.groupvit_table"
BASELINES = Path("runs/train/groupvit/baselines.json")
SHIPPED_ROW = "shipped"
_ABLATED = {
    "steps": lambda card: card["recipe"]["steps"],
    "batch": lambda card: card["recipe"]["batch"],
    "steps of a second round": lambda card: card["recipe"]["more"],
    "distinct pictures": lambda card: card["recipe"]["pictures"],
    "layers of the stem": lambda card: card["recipe"]["stem_layers"],
}
_EXAM = {
    "pictures in the exam": lambda card: card["metrics"]["pictures"],
    "pictures to choose on": lambda card: card["metrics"]["val pictures"],
}


def load_rows() -> dict[str, Any]:
    """The table that is shipped.

    Returns:
        "command", "pictures" of the exam and "steps" of the rows that are compared, "trainings"
        (the command of each); "rows": name -> {"seeds": [...], "recipe": {...}, "metrics": [...]},
        one of `groupvit_exam.examine` a seed, where the row "shipped" has had more steps and a
        longer exam than the others; "baselines": name -> {"miou", "iou", ...}.

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    return load_table("groupvit", COMMAND)


def gather(cards: list[Card], baselines: dict[str, Any] | None = None) -> dict[str, Any]:
    """Model cards and baselines -> the table of `load_rows`.

    Raises:
        ValueError: no card at all; cards of exams or trainings of different length, which must not
            stand in one table; two cards of one training; baselines of another exam.
    """
    compared = [card for card in cards if _name(card) != SHIPPED_ROW] or cards
    check_alike(compared, {**_EXAM, **_ABLATED})
    rows: dict[str, dict[str, Any]] = {}
    for card in sorted(cards, key=lambda c: (_name(c), c["recipe"]["seed"])):
        row = rows.setdefault(_name(card), {"seeds": [], "recipe": card["recipe"], "metrics": []})
        row["seeds"].append(card["recipe"]["seed"])
        row["metrics"].append(card["metrics"])
        check_seeds(_name(card), row["seeds"])
    pictures = compared[0]["metrics"]["pictures"]
    if baselines and baselines["pictures"] != pictures:
        raise ValueError(
            f"baselines: got {baselines['pictures']} pictures, the cards have {pictures}; expected "
            "one exam: measure the baselines again with --pictures"
        )
    return {
        "command": COMMAND,
        "pictures": pictures,
        "steps": compared[0]["recipe"]["steps"],
        "trainings": sorted(card["command"] for card in cards),
        "rows": rows,
        "baselines": baselines["rows"] if baselines else {},
    }


def values(row: dict[str, Any], *path: str) -> list[float]:
    """One number of each seed: `values(row, "en", "cured", "miou")`."""
    found = []
    for metrics in row["metrics"]:
        for key in path:
            metrics = metrics[key]
        found.append(metrics)
    return found


def _recipe(card: Card) -> Recipe:
    return Recipe(**card["recipe"])


def _name(card: Card) -> str:
    """Of its row; trainings like the shipped one, of other seeds, share that one's."""
    recipe = _recipe(card)
    is_like_shipped = is_shipped(replace(recipe, seed=Recipe.seed))
    return SHIPPED_ROW if is_like_shipped else name_of(recipe)


def _known_baselines() -> dict[str, Any] | None:
    """Those just measured, else those of the shipped table."""
    if BASELINES.is_file():
        return json.loads(BASELINES.read_text("utf-8"))
    if (checkpoint_dir("groupvit") / "rows.json").is_file() and (table := load_rows())["baselines"]:
        return {"pictures": table["pictures"], "rows": table["baselines"]}
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Gather the cards below some folders."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    baselines = _known_baselines()
    table = gather_command("groupvit", lambda cards: gather(cards, baselines), argv)
    for name, row in table["rows"].items():
        parts = {
            "plain": values(row, "en", "plain", "miou"),
            "cured": values(row, "en", "cured", "miou"),
            "oracle": values(row, "en", "plain", "oracle_miou"),
        }
        texts = [f"{k} {' '.join(f'{v:.3f}' for v in some)}" for k, some in parts.items()]
        log.info(f"{name:32} {'   '.join(texts)}")
    for name, row in table["baselines"].items():
        log.info(f"{name:32} {row['miou']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
