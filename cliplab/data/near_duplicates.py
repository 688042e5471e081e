"""Pictures that show the same thing twice: copies, re-saved files, neighbouring video frames.

Two steps, as one alone is either blind or credulous. A difference hash (64 signs of horizontal
brightness steps on a 9 x 8 thumbnail) finds candidates with one XOR for each pair; thumbnails of
16 x 16 colours decide. Thresholds were chosen on the pasture (1,500 portraits, 800 crops, 300
herds) and 33 photographs and plots that come with libraries, against copies of them saved as JPEG
30, halved, darkened, with noise, shifted or zoomed:

* at most 10 of 64 bits apart and thumbnails correlated above 0.9: one pair of 1.5 million distinct
  ones passes; 97 to 100 % of the copies in JPEG, halved, darker, noisy, shifted by 2 % or zoomed
  by 3 % do, four of five of those shifted by 4 %, two of five by 6 %;
* the hash alone, at 10 bits, joins 30 pairs of different animals, and through them half a class.

Half of the copies with a logo over a tenth of the picture, mirrored ones and those cut out
otherwise are not seen: give such pictures a group.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliplab.data.files import UnreadableImage, open_image
from cliplab.data.samples import Sample

MAX_BITS = 10  # of 64 that two hashes may differ in
MIN_CORRELATION = 0.9  # of two thumbnails, brightness and contrast taken out
MAX_DIFFERENCE = 4.0  # mean, of 255: for flat pictures, in which nothing correlates
_SIDE = 16  # pixels of a thumbnail
_VALUES = _SIDE * _SIDE * 3
_DECODED = 64  # pixels to which JPEG may be decoded before it is shrunk
_ROWS = 256  # hashes compared with all others at a time
_PAIRS = 1 << 15  # thumbnails compared at a time: 2 x 100 MB as float


Print = tuple[int, NDArray[np.uint8]]  # 64 signs row by row, and _VALUES colours


def print_of(image: Image.Image) -> Print:
    """Difference hash (is a pixel brighter than its left neighbour?) and thumbnail."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    values = np.asarray(grey).astype(np.int16)  # (8, 9)
    signs = np.packbits(values[:, 1:] > values[:, :-1])
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return int.from_bytes(signs.tobytes(), "big"), np.asarray(small).ravel()


def near_pairs(photos: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Pairs of indices (i, j) of photos that look the same; unreadable photos are in none.

    A box of a photo with a group of its own is compared as a crop, since its owner tells the
    animals of one picture apart; all else is compared as whole pictures.
    """
    from tqdm import tqdm

    wanted: dict[Path, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        wanted[photo.path].append(i)
    prints: list[tuple[int, Print]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(lambda at: _prints(at, photos), wanted.values())
        bar = tqdm(
            jobs, total=len(wanted), desc="comparing", unit="image", leave=False, disable=None
        )
        for found in bar:
            prints.extend(found)
    places = [i for i, _ in prints]
    for i, j in _similar([p for _, p in prints]):
        yield places[i], places[j]


def _prints(places: Sequence[int], photos: Sequence[Sample]) -> list[tuple[int, Print]]:
    """Prints of the photos of one file."""
    crops = [i for i in places if photos[i].box_xyxy and photos[i].group]
    wholes = [i for i in places if i not in set(crops)]
    try:
        if not crops:
            return [(wholes[0], print_of(open_image(photos[wholes[0]].path, side=_DECODED)))]
        image = open_image(photos[crops[0]].path)
        found = [(i, print_of(photos[i].crop(image))) for i in crops]
        return found + [(i, print_of(image)) for i in wholes[:1]]
    except UnreadableImage:  # whoever opens it later will report it
        return []


def _similar(prints: Sequence[Print]) -> Iterator[tuple[int, int]]:
    """Pairs of similar prints, i < j; of equal ones only each with the first."""
    first: dict[tuple[int, bytes], int] = {}
    places = []
    for i, (sign, colour) in enumerate(prints):
        before = first.setdefault((sign, colour.tobytes()), i)
        if before == i:
            places.append(i)
        else:
            yield before, i
    bits = np.array([prints[i][0] for i in places], np.uint64)  # (M,)
    colours = np.array([prints[i][1] for i in places], np.uint8).reshape(-1, _VALUES)
    for start in range(0, len(bits), _ROWS):
        rows = bits[start : start + _ROWS, None]
        # Quadratic, but one XOR a pair: 0.24 s for 10,000 pictures.
        close = np.bitwise_count(rows ^ bits[None, start:]) <= MAX_BITS  # (rows, M - start)
        left, right = np.nonzero(np.triu(close, 1))
        for at in range(0, len(left), _PAIRS):
            a, b = left[at : at + _PAIRS] + start, right[at : at + _PAIRS] + start
            same = _alike(colours[a], colours[b])
            yield from ((places[i], places[j]) for i, j in zip(a[same], b[same], strict=True))


def _alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether thumbnails (P, 768), (P, 768) show the same -> (P,)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    difference = np.abs(a - b).mean(axis=1)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    correlation = (a * b).sum(axis=1) / np.maximum(norm, 1e-6)
    return (correlation > MIN_CORRELATION) | (difference < MAX_DIFFERENCE)
