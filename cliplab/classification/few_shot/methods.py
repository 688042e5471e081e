"""What all methods share; the zero-shot baseline, Tip-Adapter, and a temperature on top of any."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import CacheClassifier, Classifier, LinearClassifier
from cliplab.classification.few_shot.shots import Shots, check_fit, check_unit_rows

TEMPERATURES = (0.05, 20.0)  # where a temperature is looked for


class Method(ABC):
    """A way to make a classifier of a few shots; its settings are the fields of a dataclass.

    `fit` takes a training and a validation split and nothing else, so that no test picture can
    enter; what is chosen (C, alpha, beta, epochs) is chosen on them.
    """

    @classmethod
    def build(cls, **known: Any) -> Self:
        """The method with its default settings; of zero_shot, logit_scale, encoder and seed it
        takes those that it has."""
        own = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # every method is one
        return cls(**{name: value for name, value in known.items() if name in own})

    def fit(self, train: Shots, val: Shots | None = None) -> Classifier:
        """Classifier for the classes of `train`; the same shots and seed give the same one.

        Args:
            train: shots of the split "train", at least one per class.
            val: shots of the split "val", apart from train; settings are chosen on it. Without it
                they are chosen within train, or are defaults: the `choices` of the result tell.

        Raises:
            ValueError: test data, splits that overlap, a class without shots, shapes that do not
                fit.
        """
        check_fit(train, val)
        self._check(train)
        return self._fit(train, val)

    def _check(self, train: Shots) -> None:  # noqa: B027 - nothing to check is the rule
        """Raise ValueError unless what the method was given fits the shots."""

    @abstractmethod
    def _fit(self, train: Shots, val: Shots | None) -> Classifier: ...


@dataclass(eq=False)
class FromZeroShot(Method):
    """A method that begins with a zero-shot classifier and its logit scale."""

    zero_shot: Tensor  # (K, D) unit rows
    logit_scale: float

    def __post_init__(self) -> None:
        self.zero_shot = check_unit_rows(self.zero_shot, name="zero_shot")
        self.logit_scale = float(self.logit_scale)

    def _check(self, train: Shots) -> None:
        expected = (len(train.class_names), train.dim)
        if (got := tuple(self.zero_shot.shape)) != expected:
            raise ValueError(
                f"zero_shot: got shape {got}; expected {expected}, classes x dimensions of the "
                "shots: build it with build_classifier, the same class names and encoder"
            )

    def _linear(
        self, train: Shots, weight: Tensor, bias: Tensor | None = None, **choices: Any
    ) -> LinearClassifier:
        return LinearClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=weight,
            bias=bias,
            choices={name.replace("_", " "): value for name, value in choices.items()},
        )


def quality(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(accuracy, -log loss) of logits (N, K): a few shots tie often, and the loss breaks ties."""
    hits = (logits.argmax(dim=1) == labels).float().mean()
    return float(hits), -float(F.cross_entropy(logits, labels))


def best(candidates: list[tuple[Any, Tensor]], labels: Tensor) -> Any:
    """The setting whose logits are best; of equal ones the first."""
    return max(candidates, key=lambda pair: quality(pair[1], labels))[0]


@dataclass(eq=False)
class ZeroShot(FromZeroShot):
    """The zero-shot classifier itself: the baseline that shots have to beat.

    Source: CLIP, arXiv:2103.00020, section 3.1.
    """

    def _fit(self, train: Shots, val: Shots | None) -> LinearClassifier:
        return self._linear(train, self.zero_shot, method="zero-shot")


