"""Zero-shot accuracy on ImageNet by the protocol of the CLIP paper.

No words are copied: names and templates come from the installed `open_clip`, WordNet ids from
`timm`, which comes with it, so that whoever has those packages has the same protocol.

Source: CLIP, arXiv:2103.00020, section 3.1.4; OpenAI's notebook Prompt_Engineering_for_ImageNet.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplab.classification.metrics import binned, rate
from cliplab.classification.prompts import check_templates
from cliplab.classification.zero_shot import average_templates, encode_prompts
from cliplab.data import is_image_name, shown
from cliplab.encoders import EmbeddingCache, Encoder, embed_photos
from cliplab.runtime import ArgumentError, unknown_name

TOP = 5
BLOCK = 16  # classes whose prompts are embedded at a time

# ---- the words -----------------------------------------------------------------------------

# Classes that are easily mixed up: ids and names come from different packages.
_ANCHORS = {"n01440764": "tench", "n02012849": "crane bird", "n15075141": "toilet paper"}
SETS = {"openai80": "OPENAI_IMAGENET_TEMPLATES", "openai7": "SIMPLE_IMAGENET_TEMPLATES"}


@dataclass(frozen=True)
class Prompts:
    """K classes in the order of their index, and the T templates that each is put into."""

    name: str
    wnids: tuple[str, ...]  # WordNet ids, such as "n01440764"
    class_names: tuple[str, ...]
    templates: tuple[str, ...]  # with {} for the name
    source: str  # package and version

    def __len__(self) -> int:
        return len(self.class_names)


def read_prompts(*templates: str) -> Prompts:
    """ImageNet's class names with one of the template sets of `SETS`, or with other templates.

    Args:
        templates: the name of a set, default openai80; or texts with {} for the name of a class.

    Raises:
        ValueError: unknown set, or packages whose lists disagree.
        ImportError: open_clip is not installed.
    """
    try:
        words = import_module("open_clip.zero_shot_metadata")
        wnids = tuple(import_module("timm.data").ImageNetInfo().label_names())
    except ImportError as error:
        raise ImportError(
            f"the words of ImageNet come with open_clip ({error}); pip install open-clip-torch"
        ) from error
    name = " ".join(templates) or "openai80"
    if name in SETS:
        texts = [function("{}") for function in getattr(words, SETS[name])]
    elif any("{}" in text for text in templates):
        name, texts = "own", check_templates(templates)
    else:
        raise ValueError(unknown_name("template set", name, SETS))
    place = dict(zip(wnids, words.IMAGENET_CLASSNAMES, strict=True))
    source = f"open_clip_torch {importlib.metadata.version('open_clip_torch')}"
    for wnid, word in _ANCHORS.items():
        if place.get(wnid) != word:
            raise ValueError(
                f"{source}: class {wnid} is {place.get(wnid)!r}; expected {word!r}: this version "
                "orders or words the classes differently"
            )
    return Prompts(name, wnids, tuple(words.IMAGENET_CLASSNAMES), tuple(texts), source)


def classifier_of(
    encoder: Encoder,
    prompts: Prompts,
    cache: EmbeddingCache | None = None,
    *,
    progress: bool = False,
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised -> (K, D) unit rows.

    80 templates times 1,000 names are more than an hour on a laptop: finished classes are in the
    cache. Classes that share their name are welcome, as the protocol has some.
    """
    from tqdm import tqdm

    rows: list[Tensor] = []  # (D,)
    templates, starts = prompts.templates, range(0, len(prompts), BLOCK)
    for start in tqdm(starts, desc="prompts", disable=None if progress else True):
        names = prompts.class_names[start : start + BLOCK]
        keys = [_class_key(encoder, name, templates) for name in names] if cache else []
        kept = [row for key in keys if cache and (row := cache.get(key)) is not None]
        if len(kept) < len(names):
            kept = list(average_templates(encode_prompts(encoder, names, templates)))
            for key, row in zip(keys, kept, strict=False):
                cache.put(key, row)  # type: ignore[union-attr]  # no cache, no keys
        rows += kept
    return torch.stack(rows)


def _class_key(encoder: Encoder, name: str, templates: Sequence[str]) -> str:
    """Changes with the weights, every word, and how words are cut up."""
    ids = encoder.tokenizer([templates[0].replace("{}", name)]).tolist()
    text = repr(("class", encoder.fingerprint, name, tuple(templates), ids))
    return hashlib.sha256(text.encode()).hexdigest()


# ---- the pictures --------------------------------------------------------------------------

_LAYOUT = "DIR/val/n01440764/*.JPEG, one folder per WordNet id, or DIR/0 ... DIR/999 (ImageNetV2)"


