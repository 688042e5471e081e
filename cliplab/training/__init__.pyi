from . import (
    clip_dataset as clip_dataset,
    clip_evaluation as clip_evaluation,
    glip_dataset as glip_dataset,
    glip_evaluation as glip_evaluation,
    groupvit_criterion as groupvit_criterion,
    groupvit_dataset as groupvit_dataset,
    groupvit_evaluation as groupvit_evaluation,
    groupvit_pseudo_labels as groupvit_pseudo_labels,
    pictures as pictures,
    vild as vild,
    vild_dataset as vild_dataset,
    vild_evaluation as vild_evaluation,
)
from .cards import load_rows as load_rows, values as values
from .groupvit import SNAPSHOT_SEEDS as SNAPSHOT_SEEDS
from .groupvit_model import (
    GroupViTRecipe as GroupViTRecipe,
    new_model as new_model,
    patch_embeddings as patch_embeddings,
)

RECIPES: dict[str, str]
