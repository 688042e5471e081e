"""`cliplab segment SOURCE --labels ...`: a label for every pixel, judged where masks are known."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from cliplab import classification, data, report, segmentation, viz
from cliplab.cli.options import EXIT_CODES, Call, Common, Device, Offline, Outputs, Source, opt
from cliplab.cli.skeleton import Job, complain, named, refuse_inputs, report_of, targets_in
from cliplab.cli.tables import segment_labels, segment_table, segment_verdict
from cliplab.runtime import write_json

ABOUT = """\
Give every pixel one of your labels, with a model that learned from captions alone (GroupViT).

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. A label is a
name, or a name with the words that stand for it: --labels 羊=sheep person="man|woman|child"

What is none of your labels needs words, too, since no caption ever said "background": --background
with words for what else may be there, --threshold for pixels that no label fits, or both.

Where masks are known, the answer is judged: mean IoU, the IoU of each label, IoU at the borders,
and the oracle's: every group with its best true label, what the masks alone are worth. Masks are
those of a COCO JSON, or label PNGs with classes.txt, one name a line: NAME_labels.png beside the
pictures, NAME_labels.png or NAME.png in --truth."""

EPILOG = """\
examples:
  cliplab segment flock --labels sheep dog --background grass sky tree --html gallery.html
  cliplab segment flock --labels sheep --background --out masks        the usual backgrounds
  cliplab segment flock --labels 羊 狗 草地 天空 --out masks --panoptic masks.json
  cliplab segment herd.json --images frames --labels sheep goat --background grass sky
  cliplab segment photos --labels sheep --background --model hf:nvidia/groupvit-gcc-yfcc
"""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the pictures are."""

    truth: Annotated[Path | None, opt("PATH")] = None
    """masks to judge by: a COCO JSON, or a folder of label PNGs and classes.txt (default: those of
    SOURCE)"""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to look for."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """each quoted if it contains spaces; commas divide a single argument only; LABEL=WORD|WORD
    gives a label its words; default: the classes of the known masks"""
    background: Annotated[tuple[str, ...] | None, opt("[WORD ...]")] = None
    """words for all that is none of the labels; without words the usual ones that mean none of
    them: the 26 that papers use, or for models of the pasture its landscape"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The model, and how it is read; the rest is as its card chose on val."""

    model: Annotated[str, opt("NAME")] = "pasture"
    """pasture (shipped), hf:nvidia/groupvit-gcc-yfcc (photographs), or the path of a GroupViT"""
    threshold: Annotated[float | None, opt("S")] = None
    """pixels whose best score is lower become background, 0 to 1; one that no group of a picture
    reaches is lowered to the best of them"""
    template: Annotated[tuple[str, ...] | None, opt("TEXT ...")] = None
    """prompts with {} for the word, averaged, such as "a photo of a {}." """
    device: Device = "auto"
    offline: Offline = False

    def given(self) -> dict[str, Any]:
        """The fields of the library's settings that the command line does not leave open."""
        found = {"threshold": self.threshold, "templates": self.template}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("FOLDER")] = None
    """NAME_labels.png (a palette: PIL reads the numbers of labels, OpenCV colours) and
    NAME_overlay.png of each image and, last, summary.json"""
    panoptic: Annotated[Path | None, opt("JSON")] = None
    """COCO panoptic segments; their PNGs go to a folder of the same name"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `segment` can be told."""

    pictures: Pictures
    words: Words = field(default_factory=Words)
    model: Reading = field(default_factory=Reading)
    outputs: Written = field(default_factory=Written)


SUMMARY = "summary.json"
_FILES = ("labels", "overlay")  # how the summary calls those of a picture