@dataclass(eq=False)
class TemperatureScaling(Method):
    """Divide the logits by one number, so that confidences agree with accuracies.

    What is predicted, and so the accuracy, stays as it is. Without a validation split only the
    zero-shot classifier can be calibrated, on train: it has not seen train, while a fitted
    classifier is surer of its training pictures than of any other.

    Source: On Calibration of Modern Neural Networks, arXiv:1706.04599, section 4.2.
    """

    method: Method  # makes the classifier whose logits are divided

    @classmethod
    def build(cls, **known: Any) -> Self:
        """Temperature scaling of the zero-shot classifier."""
        return cls(ZeroShot.build(**known))

    def _check(self, train: Shots) -> None:
        self.method._check(train)

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        if val is None and not isinstance(self.method, ZeroShot):
            raise ValueError(
                "temperature: got no val; expected validation shots, since a fitted classifier is "
                "too sure of its own training shots to choose a temperature on them"
            )
        held_out = train if val is None else val
        classifier = self.method._fit(train, val)
        temperature = fit_temperature(classifier.logits(held_out.image_emb), held_out.labels)
        chosen = {"temperature": temperature, "temperature chosen on": held_out.split}
        return replace(
            classifier,
            temperature=classifier.temperature * temperature,
            choices=classifier.choices | chosen,
        )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in TEMPERATURES with the least log loss of logits (N, K).

    The loss is convex in 1 / temperature, so it has one valley. When every image is right the
    valley slopes down for ever, and the lower bound is returned.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    places = [math.log(bound) for bound in TEMPERATURES]
    found = minimize_scalar(loss, bounds=places, method="bounded", options={"xatol": 1e-8}).x
    return min((*TEMPERATURES, math.exp(found)), key=lambda t: loss(math.log(t)))


# ---- Tip-Adapter: arXiv:2111.03930, section 3; written from its formulas ------------------------

ALPHA, BETA = 1.17, 1.0  # the paper's code starts its search from them
EPOCHS = 20  # of Tip-Adapter-F
# As shares of the logit scale: a vote weighs the same whatever the temperature of the encoder.
ALPHAS = (0.0, *(0.01 * 2**n for n in range(10)))  # alpha / logit_scale, 0 to 5
BETAS = tuple(0.5 * 2 ** (n / 2) for n in range(12))  # 0.5 to 23


@dataclass(eq=False)
class TipAdapter(FromZeroShot):
    """logits = logit_scale * f W^T + alpha * exp(-beta (1 - f F^T)) L, without training.

    F (M, D) are the training shots and L (M, K) their one-hot labels. With alpha = 0 it is the
    zero-shot classifier, bit by bit.

    Alpha and beta are searched on val. Without val they are searched on train, each shot judged by
    a cache without it (and without its group); the votes for its class are scaled up to make good
    the absence, else every class would look weaker to its own shots than to others. With one shot
    (or one group) per class nothing would be left to vote, and ALPHA and BETA are taken.

    The script of the authors searches alpha and beta on the **test** pictures of ImageNet, and
    stops Tip-Adapter-F at its best test epoch: their numbers there are a little too good. Here the
    test split cannot be passed.
    """

    name: ClassVar[str] = "tip-adapter"

    alpha: float | None = field(default=None, kw_only=True)  # weight of the cache, and
    beta: float | None = field(default=None, kw_only=True)  # sharpness: both, or None = chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.alpha is None) != (self.beta is None):
            raise ValueError(
                f"alpha {self.alpha}, beta {self.beta}: expected both, or neither to choose them"
            )

    def _fit(self, train: Shots, val: Shots | None) -> CacheClassifier:
        alpha, beta, chosen_on = self._choose(train, val)
        return self._cache(train, train.image_emb, alpha, beta, chosen_on=chosen_on)

    def _cache(
        self, train: Shots, keys: Tensor, alpha: float, beta: float, **choices: Any
    ) -> CacheClassifier:
        chosen = {"method": self.name, "alpha": alpha, "beta": beta}
        return CacheClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=self.zero_shot,
            keys=keys,
            labels=train.labels,
            alpha=alpha,
            beta=beta,
            choices=chosen | {name.replace("_", " "): value for name, value in choices.items()},
        )

    def _choose(self, train: Shots, val: Shots | None) -> tuple[float, float, str]:
        """Alpha, beta, and what they were chosen on."""
        if self.alpha is not None and self.beta is not None:
            return self.alpha, self.beta, "given"
        if val is not None:
            return *self._search(train, train.image_emb, val), "val"
        if (own := _held_out_weights(train)) is None:
            return ALPHA, BETA, "default: nothing can be held out"
        return *self._search(train, train.image_emb, train, own), "leave-one-out"

    def _search(
        self, train: Shots, keys: Tensor, judged: Shots, weights: Tensor | float = 1.0
    ) -> tuple[float, float]:
        """The best (alpha, beta) for a cache of `keys` on `judged`, its votes times `weights`."""
        zero_shot = self.logit_scale * (judged.image_emb @ self.zero_shot.T)
        gram = judged.image_emb @ keys.T  # (V, N)
        votes = {b: (torch.exp(-b * (1 - gram)) * weights) @ _one_hot(train) for b in BETAS}
        grid = [(self.logit_scale * share, b) for share in ALPHAS for b in BETAS]
        return best([((a, b), zero_shot + a * votes[b]) for a, b in grid], judged.labels)


