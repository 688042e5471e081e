"""Words as rows of an encoder's text tower, and what to say if it cannot read them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.classification.prompts import (
    UnreadPromptWarning,
    check_templates,
    fill_templates,
    warn_of_unread,
)
from cliplab.classification.zero_shot import build_classifier
from cliplab.encoders import Encoder
from cliplab.models.tokenizers import is_cjk


@dataclass(frozen=True, eq=False)
class Texts:
    """K classes in the space of an encoder."""

    emb: Tensor  # (K, D) unit rows
    remarks: tuple[str, ...]  # what the text tower could not read, and the remedy


def embed_classes(
    teacher: Encoder, classes: Classes, templates: Sequence[str], *, truncate: bool = False
) -> Texts:
    """Rows of `build_classifier`, of a single class too; its warnings become remarks.

    Raises:
        ValueError: prompts that are too long (unless `truncate`), templates without {}.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if len(classes.prompts) > 1:
            emb = build_classifier(teacher, classes.prompts, templates, truncate=truncate)
        else:
            emb = _alone(teacher, classes.prompts, templates, truncate=truncate)
    for other in caught:
        if not issubclass(other.category, UnreadPromptWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    unread = [str(w.message) for w in caught if issubclass(w.category, UnreadPromptWarning)]
    return Texts(emb, tuple(unread))


def _alone(
    teacher: Encoder, prompts: Sequence[str], templates: Sequence[str], *, truncate: bool
) -> Tensor:
    """One class, which `build_classifier` refuses since nothing could be compared: (1, D)."""
    warn_of_unread(teacher, prompts, check_templates(templates))
    prompt_emb = teacher.encode_text(fill_templates(prompts, templates), truncate=truncate)
    return F.normalize(prompt_emb.mean(dim=0, keepdim=True), dim=-1)


def chinese_remedy(teacher: Encoder, classes: Classes) -> str:
    """What to do with Chinese labels if the texts of `teacher` are the only ones a model knows."""
    written = [i for i, prompt in enumerate(classes.prompts) if any(map(is_cjk, prompt))]
    if "zh" in teacher.languages or not written:
        return ""
    name = classes.names[written[0]]
    return (
        f"this detector speaks the language of its teacher, {teacher.name}, and a teacher that "
        f"reads Chinese cannot take its place: give Chinese names an English text, --labels "
        f'{name}="sheep lying down" and so on, or let a Chinese teacher look at the boxes: --model '
        "crops --teacher pasture-zh"
    )
