"""CoOp: the words in front of the class name become vectors that are learned.

Source: Learning to Prompt for Vision-Language Models, arXiv:2109.01134, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import Classifier, Shots
from cliplab.classification.few_shot.methods import Method, best
from cliplab.encoders import Encoder
from cliplab.models.layers import unit_rows

EMBEDDING_NAMES = ("token_embedding", "word_embeddings")  # CLIP's and BERT's, in all libraries
VAL_EVERY = 10  # steps between two looks at val
BATCH = 32  # shots of a step


@dataclass(eq=False)
class CoOp(Method):
    """M learned vectors, then the class name, through the frozen text tower.

    The vectors replace the embeddings of the words in front of the class name on their way into
    the tower (a hook on its embedding layer), so that any tower with such a layer will do, CLIP's
    or BERT's. What is kept is the resulting classifier (K, D): the tower is not needed to use it.

    Deviates: images are embedded once, without augmentation; AdamW in place of SGD, since the
        paper's learning rate of 0.002 for SGD is made for a logit scale of 100.
    """

    encoder: Encoder
    _: KW_ONLY
    context: int = 4  # M, drawn from N(0, 0.02)
    steps: int = 100
    learning_rate: float = 0.002
    seed: int = 0  # of the draws

    def _fit(self, train: Shots, val: Shots | None) -> Classifier:
        if self.encoder is None:
            raise ValueError("encoder: got None; CoOp needs the encoder, whose text tower it uses")
        tower = PromptTower(self.encoder, train.class_names, self.context)
        scale, judged = self.encoder.logit_scale, val or train
        tried: list[tuple[tuple[int, Tensor], Tensor]] = []  # (step, class rows), logits
        for step, context in self._steps(tower, train):
            if step == self.steps or (val and step % VAL_EVERY == 0):
                with torch.no_grad():
                    weight = tower(context).cpu()
                tried.append(((step, weight), scale * (judged.image_emb @ weight.T)))
        step, weight = best(tried, judged.labels)
        choices = {"method": "coop", "context": self.context, "steps": step}
        return Classifier(
            class_names=train.class_names,
            logit_scale=scale,
            weight=weight,
            choices=choices | {"chosen on": "val" if val else "given"},
        )

    def _steps(self, tower: PromptTower, train: Shots) -> Iterator[tuple[int, Tensor]]:
        """(number of steps done, context (M, C)), from 0 on."""
        generator = torch.Generator().manual_seed(self.seed)
        context = nn.Parameter(tower.start(generator))
        optimizer = torch.optim.AdamW([context], lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        yield 0, context
        for step in range(1, self.steps + 1):
            rows = torch.randperm(len(train), generator=generator)[:BATCH]
            weight = tower(context)  # (K, D)
            emb = train.image_emb[rows].to(weight.device)
            logits = self.encoder.logit_scale * (emb @ weight.T)
            loss = F.cross_entropy(logits, train.labels[rows].to(weight.device))
            (context.grad,) = torch.autograd.grad(loss, [context])
            optimizer.step()
            schedule.step()
            yield step, context


class PromptTower:
    """K prompts "<M vectors> <class name>" through an encoder's text tower."""

    def __init__(self, encoder: Encoder, names: Sequence[str], context: int) -> None:
        self.encoder, self.context, self.model = encoder, context, encoder.model
        self.embedding = _embedding_layer(encoder.name, self.model)
        ids, self.first = _with_gap(encoder, names, context)
        self.ids = ids.to(encoder.device)  # (K, L)

    def start(self, generator: torch.Generator) -> Tensor:
        """The first context (M, C), drawn from N(0, 0.02)."""
        drawn = torch.randn(self.context, self.embedding.embedding_dim, generator=generator)
        return (0.02 * drawn).to(self.encoder.device)

    def __call__(self, context: Tensor) -> Tensor:
        """Context (M, C) -> unit rows (K, D) of the prompts."""
        kind, mixed = self.encoder.device.type, self.encoder.precision == "bfloat16"
        with self._hooked(context), torch.autocast(kind, torch.bfloat16, mixed):
            rows = self.model.encode_text(self.ids)
        return unit_rows(rows)

    @contextmanager
    def _hooked(self, context: Tensor) -> Iterator[None]:
        """While this is open, the embedding layer gives `context` in place of the words."""

        def replace(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            rows = context.to(output.dtype).expand(len(output), -1, -1)  # (K, M, C)
            before, after = output[:, : self.first], output[:, self.first + len(context) :]
            return torch.cat([before, rows, after], dim=1)

        handle = self.embedding.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _embedding_layer(name: str, model: nn.Module) -> nn.Embedding:
    """The layer that turns token ids into vectors; ValueError unless there is exactly one."""
    modules = dict(model.named_modules())
    paths = [path for path in modules if path.rpartition(".")[2] in EMBEDDING_NAMES]
    found = [layer for path in paths if isinstance(layer := modules[path], nn.Embedding)]
    if len(found) != 1:
        raise ValueError(
            f"{name}: has {', '.join(paths) or 'no embedding layer'} among its modules; CoOp "
            f"expects one called {' or '.join(EMBEDDING_NAMES)}: use another encoder, or TextProbe"
        )
    return found[0]


def _with_gap(encoder: Encoder, names: Sequence[str], count: int) -> tuple[Tensor, int]:
    """Ids (K, L) of the names with `count` tokens to be replaced before each, and where they stand.

    Raises:
        ValueError: names so long that the vectors do not fit into the context.
    """
    ids = encoder.tokenizer(list(names))  # (K, L)
    tokens = [encoder.tokenizer.encode(name) for name in names]
    first = int(ids[0, 0] != tokens[0][0])  # with a start token it is 1
    room = ids.shape[1] - first - 1 - max(map(len, tokens))  # 1: the end token
    if count > room:
        raise ValueError(
            f"context: got {count} vectors; expected at most {room}, what {encoder.name} has left "
            "beside the longest class name: take fewer, or shorter names"
        )
    gap = ids[:, first : first + 1].expand(-1, count)  # any token that is not special will do
    return torch.cat([ids[:, :first], gap, ids[:, first : ids.shape[1] - count]], dim=1), first
