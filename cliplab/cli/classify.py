"""`cliplab classify SOURCE`: photos sorted by labels, judged where the truth is known."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cliplab.cli.classify_text import image_table, verdict
from cliplab.cli.files import describe, unreadable, write_report
from cliplab.cli.options import (
    BatchSize,
    Common,
    Device,
    Flag,
    Offline,
    Outputs,
    Precision,
    Source,
    opt,
)
from cliplab.cli.skeleton import Job, complain, work
from cliplab.runtime import atomic_write, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from cliplab.classification.answer import Answer
    from cliplab.data import SampleSet

# The first is the default: in notebook 02 it gained most of those that take no time to fit.
METHODS = (
    "text-probe", "linear-probe", "tip-adapter", "tip-adapter-f", "coop", "wise-ft", "temperature",
    "zero-shot",
)  # fmt: skip
WORST = 50  # mistakes listed in the JSON

ABOUT = """\
Sort photos by labels of your own, without training, and see how well it went.

SOURCE is a folder of images (flat; or one sub-folder per class; or train, val and test with those),
a CSV manifest, a COCO JSON, or a YOLO folder or data.yaml. Each box becomes a crop of its own.

Where the source knows the classes, they are the labels, and the answer is judged: accuracy with
its interval, confusion, calibration, and the worst mistakes first. The text that stands for a class
is its name, or what you write for it: --labels lying="a sheep lying down" 躺着=躺着的羊

What has been encoded is kept, so that the next run is quick: in the folder cliplab of your user
cache, or in $CLIPLAB_CACHE; --no-cache does without."""

EPILOG = """\
examples:
  cliplab classify photos --labels "a sheep standing" "a sheep lying down"
  cliplab classify flock --html gallery.html                   sub-folders are the classes
  cliplab classify flock --labels lying="a sheep lying down" standing="a sheep standing"
  cliplab classify flock --encoder pasture-zh --template "{}的羊"       sub-folders 躺着, 站立
  cliplab classify herd.json --images frames --box-scale 1.5 --html gallery.html
  cliplab classify flock --examples flock --shots 16           learn from a part, judge the rest
  cliplab classify barn --examples flock --save-classifier sheep.safetensors
  cliplab classify barn2 --classifier sheep.safetensors --out scores.csv

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""

