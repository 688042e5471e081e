"""Zero-shot classification: class names become a classifier, cosines become probabilities.

Taught in: notebooks/02. Source: CLIP, arXiv:2103.00020, section 3.1.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification.prompts import (
    UnreadPromptWarning,
    check_class_names,
    check_templates,
    fill_templates,
    templates,
    token_coverage,
    warn_of_unread,
)
from cliplab.classification.scores import Scores
from cliplab.encoders import Encoder

__all__ = [
    "Scores", "UnreadPromptWarning", "build_classifier", "check_class_names", "classify",
    "encode_prompts", "templates", "token_coverage",
]  # fmt: skip


def build_classifier(
    encoder: Encoder,
    class_names: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    truncate: bool = False,
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised: K classes x T templates -> (K, D) unit rows.

    Args:
        encoder: whose text tower reads the prompts.
        class_names: at least two, all different.
        templates: prompts with {} where the class name goes.
        truncate: cut prompts that are longer than the encoder's context.

    Raises:
        ValueError: no, one or repeated class names; a template without {}; a prompt longer than
            the context, unless `truncate`.

    Warns:
        UnreadPromptWarning: the text tower cannot read a prompt, or two are the same to it.

    Source: CLIP, section 3.1.4: ensembling in embedding space costs nothing once it is computed.
    """
    names, templates = check_class_names(class_names), check_templates(templates)
    warn_of_unread(encoder, names, templates)
    return average_templates(encode_prompts(encoder, names, templates, truncate=truncate))


def average_templates(prompt_emb: Tensor) -> Tensor:
    """Mean of unit rows (K, T, D) over the templates, re-normalised -> (K, D) unit rows."""
    return F.normalize(prompt_emb.mean(dim=1), dim=-1)


def encode_prompts(
    encoder: Encoder,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    truncate: bool = False,
) -> Tensor:
    """Each class name in each template, K x T prompts -> (K, T, D) unit rows; unchecked."""
    prompts = fill_templates(class_names, templates)  # K*T, class-major
    prompt_emb = encoder.encode_text(prompts, truncate=truncate)  # (K*T, D)
    return prompt_emb.unflatten(0, (len(class_names), len(templates)))


def classify(
    encoder: Encoder,
    images: Iterable[Image.Image],
    classifier: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Scores:
    """Cosines of N images with K classes, and softmax of logit_scale times them -> `Scores`.

    Args:
        encoder: the one that built the classifier.
        images: PIL images, or a generator of them.
        classifier: (K, D) unit rows from `build_classifier`.
        class_names: K names for tables and figures; default "class 0", "class 1", ...
        batch_size: images encoded at a time.
        progress: show a bar on stderr.

    Raises:
        ValueError: a classifier of another shape, of rows that are not unit, or for other names.
    """
    if classifier.ndim != 2 or classifier.shape[1] != encoder.dim:
        raise ValueError(
            f"classifier: got shape {tuple(classifier.shape)}; expected (K, {encoder.dim}) for "
            f"{encoder.name}: build it with build_classifier and the same encoder"
        )
    if not torch.allclose(classifier.norm(dim=1), torch.ones(len(classifier)), atol=1e-3):
        raise ValueError("classifier: rows are not of unit length; use F.normalize(rows, dim=-1)")
    names = class_names or [f"class {k}" for k in range(len(classifier))]
    image_emb = encoder.encode_image(images, batch_size=batch_size, progress=progress)  # (N, D)
    bias = getattr(encoder, "logit_bias", None)  # of a sigmoid loss, as SigLIP's
    return Scores.from_cosine(names, image_emb @ classifier.T, encoder.logit_scale, bias)
