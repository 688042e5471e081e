"""What captions teach of segments: GroupViT's losses here, and what a recipe makes of them.

Letters in shape comments: B pictures, G segments (groups, or patches where nothing is grouped),
P patches, M nouns, D embedding.

Two recipes. The paper's compares whole pictures with texts: the mean of a picture's groups with its
caption and with prompted nouns of it. The one of the small world asks every patch which noun it is,
with two losses that images of captions alone can answer: a noun that is said must be somewhere
(`presence_loss`), and a patch must be something that is said (`explanation_loss`).
"""

import math
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.groupvit import Groups, GroupViT
from cliplab.models.layers import at_least_float32, unit_rows
from cliplab.models.losses import clip_loss
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.pasture import LANGUAGES
from cliplab.segmentation import IGNORE
from cliplab.training.groupvit_dataset import PROMPTS, GroupViTBatch, noun_names
from cliplab.training.groupvit_model import GroupViTRecipe, patch_embeddings
from cliplab.training.pictures import to_pixels

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

    A softmax over the nouns, per segment of any length (its cosines count); a patch has the mean
    over the groups that own it, (B, G, P), see `ownership`. `scale` is 1 / temperature.
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

    Binary cross-entropy of each noun's mean over the patches where it is likeliest, a `share` of
    all (0 to 1) and at least one. Multiple instance learning: who knows only what is in a picture,
    and not where, can ask for no more. A mean over more than a small thing has asks every noun to
    grow, and animals flood the meadow that they stand in.

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


