"""Exercises of lesson 02: classes from sentences, and what an answer is worth."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification import few_shot, metrics, wilson_interval
from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number


@exercise(
    "02.1",
    "Class vectors of uneven prompts",
    hints=(
        "Prompts of one class point in about one direction. Which lengths matter, and when?",
        "Bring every prompt to length 1, average the rows of each class, then length 1 again.",
        "Rows of class k: prompt_emb[of_class == k]. torch.stack puts the K means together.",
    ),
)
def class_vectors(answer: Answer, draw: Draw) -> None:
    """`class_vectors(prompt_emb, of_class)`, with classes of unequal size in any order."""
    k = draw.integer(2, 3)
    of_class = torch.cat([torch.arange(k), draw.normal(5).abs().mul(2).long() % k])
    of_class = of_class[torch.randperm(len(of_class), generator=draw.generator)]
    raw = draw.normal(len(of_class), 2) + 2 * of_class[:, None]
    unit = F.normalize(raw, dim=1)

    def means(rows: Tensor) -> Tensor:
        return torch.stack([rows[of_class == c].mean(dim=0) for c in range(k)])

    wrong = {
        "long prompts count more: bring each to length 1 first": F.normalize(means(raw), dim=1),
        "the mean of unit vectors is shorter than 1: bring it back to length 1": means(unit),
        "nothing has length 1, neither the prompts nor their mean": means(raw),
    }
    answer.expect(F.normalize(means(unit), dim=1), raw, of_class, mistakes=wrong)


@exercise(
    "02.2",
    "A label too many",
    hints=(
        "You do not know the logits, but you know their differences: they are in the ratios of p.",
        "Before it divides by the sum, a softmax has e^logit. p is that, but for one factor.",
        "Next to p the new label has max(p) e^lead. Then divide all by their sum.",
    ),
)
def add_label(answer: Answer, draw: Draw) -> None:
    """`add_label(p, lead)`: the probabilities when one more label is offered."""
    p, lead = draw.normal(3).softmax(dim=0).sort().values, draw.number(-2, 2)
    p = p[[0, 2, 1]]  # the best one stands neither first nor last
    new = p.max() * math.exp(lead)
    whole, share = torch.cat([p, new[None]]), new / (1 + new)
    wrong = {
        "they do not add up to 1: divide by the new sum": whole,
        "the new label takes the same from each; it must leave the ratios of the others": (
            torch.cat([p - share / len(p), share[None]])
        ),
        "a softmax of probabilities; logits are their logarithms": (
            torch.cat([p, p.max()[None] + lead]).softmax(dim=0)
        ),
        "the lead is over the best label, not over the first": (
            F.normalize(torch.cat([p, p[:1] * math.exp(lead)]), p=1, dim=0)
        ),
        "the new label stands last, behind the old ones": whole.roll(1) / whole.sum(),
        "with a lead of 0 the new label is as probable as the best one": (
            F.normalize(torch.cat([p, torch.tensor([math.exp(lead)])]), p=1, dim=0)
        ),
    }
    answer.expect(whole / whole.sum(), p, lead, mistakes=wrong)


@exercise(
    "02.3",
    "How many pictures it takes",
    hints=(
        "Try n = of, 2 of, 3 of, ... How many of n pictures are right?",
        "Which end of the interval must have passed chance?",
        "Of n pictures right * n // of are right, and wilson_interval(...)[0] is the lower end. Go "
        "up in steps of `of`; when do you stop?",
    ),
)
def smallest_n(answer: Answer, draw: Draw) -> None:
    """`smallest_n(right, of, chance)`: when a rate of right/of is separated from chance."""
    right, of = ((2, 3), (2, 5), (3, 4), (3, 5))[draw.integer(0, 3)]
    rate = right / of
    chance = round(rate - draw.number(0.06, 0.12), 2)
    n = next(n for n in range(of, 3000, of) if wilson_interval(right * n // of, n)[0] > chance)
    rounded = next(n for n in range(1, 3000) if wilson_interval(round(n * rate), n)[0] > chance)
    wald = math.floor(1.96**2 * rate * (1 - rate) / (rate - chance) ** 2 / of) * of + of
    wrong = {
        "at that n the interval still holds chance; the next is the first": n - of,
        "the upper end is above chance at once; the lower end must be": of,
        "this is how many groups of pictures; count pictures": n // of,
        "this is the number of right ones; count all pictures": right * n // of,
        "this is p +- 1.96 sqrt(p (1 - p) / n); take the Wilson interval": wald,
        "n must be a multiple of `of`, so that the rate is exact": rounded,
    }
    answer.expect(n, right, of, chance, mistakes=wrong)


@exercise(
    "02.4",
    "Another temperature, afterwards",
    hints=(
        "Dividing logits by T: what does that do to e^logit?",
        "log p is the logits, but for a constant of each row, which a softmax does not see.",
        "So divide p.log() by the temperature. What makes probabilities of logits, row by row?",
    ),
)
def tempered(answer: Answer, draw: Draw) -> None:
    """`tempered(p, temperature)`: rows of probabilities, as if their logits had been divided."""
    p, t = (2 * draw.normal(2, 3)).softmax(dim=1), draw.number(1.5, 3)
    right = (p.log() / t).softmax(dim=1)
    wrong = {
        "T divides the logits; this multiplies them, and answers get surer": (
            (p.log() * t).softmax(dim=1)
        ),
        "a softmax of probabilities; logits are their logarithms": (p / t).softmax(dim=1),
        "the rows do not add up to 1: divide each by its sum": p ** (1 / t),
        "each row must add up to 1, not each column": (p.log() / t).softmax(dim=0),
        "all rows together add up to 1; each of them must": (
            F.normalize((p ** (1 / t)).flatten(), p=1, dim=0).view(2, 3)
        ),
        "dividing probabilities and summing up again changes nothing": p,
    }
    answer.expect(right, p, t, mistakes=wrong)


@exercise(
    "02.5",
    "A wording chosen fairly",
    hints=(
        "Two sets of pictures, two uses: one to choose, one to report.",
        "How many validation pictures does each of the W classifiers get right?",
        "best = the classifier with most hits on val; then its share of hits on test.",
    ),
)
def choose_wording(answer: Answer, draw: Draw) -> None:
    """`choose_wording(classifiers, val, test)` -> (best, its accuracy on the test)."""
    w, n = 4, 40
    classifiers, sets = draw.unit_rows(w, 3, 5), []
    for best in torch.randperm(w, generator=draw.generator)[:2]:  # one for val, one for test
        emb = draw.unit_rows(n, 5)
        named, luck = (emb @ classifiers[best].T).argmax(dim=1), draw.normal(n) > 1
        sets.append((emb, torch.where(luck, 0, named)))
    val, test = ((emb @ classifiers.mT).argmax(dim=2) == truth for emb, truth in sets)  # (W, N)
    of_val, of_test = val.float().mean(dim=1), test.float().mean(dim=1)
    best, cheat = int(of_val.argmax()), int(of_test.argmax())
    both = int((of_val + of_test).argmax())
    wrong = {
        "the test pictures chose the wording; only val may": (cheat, of_test[cheat]),
        "val and test chose together; only val may": (both, of_test[both]),
        "the accuracy is that of val, which has chosen; report the test's": (best, of_val[best]),
        "this is a number of pictures; accuracy is a share": (best, n * of_test[best]),
        "this is the mean of all wordings; report the chosen one": (best, of_test.mean()),
    }
    answer.expect((best, of_test[best]), classifiers, *sets, mistakes=wrong)


@exercise(
    "02.6",
    "Votes that are fair",
    hints=(
        "Which photos vote for class k, and how many are they?",
        "F.one_hot(shot_class, K) sorts the votes by class; its column sums count the photos.",
        "A class without photos would be divided by 0: divide by counts.clamp(min=1).",
    ),
)
def fair_votes(answer: Answer, draw: Draw) -> None:
    """`fair_votes(logits, similarity, shot_class, alpha, beta)`: classes of unequal size."""
    logits, similarity = draw.normal(2, 3), draw.unit_rows(2, 5)
    shot_class, alpha, beta = torch.tensor([0, 2, 0, 0, 2]), draw.number(2, 9), draw.number(1, 4)
    one_hot = F.one_hot(shot_class, 3).float()  # (S, K); class 1 has no photos
    counts = one_hot.sum(dim=0).clamp(min=1)
    votes = torch.exp(-beta * (1 - similarity))  # (N, S)
    right = votes @ one_hot / counts
    wrong = {
        "these are sums: a class with more photos wins by their number; take means": (
            logits + alpha * votes @ one_hot
        ),
        "each class divides by its own number of photos, not by that of all": (
            logits + alpha * votes @ one_hot / len(shot_class)
        ),
        "alpha, the weight of the votes, is missing": logits + right,
        "take the mean of the votes, not the vote of the mean cosine": (
            logits + alpha * torch.exp(-beta * (1 - similarity @ one_hot / counts)) * (counts > 1)
        ),
        "the logits of the text are missing": alpha * right,
        "a photo with cosine 1 must vote with weight 1: exp(-beta (1 - cosine))": (
            logits + alpha * torch.exp(-beta * similarity) @ one_hot / counts
        ),
    }
    answer.expect(
        logits + alpha * right, logits, similarity, shot_class, alpha, beta, mistakes=wrong
    )


@exercise(
    "02.7",
    "Weights between, without the test",
    hints=(
        "Which photos may choose a number, and which may only judge?",
        "If photos.split is 'test', raise ValueError. Else try each alpha on the photos.",
        "weights = (1 - alpha) * text_emb + alpha * tuned; keep an alpha only if it is better.",
    ),
)
def best_alpha(answer: Answer, draw: Draw) -> None:
    """`best_alpha(text_emb, tuned, photos, alphas)`; photos of the test split are refused."""
    text_emb, tuned = draw.unit_rows(3, 4), draw.unit_rows(3, 4)
    emb, alphas = draw.unit_rows(12, 4), [i / 20 for i in range(21)]
    mixed = torch.stack([(1 - a) * text_emb + a * tuned for a in alphas])  # (A, K, D)
    named = (emb @ mixed.mT).argmax(dim=2)  # (A, N)
    truth = named[draw.integer(4, 8)]
    good = (named == truth).sum(dim=1)
    best, last = int(good.argmax()), 20 - int(good.flip(0).argmax())  # of equal ones
    photos, exam = (few_shot.Shots(emb, truth, ("a", "b", "c"), s) for s in ("val", "test"))
    wrong = {
        "of equally good ones take the smallest": alphas[last],
        "the weights are exchanged: alpha 0 is the text, 1 the tuned head": 1 - alphas[last],
        "this is a place in the list; return the alpha itself": best,
        "this is the accuracy; return the alpha that reaches it": float(good.max()) / len(emb),
        "this is the worst one": alphas[int(good.argmin())],
    }
    answer.expect(alphas[best], text_emb, tuned, photos, alphas, mistakes=wrong)
    refused = "photos of the test split must be refused: raise ValueError(...)"
    answer.require_error(ValueError, refused, text_emb, tuned, exam, alphas)


@exercise(
    "02.8",
    "The calibration error by hand",
    hints=(
        "Confidence is the largest probability of a row. Sort the answers into bins by it.",
        "In a bin: |mean confidence - share of right answers|. How much does a full bin count?",
        "Sum over bins: (answers in the bin / N) * |mean confidence - accuracy|; skip empty bins.",
    ),
)
def calibration_error(answer: Answer, draw: Draw) -> None:
    """`calibration_error(probability, truth, bins)`: the ECE, with bins of equal width."""
    n, bins = 50, 5
    p = (2 * draw.normal(n, 3)).softmax(dim=1)
    truth = torch.where(draw.normal(n) > 0, p.argmax(dim=1), draw.normal(n).long().abs() % 3)
    sure, right = p.max(dim=1).values, (p.argmax(dim=1) == truth).float()
    own = p.gather(1, truth[:, None]).flatten()

    def gaps(claimed: Tensor) -> tuple[Tensor, Tensor]:
        inside = F.one_hot((claimed * bins).long().clamp(max=bins - 1), bins).float()  # (N, bins)
        count = inside.sum(dim=0)
        return (claimed - right) @ inside / count.clamp(min=1), count

    gap, count = gaps(sure)
    of_own, in_own = gaps(own)
    wrong = {
        "bins count by their number of answers, not alike": gap.abs()[count > 0].mean(),
        "what is too sure and too modest must not cancel: |...| in each bin": (sure - right).mean(),
        "this is one difference over all answers: take |...| in each bin": (right - sure).mean(),
        "the distance is |...|, not its square": gap**2 @ count / n,
        "confidence is the largest probability, not that of the true class": (
            of_own.abs() @ in_own / n
        ),
        "this is the largest distance; take the mean over the answers": gap.abs().max(),
    }
    ece = metrics.expected_calibration_error(p, truth, bins=bins)
    answer.expect(ece, p, truth, bins, mistakes=wrong)


QUIZ: dict[str, Choice | Number] = {
    "a": Number(0.0416, 0.001, "the ratio of two probabilities is e^(s times the difference)"),
    "b": Choice(
        "b",
        {
            "a": "lying against standing is as it was: the ratio of the two has not changed",
            "b": "a softmax gives 100 % away; a new label takes its share, the ratios stay",
            "c": "0.35 for the barn is a share among four sentences, not a detection",
        },
    ),
    "c": Choice(
        "c",
        {
            "a": "that would be wrong for the other half",
            "b": "it changes how sure an answer is, never which label comes first",
            "c": "no single label is true of the flock: one box per animal, then ask again",
        },
    ),
    "d": Choice(
        "c",
        {
            "a": "the best of 40 numbers is too good: luck has been chosen, too",
            "b": "the interval is right for one wording; this one is the luckiest of 40",
            "c": "only pictures that took no part in the choice can judge it",
        },
    ),
    "e": Choice(
        "b",
        {
            "a": "the best label of each picture stays the best, so accuracy stays",
            "b": "order stays, distances shrink: the same answers, less sure",
            "c": "2 was fitted to nothing; and a fitted number holds for such pictures as it was "
            "fitted to: the lab shows where it fails",
        },
    ),
}
