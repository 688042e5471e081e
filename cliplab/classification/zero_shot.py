"""Zero-shot classification: class names become a classifier, cosines become probabilities.

Taught in: notebooks/02. Source: CLIP, arXiv:2103.00020, section 3.1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification.prompts import (
    UnreadPromptWarning,
    check_class_names,
    check_templates,
    complain_of_unread,
    fill_templates,
    templates as templates,
)
from cliplab.encoders import Encoder

if TYPE_CHECKING:
    import pandas as pd

_SUM_TOLERANCE = 0.02  # probabilities printed to two digits still sum to 1 within this


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N images for K classes; all tensors float32 on the CPU."""

    class_names: tuple[str, ...]
    logits: Tensor  # (N, K) = logit_scale * cosine (+ logit_bias), where there are cosines
    probability: Tensor  # (N, K), rows sum to 1: among these classes only
    logit_scale: float  # 1 / temperature
    cosine: Tensor | None = None  # (N, K), -1 to 1; None when a fitted classifier made the logits
    logit_bias: float | None = None  # of a model trained with a sigmoid loss; None = softmax loss

    @classmethod
    def from_cosine(
        cls,
        class_names: Sequence[str],
        cosine: Tensor,
        logit_scale: float,
        logit_bias: float | None = None,
    ) -> Scores:
        """Scores from cosines (N, K) and 1 / temperature; SigLIP's bias shifts all logits alike."""
        cosine = _plain(cosine)
        logits = logit_scale * cosine + (logit_bias or 0.0)
        names, probability = tuple(class_names), logits.softmax(dim=-1)
        return cls(names, logits, probability, logit_scale, cosine, logit_bias)

    @classmethod
    def by(cls, encoder: Encoder, class_names: Sequence[str], cosine: Tensor) -> Scores:
        """Scores from cosines (N, K) of an encoder, by its temperature and bias."""
        bias = getattr(encoder, "logit_bias", None)  # of a sigmoid loss, as SigLIP's
        return cls.from_cosine(class_names, cosine, encoder.logit_scale, bias)

    @classmethod
    def from_logits(
        cls, class_names: Sequence[str], logits: Tensor, *, logit_scale: float = 1.0
    ) -> Scores:
        """Scores from logits (N, K) of any classifier; `gap` is divided by `logit_scale`."""
        logits = _plain(logits)
        return cls(tuple(class_names), logits, logits.softmax(dim=-1), logit_scale)

    @classmethod
    def from_probability(
        cls, class_names: Sequence[str], probability: Tensor, *, logit_scale: float
    ) -> Scores:
        """Scores from probabilities (N, K) that somebody printed, as in a report or an issue.

        The logits are their logarithms: a softmax forgets a constant per row and nothing else, so
        gap, margin and entropy are those of the model. A printed 0 makes its gap infinite.

        Raises:
            ValueError: negative numbers, or rows that do not sum to 1 within 0.02.
        """
        shares = _plain(probability)
        wrong = (shares < 0).any(dim=-1) | ((shares.sum(dim=-1) - 1).abs() > _SUM_TOLERANCE)  # (N,)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"probability: row {row} is {shares[row].tolist()}; expected shares from 0 to 1 "
                "that sum to 1: for logits use Scores.from_logits"
            )
        return cls.from_logits(class_names, shares.log(), logit_scale=logit_scale)

    def __post_init__(self) -> None:
        shape, expected = tuple(self.logits.shape), (len(self.logits), len(self.class_names))
        if shape != expected or self.logits.isnan().any():
            raise ValueError(
                f"logits: got shape {shape}, {int(self.logits.isnan().sum())} of it NaN; expected "
                f"numbers {expected}, images x class names"
            )
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(
                f"logit_scale: got {self.logit_scale}; expected 1 / temperature, above 0"
            )

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def prediction(self) -> Tensor:
        """Index of the most probable class (N,)."""
        return self.logits.argmax(dim=-1)

    @property
    def predicted_names(self) -> list[str]:
        """Name of the most probable class of each image."""
        return [self.class_names[k] for k in self.prediction.tolist()]

    @property
    def margin(self) -> Tensor:
        """Probability of the best class less that of the second best (N,): 0 = undecided."""
        best = self.probability.topk(min(2, len(self.class_names)), dim=-1).values  # (N, 1 or 2)
        return best[:, 0] - best[:, 1:].sum(dim=-1)

    @property
    def gap(self) -> Tensor:
        """Cosine of the best class less that of the worst (N,), from logits / logit_scale."""
        return (self.logits.amax(dim=-1) - self.logits.amin(dim=-1)) / self.logit_scale

    @property
    def entropy(self) -> Tensor:
        """Entropy of the probabilities in nats (N,): 0 = certain, log K = uniform."""
        log_probability = self.logits.log_softmax(dim=-1)
        terms = log_probability.exp() * log_probability  # (N, K)
        return -torch.where(log_probability.isinf(), 0.0, terms).sum(dim=-1)  # 0 log 0 = 0

    @property
    def relative_entropy(self) -> Tensor:
        """Entropy as a share of its maximum, log K (N,): 1 = the model has no opinion."""
        return self.entropy / math.log(max(2, len(self.class_names)))

    @property
    def independent(self) -> Tensor:
        """Sigmoid of each logit (N, K): "is it this?" asked class by class; rows need not sum to 1.

        ValueError unless the model was trained with a sigmoid loss: other logits have no zero that
        means "as likely as not".

        Source: SigLIP, arXiv:2303.15343, section 3.2.
        """
        if self.logit_bias is None:
            raise ValueError(
                "independent: this model has no logit bias, since it was trained with a softmax "
                "loss; expected one of a sigmoid loss, such as SigLIP 2: use .probability instead"
            )
        return self.logits.sigmoid()

    def subset(self, which: Any) -> Scores:
        """Scores of some images: an index, a slice, a list of indices or a bool mask (N,)."""
        rows = torch.arange(len(self))[which].reshape(-1)
        cosine = None if self.cosine is None else self.cosine[rows]
        parts = (self.logits[rows], self.probability[rows], self.logit_scale, cosine)
        return Scores(self.class_names, *parts, self.logit_bias)

    def table(self, names: Sequence[Any]) -> pd.DataFrame:
        """The classes of each named image from most to least probable, rounded to read.

        Returns:
            K rows for each image, indexed by name and rank (1 = best). Margin and entropy belong to
            the image and repeat; entropy is in percent of its maximum, log K. Without cosines their
            column is left out.
        """
        import pandas as pd

        k = len(self.class_names)
        order = self.logits.argsort(dim=-1, descending=True, stable=True)  # (N, K)
        index = pd.MultiIndex.from_product([names, range(1, k + 1)], names=["image", "rank"])
        numbers = {
            "probability %": 100 * self.probability.gather(1, order),
            "cosine": None if self.cosine is None else self.cosine.gather(1, order),
            "logit": self.logits.gather(1, order),
            "margin %": 100 * self.margin[:, None].expand(-1, k),
            "entropy %": 100 * self.relative_entropy[:, None].expand(-1, k),
        }
        columns: dict[str, Any] = {"class": [self.class_names[i] for i in order.flatten().tolist()]}
        columns |= {n: v.flatten().tolist() for n, v in numbers.items() if v is not None}
        digits = {"probability %": 1, "cosine": 4, "logit": 2, "margin %": 1, "entropy %": 1}
        return pd.DataFrame(columns, index=index).round(digits)


