"""The pasture: an endless, seeded, fully labelled world of animals, drawn by this package."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
