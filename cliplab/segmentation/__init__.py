"""Zero-shot segmentation: words and a picture in, a label for every pixel out; and how good it is.

segmenter = load_segmenter("hf:nvidia/groupvit-gcc-yfcc")
words = vocabulary(["sheep", "dog"], background=BACKGROUND_WORDS)
(found,) = segmenter.segment([open_image(path)], words, Settings(threshold=0.9))
found.labels_at()  # (height, width), indices into found.names
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
