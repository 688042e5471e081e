"""One forward pass read as a picture of words: groups get names, pixels get their group's.

Letters in shape comments: B pictures, G groups, W words, K classes, D embedding, h w patches,
H W pixels, N neighbours.

Sources: GroupViT, arXiv:2202.11094, section 3.3 and Fig. 4; how scores are made from cosines
follows the tensors of the official evaluation (tests/parity). `refine`: pixel-adaptive mask
refinement, Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020
(arXiv:2005.08104), section 4.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.groupvit import Groups, GroupViT
from cliplab.models.layers import unit_rows

REACHES = (1, 2, 4, 8)  # px to the neighbours of `refine`: eight at each distance
_CONTRAST = 0.1  # of the spread of a neighbourhood: by so much may colours differ
_LEAST = 1e-8
_ROUNDING = 1e-6  # interpolating between equal scores may end a hair below them


class Scenes(NamedTuple):
    """What the model sees in B pictures of one size."""

    scores: Tensor  # (B, W, H, W) how well every word fits every pixel, 0 to 1
    owner: Tensor  # (B, H, W) long, the group that a pixel belongs to
    group_scores: Tensor  # (B, G, W) how well every word fits every group


def read_scenes(model: GroupViT, pixels: Tensor, word_emb: Tensor, **how: Any) -> Scenes:
    """Normalised pictures (B, 3, H, W) -> scores of words at every pixel; see `name_groups`."""
    with torch.no_grad():
        groups = model.group(pixels)
    return name_groups(model, groups, (pixels.shape[-2], pixels.shape[-1]), word_emb, **how)


@torch.no_grad()
def name_groups(
    model: GroupViT,
    groups: Groups,
    size: tuple[int, int],
    word_emb: Tensor,
    *,
    top_words: int | None = 5,
    hard: bool = True,
    owned: bool = True,
    offsets: Tensor | None = None,
) -> Scenes:
    """Groups that the image tower made of pictures of one size (H, W) -> scores of words.

    Args:
        model: in eval mode.
        groups: of the pictures; they can be asked again, with other words or in another way.
        size: H and W, multiples of the patch.
        word_emb: (W, D) unit rows.
        top_words: only so many words, those that fit the picture as a whole best, may be in it;
            None: all of them.
        hard: a pixel has the scores of its group; else, as always without grouping stages, the mean
            over groups, weighted with how much of it they own.
        owned: False leaves owners -1, which take more time than all the rest, if not hard.
        offsets: (W,), added to the logits of the words.
    """
    image_emb, group_emb = map(unit_rows, model.encode_groups(groups))
    group_scores = score_groups(
        image_emb, group_emb, word_emb,
        scale=float(model.scale()), top_words=top_words, offsets=offsets,
    )  # fmt: skip
    hard = hard and bool(groups.assignments)
    if owned or hard:
        owner = owners(groups, size)
    else:
        owner = torch.full((len(groups.tok), *size), -1, device=groups.tok.device)
    if hard:
        scores = _of_owner(group_scores, owner)
    else:
        if groups.assignments:
            coarse = torch.einsum("bgw,bgyx->bwyx", group_scores, groups.maps())
        else:  # every patch is a group of its own, and the maps are a large identity
            coarse = group_scores.transpose(1, 2).unflatten(2, groups.grid)
        scores = F.interpolate(coarse, size, mode="bilinear")
    return Scenes(scores, owner, group_scores)


def score_groups(
    image_emb: Tensor,
    group_emb: Tensor,
    word_emb: Tensor,
    *,
    scale: float,
    top_words: int | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Unit rows (B, D), (B, G, D), (W, D) -> how well words fit groups, (B, G, W), 0 to 1.

    The product of two softmaxes over the words: one over all of them, one over the `top_words` that
    fit the whole picture best. The others get 0. `offsets` (W,) are added to the logits first.
    """
    logits = scale * group_emb @ word_emb.T  # (B, G, W)
    if offsets is not None:
        logits = logits + offsets
    probability = logits.softmax(dim=-1)
    if top_words is not None:
        best = (image_emb @ word_emb.T).topk(min(top_words, len(word_emb)), dim=-1).indices
        kept = torch.zeros_like(logits[:, 0], dtype=torch.bool).scatter_(1, best, True)  # (B, W)
        logits = logits.masked_fill(~kept[:, None], -torch.inf)
    return probability * logits.softmax(dim=-1)


def pixel_maps(groups: Groups, size: tuple[int, int]) -> Tensor:
    """How much of every pixel belongs to every group, (B, G, H, W), 0 to 1, sum 1 over groups."""
    return F.interpolate(groups.maps(), size, mode="bilinear")


def owners(groups: Groups, size: tuple[int, int]) -> Tensor:
    """The group that owns most of a pixel, (B, H, W) long; without stages the patch around it."""
    if groups.assignments:
        return pixel_maps(groups, size).argmax(dim=1)
    rows, columns = groups.grid
    numbers = torch.arange(rows * columns, device=groups.tok.device).view(1, 1, rows, columns)
    nearest = F.interpolate(numbers.double(), size, mode="nearest")[:, 0].long()
    return nearest.expand(len(groups.tok), -1, -1)


