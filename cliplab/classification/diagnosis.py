"""Why a zero-shot answer is bad, and which cure to try first: language, wording, then examples.

Each cure costs more than the one before it, so the remarks come in this order. What is looked at is
cheap: tokens of the prompts, entropy of the answers, what another wording would have answered, and,
where the truth is known, what shuffled truth would have scored.

Taught in: notebooks/02.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cliplab.classification.metrics import (
    Rate,
    accuracy,
    confusion,
    error_by_luck,
    expected_calibration_error,
    recall_per_class,
)
from cliplab.classification.prompts import (
    check_class_names,
    check_templates,
    complain_of_unread,
    token_coverage as token_coverage,
)
from cliplab.classification.zero_shot import Scores, average_templates, encode_prompts
from cliplab.encoders import Encoder

if TYPE_CHECKING:
    import pandas as pd

FLAT = 0.8  # mean entropy, as a share of log K, above which the answers count as no opinion
WORDING = 0.1  # share of pictures whose answer hangs on the template, above which it is remarked
LUCK = 0.05  # p-value above which shuffled labels do as well


# ---- does the answer depend on the picture? ------------------------------------------------


@dataclass(frozen=True)
class Control:
    """Accuracy with the true labels, beside what shuffled ones give."""

    observed: Rate
    chance_mean: float  # mean accuracy with shuffled labels
    chance_low: float  # 2.5 % of the shuffles lie below,
    chance_high: float  # 2.5 % above
    p_value: float  # share of the shuffles that reach the observed accuracy, itself counted
    one_answer: float  # share of the pictures that got the most common answer

    def __str__(self) -> str:
        return (
            f"{self.observed.value:.3f}, with shuffled labels {self.chance_mean:.3f} "
            f"({self.chance_low:.3f}-{self.chance_high:.3f}), p = {self.p_value:.3f}; "
            f"{self.one_answer:.0%} of the answers are one and the same"
        )


def permuted_label_control(
    predicted: ArrayLike | Tensor,
    true: ArrayLike | Tensor,
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> Control:
    """Would the answers be as good had the labels been dealt out at random?

    Shuffling keeps how often each class and each answer occur, so a model that always says "cow"
    is measured against what that alone would score.

    Both are (N,) class indices; the smallest p-value is 1 / (permutations + 1).

    Raises:
        ValueError: lengths differ, or no entries.

    Source: B. Phipson, G. Smyth, Statistical Applications in Genetics and Molecular Biology 9
        (2010), article 39: the observed order counts as one of the shuffles, so p is never 0.
    """
    answers, labels = np.asarray(predicted).ravel(), np.asarray(true).ravel()
    observed = accuracy(answers, labels)
    generator = np.random.default_rng(seed)
    shuffled = [(answers == generator.permutation(labels)).mean() for _ in range(permutations)]
    low, high = np.quantile(shuffled, (0.025, 0.975))
    reached = sum(share >= observed.value for share in shuffled)
    return Control(
        observed,
        chance_mean=float(np.mean(shuffled)),
        chance_low=float(low),
        chance_high=float(high),
        p_value=(1 + reached) / (1 + permutations),
        one_answer=Counter(answers.tolist()).most_common(1)[0][1] / len(answers),
    )


# ---- does the answer depend on the wording? ------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What each template alone would have answered."""

    templates: tuple[str, ...]
    prediction: NDArray[np.int64]  # (T, N), of each template alone
    together: NDArray[np.int64]  # (N,), of their mean
    accuracies: tuple[Rate, ...] | None  # T, where the truth is known

    @property
    def flip_rate(self) -> float:
        """Share of the pictures that two of the templates answer differently, 0 to 1."""
        return float((self.prediction != self.prediction[0]).any(axis=0).mean())

    def table(self) -> pd.DataFrame:
        """One row per template: agreement with all together and, where known, accuracy."""
        import pandas as pd

        agreement = (self.prediction == self.together).mean(axis=1)  # (T,)
        columns = {"agreement": agreement.tolist()}
        if self.accuracies is not None:
            columns["accuracy"] = [rate.value for rate in self.accuracies]
            columns["low"] = [rate.low for rate in self.accuracies]
            columns["high"] = [rate.high for rate in self.accuracies]
        return pd.DataFrame(columns, index=pd.Index(self.templates, name="template"))


def prompt_sensitivity(
    encoder: Encoder,
    image_emb: Tensor,
    class_names: Sequence[str],
    templates: Sequence[str],
    true: ArrayLike | Tensor | None = None,
) -> Sensitivity:
    """Answers of every template alone, on unit rows image_emb (N, D), N at least 1.

    With the truth, (N,) class indices, there are accuracies. ValueError as `build_classifier`.
    """
    names, templates = check_class_names(class_names), check_templates(templates)
    return _sensitivity(templates, encode_prompts(encoder, names, templates), image_emb, true)


