"""What a classifier said about N images and K classes, with the numbers that say how surely.

Taught in: notebooks/02. Source: CLIP, arXiv:2103.00020, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpecFromSubplotSpec

MAX_PANELS = 24  # images in one figure, and
MAX_BARS = 8  # classes beside each; more cannot be read

_SUM_TOLERANCE = 0.02  # probabilities printed to two digits still sum to 1 within this


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N images for K classes; all tensors float32 on the CPU.

    Make them with `from_cosine`, `from_logits` or `from_probability`.
    """

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
        cosine = _plain("cosine", cosine)
        logits = logit_scale * cosine + (logit_bias or 0.0)
        names, probability = tuple(class_names), logits.softmax(dim=-1)
        return cls(names, logits, probability, logit_scale, cosine, logit_bias)

    @classmethod
    def from_logits(
        cls,
        class_names: Sequence[str],
        logits: Tensor,
        *,
        logit_scale: float = 1.0,
        cosine: Tensor | None = None,
    ) -> Scores:
        """Scores from logits (N, K) of any classifier, such as a linear probe.

        Args:
            class_names: K names.
            logits: (N, K), natural logarithms up to a constant per row.
            logit_scale: what `gap` is divided by; 1 leaves it in units of the logits.
            cosine: (N, K), where the classifier is one of cosines.
        """
        logits = _plain("logits", logits)
        cosine = None if cosine is None else _plain("cosine", cosine)
        return cls(tuple(class_names), logits, logits.softmax(dim=-1), logit_scale, cosine)

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
        shares = _plain("probability", probability)
        total = shares.sum(dim=-1)  # (N,)
        wrong = (shares < 0).any(dim=-1) | ((total - 1).abs() > _SUM_TOLERANCE)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"probability: row {row} is {shares[row].tolist()} with sum {total[row]:.3f}; "
                "expected shares from 0 to 1 that sum to 1: for logits use Scores.from_logits"
            )
        return cls.from_logits(class_names, shares.log(), logit_scale=logit_scale)

    def __post_init__(self) -> None:
        shape = (len(self.logits), len(self.class_names))
        for name in ("cosine", "logits", "probability"):
            part = getattr(self, name)
            if part is None:
                continue
            if tuple(part.shape) != shape:
                got = tuple(part.shape)
                raise ValueError(f"{name}: got shape {got}; expected {shape}, images x class names")
            if part.isnan().any():
                rows = part.isnan().any(dim=-1).nonzero().flatten().tolist()
                raise ValueError(
                    f"{name}: NaN in {len(rows)} of {len(part)} rows, first in row {rows[0]}; "
                    "expected numbers: look at what the classifier was given"
                )
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(
                f"logit_scale: got {self.logit_scale}; expected 1 / temperature, above 0"
            )

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        return f"<Scores of {len(self)} images for {', '.join(self.class_names)}>"

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

        Raises:
            ValueError: the model was not trained with a sigmoid loss, so that its logits have no
                zero that means "as likely as not".

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

    def table(self, *, names: Sequence[Any] | None = None, top: int | None = None) -> pd.DataFrame:
        """The classes of each image from most to least probable, one row each, rounded to read.

        Args:
            names: of the images, for the index; default 0, 1, ...
            top: rows per image; default all K. `top=1` gives one line per image.

        Returns:
            Rows indexed by image and rank (1 = best). Margin and entropy belong to the image and
            repeat in its rows; entropy is in percent of its maximum, log K. Without cosines their
            column is left out.
        """
        import pandas as pd

        names = range(len(self)) if names is None else names
        if len(names) != len(self):
            raise ValueError(f"names: got {len(names)}; expected one per image, {len(self)}")
        k = len(self.class_names) if top is None else min(top, len(self.class_names))
        order = self.logits.argsort(dim=-1, descending=True, stable=True)[:, :k]  # (N, k)
        index = pd.MultiIndex.from_product([names, range(1, k + 1)], names=["image", "rank"])
        percent = 100 * torch.stack([self.margin, self.relative_entropy])  # (2, N)
        columns = {
            "class": [self.class_names[i] for i in order.flatten().tolist()],
            "probability %": 100 * self.probability.gather(1, order).flatten().numpy(),
            "logit": self.logits.gather(1, order).flatten().numpy(),
            "margin %": percent[0].repeat_interleave(k).numpy(),
            "entropy %": percent[1].repeat_interleave(k).numpy(),
        }
        digits = {"probability %": 1, "logit": 2, "margin %": 1, "entropy %": 1}
        table = pd.DataFrame(columns, index=index).astype(dict.fromkeys(digits, float))
        if self.cosine is not None:
            table.insert(2, "cosine", self.cosine.gather(1, order).flatten().numpy().astype(float))
        return table.round(digits | {"cosine": 4})

    def plot(self, ax: Axes | None = None, images: Sequence[Image.Image] | None = None) -> Axes:
        """The probabilities of each image as bars, chance dashed, the image beside them.

        With more classes than MAX_BARS each image shows its best ones, best first.

        Args:
            ax: whose place in the figure is used; default a new figure.
            images: the N images, in the same order.

        Raises:
            ValueError: no scores, more images than can be read, or another number of images.
        """
        if not 1 <= len(self) <= MAX_PANELS:
            raise ValueError(
                f"plot: got {len(self)} images; expected 1 to {MAX_PANELS}: use .subset(...) first"
            )
        if images is not None and len(images) != len(self):
            raise ValueError(f"images: got {len(images)}; expected one per score, {len(self)}")
        columns = 1 if len(self) <= 6 else 2
        ax, grid = self._grid(ax, columns)
        for i in range(len(self)):
            row, column = i // columns, 2 * (i % columns)
            if images is not None:
                show = ax.figure.add_subplot(grid[row, column])
                show.imshow(images[i])
                show.set_axis_off()
            left = column + (images is not None)
            panel = ax.figure.add_subplot(grid[row, left : column + 2])
            self._plot_one(panel, i, last=i + columns >= len(self))
        return ax

    def _grid(self, ax: Axes | None, columns: int) -> tuple[Axes, GridSpecFromSubplotSpec]:
        """The axes, emptied, and their place divided into image and bars, `columns` times."""
        from matplotlib import pyplot as plt

        from cliplab.viz.figures import use_style

        rows, bars = -(-len(self) // columns), min(MAX_BARS, len(self.class_names))
        if ax is None:
            use_style()  # else Chinese names would be boxes
            size = (7.0, 0.4 + rows * (0.3 + max(0.24 * bars, 0.6)))
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        ax.set_axis_off()
        place = ax.get_subplotspec()
        if place is None:
            raise ValueError("ax: got one placed by hand; expected one of subplots, to divide it")
        return ax, place.subgridspec(rows, 2 * columns, width_ratios=[1, 3] * columns)

    def _plot_one(self, ax: Axes, i: int, *, last: bool) -> None:
        """Bars of image i; the axis is labelled only below the last panel of its column."""
        from matplotlib.ticker import PercentFormatter

        from cliplab.viz.figures import BLUE, INK, MUTED

        shares, chance = self.probability[i], 1 / len(self.class_names)
        shown = list(range(len(shares)))
        if len(shown) > MAX_BARS:
            shown = shares.argsort(descending=True)[:MAX_BARS].tolist()
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        for y, k in enumerate(shown):
            share, best = float(shares[k]), k == int(self.prediction[i])
            ax.barh(y, share, height=0.68, color=BLUE, alpha=1.0 if best else 0.4)
            weight = "bold" if best else "normal"
            text = ax.text(share + 0.015, y, f"{share:.1%}", va="center", size=8.5, weight=weight)
            text.set_bbox(paper)
        ax.axvline(chance, color=MUTED, lw=1.2, ls=(0, (4, 3)))
        ax.set_yticks(range(len(shown)), [self.class_names[k] for k in shown], color=INK)
        ax.set(xlim=(0, 1.25), ylim=(len(shown) - 0.4, -0.6), xticks=[0, 0.5, 1])
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelbottom=last)
        uncertainty = f"entropy {float(self.relative_entropy[i]):.0%} of maximum"
        ax.set_title(uncertainty, loc="right", size=8, weight="normal", color=MUTED, pad=2)
        if last:
            ax.set_xlabel(f"dashed: chance, {chance:.1%}")


def _plain(name: str, values: Tensor) -> Tensor:
    """A matrix as float32 on the CPU, without its gradient."""
    if not isinstance(values, Tensor) or values.ndim != 2:
        got = tuple(values.shape) if hasattr(values, "shape") else type(values).__name__
        raise ValueError(f"{name}: got {got}; expected a tensor (N, K), images x class names")
    return values.detach().float().cpu()