class Segment(Job[Options]):
    """Pictures and words in, a label for every pixel out."""

    reads = ("source", "truth")
    for_photographs = "--model hf:nvidia/groupvit-gcc-yfcc"
    writes = ("panoptic", "html", "json")  # folders are looked at when the pictures are known
    masks: Mapping[Path, tuple[Path, ...]] = {}  # files of --out
    segments: Mapping[Path, tuple[Path, ...]] = {}  # files of --panoptic

    def check(self) -> None:
        """Refuse numbers out of range."""
        segmentation.Settings(**self.options.model.given())

    def prepare(self) -> None:
        """Pictures, what is known of their pixels, and words; refuse folders that hold results."""
        given = self.options.pictures
        found = data.read_pictures(given.source, kind=given.kind, images=given.images)
        if not data.is_image_name(given.source):  # one that is chosen is read, whatever it is
            found = segmentation.without_labels(found)
        self.pictures, notes = segmentation.read_truth(self.part(found), given.truth)
        of_boxes = {data.ProblemKind.CROWD, data.ProblemKind.NO_BOX}
        self.problems = [one for one in found.problems if one.kind not in of_boxes]
        self._read_words()
        self._compare_classes(notes)
        self.notes = notes
        self._find_targets()

    def _read_words(self) -> None:
        """Labels and background; refused before a model is loaded."""
        given, known = self.options.words, self._known_classes()
        if given.labels is not None:
            with named("--labels"):
                self.labels = segmentation.read_labels(given.labels)
        else:
            names = [name for name in known if not classification.is_nothing(name)]
            self.labels = {name: (name.replace("_", " "),) for name in names}
            if not names:
                raise ValueError(
                    "no labels: the source has no masks with classes; give --labels, such as "
                    "--labels sheep dog --background grass sky tree"
                )
        threshold = self.options.model.threshold
        background: tuple[str, ...] | None = None if threshold is None else ()
        if given.background is not None:  # without words the usual ones, which depend on the model
            words = classification.split_labels(given.background) or given.background
            if not all(map(str.strip, words)):
                raise ValueError("--background: got an empty text; expected words, or none at all")
            background = tuple(words) or ("?",)
        self.vocabulary = segmentation.vocabulary(self.labels, background=background)
        if len(self.vocabulary.names) > segmentation.MAX_LABELS:
            raise ValueError(
                f"--labels: got {len(self.labels)}; expected at most {segmentation.MAX_LABELS} "
                "with the background, since a label is one byte of a PNG"
            )

    def _known_classes(self) -> tuple[str, ...]:
        return next((one.masks.names for one in self.pictures if one.masks), ())

    def _compare_classes(self, notes: list[str]) -> None:
        """Say what the masks that are known judge; drop those that say nothing about the labels."""
        if known := self._known_classes():
            judged, said = segmentation.compare_classes(self.vocabulary, known)
            notes.append(said)
            if not judged:
                bare = tuple(replace(one, masks=None) for one in self.pictures)
                self.pictures = replace(self.pictures, samples=bare)
        elif any(one.regions for one in self.pictures):
            notes.append("not judged: the source has boxes, but no masks")

    def _find_targets(self) -> None:
        """The files of each picture; refuse those in the place of others."""
        outputs = self.options.outputs
        masks = {one.masks.png.resolve() for one in self.pictures if one.masks and one.masks.png}
        how: dict[str, Any] = {"kept": masks, "force": outputs.force}
        if folder := outputs.out:
            self._refuse_inside("--out", folder, folder)
            refuse_inputs("--out", summary := folder / SUMMARY, self.files(self.reads))
            ends = (segmentation.LABELS, segmentation.OVERLAY)
            self.masks = targets_in(
                folder, self.pictures, ends, option="--out", besides=[summary], **how
            )
        if outputs.panoptic:
            folder = segmentation.panoptic_folder(outputs.panoptic)
            self._refuse_inside("--panoptic", outputs.panoptic, folder)
            self.segments = targets_in(folder, self.pictures, [".png"], option="--panoptic", **how)

    def _refuse_inside(self, option: str, given: Path, folder: Path) -> None:
        """Refuse PNGs among the pictures, where they would be read the next time."""
        source, root = self.options.pictures.source.resolve(), self.pictures.root.resolve()
        inside = source.is_dir() and folder.resolve().is_relative_to(source)
        if inside or folder.resolve() == root:
            raise ValueError(
                f"{option} {given}: its PNGs would go to {folder}, among the pictures of SOURCE; "
                "choose another name"
            )

    def load(self) -> None:
        """The model, what its card chose on val, and the words that it reads."""
        given, notes = self.options.model, list[str]()
        self.segmenter = segmentation.load_segmenter(
            given.model, device=given.device, offline=True if given.offline else None
        )
        self.drawn = self.pictures if self.segmenter.model.vocab else ()
        if self.options.words.background == ():
            words = segmentation.usual_background(self.segmenter, self.labels)
            notes.append(f"words for the background: {', '.join(words) or 'none that it reads'}")
            self.vocabulary = segmentation.vocabulary(self.labels, background=words)
        language = segmentation.language_of([w for own in self.labels.values() for w in own])
        tuned = segmentation.tuned_settings(self.segmenter.path, language)
        templates = segmentation.own_templates(
            self.segmenter, self.vocabulary.words, best=tuned.pop("templates", None)
        )
        self.settings = segmentation.Settings(**{"templates": templates} | tuned | given.given())
        if tuned:
            offsets = "an offset for each class" if tuned.pop("offsets", None) else "no offsets"
            said = ", ".join(f"{name} {value}" for name, value in tuned.items())
            notes.append(f"read as the model's card chose on val: {said}, {offsets}")
        self.segmenter.embed(self.vocabulary.words, self.settings.templates)
        complain("note", notes)
        self.notes = [*self.notes, *notes]
        asked = self.segmenter, self.vocabulary
        self.remarks = [*segmentation.unread_remarks(*asked), *segmentation.weak_remarks(*asked)]
        names, background = self.vocabulary.names, self.vocabulary.has_background
        words_of = [self.vocabulary.words_of(k) for k in range(len(names))]
        self.colours = tuple(viz.class_colours(names, words_of, has_background=background).values())

    def answer(self) -> int:
        """Picture after picture; one is in memory at a time, whatever their number."""
        from tqdm import tqdm

        outputs = self.options.outputs
        if outputs.out:  # what a former run says of masks that are now written over
            (outputs.out / SUMMARY).unlink(missing_ok=True)
        self.judge = segmentation.Judge(self._known_classes(), self.vocabulary)
        self.panoptic = None
        if outputs.panoptic:
            names = self.vocabulary.names
            self.panoptic = segmentation.Panoptic(
                outputs.panoptic, names, self.colours, self.pictures
            )
        self.shown, self.side = set[Path](), 0
        if outputs.html:
            paths = [one.path for one in self.pictures]
            self.shown, self.side = report.choose_pictures(paths)
        self.cards: dict[Path, report.segmentation_page.Card] = {}
        self.found: list[segmentation.PictureRow] = []
        self.unreadable = []
        for sample in tqdm(self.pictures, unit="picture", disable=not sys.stderr.isatty()):
            try:
                self._answer(sample)
            except data.UnreadableImage as error:
                self.unreadable.append(error)
        complain("problem", self.judge.refused)
        self.problems = [*self.problems, *self.judge.refused]
        return len(self.found)

    def _answer(self, sample: data.Sample) -> None:
        """Judge, write and shrink one picture."""
        image, path, names = data.open_image(sample.path), sample.path, self.vocabulary.names
        (found,) = self.segmenter.segment([image], self.vocabulary, self.settings)
        labels = found.labels_at().numpy()
        true = self.judge.add(sample, found, labels)
        self.found.append(segmentation.PictureRow.of(sample, found, labels))
        if files := self.masks.get(path):
            segmentation.save_png(files[0], segmentation.label_image(labels, self.colours))
            sheet = segmentation.overlay_sheet(image, labels, names, self.colours)
            segmentation.save_png(files[1], sheet)
        if self.panoptic:
            self.panoptic.add(path, labels, self.segments[path][0])
        if path in self.shown:
            self.cards[path] = report.segmentation_page.make_card(
                image, labels, self.colours, side=self.side, true=true
            )

    def show(self) -> Iterator[str]:
        """The pictures, the labels and, where the truth is known, the verdict."""
        quality = self.judge.quality
        self.rows = segmentation.label_rows(self.vocabulary, self.colours, self.found, quality)
        yield from segment_table(self.found, self.vocabulary.names, self.judge)
        yield from segment_labels(self.rows, judged=quality is not None)
        if quality:
            yield from segment_verdict(quality, self.judge.pictures)

    def write(self) -> None:
        """The files about all pictures, each whole or not at all; the summary comes last."""
        outputs = self.options.outputs
        if self.panoptic:
            self.panoptic.write()
        if outputs.html:
            answer = report.segmentation_page.Answer(
                title=f"{self.options.pictures.source.resolve().name}, pixels by label",
                model=self.segmenter.name,
                groups=self.segmenter.groups,
                settings=self.settings,
                pictures=self.found,
                rows=self.rows,
                judge=self.judge,
                notes=self.notes,
                remarks=self.remarks,
                unreadable=self.unreadable,
            )
            report.segmentation_page.write_gallery(outputs.html, answer, self.cards)
        paths = [path for path in (outputs.json, outputs.out and outputs.out / SUMMARY) if path]
        said = self._report() if paths else {}  # once: it hashes the weights
        for path in paths:
            write_json(path, said)

    def _report(self) -> dict[str, Any]:
        """Labels and their numbers and colours, provenance, shares of every picture, quality."""
        vocabulary, judge = self.vocabulary, self.judge
        return report_of(
            "segment",
            self.options,
            model=self.segmenter.describe(),
            settings=asdict(self.settings),
            background=vocabulary.words_of(0) if vocabulary.has_background else None,
            labels=[row.as_dict() for row in self.rows],
            counts={
                "pictures": len(self.pictures),
                "read": len(self.found),
                "unreadable": len(self.unreadable),
                "judged": len(judge.pictures),
            },
            quality=judge.as_dict(),
            pictures=[self._picture(one) for one in self.found],
            **self.told(),
        )

    def _picture(self, one: segmentation.PictureRow) -> dict[str, Any]:
        """One picture: its size, files, groups, shares and, where it was judged, its mean IoU."""
        said = one.as_dict(self.vocabulary.names)
        for kind, path in zip(_FILES, self.masks.get(one.path, ()), strict=False):
            said[kind] = path.relative_to(self.options.outputs.out).as_posix()
        if (value := self.judge.pictures.get(one.path)) is not None:
            said["miou"] = round(value, 4)
        return said


SEGMENT = Call(Options, ABOUT, f"{EPILOG}\n{EXIT_CODES}", Segment.run)
