"""How the shipped weights were made: for every stem a recipe, a dataset and an evaluation.

`<stem>.py` goes from the dataset through model, criterion and loop to the weights and their card;
`<stem>_dataset.py` is what is learned from; `<stem>_evaluation.py` is where the card's numbers come
from. `loop.py` trains, `pictures.py` draws and augments, `cards.py` writes cards and tables.
"""

import lazy_loader

RECIPES = {  # stem -> what it makes; its module has Options, a dataclass, and run(options)
    "clip": "two CLIPs, English and Chinese",
    "vild": "a detector that learned from CLIP",
    "glip": "a detector that reads sentences",
    "groupvit": "segmentation from captions alone",
}

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
