"""Fusion and none, halfway and at the end: `python -m cliplab.training.glip_table`.

Every training of `python -m cliplab train glip` leaves a model card. This gathers them into
`data/checkpoints/glip/rows.json`, which notebook 04 shows beside the paper's table.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

from cliplab.training.tables import Card, check_alike, check_seeds, gather_command, load_table

log = logging.getLogger(__name__)

COMMAND = "python -m cliplab.training.glip_table"
ROWS = ("fusion", "no fusion", "fusion, halfway", "no fusion, halfway")
_HALF = 2  # rounds
_FACTS = {
    "pictures in the exam": lambda card: card["metrics"]["pictures"],
    "steps of the first two rounds": lambda card: _steps(card)[:_HALF],
    "distinct herds": lambda card: card["recipe"]["pictures"],
}


def load_rows() -> dict[str, Any]:
    """The table that is shipped.

    Returns:
        "command", "pictures" of the exam, "trainings" (the command of each), and "rows": each
        of `ROWS` -> {"seeds": [...], "metrics": [...]}, one entry a seed, each as
        `glip_exam.examine` returns it. "halfway" is after the first two rounds of six
        (`--steps 2500 800 0 0 0 0`).

    Raises:
        FileNotFoundError: it is missing, with the command that makes it.
    """
    return load_table("glip", COMMAND)


def gather(cards: list[Card]) -> dict[str, Any]:
    """Model cards -> the table of `load_rows`.

    Args:
        cards: of any trainings; those that are neither whole nor halfway are left out.

    Raises:
        ValueError: no card at all; cards of exams or trainings of different length, which must not
            stand in one table; two cards of one training.
    """
    for card in cards:
        if not (_is_whole(card) or _is_half(card)):
            log.info("left out, since neither whole nor halfway: %s", card["command"])
    cards = [card for card in cards if _is_whole(card) or _is_half(card)]
    check_alike(cards, _FACTS)
    rows: dict[str, dict[str, list]] = {}
    for card in sorted(cards, key=lambda c: (ROWS.index(_name(c)), c["recipe"]["seed"])):
        name = _name(card)
        row = rows.setdefault(name, {"seeds": [], "metrics": []})
        row["seeds"].append(card["recipe"]["seed"])
        row["metrics"].append(card["metrics"])
        check_seeds(name, row["seeds"])
    return {
        "command": COMMAND,
        "pictures": cards[0]["metrics"]["pictures"],
        "trainings": sorted(card["command"] for card in cards),
        "rows": rows,
    }


def _steps(card: Card) -> list[int]:
    return [one["steps"] for one in card["recipe"]["rounds"]]


def _name(card: Card) -> str:
    """Of its row."""
    name = "fusion" if card["recipe"]["fusion"] else "no fusion"
    return name if _is_whole(card) else f"{name}, halfway"


def _is_whole(card: Card) -> bool:
    return all(_steps(card))


def _is_half(card: Card) -> bool:
    return all(_steps(card)[:_HALF]) and not any(_steps(card)[_HALF:])


def values(row: dict[str, list], *path: str) -> list[float]:
    """One number of each seed: `values(row, "detection", "seen", "en", "species", "ap50")`."""
    found = [_at(metrics, path) for metrics in row["metrics"]]
    return [one["value"] if isinstance(one, dict) else one for one in found]


def _at(metrics: dict[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        metrics = metrics[key]
    return metrics


def main(argv: list[str] | None = None) -> int:
    """Gather the cards below some folders."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = gather_command("glip", gather, argv, shipped=["glip", "glip-no-fusion"])
    for name, row in table["rows"].items():
        for language in ("en", "zh"):
            parts = {
                f"AP50 {level}": values(row, "detection", "seen", language, level, "ap50")
                for level in ("species", "colour")
            }
            parts["relation R@1"] = values(row, "grounding", "seen", language, "relation")
            if row["metrics"][0]["near"][language]:  # a short exam has no pairs
                parts["near, both"] = values(row, "near", language, "both")
            texts = [f"{k} {' '.join(f'{v:.3f}' for v in some)}" for k, some in parts.items()]
            log.info(f"{name:22} {language}  {'   '.join(texts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
