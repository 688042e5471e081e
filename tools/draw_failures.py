"""Where the shipped models fail, drawn for their cards: `python tools/draw_failures.py [glip ...]`.

As `python -m cliplab train` does it at its end; every card keeps its numbers.
"""

from typing import Annotated

import torch
import tyro

from cliplab.runtime import checkpoint_dir
from cliplab.training.failures import add_failures

SHIPPED = ("clip-openai", "clip-chinese", "vild", "glip", "glip-no-fusion", "groupvit")


def main(models: Annotated[tuple[str, ...], tyro.conf.Positional] = SHIPPED) -> None:
    """Draw them, and write the sentences into the cards."""
    torch.set_num_threads(1)  # sums of several threads differ in their last digits
    for name in models:
        print(f"{name}: {add_failures(name.partition('-')[0], checkpoint_dir(name))}")


if __name__ == "__main__":
    tyro.cli(main)
