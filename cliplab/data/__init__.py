"""Users' pictures: folders, tables and boxes in, samples with labels, boxes, masks and splits out.

`read_photos` takes a folder of class folders, a CSV manifest, a COCO JSON or a YOLO folder and
gives what is to be classified; `read_pictures` gives whole pictures with all that is in them.
`open_image` reads one file as a person sees it, or says why not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
