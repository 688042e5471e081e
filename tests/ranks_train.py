"""What torchrun starts in tests: `cliplab train`, with a state after every second step.

$DIES is "rank:step": that rank is killed before that step.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from cliplab.cli.main import main
from cliplab.training import clip, loop

torch.set_num_threads(1)


def dying(losses_of: Callable[[int], dict]) -> Callable[[int], dict]:
    rank, _, last = os.environ.get("DIES", "").partition(":")

    def watched(step: int) -> dict:
        if last and (os.environ.get("RANK"), step) == (rank, int(last)):
            os.kill(os.getpid(), signal.SIGKILL)
        return losses_of(step)

    return watched


def fit(model: Any, losses_of: Callable, *args: Any, **named: Any) -> None:
    loop.fit(model, dying(losses_of), *args, **named, save_every=2)


# In float32 wherever it runs, and without the evaluation and the failures of the card.
FASTER = {
    "mixed_precision": lambda _: nullcontext(),
    "_publish": lambda save, *_: save(),
    "fit": fit,
}

if __name__ == "__main__":
    for name, value in FASTER.items():
        setattr(clip, name, value)
    sys.exit(main(sys.argv[1:]))
