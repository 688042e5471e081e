"""The protocol itself: what identifies an evaluation, and the loop over its chunks."""

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliplab.classification.imagenet.chunks import CHUNK, RunFolder, measure
from cliplab.classification.imagenet.classifier import classifier_of
from cliplab.classification.imagenet.dataset import ValidationSet
from cliplab.classification.imagenet.prompts import Prompts
from cliplab.classification.prompts import READABLE, PromptReader
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import cache_dir


def make_plan(
    encoder: Encoder,
    prompts: Prompts,
    pictures: ValidationSet,
    *,
    split: str = "val",
    truncate: bool = False,
    chunk: int = CHUNK,
) -> dict[str, Any]:
    """All that `RunFolder` keeps of an evaluation before it begins.

    What stands under "identity" must agree between a run and its continuation. Places do not.
    """
    import torch

    from cliplab import __version__

    return {
        "identity": {
            "benchmark": "imagenet",
            "split": split,
            "pictures": pictures.digest,
            "encoder": encoder.fingerprint,
            "templates": prompts.name,
            "words": prompts.digest,
            "truncate": truncate,
            "chunk": chunk,
        },
        "images": len(pictures),
        "chunk": chunk,
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
        "partial": [*pictures.notes, *_reduced(prompts)],
        "notes": list(_notes(encoder, prompts)),
        "wnids": list(prompts.wnids),
        "class_names": list(prompts.class_names),
    }


def _reduced(prompts: Prompts) -> Iterator[str]:
    if len(prompts) != 1000:
        yield f"judged among {len(prompts):,} classes only, not ImageNet's 1,000"


def _notes(encoder: Encoder, prompts: Prompts) -> Iterator[str]:
    if prompts.language not in encoder.languages and encoder.languages:
        read = "/".join(encoder.languages)
        yield f"the prompts are {prompts.language!r}, the captions of the encoder were {read!r}"
    if unread := unread_names(encoder, prompts):
        yield (
            f"the encoder cannot read {len(unread):,} of {len(prompts):,} class names: "
            f"{', '.join(unread[:8])}{', ...' if len(unread) > 8 else ''}"
        )
    for name, places in prompts.same_names.items():
        wnids = ", ".join(prompts.wnids[i] for i in places)
        yield f"{name!r} is the name of several classes ({wnids}); only the first can win"


def unread_names(encoder: Encoder, prompts: Prompts) -> list[str]:
    """Class names of which the text tower reads less than `prompts.READABLE` of the tokens.

    Even the right encoder has some: Chinese-CLIP's vocabulary lacks both characters of "lynx".
    """
    reader = PromptReader.of(encoder)
    return [name for name in prompts.class_names if reader.coverage(name) < READABLE]


def default_folder(plan: dict[str, Any]) -> Path:
    """`runs/imagenet-...`, another for every identity, so that the same command finds it again."""
    text = json.dumps(plan["identity"], sort_keys=True)
    return Path("runs") / f"imagenet-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def compute(
    folder: RunFolder,
    encoder: Encoder,
    prompts: Prompts,
    pictures: ValidationSet,
    *,
    batch_size: int = 64,
    cache: Any = None,
    progress: bool = False,
) -> None:
    """Compute the chunks that are missing in `folder`.

    Args:
        folder: started with `make_plan` of the same encoder, prompts and pictures.
        encoder: whose accuracy it is.
        prompts: class names and templates.
        pictures: the validation set.
        batch_size: images encoded at a time.
        cache: an `EmbeddingCache`, to have the embeddings for another template set.
        progress: show bars on stderr, if that is a terminal.

    Raises:
        ValueError: a prompt is too long for the encoder, or what `embed_photos` raises.
    """
    from tqdm import tqdm

    todo = folder.missing()
    if not todo:
        return
    kept, truncate = cache_dir() / "classifiers", folder.plan["identity"]["truncate"]
    classifier = classifier_of(encoder, prompts, kept, truncate=truncate, progress=progress)
    done = len(pictures) - sum(len(folder.pictures(c)) for c in todo)
    hide = None if progress else True
    with tqdm(total=len(pictures), initial=done, unit="image", desc="images", disable=hide) as bar:
        for chunk in todo:
            which = folder.pictures(chunk)
            found = measure(
                encoder, pictures, which, classifier, batch_size=batch_size, cache=cache
            )
            folder.write(chunk, found)
            bar.update(len(which))
