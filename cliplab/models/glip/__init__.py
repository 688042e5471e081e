"""GLIP: finding what a sentence speaks of, in plain PyTorch and on any machine."""

from cliplab.models.glip import anchors
from cliplab.models.glip.config import GLIP_L, GLIP_T, GLIP_T_A, VARIANTS, GLIPConfig
from cliplab.models.glip.dyhead import Raw
from cliplab.models.glip.inference import (
    Found,
    Selection,
    best_boxes,
    merge,
    phrase_scores,
    prepare,
    same_sizes,
    select,
    to_picture,
)
from cliplab.models.glip.model import GLIP
from cliplab.models.glip.tokens import (
    Chunk,
    Prompt,
    Span,
    batch_of,
    chunks_of,
    pieces_of,
    positive_map,
)
from cliplab.models.glip.training import Targets, Truth, targets_of
from cliplab.models.glip.weights import load_glip, save_glip
