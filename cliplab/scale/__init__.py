"""Beyond one process: losses over ranks, training over ranks, and collections too large for a list.

A rank is one of R processes that work on one thing together, each on its share, numbered from 0;
`torchrun` starts them, or `run_local` for a small piece of code. The mathematics of one process is
in `cliplab.models` and knows of no rank.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
