"""Zero-shot accuracy on ImageNet by the protocol of the CLIP paper.

Source: CLIP, arXiv:2103.00020, section 3.1.4; OpenAI's notebook Prompt_Engineering_for_ImageNet.
"""

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplab.classification.imagenet_data import (
    Prompts as Prompts,
    ValidationSet as ValidationSet,
    read_prompts as read_prompts,
    read_validation as read_validation,
    synsets as synsets,
)
from cliplab.classification.metrics import binned, rate
from cliplab.classification.prompts import READABLE, PromptReader
from cliplab.classification.zero_shot import average_templates, encode_prompts
from cliplab.encoders import EmbeddingCache, Encoder, embed_photos

TOP = 5
BLOCK = 16  # classes whose prompts are embedded at a time


def classifier_of(
    encoder: Encoder,
    prompts: Prompts,
    cache: EmbeddingCache | None = None,
    *,
    truncate: bool = False,
    progress: bool = False,
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised -> (K, D) unit rows.

    80 templates times 1,000 names are more than an hour on a laptop: finished classes are in the
    cache. Classes that share their name are welcome, as the protocol has some.

    Raises:
        ValueError: a prompt longer than the context, unless `truncate`.
    """
    from tqdm import tqdm

    rows: list[Tensor] = []  # (D,)
    templates, starts = prompts.templates, range(0, len(prompts), BLOCK)
    for start in tqdm(starts, desc="prompts", disable=None if progress else True):
        names = prompts.class_names[start : start + BLOCK]
        keys = [_class_key(encoder, name, templates, truncate) for name in names] if cache else []
        kept = [row for key in keys if cache and (row := cache.get(key)) is not None]
        if len(kept) < len(names):
            emb = encode_prompts(encoder, names, templates, truncate=truncate)  # (k, T, D)
            kept = list(average_templates(emb))
            for key, row in zip(keys, kept, strict=False):
                cache.put(key, row)  # type: ignore[union-attr]  # no cache, no keys
        rows += kept
    return torch.stack(rows)


def _class_key(encoder: Encoder, name: str, templates: Sequence[str], truncate: bool) -> str:
    """Changes with the weights, every word, and how words are cut up."""
    ids = encoder.tokenizer([templates[0].replace("{}", name)], truncate=truncate).tolist()
    text = repr(("class", encoder.fingerprint, name, tuple(templates), truncate, ids))
    return hashlib.sha256(text.encode()).hexdigest()


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one: (M, K), (M,) -> (M,), 0 = it is the answer.

    Equal logits count in the order of the classes, so that the answer is the same everywhere:
    ImageNet's edited names hold "sunglasses" twice.
    """
    true = logits.gather(1, labels[:, None])  # (M, 1)
    earlier = torch.arange(logits.shape[1]) < labels[:, None]  # (M, K)
    return ((logits > true) | ((logits == true) & earlier)).sum(dim=1)


def notes_of(encoder: Encoder, prompts: Prompts) -> Iterator[str]:
    """What should be known of the words and this encoder, before the long work."""
    if prompts.language not in encoder.languages and encoder.languages:
        read = "/".join(encoder.languages)
        yield f"the prompts are {prompts.language!r}, the captions of the encoder were {read!r}"
    reader = PromptReader.of(encoder)
    unread = [name for name in prompts.class_names if reader.coverage(name) < READABLE]
    if unread:  # even the right encoder has some: Chinese-CLIP lacks both characters of "lynx"
        yield (
            f"the encoder cannot read {len(unread):,} of {len(prompts):,} class names: "
            f"{', '.join(unread[:8])}{', ...' if len(unread) > 8 else ''}"
        )
    places: dict[str, list[int]] = {}
    for i, name in enumerate(prompts.class_names):
        places.setdefault(name.casefold(), []).append(i)
    for same in (some for some in places.values() if len(some) > 1):
        name, wnids = prompts.class_names[same[0]], ", ".join(prompts.wnids[i] for i in same)
        yield f"{name!r} is the name of several classes ({wnids}); only the first can win"


def evaluate(
    encoder: Encoder,
    prompts: Prompts,
    pictures: ValidationSet,
    *,
    split: str = "val",
    truncate: bool = False,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Judge the pictures by the words -> the result and how it came about, for JSON.

    Pictures that could not be read count as wrong: n is what the folder holds, and a model gets no
    credit for what it was not shown; "readable" has the rates among the others. With a cache, the
    same call goes on where it was stopped.

    Deviates: pictures are turned as their EXIF says, which OpenAI's notebook does not do.
    """
    classifier = classifier_of(encoder, prompts, cache, truncate=truncate, progress=progress)
    start, paths = time.perf_counter(), [pictures.root / file for file in pictures.files]
    found = embed_photos(encoder, paths, batch_size=batch_size, cache=cache, progress=progress)
    logits = encoder.logit_scale * found.image_emb @ classifier.T  # (M, K)
    seconds, partial = time.perf_counter() - start, list(pictures.notes)
    if len(prompts) != 1000:
        partial.append(f"judged among {len(prompts):,} classes only, not ImageNet's 1,000")
    names = dict(zip(paths, pictures.files, strict=True))
    judged = _judged(prompts, np.array(pictures.labels), logits, found.kept)
    last = {key: judged.pop(key) for key in ("per_class", "readable") if key in judged}
    return {
        "benchmark": "imagenet",
        "split": split,
        "images": len(pictures),
        "classes": len(prompts),
        "classes_with_images": len(set(pictures.labels)),
        "partial": partial,
        **judged,
        "unreadable": {names[e.path]: f"{e.cause}; {e.remedy}" for e in found.unreadable},
        "seconds": round(seconds, 3),
        "images_per_second": round(len(found.kept) / seconds, 2) if seconds else None,
        "cached": cache is not None,
        **_record(encoder, prompts),
        "notes": list(notes_of(encoder, prompts)),
    } | last


def _record(encoder: Encoder, prompts: Prompts) -> dict[str, Any]:
    """By what the pictures are judged, so that somebody else can do the same."""
    from cliplab import __version__

    return {
        "encoder": {
            "name": encoder.name,
            "fingerprint": encoder.fingerprint,
            "precision": encoder.precision,
            "logit_scale": round(encoder.logit_scale, 4),
            "provenance": dict(encoder.provenance),
        },
        "prompts": {
            "name": prompts.name,
            "templates": len(prompts.templates),
            "language": prompts.language,
            "source": prompts.source,
        },
        "software": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cliplab": __version__,
        },
    }


def _judged(
    prompts: Prompts, labels: np.ndarray, logits: Tensor, kept: list[int]
) -> dict[str, Any]:
    """Rates of all N pictures, of the M that could be read, and of each class."""
    rank = np.full(len(labels), len(prompts))  # (N,), K where it could not be read
    rank[kept] = ranks(logits, torch.from_numpy(labels[kept])).numpy()
    top = np.full(len(labels), -1)
    top[kept] = logits.argsort(dim=1, descending=True, stable=True)[:, 0].numpy()
    of_class = {k: rank[labels == k] for k in np.unique(labels).tolist()}
    confidence = logits.softmax(dim=1).amax(dim=1).double().numpy()  # (M,)
    right = (rank < 1)[kept]
    judged = {
        "top1": rate(rank < 1).as_dict(),
        "top5": rate(rank < TOP).as_dict(),
        "mean_class_recall": round(float(np.mean([(r < 1).mean() for r in of_class.values()])), 4),
        "calibration_error": round(binned(confidence, right, 15).error, 4) if kept else None,
    }
    if 0 < len(kept) < len(labels):
        few = {"top1": rate(right), "top5": rate((rank < TOP)[kept])}
        judged["readable"] = {key: value.as_dict() for key, value in few.items()}
    rows = []
    for k, mine in of_class.items():
        wrong = Counter(top[(labels == k) & (rank > 0) & (top >= 0)].tolist())
        taken, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=(None, 0))
        rows.append(
            {
                "wnid": prompts.wnids[k],
                "name": prompts.class_names[k],
                "n": len(mine),
                "top1": int((mine < 1).sum()),
                "top5": int((mine < TOP).sum()),
                "taken_for": None if taken is None else prompts.class_names[taken],
                "taken_for_times": times,
            }
        )
    return judged | {"per_class": rows}