def pseudo_label_loss(maps: Tensor, labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches say what the pseudo-labels say: (B, P, M), (B, H, W) -> scalar in nats.

    Cross-entropy of the nouns of every pixel, where those of patches are interpolated. A noun
    counts as the square root of its pixels in the batch: by their number, only grass would matter.
    Labels are uint8 indices of nouns, `IGNORE` where there is none; `grid`: rows and columns.
    """
    image = maps.transpose(1, 2).unflatten(2, grid).contiguous()  # (B, M, rows, columns)
    image = F.interpolate(image, labels.shape[1:], mode="bilinear")
    logs = image.clamp(min=_LEAST).log()
    found = labels[labels != IGNORE].long()
    pixels = torch.bincount(found, minlength=maps.shape[2]).clamp(min=1)  # (M,)
    return F.nll_loss(logs, labels.long(), pixels.float().rsqrt(), ignore_index=IGNORE)


def agreement_loss(owned: Tensor, patch_maps: Tensor, group_maps: Tensor) -> Tensor:
    """A group says what its patches say: (B, G, P), (B, P, M), (B, G, M) -> scalar in nats.

    Cross-entropy of the nouns of a group's patches and the nouns of the group, weighted with how
    much it owns. It is H(noun | group), which is 0 if no group is a mixture, plus how far the names
    of groups are from what is in them; so it teaches names and ownership. Patches learn nothing
    from it.

    Groups that learn names from captions directly can cheat, for they have seen the whole picture:
    where a sky is said, the meadow may be called sky as well. A patch sees no farther than its
    surroundings, and what it calls sky it calls so in every picture.

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


class _Seen(NamedTuple):
    """What a model makes of the pictures of a batch."""

    taught: Tensor  # (B, P or G, D), what learns nouns from captions
    segments: Tensor  # (B, G, D) unit rows
    owned: Tensor | None  # (B, G, P), see `ownership`
    grid: tuple[int, int]  # rows and columns of the patches


class Criterion:
    """Texts of a step as ids, and the loss that a recipe makes of them."""

    def __init__(self, model: GroupViT, recipe: GroupViTRecipe, device: torch.device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
        self.tokenizer = WordPieceTokenizer(list(model.vocab), model.config.context_length)

    def losses(self, batch: GroupViTBatch, step: int) -> dict[str, Tensor]:
        """Every loss of a batch, a scalar each, already weighted: their sum is minimised."""
        config = self.model.config
        pixels = to_pixels(batch.images, config.image_mean, config.image_std).to(self.device)
        generator = np.random.default_rng([self.recipe.seed, step, 1])
        if self.recipe.recipe == "paper":
            return self._paper(batch, pixels, generator)
        return self._small_world(batch, pixels, generator)

    def _small_world(
        self, batch: GroupViTBatch, pixels: Tensor, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        groups = self.model.group(pixels)
        image_emb, segment_emb = (unit_rows(e) for e in self.model.encode_groups(groups))
        if not recipe.multi_label:
            caption_emb = self._embed(batch.captions)
            return {"caption": best_segment_loss(segment_emb, caption_emb, self.model.scale())}
        nouns = {lang: self._prompted(noun_names(lang), lang, generator) for lang in LANGUAGES}
        sizes = [len(batch.captions), *(len(some) for some in nouns.values())]
        text_emb = self._embed([*batch.captions, *(t for some in nouns.values() for t in some)])
        caption_emb, *noun_embs = text_emb.split(sizes)
        caption = clip_loss(image_emb, caption_emb, self.model.scale())
        parts = {"caption": recipe.caption_weight * caption}
        taught = patch_embeddings(self.model, groups) if recipe.patches else segment_emb
        seen = _Seen(taught, segment_emb, ownership(groups), groups.grid)
        for language, noun_emb in zip(LANGUAGES, noun_embs, strict=True):
            parts |= self._noun_losses(batch, seen, noun_emb, language)
        return parts

    def _noun_losses(
        self, batch: GroupViTBatch, seen: _Seen, noun_emb: Tensor, language: str
    ) -> dict[str, Tensor]:
        """Which noun is where, in one language."""
        recipe, scale = self.recipe, self.model.scale()
        said = batch.nouns[language].to(self.device)
        maps = noun_maps(seen.taught, noun_emb, scale, None if recipe.patches else seen.owned)
        parts = {f"presence {language}": presence_loss(maps, said, share=recipe.share)}
        if batch.pseudo_labels is None:
            parts[f"explanation {language}"] = explanation_loss(maps, said)
        else:
            labels = torch.from_numpy(batch.pseudo_labels[..., LANGUAGES.index(language)])
            loss = pseudo_label_loss(maps, labels.to(self.device), seen.grid)
            parts[f"pseudo-labels {language}"] = loss
        if recipe.patches and seen.owned is not None:
            named = noun_maps(seen.segments, noun_emb, scale)
            parts[f"agreement {language}"] = agreement_loss(seen.owned, maps, named)
        return parts

    def _paper(
        self, batch: GroupViTBatch, pixels: Tensor, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        texts = [[caption] for caption in batch.captions]
        if self.recipe.multi_label:  # which wants as many nouns of each caption: in turn
            for row, own in zip(texts, batch.own_nouns, strict=True):
                some = list(islice(cycle(own or [""]), 3))
                language = LANGUAGES[int(any(not noun.isascii() for noun in some))]
                row += self._prompted(some, language, generator)
        ids = self._ids([text for row in texts for text in row])
        caption, multi_label = self.model.losses(pixels, ids.unflatten(0, (len(texts), -1)))
        parts = {"caption": caption}
        return {**parts, "multi-label": multi_label} if self.recipe.multi_label else parts

    def _prompted(
        self, nouns: tuple[str, ...] | list[str], language: str, generator: np.random.Generator
    ) -> list[str]:
        """Nouns in one prompt, drawn for the step."""
        prompt = PROMPTS[language][generator.integers(len(PROMPTS[language]))]
        return [prompt.format(noun) for noun in nouns]

    def _ids(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts)
        return ids[:, : int((ids != 0).sum(dim=1).max())].to(self.device)

    def _embed(self, texts: list[str]) -> Tensor:
        return unit_rows(self.model.encode_text(self._ids(texts)))
