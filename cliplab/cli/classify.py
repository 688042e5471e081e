"""`cliplab classify SOURCE`: photos sorted by labels, judged where the truth is known."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cliplab import classification, data, encoders, report
from cliplab.cli.options import EXIT_CODES, CachedEncoding, Call, Common, Flag, Outputs, Source, opt
from cliplab.cli.skeleton import PASTURE, Job, besides, complain, describe, loader, named, report_of
from cliplab.cli.tables import classify_table, classify_verdict
from cliplab.runtime import write_json

Method = Literal[
    "text-probe", "linear-probe", "tip-adapter", "coop", "wise-ft", "temperature", "zero-shot",
]  # fmt: skip
DEFAULT = "text-probe"  # in notebook 02 it gained most of those that take no time to fit
ABOUT = """\
Sort photos by labels of your own, without training, and see how well it went.

SOURCE is a folder of images (flat; or one sub-folder per class; or train, val and test with those),
a CSV manifest, a COCO JSON, or a YOLO folder or data.yaml. Each box becomes a crop of its own.

Where the source knows the classes, they are the labels, and the answer is judged: accuracy with
its interval, confusion, calibration, and the worst mistakes first. The text that stands for a class
is its name, or what you write for it: --labels lying="a sheep lying down" 躺着=躺着的羊"""

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
"""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the photos are."""

    boxes: Annotated[Path | None, opt("JSON")] = None
    """COCO file with boxes for the folder SOURCE"""
    box_scale: Annotated[float, opt("X")] = 1.0
    """enlarge boxes about their centres, 1.5 takes in surroundings"""
    unlabelled: Flag = False
    """sub-folders and label columns are no truth: do not judge by them"""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What there is to choose between."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """two or more, each quoted if it contains spaces; commas divide a single argument only;
    CLASS=PROMPT gives a class its text; default: the classes of SOURCE"""
    template: Annotated[tuple[str, ...], opt("TEXT ...")] = ("{}",)
    """prompts with {} for the label, averaged, such as "a photo of a {}." """
    truncate: Flag = False
    """cut prompts that are too long for the encoder"""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Learning from examples."""

    examples: Annotated[Path | None, opt("LABELLED")] = None
    """fit a classifier on this labelled source; the same as SOURCE: fit on its train and val parts,
    judge on test, and make these parts where there are none"""
    method: Method | None = None
    """how to learn; default: text-probe"""
    shots: Annotated[int | None, opt("K")] = None
    """use K examples of each class; default: all"""
    seed: Annotated[int, opt("N")] = 0
    """of splits and of the choice of shots"""
    save_classifier: Annotated[Path | None, opt("FILE")] = None
    """keep what was fitted"""
    classifier: Annotated[Path | None, opt("FILE")] = None
    """use what was kept"""


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("CSV")] = None
    """the scores of every image"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `classify` can be told."""

    pictures: Pictures
    classes: Classes = field(default_factory=Classes)
    learning: Learning = field(default_factory=Learning)
    encoder: CachedEncoding = field(default_factory=lambda: CachedEncoding(encoder="pasture"))
    outputs: Written = field(default_factory=Written)


