"""What a batch of pictures and captions teaches: texts as ids, and the losses of either recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.groupvit import GroupViT
from cliplab.models.losses import at_least_float32, clip_loss
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.pasture.captions import LANGUAGES
from cliplab.training.groupvit_dataset import PROMPTS, Batch, noun_names, to_pixels
from cliplab.training.groupvit_losses import (
    agreement_loss,
    answers_loss,
    best_segment_loss,
    explanation_loss,
    noun_maps,
    ownership,
    padded_nouns,
    presence_loss,
)
from cliplab.training.groupvit_model import patch_embeddings

if TYPE_CHECKING:
    from cliplab.training.groupvit import Recipe


class Lesson:
    """Texts of a step as ids, and the loss that a recipe makes of them."""

    def __init__(self, model: GroupViT, recipe: Recipe, device: torch.device) -> None:
        self.model, self.recipe, self.device = model, recipe, device
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
        taught = patch_embeddings(self.model, groups) if recipe.patches else segment_emb
        for language, noun_emb in zip(LANGUAGES, noun_embs, strict=True):
            said = batch.nouns[language].to(self.device)
            maps = noun_maps(taught, noun_emb, scale, None if recipe.patches else owned)
            parts[f"presence {language}"] = presence_loss(maps, said, share=recipe.share)
            if batch.answers is None:
                parts[f"explanation {language}"] = explanation_loss(maps, said)
            else:
                answers = torch.from_numpy(batch.answers[..., LANGUAGES.index(language)])
                parts[f"answers {language}"] = answers_loss(
                    maps, answers.to(self.device), groups.grid
                )
            if recipe.patches and owned is not None:
                named = noun_maps(segment_emb, noun_emb, scale)
                parts[f"agreement {language}"] = agreement_loss(owned, maps, named)
        return parts

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


def _unit(feature: Tensor) -> Tensor:
    return F.normalize(at_least_float32(feature), dim=-1)