def _of_owner(group_scores: Tensor, owner: Tensor) -> Tensor:
    """(B, G, W), (B, H, W) -> (B, W, H, W)."""
    index = owner.flatten(1)[..., None].expand(-1, -1, group_scores.shape[-1])  # (B, H*W, W)
    return group_scores.gather(1, index).transpose(1, 2).unflatten(2, owner.shape[1:])


# ---- labels of a picture -----------------------------------------------------------------------


@dataclass(frozen=True)
class Segmentation:
    """K labels of a picture as it was looked at, of a bounded size, H x W; see `labels_at`."""

    scores: Tensor  # (K, H, W) float32, 0 to 1; not a distribution
    owner: Tensor  # (H, W) long, which group a pixel belongs to
    names: tuple[str, ...]  # K, names[0] is the background if there is one
    size: tuple[int, int]  # width and height of the picture itself, in pixels
    has_background: bool = False
    threshold: float | None = None  # scores below are background
    best: float | None = None  # highest score of a group, for what is no background

    @property
    def labels(self) -> Tensor:
        """(H, W) long, indices into names."""
        best, lowest = self.scores.argmax(dim=0), self._lowest()
        return best if lowest is None else best.where(self.scores[1:].amax(dim=0) >= lowest, 0)

    def labels_at(self, size: tuple[int, int] | None = None) -> Tensor:
        """Labels (height, width) uint8 or int16 at the size of the picture, or another.

        Scores are interpolated before the best is taken, so that borders are smooth; one label
        after another, so that the scores of all are never held at that size.
        """
        width, height = size or self.size
        kind = torch.uint8 if len(self.names) <= 256 else torch.int16
        found = torch.zeros((height, width), dtype=kind)
        best, lowest = torch.full((height, width), -torch.inf), self._lowest()
        for k in (*range(1, len(self.names)), 0):
            own = F.interpolate(self.scores[None, k, None], (height, width), mode="bilinear")[0, 0]
            found[own > best if k else own >= best] = k
            best = torch.maximum(best, own) if k else best
        if lowest is not None:
            found[best < lowest - _ROUNDING] = 0
        return found

    def _lowest(self) -> float | None:
        """The threshold, or the best score of all groups if that is lower.

        As in the official evaluation, where the best group may own no pixel: then all that is seen
        can be background. Deviates: of several windows it is the best of all.
        """
        if self.threshold is None:
            return None
        return min(self.threshold, float(self.scores[1:].max()) if self.best is None else self.best)


# ---- borders that follow the picture ---------------------------------------------------------


def refine(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    """Every pixel's scores become a weighted mean of its neighbours', `steps` times over.

    What a network knows of a place comes from coarse maps; where a thing ends is to be seen in the
    picture, without any training: neighbours of like colour should have like scores. Weights are a
    softmax over the neighbours of minus their difference in colour, measured in the spread of the
    neighbourhood: a mean stops at an edge, also at one of low contrast.

    Args:
        scores: (B, K, H, W); where they sum to 1 over K they still do.
        image: (B, 3, H, W) of the same size, any range.
        steps: 0 leaves the scores as they are.
    """
    # One picture after another: all that is read again and again stays in the processor's cache.
    pairs = zip(scores.split(1), image.split(1), strict=True)
    return torch.cat([_spread(one, picture, steps) for one, picture in pairs]) if steps else scores


def _spread(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    weights = _weights(image)  # (N, B, H, W)
    for _ in range(steps):
        parts = zip(weights, _neighbours(scores), strict=True)
        # One neighbour after another: all at once would take N times the memory of the scores.
        total = torch.zeros_like(scores)
        for weight, moved in parts:
            total.addcmul_(weight[:, None], moved)
        scores = total
    return scores


def _weights(image: Tensor) -> Tensor:
    """How alike a pixel and each of its neighbours are, (N, B, H, W), 1 in sum over N."""
    around = [*_neighbours(image), image]
    mean = sum(around) / len(around)
    variance = sum((x - mean) ** 2 for x in around) / (len(around) - 1)
    spread = torch.as_tensor(variance).sqrt()  # (B, 3, H, W)
    allowed = _CONTRAST * spread + _LEAST
    apart = [((x - image).abs() / allowed).mean(dim=1) for x in around[:-1]]
    return (-torch.stack(apart)).softmax(dim=0)


def _neighbours(x: Tensor) -> Iterator[Tensor]:
    """(B, C, H, W) as seen from each pixel's neighbours in turn; edges are repeated."""
    height, width = x.shape[-2:]
    for reach in REACHES:
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        for down in (0, reach, 2 * reach):
            for right in (0, reach, 2 * reach):
                if (down, right) != (reach, reach):
                    yield padded[..., down : down + height, right : right + width]
