"""What a batch of pictures and captions teaches: texts as ids, and the losses of either recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.losses import at_least_float32, clip_loss
from cliplab.models.groupvit import Groups, GroupViT
from cliplab.pasture.captions import LANGUAGES
from cliplab.recipes.groupvit_losses import (
    agreement_loss,
    answers_loss,
    best_segment_loss,
    explanation_loss,
    noun_maps,
    ownership,
    padded_nouns,
    presence_loss,
)
from cliplab.recipes.groupvit_pool import PROMPTS, Batch, noun_names, to_pixels
from cliplab.segmentation.segmenter import scaled_side
from cliplab.tokenizers import WordPieceTokenizer

if TYPE_CHECKING:
    from cliplab.recipes.groupvit import Recipe

SCALES = (1.0, 1.33, 2.0)  # times the size of a picture, at which a teacher looks at it


class Lesson:
    """Texts of a step as ids, and the loss that a recipe makes of them.

    With a teacher, a model that has learned already, patches learn its answers and not the captions
    themselves. It looks at a picture at several scales, where it sees finer than its student.
    """

    def __init__(
        self,
        model: GroupViT,
        recipe: Recipe,
        device: torch.device,
        teacher: GroupViT | None = None,
    ) -> None:
        self.model, self.recipe, self.device, self.teacher = model, recipe, device, teacher
        self.tokenizer = WordPieceTokenizer(list(model.vocab), model.config.context_length)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Every loss of a batch, a scalar each, already weighted: their sum is minimised."""
        config = self.model.config
        pixels = to_pixels(batch.images, config.image_mean, config.image_std).to(self.device)
        generator = np.random.default_rng([self.recipe.seed, step, 1])
        if self.recipe.recipe == "paper":
            return self._paper(batch, pixels, generator)
        return self._small_world(batch, pixels, generator)

    def _small_world(
        self, batch: Batch, pixels: Tensor, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        groups = self.model.group(pixels)
        image_emb, segment_emb = (_unit(e) for e in self.model.encode_groups(groups))
        if not recipe.multi_label:
            caption_emb = self._embed(batch.captions)
            return {"caption": best_segment_loss(segment_emb, caption_emb, self.model.scale())}
        nouns = {lang: self._prompted(noun_names(lang), lang, generator) for lang in LANGUAGES}
        sizes = [len(batch.captions), *(len(some) for some in nouns.values())]
        text_emb = self._embed([*batch.captions, *(t for some in nouns.values() for t in some)])
        caption_emb, *noun_embs = text_emb.split(sizes)
        caption = clip_loss(image_emb, caption_emb, self.model.scale())
        parts = {"caption": recipe.caption_weight * caption}
        scale, owned = self.model.scale(), ownership(groups)
        taught = _patches(self.model, groups) if recipe.stages and recipe.patches else segment_emb
        answers = self._answers(pixels, nouns) if self.teacher else {}
        for language, noun_emb in zip(LANGUAGES, noun_embs, strict=True):
            said = batch.nouns[language].to(self.device)
            maps = noun_maps(taught, noun_emb, scale, None if recipe.patches else owned)
            if answers:
                parts[f"answers {language}"] = answers_loss(maps, answers[language], said)
            else:
                parts[f"presence {language}"] = presence_loss(maps, said, share=recipe.share)
                parts[f"explanation {language}"] = explanation_loss(maps, said)
            if recipe.patches and owned is not None:
                named = noun_maps(segment_emb, noun_emb, scale)
                parts[f"agreement {language}"] = agreement_loss(owned, maps, named)
        return parts

    @torch.no_grad()
    def _answers(self, pixels: Tensor, nouns: dict[str, list[str]]) -> dict[str, Tensor]:
        """What the teacher's patches are, (B, P, M) a language: the mean of `SCALES`."""
        assert self.teacher is not None
        height, width = pixels.shape[2:]
        noun_emb = {lang: _unit(self.teacher.encode_text(self._ids(nouns[lang]))) for lang in nouns}
        found: dict[str, list[Tensor]] = {language: [] for language in nouns}
        for scale in SCALES:
            size = [scaled_side(x, scale, self.model.config.patch_size) for x in (height, width)]
            seen = F.interpolate(pixels, size, mode="bicubic", antialias=True)
            groups = self.teacher.group(seen if scale != 1 else pixels)
            patch_emb = _patches(self.teacher, groups)
            for language, emb in noun_emb.items():
                maps = noun_maps(patch_emb, emb, self.teacher.scale())
                found[language].append(_resized(maps, groups.grid, (height, width), self.model))
        return {language: torch.stack(some).mean(dim=0) for language, some in found.items()}

    def _paper(
        self, batch: Batch, pixels: Tensor, generator: np.random.Generator
    ) -> dict[str, Tensor]:
        texts = [[caption] for caption in batch.captions]
        if self.recipe.multi_label:
            nouns = padded_nouns(batch.own_nouns, 3, "")
            for row, some in zip(texts, nouns, strict=True):
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
        return _unit(self.model.encode_text(self._ids(texts)))


def _patches(model: GroupViT, groups: Groups) -> Tensor:
    """Patches in the space of texts before they are grouped, (B, P, D), of any length."""
    return model.img_projector(model.img_encoder.norm(groups.patch_tok))


def _resized(maps: Tensor, grid: tuple[int, int], size: tuple[int, int], model: GroupViT) -> Tensor:
    """Maps (B, P', M) of one grid of patches -> those of a picture of `size` px, (B, P, M)."""
    patch = model.config.patch_size
    image = maps.transpose(1, 2).unflatten(2, grid)  # (B, M, rows, columns)
    return (
        F.interpolate(image, (size[0] // patch, size[1] // patch), mode="area")
        .flatten(2)
        .transpose(1, 2)
    )


def _unit(feature: Tensor) -> Tensor:
    return F.normalize(at_least_float32(feature), dim=-1)
