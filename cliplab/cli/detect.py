"""`cliplab detect SOURCE`: boxes with names, in pictures that nobody labelled for it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from cliplab import data, detection, report
from cliplab.cli.options import EXIT_CODES, Call, Common, Outputs, Source, opt
from cliplab.cli.skeleton import (
    PASTURE,
    Job,
    besides,
    complain,
    describe,
    named,
    report_of,
    targets_in,
)
from cliplab.cli.tables import detect_classes, detect_table, detect_verdict
from cliplab.detection import MODELS, Settings, check_settings, parse_model
from cliplab.runtime import atomic_write, write_json

ABOUT = """\
Find what you have words for: boxes with names and scores, in pictures that nobody labelled for it.

SOURCE is a folder of images, one image, a COCO JSON, a CSV manifest or a YOLO folder. Labels are
words of your own, not only those that the detector learned boxes for. The text that stands for a
label is its name, or what you write for it: --labels 躺着的羊="sheep lying down"
A GLIP may be asked with a list or a sentence instead, in the languages that it was trained on:
--phrases "the [black goat] left of the [trough]". Without brackets it looks for the things between
the relations.

Where SOURCE (or --boxes) knows boxes of these labels, the answer is judged: average precision,
hits and misses for each label. The models:
""" + "\n".join(
    textwrap.fill(
        f"  {name:8} {model.help}", 96, subsequent_indent=" " * 11, break_on_hyphens=False
    )
    for name, model in MODELS.items()
)

EPILOG = """\
examples:
  cliplab detect flock --labels "sheep lying down" "sheep standing" goat --html gallery.html
  cliplab detect flock --labels 躺着的羊="sheep lying down" 山羊=goat --pictures drawn
  cliplab detect herd.json --images frames --out found.json    boxes of herd.json judge it
  cliplab detect frames --labels sheep goat --boxes herd.json  name these boxes, find none
  cliplab detect flock --labels 躺着的羊 站着的羊 --model crops --teacher pasture-zh
  cliplab detect flock --labels sheep goat --model vild:runs/mine --score 0.5
  cliplab detect flock --model glip --phrases "the [sheep] near the [tree]"
  cliplab detect photos --model glip-t:glip_tiny_model_o365_goldg_cc_sbu.pth --phrases "a sheep"
"""


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """Where the pictures are."""

    boxes: Annotated[Path | None, opt("FILE")] = None
    """name these boxes instead of finding some: COCO JSON, CSV or YOLO with paths relative to
    SOURCE"""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What to look for."""

    labels: Annotated[tuple[str, ...] | None, opt("LABEL ...")] = None
    """each quoted if it contains spaces; commas divide a single argument only; LABEL=PROMPT gives a
    label its text; default: the classes of SOURCE's boxes"""
    phrases: Annotated[tuple[str, ...] | None, opt("TEXT ...")] = None
    """of a GLIP, instead of --labels: a list or a sentence, quoted; [brackets] mark the phrases of
    a sentence, else those between its relations are found"""
    model: Annotated[str, opt("NAME")] = "vild"
    """see above"""


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("JSON")] = None
    """boxes and scores as COCO; pictures and classes of a COCO SOURCE keep their ids"""
    pictures: Annotated[Path | None, opt("FOLDER")] = None
    """the pictures with boxes drawn in"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `detect` can be told."""

    pictures: Pictures
    words: Words = field(default_factory=Words)
    settings: Annotated[Settings, tyro.conf.FlagCreatePairsOff] = field(default_factory=Settings)
    outputs: Written = field(default_factory=Written)


