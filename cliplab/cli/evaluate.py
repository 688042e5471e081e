"""`cliplab evaluate imagenet`: the protocol of the CLIP paper, on one's own machine."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cliplab import classification, encoders
from cliplab.cli.options import CachedEncoding, Call, Common, Flag, Positional, opt, worded
from cliplab.cli.skeleton import Job, complain, describe, loader, named, report_of
from cliplab.cli.tables import aligned
from cliplab.runtime import write_json

ABOUT = """\
Zero-shot accuracy on ImageNet by the protocol of the CLIP paper: each class name in each template,
the mean of the prompts' embeddings as classifier, top-1 and top-5 among all 1,000 classes.

--data holds the validation pictures: val/n01440764/*.JPEG and so on, or ImageNetV2's 0 ... 999. A
part of the classes will do for a look; it is judged among all 1,000 and says so."""

EPILOG = """\
examples:
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32 --limit 2000 \\
      --template "a photo of a {}."

exit codes: 0 finished, 3 some images could not be read, 2 bad arguments or inputs, 130 interrupted:
the same command goes on"""

WORST = 10  # classes in the printed table
SETS = "openai80, openai7 (the best seven), or texts of your own with {} for the name"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures of which benchmark."""

    benchmark: Annotated[Literal["imagenet"], Positional, opt("BENCHMARK")]
    """imagenet"""
    data: Annotated[Path, opt("DIR")]
    """folder of the images"""
    limit: Annotated[int | None, opt("N")] = None
    """judge N images only, evenly spread"""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What stands for a class."""

    template: Annotated[tuple[str, ...], opt("SET", help=SETS)] = ("openai80",)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written."""

    json: Annotated[Path | None, opt("FILE")] = None
    """the result, with how it came about"""
    force: Flag = False
    """overwrite FILE"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `evaluate` can be told."""

    pictures: Data
    prompts: Prompts = field(default_factory=Prompts)
    encoder: CachedEncoding
    outputs: Outputs = field(default_factory=Outputs)


class Evaluate(Job[Options]):
    """ImageNet in, accuracy out."""

    reads = ("data",)

    def check(self) -> None:
        """Refuse a batch of nothing, which would be noticed after the prompts only."""
        if (size := self.options.encoder.batch_size) < 1:
            raise ValueError(f"--batch-size: got {size}; expected 1 or more")

    def prepare(self) -> None:
        """Prompts and pictures."""
        given = self.options.pictures
        with named("--template"):
            self.prompts = classification.imagenet.read_prompts(*self.options.prompts.template)
        pictures = classification.imagenet.read_validation(given.data, self.prompts.wnids)
        self.pictures = pictures.spread(given.limit)

    def load(self) -> None:
        """The encoder."""
        self.encoder = loader(self.options.encoder)()
        names, templates = self.prompts.class_names, self.prompts.templates
        said = classification.complain_of_unread(self.encoder, names, templates)
        self.said = [worded(text, self.options) for text in said]
        complain("note", self.said)  # now, since the result may be hours away

    def answer(self) -> int:
        """Embed words and pictures, as far as the cache does not have them, and judge."""
        given = self.options.encoder
        found = classification.imagenet.evaluate(
            self.encoder,
            self.prompts,
            self.pictures,
            batch_size=given.batch_size,
            cache=None if given.no_cache else encoders.EmbeddingCache(),
            progress=sys.stderr.isatty(),
        )
        about = {"encoder": describe(self.encoder), "notes": self.said}
        self.report = report_of("evaluate", self.options, **about, **found)
        self.unreadable = [f"{file}: {why}" for file, why in self.report["unreadable"].items()]
        return len(self.pictures)  # what cannot be read is judged, too: as wrong

    def show(self) -> Iterator[str]:
        """The result."""
        yield from summary(self.report)
        yield ""
        yield from worst(self.report["per_class"])

    def write(self) -> None:
        """The result."""
        if path := self.options.outputs.json:
            write_json(path, self.report)


def summary(report: Mapping[str, Any]) -> Iterator[str]:
    """Accuracy with intervals, calibration, speed, and what is not as it should be."""
    prompts, encoder = report["prompts"], report["encoder"]
    speed, error = report["images_per_second"], report["calibration_error"]
    count = prompts["templates"]
    yield (f"imagenet val, zero-shot: {report['images']:,} images, {report['classes']:,} classes")
    yield f"encoder  {encoder['name']} ({encoder['precision']}, {encoder['fingerprint'][:12]})"
    yield f"prompts  {prompts['name']}: {count} template{'s' * (count != 1)}, {prompts['source']}"
    yield f"\ntop-1    {_percent(report['top1'])}\ntop-5    {_percent(report['top5'])}"
    yield f"mean recall of the classes {report['mean_class_recall']:.2%}"
    yield "calibration error " + ("unknown" if error is None else f"{error:.2%} (15 bins)")
    yield (
        f"time     {report['seconds']:.1f} s of reading and encoding"
        + (f", {speed:,.1f} images/s on one machine" if speed else "")
        + (" (some embeddings may come from the cache)" if report["cached"] else "")
    )
    if report["unreadable"]:
        yield f"unreadable: {len(report['unreadable'])}, counted as wrong"
        if "readable" in report:
            yield f"  top-1 among the readable {_percent(report['readable']['top1'])}"
    yield from (f"not the whole set: {note}" for note in report["partial"])


def _percent(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2%} ({found['low']:.2%}-{found['high']:.2%}, n={found['n']:,})"


def worst(classes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The classes with the lowest recall, surest failures (more pictures) first."""
    order = sorted(classes, key=lambda c: (c["top1"] / c["n"], -c["n"], c["wnid"]))[:WORST]
    rows = [["worst classes", "mostly taken for", "right", "95 % interval"]]
    for found in order:
        low, high = classification.metrics.wilson_interval(found["top1"], found["n"])
        other = f"{found['taken_for']} ({found['taken_for_times']})" if found["taken_for"] else ""
        right = f"{found['top1']} of {found['n']}"
        rows.append([found["name"][:32], other, right, f"{low:.1%}-{high:.1%}"])
    yield from aligned(rows)


EVALUATE = Call(Options, ABOUT, EPILOG, Evaluate.run)
