"""The shipped GroupViT judged again, without training it: `python tools/judge_groupvit.py`.

Writes the numbers of its evaluation into its card, and into its row of the table of all trainings.
"""

from __future__ import annotations

import json

from cliplab.runtime import checkpoint_dir, write_json
from cliplab.segmentation import load_segmenter
from cliplab.training.cards import save_card
from cliplab.training.failures import add_failures
from cliplab.training.groupvit_evaluation import evaluate


def main() -> None:
    """Judge, and say which numbers moved."""
    folder = checkpoint_dir("groupvit")
    card, table = (
        json.loads((folder / name).read_text("utf-8")) for name in ("model_card.json", "rows.json")
    )
    before = card["metrics"]
    metrics = evaluate(load_segmenter("pasture", device="cpu"), count=before["pictures"])
    card["metrics"] = metrics = json.loads(json.dumps(metrics))
    table["rows"]["shipped"]["metrics"][0] = metrics
    for language in ("en", "zh"):
        moved = [k for k, v in metrics[language].items() if v != before[language].get(k)]
        print(f"{language}: moved: {', '.join(moved) or 'nothing'}")
    save_card(folder, card)
    add_failures("groupvit", folder)  # by how it is read, which may have changed
    write_json(folder / "rows.json", table)


if __name__ == "__main__":
    main()
