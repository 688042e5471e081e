"""Exercises of lesson 04: boxes from anchors, words as a classifier, and fusion."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number
from cliplab.models import losses
from cliplab.models.glip import anchors as boxes_of, phrase_scores

QUIZ: dict[str, Choice | Number] = {
    "a": Choice("b", {
        "a": "there is no table to which a row could be added",
        "b": "any word gets a vector from the text encoder, a good one if training said it",
        "c": "anchors do not know what they are asked for",
    }),
    "b": Number(0.6, 0.01, "the mean of the tokens, 1.8 / 3: a phrase is a vote, not an *and*"),
    "c": Number(0.01, 0.001, "the weight is p squared where T is 0: 0.1 · 0.1"),
    "d": Choice("c", {
        "a": "it reads the whole sentence, *left of the trough* too",
        "b": "with the relation unsaid it does as well as its rival; what it lacks is the side, "
        "since its cells are the same for both sentences",
        "c": "whichever side is asked for, the two cells stay the same, and each word has one "
        "vector for both",
    }),
    "e": Choice("a", {
        "a": "each phrase goes to what fits its tokens best; nobody asks whether it is all true",
        "b": "a pond was taken for a trough in the first figure",
        "c": "fusion lets words count; it does not check them",
    }),
}  # fmt: skip


def boxes(draw: Draw, count: int) -> Tensor:
    """Boxes (R, 4) in pixels, in a picture of 128 by 128."""
    corner = 70 * torch.rand(count, 2, generator=draw.generator)
    return torch.cat([corner, corner + 15 + 40 * torch.rand(count, 2, generator=draw.generator)], 1)


# ---- in the lesson -------------------------------------------------------------------------


@exercise("04.1", "From a cell's answer to a box", hints=(
    "What are the centre and the sides of an anchor?",
    "The centre moves by dx widths, dy heights; a side is the anchor's times exp(dw) or exp(dh).",
    "centre + deltas[:, :2] * side is the new centre, side * deltas[:, 2:].exp() / 2 half a side.",
))  # fmt: skip
def decode(answer: Answer, draw: Draw) -> None:
    """`decode_boxes(deltas, anchors)`."""
    for count in (1, 5):
        anchors, deltas = boxes(draw, count).round(), 0.4 * draw.normal(count, 4)
        side, middle = anchors[:, 2:] - anchors[:, :2], boxes_of.centres(anchors)
        move, grow = deltas[:, :2], deltas[:, 2:]

        def around(centre: Tensor, half: Tensor) -> Tensor:
            return torch.cat([centre - half, centre + half], dim=1)

        centre, half, late = middle + move * side, grow.exp() * side / 2, move * grow.exp() * side
        mistakes = {
            "growth is a logarithm: take exp of it": around(centre, grow * side / 2),
            "a side is exp(d) times the anchor's, not 1 + d": around(centre, (1 + grow) * side / 2),
            "moves are in sides of the anchor, not in pixels": around(middle + move, half),
            "half a side lies on each side of the centre": around(centre, 2 * half),
            "a move is in sides of the anchor, before it grows": around(middle + late, half),
            "return two corners, not centre and sides": torch.cat([centre, 2 * half], dim=1),
            "the centre moves, not the corner": around(anchors[:, :2] + move * side, half),
        }
        answer.expect(around(centre, half), deltas, anchors, mistakes=mistakes)


def kept(scores: Tensor, rivals: Tensor, chained: bool = False) -> Tensor:
    """Which boxes (R,) no better one suppresses; (R, R) says who may; chained: dropped ones too."""
    stays = torch.zeros(len(scores), dtype=torch.bool)
    for i in scores.argsort(descending=True).tolist():
        better = scores > scores[i] if chained else stays
        stays[i] = not (better & rivals[i]).any()
    return stays


@exercise("04.2", "Suppression, phrase by phrase", hints=(
    "In which order are boxes looked at, and with which others is each compared?",
    "Best first; each with the boxes *kept so far* that have its label.",
    "In the order scores.argsort(descending=True): keep it unless a kept one has an IoU > limit.",
))  # fmt: skip
def suppress(answer: Answer, draw: Draw) -> None:
    """`suppress(boxes, scores, labels, limit)`: a chain of three and a twin, then any boxes."""
    one, order = boxes(draw, 1), torch.randperm(4, generator=draw.generator)
    step = (one[:, 2] - one[:, 0]) * torch.tensor([[1.0, 0, 1, 0]]) / 4  # IoU 0.6, then 0.33
    chain = torch.cat([one, one + step, one + 2 * step, one])[order]
    few = (chain, torch.tensor([0.9, 0.8, 0.7, 0.6])[order], torch.tensor([0, 0, 0, 1])[order])
    many = boxes(draw, 20), torch.rand(20, generator=draw.generator)
    for rows, scores, labels in (few, (*many, torch.arange(20) % 2)):
        overlap, as_they_come = box_iou(rows, rows) > 0.5, -torch.arange(float(len(rows)))
        rivals = overlap & (labels[:, None] == labels)
        mistakes = {
            "boxes of another label drop nobody": kept(scores, overlap),
            "a dropped box drops nobody; compare with those kept": kept(scores, rivals, True),
            "look at the best score first": kept(-scores, rivals),
            "go by score, not as they come": kept(as_they_come, rivals),
            "True is a box that stays": ~kept(scores, rivals),
        }
        answer.expect(kept(scores, rivals), rows, scores, labels, 0.5, mistakes=mistakes)


@exercise("04.3", "The positive map", hints=(
    "Which column is [CLS], and so which is the first piece?",
    "A piece belongs to a phrase if it starts and ends inside; an end lies just outside.",
    "positive[k, i + 1] = start <= pieces[i][0] and pieces[i][1] <= end, for phrase (start, end).",
))  # fmt: skip
def positive_map(answer: Answer, draw: Draw) -> None:
    """`positive_map(phrases, pieces)`: with spaces between words, and without, as in Chinese."""
    for gap in (1, 0):
        pieces, at = [], 0
        for _ in range(6):
            pieces.append((at, at + draw.integer(1, 5)))
            at = pieces[-1][1] + gap
        cut = draw.integer(1, 3)
        groups = (range(cut), range(cut, 5))  # pieces of the two phrases; the last has none
        phrases = [(pieces[g[0]][0], pieces[g[-1]][1]) for g in groups]
        right = torch.zeros(2, 8, dtype=torch.bool)
        first, touched, short = right.clone(), right.clone(), right.clone()
        for k, group in enumerate(groups):
            right[k, [i + 1 for i in group]] = True
            first[k, group[0] + 1] = True
            short[k, [i + 1 for i in group[:-1]]] = True
            touched[k, [i + 1 for i in range(6) if group[0] - 1 <= i <= group[-1] + 1]] = True
        mistakes = {
            "column 0 is [CLS], so piece i is column i + 1": right.roll(-1, 1),
            "a piece that ends with its phrase is inside": short,
            "all pieces of a phrase belong to it, not the first alone": first,
            "a piece that begins where a phrase ends is outside": touched & (first.cumsum(1) > 0),
            "a piece that only touches a phrase is outside": touched,
        }
        answer.expect(right, phrases, pieces, mistakes=mistakes)


@exercise("04.4", "From cells and words to phrases", hints=(
    "Which product gives one number for each cell and each token?",
    "S = O P', a probability for each of its numbers, then the mean over a phrase's tokens.",
    "p = (cells @ words.T).sigmoid() is (A, L). A product with positive.float().T adds up the "
    "tokens of each phrase; how many are they?",
))  # fmt: skip
def grounded(answer: Answer, draw: Draw) -> None:
    """`score_phrases(cells, words, positive)`."""
    cells, words = draw.normal(4, 3), draw.normal(6, 3)
    positive = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0]]) > 0
    logits, count = cells @ words.T, positive.sum(dim=1)
    right, chosen = phrase_scores(logits[None], positive)[0], positive.float().T
    mistakes = {
        "first a probability for each token, then the mean": (logits @ chosen / count).sigmoid(),
        "sigmoid is missing: these are no probabilities": logits @ chosen / count,
        "this is a sum over the tokens of a phrase; take their mean": right * count,
        "the mean is over the tokens of the phrase, not over all": right * count / 6,
        "this is the best token of each phrase": phrase_scores(logits[None], positive, "max")[0],
        "each token is judged by itself: sigmoid, no softmax": logits.softmax(1) @ chosen / count,
    }
    answer.expect(right, cells, words, positive, mistakes=mistakes)


@exercise("04.5", "The focal loss, for any logit", hints=(
    "What is ln p in float32 when the logit is -200? And can it be had without p?",
    "torch.nn.functional.logsigmoid(s) is ln p, and of -s it is ln(1 - p); both stay finite.",
    "-target * (1 - p)**2 * logsigmoid(logits) / 4 is one half, the other has logsigmoid(-logits).",
))  # fmt: skip
def focal(answer: Answer, draw: Draw) -> None:
    """`focal_loss(logits, target)`: two numbers, a table, and logits far from 0."""
    far = torch.tensor([[-200.0, 150.0]])
    for logits in (draw.normal(1, 2), 3 * draw.normal(5, 7), far + draw.normal(1, 2)):
        target = (draw.normal(*logits.shape) > 0).float()
        target[0, :2] = torch.tensor([1.0, 0])

        def loss(alpha: float, gamma: float, target: Tensor = target,
                 logits: Tensor = logits) -> Tensor:  # fmt: skip
            return losses.token_focal_loss(logits[None], target[None], alpha=alpha, gamma=gamma)

        p, right = logits.sigmoid(), loss(0.25, 2)
        both = target * p**2 * F.logsigmoid(logits) / 4
        turned = -both - 3 / 4 * (1 - target) * (1 - p) ** 2 * F.logsigmoid(-logits)
        mistakes = {
            "this is a mean; the pairs are summed": right / logits.numel(),
            "a quarter is for pairs with T = 1, three quarters for T = 0": loss(0.75, 2),
            "the focal weight is missing": loss(0.25, 0),
            "square the focal weight": loss(0.25, 1),
            "the weights 1/4 and 3/4 are missing": loss(-1, 2),
            "the focal weights are exchanged: with T = 1 it is (1 - p)^2": turned.sum(),
            "pairs with T = 0 count too": loss(0.25, 2, logits=logits + 1e4 * (target - 1)),
            "the sign is turned": -right,
        }
        answer.expect(right, logits, target, mistakes=mistakes)


@exercise("04.6", "What a cell hears", hints=(
    "One row of the table is one cell: what does it take from each word?",
    "Minus infinity at the padding, softmax over the words, a mean of the words; add gamma of it.",
    "It is table.masked_fill(~real, -torch.inf).softmax(dim=1) @ text, the table over C**0.5.",
))  # fmt: skip
def hear(answer: Answer, draw: Draw) -> None:
    """`hear(image, text, real, gamma)`."""
    for cells in (1, 5):
        image, text, gamma = draw.normal(cells, 4), 2 * draw.normal(3, 4), draw.normal(4)
        real = torch.tensor([True, True, False])
        table = image @ text.T / 2
        masked = table.masked_fill(~real, -torch.inf)

        def after(weights: Tensor, image=image, text=text, gamma=gamma) -> Tensor:
            return image + gamma * (weights @ text)

        right, all_of_it = after(masked.softmax(dim=1)), table.softmax(dim=1)
        mistakes = {
            "a logit of 0 is no mask: exp(0) is 1": after((table * real).softmax(dim=1)),
            "the padding is heard": after(all_of_it),
            "mask before the softmax; now rows sum to less than 1": after(all_of_it * real),
            "divide the table by the root of C": after((2 * masked).softmax(dim=1)),
            "the softmax runs over the cells; each cell chooses": after(table.softmax(0) * real),
            "gamma is missing": image + (right - image) / gamma,
            "add it to the cell": right - image,
        }
        answer.expect(right, image, text, real, gamma, mistakes=mistakes)


# ---- in the labs ---------------------------------------------------------------------------


def mean_and_deviation(overlap: Tensor) -> Tensor:
    """The bar of ATSS."""
    return overlap.mean() + overlap.std()


def mean(overlap: Tensor) -> Tensor:
    """A lower bar."""
    return overlap.mean()


@exercise("04.7", "Another bar", hints=(
    "Which part of the assignment by hand does the rule replace?",
    "The rule sees the IoUs of the candidates: nine nearest of *each* map, or all it has.",
    "distance.split(counts) gives the maps; topk(min(9, count), largest=False) their nearest.",
))  # fmt: skip
def cells_for(answer: Answer, draw: Draw) -> None:
    """`cells_for(box, anchors, counts, rule)` -> bool (A,)."""
    counts = [96, 24, 6]
    anchors = boxes_of.anchor_boxes([(8, 12), (4, 6), (2, 3)], (16, 32, 64), (32, 64, 128))
    for box in boxes(draw, 3).split(1):
        away = (boxes_of.centres(anchors) - boxes_of.centres(box)).norm(dim=1)
        overlap, centre = boxes_of.iou(anchors, box)[:, 0], boxes_of.centres(anchors)
        inside = ((centre > box[0, :2]) & (centre < box[0, 2:])).all(dim=1)

        def nearest(parts: list[int], away: Tensor = away) -> Tensor:
            return torch.cat([part.argsort().argsort() for part in away.split(parts)]) < 9

        near, everywhere = nearest(counts), nearest([126])
        for rule, other in ((mean_and_deviation, mean), (mean, mean_and_deviation)):
            reached = overlap >= rule(overlap[near])
            mistakes = {
                "use the rule that is given": near & inside & (overlap >= other(overlap[near])),
                "an anchor answers only with its centre inside the box": near & reached,
                "take the nine nearest of each map, not of all": everywhere
                & inside
                & (overlap >= rule(overlap[everywhere])),
                "ask the rule about the candidates alone": near
                & inside
                & (overlap >= rule(overlap)),
            }
            answer.expect(near & inside & reached, box, anchors, counts, rule, mistakes=mistakes)


@exercise("04.8", "Silence one direction", hints=(
    "Which weights have a name that ends so?",
    "Make a new dictionary with zeros in their place; leave the old one as it is.",
    "name.endswith(endings) takes a tuple of ends, torch.zeros_like(w) makes the zeros. Go "
    "through weights.items().",
))  # fmt: skip
def muted(answer: Answer, draw: Draw) -> None:
    """`muted(weights, endings)`."""
    names = ("0.gamma_v", "0.gamma_l", "1.gamma_v", "1.gamma_l", "gamma_v.scale", "head.weight")
    weights = {name: draw.normal(2) for name in names}
    for endings in (("gamma_v",), ("gamma_v", "gamma_l"), ()):
        got = answer(weights, endings)
        answer.require(
            isinstance(got, dict), f"muted returns {type(got).__name__}; expected a dict", "type"
        )
        answer.require(got.keys() == weights.keys(), "every name stays in the dictionary", "shape")
        for name, weight in weights.items():
            silent = name.endswith(endings) if endings else False
            right = weight * (not silent)
            fault = "must be zero" if silent else "must stay: its name does not end so"
            same = isinstance(got[name], Tensor) and torch.equal(got[name], right)
            answer.require(same, f"muted(weights, {endings}): {name} {fault}")
