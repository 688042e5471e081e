"""Exercises of lesson 01: the contrastive loss."""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.exercises.answer import Answer, Draw
from cliplab.exercises.checking import exercise
from cliplab.exercises.quizzes import Choice, Number
from cliplab.models import losses


@exercise(
    "01.1",
    "Closed forms of the loss",
    hints=(
        "All embeddings equal: what is the softmax of a row of N equal logits?",
        "The right cell of such a row has probability 1/N. What is its cross-entropy?",
        "For the simplex each row holds e^s once and e^(-s/(N-1)) for the N - 1 others: divide by "
        "e^s before you take the logarithm.",
    ),
)
def closed_form(answer: Answer, draw: Draw) -> None:
    """`closed_form(kind, n, scale)` for the kinds "equal" and "simplex"."""
    n, s = draw.integer(3, 9), draw.number(0.5, 2)
    summed = "this is the sum of both directions; the loss is their mean"
    answer.expect(math.log(n), "equal", n, s, mistakes={summed: 2 * math.log(n)})
    flat = "a simplex of N points has cosines -1/(N-1) off the diagonal, not 0"
    simplex, wrong = (math.log1p((n - 1) * math.exp(-s * d)) for d in (n / (n - 1), 1))
    answer.expect(simplex, "simplex", n, s, mistakes={flat: wrong})


@exercise(
    "01.2",
    "What a picture learns",
    hints=(
        "The loss depends on a picture only through its row of cosines: use the chain rule.",
        "The gradient of cell (i, j) is s (p + q - 2 delta) / (2 N), and the gradient of c_ij with "
        "respect to picture i is caption j.",
        "Make the (N, N) table of cell gradients, with p a softmax over dim 1 and q over dim 0; "
        "its matrix product with the captions is the answer.",
    ),
)
def picture_gradient(answer: Answer, draw: Draw) -> None:
    """`picture_gradient(image_emb, text_emb, scale)`: the loss differentiated by the pictures."""
    n, s = draw.integer(3, 5), draw.number(2, 8)
    image_emb, text_emb = draw.unit_rows(n, 2), draw.unit_rows(n, 2)
    logits, own = s * image_emb @ text_emb.T, torch.eye(n)  # (N, N)
    p, q = logits.softmax(dim=1), logits.softmax(dim=0)
    cells = s / (2 * n) * (p + q - 2 * own)
    right = cells @ text_emb  # (N, D)
    wrong = {
        "this is the pull; the gradient has the other sign, towards a larger loss": -right,
        "only the rows ask here (p); the captions ask too (q)": s / n * (p - own) @ text_emb,
        "only the columns ask here (q); the pictures ask too (p)": s / n * (q - own) @ text_emb,
        "the scale is missing: the logits are s times the cosines": right / s,
        "the loss is a mean of 2 N questions; this divides by N": 2 * right,
        "the loss is a mean of 2 N questions; this is their sum": 2 * n * right,
        "each cell of the diagonal is in a row and a column: subtract 2 there": (
            right + s / (2 * n) * text_emb
        ),
        "the gradient of a cosine by its picture is the caption": cells @ image_emb,
        "the table is transposed: row i belongs to picture i": cells.T @ text_emb,
    }
    answer.expect(right, image_emb, text_emb, s, mistakes=wrong)


@exercise(
    "01.3",
    "The scale that certainty needs",
    hints=(
        "When is the right caption as probable as possible? Think of the best row of cosines.",
        "The best row has 1 at the right caption and -1 at the N - 1 others.",
        "Then p / (1 - p) = e^(2s) / (N - 1). Solve for s.",
    ),
)
def scale_for(answer: Answer, draw: Draw) -> None:
    """`scale_for(p, n)`: the smallest logit scale with which a row can reach probability p."""
    p, n = draw.number(0.6, 0.99), draw.integer(4, 60)
    odds = p / (1 - p)
    right = math.log(odds * (n - 1)) / 2
    wrong = {
        "wrong captions may have a cosine of -1; with 0 it takes a larger scale": 2 * right,
        "of n captions n - 1 are wrong": math.log(odds * n) / 2,
        "this is the temperature; the scale is 1 divided by it": 1 / right,
        "p is a share of the whole row, the wrong captions have 1 - p": math.log(p * (n - 1)) / 2,
        "e^s needs the natural logarithm, not that to base 10": right / math.log(10),
        "e^s needs the natural logarithm, not that to base 2": right / math.log(2),
    }
    answer.expect(right, p, n, mistakes=wrong)


