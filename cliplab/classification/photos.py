"""Photos in, classes out: by prompts, or by a classifier fitted on examples.

Examples, the labelled photos to learn from, are kept apart from those that are judged.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cliplab.classification import few_shot
from cliplab.classification.answer import Answer, group_of
from cliplab.classification.diagnosis import diagnose
from cliplab.classification.few_shot import Classifier, Shots
from cliplab.classification.prompts import (
    Classes,
    check_class_names,
    check_templates,
    complain_of_unread,
    fold,
)
from cliplab.classification.zero_shot import Scores, average_templates, encode_prompts
from cliplab.data import Sample, SampleSet, UnreadableImage, shown
from cliplab.encoders import Embedded, EmbeddingCache, Encoder, OnImage, embed_photos
from cliplab.runtime import sha256, unknown_name

# ---- examples ------------------------------------------------------------------------------

FIT_PARTS = {"train": 0.75, "val": 0.25}  # of examples that are not judged themselves


@dataclass(frozen=True)
class Division:
    """Photos to judge, to fit on and to tune on; no file is in two of them."""

    judged: SampleSet
    train: SampleSet
    val: SampleSet  # may be empty
    notes: tuple[str, ...] = ()  # how they were told apart


def divide(examples: SampleSet, judged: SampleSet | None = None, *, seed: int = 0) -> Division:
    """Examples with a label as train and val, beside what is judged: other photos, or their test.

    Splits that the examples have are used; without them some are made with `seed`, groups and
    near-duplicates together.

    Raises:
        ValueError: no label, nothing to fit on, nothing to judge, or judged photos that are also
            among the examples.
    """
    own, where = judged is None, shown(examples.root)
    labelled = tuple(photo for photo in examples if photo.label is not None)
    if not labelled:
        raise ValueError(
            f"{where}: examples without classes; expected one sub-folder per class, a label column "
            "or categories"
        )
    whole = replace(examples, samples=labelled)
    how = "as the source gives them"
    if any(photo.split is None for photo in whole):
        whole = whole.with_splits(None if own else FIT_PARTS, seed=seed)
        how = f"made with seed {seed}"
    train, val = whole.select("train"), whole.select("val")
    parts = ", ".join(f"{name} {count}" for name, count in whole.splits.items())
    notes = [f"splits of {where} {how}: {parts}"]
    if judged is None:
        judged = whole.select("test")
        notes.append(f"{where} is judged by its {len(judged)} test photos only")
    for name, part in (("train", train), ("test", judged)):
        if not len(part):
            raise ValueError(f"{where}: no photo is in {name}; expected some")
    return _keep_apart(Division(judged, train, val, tuple(notes)), own=own)


def check_classes(division: Division, class_names: Sequence[str]) -> None:
    """Refuse a class that no example shows.

    Raises:
        ValueError: the class, and those that there are.
    """
    present = {photo.label for photo in division.train}
    for name in class_names:
        if name not in present:
            there = ", ".join(sorted(map(str, present)))
            raise ValueError(
                f"no example of {name!r} to fit on, only of {there}; add some, or drop the class"
            )


def _keep_apart(division: Division, *, own: bool) -> Division:
    """No file on two sides: copies in splits of one source are left out, others are refused."""
    copies = twins(division.val, hashes(division.train))
    val = _without(division.val, copies)
    found = twins(division.judged, hashes((*division.train, *val)))
    if found and not own:
        raise ValueError(
            f"{len(found)} of the {len(division.judged)} photos to classify are among the "
            f"examples, first {_first(found)}; accuracy on what was learned says nothing: remove "
            "them from either, or give the examples as what is to be classified, too, and their "
            "test part is judged"
        )
    judged, notes = _without(division.judged, found), list(division.notes)
    for part, some in (("val", copies), ("test", found)):
        if some:
            notes.append(
                f"{len(some)} {part} photos left out, being copies of examples: first "
                f"{_first(some)}"
            )
    return replace(division, judged=judged, val=val, notes=tuple(notes))


def hashes(photos: Iterable[Sample]) -> dict[str, str]:
    """SHA-256 of the files that are there -> a photo of it; many boxes may share a file."""
    files = {photo.path: photo.name for photo in photos if photo.path.is_file()}
    return {sha256(path): name for path, name in files.items()}


def twins(judged: Iterable[Sample], learned: Mapping[str, str]) -> dict[str, str]:
    """Names of judged photos whose hash is among `learned`, and what it is called there."""
    hashed = cache(sha256)
    files = (photo for photo in judged if learned and photo.path.is_file())
    return {p.name: learned[hash_] for p in files if (hash_ := hashed(p.path)) in learned}


def unlearned(photos: SampleSet, classifier: Classifier) -> tuple[SampleSet, str]:
    """The photos, without the labels of those that a classifier learned from, and a note if any.

    Files are compared byte by byte; pictures that were saved again, or look alike, are not found.

    Raises:
        ValueError: no label is left to judge by.
    """
    labelled = [photo for photo in photos if photo.label is not None]
    learned = twins(labelled, dict.fromkeys(classifier.learned, ""))
    known, n = len(learned), len(labelled)
    if known and known == n:
        raise ValueError(
            f"the classifier learned from all {known} labelled photos of {shown(photos.root)}; "
            "accuracy on what was learned says nothing: give other photos, or take these as "
            "unlabelled"
        )
    bare = tuple(replace(p, label=None) if p.name in learned else p for p in photos)
    note = f"{known} of {n} labelled photos are not judged, since the classifier learned from them"
    return replace(photos, samples=bare), note if known else ""


def _first(found: Mapping[str, str]) -> str:
    return "{} (= {})".format(*next(iter(found.items())))


def _without(photos: SampleSet, names: Container[str]) -> SampleSet:
    return replace(photos, samples=tuple(photo for photo in photos if photo.name not in names))


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
                "classes to choose between: rename it, or take the photos as unlabelled"
            )
    return tuple(None if p.label is None else index[fold(p.label)] for p in photos)


@dataclass(frozen=True)
class Learning:
    """How a classifier is fitted on examples."""

    method: str = "text-probe"  # one of few_shot.METHODS
    shots: int | None = None  # examples of each class; None: all
    seed: int = 0  # of the choice of shots and of the fit


@dataclass(frozen=True)
class Classifying:
    """An encoder, and how photos go through it."""

    encoder: Encoder
    cache: EmbeddingCache | None = None
    batch_size: int = 64
    progress: bool = False  # a bar on stderr

    def embed(self, photos: SampleSet, on_image: OnImage | None = None) -> Embedded:
        """Embeddings (M, D) of the readable photos."""
        return embed_photos(
            self.encoder,
            photos.samples,
            batch_size=self.batch_size,
            cache=self.cache,
            progress=self.progress,
            on_image=on_image,
        )

    def shots(
        self, photos: SampleSet, class_names: Sequence[str], split: str
    ) -> tuple[Shots, list[UnreadableImage]]:
        """Labelled photos as examples to learn from, and what could not be read of them."""
        found = self.embed(photos)
        true = true_classes(photos, class_names)
        groups = tuple(group_of(photos[i]) or photos[i].name for i in found.kept)
        labels = torch.tensor([true[i] for i in found.kept], dtype=torch.long)
        return Shots(found.image_emb, labels, tuple(class_names), split, groups), found.unreadable

    def by_prompts(
        self,
        photos: SampleSet,
        classes: Classes,
        templates: Sequence[str] = ("{}",),
        *,
        truncate: bool = False,
        on_image: OnImage | None = None,
    ) -> Answer:
        """Classify without training, and look for trouble in prompts and answers.

        Raises:
            ValueError: nothing readable, or unfit prompts.
        """
        text_emb, remarks = self._read_prompts(classes, templates, truncate)  # (K, D)
        found = self._embed_some(photos, on_image)
        true = true_classes(photos, classes.names)
        if not truncate:  # a diagnosis reads every prompt whole
            remarks = list(self._diagnosed(classes, templates, found, true))
        scores = self._zero_shot(classes, found, text_emb)
        return _answer(photos, classes, found, scores, found.unreadable, remarks=tuple(remarks))

    def by_classifier(
        self,
        photos: SampleSet,
        classes: Classes,
        classifier: Classifier,
        *,
        on_image: OnImage | None = None,
    ) -> Answer:
        """Classify by a classifier that was fitted before, for this encoder.

        Raises:
            ValueError: nothing readable, or a label that the classifier does not know.
        """
        found = self._embed_some(photos, on_image)
        scores = classifier.scores(found.image_emb)
        return _answer(photos, classes, found, scores, found.unreadable, classifier=classifier)

    def by_examples(
        self,
        division: Division,
        classes: Classes,
        learning: Learning | None = None,
        templates: Sequence[str] = ("{}",),
        *,
        truncate: bool = False,
        on_image: OnImage | None = None,
    ) -> Answer:
        """Fit on the examples, then classify what is to be judged, and by the prompts alone, too.

        Raises:
            ValueError: nothing readable, unfit prompts, examples that do not suffice.
        """
        learning = learning or Learning()
        text_emb, remarks = self._read_prompts(classes, templates, truncate)  # (K, D)
        parts, lost = self._examples(division, classes, learning)
        classifier = few_shot.fit(  # before the long work, which is in vain if they do not suffice
            learning.method,
            *parts,
            zero_shot=text_emb,
            logit_scale=self.encoder.logit_scale,
            encoder=self.encoder,
            seed=learning.seed,
        )
        learned = frozenset(hashes((*division.train, *division.val)))
        classifier = replace(classifier, learned=learned)
        found = self._embed_some(division.judged, on_image)
        return _answer(
            division.judged,
            classes,
            found,
            classifier.scores(found.image_emb),
            [*lost, *found.unreadable],
            zero_shot=self._zero_shot(classes, found, text_emb),
            classifier=classifier,
            shots={part.split: _counts(part) for part in parts if part},
            remarks=tuple(remarks),
        )

    def _examples(
        self, division: Division, classes: Classes, learning: Learning
    ) -> tuple[tuple[Shots, Shots | None], list[UnreadableImage]]:
        """Shots to fit and to tune on, and what could not be read of them."""
        train, lost = self.shots(division.train, classes.names, "train")
        if learning.shots:
            train = few_shot.sample_shots(train, learning.shots, seed=learning.seed)
        if not len(division.val):
            return (train, None), lost
        val, also_lost = self.shots(division.val, classes.names, "val")
        return (train, val if len(val) else None), [*lost, *also_lost]

    def _embed_some(self, photos: SampleSet, on_image: OnImage | None) -> Embedded:
        found = self.embed(photos, on_image)
        if not found.kept:
            where = shown(photos.root)
            first = f", such as {found.unreadable[0]}" if found.unreadable else ""
            raise ValueError(f"none of the {len(photos)} images in {where} could be read{first}")
        return found

    def _read_prompts(
        self, classes: Classes, templates: Sequence[str], truncate: bool
    ) -> tuple[Tensor, list[str]]:
        """Classifier (K, D) of the prompts, and what the text tower could not read."""
        texts, wording = check_class_names(classes.prompts), check_templates(templates)
        emb = encode_prompts(self.encoder, texts, wording, truncate=truncate)  # (K, T, D)
        unread = complain_of_unread(self.encoder, texts, wording)
        return average_templates(emb), [unread] if unread else []

    def _zero_shot(self, classes: Classes, found: Embedded, text_emb: Tensor) -> Scores:
        """Scores (M, K) of (M, D) by (K, D)."""
        cosine = found.image_emb @ text_emb.T
        encoder = self.encoder
        return Scores.from_cosine(classes.names, cosine, encoder.logit_scale, encoder.logit_bias)

    def _diagnosed(
        self,
        classes: Classes,
        templates: Sequence[str],
        found: Embedded,
        true: Sequence[int | None],
    ) -> Sequence[str]:
        """Remarks on the prompts and their answers, with remedies; none if nothing is odd.

        Each template answers for each image then, so that of very many an even sample has to do.
        """
        n, texts = len(found.kept), classes.prompts
        step = -(-n * len(texts) * (1 + len(templates)) // MAX_ANSWERS)
        rows = found.kept[::step]
        known = [t for i in rows if (t := true[i]) is not None]
        whole = known if len(known) == len(rows) else None
        emb = found.image_emb[::step]
        found_out = diagnose(self.encoder, emb, classes.names, templates, whole, texts=texts)
        return found_out.remarks


def _answer(
    photos: SampleSet,
    classes: Classes,
    found: Embedded,
    scores: Scores,
    unreadable: Sequence[UnreadableImage],
    **more: Any,
) -> Answer:
    true, kept = true_classes(photos, classes.names), tuple(found.kept)
    of_kept = tuple(true[i] for i in kept)
    return Answer(photos, classes, kept, of_kept, scores, tuple(unreadable), **more)


def _counts(shots: Shots) -> dict[str, int]:
    return dict(zip(shots.class_names, shots.counts.tolist(), strict=True))
