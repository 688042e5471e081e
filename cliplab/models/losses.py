"""Contrastive losses of one process: InfoNCE (CLIP) and the pairwise sigmoid (SigLIP).

Both read the same N x N table of cosine similarities between the images and the captions of one
batch. They differ in the question they ask of it: InfoNCE asks every row and every column "which
one is yours?" (one softmax each), SigLIP asks every cell "do you two belong together?".

Losses are scalars in nats, float32 (float64 for float64 inputs); ValueError says which shapes do
not fit, or that a batch is empty.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliplab.models.layers import at_least_float32, pair_logits
from cliplab.models.tiled_losses import sigmoid_table, softmax_table


def clip_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    *,
    groups: Tensor | None = None,
    tile: int | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """Symmetric InfoNCE of unit rows (N, D), (N, D) -> scalar.

    Row i of the table must pick caption i among the N captions, column i must pick image i among
    the N images; the loss is the mean of the two cross-entropies.

    Args:
        image_emb: (N, D) unit rows, row i is the image of pair i.
        text_emb: (N, D) unit rows, row i is the caption of pair i.
        logit_scale: scalar, 1 / temperature (already exponentiated).
        groups: (N,) integers. Pairs with equal ids are right answers for one another: the target
            of a row is spread evenly over its group. Without this, a second sentence in the batch
            that is also true of an image is a false negative, from which the image is pushed away.
            The loss can then fall no lower than the mean log of the group sizes. For sentences
            that are equal to the letter the loss and the gradient of the towers are the same with
            and without groups, which matter for paraphrases and for captions of one class. None:
            every pair is its own group.
        tile: compute the table in tiles of so many rows and columns and never hold it: the same
            loss and gradients in memory of O(N * D), see `tiled_losses`. None: at once.
        products: torch.bfloat16 rounds the factors of a tiled loss's matrix products; see there.

    Source: CLIP, arXiv:2103.00020, Fig. 3; several positives per row as in UniCL,
        arXiv:2204.03610.
    Taught in: notebooks/01.
    """
    _check_pairs(image_emb, text_emb, groups)
    if tile is not None or products is not None:
        ids = torch.arange(len(image_emb), device=image_emb.device) if groups is None else groups
        rows, columns, right = softmax_table(
            image_emb, text_emb, logit_scale, image_ids=ids, text_ids=ids, tile=tile,
            products=products,
        )  # fmt: skip
        return ((rows - right).mean() + (columns - right).mean()) / 2
    logits = pair_logits(image_emb, text_emb, logit_scale)  # (N, N), row i = image i
    targets = torch.arange(len(logits), device=logits.device)  # (N,)
    if groups is not None:
        same = (groups[:, None] == groups[None, :]).to(logits)  # (N, N), symmetric
        targets = same / same.sum(dim=1, keepdim=True)  # (N, N), even over a group
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def siglip_loss(
    image_emb: Tensor,
    text_emb: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    tile: int | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """Pairwise sigmoid loss of unit rows (N, D), (N, D) -> scalar.

    Every cell is its own yes/no question, so no row or column has to be complete: that is what
    lets the loss be computed in tiles. The sum over the N x N cells is divided by N, not by N * N:
    each image keeps the weight it has in InfoNCE whatever the batch size.

    Args:
        image_emb: (N, D) unit rows.
        text_emb: (N, D) unit rows, row i belongs to image i.
        logit_scale: scalar, 1 / temperature; the paper starts at 10.
        logit_bias: scalar, the paper starts at -10: of N * N cells only N are matches, and an
            unbiased start would spend the first steps learning just that.
        tile: as in `clip_loss`, and so `products`.

    Source: SigLIP, arXiv:2303.15343, Algorithm 1.
    Taught in: notebooks/01.
    """
    _check_pairs(image_emb, text_emb)
    if tile is not None or products is not None:
        ids = torch.arange(len(image_emb), device=image_emb.device)
        total = sigmoid_table(
            image_emb, text_emb, logit_scale, logit_bias, image_ids=ids, text_ids=ids, tile=tile,
            products=products,
        )  # fmt: skip
        return total / len(image_emb)
    logits = pair_logits(image_emb, text_emb, logit_scale) + logit_bias  # (N, N)
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1  # +1 match, -1 not
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def multi_label_loss(image_emb: Tensor, label_emb: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE with M right texts per image: unit rows (N, D), (N, M, D) -> scalar.

    An image must spread its choice evenly over its own M texts among the N * M texts of the batch;
    each text must pick its image among the N. The loss is the mean of the two cross-entropies, and
    falls no lower than log(M) / 2: the entropy of the even spread.

    Args:
        image_emb: (N, D) unit rows.
        label_emb: (N, M, D) unit rows, the M texts of each image, such as its prompted nouns.
        logit_scale: scalar, 1 / temperature.

    Source: GroupViT, arXiv:2202.11094, section 3.2, equation 7; soft targets as in its code.
    Taught in: notebooks/05.
    """
    logits = pair_logits(image_emb, label_emb.flatten(0, 1), logit_scale)  # (N, N*M)
    count, labels = label_emb.shape[:2]
    own = torch.arange(count, device=logits.device).repeat_interleave(labels)  # (N*M,)
    right = F.one_hot(own, count).T.to(logits)  # (N, N*M), 1 for an image's own texts
    return (F.cross_entropy(logits, right / labels) + F.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def clamp_logit_scale(log_logit_scale: nn.Parameter, max_scale: float = 100.0) -> None:
    """Keep exp(log_logit_scale) <= max_scale, in place; call it after every optimizer step.

    Without a ceiling the temperature keeps falling on data the model has already fitted: a larger
    scale lowers the loss without moving one embedding, until a single hard pair owns the gradient.

    Source: CLIP, arXiv:2103.00020, section 2.5.
    Deviates: open_clip and Chinese-CLIP also clamp from below at scale 1; training from 1 / 0.07
        does not come near it.
    """
    log_logit_scale.clamp_(max=math.log(max_scale))


def _check_pairs(image_emb: Tensor, text_emb: Tensor, groups: Tensor | None = None) -> None:
    if image_emb.shape != text_emb.shape or image_emb.ndim != 2 or len(image_emb) == 0:
        raise ValueError(
            f"image_emb and text_emb: got shapes {tuple(image_emb.shape)} and "
            f"{tuple(text_emb.shape)}; expected the same (N, D) with N >= 1, one caption per image"
        )
    if groups is not None and (groups.shape != image_emb.shape[:1] or groups.is_floating_point()):
        raise ValueError(
            f"groups: got shape {tuple(groups.shape)} of {groups.dtype}; expected "
            f"({len(image_emb)},) integers, one id per pair, equal where captions are equal"
        )


def token_focal_loss(
    logits: Tensor,
    targets: Tensor,
    text_mask: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Does this word mean this box? (B, A, L), (B, A, L) -> scalar, the sum over all pairs.

    Nearly all pairs do not belong together. One that is judged rightly with probability p is
    weighted by (1 - p)^gamma, so that the few that matter are not drowned.

    Args:
        logits: (B, A, L) of A anchors and L words.
        targets: (B, A, L), 0 to 1.
        text_mask: bool or 0 and 1, (B, L), the real words; None: all are.
        alpha: weight of the pairs that belong together, 1 - alpha of the others; -1: none.
        gamma: 0 is cross-entropy.

    Source: RetinaNet, arXiv:1708.02002, equation 5; GLIP, arXiv:2112.03857, section 3.1.
    """
    from torchvision.ops import sigmoid_focal_loss

    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        loss = sigmoid_focal_loss(logits, targets.to(logits.dtype), alpha, gamma)
        if text_mask is not None:
            loss = loss.masked_fill(~text_mask.bool()[:, None], 0.0)
        return loss.sum()
