"""Exercises of lesson 05 and its labs: groups, their names, and how good these are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab import pasture
from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number

QUIZ: dict[str, Choice | Number] = {
    "a": Choice(
        "b",
        {
            "a": "that is ordinary attention: a group spreads one unit over the patches, and a "
            "patch may be wanted by all groups or by none.",
            "b": "each patch has one unit to give away, so the groups compete for it, and the "
            "picture is cut into parts.",
            "c": "the scores are the same; only the direction of the normalisation differs.",
        },
    ),
    "b": Number(
        0.75, 0.001, "the released code divides the sum of 3 patches by 3 + 1, so the mean is "
        "multiplied by 3/4; the larger a group, the less it shrinks.",
    ),
    "c": Choice(
        "c",
        {
            "a": "the argmax has the derivative zero, but nobody asks it: its part is constant.",
            "b": "the value is the argmax's, 0 or 1; a soft value would let groups share a patch.",
            "c": "forward the bracket soft - stop(soft) is zero, and backward only soft is left.",
        },
    ),
    "d": Choice(
        "a",
        {
            "a": "both use the same groups; the oracle only exchanges the names for the best ones.",
            "b": "coarse masks cost the oracle as much as they cost the words.",
            "c": "the oracle reads the truth of the test picture, so it is no model, but a bound.",
        },
    ),
    "e": Choice(
        "b",
        {
            "a": "no caption says it: it is read as [UNK], which was never trained.",
            "b": "background is not a thing that captions name; say what else may be there, or set "
            "a threshold, as the paper does.",
            "c": "the masks of sky and grass are good, as the oracle shows.",
        },
    ),
}  # fmt: skip


@exercise(
    "05.1",
    "The mean of a group, with and without the added one",
    hints=(
        "What a group gathers is a sum over patches: one matrix product of shares and patches.",
        "Divide row i by the sum of row i of the shares, and by `plus` more. Keep the dimension.",
        "A row of shares that is all zero gives 0 / 0 where plus is 0: raise the denominator to a "
        "tiny number with clamp.",
    ),
)
def group_means(answer: Answer, draw: Draw) -> None:
    """`group_means(share (G, P), tok (P, C), plus) -> (G, C)`."""
    groups, patches = draw.integer(2, 4), draw.integer(4, 7)
    tok, soft = draw.normal(patches, 3), draw.normal(groups, patches).softmax(dim=0)
    hard = torch.zeros_like(soft).scatter_(0, soft.argmax(dim=0, keepdim=True), 1.0)
    hard = torch.cat([hard, torch.zeros(1, patches)])  # a group that nobody wants
    for share, plus in ((soft, 1.0), (soft, 0.0), (hard, 1.0), (hard, 0.0)):
        total = share.sum(dim=1, keepdim=True)  # (G, 1)
        summed = share @ tok
        answer.expect(
            summed / (total + plus).clamp(min=1e-9), share, tok, plus,
            mistakes={
                "this is the sum of the patches, not their mean": summed,
                "this divides by the number of all patches; divide by the shares of the group": (
                    summed / (patches + plus)
                ),
                "`plus` is left out of the denominator": summed / total.clamp(min=1e-9),
                "`plus` is added to the mean; it belongs in the denominator": (
                    summed / total.clamp(min=1e-9) + plus
                ),
            },
        )  # fmt: skip


@exercise(
    "05.2",
    "Only the largest groups",
    hints=(
        "A group is as large as the sum of its shares over all patches.",
        "Set the shares of the other groups to zero. What do the columns sum to now?",
        "Find the n rows with `share.sum(dim=1).topk(n).indices`, and divide what is left by its "
        "column sums.",
    ),
)
def largest_groups(answer: Answer, draw: Draw) -> None:
    """`largest_groups(share (G, P), n) -> (G, P)`, whose columns sum to 1 again."""
    groups, patches = draw.integer(4, 6), draw.integer(5, 8)
    fewer = draw.integer(1, groups - 1)
    chosen, tie = set[frozenset[int]](), True
    while len(chosen) < 3 or tie:  # until sums, wins and maxima choose different groups
        share = draw.normal(groups, patches).softmax(dim=0)
        wins = torch.bincount(share.argmax(dim=0), minlength=groups).float()
        sizes = (share.sum(dim=1), wins, share.amax(dim=1))
        chosen = {frozenset(size.topk(fewer).indices.tolist()) for size in sizes}
        tie = bool(wins.sort().values.diff()[groups - fewer - 1] == 0)
    for n in (fewer, groups):
        got = answer.expect(
            _largest(share, share.sum(dim=1), n), share, n,
            mistakes={
                "add up shares; this counts the patches that a group wins": (
                    _largest(share, wins, n)
                ),
                "the columns do not sum to 1: divide what is left anew": (
                    _largest(share, share.sum(dim=1), n, anew=False)
                ),
                "a large group has a large sum of shares, not one sure patch (the maximum of its "
                "row)": _largest(share, share.amax(dim=1), n),
                "these are the smallest groups": _largest(share, -share.sum(dim=1), n),
            },
        )  # fmt: skip
        kept = int((got.sum(dim=1) > 0).sum())
        answer.require(kept == n, f"{kept} groups are left; expected n = {n}")


def _largest(share: Tensor, size: Tensor, n: int, *, anew: bool = True) -> Tensor:
    kept = torch.zeros_like(share)
    rows = size.topk(n).indices
    kept[rows] = share[rows]
    return kept / kept.sum(dim=0, keepdim=True) if anew else kept


@exercise(
    "05.3",
    "Straight through the argmax",
    hints=(
        "The value is one-hot in each column, the gradient is the softmax's.",
        "Start with soft = softmax over the groups, and build the one-hot table of its argmax.",
        "Add to the one-hot table what is zero forward and has soft's gradient backward: soft "
        "minus its own value. Which method of a tensor cuts the gradient off?",
    ),
)
def straight_through(answer: Answer, draw: Draw) -> None:
    """`straight_through(logits (G, P)) -> (G, P)`: one-hot columns with soft's gradient."""
    for _ in range(2):
        logits = draw.normal(draw.integer(2, 4), draw.integer(3, 6))
        soft, weight = logits.softmax(dim=0), draw.normal(*logits.shape)
        hard = torch.zeros_like(soft).scatter_(0, soft.argmax(dim=0, keepdim=True), 1.0)
        by_rows = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
        got = answer.expect(
            hard, logits.requires_grad_(),
            mistakes={
                "this is the softmax itself; forward the value is the argmax's, 0 or 1": soft,
                "each group takes its best patch; each patch (column) must take its best "
                "group": by_rows,
            },
        )  # fmt: skip
        answer.require(got.requires_grad, "no gradient comes back: the argmax has none; let the "
                       "softmax's through")  # fmt: skip
        (got * weight).sum().backward()
        (leaf,) = torch.autograd.grad((logits.softmax(dim=0) * weight).sum(), logits)
        found = answer.given[0].grad
        right = found is not None and torch.allclose(found, leaf, atol=1e-5)
        answer.require(right, "the value is right, but the gradient is not that of a softmax over "
                       "the groups (dim 0)")  # fmt: skip


