"""`cliplab embed SOURCE --out FOLDER`: a large collection as embeddings in Parquet files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cliplab import data, scale
from cliplab.cli.options import EXIT_CODES, Call, Common, Encoding, Flag, Positional, opt
from cliplab.cli.skeleton import MAX_COMPLAINTS, PASTURE, Job, loader, work

ABOUT = """\
Embed a collection of any size, once, so that it can be searched: `cliplab search`.

SOURCE is a folder of pictures or of tar shards as WebDataset has them, a tar file, a table (CSV; or
Parquet with a column image of paths and, if they shall have other names, key), COCO or YOLO boxes.

FOLDER gets Parquet files with the columns key, embedding, width, height, sha256 and error: a
picture that cannot be read is a row with its error. Stopped, the same command goes on; what has a
row already is not computed again."""

EPILOG = """\
examples:
  cliplab embed photos --encoder openai:ViT-B/32 --out photos.embeddings
  cliplab embed shards --encoder hf:google/siglip2-base-patch16-224 --out shards.embeddings
  cliplab embed photos --out photos.embeddings --engine ray --address 10.0.0.5:6379
"""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where the pictures are."""

    source: Annotated[Path, Positional, opt("SOURCE")]
    """pictures, see above"""
    images: Annotated[Path | None, opt("FOLDER")] = None
    """where the pictures of a table are, if not beside it"""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is written; nothing else is."""

    force = False  # nothing is ever overwritten
    out: Annotated[Path, opt("FOLDER")]
    """the embeddings; a folder that holds some is gone on with"""
    block: Annotated[int, opt("N")] = 1024
    """pictures of a file: as much as a stop can lose"""
    retry: Flag = False
    """try pictures again that could not be read"""


@dataclass(frozen=True, kw_only=True)
class Reading(Encoding):
    """What reads pictures, and where."""

    engine: Literal["process", "ray"] = "process"
    """process: this one; ray: a job of Ray Data, whose workers each load the model once"""
    address: Annotated[str | None, opt("HOST:PORT")] = None
    """a Ray cluster that runs, or auto; default: one of this machine's processors"""
    workers: Annotated[int | None, opt("N")] = None
    """workers of Ray; default: one for each processor or GPU"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `embed` can be told."""

    pictures: Pictures
    outputs: Written
    encoder: Reading = field(default_factory=lambda: Reading(encoder="pasture"))


class Embed(Job[Options]):
    """Pictures in, Parquet files out."""

    for_photographs = "--encoder, such as openai:ViT-B/32"
    writes = ()  # the folder is looked after by the library

    def check(self) -> None:
        """Refuse options of another engine."""
        given = self.options.encoder
        for name in ("address", "workers"):
            if given.engine != "ray" and getattr(given, name) is not None:
                raise ValueError(f"--{name}: goes with --engine ray; add it, or drop --{name}")

    def prepare(self) -> None:
        """List the source."""
        given = self.options.pictures
        self.collection = scale.read_collection(given.source, images=given.images)
        self.problems = self.collection.problems

    def load(self) -> None:
        """The encoder, here and as workers load it."""
        self.again = loader(self.options.encoder)
        self.encoder = self.again()
        if self.encoder.name in PASTURE:
            loose = [Path(item.path) for item in self.collection.items if item.size is None]
            self.drawn = [data.Sample(path) for path in loose]

    def answer(self) -> int:
        """Embed what is missing."""
        given, reading, start = self.options.outputs, self.options.encoder, time.monotonic()
        ray = scale.Ray(reading.address, reading.workers, self.again)
        try:
            self.done = scale.embed(
                self.collection,
                self.encoder,
                given.out,
                engine=ray if reading.engine == "ray" else scale.in_process,
                batch_size=reading.batch_size,
                block=given.block,
                retry=given.retry,
                progress=sys.stderr.isatty(),
            )
        except KeyboardInterrupt:
            print("the same command goes on from the last block that was written", file=sys.stderr)
            raise
        self.seconds = time.monotonic() - start
        self.errors = [f"{key}: {why}" for key, why in self.done.embeddings.told("error").items()]
        self.unreadable = self.errors[:MAX_COMPLAINTS]
        return len(self.done.embeddings)

    def show(self) -> Iterator[str]:
        """What there is now, and how long it took."""
        done, out = self.done, data.shown(self.options.outputs.out)
        now = f"{done.computed:,} read now in {self.seconds:.0f} s"
        yield f"{done.total:,} pictures, {now} ({done.computed / self.seconds:.1f} a second)"
        readable, about = len(done.embeddings), done.embeddings.about
        yield f"{out}: {readable:,} embeddings of {about.dim} x {about.dtype} by {about.encoder}"
        if self.errors:
            yield f"{len(self.errors):,} could not be read: the column error says why"
        yield f'search it: python -m cliplab search {out} "words, or a picture"'

    def write(self) -> None:
        """Nothing more."""


EMBED = Call(Options, ABOUT, f"{EPILOG}\n{EXIT_CODES}", lambda options: work(Embed(options)))
