"""GroupViT: segments that emerge from captions alone.

Source: GroupViT, arXiv:2202.11094. The official code is under a non-commercial licence: this is
written from the paper and from tensors that it produced.
"""

from cliplab.models.groupvit.encoder import ConvStem, Groups, GroupViTConfig
from cliplab.models.groupvit.grouping import Assignment, GroupingBlock, assign, gumbel_noise
from cliplab.models.groupvit.model import (
    MAX_SCALE,
    GroupViT,
    Losses,
    load_groupvit,
    official_names,
    save_groupvit,
)
