"""The grouping block: patches vote for groups, and every group becomes the mean of its voters.

Parameter names are those of the official weights.

Letters in shape comments: B images, P patches (or the groups of the stage before), G groups,
T group tokens, L tokens of any kind, C width, H heads.

Source: GroupViT, arXiv:2202.11094, section 3.1. Written from the paper; the official code is under
a non-commercial licence.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.layers import at_least_float32, attend

_ONE_MORE_VOTER = 1.0  # added to every group's count, so that an empty group divides by 1


class Assignment(NamedTuple):
    """Which group every patch belongs to, in two forms."""

    hard: Tensor  # (B, G, P) what the groups were made of: one-hot per patch if the model is hard
    soft: Tensor  # (B, G, P) probabilities of the groups, per patch; without noise


def gumbel_noise(like: Tensor) -> Tensor:
    """Samples of the standard Gumbel distribution, of the shape of `like`.

    The largest of logits + noise is a draw from the softmax of the logits: with it, training tries
    groups in proportion to how likely they are, instead of the likeliest only.
    """
    return -torch.empty_like(like).exponential_().log()


def assign(logits: Tensor, *, hard: bool, noise: Tensor | None = None) -> Assignment:
    """Similarities (B, G, P) -> the assignment of patches to groups; softmax is over the groups.

    Args:
        logits: scaled similarities of groups and patches.
        hard: one-hot in the forward pass, the gradient of the softmax in the backward pass
            (straight-through): an argmax alone has no gradient.
        noise: (B, G, P), added to the logits of the assignment; not to those of `soft`.

    Source: GroupViT, equations 3 and 4.
    """
    soft = logits.softmax(dim=1)
    noisy = soft if noise is None else (logits + noise).softmax(dim=1)
    if not hard:
        return Assignment(noisy, soft)
    one_hot = torch.zeros_like(noisy).scatter_(1, noisy.argmax(dim=1, keepdim=True), 1.0)
    return Assignment(one_hot + (noisy - noisy.detach()), soft)


class MLP(nn.Module):
    """Every token on its own through a wider layer, (B, L, C) -> (B, L, C')."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C')."""
        return self.fc2(F.gelu(self.fc1(tok)))  # the exact GELU; the text tower has the quick one


class Mixer(MLP):
    """Every channel on its own through a layer across the tokens, (B, L, C) -> (B, L', C)."""

    def forward(self, tok: Tensor) -> Tensor:
        """(B, L, C) -> (B, L', C)."""
        return super().forward(tok.transpose(1, 2)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Groups ask, patches answer: (B, G, C), (B, P, C) -> (B, G, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, group_tok: Tensor, tok: Tensor) -> Tensor:
        """(B, G, C), (B, P, C) -> (B, G, C)."""
        return self.proj(
            attend(self.q_proj(group_tok), self.k_proj(tok), self.v_proj(tok), self.heads)
        )


class CrossAttentionBlock(nn.Module):
    """Cross-attention and an MLP, each added to its input, and a norm behind both.

    Unlike in the blocks of the towers, nothing is normalised on the way into the attention.
    """

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, round(ratio * width), width)
        self.norm_post = nn.LayerNorm(width)

    def forward(self, group_tok: Tensor, tok: Tensor) -> Tensor:
        """(B, G, C), (B, P, C) -> (B, G, C)."""
        group_tok = group_tok + self.attn(group_tok, tok)
        return self.norm_post(group_tok + self.mlp(self.norm2(group_tok)))


class AssignAttention(nn.Module):
    """Attention with one head whose softmax runs over the groups, not over the patches.

    In ordinary attention every group divides its attention among the patches. Here every patch
    divides itself among the groups: groups compete for patches, and that makes segments.
    """

    def __init__(self, width: int, *, hard: bool, gumbel: bool) -> None:
        super().__init__()
        self.hard, self.gumbel = hard, gumbel
        self.q_proj, self.k_proj, self.v_proj, self.proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, group_tok: Tensor, tok: Tensor) -> tuple[Tensor, Assignment]:
        """(B, G, C), (B, P, C) -> new groups (B, G, C) and who belongs to them.

        Deviates: the paper divides by the number of a group's patches, the official code by one
        more; so does this.
        """
        query = self.q_proj(group_tok) * group_tok.shape[-1] ** -0.5
        logits = at_least_float32(query @ self.k_proj(tok).transpose(1, 2))  # (B, G, P)
        noise = gumbel_noise(logits) if self.gumbel and self.training else None
        assignment = assign(logits, hard=self.hard, noise=noise)
        voters = assignment.hard.sum(dim=2, keepdim=True)  # (B, G, 1)
        share = assignment.hard / (voters + _ONE_MORE_VOTER)  # (B, G, P)
        value = self.v_proj(tok)
        return self.proj(share.to(value.dtype) @ value), assignment


class GroupingBlock(nn.Module):
    """T group tokens gather P patches into G groups: (B, P, C), (B, T, C) -> (B, G, C').

    Source: GroupViT, Fig. 2 (right) and equation 5.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        *,
        heads: int,
        counts: tuple[int, int],  # T and G
        ratios: tuple[float, float, float],  # of the MLPs: attention's, across tokens, of channels
        hard: bool,
        gumbel: bool,
    ) -> None:
        super().__init__()
        (group_tokens, groups), (ratio, across, channels) = counts, ratios
        self.norm_tokens = nn.LayerNorm(width)
        self.mlp_inter = Mixer(group_tokens, int(across * width), groups)
        self.norm_post_tokens = nn.LayerNorm(width)
        self.norm_x = nn.LayerNorm(width)
        self.pre_assign_attn = CrossAttentionBlock(width, heads, ratio)
        self.assign = AssignAttention(width, hard=hard, gumbel=gumbel)
        self.norm_new_x = nn.LayerNorm(width)
        self.mlp_channels = MLP(width, int(channels * width), outputs)
        self.reduction: nn.Module = nn.Identity()
        if width != outputs:
            resize = nn.Linear(width, outputs, bias=False)
            self.reduction = nn.Sequential(nn.LayerNorm(width), resize)

    def forward(self, tok: Tensor, group_tok: Tensor) -> tuple[Tensor, Assignment]:
        """(B, P, C), (B, T, C) -> (B, G, C') and the assignment (B, G, P)."""
        tok = self.norm_x(tok)
        asking = self.norm_post_tokens(self.mlp_inter(self.norm_tokens(group_tok)))  # (B, G, C)
        asking = self.pre_assign_attn(asking, tok)
        gathered, assignment = self.assign(asking, tok)
        groups = gathered + asking
        return self.reduction(groups) + self.mlp_channels(self.norm_new_x(groups)), assignment