class Detect(Job[Options]):
    """Pictures and words in, boxes out."""

    for_photographs = "--model glip-t:PATH, or --model crops --teacher openai:ViT-B/32"
    reads = ("source", "boxes")
    targets: Mapping[Path, tuple[Path, ...]] = {}  # copies with boxes

    def check(self) -> None:
        """Refuse options that exclude each other or mean nothing to the model."""
        words, boxes = self.options.words, self.options.pictures.boxes
        if words.phrases is not None and words.labels is not None:
            raise ValueError("--labels and --phrases: both say what to look for; expected one")
        others = {"boxes": boxes, "phrases": words.phrases}
        given = [name for name, value in others.items() if value is not None]
        check_settings(parse_model(words.model)[0], self.options.settings, *given)
        with named("--phrases"):
            read, phrases = detection.read_phrases, words.phrases
            self.prompt = None if phrases is None else read(phrases)

    def prepare(self) -> None:
        """Pictures, words, boxes to name, and whether the answer can be judged."""
        words, notes = self.options.words, list[str]()
        self._read_pictures()
        known = detection.labels_of(self.pictures)
        if self.prompt:
            _, self.classes = detection.as_prompt(self.prompt)
            notes.append(detection.phrases_note(self.prompt, words.phrases or ()))
        else:
            with named("--labels"):
                self.classes = detection.read_labels(words.labels, known)
        if self.answers:
            notes.append(
                "the boxes have scores, so a detector drew them: their classes are its answers, "
                "not the truth, and nothing is judged by them"
            )
        self.can_judge = not (self.prompt and detection.relating_words(self.prompt))
        notes.append(self._on_truth(known))
        self.notes = list(dict.fromkeys(filter(None, notes)))
        if folder := self.options.outputs.pictures:
            force = self.options.outputs.force
            self.targets = targets_in(
                folder, self.pictures, [".jpg"], option="--pictures", force=force
            )

    def _read_pictures(self) -> None:
        """The pictures with what is known of them, and the boxes that are to be named."""
        given = self.options.pictures
        found = data.read_pictures(given.source, kind=given.kind, images=given.images)
        self.pictures = self.part(found)
        self.problems, self.answers = self.pictures.problems, self.pictures.are_answers
        self.ids = self.pictures.ids
        self.given = None
        if given.boxes is not None:
            with besides():
                told = data.read_pictures(given.boxes, images=self.pictures.root)
            self.given = detection.with_boxes(self.pictures, told)
            self.problems = tuple(dict.fromkeys((*self.problems, *told.problems)))
            self.ids = self.ids if self.ids.images else told.ids
            if not any(one.regions for one in self.pictures):  # then the file is all that is known
                self.answers |= told.are_answers
                self.pictures = self.given

    def load(self) -> None:
        """The model, and the words as it understands them."""
        words, settings = self.options.words, self.options.settings
        given = self.given is not None
        self.detector = detection.load_detector(words.model, settings)
        teacher, (kind, _, _) = self.detector.teacher, words.model.partition(":")
        ours = teacher.name in PASTURE if teacher else kind not in detection.PUBLISHED
        self.drawn = self.pictures if ours else ()
        with named("--phrases" if self.prompt else "--labels"):
            self.query = self.detector.read(self.prompt or self.classes)
        self.cut = settings.cut(given=given, score=self.query.score)
        notes = [*self.query.notes]
        if settings.score is None and not given and self.query.threshold:
            notes.append(detection.threshold_note(self.query))
        complain("note", notes)
        self.notes = [*self.notes, *notes]
        self.remarks = self.query.remarks

    def answer(self) -> int:
        """Find, and judge by what is known."""
        self.found = detection.find(
            self.detector, self.pictures, self.query, self.cut, given=self.given,
            on_found=self._keeper(), progress=sys.stderr.isatty(),
        )  # fmt: skip
        self.unreadable = self.found.unreadable
        self.judged = None
        if self.can_judge:
            self.judged = detection.judge(self.found, self.query, self.ids)
        self.rows = detection.summarise(self.found, self.query, self.judged)
        return len(self.found)

    def _keeper(self) -> Any:
        """What is done with a picture while it is open: its thumbnail, its copy with boxes."""
        self.thumbnails: dict[Path, str] = {}
        wanted, side = set[Path](), 0
        if self.options.outputs.html:
            wanted, side = report.choose_pictures([one.path for one in self.pictures])

        def keep(picture: data.Sample, image: Any, found: detection.Detections) -> None:
            if picture.path in wanted:
                self.thumbnails[picture.path] = report.thumbnail(image, size=side)
            for path in self.targets.get(picture.path, ()):
                with atomic_write(path) as file:
                    detection.annotated(image, found).save(file, "JPEG", quality=90, optimize=True)

        return keep

    def _on_truth(self, known: Sequence[str]) -> str:
        """Whether boxes of the source will judge, and why not; "" if it has none."""
        asked = detection.match(self.classes, known)
        if not known:
            return ""
        if not asked:
            return (
                f"not judged: none of the labels is a class of the boxes ({data.some(known, 6)}); "
                f'name them as they are called, as in --labels {known[0]}="what it looks like"'
            )
        if not self.can_judge:
            return (
                f"not judged: the sentence asks for some {data.some(asked, 6)}, the source knows "
                "all; a list is judged, with a comma between its phrases"
            )
        left = data.some([name for name in known if name not in asked], 6)
        others = f"; boxes of {left} were not asked for and count as nothing" if left else ""
        return (
            f"the source knows boxes of {len(set(asked.values()))} of the "
            f"{len(self.classes.names)} labels, by which the answer is judged{others}"
        )

    def show(self) -> Iterator[str]:
        """The pictures, the classes and, where the truth is known, the verdict."""
        yield from detect_table(self.found)
        yield from detect_classes(self.rows, self.judged)
        yield from detect_verdict(self.judged) if self.judged else ()

    def write(self) -> None:
        """COCO, gallery and report."""
        outputs, about = self.options.outputs, self.detector.describe(self.query)
        if outputs.out:
            write_json(
                outputs.out, detection.as_coco(self.found, self.classes, ids=self.ids, model=about)
            )
        if outputs.html:
            report.detection_page.write_gallery(
                outputs.html, self.detector, self.query, self.found, self.rows, judged=self.judged,
                thumbnails=self.thumbnails, notes=[*self.remarks, *self.notes],
                title=f"{self.options.pictures.source.resolve().name}, boxes by label",
            )  # fmt: skip
        if outputs.json:
            write_json(outputs.json, report_of("detect", self.options, **self._report(about)))

    def _report(self, about: dict[str, Any]) -> dict[str, Any]:
        """Provenance, counts and numbers of each class."""
        teacher, judged = self.detector.teacher, self.judged
        pairs = zip(self.classes.names, self.classes.prompts, strict=True)
        return {
            "model": about,
            "cut": asdict(self.found.cut),
            "teacher": describe(teacher) if teacher is not None else None,
            "classes": [{"name": name, "prompt": prompt} for name, prompt in pairs],
            "counts": {
                "pictures": len(self.pictures),
                "read": len(self.found),
                "unreadable": len(self.found.unreadable),
                "boxes": self.found.boxes,
                "judged": len(judged.missed) if judged else 0,
            },
            "summary": [row.as_dict() for row in self.rows],
            "precision": judged and {name: one.as_dict() for name, one in judged.groups.items()},
            "precision_of_out": judged and judged.counting.as_dict(),
            **self.told(),
        }


DETECT = Call(Options, ABOUT, f"{EPILOG}\n{EXIT_CODES}", Detect.run)
