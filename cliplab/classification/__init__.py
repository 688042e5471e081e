"""Classification: words and pictures in; scores, their metrics and their troubles out.

`zero_shot` builds a classifier of words, `few_shot` of some labelled pictures; `metrics` and
`Assessment` say how good it is, `diagnosis` why it is not better; `imagenet` repeats the protocol
of the CLIP paper.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
