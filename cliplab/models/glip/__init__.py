"""GLIP: finding what a sentence speaks of, in plain PyTorch and on any machine."""

from cliplab.models.glip.config import GLIP_L, GLIP_T, GLIP_T_A, VARIANTS, GLIPConfig
from cliplab.models.glip.detect import Finder, answers, detect
from cliplab.models.glip.head import Raw
from cliplab.models.glip.inference import Found, Selection, phrase_scores, select
from cliplab.models.glip.model import GLIP
from cliplab.models.glip.pictures import prepare, to_picture
from cliplab.models.glip.training import Losses, Targets, Truth, glip_loss, targets_of
from cliplab.models.glip.weights import load_glip, save_glip

__all__ = [
    "GLIP", "GLIP_L", "GLIP_T", "GLIP_T_A", "VARIANTS", "Finder", "Found", "GLIPConfig", "Losses",
    "Raw", "Selection", "Targets", "Truth", "answers", "detect", "glip_loss", "load_glip",
    "phrase_scores", "prepare", "save_glip", "select", "targets_of", "to_picture",
]  # fmt: skip