@exercise(
    "01.4",
    "The two directions apart",
    hints=(
        "Each direction is a cross-entropy. Which answers are there to choose from, and which is "
        "right?",
        "Pictures ask along a row, among all M; picture i is right with column own[i]. Captions "
        "ask along a column; which columns ask?",
        "logits[:, own] has the columns that ask, in the order of the pictures: who is right "
        "there? F.cross_entropy takes a row a question, and the numbers of the right answers.",
    ),
)
def one_way_losses(answer: Answer, draw: Draw) -> None:
    """`one_way_losses(image_emb, text_emb, own, scale)` -> (pictures ask, captions ask)."""
    n, s = draw.integer(3, 5), draw.number(2, 8)
    for m in (n, n + draw.integer(1, 3)):
        image_emb, text_emb = draw.unit_rows(n, 3), draw.unit_rows(m, 3)
        own = torch.randperm(m, generator=draw.generator)[:n]

        def both(scale: float, own: Tensor = own, table: Tensor = image_emb @ text_emb.T,
                 only: bool = False) -> tuple[Tensor, Tensor]:  # fmt: skip
            logits, first = scale * table, torch.arange(n)  # (N, M)
            rows = (logits[:, own], first) if only else (logits, own)
            return F.cross_entropy(*rows), F.cross_entropy(logits[:, own].T, first)

        rows, columns = both(s)
        mean, plain = (rows + columns) / 2, both(s, torch.arange(n))
        wrong = {
            "captions without a picture are wrong answers, too": both(s, only=True),
            "caption i need not be that of picture i: `own` says which is": plain,
            "picture i need not be that of caption i: use `own` where captions ask, too": (
                rows,
                plain[1],
            ),
            "they are exchanged: pictures ask along the rows of the table": (columns, rows),
            "both are the rows; captions ask along the columns": (rows, rows),
            "both are the columns; pictures ask along the rows": (columns, columns),
            "these are halves; each direction is a loss of its own": (rows / 2, columns / 2),
            "these are sums over the questions; a loss is their mean": (n * rows, n * columns),
            "N captions ask; this divides by all M": (rows, columns * n / m),
            "both are the mean of the two; keep the directions apart": (mean, mean),
            "the scale is missing": both(1),
            "divide by the temperature, which is multiply by the scale": both(1 / s),
        }
        answer.expect((rows, columns), image_emb, text_emb, own, s, mistakes=wrong)


@exercise(
    "01.5",
    "Recall with several captions",
    hints=(
        "Which columns of a picture's row hold its k best captions?",
        "topk(k, dim=1).indices gives them, (N, k); `owner` says whose captions they are.",
        "Compare owner[best], (N, k), with a column of the pictures' own numbers. One hit in a row "
        "is enough.",
    ),
)
def recall_of_pictures(answer: Answer, draw: Draw) -> None:
    """`recall_of_pictures(cosine, owner, k)` where a picture has several captions."""
    n, each, k = draw.integer(15, 20), 5, 4
    owner = torch.arange(n).repeat(each)[torch.randperm(n * each, generator=draw.generator)]
    whose = owner[None] == torch.arange(n)[:, None]  # (N, M)
    noise, inside = draw.normal(2, n, n * each).mul(0.2).sigmoid()  # (N, M) each
    others = noise.masked_fill(whose, 0).sort(dim=1, descending=True).values
    row = torch.arange(n)[:, None]  # (N, 1); the best own caption of row i has rank i % 6
    high, low = (F.pad(others, (1, 0), value=0.99).gather(1, row % 6 + i) for i in (0, 1))
    own = (low + (high - low) * inside) * whose
    lagging = (own < own.amax(dim=1, keepdim=True)) & (row % 4 > 1)  # in half of the rows
    cosine = torch.where(whose, torch.where(lagging, own / 2, own), noise)

    def hits(k: int) -> Tensor:
        return whose.gather(1, cosine.topk(k, dim=1).indices).float()  # (N, k)

    numbered = (cosine.topk(k, dim=1).indices == row).any(dim=1)
    worst = whose.gather(1, (-cosine).topk(k, dim=1).indices).any(dim=1)
    asked = (owner == cosine.topk(k, dim=0).indices).any(dim=0)  # (M,): the captions ask
    wrong = {
        "one own caption among the k best is enough; this asks for all k": hits(k).amin(1).mean(),
        "count pictures with a hit, not the share of hits among the k best": hits(k).mean(),
        "count pictures with a hit, not the share of captions found": hits(k).sum() / len(owner),
        "here captions look for pictures; a picture's captions are its row": asked.float().mean(),
        "compare the owners of the k best, not their numbers": numbered.float().mean(),
        "these are the k worst captions: sort downwards": worst.float().mean(),
        "this is R@1, whatever k": hits(1).mean(),
        "look at the k best captions, not at k - 1": hits(k - 1).amax(1).mean(),
        "look at the k best captions, not at k + 1": hits(k + 1).amax(1).mean(),
    }
    answer.expect(hits(k).amax(1).mean(), cosine, owner, k, mistakes=wrong)