def _plain(values: Tensor) -> Tensor:
    """A matrix as float32 on the CPU, without its gradient."""
    return values.detach().float().cpu()


def build_classifier(
    encoder: Encoder, class_names: Sequence[str], templates: Sequence[str] = ("{}",)
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised: K classes x T templates -> (K, D) unit rows.

    Raises:
        ValueError: no, one or repeated class names; a template without {}; a prompt longer than
            the context.

    Warns:
        UnreadPromptWarning: the text tower cannot read a prompt, or two are the same to it.

    Source: CLIP, section 3.1.4: ensembling in embedding space costs nothing once it is computed.
    """
    names, templates = check_class_names(class_names), check_templates(templates)
    for unread in complain_of_unread(encoder, names, templates):  # first: it may be too long, too
        warnings.warn(unread, UnreadPromptWarning, stacklevel=2)
    return average_templates(encode_prompts(encoder, names, templates))


def embed_classes(
    encoder: Encoder, texts: Sequence[str], templates: Sequence[str], *, truncate: bool = False
) -> tuple[Tensor, list[str]]:
    """The rows (K, D) of `build_classifier`, and what the text tower cannot read, with remedies.

    Any K texts will do; ValueError for templates without {}, and prompts that are too long.
    """
    wording = check_templates(templates)
    rows = average_templates(encode_prompts(encoder, texts, wording, truncate=truncate))
    return rows, complain_of_unread(encoder, texts, wording)


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
) -> Scores:
    """Cosines of N images with K classes, and softmax of logit_scale times them -> `Scores`.

    Args:
        encoder: the one that built the classifier.
        images: PIL images, or a generator of them.
        classifier: (K, D) unit rows from `build_classifier`.
        class_names: K; default "class 0", "class 1", ...

    Raises:
        ValueError: a classifier whose rows are not unit, or for other names.
    """
    if not torch.allclose(classifier.norm(dim=1), torch.ones(len(classifier)), atol=1e-3):
        raise ValueError("classifier: rows are not of unit length; use F.normalize(rows, dim=-1)")
    names = class_names or [f"class {k}" for k in range(len(classifier))]
    return Scores.by(encoder, names, encoder.encode_image(images) @ classifier.T)