ENCODERS = (
    "pasture, pasture-zh, openai:<name or .pt>, modelscope:<id>[@revision] or <folder>, "
    "hf:<repo>[@revision] or <folder>, open_clip:<architecture>/<tag or file>"
)


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the photos are."""

    boxes: Annotated[Path | None, opt("JSON", "COCO file with boxes for the folder SOURCE")] = None
    box_scale: Annotated[
        float, opt("X", "enlarge boxes about their centres, 1.5 takes in surroundings")
    ] = 1.0
    unlabelled: Annotated[
        Flag, opt(None, "sub-folders and label columns are no truth: do not judge by them")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What there is to choose between."""

    labels: Annotated[
        tuple[str, ...] | None,
        opt(
            "LABEL ...",
            "two or more, apart by spaces or commas; quote labels that contain spaces; "
            "CLASS=PROMPT gives a class its text; default: the classes of SOURCE",
        ),
    ] = None
    template: Annotated[
        tuple[str, ...],
        opt("TEXT ...", 'prompts with {} for the label, averaged, such as "a photo of a {}."'),
    ] = ("{}",)
    truncate: Annotated[Flag, opt(None, "cut prompts that are too long for the encoder")] = False


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Learning from examples."""

    examples: Annotated[
        Path | None,
        opt(
            "LABELLED",
            "fit a classifier on this labelled source; the same as SOURCE: fit on its train and "
            "val parts, judge on test, and make these parts where there are none",
        ),
    ] = None
    method: Annotated[str, opt("NAME", f"how to learn: {', '.join(METHODS)}")] = METHODS[0]
    shots: Annotated[int | None, opt("K", "use K examples of each class; default: all")] = None
    seed: Annotated[int, opt("N", "of splits and of the choice of shots")] = 0
    save_classifier: Annotated[Path | None, opt("FILE", "keep what was fitted")] = None
    classifier: Annotated[Path | None, opt("FILE", "use what was kept")] = None


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What reads photos and texts."""

    encoder: Annotated[str, opt("SPEC", ENCODERS)] = "pasture"
    precision: Precision = "float32"
    device: Device = "auto"
    batch_size: BatchSize = 64
    offline: Offline = False
    no_cache: Annotated[Flag, opt(None, "neither use nor keep embeddings")] = False


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("CSV", "the scores of every image")] = None


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `classify` can be told."""

    pictures: Pictures
    classes: Classes = field(default_factory=Classes)
    learning: Learning = field(default_factory=Learning)
    encoder: Encoding = field(default_factory=Encoding)
    outputs: Written = field(default_factory=Written)


def run(options: Options) -> int:
    """Classify the source, print the table and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad labels, source, outputs or encoder; with the remedy.
    """
    return work(Classify(options))


class Classify(Job[Options]):
    """Photos in, classes out."""

    most_remarks = 3  # of the diagnosis; the first ones come first for a reason

    def check(self) -> None:
        """Refuse options that exclude each other."""
        learning, box_scale = self.options.learning, self.options.pictures.box_scale
        for other, given in (("--examples", learning.examples), ("--labels", self._labels)):
            if learning.classifier and given:
                raise ValueError(
                    f"--classifier and {other}: a classifier that was kept has its classes and has "
                    f"learned already; drop {other}, or fit a new one without --classifier"
                )
        for option, value in (
            ("--shots", learning.shots),
            ("--save-classifier", learning.save_classifier),
        ):
            if value is not None and not learning.examples:
                raise ValueError(f"{option} without --examples: there is nothing to learn from")
        if learning.method not in METHODS:
            raise ValueError(unknown_name("method", learning.method, METHODS))
        if not 0 < box_scale < math.inf:
            raise ValueError(f"--box-scale: got {box_scale:g}; expected a number above 0, as 1.5")

    @property
    def _labels(self) -> tuple[str, ...] | None:
        return self.options.classes.labels

    def inputs(self) -> dict[str, Path]:
        """SOURCE, and what is read beside it."""
        learning = self.options.learning
        others = {
            "--boxes": self.options.pictures.boxes,
            "--examples": learning.examples,
            "--classifier": learning.classifier,
        }
        return super().inputs() | {option: path for option, path in others.items() if path}

    def outputs(self) -> dict[str, Path | None]:
        """CSV, gallery, report and classifier."""
        return super().outputs() | {"--save-classifier": self.options.learning.save_classifier}

    # ---- the work --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Photos, classes and examples, and what each photo shows if that is known."""
        from cliplab.classification import few_shot
        from cliplab.classification import labels as words
        from cliplab.classification.answer import true_classes
        from cliplab.classification.examples import check_classes, divide

        learning, split = self.options.learning, self.options.pictures.split
        self.fitted = few_shot.load_classifier(learning.classifier) if learning.classifier else None
        self.photos, self.division = self._read(self.options.pictures.source), None
        self.problems = self.photos.problems
        known = self.photos.class_names
        if learning.examples:
            examples = self._read_examples(learning.examples)
            judged = None if self._is_own(learning.examples) else self._part(split)
            self.division = divide(examples, judged, seed=learning.seed)
            self.photos, known = self.division.judged, self.division.train.class_names
            others = (*self.problems, *self.division.train.problems)
            self.problems = tuple(dict.fromkeys(others))
            self.notes = self.division.notes
        else:
            self.photos = self._part(split)
        if not len(self.photos):
            source = self.options.pictures.source
            raise ValueError(f"{source}: no photos left to classify; expected at least one")
        if self.fitted:
            self.classes = words.Classes(self.fitted.class_names, self.fitted.class_names)
        else:
            self.classes = words.resolve_classes(self._labels, known)
        if self.division:
            check_classes(self.division, self.classes.names)
        true_classes(self.photos, self.classes.names)  # refused before a model is loaded
        self.notes = (*self.notes, *filter(None, [self.classes.note]))

    def _is_own(self, where: Path) -> bool:
        return where.resolve() == self.options.pictures.source.resolve()

    def _read(self, where: Path) -> SampleSet:
        """The photos of SOURCE."""
        from cliplab.data import read_photos, read_unlabelled

        given = self.options.pictures
        if given.unlabelled and where.is_dir() and given.kind == "auto" and not given.boxes:
            return read_unlabelled(where)
        photos = read_photos(
            where, kind=given.kind, images=given.images, boxes=given.boxes,
            box_scale=given.box_scale,
        )  # fmt: skip
        if given.unlabelled:
            bare = tuple(replace(photo, label=None) for photo in photos)
            return replace(photos, samples=bare, class_names=())
        return photos

    def _read_examples(self, where: Path) -> SampleSet:
        """Photos to learn from; --kind, --images and --boxes are about SOURCE only."""
        from cliplab.data import read_photos

        if not where.exists():
            raise FileNotFoundError(f"{where}: no such examples; check the name")
        split = self.options.pictures.split
        if self._is_own(where):
            if split not in (None, "test"):
                raise ValueError(
                    f"--split: got {split!r}; expected test, since the classifier is fitted on the "
                    "others of the same source"
                )
            return self.photos
        photos, scale = read_photos(where), self.options.pictures.box_scale
        if scale != 1 and any(photo.box_xyxy for photo in photos):
            return read_photos(where, box_scale=scale)  # as the photos they are for
        return photos

    def _part(self, split: str | None) -> SampleSet:
        if split is None:
            return self.photos
        if len(self.photos) and not self.photos.splits:
            raise ValueError(
                f"--split {split}: no photo of {self.options.pictures.source} has a split; leave "
                "out --split, or give a split column or train/, val/ and test/ folders"
            )
        return self.photos.select(split)

    def load(self) -> None:
        """The encoder, and the kept classifier compared with it."""
        from cliplab import encoders
        from cliplab.classification import few_shot

        given = self.options.encoder
        self.encoder = encoders.load_encoder(
            given.encoder,
            device=given.device,
            offline=True if given.offline else None,
            precision=given.precision,
        )
        if self.fitted:
            path = self.options.learning.classifier
            self.fitted = few_shot.load_classifier(path, encoder=self.encoder)

    def answer(self) -> int:
        """Classify by prompts, or by a classifier, kept or fitted on the examples."""
        from cliplab.classification import answer
        from cliplab.encoders.embeddings import EmbeddingCache

        given, learning, words = self.options.encoder, self.options.learning, self.options.classes
        prompts: dict[str, Any] = {"templates": words.template, "truncate": words.truncate}
        keep = {"on_image": self._keeper()}
        with nullcontext() if given.no_cache else EmbeddingCache() as cache:
            on = answer.Classifying(
                self.encoder, cache, given.batch_size, progress=sys.stderr.isatty()
            )
            if self.fitted:
                found = on.by_classifier(self.photos, self.classes, self.fitted, **keep)
            elif self.division:
                how = answer.Learning(learning.method, learning.shots, learning.seed)
                found = on.by_examples(self.division, self.classes, how, **prompts, **keep)
            else:
                found = on.by_prompts(self.photos, self.classes, **prompts, **keep)
        self.found: Answer = found
        self.unreadable, self.remarks = found.unreadable, found.remarks
        return len(found.kept)

    def _keeper(self) -> Any:
        """What makes a thumbnail of each photo while it is open; None if none is wanted.

        With more photos than cards those to show are opened again, once it is known which; the
        thumbnails of all would not fit in memory.
        """
        from cliplab.report import classification_page as page

        self.thumbnails: dict[int, str] = {}
        if not self.options.outputs.html or len(self.photos) > page.MAX_CARDS:
            return None
        size = page.thumbnail_size(len(self.photos))

        def keep(i: int, image: Image) -> None:
            self.thumbnails[i] = page.thumbnail(image, size=size)

        return keep

    # ---- what is shown and written -----------------------------------------------------------

    def show(self) -> Iterator[str]:
        """The table of images and, where the truth is known, the verdict."""
        found = self.found
        yield from image_table(found.scores, found.names, found.true)
        if found.judged:
            yield from verdict(found.judged, found.before)

    def write(self) -> None:
        """CSV, gallery, classifier and report."""
        outputs, learning = self.options.outputs, self.options.learning
        if outputs.out:
            write_csv(outputs.out, self.found)
        if outputs.html:
            self._write_gallery(outputs.html)
        if learning.save_classifier and self.found.classifier:
            from cliplab.classification import few_shot

            few_shot.save_classifier(
                self.found.classifier, learning.save_classifier, encoder=self.encoder
            )
        if outputs.json:
            write_report(outputs.json, "classify", self.options, **self._report())

    def _write_gallery(self, path: Path) -> None:
        from cliplab.report.classification_page import write_gallery

        note = write_gallery(
            path,
            self.found,
            self.encoder.name,
            title=self.options.pictures.source.resolve().name,
            templates=self.options.classes.template,
            notes=self.notes,
            thumbnails=self.thumbnails,
            unreadable=self._unreadable(),
        )
        complain("note", [note] if note else [])

    def _unreadable(self) -> list[dict[str, str]]:
        names = {photo.path: photo.name for photo in self.photos if photo.box_xyxy is None}
        return unreadable(self.unreadable, names)

    def _report(self) -> dict[str, Any]:
        """Provenance, counts, metrics and mistakes."""
        found, scores = self.found, self.found.scores
        pairs = zip(self.classes.names, self.classes.prompts, strict=True)
        return {
            "encoder": describe(self.encoder),
            "classes": [{"name": name, "prompt": prompt} for name, prompt in pairs],
            "counts": {
                "images": len(self.photos),
                "read": len(found.kept),
                "unreadable": len(found.unreadable),
                "labelled": sum(t is not None for t in found.true),
                "problems": len(self.problems),
            },
            "predicted": {name: scores.predicted_names.count(name) for name in scores.class_names},
            "few_shot": self._few_shot(),
            "assessment": found.judged.as_dict() if found.judged else None,
            "most_wrong": _most_wrong(found),
            "notes": list(self.notes),
            "remarks": list(found.remarks),
            "problems": [str(problem) for problem in self.problems],
            "unreadable": self._unreadable(),
        }

    def _few_shot(self) -> dict[str, Any] | None:
        """How the classifier came to be, and what the prompts alone had reached."""
        from cliplab.classification.assessment import gained

        found, zero_shot = self.found, None
        if found.classifier is None:
            return None
        if found.judged and (before := found.before):
            gain, low, high = gained(before, found.judged)
            zero_shot = {"accuracy": before.accuracy.as_dict(), "gain": [gain, low, high]}
        choices = found.classifier.choices.items()
        plain = str | int | float | bool | None
        return {
            "choices": {
                k: value if isinstance(value, plain) else str(value) for k, value in choices
            },
            "examples": found.shots,
            "zero_shot": zero_shot,
        }