class _Towers(nn.Module):
    """As small as can be; called like the lesson's model."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.image, self.text = nn.Parameter(draw.normal(3, 2)), nn.Parameter(draw.normal(5, 2))
        self.log_logit_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(images @ self.image, dim=-1), F.normalize(self.text[ids], dim=-1)


@exercise(
    "01.6",
    "A big batch in two passes",
    hints=(
        "The loss needs all embeddings at once, but no graph that leads back to the pictures.",
        "First pass: embed everything under torch.no_grad(), and find the gradient of the loss by "
        "the embeddings (requires_grad_) and by the scale.",
        "Second pass: embed one chunk with a graph and call torch.autograd.backward(embeddings, "
        "their gradients); parameters add up what comes from each chunk.",
    ),
)
def two_pass(answer: Answer, draw: Draw) -> None:
    """`two_pass(model, images, ids, chunk)`: the gradients of the whole batch, part by part."""
    n, chunk, with_graph = draw.integer(5, 7), draw.integer(2, 3), list[int]()
    model, images = _Towers(draw), draw.normal(n, 3)
    ids = torch.randint(5, (n,), generator=draw.generator)

    def gradients(images: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        image_emb, text_emb = model(images, ids)
        loss = losses.clip_loss(image_emb, text_emb, model.log_logit_scale.exp())
        return torch.autograd.grad(loss, list(model.parameters()))

    whole = gradients(images, ids)
    parts = list(map(gradients, images.split(chunk), ids.split(chunk)))
    added = [torch.stack(of).sum(dim=0) for of in zip(*parts, strict=True)]

    def watch(_: nn.Module, given: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
        if out[0].requires_grad:  # a graph begins, and ends when its gradient arrives
            with_graph.append(len(given[0]))
            out[0].register_hook(lambda _: with_graph.append(-len(given[0])))

    model.register_forward_hook(watch)
    got = answer(model, images, ids, chunk)
    missing = isinstance(got, list | tuple) and not all(isinstance(one, Tensor) for one in got)
    answer.require(not missing, "a gradient is missing; each parameter has one, the scale too")
    with_graph.clear()
    alone = "this is accumulation: each chunk sees only its own pairs, the loss must see them all"
    wrong = {alone: added, f"{alone} (mean)": [one / len(parts) for one in added]}
    answer.expect(whole, model, images, ids, chunk, mistakes=wrong)
    most = max(accumulate(with_graph, initial=0))
    answer.require(most <= chunk, f"right, but {most} pictures had a graph at once, not {chunk}")


@exercise(
    "01.7",
    "Where the bias should start",
    hints=(
        "With all cosines 0 every logit is b. What does one row of N questions cost then?",
        "It costs -log sigmoid(b) once and -log sigmoid(-b) N - 1 times. Where is its minimum?",
        "There sigmoid(b) = 1/N, the share of answers that are yes. Solve for b.",
    ),
)
def best_bias(answer: Answer, draw: Draw) -> None:
    """`best_bias(n)`: the bias with the lowest sigmoid loss when all cosines are 0."""
    n = draw.integer(3, 200)
    wrong = {
        "the sign: most answers are no, so the bias is below 0": math.log(n - 1),
        "sigmoid(b) = 1/n means odds of 1 to n - 1, not 1 to n": -math.log(n),
        "this is the share of yes; the bias is the logit of that share": 1 / n,
        "SigLIP's -10 suits one batch size; the best bias depends on n": -10.0,
    }
    answer.expect(-math.log(n - 1), n, mistakes=wrong)


@exercise(
    "01.8",
    "Captions broken at random",
    hints=(
        "Draw two things for each caption: whether it is broken, and which digit it gets then.",
        "torch.rand(len(digits)) < share says which; torch.randint(10, ...) draws digits.",
        "torch.where(broken, drawn, digits), both from one torch.Generator().manual_seed(seed).",
    ),
)
def break_captions(answer: Answer, draw: Draw) -> None:
    """`break_captions(digits, share, seed)`: a share of captions gets a random digit."""
    digits = torch.randint(10, (4000,), generator=draw.generator)
    seed, share = draw.integer(0, 999), draw.number(0.2, 0.4)
    broken, every = answer(digits, share, seed), answer(digits, 1.0, seed)
    alike = [isinstance(x, Tensor) and x.shape == digits.shape for x in (broken, every)]
    answer.require(all(alike), "return a tensor of the same shape as `digits`", "shape")
    changed, kept = (broken != digits).float(), float((every == digits).float().mean())
    rate, (one, other) = float(changed.mean()), changed.view(2, -1).mean(dim=1).tolist()
    said = f"at share {share:.2f} it changes {rate:.2f} of 4000 captions"
    properties = {
        f"{said}: `share` is the part that is broken, not the part kept": rate < 0.45,
        "draw at random which captions are broken, do not take one end": abs(one - other) < 0.08,
        f"at share 1 only {len(every.unique())} of 10 digits occur; each caption draws one, and "
        "torch.randint leaves out its upper end": len(every.unique()) == 10,
        f"at share 1 it keeps {kept:.2f} of the digits; a random digit is the old one in a tenth": (
            abs(kept - 0.1) < 0.03
        ),
        f"{said}; expected about {0.9 * share:.2f}": abs(rate - 0.9 * share) < 0.04,
        "one seed breaks other captions each time": broken.equal(answer(digits, share, seed)),
        "another seed breaks the same": not broken.equal(answer(digits, share, seed + 1)),
    }
    for sentence, holds in properties.items():
        answer.require(holds, sentence)
    answer.expect(digits, digits, 0.0, seed)


QUIZ: dict[str, Choice | Number] = {
    "a": Number(0.693, 0.01, "each of the 2 N questions costs -log 0.5, and the loss is a mean"),
    "b": Choice(
        "c",
        {
            "a": "only if the wrong pairs did not follow: if they rose by as much, it stayed",
            "b": "only if the wrong pairs rose by more: if they rose by as much, it stayed",
            "c": "the loss sees only differences of cosines, and nobody told the wrong ones",
        },
    ),
    "c": Choice(
        "b",
        {
            "a": "a larger s makes each mistake dearer: it costs about s times the wrong lead",
            "b": "wrong captions are mistakes that never go away, and mistakes hold s down",
            "c": "s is learned from the same loss, so what the captions say does matter",
        },
    ),
    "d": Choice(
        "b",
        {
            "a": "in its row each picture may still prefer its own caption (section 5)",
            "b": "the captions ask: most of them get that one picture, a wrong answer",
            "c": "a mean over the pairs can be high, whoever else is nearer",
        },
    ),
    "e": Choice(
        "c",
        {
            "a": "the pictures are as many, but no caption meets those of another batch",
            "b": "fewer negatives, yes, but the step follows the mean gradient of all 256 pairs",
            "c": "each question has 31 negatives; only a table of all 256 pairs gives it 255",
        },
    ),
}
