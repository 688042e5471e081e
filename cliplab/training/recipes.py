"""What can be trained: torch-free, so that the command line can tell it at once."""

from typing import NamedTuple


class Training(NamedTuple):
    """What can be trained; its module is imported only when it is chosen."""

    module: str  # has Options, a dataclass, and run(options)
    makes: str


RECIPES = {
    "clip": Training("cliplab.training.clip", "two CLIPs, English and Chinese"),
    "vild": Training("cliplab.training.vild", "a detector that learned from CLIP"),
    "glip": Training("cliplab.training.glip", "a detector that reads sentences"),
    "groupvit": Training("cliplab.training.groupvit", "segmentation from captions alone"),
}