def _most_wrong(found: Answer) -> list[dict[str, Any]]:
    """The most confident mistakes, at most WORST."""
    from cliplab.report.gallery import most_wrong

    names, scores, rows = found.scores.class_names, found.scores, []
    for i in most_wrong(scores, found.true)[:WORST]:
        k, t = int(scores.prediction[i]), found.true[i]
        true = names[t] if t is not None else None
        share = round(float(scores.probability[i, k]), 4)
        rows.append(
            {"file": found.names[i], "true": true, "predicted": names[k], "probability": share}
        )
    return rows


def write_csv(path: Path, found: Answer) -> None:
    """One row per image: file, true class if known, predicted, its doubt, then each label."""
    scores, labels = found.scores, found.scores.class_names
    blocks = {"probability": scores.probability}
    blocks |= {} if scores.cosine is None else {"cosine": scores.cosine}
    blocks |= {} if scores.logit_bias is None else {"independent": scores.independent}
    known = any(t is not None for t in found.true)
    head = ["file", *(["true"] * known), "predicted", "probability", "margin", "entropy"]
    numbers = [scores.probability.amax(1)[:, None], scores.margin[:, None], scores.entropy[:, None]]
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, *(f"{kind}({label})" for kind in blocks for label in labels)])
        for i, name in enumerate(found.names):
            t = found.true[i]
            truth = ["" if t is None else labels[t]] * known
            values = (x for block in (*numbers, *blocks.values()) for x in block[i].tolist())
            row = [name, *truth, scores.predicted_names[i], *(f"{x:.6f}" for x in values)]
            writer.writerow(row)
