"""Classifiers as files: one safetensors file, whose header says what they are and for whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cliplab.classification.few_shot.classifier import (
    CacheClassifier,
    Classifier,
    EncoderStamp,
    LinearClassifier,
)
from cliplab.encoders.two_towers import Encoder
from cliplab.runtime import atomic_write, unknown_name

FORMAT = 1
_KEY = "cliplab classifier"
_KINDS: dict[str, type[Classifier]] = {"linear": LinearClassifier, "cache": CacheClassifier}
_COMMON = ("class_names", "logit_scale", "temperature", "choices")
_SETTINGS: dict[str, tuple[str, ...]] = {"linear": (), "cache": ("alpha", "beta")}


def save_classifier(
    classifier: Classifier, path: str | Path, *, encoder: Encoder | None = None
) -> None:
    """Write a classifier to `path`, whole or not at all.

    Args:
        classifier: from `fit`.
        path: a file, usually .safetensors.
        encoder: the one that embedded the shots; its name and fingerprint go into the file, so that
            `load_classifier` can refuse another. None: those the classifier already has, if any.

    Raises:
        ValueError: an encoder of another dimension.
        OSError: the file cannot be written.
    """
    if encoder is not None:
        classifier = classifier.stamped(encoder)
    kind = next(name for name, cls in _KINDS.items() if isinstance(classifier, cls))
    header = {
        "format": FORMAT,
        "kind": kind,
        **{name: getattr(classifier, name) for name in (*_COMMON, *_SETTINGS[kind])},
        "encoder": None if classifier.encoder is None else classifier.encoder._asdict(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in classifier.tensors().items()}
    text = json.dumps(header, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={_KEY: text}))


def load_classifier(path: str | Path, *, encoder: Encoder | None = None) -> Classifier:
    """The classifier that `save_classifier` wrote to `path`.

    Args:
        path: the file.
        encoder: the one that will embed the images; None: it is not compared.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: a damaged file, one of something else or of a newer cliplab, or a classifier of
            another encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one from save_classifier")
    header, tensors = _read(path)
    try:
        kind = header["kind"]
        if kind not in _KINDS:
            raise ValueError(unknown_name("kind", kind, _KINDS))
        fields = {name: header[name] for name in (*_COMMON, *_SETTINGS[kind])}
        fields["class_names"] = tuple(fields["class_names"])
        stamp = header["encoder"]
        fields["encoder"] = None if stamp is None else EncoderStamp(**stamp)
        classifier = _KINDS[kind](**fields, **tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: its parts do not make a classifier ({error}); save it again"
        ) from error
    if encoder is not None:
        _check_encoder(path, classifier, encoder)
    return classifier


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(text) if text is not None else None
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged, or no safetensors file ({error}); save or copy it again"
        ) from error
    if not isinstance(header, dict):
        raise ValueError(
            f"{path}: a safetensors file of something else; expected one from save_classifier"
        )
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: has format {header.get('format')!r}; expected {FORMAT}: written by another "
            "version of cliplab, so fit again or update"
        )
    return header, tensors


def _check_encoder(path: Path, classifier: Classifier, encoder: Encoder) -> None:
    stamp = classifier.encoder
    if stamp is None:
        classifier.stamped(encoder)  # compares the dimension at least
    elif stamp.fingerprint != encoder.fingerprint:
        raise ValueError(
            f"{path}: made for the encoder {stamp.name} ({stamp.fingerprint[:12]}...); got "
            f"{encoder.name} ({encoder.fingerprint[:12]}...): use that encoder, or fit again"
        )
