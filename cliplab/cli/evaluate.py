"""`cliplab evaluate imagenet`: the protocol of the CLIP paper, on one's own machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cliplab import encoders
from cliplab.classification import imagenet
from cliplab.cli.options import (
    BatchSize,
    Common,
    Device,
    Flag,
    Offline,
    Positional,
    Precision,
    opt,
)
from cliplab.cli.skeleton import Job, complain, named, work
from cliplab.runtime import write_json

ABOUT = """\
Zero-shot accuracy on ImageNet by the protocol of the CLIP paper: each class name in each template,
the mean of the prompts' embeddings as classifier, top-1 and top-5 among all 1,000 classes.

--data holds the validation pictures: val/n01440764/*.JPEG and so on, or ImageNetV2's 0 ... 999, or
all in one folder with the list of their labels beside it. A part of the classes will do for a look;
it is judged among all 1,000 and says so.

Finished chunks are kept in --out: the same command goes on where it was stopped."""

EPILOG = """\
examples:
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32 --limit 2000 --template one
  cliplab evaluate imagenet --data imagenet --encoder hf:OFA-Sys/chinese-clip-vit-large-patch14 \\
      --template chinese

exit codes: 0 finished, 3 some images could not be read, 2 bad arguments or inputs, 130 interrupted:
finished chunks are kept"""

SETS = (
    "openai80, openai7 or simple (the best seven), one (a photo of a ...), bare (the name alone), "
    "chinese or chinese183 (80 or 183, need cn_clip), or texts of your own with {} for the name"
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures of which benchmark."""

    benchmark: Annotated[Literal["imagenet"], Positional, opt("BENCHMARK", "imagenet")]
    data: Annotated[Path, opt("DIR", "folder of the images")]
    split: Annotated[str, opt("NAME", "folder below DIR")] = "val"
    label_list: Annotated[Path | None, opt("FILE", "list of labels of a flat folder")] = None
    limit: Annotated[int | None, opt("N", "judge N images only, evenly spread")] = None


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What stands for a class."""

    template: Annotated[tuple[str, ...], opt("SET", SETS)] = ("openai80",)
    class_names: Annotated[Path | None, opt("FILE", "1,000 names of your own, one a line")] = None
    truncate: Annotated[Flag, opt(None, "cut prompts that are too long for the encoder")] = False


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What reads pictures and prompts."""

    encoder: Annotated[str, opt("SPEC", "as of `cliplab classify`")]
    precision: Precision = "float32"
    device: Device = "auto"
    batch_size: BatchSize = 64
    offline: Offline = False
    cache: Annotated[
        Flag, opt(None, "keep embeddings, so that another --template encodes no image again")
    ] = False


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written."""

    out: Annotated[Path | None, opt("FOLDER", "chunks and result; default: below runs/")] = None
    json: Annotated[Path | None, opt("FILE", "write the result here too")] = None
    force: Annotated[Flag, opt(None, "overwrite FILE")] = False


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `evaluate` can be told."""

    pictures: Data
    prompts: Prompts = field(default_factory=Prompts)
    encoder: Encoding
    outputs: Outputs = field(default_factory=Outputs)


def run(options: Options) -> int:
    """Evaluate, print the result and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad arguments, data, encoder or packages; with the remedy.
    """
    return work(Evaluate(options))


class Evaluate(Job[Options]):
    """ImageNet in, accuracy out."""

    def check(self) -> None:
        """Refuse files that are not there, and sizes of nothing."""
        files = {
            "--label-list": self.options.pictures.label_list,
            "--class-names": self.options.prompts.class_names,
        }
        for option, path in files.items():
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{option}: there is no file {path}")
        sizes = {
            "--batch-size": self.options.encoder.batch_size,
            "--limit": self.options.pictures.limit,
        }
        for option, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{option}: got {value}; expected 1 or more")

    def inputs(self) -> dict[str, Path]:
        """The folder of pictures."""
        return {"--data": self.options.pictures.data}

    def outputs(self) -> dict[str, Path | None]:
        """The copy of the result."""
        return {"--json": self.options.outputs.json}

    def prepare(self) -> None:
        """Prompts and pictures."""

        given, words = self.options.pictures, self.options.prompts
        with named("--template"):
            self.prompts = imagenet.read_prompts(*words.template, class_names=words.class_names)
        self.pictures = imagenet.read_validation(
            given.data, self.prompts.wnids, split=given.split, label_list=given.label_list
        ).spread(given.limit)

    def load(self) -> None:
        """The encoder, and the folder that holds this evaluation or will."""

        given = self.options.encoder
        self.encoder = encoders.load_encoder(
            given.encoder,
            device=given.device,
            offline=True if given.offline else None,
            precision=given.precision,
        )
        split, truncate = self.options.pictures.split, self.options.prompts.truncate
        plan = imagenet.make_plan(
            self.encoder, self.prompts, self.pictures, split=split, truncate=truncate
        )
        plan["encoder"]["spec"] = given.encoder
        folder = self.options.outputs.out or imagenet.default_folder(plan)
        self.folder = imagenet.RunFolder.start(folder, plan)
        complain("note", plan["notes"])  # now, since the result may be hours away

    def answer(self) -> int:
        """Compute the chunks that are missing, and put all of them together."""
        given = self.options.encoder
        try:
            imagenet.compute(
                self.folder,
                self.encoder,
                self.prompts,
                self.pictures,
                batch_size=given.batch_size,
                cache=encoders.EmbeddingCache() if given.cache else None,
                progress=True,
            )
        except KeyboardInterrupt:
            where = self.folder.path
            print(f"finished chunks are in {where}; the same command goes on", file=sys.stderr)
            raise
        self.report = imagenet.summarise(self.folder)
        self.unreadable = [f"{file}: {why}" for file, why in self.report["unreadable"].items()]
        return len(self.pictures)  # what cannot be read is judged, too: as wrong

    def show(self) -> Iterator[str]:
        """The result."""

        yield imagenet.as_text(self.report)
        yield f"\nresult in {self.folder.path / 'result.json'}"

    def write(self) -> None:
        """The result beside its chunks, and where else it is wanted."""
        for path in (self.folder.path / "result.json", self.options.outputs.json):
            if path:
                write_json(path, self.report)
