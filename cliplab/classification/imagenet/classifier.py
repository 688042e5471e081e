"""The (K, D) classifier of many prompts: built block by block, kept on disk.

80 templates times 1,000 names are 80,000 texts: minutes on a GPU, more than an hour on a laptop.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.imagenet.prompts import Prompts
from cliplab.classification.prompts import fill_templates
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import atomic_write

BLOCK = 16  # classes between two steps of the bar; with 80 templates 5 whole batches of texts


def classifier_of(
    encoder: Encoder,
    prompts: Prompts,
    folder: Path | None = None,
    *,
    truncate: bool = False,
    progress: bool = False,
) -> Tensor:
    """Mean of unit prompt embeddings, re-normalised -> (K, D) unit rows.

    `zero_shot.build_classifier` for a thousand classes, some of which share their name: what it
    refuses, the protocol asks for.

    Args:
        encoder: whose text tower reads the prompts.
        prompts: K classes and T templates.
        folder: where finished ones are kept.
        truncate: cut prompts that are longer than the encoder's context.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        ValueError: a prompt longer than the context, unless `truncate`.

    Source: OpenAI's notebook Prompt_Engineering_for_ImageNet; CLIP, section 3.1.4.
    """
    from tqdm import tqdm

    key = classifier_key(encoder, prompts, truncate)
    path = folder / f"{key}.safetensors" if folder else None
    if path and (kept := _read(path, (len(prompts), encoder.dim))) is not None:
        return kept
    blocks = [
        _block(encoder, prompts, start, min(start + BLOCK, len(prompts)), truncate=truncate)
        for start in tqdm(
            range(0, len(prompts), BLOCK), desc="prompts", disable=None if progress else True
        )
    ]
    weights = torch.cat(blocks)  # (K, D)
    if path:
        _write(path, weights)
    return weights


def classifier_key(encoder: Encoder, prompts: Prompts, truncate: bool = False) -> str:
    """Name of the classifier: changes with the weights, every word, and how words are cut up."""
    texts = fill_templates(prompts.class_names, prompts.templates[:1])
    ids = encoder.tokenizer(texts, truncate=truncate).tolist()
    text = f"{encoder.fingerprint} {prompts.digest} {truncate} {ids}"
    return "classifier-" + hashlib.sha256(text.encode()).hexdigest()[:20]


def _block(encoder: Encoder, prompts: Prompts, start: int, stop: int, *, truncate: bool) -> Tensor:
    texts = fill_templates(prompts.class_names[start:stop], prompts.templates)  # class-major
    prompt_emb = encoder.encode_text(texts, truncate=truncate)  # (k*T, D) unit rows
    return F.normalize(prompt_emb.unflatten(0, (stop - start, -1)).mean(dim=1), dim=-1)


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The rows that are there; None if there is no such file, or another."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        rows = load(path.read_bytes())["classifier"]
    except (OSError, SafetensorError, KeyError):
        return None  # made again
    return rows if rows.shape == shape else None


def _write(path: Path, rows: Tensor) -> None:
    from safetensors.torch import save

    with atomic_write(path) as file:
        file.write(save({"classifier": rows.contiguous()}))