@exercise(
    "05.4",
    "Names by two softmaxes",
    hints=(
        "Two tables are multiplied: one over all words, one over the `top` words of the picture.",
        "The `top` words are the same for all groups: those that fit the picture best.",
        "Fill a table of zeros in the columns of `picture.topk(top).indices` with the softmax of "
        "these columns alone.",
    ),
)
def name_scores(answer: Answer, draw: Draw) -> None:
    """`name_scores(logits (G, V), picture (V,), top) -> (G, V)`."""
    for _ in range(2):
        groups, words = draw.integer(2, 4), draw.integer(4, 6)
        logits, picture, top = 2 * draw.normal(groups, words), draw.normal(words), 3
        among = torch.full_like(logits, -torch.inf)
        best = picture.topk(top).indices
        among[:, best] = logits[:, best]
        own = torch.full_like(logits, -torch.inf)
        own.scatter_(1, logits.topk(top, dim=1).indices, logits.topk(top, dim=1).values)
        one, over_groups = logits.softmax(dim=1), logits.softmax(dim=0)
        answer.expect(
            one * among.softmax(dim=1), logits, picture, top,
            mistakes={
                "the second factor is missing: words outside the best ones must get nothing": one,
                "the first factor is missing: multiply by the softmax over all words": (
                    among.softmax(dim=1)
                ),
                "the best words are those of the picture, the same for every group, not each "
                "group's own": one * own.softmax(dim=1),
                "a softmax here runs over the words (dim 1), not over the groups": (
                    over_groups * among.softmax(dim=0).nan_to_num()
                ),
                "the second softmax is over the best words alone: the others must not take part "
                "in its sum": one * (one * among.isfinite()),
            },
        )  # fmt: skip


