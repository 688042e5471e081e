"""WiSE-FT: weights between the zero-shot classifier and the one fine-tuned from it."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.classification.few_shot.classifier import LinearClassifier
from cliplab.classification.few_shot.method import FromZeroShot, best
from cliplab.classification.few_shot.shots import Shots

ALPHAS = tuple(n / 10 for n in range(11))
DEFAULT_ALPHA = 0.5  # what the paper recommends where nothing can tell


class WiseFT(FromZeroShot):
    """theta = (1 - alpha) theta_zero-shot + alpha theta_fine-tuned, for the linear head.

    Fine-tuning fits the shots and forgets some of what the text knew about pictures unlike them;
    half-way back keeps most of both. Alpha 0 is the zero-shot classifier and 1 the fine-tuned one,
    bit by bit. Alpha is chosen on val, or is DEFAULT_ALPHA. A val split from the same place as
    train cannot know what a shift will cost, and leans to 1.

    Source: WiSE-FT, arXiv:2109.01903, section 3 and its linear-classifier variant.
    Deviates: the image tower stays frozen, as everywhere in this package.
    """

    def __init__(
        self,
        zero_shot: Tensor,
        logit_scale: float,
        *,
        alpha: float | None = None,
        steps: int = 200,
        learning_rate: float = 0.01,
    ) -> None:
        """`alpha`: 0 to 1, None = chosen; `steps` of AdamW on all shots at once, 0 or more."""
        super().__init__(zero_shot, logit_scale)
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha: got {alpha}; expected 0 to 1, or None to choose it")
        if steps < 0:
            raise ValueError(f"steps: got {steps}; expected 0 or more")
        self.alpha, self.steps, self.learning_rate = alpha, steps, learning_rate

    def _fit(self, train: Shots, val: Shots | None) -> LinearClassifier:
        start = LinearClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=self.zero_shot,
            bias=torch.zeros(len(train.class_names)),
        )
        end = self.fine_tune(train)
        if self.alpha is not None:
            return _between(start, end, self.alpha, "given")
        if val is None:
            return _between(start, end, DEFAULT_ALPHA, "default: no val")
        tried = [(a, _between(start, end, a, "").logits(val.image_emb)) for a in ALPHAS]
        return _between(start, end, best(tried, val.labels), "val")

    def fine_tune(self, train: Shots) -> LinearClassifier:
        """The other end: the head trained from the zero-shot weights on all shots."""
        weight = nn.Parameter(self.zero_shot.clone())
        bias = nn.Parameter(torch.zeros(len(weight)))
        optimizer = torch.optim.AdamW([weight, bias], lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        for _ in range(self.steps):
            optimizer.zero_grad()
            logits = self.logit_scale * (train.image_emb @ weight.T) + bias
            F.cross_entropy(logits, train.labels).backward()
            optimizer.step()
            schedule.step()
        return LinearClassifier(
            class_names=train.class_names,
            logit_scale=self.logit_scale,
            weight=weight.detach(),
            bias=bias.detach(),
            choices={"method": "fine-tuned head", "steps": self.steps},
        )


def _between(
    start: LinearClassifier, end: LinearClassifier, alpha: float, chosen_on: str
) -> LinearClassifier:
    assert start.bias is not None
    assert end.bias is not None
    return replace(
        end,
        weight=(1 - alpha) * start.weight + alpha * end.weight,
        bias=(1 - alpha) * start.bias + alpha * end.bias,
        choices={"method": "wise-ft", "alpha": alpha, "chosen on": chosen_on},
    )
