"""The work: encode the photos, fit a classifier if there are examples, answer, look for trouble."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from cliplab.classification.labels import Classes
from cliplab.classification.scores import Scores
from cliplab.cli.classify.assess import Assessment, assess
from cliplab.cli.classify.prepare import Examples, Task, true_classes
from cliplab.data import Photo, PhotoSet, UnreadableImage
from cliplab.encoders.embeddings import Embedded, EmbeddingCache, embed_photos
from cliplab.report.gallery import MAX_CARDS, THUMBNAIL, thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cliplab.classification.few_shot import Classifier, Shots
    from cliplab.encoders import Encoder

    OnImage = Callable[[int, Image], None]

MAX_ANSWERS = 50_000_000  # numbers that a diagnosis may hold at once, 200 MB
FEW, SMALL = 500, 208  # with more cards than FEW the thumbnails are SMALL pixels long


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found out about the readable photos of a task."""

    task: Task
    kept: tuple[int, ...]  # N rows of the task's photos
    scores: Scores  # of the N
    unreadable: tuple[UnreadableImage, ...]  # among photos and examples
    zero_shot: Scores | None = None  # of the N, where a classifier was fitted
    fitted: "Classifier | None" = None  # the classifier, if one was fitted or loaded
    shots: dict[str, dict[str, int]] = field(default_factory=dict)  # part -> class -> examples
    remarks: tuple[str, ...] = ()  # of the diagnosis
    thumbnails: dict[int, str] = field(default_factory=dict)  # row of the N -> data URI, or none

    @property
    def names(self) -> list[str]:
        """N names to show."""
        return [self.task.photos[i].name for i in self.kept]

    @property
    def true(self) -> list[int | None]:
        """N class indices, None where unknown."""
        return [self.task.true[i] for i in self.kept]

    @property
    def groups(self) -> list[str | None]:
        """N groups; photos of one group are not independent."""
        return [group_of(self.task.photos[i]) for i in self.kept]

    @cached_property
    def before(self) -> Assessment | None:
        """What the prompts alone reach, where a classifier was fitted and the truth is known."""
        return assess(self.zero_shot, self.true, self.groups) if self.zero_shot else None


def answer(
    args: argparse.Namespace, task: Task, encoder: "Encoder", *, fitted: "Classifier | None" = None
) -> Answer:
    """Classify the task's photos by prompts, or by a classifier, given or fitted on its examples.

    Raises:
        ValueError: nothing readable, unfit prompts, examples that do not suffice.
    """
    text_emb, remarks, unreadable = None, list[str](), list[UnreadableImage]()
    shots: dict[str, dict[str, int]] = {}
    with nullcontext() if args.no_cache else EmbeddingCache() as cache:
        work = _Work(args, encoder, cache)
        if fitted is None:
            text_emb, remarks = work.read_prompts(task.classes.prompts)  # (K, D)
            if task.examples:  # before the long work, which is in vain if they do not suffice
                train, val, unreadable = work.embed_examples(task.examples, task.classes)
                shots = {part.split: _counts(part) for part in (train, val) if part}
                fitted = work.fit(train, val, text_emb)
        found, small = work.embed_shown(task.photos)
    if not found.kept:
        raise ValueError(f"none of the {len(task.photos)} images in {args.source} could be read")
    scores = by_prompts = _by_prompts(encoder, task, found, text_emb)
    if fitted is not None:
        scores = fitted.scores(found.image_emb)
    elif not args.truncate:  # a diagnosis reads every prompt whole
        remarks = diagnosed(encoder, task, args.template, found)
    return Answer(
        task=task,
        kept=tuple(found.kept),
        scores=cast(Scores, scores),  # without a classifier there are prompts
        unreadable=(*unreadable, *found.unreadable),
        zero_shot=None if fitted is None else by_prompts,
        fitted=fitted,
        shots=shots,
        remarks=tuple(remarks),
        thumbnails={row: small[i] for row, i in enumerate(found.kept) if i in small},
    )


