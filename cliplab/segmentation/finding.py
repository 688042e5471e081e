"""Picture after picture through a segmenter, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cliplab.data import UnreadableImage, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from cliplab.detection.pictures import Picture
    from cliplab.segmentation import Segmentation, Segmenter, Settings, Vocabulary


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture as it was just segmented; not kept."""

    picture: Picture
    image: Image  # upright RGB
    found: Segmentation
    labels: NDArray[np.uint8]  # (height, width) of the picture, indices into the names


_PART = 2**22  # pixels counted at a time

OnSeen = Callable[[Seen], None]


@dataclass(frozen=True, eq=False)
class Found:
    """What came of N readable pictures, K labels."""

    names: tuple[str, ...]  # K
    pictures: tuple[Picture, ...]  # N
    sizes: tuple[tuple[int, int], ...]  # N of (width, height)
    groups: tuple[int, ...]  # N, groups that own a pixel, in all windows together
    shares: tuple[tuple[float, ...], ...]  # N of K, shares of the picture's pixels
    unreadable: tuple[UnreadableImage, ...]  # the others

    def __len__(self) -> int:
        return len(self.pictures)


def segment_all(
    segmenter: Segmenter,
    pictures: Iterable[Picture],
    vocabulary: Vocabulary,
    settings: Settings,
    *,
    on_seen: OnSeen | None = None,
    progress: bool = False,
) -> Found:
    """Every picture once; one is in memory at a time, whatever their number.

    Args:
        segmenter: of `load_segmenter`.
        pictures: of `read_pictures`.
        vocabulary: labels and background.
        settings: how a picture is read.
        on_seen: called for every readable one.
        progress: show a bar on stderr.
    """
    from tqdm import tqdm

    seen: list[tuple[Picture, tuple[int, int], int, tuple[float, ...]]] = []
    unreadable: list[UnreadableImage] = []
    for picture in tqdm(list(pictures), unit="picture", disable=not progress):
        try:
            image = open_image(picture.path)
        except UnreadableImage as error:
            unreadable.append(error)
            continue
        found = segmenter.segment(image, vocabulary, settings)
        labels = found.labels_at().numpy().astype(np.uint8, copy=False)
        if on_seen is not None:
            on_seen(Seen(picture, image, found, labels))
        seen.append((picture, image.size, len(found.owner.unique()), _shares(labels, found.names)))
    return Found(
        vocabulary.names,
        pictures=tuple(one[0] for one in seen),
        sizes=tuple(one[1] for one in seen),
        groups=tuple(one[2] for one in seen),
        shares=tuple(one[3] for one in seen),
        unreadable=tuple(unreadable),
    )


def _shares(labels: NDArray[np.uint8], names: tuple[str, ...]) -> tuple[float, ...]:
    return tuple((count_labels(labels, len(names)) / labels.size).tolist())


def count_labels(labels: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """Pixels of each of K labels, (H, W) -> (K,)."""
    counts = np.zeros(k, np.int64)
    flat = labels.reshape(-1)
    for start in range(0, len(flat), _PART):  # bincount makes 8 bytes of each
        counts += np.bincount(flat[start : start + _PART], minlength=k)
    return counts