def _one_hot(shots: Shots) -> Tensor:
    return F.one_hot(shots.labels, len(shots.class_names)).float()  # (N, K)


def _held_out_weights(train: Shots) -> Tensor | None:
    """Weight (N, N) of shot j in the cache that judges shot i; None where a class would be empty.

    0 for i itself and its group. The rest of a class that lost shots counts for more, so that the
    votes of each class sum over as many shots as in the whole cache.
    """
    names = train.groups or tuple(map(str, range(len(train))))
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = torch.tensor([index[name] for name in names])
    kept = (group[:, None] != group[None]).float()  # (N, N)
    left = kept @ _one_hot(train)  # (N, K), shots of each class that may judge i
    if not left.all():
        return None
    return kept * (train.counts / left)[:, train.labels]


@dataclass(eq=False)
class TipAdapterF(TipAdapter):
    """Tip-Adapter with keys F that are fine-tuned (AdamW, cosine learning rate) from the shots.

    With val, the best of the epochs is kept, and then alpha and beta are searched again.

    Source: Tip-Adapter, section 3; learning rate 0.001, eps 1e-4, EPOCHS, batches of 256.
    """

    name: ClassVar[str] = "tip-adapter-f"

    seed: int = field(default=0, kw_only=True)  # of the batches' order

    def _fit(self, train: Shots, val: Shots | None) -> CacheClassifier:
        alpha, beta, chosen_on = self._choose(train, val)
        tried = [train.image_emb, *self._epochs(train, alpha, beta)]  # keys after each epoch
        epoch = EPOCHS
        if val is not None:
            fitted = [self._cache(train, keys, alpha, beta) for keys in tried]
            logits = [(n, one.logits(val.image_emb)) for n, one in enumerate(fitted)]
            epoch = best(logits, val.labels)
            if self.alpha is None:
                alpha, beta = self._search(train, tried[epoch], val)
        return self._cache(train, tried[epoch], alpha, beta, chosen_on=chosen_on, epochs=epoch)

    def _epochs(self, train: Shots, alpha: float, beta: float) -> Iterator[Tensor]:
        """The keys (N, D) after each epoch."""
        generator = torch.Generator().manual_seed(self.seed)
        keys = nn.Parameter(train.image_emb.clone())
        optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
        batches = -(-len(train) // 256)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
        values = _one_hot(train)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(train), generator=generator).split(256):
                emb = train.image_emb[rows]
                votes = torch.exp(-beta * (1 - emb @ keys.T)) @ values
                logits = self.logit_scale * (emb @ self.zero_shot.T) + alpha * votes
                optimizer.zero_grad()
                F.cross_entropy(logits, train.labels[rows]).backward()
                optimizer.step()
                schedule.step()
            yield keys.detach().clone()