@dataclass(frozen=True)
class _Work:
    """Arguments, encoder and cache, which every step needs."""

    args: argparse.Namespace
    encoder: "Encoder"
    cache: EmbeddingCache | None

    def embed(self, photos: PhotoSet, on_image: "OnImage | None" = None) -> Embedded:
        """Embeddings of the readable photos, a bar on stderr if that is a terminal."""
        return embed_photos(
            self.encoder,
            photos.photos,
            batch_size=self.args.batch_size,
            cache=self.cache,
            progress=sys.stderr.isatty(),
            on_image=on_image,
        )

    def embed_shown(self, photos: PhotoSet) -> tuple[Embedded, dict[int, str]]:
        """Embeddings, and thumbnails by row of `photos` if the gallery will have all of them.

        With more photos than cards those to show are opened again, once it is known which; the
        thumbnails of all would not fit in memory.
        """
        small: dict[int, str] = {}
        if not self.args.html or len(photos) > MAX_CARDS:
            return self.embed(photos), small
        size = thumbnail_size(len(photos))

        def keep(i: int, image: "Image") -> None:
            small[i] = thumbnail(image, size=size)

        return self.embed(photos, keep), small

    def read_prompts(self, prompts: Sequence[str]) -> "tuple[Tensor, list[str]]":
        """Classifier (K, D) of the prompts, and what the text tower could not read."""
        from cliplab.classification.zero_shot import UnreadPromptWarning, build_classifier

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            text_emb = build_classifier(
                self.encoder, prompts, self.args.template, truncate=self.args.truncate
            )
        for other in caught:
            if not issubclass(other.category, UnreadPromptWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        unread = [w for w in caught if issubclass(w.category, UnreadPromptWarning)]
        return text_emb, [str(w.message) for w in unread]

    def embed_examples(
        self, examples: Examples, classes: Classes
    ) -> "tuple[Shots, Shots | None, list[UnreadableImage]]":
        """Shots to fit and to tune on, and what could not be read of them."""
        from cliplab.classification.few_shot import sample_shots

        train, lost = self._shots(examples.train, classes, "train")
        if self.args.shots:
            train = sample_shots(train, self.args.shots, seed=self.args.seed)
        if not len(examples.val):
            return train, None, lost
        val, also_lost = self._shots(examples.val, classes, "val")
        return train, val if len(val) else None, lost + also_lost

    def _shots(
        self, photos: PhotoSet, classes: Classes, split: str
    ) -> "tuple[Shots, list[UnreadableImage]]":
        import torch

        from cliplab.classification.few_shot import Shots

        found = self.embed(photos)
        true = true_classes(photos, classes, learned=True)
        own = tuple(group_of(photos[i]) or photos[i].name for i in found.kept)
        labels = torch.tensor([true[i] for i in found.kept], dtype=torch.long)
        return Shots(found.image_emb, labels, classes.names, split, own), list(found.unreadable)

    def fit(self, train: "Shots", val: "Shots | None", text_emb: "Tensor") -> "Classifier":
        """The classifier of --method."""
        from cliplab.classification import few_shot

        return few_shot.fit(
            self.args.method,
            train,
            val,
            zero_shot=text_emb,
            logit_scale=self.encoder.logit_scale,
            encoder=self.encoder,
            seed=self.args.seed,
        )


def thumbnail_size(cards: int) -> int:
    """Pixels of the longer side, fewer on a page with many cards."""
    return THUMBNAIL if cards <= FEW else SMALL


def group_of(photo: Photo) -> str | None:
    """Its group; boxes without one belong together by file, whole photos are on their own."""
    return photo.group or (photo.path.as_posix() if photo.box_xyxy else None)


def _counts(shots: "Shots") -> dict[str, int]:
    return dict(zip(shots.class_names, shots.counts.tolist(), strict=True))


def _by_prompts(
    encoder: "Encoder", task: Task, found: Embedded, text_emb: "Tensor | None"
) -> Scores | None:
    """Zero-shot scores of (N, D) by (K, D), if there are prompts."""
    if text_emb is None:
        return None
    cosine = found.image_emb @ text_emb.T  # (N, K)
    return Scores.from_cosine(task.classes.names, cosine, encoder.logit_scale, encoder.logit_bias)


def diagnosed(
    encoder: "Encoder", task: Task, templates: Sequence[str], found: Embedded
) -> list[str]:
    """Remarks on the prompts and their answers, with remedies; none if nothing is odd.

    Each template answers for each image then, so that of very many an even sample has to do.
    """
    from cliplab.classification.diagnosis import diagnose

    n, prompts = len(found.kept), task.classes.prompts
    step = -(-n * len(prompts) * (1 + len(templates)) // MAX_ANSWERS)
    rows = found.kept[::step]
    true = [t for i in rows if (t := task.true[i]) is not None]
    known = true if len(true) == len(rows) else None
    done = diagnose(encoder, found.image_emb[::step], prompts, templates, known)
    return list(done.remarks)
