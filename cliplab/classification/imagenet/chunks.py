"""A long evaluation in chunks: each is one file, written whole.

Chunk c is pictures c * CHUNK to (c + 1) * CHUNK of the sorted list. A run that was killed goes on
where a file is missing.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.classification.imagenet.dataset import ValidationSet
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import write_json

CHUNK = 512  # pictures: what an interruption loses at most, 25 s at 20 images/s
TOP = 5


# ---- one chunk -----------------------------------------------------------------------------


def measure(
    encoder: Encoder,
    pictures: ValidationSet,
    which: Sequence[int],
    classifier: Tensor,
    *,
    batch_size: int = 64,
    cache: Any = None,
) -> dict[str, Any]:
    """Judge pictures `which` (N of them) with a classifier (K, D) -> columns, for JSON.

    Returns:
        label, rank of the right class (0 = first; K where the picture could not be read), top: the
        first five classes, confidence: probability of the first; one entry per picture. unreadable:
        file -> why. seconds: of reading and encoding. cached: whether a cache was asked.

    Deviates: pictures are turned as their EXIF says, which OpenAI's notebook does not do.
    """
    from cliplab.encoders.embeddings import embed_photos

    start = time.perf_counter()
    paths = [pictures.path(i) for i in which]
    found = embed_photos(encoder, paths, batch_size=batch_size, cache=cache)
    logits = encoder.logit_scale * found.image_emb @ classifier.T  # (M, K)
    seconds = time.perf_counter() - start
    labels = torch.tensor([pictures.labels[i] for i in which])  # (N,)
    kept = torch.tensor(found.kept, dtype=torch.long)  # (M,) places in `which`
    classes = len(classifier)
    rank = torch.full((len(labels),), classes)
    rank[kept] = ranks(logits, labels[kept])
    top: list[list[int]] = [[] for _ in labels]
    confidence = [0.0] * len(labels)
    best = logits.argsort(dim=1, descending=True, stable=True)[:, :TOP].tolist()
    shares = logits.softmax(dim=1).amax(dim=1).tolist() if len(logits) else []
    for place, five, share in zip(found.kept, best, shares, strict=True):
        top[place], confidence[place] = five, share
    missing = sorted(set(range(len(labels))) - set(found.kept))
    reasons = zip(missing, found.unreadable, strict=True)
    return {
        "label": labels.tolist(),
        "rank": rank.tolist(),
        "top": top,
        "confidence": confidence,
        "unreadable": {
            pictures.files[which[i]]: f"{error.cause}; {error.remedy}" for i, error in reasons
        },
        "seconds": seconds,
        "cached": cache is not None,
    }


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one: (M, K), (M,) -> (M,), 0 = it is the answer.

    Equal logits count in the order of the classes, so that the answer is the same everywhere:
    ImageNet's edited names hold "sunglasses" twice.
    """
    true = logits.gather(1, labels[:, None])  # (M, 1)
    earlier = torch.arange(logits.shape[1]) < labels[:, None]  # (M, K)
    return ((logits > true) | ((logits == true) & earlier)).sum(dim=1)


# ---- the folder ----------------------------------------------------------------------------


@dataclass(frozen=True)
class RunFolder:
    """Where the chunks of one evaluation lie, and what that evaluation is."""

    path: Path
    plan: Mapping[str, Any]  # {"identity": what must agree, "images", "chunk", and what to report}

    @classmethod
    def start(cls, path: Path, plan: Mapping[str, Any]) -> "RunFolder":
        """A new folder, or one that holds a part of the same evaluation.

        Raises:
            ValueError: the folder holds another evaluation.
        """
        if (path / "run.json").exists():
            cls.open(path)._refuse_other(plan)
        else:
            write_json(path / "run.json", dict(plan))
        return cls(path, plan)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The evaluation that a folder holds.

        Raises:
            FileNotFoundError: it holds none.
            ValueError: its run.json cannot be read.
        """
        try:
            plan = json.loads((path / "run.json").read_text(encoding="utf-8"))
            plan["identity"], plan["images"], plan["chunk"]
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: no run.json, so no evaluation was begun there"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path / 'run.json'}: cannot be read ({error!r}); choose another folder"
            ) from error
        return cls(path, plan)

    def _refuse_other(self, plan: Mapping[str, Any]) -> None:
        ours, theirs = plan["identity"], self.plan["identity"]
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if keys:
            said = "; ".join(
                f"{k}: {_short(theirs.get(k))} there, {_short(ours.get(k))} asked" for k in keys
            )
            raise ValueError(
                f"{self.path} holds another evaluation ({said}); choose another folder, or delete "
                "that folder"
            )

    def __len__(self) -> int:
        return -(-self.plan["images"] // self.plan["chunk"])

    def chunk_path(self, chunk: int) -> Path:
        """Where chunk 0, 1, ... is, or will be."""
        return self.path / "chunks" / f"{chunk:05d}-of-{len(self):05d}.json"

    def missing(self) -> list[int]:
        """Chunks that are still to be computed."""
        return [c for c in range(len(self)) if not self.chunk_path(c).exists()]

    def pictures(self, chunk: int) -> range:
        """Indices of the pictures of a chunk."""
        size = self.plan["chunk"]
        return range(chunk * size, min((chunk + 1) * size, self.plan["images"]))

    def write(self, chunk: int, columns: Mapping[str, Any]) -> None:
        """Keep what `measure` found."""
        write_json(self.chunk_path(chunk), {"run": self.plan["identity"], **columns})

    def read(self) -> Iterator[dict[str, Any]]:
        """The columns of every chunk, in order.

        Raises:
            ValueError: some are missing, or one does not belong here.
        """
        if absent := self.missing():
            raise ValueError(
                f"{self.path}: {len(absent)} of {len(self)} chunks are missing "
                f"({', '.join(map(str, absent[:8]))}{', ...' if len(absent) > 8 else ''}); run the "
                "evaluation again, and it goes on"
            )
        for chunk in range(len(self)):
            path, columns = self.chunk_path(chunk), None
            with suppress(ValueError):
                columns = json.loads(path.read_text(encoding="utf-8"))
            size = len(self.pictures(chunk))
            if not isinstance(columns, dict) or columns.get("run") != self.plan["identity"]:
                raise ValueError(f"{path}: not a chunk of this evaluation; delete it and run again")
            if {len(columns[key]) for key in ("label", "rank", "top", "confidence")} != {size}:
                raise ValueError(f"{path}: not {size} pictures; delete it and run again")
            yield columns


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
