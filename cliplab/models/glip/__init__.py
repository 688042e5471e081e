"""GLIP: finding what a sentence speaks of, in plain PyTorch and on any machine."""

from cliplab.models.glip.config import GLIP_L, GLIP_T, GLIP_T_A, VARIANTS, GLIPConfig
from cliplab.models.glip.head import Raw
from cliplab.models.glip.inference import Found, Selection, phrase_scores, select
from cliplab.models.glip.model import GLIP
from cliplab.models.glip.training import Losses, Truth, glip_loss

__all__ = [
    "GLIP", "GLIP_L", "GLIP_T", "GLIP_T_A", "VARIANTS", "Found", "GLIPConfig", "Losses", "Raw",
    "Selection", "Truth", "glip_loss", "phrase_scores", "select",
]  # fmt: skip
