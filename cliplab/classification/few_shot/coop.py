"""CoOp: the words in front of the class name become vectors that are learned.

Source: Learning to Prompt for Vision-Language Models, arXiv:2109.01134, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cliplab.classification.few_shot.classifier import LinearClassifier
from cliplab.classification.few_shot.methods import Method, best
from cliplab.classification.few_shot.shots import Shots
from cliplab.encoders import Encoder

EMBEDDING_NAMES = ("token_embedding", "word_embeddings")  # CLIP's and BERT's, in all libraries
VAL_EVERY = 10  # steps between two looks at val
BATCH = 32  # shots of a step
PROMPTS = 256  # whose activations are kept at a time


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

    def __post_init__(self) -> None:
        if self.encoder is None:
            raise ValueError("encoder: got None; CoOp needs the encoder, whose text tower it uses")
        if self.context < 1:
            raise ValueError(f"context: got {self.context}; expected 1 or more vectors")
        if self.steps < 0:
            raise ValueError(f"steps: got {self.steps}; expected 0 or more")

    def _check(self, train: Shots) -> None:
        if train.dim != self.encoder.dim:
            raise ValueError(
                f"train: has {train.dim} dimensions; expected {self.encoder.dim} of "
                f"{self.encoder.name}: embed the shots with the same encoder"
            )

    def _fit(self, train: Shots, val: Shots | None) -> LinearClassifier:
        tower = _PromptTower(self.encoder, train.class_names, self.context)
        scale, judged = self.encoder.logit_scale, val or train
        tried: list[tuple[tuple[int, Tensor], Tensor]] = []  # (step, class rows), logits
        for step, context in self._steps(tower, train):
            if step == self.steps or (val and step % VAL_EVERY == 0):
                with torch.no_grad():
                    weight = tower(context).cpu()
                tried.append(((step, weight), scale * (judged.image_emb @ weight.T)))
        step, weight = best(tried, judged.labels)
        choices = {"method": "coop", "context": self.context, "steps": step}
        return LinearClassifier(
            class_names=train.class_names,
            logit_scale=scale,
            weight=weight,
            choices=choices | {"chosen on": "val" if val else "given"},
        )

    def _steps(self, tower: _PromptTower, train: Shots) -> Iterator[tuple[int, Tensor]]:
        """(number of steps done, context (M, C)), from 0 on."""
        generator = torch.Generator().manual_seed(self.seed)
        context = nn.Parameter(tower.start(generator))
        optimizer = torch.optim.AdamW([context], lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        yield 0, context
        for step in range(1, self.steps + 1):
            rows = torch.randperm(len(train), generator=generator)[:BATCH]
            with tower.hooked(context):
                weight = tower.classes()  # (K, D)
                emb = train.image_emb[rows].to(weight.device)
                logits = self.encoder.logit_scale * (emb @ weight.T)
                loss = F.cross_entropy(logits, train.labels[rows].to(weight.device))
                (context.grad,) = torch.autograd.grad(loss, [context])
            optimizer.step()
            schedule.step()
            yield step, context


class _PromptTower:
    """K prompts "<M vectors> <class name>" through an encoder's text tower."""

    def __init__(self, encoder: Encoder, names: Sequence[str], context: int) -> None:
        self.encoder, self.context = encoder, context
        self.model: Any = getattr(encoder, "model", None)
        self.device = getattr(encoder, "device", torch.device("cpu"))
        self.embedding = _embedding_layer(encoder.name, self.model)
        ids, self.first = _with_gap(encoder, names, context)
        self.ids = ids.to(self.device)  # (K, L)

    def start(self, generator: torch.Generator) -> Tensor:
        """The first context (M, C), drawn from N(0, 0.02)."""
        drawn = torch.randn(self.context, self.embedding.embedding_dim, generator=generator)
        return (0.02 * drawn).to(self.device)

    def __call__(self, context: Tensor) -> Tensor:
        """Context (M, C) -> unit rows (K, D)."""
        with self.hooked(context):
            return self.classes()

    @contextmanager
    def hooked(self, context: Tensor) -> Iterator[None]:
        """While this is open, the embedding layer gives `context` in place of the words."""
        calls = 0

        def replace(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            rows = context.to(output.dtype).expand(len(output), -1, -1)  # (K, M, C)
            before, after = output[:, : self.first], output[:, self.first + len(context) :]
            return torch.cat([before, rows, after], dim=1)

        handle = self.embedding.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()
        if not calls:
            raise ValueError(
                f"{self.encoder.name}: its text tower does not call its embedding layer, as a "
                "compiled one; expected a plain module: use another encoder for CoOp"
            )

    def classes(self) -> Tensor:
        """Unit rows (K, D) of the prompts as the tower now reads them.

        With many classes only one batch of activations is kept; the others are computed again in
        the backward pass.
        """
        batches = self.ids.split(PROMPTS)
        read = self.model.encode_text
        if len(batches) > 1:
            read = partial(checkpoint, read, use_reentrant=False)
        mixed = self.encoder.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, mixed):
            parts = [read(ids) for ids in batches]
        return F.normalize(torch.cat(parts).float(), dim=-1)


def _embedding_layer(name: str, model: Any) -> nn.Embedding:
    """The one layer that turns token ids into vectors; ValueError unless there is exactly one."""
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    names = [path for path in modules if path.rpartition(".")[2] in EMBEDDING_NAMES]
    found = {path: layer for path in names if isinstance(layer := modules[path], nn.Embedding)}
    if len(found) != 1:
        raise ValueError(
            f"{name}: has {', '.join(found) or 'no embedding layer'} among its modules; CoOp "
            f"expects one called {' or '.join(EMBEDDING_NAMES)}: use another encoder, or TextProbe"
        )
    return next(iter(found.values()))


def _with_gap(encoder: Encoder, names: Sequence[str], count: int) -> tuple[Tensor, int]:
    """Ids (K, L) of the names with `count` tokens to be replaced before each, and where they stand.

    Raises:
        ValueError: names so long that the vectors do not fit into the context, or a tokenizer that
            does more to a name than to frame it.
    """
    ids = encoder.tokenizer(list(names))  # (K, L)
    tokens = [encoder.tokenizer.encode(name) for name in names]
    starts = [at for at in (0, 1) if ids[0, at : at + len(tokens[0])].tolist() == tokens[0]]
    if not tokens[0] or not starts:
        raise ValueError(
            f"{encoder.name}: {names[0]!r} is not a run of tokens of its own in a prompt; expected "
            "a tokenizer that only frames it: use another encoder, or TextProbe"
        )
    first = starts[0]  # with a start token it is 1
    room = ids.shape[1] - first - 1 - max(map(len, tokens))  # 1: the end token
    if count > room:
        raise ValueError(
            f"context: got {count} vectors; expected at most {room}, what {encoder.name} has left "
            "beside the longest class name: take fewer, or shorter names"
        )
    gap = ids[:, first : first + 1].expand(-1, count)  # any token that is not special will do
    return torch.cat([ids[:, :first], gap, ids[:, first : ids.shape[1] - count]], dim=1), first
