"""Users' photos: folders, tables and boxes in, RGB pictures with labels and splits out.

`read_photos` takes a folder of class folders, a CSV manifest, a COCO JSON or a YOLO folder and
gives a `PhotoSet`; `open_image` reads one file as a person sees it, or says why not.
"""

from cliplab.data.files import (
    FORMATS,
    MAX_PIXELS,
    PHONE_SUFFIXES,
    SUFFIXES,
    UnreadableImage,
    iter_images,
    list_images,
    open_image,
    read_images,
    shown,
)
from cliplab.data.folders import read_unlabelled
from cliplab.data.photo_set import SPLITS, Photo, PhotoSet
from cliplab.data.source import KINDS, read_photos

__all__ = [
    "FORMATS",
    "KINDS",
    "MAX_PIXELS",
    "PHONE_SUFFIXES",
    "SPLITS",
    "SUFFIXES",
    "Photo",
    "PhotoSet",
    "UnreadableImage",
    "iter_images",
    "list_images",
    "open_image",
    "read_images",
    "read_photos",
    "read_unlabelled",
    "shown",
]