@exercise(
    "05.5",
    "Mean IoU over many pictures",
    hints=(
        "Count over all pixels of all pictures first; divide at the end.",
        "For each class: in how many pixels do both say it, in how many does either? Such counts "
        "need no special case for a number that is no class.",
        "A class that is neither there nor said has the union 0: leave it out of the mean.",
    ),
)
def mean_iou(answer: Answer, draw: Draw) -> None:
    """`mean_iou(named (N, H, W), true (N, H, W), classes) -> float`."""
    classes = 15
    scenes = [draw.herd() for _ in range(2)]
    true = torch.stack(
        [torch.from_numpy(pasture.labels(s).semantic[::8, ::8]).long() for s in scenes]
    )
    shift = torch.rand(true.shape, generator=draw.generator) < 0.3
    other = torch.randint(0, 6, true.shape, generator=draw.generator)
    named = torch.where(shift, other, true)
    named[:, :2] = 99  # said, but no class
    both, either, dice = _counts(named, true, classes)
    there = either > 0
    single = [b[e > 0] / e[e > 0] for b, e, _ in (_counts(n, t, classes) for n, t in zip(
        named, true, strict=True))]  # fmt: skip
    inside = named < classes
    kept_both, kept_either, _ = _counts(named[inside], true[inside], classes)
    left = kept_either > 0
    answer.expect(
        float((both[there] / either[there]).mean()), named, true, classes,
        mistakes={
            "this is the mean over the pictures; add up the counts of all pictures first": float(
                torch.stack([s.mean() for s in single]).mean()
            ),
            "a class that is neither there nor said counts as 0 here; leave it out": float(
                (both / either.clamp(min=1)).mean()
            ),
            "pixels whose label is no class are left out here; they are named wrongly": float(
                (kept_both[left] / kept_either[left]).mean()
            ),
            "this divides by both areas added; the union has the shared pixels only once": float(
                (both[there] / dice[there]).mean()
            ),
            "this is the share of right pixels, not the mean over classes": float(
                (named == true).float().mean()
            ),
        },
    )  # fmt: skip


