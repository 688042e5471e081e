"""The ImageNet protocol of the CLIP paper, run on one's own encoder and pictures.

`prompts` and `dataset` know what ImageNet is, `classifier` and `chunks` how a long run is cut and
taken up again, `result` what it comes to.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