class Classify(Job[Options]):
    """Photos in, classes out."""

    most_remarks = 3  # of the diagnosis; the first ones come first for a reason
    for_photographs = "--encoder, such as openai:ViT-B/32"
    reads = ("source", "boxes", "examples", "classifier")
    writes = ("out", "html", "json", "save_classifier")

    def check(self) -> None:
        """Refuse options that exclude each other."""
        learning, labels = self.options.learning, self.options.classes.labels
        for other, given in (("--examples", learning.examples), ("--labels", labels)):
            if learning.classifier and given:
                raise ValueError(
                    f"--classifier and {other}: a classifier that was kept has its classes and has "
                    f"learned already; drop {other}, or fit a new one without --classifier"
                )
        for option, value in (
            ("--method", learning.method),
            ("--shots", learning.shots),
            ("--save-classifier", learning.save_classifier),
        ):
            if value is not None and not learning.examples:
                raise ValueError(f"{option} without --examples: there is nothing to learn from")
        if learning.shots is not None and learning.shots < 1:
            raise ValueError(f"--shots: got {learning.shots}; expected 1 or more")

    def prepare(self) -> None:
        """Photos, classes and examples, and what each photo shows if that is known."""
        learning, load = self.options.learning, classification.few_shot.load_classifier
        self.fitted = load(learning.classifier) if learning.classifier else None
        self.photos, self.division = self._read(self.options.pictures.source), None
        self.problems, known = self.photos.problems, self.photos.class_names
        if learning.examples:
            examples = self._read_examples(learning.examples)
            judged = None if self._is_own(learning.examples) else self.part(self.photos)
            self.division = classification.divide(examples, judged, seed=learning.seed)
            self.photos, known = self.division.judged, self.division.train.class_names
            self.problems = tuple(dict.fromkeys((*self.problems, *examples.problems)))
        else:
            self.photos = self.part(self.photos)
        if not len(self.photos):
            source = self.options.pictures.source
            raise ValueError(f"{source}: no photos left to classify; expected at least one")
        if self.fitted:
            self.photos, note = classification.unlearned(self.photos, self.fitted.learned)
            names = self.fitted.class_names
            self.classes = classification.Classes(names, names, note)
        else:
            with named("--labels"):
                self.classes = classification.resolve_classes(self.options.classes.labels, known)
        classification.true_classes(self.photos, self.classes.names)  # refused before a model loads
        self.notes = list(self.division.notes if self.division else ())
        self.notes += [self.classes.note] if self.classes.note else []

    def _is_own(self, where: Path) -> bool:
        return where.resolve() == self.options.pictures.source.resolve()

    def _read(self, where: Path) -> data.SampleSet:
        """The photos of SOURCE."""
        given = self.options.pictures
        if given.unlabelled and where.is_dir() and given.kind == "auto" and not given.boxes:
            return data.read_pictures(where, kind="folder")
        photos = data.read_photos(
            where, kind=given.kind, images=given.images, boxes=given.boxes,
            box_scale=given.box_scale,
        )  # fmt: skip
        if given.unlabelled:
            bare = tuple(replace(photo, label=None) for photo in photos)
            return replace(photos, samples=bare, class_names=())
        return photos

    def _read_examples(self, where: Path) -> data.SampleSet:
        """Photos to learn from; --kind, --images and --boxes are about SOURCE only."""
        split = self.options.pictures.split
        if self._is_own(where):
            if split not in (None, "test"):
                raise ValueError(
                    f"--split: got {split!r}; expected test, since the classifier is fitted on the "
                    "others of the same source"
                )
            return self.photos
        with besides():
            photos = data.read_photos(where)
        scale = self.options.pictures.box_scale
        if scale != 1 and any(photo.box_xyxy for photo in photos):
            return data.read_photos(where, box_scale=scale)  # as the photos they are for
        return photos

    def load(self) -> None:
        """The encoder, and the kept classifier compared with it."""
        self.encoder = loader(self.options.encoder)()
        if self.fitted:
            self.fitted.check_encoder(self.encoder)
        self.drawn = self.photos if self.encoder.name in PASTURE else ()

    def answer(self) -> int:
        """Classify by prompts, or by a classifier, kept or fitted on the examples."""
        given, learning, words = self.options.encoder, self.options.learning, self.options.classes
        on = classification.Classifying(
            self.encoder,
            None if given.no_cache else encoders.EmbeddingCache(),
            given.batch_size,
            templates=words.template,
            truncate=words.truncate,
            progress=sys.stderr.isatty(),
        )
        if self.fitted:
            found = on.by_classifier(self.photos, self.classes, self.fitted)
        elif self.division:
            how = {"shots": learning.shots, "seed": learning.seed}
            found = on.by_examples(self.division, self.classes, learning.method or DEFAULT, **how)
        else:
            found = on.by_prompts(self.photos, self.classes)
        self.found: classification.Answer = found
        self.unreadable, self.remarks = found.unreadable, found.remarks
        return len(found.kept)

    def show(self) -> Iterator[str]:
        """The table of images and, where the truth is known, the verdict."""
        found = self.found
        yield from classify_table(found)
        if found.judged:
            yield from classify_verdict(found.judged, found.before)

    def write(self) -> None:
        """CSV, gallery, classifier and report."""
        outputs, learning = self.options.outputs, self.options.learning
        if outputs.out:
            self.found.write_csv(outputs.out)
        if outputs.html:
            self._write_gallery(outputs.html)
        if learning.save_classifier and self.found.classifier:
            save = classification.few_shot.save_classifier
            save(self.found.classifier, learning.save_classifier)
        if outputs.json:
            write_json(outputs.json, report_of("classify", self.options, **self._report()))

    def _write_gallery(self, path: Path) -> None:
        note = report.classification_page.write_gallery(
            path,
            self.found,
            self.encoder.name,
            title=self.options.pictures.source.resolve().name,
            templates=self.options.classes.template,
            notes=[*self.notes, *self.remarks],
            unreadable=self.told(self._names)["unreadable"],
        )
        complain("note", [note] if note else [])

    @property
    def _names(self) -> dict[Path, str]:
        """How the source calls its files."""
        return {photo.path: photo.name for photo in self.photos if photo.box_xyxy is None}

    def _report(self) -> dict[str, Any]:
        """Provenance, counts, metrics and mistakes."""
        found = self.found
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
            **found.as_dict(),
            **self.told(self._names),
        }


CLASSIFY = Call(Options, ABOUT, f"{EPILOG}\n{EXIT_CODES}", Classify.run)