@dataclass(frozen=True)
class ValidationSet:
    """N pictures with their class, sorted by class and name; nothing is opened to find them."""

    root: Path
    files: tuple[str, ...]  # relative to root, with /
    labels: tuple[int, ...]  # class index, 0 to K - 1
    notes: tuple[str, ...] = ()  # what differs from the whole set

    def __len__(self) -> int:
        return len(self.files)

    def spread(self, limit: int | None) -> ValidationSet:
        """At most `limit` pictures, evenly spread, so that every class keeps its share.

        Raises:
            ValueError: a limit below 1.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise ArgumentError("limit", f"got {limit}; expected 1 or more images")
        kept = [i * len(self) // limit for i in range(limit)]
        files, labels = tuple(self.files[i] for i in kept), tuple(self.labels[i] for i in kept)
        note = f"{limit:,} of {len(self):,} images, evenly spread"
        return ValidationSet(self.root, files, labels, (*self.notes, note))


def read_validation(data: Path, wnids: Sequence[str]) -> ValidationSet:
    """The pictures below `data`, sorted by class as torchvision and the benchmarks have them.

    Args:
        data: the folder of the classes, or one with `val` or ImageNet's own path to it.
        wnids: WordNet ids in the order of the class index.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no pictures, or a folder of no known class.
    """
    places = (data / "val", data / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    root = next((place for place in places if place.is_dir()), data)
    folders = [path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
    classes = {str(i): i for i in range(len(wnids))} | {wnid: i for i, wnid in enumerate(wnids)}
    if not any(re.fullmatch(r"n\d{8}|\d+", name) for name in folders):
        raise ValueError(f"{shown(root)}: no classes of ImageNet; expected {_LAYOUT}")
    if unknown := sorted(name for name in folders if name not in classes):
        raise ValueError(
            f"{shown(root / unknown[0])}: {len(unknown)} of {len(folders)} folders are no class of "
            "ImageNet's 1,000; expected WordNet ids such as n01440764, or 0 to 999: move the others"
        )
    found = sorted((classes[f], f"{f}/{name}") for f in folders for name in _images(root / f))
    if not found:
        raise ValueError(f"{shown(root)}: no images of ImageNet; expected {_LAYOUT}")
    labels, files = zip(*found, strict=True)
    present = len(set(labels))
    note = f"pictures of {present:,} classes only, judged among all {len(wnids):,}"
    return ValidationSet(root, files, labels, (note,) if present < len(wnids) else ())


def _images(folder: Path) -> list[str]:
    """Names of the image files directly in one folder."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return [name for name in names if is_image_name(name) and name[0] != "."]


# ---- the result ----------------------------------------------------------------------------


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one: (M, K), (M,) -> (M,), 0 = it is the answer.

    Equal logits count in the order of the classes, so that the answer is the same everywhere:
    ImageNet's edited names hold "sunglasses" twice.
    """
    true = logits.gather(1, labels[:, None])  # (M, 1)
    earlier = torch.arange(logits.shape[1]) < labels[:, None]  # (M, K)
    return ((logits > true) | ((logits == true) & earlier)).sum(dim=1)


def evaluate(
    encoder: Encoder,
    prompts: Prompts,
    pictures: ValidationSet,
    *,
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Judge the pictures by the words -> the result, for JSON.

    Pictures that could not be read count as wrong: n is what the folder holds, and a model gets no
    credit for what it was not shown; "readable" has the rates among the others. With a cache, the
    same call goes on where it was stopped.

    Deviates: pictures are turned as their EXIF says, which OpenAI's notebook does not do.
    """
    classifier = classifier_of(encoder, prompts, cache, progress=progress)
    start, paths = time.perf_counter(), [pictures.root / file for file in pictures.files]
    found = embed_photos(encoder, paths, batch_size=batch_size, cache=cache, progress=progress)
    logits = encoder.logit_scale * found.image_emb @ classifier.T  # (M, K)
    seconds = time.perf_counter() - start
    names, templates = dict(zip(paths, pictures.files, strict=True)), len(prompts.templates)
    labels = np.array(pictures.labels)
    rank, top = np.full(len(labels), len(prompts)), np.full(len(labels), -1)  # of what is unread
    rank[found.kept] = ranks(logits, torch.from_numpy(labels[found.kept])).numpy()
    top[found.kept] = logits.argsort(dim=1, descending=True, stable=True)[:, 0].numpy()
    return {
        "benchmark": "imagenet",
        "split": "val",
        "images": len(pictures),
        "classes": len(prompts),
        "classes_with_images": len(set(pictures.labels)),
        "partial": list(pictures.notes),
        **_rates(rank, labels, logits, found.kept),
        "unreadable": {names[e.path]: f"{e.cause}; {e.remedy}" for e in found.unreadable},
        "seconds": round(seconds, 3),
        "images_per_second": round(len(found.kept) / seconds, 2) if seconds else None,
        "cached": cache is not None,
        "prompts": {"name": prompts.name, "templates": templates, "source": prompts.source},
        "per_class": list(_per_class(prompts, labels, rank, top)),
    }


def _rates(
    rank: np.ndarray, labels: np.ndarray, logits: Tensor, kept: Sequence[int]
) -> dict[str, Any]:
    """Rates of all N pictures, and of the M that could be read; logits are (M, K)."""
    confidence = logits.softmax(dim=1).amax(dim=1).double().numpy()  # (M,)
    recalls = [(rank[labels == k] < 1).mean() for k in np.unique(labels)]
    few = rank[kept]  # (M,)
    error = round(binned(confidence, few < 1, 15).error, 4) if kept else None
    found = {
        "top1": rate(rank < 1).as_dict(),
        "top5": rate(rank < TOP).as_dict(),
        "mean_class_recall": round(float(np.mean(recalls)), 4),
        "calibration_error": error,
    }
    if 0 < len(few) < len(rank):
        read = {"top1": rate(few < 1).as_dict(), "top5": rate(few < TOP).as_dict()}
        found["readable"] = read
    return found


def _per_class(
    prompts: Prompts, labels: np.ndarray, rank: np.ndarray, top: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Each class that has pictures: how many were right, and what the others were taken for."""
    for k in np.unique(labels).tolist():
        mine = rank[labels == k]
        wrong = Counter(top[(labels == k) & (rank > 0) & (top >= 0)].tolist())
        taken, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=(None, 0))
        yield {
            "wnid": prompts.wnids[k],
            "name": prompts.class_names[k],
            "n": len(mine),
            "top1": int((mine < 1).sum()),
            "top5": int((mine < TOP).sum()),
            "taken_for": None if taken is None else prompts.class_names[taken],
            "taken_for_times": times,
        }
