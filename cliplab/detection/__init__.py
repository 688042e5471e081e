"""Boxes with names: crops, ViLD and GLIP behind one protocol, and how good they are.

`load_detector(model).detect(images, prompts)` gives `Detections`; `postprocess` says what of them
counts, `find` takes a collection of files, and `judge` compares with boxes that are known.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
