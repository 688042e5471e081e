"""Photos in, classes out: by prompts, or by a classifier fitted on examples.

Examples, the labelled photos to learn from, are kept apart from those that are judged.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplab.classification import few_shot
from cliplab.classification.answer import Answer, group_of
from cliplab.classification.diagnosis import diagnose
from cliplab.classification.few_shot import Classifier, Shots
from cliplab.classification.prompts import Classes, check_class_names, fold
from cliplab.classification.zero_shot import Scores, embed_classes
from cliplab.data import Sample, SampleSet, UnreadableImage, shown, some
from cliplab.encoders import Embedded, EmbeddingCache, Encoder, embed_photos
from cliplab.runtime import sha256, unknown_name

# ---- examples ------------------------------------------------------------------------------

FIT_PARTS = {"train": 0.75, "val": 0.25}  # of examples that are not judged themselves


@dataclass(frozen=True)
class Division:
    """Photos to judge, to fit on and to tune on; no file that is judged is in another."""

    judged: SampleSet
    train: SampleSet
    val: SampleSet  # may be empty
    notes: tuple[str, ...] = ()  # how they were told apart


def divide(examples: SampleSet, judged: SampleSet | None = None, *, seed: int = 0) -> Division:
    """Examples with a label as train and val, beside what is judged: other photos, or their test.

    Splits that the examples have are used; without them some are made with `seed`, groups and
    near-duplicates together. Judged photos that are also among the examples lose their label.

    Raises:
        ValueError: no label, or none left to judge by.
    """
    own, where = judged is None, shown(examples.root)
    labelled = tuple(photo for photo in examples if photo.label is not None)
    if not labelled:
        raise ValueError(
            f"{where}: examples without classes; expected one sub-folder per class, a label column "
            "or categories"
        )
    whole, how = replace(examples, samples=labelled), "as the source gives them"
    if any(photo.split is None for photo in whole):
        whole = whole.with_splits(None if own else FIT_PARTS, seed=seed)
        how = f"made with seed {seed}"
    train, val = whole.select("train"), whole.select("val")
    parts = ", ".join(f"{name} {count}" for name, count in whole.splits.items())
    notes = [f"splits of {where} {how}: {parts}"]
    if judged is None:
        judged = whole.select("test")
        notes.append(f"{where} is judged by its {len(judged)} test photos only")
    copies = _copies(val, hashes(train))
    val = replace(val, samples=tuple(photo for photo in val if photo.path not in copies))
    judged, note = unlearned(judged, hashes((*train, *val)))
    return Division(judged, train, val, (*notes, *([note] if note else [])))


def hashes(photos: Iterable[Sample]) -> frozenset[str]:
    """SHA-256 of the files that are there; many boxes may share one."""
    return frozenset(sha256(path) for path in {p.path for p in photos} if path.is_file())


def _copies(photos: Iterable[Sample], learned: Collection[str]) -> set[Path]:
    """Files of the photos whose hash is among `learned`; those saved again are not found."""
    files = {photo.path for photo in photos} if learned else set()
    return {path for path in files if path.is_file() and sha256(path) in learned}


def unlearned(photos: SampleSet, learned: Collection[str]) -> tuple[SampleSet, str]:
    """The photos, without the labels of those that a classifier learned from, and a note if any.

    Args:
        learned: SHA-256 of its files.

    Raises:
        ValueError: no label is left to judge by.
    """
    labelled = [photo for photo in photos if photo.label is not None]
    copies = _copies(labelled, learned)
    known = [photo.name for photo in labelled if photo.path in copies]
    if known and len(known) == len(labelled):
        raise ValueError(
            f"the classifier learned from all {len(known)} labelled photos of "
            f"{shown(photos.root)}; accuracy on what was learned says nothing: give other photos, "
            "or take these as `unlabelled`"
        )
    bare = tuple(replace(p, label=None) if p.path in copies else p for p in photos)
    note = (
        f"{len(known)} of {len(labelled)} labelled photos are not judged, since the classifier "
        f"learned from them: {some(known)}"
    )
    return replace(photos, samples=bare), note if known else ""


# ---- the work ------------------------------------------------------------------------------

MAX_ANSWERS = 50_000_000  # numbers that a diagnosis may hold at once, 200 MB


def true_classes(photos: SampleSet, class_names: Sequence[str]) -> tuple[int | None, ...]:
    """Class index of each photo, None where it is not labelled.

    Raises:
        ValueError: a label that is none of the classes.
    """
    index = {fold(name): k for k, name in enumerate(class_names)}
    for name in sorted({photo.label for photo in photos if photo.label is not None}):
        if fold(name) not in index:
            raise ValueError(
                f"{shown(photos.root)}: {unknown_name('class', name, class_names)}; expected the "
                "classes to choose between: rename it, or take the photos as `unlabelled`"
            )
    return tuple(None if p.label is None else index[fold(p.label)] for p in photos)


@dataclass(frozen=True)
class Classifying:
    """An encoder, how photos go through it, and what classes are put into."""

    encoder: Encoder
    cache: EmbeddingCache | None = None
    batch_size: int = 64
    templates: Sequence[str] = ("{}",)
    truncate: bool = False  # cut prompts that are too long
    progress: bool = False  # a bar on stderr

    def by_prompts(self, photos: SampleSet, classes: Classes) -> Answer:
        """Classify without training, and look for trouble in prompts and answers.

        ValueError for unfit prompts.
        """
        text_emb, remarks = self._read_prompts(classes)  # (K, D)
        found = self._embed(photos)
        scores = Scores.by(self.encoder, classes.names, found.image_emb @ text_emb.T)
        answer = _answer(photos, classes, found, scores)
        if found.kept and not self.truncate:  # a diagnosis reads every prompt whole
            remarks = self._diagnosed(answer, found.image_emb)
        return replace(answer, remarks=tuple(remarks))

    def by_classifier(self, photos: SampleSet, classes: Classes, classifier: Classifier) -> Answer:
        """Classify by a classifier that was fitted before, for this encoder."""
        found = self._embed(photos)
        scores = classifier.scores(found.image_emb)
        return _answer(photos, classes, found, scores, classifier=classifier)

    def by_examples(
        self,
        division: Division,
        classes: Classes,
        method: str,
        *,
        shots: int | None = None,
        seed: int = 0,
    ) -> Answer:
        """Fit on the examples, then classify what is to be judged, and by the prompts alone, too.

        Args:
            method: one of `few_shot.METHODS`.
            shots: examples of each class; None: all.
            seed: of the choice of shots and of the fit.

        Raises:
            ValueError: unfit prompts, examples that do not suffice.
        """
        text_emb, remarks = self._read_prompts(classes)  # (K, D)
        train, lost = self._shots(division.train, classes, "train")
        val, also_lost = self._shots(division.val, classes, "val")
        if shots:
            train = few_shot.sample_shots(train, shots, seed=seed)
        classifier = few_shot.fit(  # before the long work, which is in vain if they do not suffice
            method,
            train,
            val if len(val) else None,
            zero_shot=text_emb,
            logit_scale=self.encoder.logit_scale,
            encoder=self.encoder,
            seed=seed,
        )
        learned = hashes((*division.train, *division.val))
        found = self._embed(division.judged)
        answer = _answer(
            division.judged,
            classes,
            found,
            classifier.scores(found.image_emb),
            zero_shot=Scores.by(self.encoder, classes.names, found.image_emb @ text_emb.T),
            classifier=replace(classifier, learned=tuple(sorted(learned))),
            shots={part.split: _counts(part) for part in (train, val) if len(part)},
            remarks=tuple(remarks),
        )
        return replace(answer, unreadable=(*lost, *also_lost, *answer.unreadable))

    def _embed(self, photos: SampleSet) -> Embedded:
        """Embeddings (M, D) of the readable photos."""
        how: dict[str, Any] = {"batch_size": self.batch_size, "cache": self.cache}
        return embed_photos(self.encoder, photos.samples, progress=self.progress, **how)

    def _shots(
        self, photos: SampleSet, classes: Classes, split: str
    ) -> tuple[Shots, list[UnreadableImage]]:
        """Labelled photos as examples to learn from, and what could not be read of them."""
        found, true = self._embed(photos), true_classes(photos, classes.names)
        groups = tuple(group_of(photos[i]) or photos[i].name for i in found.kept)
        labels = torch.tensor([true[i] for i in found.kept], dtype=torch.long)
        return Shots(found.image_emb, labels, classes.names, split, groups), found.unreadable

    def _read_prompts(self, classes: Classes) -> tuple[Tensor, Sequence[str]]:
        """Classifier (K, D) of the prompts, and what the text tower could not read."""
        texts = check_class_names(classes.prompts)
        return embed_classes(self.encoder, texts, self.templates, truncate=self.truncate)

    def _diagnosed(self, answer: Answer, image_emb: Tensor) -> Sequence[str]:
        """Remarks on the prompts and their answers, with remedies; none if nothing is odd.

        Each template answers for each image then, so that of very many an even sample has to do.
        """
        names, texts = answer.classes.names, answer.classes.prompts
        step = -(-len(image_emb) * len(texts) * (1 + len(self.templates)) // MAX_ANSWERS)
        sample, true = image_emb[::step], answer.true[::step]
        known = None if None in true else np.array(true)
        return diagnose(self.encoder, sample, names, self.templates, known, texts=texts).remarks


def _answer(
    photos: SampleSet, classes: Classes, found: Embedded, scores: Scores, **more: Any
) -> Answer:
    true, kept = true_classes(photos, classes.names), tuple(found.kept)
    of_kept = tuple(true[i] for i in kept)
    return Answer(photos, classes, kept, of_kept, scores, tuple(found.unreadable), **more)


def _counts(shots: Shots) -> dict[str, int]:
    return dict(zip(shots.class_names, shots.counts.tolist(), strict=True))
