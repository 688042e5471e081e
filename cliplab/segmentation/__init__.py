"""Zero-shot segmentation: words and a picture in, a label for every pixel out; and how good it is.

segmenter = load_segmenter("hf:nvidia/groupvit-gcc-yfcc")
words = vocabulary(["sheep", "dog"], background=BACKGROUND_WORDS)
found = segmenter.segment(open_image(path), words, Settings(threshold=0.9))
found.labels_at()  # (height, width), indices into found.names
"""

from cliplab.segmentation.quality import (
    IGNORE,
    Quality,
    Tally,
    boundary_counts,
    confusion,
    iou_per_class,
    oracle_labels,
)
from cliplab.segmentation.refine import refine
from cliplab.segmentation.result import Segmentation
from cliplab.segmentation.scene import Scenes, name_groups, pixel_maps, read_scenes, score_groups
from cliplab.segmentation.segmenter import (
    Segmenter,
    Settings,
    load_segmenter,
    tokenizer_of,
    working_size,
)
from cliplab.segmentation.vocabulary import (
    BACKGROUND,
    BACKGROUND_WORDS,
    Vocabulary,
    vocabulary,
)

__all__ = [
    "BACKGROUND", "BACKGROUND_WORDS", "IGNORE", "Quality", "Scenes", "Segmentation", "Segmenter",
    "Settings", "Tally", "Vocabulary", "boundary_counts", "confusion", "iou_per_class",
    "load_segmenter", "name_groups", "oracle_labels", "pixel_maps", "read_scenes", "refine",
    "score_groups", "tokenizer_of", "vocabulary", "working_size",
]  # fmt: skip