def _sensitivity(
    templates: Sequence[str], prompt_emb: Tensor, emb: Tensor, true: ArrayLike | Tensor | None
) -> Sensitivity:
    """Of T templates: prompts (K, T, D) and images (N, D), both unit rows."""
    alone = (prompt_emb.transpose(0, 1) @ emb.T).argmax(dim=1).numpy()  # (T, K, N) -> (T, N)
    together = (emb @ average_templates(prompt_emb).T).argmax(dim=-1).numpy()  # (N,)
    rates = None if true is None else tuple(accuracy(row, true) for row in alone)
    return Sensitivity(tuple(templates), alone, together, rates)


# ---- the ladder ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about one question, and what to do about it."""

    scores: Scores  # of the mean of all templates
    control: Control | None  # where the truth is known
    remarks: tuple[str, ...]  # plain sentences, cheapest cure first


def diagnose(
    encoder: Encoder,
    image_emb: Tensor,
    class_names: Sequence[str],
    templates: Sequence[str] = ("{}",),
    true: ArrayLike | Tensor | None = None,
    *,
    texts: Sequence[str] | None = None,
) -> Diagnosis:
    """Climb the ladder of cures as far as figures can show the way: `Diagnosis`.

    The arguments and errors are those of `prompt_sensitivity`; the bare name is looked at beside
    the templates, and without the truth nothing is said about right and wrong. `texts` stand for
    the classes in the prompts (K, default: their names).
    """
    names, templates = check_class_names(class_names), check_templates(templates)
    words = names if texts is None else check_class_names(texts)
    asked = list(dict.fromkeys(["{}", *templates]))
    prompt_emb = encode_prompts(encoder, words, asked)  # (K, T, D)
    sensitivity = _sensitivity(asked, prompt_emb, image_emb, true)
    rows = average_templates(prompt_emb[:, [asked.index(text) for text in templates]])  # (K, D)
    scores = Scores.by(encoder, names, image_emb @ rows.T)
    remarks, control = complain_of_unread(encoder, words, templates), None
    remarks += _of_answers(scores, sensitivity, bool(remarks))
    if true is not None:
        control = permuted_label_control(scores.prediction, true)
        remarks += _of_truth(scores, np.asarray(true), control)
    return Diagnosis(scores, control, tuple(remarks))


def _of_answers(scores: Scores, sensitivity: Sensitivity, unread: bool) -> Iterator[str]:
    """Remarks that need no truth: on flat answers, and on the wording."""
    flat, gap = float(scores.relative_entropy.mean()), float(scores.gap.median())
    if flat > FLAT:
        cure = (
            "mend the language first"
            if unread
            else "the words may mean nothing to it: describe what is to be seen, or give examples"
        )
        yield (
            f"the answers are nearly flat (entropy {flat:.0%} of its maximum, best and worst "
            f"cosine {gap:.4f} apart): the model has no opinion; {cure}"
        )
    if sensitivity.flip_rate > WORDING:
        values, between = [rate.value for rate in sensitivity.accuracies or ()], ""
        if values:
            between = f" (accuracy between {min(values):.1%} and {max(values):.1%})"
        yield (
            f"{sensitivity.flip_rate:.0%} of the pictures get another answer from another wording"
            f"{between}: choose the wording on validation pictures, never on those that are to be "
            "judged"
        )


def _of_truth(scores: Scores, true: NDArray, control: Control) -> Iterator[str]:
    """Remarks on luck, on classes that are mostly called something else, and on confidence."""
    names, predicted, observed = scores.class_names, scores.prediction.numpy(), control.observed
    dealt = f"({control.chance_mean:.3f}, p = {control.p_value:.2f})"
    if observed.value < control.chance_low:
        yield (
            f"accuracy {observed} is far below what shuffled labels give {dealt}, as if the names "
            "of classes were swapped: check which prompt stands for which class"
        )
    elif control.p_value > LUCK:
        yield (
            f"accuracy {observed} is what shuffled labels give as well {dealt}: either the answers "
            "do not depend on the pictures, or there are too few of them to tell"
        )
    counts = confusion(predicted, true, names)  # (K, K)
    for name, found in recall_per_class(predicted, true, names).items():
        k = names.index(name)
        if (other := int(counts[k].argmax())) != k:
            yield (
                f"{name!r} is mostly called {names[other]!r} ({counts[k, other]} of {found.n}, "
                f"found {found}): describe what sets it apart, or give a few labelled examples "
                "(`few_shot`)"
            )
    error = expected_calibration_error(scores.probability, true)
    luck = error_by_luck(scores.probability)
    if error > luck:
        claimed = float(scores.probability.amax(dim=-1).mean())
        how = "too sure" if claimed > observed.value else "not sure enough"
        yield (
            f"it is {how}: it claims to be right in {claimed:.1%} and is in {observed.value:.1%} "
            f"(calibration error {error:.3f}, luck alone gives up to {luck:.3f}): fit a "
            "temperature on some labelled pictures (`few_shot.TemperatureScaling`), or do not "
            "quote its probabilities"
        )