def _counts(named: Tensor, true: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each class in both, in either, and both areas added, (K,) each."""
    said = torch.stack([named == k for k in range(classes)]).flatten(1).float()
    real = torch.stack([true == k for k in range(classes)]).flatten(1).float()
    both, areas = (said * real).sum(dim=1), (said + real).sum(dim=1)
    return both, areas - both, areas


@exercise(
    "05.6",
    "Background by a threshold",
    hints=(
        "Two questions for each pixel: which class is best, and is it good enough?",
        "The classes begin at 1, because 0 is the background: shift the argmax.",
        "`best, label = scores.max(dim=0)`, then torch.where on best against the threshold.",
    ),
)
def with_background(answer: Answer, draw: Draw) -> None:
    """`with_background(scores (K, H, W), threshold) -> (H, W)` int64, 0 is the background."""
    for _ in range(2):
        scores = torch.rand(draw.integer(3, 5), 3, 4, generator=draw.generator)
        threshold = draw.number(0.5, 0.8)
        scores[:, 0, 0] = torch.tensor(threshold)  # as good as the threshold: a class
        scores[1, 0, 1] = 0.99
        best, label = scores.max(dim=0)
        answer.expect(
            torch.where(best >= threshold, label + 1, 0), scores, threshold,
            mistakes={
                "class 0 and the background are one here: the classes begin at 1": torch.where(
                    best >= threshold, label, 0
                ),
                "a pixel whose score equals the threshold keeps its class (>=)": torch.where(
                    best > threshold, label + 1, 0
                ),
                "background is where the best score is too low, not the others": torch.where(
                    best >= threshold, 0, label + 1
                ),
                "the threshold is not used": label + 1,
            },
        )  # fmt: skip


@exercise(
    "05.7",
    "Who owns what?",
    hints=(
        "Every pixel belongs to one pair: the group that owns it, and its true class.",
        "Number the pairs: owner * classes + truth. How often does each number occur?",
        "torch.bincount with minlength = groups * classes, reshaped to (groups, classes).",
    ),
)
def owner_table(answer: Answer, draw: Draw) -> None:
    """`owner_table(owner (N, H, W), true (N, H, W), groups, classes) -> (G, K)` int64."""
    classes, groups = 15, draw.integer(4, 6)
    true = torch.from_numpy(pasture.labels(draw.herd()).semantic[None, ::8, ::8]).long()
    owner = torch.randint(0, groups - 1, true.shape, generator=draw.generator)  # the last is empty
    table = torch.zeros(groups, classes, dtype=torch.long)
    for g, k in zip(owner.flatten().tolist(), true.flatten().tolist(), strict=True):
        table[g, k] += 1
    pairs = (true * groups + owner).flatten().bincount(minlength=groups * classes)
    swapped = pairs[: groups * classes].view(groups, classes)
    got = answer.expect(
        table, owner, true, groups, classes,
        mistakes={
            "the pair is numbered the wrong way round: owner * classes + truth": swapped,
            "each pixel counts once; is one picture counted twice?": 2 * table,
        },
    )  # fmt: skip
    answer.require(int(got.sum()) == true.numel(), "the table must sum to the number of pixels")


@exercise(
    "05.8",
    "A threshold for each species",
    hints=(
        "Turn one threshold at a time, the others stay: try every value of the grid.",
        "Begin with the best single threshold for all; go through the species `rounds` times.",
        "For species k keep the value of the grid with the highest score([*t[:k], value, "
        "*t[k + 1:]]).",
    ),
)
def tune(answer: Answer, draw: Draw) -> None:
    """`tune(score, species, grid, rounds) -> list`; `score` judges thresholds on val."""
    grid = sorted(draw.number(0, 1) for _ in range(5))
    best = [grid[k] for k in (0, 4, 1, 3)]  # one for all is best for no more than one of them

    def score(thresholds: Sequence[float]) -> float:
        answer.require(len(thresholds) == 4, "score needs one threshold for each species")
        answer.require(set(thresholds) <= set(grid), "a threshold that is not in the grid")
        return -sum(abs(t - b) for t, b in zip(thresholds, best, strict=True))

    single = max(grid, key=lambda t: score([t] * 4))
    answer.expect(
        best, score, 4, grid, 2,
        mistakes={
            "all species have the same threshold; turn one at a time": [single] * 4,
            "these are the worst values; a higher score is better": [
                min(grid, key=lambda t: -abs(t - b)) for b in best
            ],
        },
    )  # fmt: skip
