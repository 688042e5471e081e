"""Zero-shot classification: class names become a classifier, cosines become probabilities.

Taught in: notebooks/02. Source: CLIP, arXiv:2103.00020, section 3.1.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.runtime import data_dir, unknown_name
from cliplab.two_towers import Encoder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MAX_PANELS = 24  # images in one figure, and
MAX_BARS = 8  # classes beside each; more cannot be read


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

    Source: CLIP, section 3.1.4: ensembling in embedding space costs nothing once it is computed.
    """
    names = check_class_names(class_names)
    templates = _check_templates(templates)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    prompt_emb = encoder.encode_text(prompts, truncate=truncate)  # (K*T, D), class-major
    mean = prompt_emb.unflatten(0, (len(names), len(templates))).mean(dim=1)  # (K, D)
    return F.normalize(mean, dim=-1)


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names without outer white space; ValueError unless at least two differ, whatever case."""
    if isinstance(class_names, str):
        raise ValueError(
            f"class_names: got the text {class_names!r}; expected a list, such as ['sheep', 'goat']"
        )
    names = [str(name).strip() for name in class_names]
    if not names:
        raise ValueError("class_names: got none; expected two or more to choose between")
    if not all(names):
        raise ValueError(f"class_names: got an empty name in {names}; expected text")
    if len(names) == 1:
        raise ValueError(
            f"class_names: got only {names[0]!r}, which would always get 100 %; "
            "expected two or more, for instance with 'something else'"
        )
    # Both tokenizers lower-case: "Sheep" and "sheep" would be the same row twice.
    folded = [name.casefold() for name in names]
    if repeated := sorted({name for name in names if folded.count(name.casefold()) > 1}):
        raise ValueError(
            f"class_names: {', '.join(map(repr, repeated))} repeated; expected each once, since "
            "duplicates share their probability"
        )
    return names


def _check_templates(templates: Sequence[str]) -> list[str]:
    if isinstance(templates, str):
        raise ValueError(f"templates: got the text {templates!r}; expected a list: [{templates!r}]")
    if not templates:
        raise ValueError("templates: got none; expected at least one, such as '{}'")
    for template in templates:
        if "{}" not in template:
            raise ValueError(
                f"template {template!r} has no {{}}, so every class would get the same prompt; "
                "write {} where the class name goes, as in 'a photo of a {}.'"
            )
    return list(templates)


def templates(name: str, language: str) -> tuple[str, ...]:
    """The templates of `data/prompts/<name>.json` in one language; its provenance is in the file.

    Raises:
        FileNotFoundError: no such set; those that exist are listed.
        ValueError: the set has no such language.
    """
    folder = data_dir() / "prompts"
    sets = sorted(path.stem for path in folder.glob("*.json"))
    if name not in sets:
        raise FileNotFoundError(f"{folder}: {unknown_name('prompt set', name, sets)}")
    languages = json.loads((folder / f"{name}.json").read_text("utf-8"))
    if language not in languages or language == "provenance":
        known = [key for key in languages if key != "provenance"]
        raise ValueError(f"{name}: {unknown_name('language', language, known)}")
    return tuple(languages[language]["templates"])


def classify(
    encoder: Encoder,
    images: Iterable[Image.Image],
    classifier: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> "Scores":
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
    return Scores.from_cosine(names, image_emb @ classifier.T, encoder.logit_scale)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N images for K classes; all tensors float32 on the CPU."""

    class_names: tuple[str, ...]
    cosine: Tensor  # (N, K), -1 to 1; what the model measures
    logits: Tensor  # (N, K) = logit_scale * cosine
    probability: Tensor  # (N, K), rows sum to 1: among these classes only

    @classmethod
    def from_cosine(
        cls, class_names: Sequence[str], cosine: Tensor, logit_scale: float
    ) -> "Scores":
        """Scores from cosines (N, K) and 1 / temperature."""
        logits = logit_scale * cosine
        return cls(tuple(class_names), cosine, logits, logits.softmax(dim=-1))

    def __post_init__(self) -> None:
        shape = (len(self.cosine), len(self.class_names))
        for name in ("cosine", "logits", "probability"):
            if (got := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"{name}: got shape {got}; expected {shape}, images x class names")

    def __len__(self) -> int:
        return len(self.cosine)

    def __repr__(self) -> str:
        return f"<Scores of {len(self)} images for {', '.join(self.class_names)}>"

    @property
    def prediction(self) -> Tensor:
        """Index of the most probable class (N,)."""
        return self.cosine.argmax(dim=-1)

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
    def entropy(self) -> Tensor:
        """Entropy of the probabilities in nats (N,): 0 = certain, log K = uniform."""
        log_probability = self.logits.log_softmax(dim=-1)
        return -(log_probability.exp() * log_probability).sum(dim=-1)

    @property
    def relative_entropy(self) -> Tensor:
        """Entropy as a share of its maximum, log K (N,): 1 = the model has no opinion."""
        return self.entropy / math.log(max(2, len(self.class_names)))

    def subset(self, which: Any) -> "Scores":
        """Scores of some images: an index, a slice, a list of indices or a bool mask (N,)."""
        rows = torch.arange(len(self))[which].reshape(-1)
        parts = (self.cosine[rows], self.logits[rows], self.probability[rows])
        return Scores(self.class_names, *parts)

    def table(
        self, *, names: Sequence[Any] | None = None, top: int | None = None
    ) -> "pd.DataFrame":
        """The classes of each image from most to least probable, one row each, rounded to read.

        Args:
            names: of the images, for the index; default 0, 1, ...
            top: rows per image; default all K. `top=1` gives one line per image.

        Returns:
            Rows indexed by image and rank (1 = best). Margin and entropy belong to the image and
            repeat in its rows; entropy is in percent of its maximum, log K.
        """
        import pandas as pd

        names = range(len(self)) if names is None else names
        if len(names) != len(self):
            raise ValueError(f"names: got {len(names)}; expected one per image, {len(self)}")
        k = len(self.class_names) if top is None else min(top, len(self.class_names))
        order = self.cosine.argsort(dim=-1, descending=True, stable=True)[:, :k]  # (N, k)
        index = pd.MultiIndex.from_product([names, range(1, k + 1)], names=["image", "rank"])
        percent = 100 * torch.stack([self.margin, self.relative_entropy])  # (2, N)
        columns = {
            "class": [self.class_names[i] for i in order.flatten().tolist()],
            "probability %": 100 * self.probability.gather(1, order).flatten().numpy(),
            "cosine": self.cosine.gather(1, order).flatten().numpy(),
            "logit": self.logits.gather(1, order).flatten().numpy(),
            "margin %": percent[0].repeat_interleave(k).numpy(),
            "entropy %": percent[1].repeat_interleave(k).numpy(),
        }
        digits = {"probability %": 1, "cosine": 4, "logit": 2, "margin %": 1, "entropy %": 1}
        return pd.DataFrame(columns, index=index).astype(dict.fromkeys(digits, float)).round(digits)

    def plot(self, ax: "Axes | None" = None, images: Sequence[Image.Image] | None = None) -> "Axes":
        """The probabilities of each image as bars, chance dashed, the image beside them.

        With more classes than MAX_BARS each image shows its best ones, best first.

        Args:
            ax: whose place in the figure is used; default a new figure.
            images: the N images, in the same order.

        Raises:
            ValueError: no scores, more images than can be read, or another number of images.
        """
        from matplotlib import pyplot as plt

        from cliplab.figures import use_style

        if not 1 <= len(self) <= MAX_PANELS:
            raise ValueError(
                f"plot: got {len(self)} images; expected 1 to {MAX_PANELS}: use .subset(...) first"
            )
        if images is not None and len(images) != len(self):
            raise ValueError(f"images: got {len(images)}; expected one per score, {len(self)}")
        columns = 1 if len(self) <= 6 else 2
        rows, bars = -(-len(self) // columns), min(MAX_BARS, len(self.class_names))
        if ax is None:
            use_style()  # else Chinese names would be boxes
            size = (7.0, 0.4 + rows * (0.3 + max(0.24 * bars, 0.6)))
            ax = plt.figure(figsize=size, layout="constrained").add_subplot()
        ax.set_axis_off()
        place = ax.get_subplotspec()
        if place is None:
            raise ValueError("ax: got one placed by hand; expected one of subplots, to divide it")
        grid = place.subgridspec(rows, 2 * columns, width_ratios=[1, 3] * columns)
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

    def _plot_one(self, ax: "Axes", i: int, *, last: bool) -> None:
        """Bars of image i; the axis is labelled only below the last panel of its column."""
        from matplotlib.ticker import PercentFormatter

        from cliplab.figures import BLUE, INK, MUTED

        shares, chance = self.probability[i], 1 / len(self.class_names)
        shown = list(range(len(shares)))
        if len(shown) > MAX_BARS:
            shown = shares.argsort(descending=True)[:MAX_BARS].tolist()
        best = int(self.prediction[i])
        for y, k in enumerate(shown):
            share = float(shares[k])
            ax.barh(y, share, height=0.68, color=BLUE, alpha=1.0 if k == best else 0.4)
            weight = "bold" if k == best else "normal"
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            ax.text(
                share + 0.015, y, f"{share:.1%}", va="center", size=8.5, weight=weight, bbox=paper
            )
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
