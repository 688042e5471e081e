"""Exercises of lesson 03: regions, their words, what trains them, and how they are judged."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from cliplab import detection
from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number
from cliplab.models import distillation

QUIZ: dict[str, Choice | Number] = {
    "a": Choice("b", {
        "a": "no gradient reaches its *name*, but one reaches its embedding",
        "b": "its target is background, so the head learns that such looks are nothing",
        "c": "every proposed region is trained on; without a label its target is nothing",
    }),
    "b": Choice("a", {
        "a": "the teacher saw captions of novel animals, and what it sees needs no label",
        "b": "the text head meets them too: as background",
        "c": "the teacher stays as it is; only the student is trained",
    }),
    "c": Number(0.2, 0.005,
        "a third of the power is the text head's: cube root of 0.8 · 0.1 · 0.1"),
    "d": Choice("c", {
        "a": "it may well have another best class now, but AP50 does not ask for that",
        "b": "the mean over classes evens nothing out: every class keeps its own AP50",
        "c": "AP50 sorts the boxes of one class, and a factor on all of them changes no order",
    }),
}  # fmt: skip


def boxes(draw: Draw, count: int) -> Tensor:
    """Boxes (R, 4) of whole pixels, in a picture of 100 by 100."""
    corner = torch.randint(0, 60, (count, 2), generator=draw.generator)
    side = torch.randint(10, 40, (count, 2), generator=draw.generator)
    return torch.cat([corner, corner + side], dim=1).float()


# ---- in the lesson -------------------------------------------------------------------------


@exercise("03.1", "A wider box", hints=(
    "Which point of the box stays where it is?",
    "Half a side lies on each side of the centre; that half becomes `scale` times as long.",
    "half = scale * (high - low) / 2, of the two corners; join centre - half and centre + half.",
))  # fmt: skip
def widen(answer: Answer, draw: Draw) -> None:
    """`widen(boxes, scale)`."""
    for count in (1, 4):
        given, scale = boxes(draw, count), draw.integer(11, 20) / 10
        low, high = given[:, :2], given[:, 2:]
        side, middle = high - low, (low + high) / 2
        beside = torch.cat([low, low + scale * side], dim=1)
        twice = torch.cat([middle - scale * side, middle + scale * side], dim=1)
        as_sides = torch.cat([low - (scale - 1) * high / 2, scale * high], dim=1)
        right = detection.expand_boxes(given, scale)
        mistakes = {
            "the box moves, because its place is multiplied too": scale * given,
            "x1 and y1 are a corner of the box, not its sides": as_sides,
            "the box may leave the picture; do not cut it off": right.clamp(min=0),
            "the box grows to one side; its centre must stay": beside,
            "the box is twice as large as it should be: half a side on each side": twice,
        }
        answer.expect(right, given, scale, mistakes=mistakes)


@exercise("03.2", "The background's share", hints=(
    "Where in the formula of the text head does the background stand?",
    "It is column 0 of the cosines over tau, with a vector of length 1. Change it before softmax.",
    "Column 0 of region_emb @ rows.T / tau times share, or -torch.inf; softmax; cut column 0 off.",
))  # fmt: skip
def text_scores(answer: Answer, draw: Draw) -> None:
    """`text_scores(region_emb, text_emb, background, tau, share)`."""
    emb, texts, background = draw.unit_rows(3, 8), draw.unit_rows(4, 8), 3 * draw.normal(8)
    tau = draw.number(0.2, 0.4)
    logits = distillation.text_logits(emb, texts, background, tau)
    long = torch.cat([emb @ background[:, None] / tau, logits[:, 1:]], dim=1)

    def scores(share: float | None, logits: Tensor = logits, dim: int = 1) -> Tensor:
        nothing = logits[:, :0] if share is None else logits[:, :1] * share
        return torch.cat([nothing, logits[:, 1:]], dim=1).softmax(dim)[:, -4:]

    for share in (1.0, draw.number(0.3, 0.7), None):
        p = logits.softmax(dim=1)
        after = p[:, 1:] / (p[:, 1:].sum(1, keepdim=True) + (share or 0) * p[:, :1])
        mistakes = {
            "a logit of 0 still takes part in the softmax; leave the background out": scores(0),
            "the background's vector is not brought to length 1": scores(share, long),
            "the softmax runs over the regions; it must run over a row": scores(share, dim=0),
            "this multiplies by tau; divide by it": scores(share, logits * tau**2),
            "`share` is for the background's logit, before the softmax": after,
            "the background is missing in the softmax": scores(None),
        }
        answer.expect(scores(share), emb, texts, background, tau, share, mistakes=mistakes)


@exercise("03.3", "Intersection over union", hints=(
    "Where does the part that both cover start, and where does it end?",
    "From the larger lower corner to the smaller upper one. And if it ends before it starts?",
    "a[:, None] against b[None]: low = maximum of columns 0 and 1, high = minimum of 2 and 3, "
    "(high - low).clamp(min=0); union = both areas minus the intersection.",
))  # fmt: skip
def iou(answer: Answer, draw: Draw) -> None:
    """`iou(a, b)`."""
    one, shift, edge = boxes(draw, 1), draw.integer(1, 9), torch.tensor([0, 0, 1, 1])
    near, far = one + shift * torch.tensor([1, 1, 1, 0]), one + torch.tensor([200, 0, 200, 0])
    for a, b in ((one, near), (one, far), (one, one + 200), (boxes(draw, 3), one)):
        low = torch.maximum(a[:, None, :2], b[:, :2])
        side = torch.minimum(a[:, None, 2:], b[:, 2:]) - low
        both, negative = side.clamp(min=0).prod(dim=-1), side.prod(dim=-1)
        first, second = ((x[:, 2:] - x[:, :2]).prod(dim=1) for x in (a, b))
        total = first[:, None] + second
        mistakes = {
            "the union counts what both cover twice": both / total,
            "boxes that do not touch: a side below 0 counts as 0": negative / (total - negative),
            "a box is x1 - x0 wide, without + 1: x1 lies just outside": box_iou(a + edge, b + edge),
            "that is the overlap over the area of the first box": both / first[:, None],
            "that is the overlap over the smaller box": both / first[:, None].minimum(second),
        }
        answer.expect(box_iou(a, b), a, b, mistakes=mistakes)


@exercise("03.4", "What the text loss pulls at", hints=(
    "What is the derivative of a cross-entropy with regard to the logits of its softmax?",
    "The softmax minus a 1 at the target. And for a novel logit, which is the constant 0?",
    "Set the novel logits to 0, take p = softmax, subtract one_hot(target), put 0 into the novel "
    "columns, divide by R.",
))  # fmt: skip
def gradient(answer: Answer, draw: Draw) -> None:
    """`gradient(logits, target, known)`."""
    known = torch.tensor([True, False, True, False])
    shown = F.pad(known, (1, 0), value=True)
    for count in (2, 5):
        logits, target = 2 * draw.normal(count, 5), torch.tensor([0, 1, 3, 0, 3])[:count]
        leaf = logits.clone().requires_grad_()
        (right,) = torch.autograd.grad(distillation.text_loss(leaf, target, known), leaf)
        hit, p = F.one_hot(target, 5).float(), (logits * shown).softmax(dim=1)
        masked = logits.masked_fill(~shown, -torch.inf).softmax(dim=1)
        mistakes = {
            "the sign is turned: a step *against* the gradient raises the target": -right,
            "the loss is a mean over the regions, so divide by R": right * count,
            "a novel logit is the constant 0: its gradient is 0": (p - hit) / count,
            "in the softmax a novel logit is 0": (logits.softmax(1) - hit) * shown / count,
            "novel logits are used as they are": (logits.softmax(1) - hit) / count,
            "that is the masked form; here the novel logits stay, as 0": (masked - hit) / count,
            "the 1 at the target is missing": p * shown / count,
        }
        answer.expect(right, logits, target, known, mistakes=mistakes)


@exercise("03.5", "The distillation loss", hints=(
    "Which rows have length 1 when they come in, and which must have it?",
    "Bring the student's rows to length 1; then take the sizes of the differences.",
    "(F.normalize(student, dim=1) - teacher).abs() is (R, D). The formula adds up one axis, and "
    "takes the mean over the other.",
))  # fmt: skip
def distil(answer: Answer, draw: Draw) -> None:
    """`distil(student, teacher)`."""
    for count, dim in ((2, 3), (7, 16)):
        student, teacher = 3 * draw.normal(count, dim), draw.unit_rows(count, dim)
        right = distillation.distillation_loss(student, teacher)
        away = F.normalize(student, dim=1) - teacher
        columns = F.normalize(student, dim=0) - teacher
        mistakes = {
            "the weight 0.5 is not part of this loss": right / 2,
            "this is a mean over the D dimensions; the loss sums them": right / dim,
            "this is a sum over the regions; the loss is their mean": right * count,
            "differences are squared; L1 takes their size": away.square().sum() / count,
            "that is the Euclidean distance; L1 adds up sizes": away.norm(dim=1).mean(),
            "bring the student's rows to length 1": (student - teacher).abs().sum() / count,
            "columns are brought to length 1; a region is a row": columns.abs().sum() / count,
            "differences cancel; take their size first": away.sum() / count,
        }
        answer.expect(right, student, teacher, mistakes=mistakes)


@exercise("03.6", "Ask with a picture", hints=(
    "Which crops may a class vector be made of, if the test is to mean something?",
    "Rows of class k in the validation split, then the first n of these. If there are none?",
    "Start from text_emb.clone(); where emb[is_val & (labels == k)][:n] has rows, put their mean "
    "there, brought to length 1.",
))  # fmt: skip
def prototypes(answer: Answer, draw: Draw) -> None:
    """`prototypes(emb, labels, is_val, text_emb, n)`; class 2 has one validation crop, 3 none."""
    count, n = 40, draw.integer(2, 3)
    emb, texts = draw.unit_rows(count, 6), draw.unit_rows(4, 6)
    labels = torch.randperm(count, generator=draw.generator) % 4
    is_val = (draw.normal(count) > 0) & (labels < 2)
    is_val[(labels == 2).nonzero()[draw.integer(0, 9)]] = True

    def made(allowed: Tensor = is_val, n: int = n, kept: Tensor | None = None) -> Tensor:
        """Means of the first n allowed crops of each class, of these those that are kept."""
        rows, kept = texts.clone(), allowed if kept is None else kept
        for k in range(4):
            which = (allowed & (labels == k)).nonzero()[:n, 0]
            if kept[which].any():
                rows[k] = emb[which[kept[which]]].mean(dim=0)
        return rows

    every = torch.ones_like(is_val)
    right = F.normalize(made(), dim=1)
    without, alone = right.clone(), right.clone()
    without[3], alone[2] = 0, texts[2]
    mistakes = {
        "crops of the test split are used": F.normalize(made(every), dim=1),
        "only test crops are used; is_val is True for the others": F.normalize(made(~is_val)),
        "the mean of unit vectors is shorter than 1; bring it back": made(),
        f"all validation crops are used; take the first {n}": F.normalize(made(n=count)),
        f"first choose validation crops, then {n} of these": F.normalize(made(every, n, is_val)),
        "class 3 has no validation crop: it keeps its words": without,
        "class 2 has a single validation crop: take it": alone,
    }
    answer.expect(right, emb, labels, is_val, texts, n, mistakes=mistakes)


# ---- in the lab ----------------------------------------------------------------------------


@exercise("03.7", "A stricter judge", hints=(
    "`hits_of` judges one picture, `area` one list. How do several pictures become one list?",
    "At each IoU: the hits of each picture, its boxes best first; all in one list, sorted by "
    "score; its area, for all true boxes. Then the mean over the IoUs.",
    "Sort each picture's boxes by score for the hits, and the joined list once more. A true box "
    "that a better box took is not free.",
))  # fmt: skip
def coco_ap(answer: Answer, draw: Draw) -> None:
    """`coco_ap(found, true, ious)`: small lists in closed form, then the library."""
    a = boxes(draw, 1).double()
    b, nothing = a + 100, a + 200
    near = a - (a[:, 3] - a[:, 1]) * torch.tensor([0, 0, 0, 0.28])  # its IoU with a is 0.72
    most = [0.5 + i / 20 for i in range(10)]

    def judged(right: float, said: list[tuple[Tensor, list[float]]], true: list[Tensor],
               ious: list[float], mistakes: dict[str, float]) -> None:  # fmt: skip
        found = [(rows.float(), torch.tensor(scores)) for rows, scores in said]
        true = [rows.float() for rows in true]
        answer.expect(right, found, true, ious, mistakes=mistakes, tolerance=1e-3)

    taken = {"two boxes lie on one animal: the worse one is a miss": 1.0}
    taken["COCO reads the best precision from there on, at 101 recalls: `area`"] = 5 / 6
    twice = [(torch.cat([a, a, b]), [0.9, 0.8, 0.7])]
    judged(253 / 303, twice, [torch.cat([a, b])], [0.5], taken)
    unsorted = {"take the boxes by score, best first, not as they come": 0.5}
    judged(1.0, [(torch.cat([nothing, a]), [0.2, 0.9])], [a], [0.5], unsorted)
    lists = {"all pictures make one list; this is the mean of two": 0.75,
             "all pictures make one list, which is sorted by score": 253 / 303}  # fmt: skip
    both = [(a, [0.8]), (torch.cat([nothing, b]), [0.9, 0.3])]
    judged(2 / 3, both, [a, b], [0.5], lists)
    missed = {"an animal that no box finds counts too": 1.0}
    judged(51 / 101, [(a, [0.9])], [torch.cat([a, b])], [0.5], missed)
    judged(0.5, [(near, [0.9])], [a], most, {"take the mean over all IoUs": 1.0})

    true = [torch.cat([x, x + 100]) for x in boxes(draw, 3).split(1)]
    noise = [8 * torch.rand(2, 4, generator=draw.generator) - 4 for _ in true]
    moved = [((t + n) * 1000).round() / 1000 for t, n in zip(true, noise, strict=True)]
    chance = [torch.rand(2, generator=draw.generator) for _ in true]
    truth = detection.coco_truth([(300, 300)] * 3, true, [torch.tensor([0, 0])] * 3, ["animal"])
    pairs = list(zip(moved, chance, strict=True))
    said = [detection.name_boxes(rows, scores[:, None], ["animal"]) for rows, scores in pairs]
    library = detection.average_precision(truth, detection.coco_results(said), {"all": [0]})
    answer.expect(library["all"].ap, pairs, true, most, tolerance=1e-3)


@exercise("03.8", "A map between two languages", hints=(
    "Take both sets of vectors around their means. Where is the derivative of the sum 0?",
    "With the means subtracted: (Z'Z + eps I) Q = Z'T.",
    "torch.linalg.solve(z.T @ z + eps * torch.eye(z.shape[1]), z.T @ t).",
))  # fmt: skip
def fit_map(answer: Answer, draw: Draw) -> None:
    """`fit_map(z, t, eps)`: the normal equations hold, and a rotation comes back."""

    def solved(z: Tensor, t: Tensor, penalty: Tensor) -> Tensor:
        return torch.linalg.solve(z.T @ z + penalty, z.T @ t)

    z, turn = draw.normal(12, 4) + 2, torch.linalg.qr(draw.normal(4, 4)).Q
    noisy = z @ turn + 0.3 * draw.normal(12, 4) - 1
    for t, eps in ((noisy, draw.number(0.5, 2)), (z @ turn + 1, 1e-5)):
        c, d, ridge = z - z.mean(dim=0), t - t.mean(dim=0), eps * torch.eye(4)
        right = solved(c, d, ridge)
        mistakes = {
            "subtract the means first, of both": solved(z, t, ridge),
            "subtract the mean of z too": solved(z, d, ridge),
            "that is Q transposed: vectors are rows, and z Q is near t": right.T,
            "this map goes from t to z": solved(d, c, ridge),
            "the penalty is missing": solved(c, d, 0 * ridge),
            "eps belongs on the diagonal only": solved(c, d, torch.full((4, 4), eps)),
        }
        answer.expect(right, z, t, eps, mistakes=mistakes, tolerance=1e-3)
