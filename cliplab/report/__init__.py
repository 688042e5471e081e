"""Run notebooks as experiments and make a page of what they found; pages with pictures.

`run` keeps a run on disk so that it can be interrupted; the pages are the templates of
`templates`, filled in.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
