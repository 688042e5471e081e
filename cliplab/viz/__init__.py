"""Figures and drawings in one style: matrices, curves, boxes, labels of pixels, words, fonts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
