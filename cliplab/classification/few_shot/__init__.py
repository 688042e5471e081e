"""Classifiers from a few labelled images per class: one `fit` for every method.

    train = Shots(encoder.encode_image(images), labels, class_names, "train")
    classifier = few_shot.fit("text-probe", train, zero_shot=rows, logit_scale=encoder.logit_scale)
    scores = classifier.scores(encoder.encode_image(others))

Taught in: notebooks/02.
"""

from dataclasses import replace

from torch import Tensor

from cliplab.classification.few_shot.classifier import (
    Classifier as Classifier,
    Shots as Shots,
    load_classifier as load_classifier,
    sample_shots as sample_shots,
    save_classifier as save_classifier,
)
from cliplab.classification.few_shot.coop import CoOp as CoOp
from cliplab.classification.few_shot.methods import (
    LinearProbe as LinearProbe,
    Method as Method,
    TemperatureScaling as TemperatureScaling,
    TextProbe as TextProbe,
    TipAdapter as TipAdapter,
    WiseFT as WiseFT,
    ZeroShot as ZeroShot,
)
from cliplab.encoders import Encoder
from cliplab.runtime import unknown_name

METHODS: dict[str, type[Method]] = {
    "zero-shot": ZeroShot,
    "linear-probe": LinearProbe,
    "text-probe": TextProbe,
    "tip-adapter": TipAdapter,
    "coop": CoOp,
    "wise-ft": WiseFT,
    "temperature": TemperatureScaling,
}


def fit(
    method: str,
    train: Shots,
    val: Shots | None = None,
    *,
    zero_shot: Tensor,
    logit_scale: float,
    encoder: Encoder | None = None,
    seed: int = 0,
) -> Classifier:
    """Fit the method called `method`, one of METHODS, with its default settings.

    Args:
        train, val: see `Method.fit`.
        zero_shot: (K, D) unit rows from `zero_shot.build_classifier`.
        logit_scale: of the encoder.
        encoder: that embedded the shots; "coop" needs it, and with it the classifier knows where it
            belongs (see `Classifier.check_encoder`).
        seed: of what is drawn (order of batches, first context of CoOp).

    Raises:
        ValueError: an unknown method, test data, overlapping splits.
    """
    if method not in METHODS:
        raise ValueError(unknown_name("method", method, METHODS))
    known = {"zero_shot": zero_shot, "logit_scale": logit_scale, "encoder": encoder, "seed": seed}
    classifier = METHODS[method].build(**known).fit(train, val)
    if encoder is None:
        return classifier
    stamp = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    return replace(classifier, encoder=stamp)
