"""What captions say of segments: the losses that GroupViT is trained with here.

Letters in shape comments: B pictures, G segments (groups, or patches where nothing is grouped),
P patches, M nouns, D embedding.

Two recipes. The paper's compares whole pictures with texts: the mean of a picture's groups with its
caption and with prompted nouns of it. The one of the small world asks every patch which noun it is,
with two losses that images of captions alone can answer: a noun that is said must be somewhere
(`presence_loss`), and a patch must be something that is said (`explanation_loss`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.groupvit import Groups
from cliplab.models.losses import at_least_float32
from cliplab.segmentation import IGNORE

_LEAST = 1e-4  # probabilities are kept this far from 0 and 1, so that no logarithm explodes


def ownership(groups: Groups) -> Tensor | None:
    """How much of every patch belongs to every group, as the groups were made: (B, G, P).

    Unlike `Groups.maps` this is what training saw: one-hot if the assignment is hard, with noise if
    there is any. None without grouping: every patch is a segment of its own.
    """
    product: Tensor | None = None
    for assignment in groups.assignments:
        product = assignment.hard if product is None else assignment.hard @ product
    return product


def noun_maps(
    segment_emb: Tensor, noun_emb: Tensor, scale: Tensor, owned: Tensor | None = None
) -> Tensor:
    """Which noun is every patch? (B, G, D), (M, D) -> probabilities (B, P, M).

    A softmax over the nouns, per segment; a patch has the mean over the groups that own it.

    Args:
        segment_emb: (B, G, D), of any length: their cosines with the nouns count.
        noun_emb: (M, D) unit rows.
        scale: scalar, 1 / temperature.
        owned: (B, G, P), see `ownership`.
    """
    with torch.autocast(segment_emb.device.type, enabled=False):
        segment_emb = at_least_float32(segment_emb)
        # Divided behind the product, where there are M numbers a segment and not D.
        length = segment_emb.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # (B, G, 1)
        logits = segment_emb @ (scale * at_least_float32(noun_emb)).T / length  # (B, G, M)
        probability = logits.softmax(dim=-1)
        return probability if owned is None else owned.transpose(1, 2) @ probability  # (B, P, M)


def presence_loss(maps: Tensor, said: Tensor, *, share: float = 0.02) -> Tensor:
    """A noun that is said must be somewhere, one that is not nowhere: (B, P, M), (B, M) -> scalar.

    Binary cross-entropy of each noun's mean over the patches where it is likeliest. Multiple
    instance learning: who knows only what is in a picture, and not where, can ask for no more. A
    mean over more than a small thing has, or a power mean over all patches, asks every noun to
    grow, and animals flood the meadow that they stand in.

    Args:
        maps: (B, P, M) probabilities.
        said: (B, M) bool, the nouns of the captions.
        share: of the patches, 0 to 1; at least one counts.

    Source: top-k pooling as in "Weakly supervised learning of deep ConvNets" (WILDCAT, Durand et
    al., CVPR 2017), section 3.2, without its lowest regions.
    """
    count = max(1, round(share * maps.shape[1]))
    pooled = maps.topk(count, dim=1).values.mean(dim=1).clamp(_LEAST, 1 - _LEAST)  # (B, M)
    return F.binary_cross_entropy(pooled, said.to(pooled))


def explanation_loss(maps: Tensor, said: Tensor) -> Tensor:
    """A patch must be something that is said: (B, P, M), (B, M) -> scalar in nats.

    Minus the log of the probability of all nouns of the captions together, mean over the patches.
    Which of them it is, the loss does not ask: grass is what is always said where such patches are.
    Only sensible where captions leave out little.
    """
    allowed = torch.einsum("bpm,bm->bp", maps, said.to(maps))  # (B, P)
    known = said.any(dim=1)  # a picture of whose captions no noun is known explains nothing
    return -(allowed[known].clamp(min=_LEAST).log().mean() if known.any() else maps.sum() * 0)


def answers_loss(maps: Tensor, answers: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches say what was answered before: (B, P, M), (B, H, W) -> scalar in nats.

    Cross-entropy of the nouns of every pixel, where those of patches are interpolated. A noun
    counts as the square root of its pixels in the batch: by their number, only grass would matter.

    Args:
        maps: probabilities.
        answers: uint8 indices of nouns, `IGNORE` where there is none.
        grid: rows and columns of the patches.
    """
    image = maps.transpose(1, 2).unflatten(2, grid).contiguous()  # (B, M, rows, columns)
    image = F.interpolate(image, answers.shape[1:], mode="bilinear")
    logs = image.clamp(min=_LEAST).log()
    found = answers[answers != IGNORE].long()
    pixels = torch.bincount(found, minlength=maps.shape[2]).clamp(min=1)  # (M,)
    return F.nll_loss(logs, answers.long(), pixels.float().rsqrt(), ignore_index=IGNORE)


def agreement_loss(owned: Tensor, patch_maps: Tensor, group_maps: Tensor) -> Tensor:
    """A group says what its patches say: (B, G, P), (B, P, M), (B, G, M) -> scalar in nats.

    Cross-entropy of the nouns of a group's patches and the nouns of the group, weighted with how
    much it owns. It is H(noun | group), which is 0 if no group is a mixture, plus how far the names
    of groups are from what is in them; so it teaches names and ownership. Patches learn nothing
    from it.

    Groups that learn names from captions directly can cheat, for they have seen the whole picture:
    where a sky is said, the meadow may be called sky as well. A patch sees no farther than its
    surroundings, and what it calls sky it calls so in every picture.

    Args:
        owned: how much of every patch belongs to every group.
        patch_maps: what every patch says of itself, see `noun_maps`.
        group_maps: what every group says, the same without owners.

    Source: the first part after IIC, arXiv:1807.06653, section 3.1; the second is distillation.
    """
    joint = owned @ patch_maps.detach() / patch_maps.shape[1]  # (B, G, M), 1 a picture in sum
    return -(joint * group_maps.clamp(min=_LEAST).log()).sum(dim=(1, 2)).mean()


def best_segment_loss(
    segment_emb: Tensor, caption_emb: Tensor, scale: Tensor, *, sharpness: float = 10.0
) -> Tensor:
    """InfoNCE where the segments that fit speak for a picture: (N, G, D), (N, D) -> scalar.

    The score of picture and caption is a smooth maximum (log-mean-exp) of the cosines of the
    picture's segments, instead of the cosine of their mean: what a caption says is somewhere.
    """
    cosine = torch.einsum("ngd,kd->nkg", segment_emb, caption_emb)  # (N, N, G)
    count = math.log(cosine.shape[-1])
    score = (torch.logsumexp(sharpness * cosine, dim=-1) - count) / sharpness  # (N, N)
    targets = torch.arange(len(score), device=score.device)
    logits = scale * score
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def padded_nouns(own: Sequence[Sequence[str]], count: int, fallback: str) -> list[list[str]]:
    """`count` nouns of each caption, for the paper's multi-label loss, which wants as many of each.

    Repeats them in turn where there are fewer; a caption without any has the fallback.
    """
    rows = [list(nouns) or [fallback] for nouns in own]
    return [[row[k % len(row)] for k in range(count)] for row in rows]
