"""Pseudo-labels: what a model says that is told what is there, for a second round of training.

A model that has learned from captions places their nouns roughly. Told which of them a picture has,
looking at it in several sizes, and following the edges in it, it does so much better than it will
for a new picture. A second round learns these labels, pixel by pixel. They come from pictures and
captions, like everything before: no mask has been seen.

Source: training on one's own masks within the labels of a picture is how segmenters are commonly
made from image labels, as in Araslanov and Roth, arXiv:2005.08104, section 4, where edges are
followed in the same way.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cliplab.models.groupvit import GroupViT
from cliplab.pasture import LANGUAGES
from cliplab.segmentation import IGNORE, GroupViTSegmenter, refine, scaled_side
from cliplab.training.groupvit_criterion import noun_maps
from cliplab.training.groupvit_dataset import PROMPTS, GroupViTDataset, noun_names, noun_table
from cliplab.training.groupvit_model import patch_embeddings
from cliplab.training.pictures import Arrays, load_chunks, to_pixels

SCALES = (1.0, 1.33, 2.0)  # times the size of a picture
REFINE_STEPS = 20  # along the edges, see `refine`
_LEAST = 0.01  # a noun whose peak is lower is not there, and is not raised
_BATCH, _CHUNK = 25, 500  # pictures at a time, and in a file


def load_pseudo_labels(
    model: GroupViT, dataset: GroupViTDataset, folder: Path
) -> NDArray[np.uint8]:
    """A model's labels for a dataset; those in `folder` are kept, so that it can be interrupted.

    Returns:
        (N, S, S, 2) indices into `noun_names` of either language; `IGNORE` where none is said.
    """
    segmenter = GroupViTSegmenter(model, device=str(next(model.parameters()).device))
    noun_emb = {x: segmenter.embed(noun_names(x), PROMPTS[x]) for x in LANGUAGES}
    tables = {x: torch.from_numpy(noun_table(dataset, x).any(axis=1)) for x in LANGUAGES}

    def label(rows: slice) -> NDArray[np.uint8]:
        said = {language: table[rows] for language, table in tables.items()}
        return pseudo_labels(model, dataset.images[rows], noun_emb, said)

    def make(start: int, count: int) -> Arrays:
        stop = start + count
        rows = [slice(i, min(i + _BATCH, stop)) for i in range(start, stop, _BATCH)]
        return {"labels": np.concatenate([label(some) for some in rows])}

    return load_chunks(folder, "", len(dataset), make, size=_CHUNK, processes=1)["labels"]


@torch.no_grad()
def pseudo_labels(
    model: GroupViT,
    images: NDArray[np.uint8],
    noun_emb: Mapping[str, Tensor],
    said: Mapping[str, Tensor],
) -> NDArray[np.uint8]:
    """Which of the nouns that are said every pixel is: (B, S, S, 3) -> (B, S, S, languages).

    Probabilities of the patches among the nouns that are said, the mean over sizes of the picture,
    along its edges, each noun in proportion to its own peak: whatever is said is somewhere.

    Args:
        model: in eval mode.
        images: of the dataset.
        noun_emb: language -> (M, D) unit rows.
        said: language -> (B, M) bool.
    """
    config, device = model.config, next(model.parameters()).device
    size = images.shape[1], images.shape[2]
    picture = to_pixels(images, config.image_mean, config.image_std).to(device)
    maps: dict[str, Tensor] = {}
    for scale in SCALES:
        sides = [scaled_side(length, scale, config.patch_size) for length in size]
        groups = model.group(F.interpolate(picture, sides, mode="bicubic", antialias=True))
        patch_emb = patch_embeddings(model, groups)
        for language, emb in noun_emb.items():
            found = noun_maps(patch_emb, emb, model.scale())  # (B, P, M)
            found = found * said[language].to(device)[:, None]
            found = found / found.sum(dim=2, keepdim=True).clamp(min=1e-9)
            found = found.transpose(1, 2).unflatten(2, groups.grid)  # (B, M, rows, columns)
            found = F.interpolate(found, size, mode="bilinear")
            maps[language] = maps[language] + found if language in maps else found
    labels = [_labels(maps[x], said[x].to(device), picture) for x in noun_emb]
    return torch.stack(labels, dim=-1).byte().cpu().numpy()


def _labels(maps: Tensor, said: Tensor, picture: Tensor) -> Tensor:
    """Sums of maps (B, M, S, S), bool (B, M) -> the noun of every pixel, (B, S, S)."""
    most = max(1, int(said.sum(dim=1).max()))
    # The nouns that are said, and others where there are fewer than most: (B, m)
    nouns = said.float().argsort(dim=1, descending=True, stable=True)[:, :most]
    some = maps.gather(1, nouns[..., None, None].expand(-1, -1, *maps.shape[2:])) / len(SCALES)
    some = refine(some, picture, REFINE_STEPS)
    peak = F.avg_pool2d(some, 3, stride=1, padding=1).amax(dim=(2, 3), keepdim=True)
    best = (some / peak.clamp(min=_LEAST)).argmax(dim=1)  # (B, S, S)
    label = nouns.gather(1, best.flatten(1)).view_as(best)
    return label.where(said.any(dim=1)[:, None, None], IGNORE)
