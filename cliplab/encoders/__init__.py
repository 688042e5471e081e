"""Encoders: images and texts to unit vectors, ours and the official ones behind one interface.

The only package that talks to `clip`, `modelscope`, `transformers` and `open_clip`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
