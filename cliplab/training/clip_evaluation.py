"""What a CLIP knows of the pasture: all numbers of its model card, on pictures never trained on."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplab import classification, pasture
from cliplab.encoders import Encoder

# Consecutive seeds of the test split, far enough apart that no two sets share a picture.
_STARTS = {"seen": 0, "triples": 100_000, "sheep lying": 200_000, "horse eating": 300_000,
           "crops": 400_000, "retrieval": 500_000}  # fmt: skip
SETS = tuple(_STARTS)[:5]


@lru_cache(maxsize=8)
def held_out_pictures(name: str, count: int) -> pasture.Pictures:
    """One of the five test sets, `SETS`."""
    if name == "crops":
        return pasture.crops("test", count, start=_STARTS[name])
    combos = {
        "seen": pasture.SEEN_COMBOS,
        "triples": pasture.HELD_OUT_TRIPLES,
        "sheep lying": [c for c in pasture.PAIR_COMBOS if c.species == "sheep"],
        "horse eating": [c for c in pasture.PAIR_COMBOS if c.species == "horse"],
    }[name]
    return pasture.portraits("test", count, start=_STARTS[name], combos=combos)


def classify(encoder: Encoder, image_emb: Tensor, pictures: pasture.Pictures, *, language: str,
           wording: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """Three questions of growing difficulty about pictures whose embeddings (N, D) are given.

    Which of 5 species, which of 4 postures (the species being known), which of all 80 kinds.
    """
    combos = [e.combo for e in pictures.examples]
    species = np.array([pasture.SPECIES.index(c.species) for c in combos])
    posture = np.array([pasture.POSTURES.index(c.posture) for c in combos])
    joint = np.array([pasture.COMBOS.index(c) for c in combos])

    def classifier(kinds: list[dict[str, str]]) -> Tensor:
        names = [pasture.class_phrase(**kind, language=language) for kind in kinds]
        return classification.build_classifier(encoder, names, wording)  # (K, D)

    by_species = image_emb @ classifier([{"species": s} for s in pasture.SPECIES]).T  # (N, 5)
    pairs = classifier(
        [{"species": s, "posture": p} for s in pasture.SPECIES for p in pasture.POSTURES]
    )
    by_pair = (image_emb @ pairs.T).unflatten(1, (-1, len(pasture.POSTURES)))  # (N, 5, 4)
    by_posture = by_pair[torch.arange(len(combos)), torch.from_numpy(species)].argmax(1)  # (N,)
    by_combo = image_emb @ classifier([c._asdict() for c in pasture.COMBOS]).T  # (N, 80)
    return {
        "species": classification.accuracy(by_species.argmax(1), species).as_dict(),
        "posture": classification.accuracy(by_posture, posture).as_dict(),
        "joint": classification.accuracy(by_combo.argmax(1), joint).as_dict(),
    }


def retrieval(encoder: Encoder, language: str, count: int = 256) -> dict[str, Any]:
    """Caption retrieval among `count` test portraits whose full captions are all different."""
    pictures, texts = _distinct(language, count)
    image_emb, text_emb = encoder.encode_image(pictures), encoder.encode_text(texts)
    similarity, match = image_emb @ text_emb.T, torch.eye(count, dtype=torch.bool)
    return {
        "candidates": count,
        "image_to_text_r1": classification.recall_at_k(similarity, match).as_dict(),
        "image_to_text_r5": classification.recall_at_k(similarity, match, 5).as_dict(),
        "text_to_image_r1": classification.recall_at_k(similarity.T, match).as_dict(),
    }


def _distinct(language: str, count: int) -> tuple[list, list[str]]:
    drawn = pasture.portraits("test", 2 * count, start=_STARTS["retrieval"])
    kept: dict[str, Any] = {}
    for image, example in zip(drawn.pil(), drawn.examples, strict=True):
        kept.setdefault(pasture.caption(example.scene, language, facts="all"), image)
    texts = list(kept)[:count]
    return [kept[t] for t in texts], texts


def evaluate(encoder: Encoder, language: str, *, count: int = 2000) -> dict[str, Any]:
    """All metrics of a model card; `count` pictures, half as many of the pairs and the crops."""
    report: dict[str, Any] = {"language": language}
    sizes = {"seen": count, "triples": count, "sheep lying": count // 2,
             "horse eating": count // 2, "crops": count // 2}  # fmt: skip
    wordings = {"bare": ("{}",), "ensemble": classification.templates("pasture", language)}
    for name, size in sizes.items():
        pictures = held_out_pictures(name, size)
        image_emb = encoder.encode_image(pictures.pil())
        report[name] = {
            label: classify(encoder, image_emb, pictures, language=language, wording=chosen)
            for label, chosen in wordings.items()
        }
    report["retrieval"] = retrieval(encoder, language)
    return report
