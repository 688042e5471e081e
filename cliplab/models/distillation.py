"""The arithmetic of ViLD: regions against texts, the teacher's view, and both at once.

Pure functions; the network that they belong to is in `cliplab.models.vild`.

Letters: R regions, K classes, D embedding.

Source: ViLD, arXiv:2104.13921, section 3; constants as in its official code, tensorflow/tpu
projects/vild. Written from the paper.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.layers import unit_rows


def text_logits(
    region_emb: Tensor, text_emb: Tensor, background_emb: Tensor, temperature: float
) -> Tensor:
    """(R, D), (K, D), (D,) -> cosines over tau (R, 1 + K); column 0 is the background.

    Source: ViLD, equation 3: the background has an embedding of its own, learned, since
        "background" means nothing to the teacher.
    """
    if region_emb.shape[1] != text_emb.shape[1]:
        raise ValueError(
            f"text_emb: got {text_emb.shape[1]} dimensions; expected {region_emb.shape[1]}, as the "
            "detector's regions have: use the text tower of the teacher it was trained with"
        )
    rows = torch.cat([background_emb[None], text_emb.to(background_emb)])  # (1 + K, D)
    # tau = 0.01 turns bfloat16's error of a cosine, 0.004, into 0.4 of a logit.
    with torch.autocast(region_emb.device.type, enabled=False):
        return unit_rows(region_emb) @ unit_rows(rows).T / temperature


def text_loss(
    logits: Tensor, targets: Tensor, known: Tensor, *, novel: Literal["zero", "masked"] = "zero"
) -> Tensor:
    """Cross-entropy (R, 1 + K), (R,) -> scalar, in which novel classes cannot be right.

    Args:
        logits: of `text_logits`.
        targets: 0 for background, k + 1 for class k.
        known: (K,) bool, True for the classes that have boxes.
        novel: "zero" keeps the novel classes in the softmax with a logit of 0, as the official
            TensorFlow code does (it multiplies by 0); "masked" takes them out, as DetPro does.
    """
    filled = 0.0 if novel == "zero" else float("-inf")
    shown = F.pad(known, (1, 0), value=True)  # (1 + K,)
    return F.cross_entropy(logits.float().masked_fill(~shown, filled), targets)


def distillation_loss(image_emb: Tensor, teacher_emb: Tensor) -> Tensor:
    """L1 of unit rows (R, D), (R, D) -> scalar: summed over D, mean over R; 0 for no regions.

    Source: ViLD, equation 4. The official code multiplies a mean over D by D, which is the same.
    """
    return (unit_rows(image_emb) - teacher_emb).abs().sum() / max(1, len(teacher_emb))


def ensemble_geometric(text_prob: Tensor, image_prob: Tensor, base: Tensor) -> Tensor:
    """p_text^l * p_image^(1 - l), (R, K) each; l = 2/3 for base (K,), 1/3 for novel classes.

    Trust the text head where it was trained, the teacher elsewhere. The official code writes the
    same as a cube root of three factors.

    Source: ViLD, section 3.4.
    """
    power = torch.where(base, 2 / 3, 1 / 3)  # (K,)
    return text_prob**power * image_prob ** (1 - power)
