"""`cliplab search FOLDER QUERY`: the pictures of an embedded collection that fit best."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated

from cliplab import classification, data, encoders, report, scale
from cliplab.cli.options import (
    EXIT_CODES,
    Call,
    Common,
    Device,
    Flag,
    Offline,
    Outputs,
    Positional,
    opt,
)  # fmt: skip
from cliplab.cli.skeleton import PASTURE, Job, complain, describe, report_of
from cliplab.cli.tables import aligned
from cliplab.runtime import atomic_write, write_json

ABOUT = """\
Find pictures in a collection that `cliplab embed` has embedded, by words or by a picture.

FOLDER holds the embeddings; QUERY is a text, quoted, or the name of a picture file. Scores are
cosines: compare them within one answer, not across queries."""

EPILOG = """\
examples:
  cliplab search photos.embeddings "a sheep lying down" --html found.html
  cliplab search photos.embeddings lamb.jpg --top 50 --out found.csv
  cliplab search shards.embeddings "a sheep lying down" --index
"""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is searched, for what, and how."""

    source: Annotated[Path, Positional, opt("FOLDER")]
    """of `embed`"""
    query: Annotated[str, Positional, opt("QUERY")]
    """words, or a picture file"""
    images: Annotated[Path | None, opt("FOLDER")] = None
    """where the pictures are now, for the gallery; default: where `embed` found them"""
    top: Annotated[int, opt("K")] = 10
    """pictures to find"""
    index: Flag = False
    """look at a part of the rows, by a graph that is built once; below 50,000 rows all are looked
    at, as without it"""
    encoder: Annotated[str | None, opt("SPEC")] = None
    """where the encoder of FOLDER is now; default: where it was"""
    device: Device = "auto"
    offline: Offline = False


@dataclass(frozen=True, kw_only=True)
class Written(Outputs):
    """What is written; nothing else is."""

    out: Annotated[Path | None, opt("CSV")] = None
    """what was found, with scores"""


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """What `search` can be told."""

    pictures: Pictures
    outputs: Written = field(default_factory=Written)


class Search(Job[Options]):
    """A query in, pictures out."""

    for_photographs = "--encoder of `embed`, such as openai:ViT-B/32"

    def check(self) -> None:
        """Refuse results among the embeddings."""
        folder = self.options.pictures.source.resolve()
        for option, path in self.files(self.writes).items():
            if path.resolve().is_relative_to(folder):
                raise ValueError(f"{option} {path}: among the embeddings; choose another folder")
        if self.options.pictures.top < 1:
            raise ValueError(f"--top: got {self.options.pictures.top}; expected 1 or more")

    def prepare(self) -> None:
        """The embeddings and the query: a picture if there is such a file."""
        given = self.options.pictures
        self.embeddings, query = scale.open_embeddings(given.source), Path(given.query)
        self.picture = None
        if data.is_image_name(query) or os.path.isfile(query):  # False for names too long, too
            self.picture = data.open_image(query)
        elif not given.query.strip():
            raise ValueError("QUERY: got nothing; expected words or the name of a picture")

    def load(self) -> None:
        """The encoder that made the embeddings."""
        given, about = self.options.pictures, self.embeddings.about
        self.encoder = encoders.load_encoder(
            given.encoder or about.encoder,
            device=given.device,
            offline=given.offline or None,
            precision=about.precision,
        )
        if self.encoder.fingerprint != about.fingerprint:
            raise ValueError(
                f"{data.shown(self.embeddings.folder)}: made with {about.encoder} "
                f"({about.fingerprint[:12]}), but {self.encoder.name} is another encoder "
                f"({self.encoder.fingerprint[:12]}); give the same weights with --encoder"
            )

    def answer(self) -> int:
        """Look for it -> how many rows there are."""
        given, words = self.options.pictures, self.options.pictures.query
        if self.picture is not None:
            emb = self.encoder.encode_image([self.picture])
        else:
            emb = self.encoder.encode_text([words])
            self.remarks = classification.complain_of_unread(self.encoder, [words])
        say = partial(print, file=sys.stderr)
        index = scale.open_index(self.embeddings, say) if given.index else None
        (self.hits,) = scale.search(self.embeddings, emb, given.top, index=index)
        n = f"{len(self.embeddings):,} pictures"
        few = f", too few for an index (from {scale.INDEX_FROM:,})" * given.index
        self.looked = f"all {n} looked at{few}"
        if index:
            sample = f"recall@10 {index.recall:.3f} on {scale.SAMPLE} of them"
            self.looked = f"by an index of {n}: {sample}"
        self._find_pictures()
        return len(self.embeddings)

    def _find_pictures(self) -> None:
        """Where those are that were found, if somebody looks at them."""
        images, self.places = self.options.pictures.images, dict[str, scale.Item]()
        if self.encoder.name in PASTURE or self.options.outputs.html:
            keys = [hit.key for hit in self.hits]
            roots = dict.fromkeys(keys, images) if images else self.embeddings.sources(keys)
            for root in dict.fromkeys(roots[key] for key in keys):
                self.places |= scale.find(root, [key for key in keys if roots[key] == root])
        if self.encoder.name in PASTURE:
            loose = [Path(item.path) for item in self.places.values() if item.size is None]
            self.drawn = [data.Sample(path) for path in loose]

    def show(self) -> Iterator[str]:
        """The table, and what was looked at."""
        rows = [["picture", "score", "width", "height"]]
        rows += [[h.key, f"{h.score:.4f}", str(h.width), str(h.height)] for h in self.hits]
        yield from aligned(rows, text=1)
        yield f"\n{self.looked}"

    def write(self) -> None:
        """CSV, gallery and report."""
        outputs, found = self.options.outputs, [asdict(hit) for hit in self.hits]
        if outputs.out:
            with atomic_write(outputs.out, "w") as file:
                names = ["rank", *(one.name for one in fields(scale.Hit))]
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows({"rank": i} | row for i, row in enumerate(found, 1))
        if outputs.html:
            self._write_gallery(outputs.html)
        if outputs.json:
            told = {"encoder": describe(self.encoder), "found": found, "looked": self.looked}
            write_json(outputs.json, report_of("search", self.options, **told, **self.told()))

    def _write_gallery(self, path: Path) -> None:
        cards = [asdict(hit) | {"picture": ""} for hit in self.hits]
        for card in cards:
            with suppress(data.UnreadableImage):
                item = self.places.get(card["key"])
                content = item.read() if item else b""
                if hashlib.sha256(content).hexdigest() == card["sha256"]:
                    image = data.open_image(card["key"], content=content)
                    card["picture"] = report.thumbnail(image)
        gone = [card["key"] for card in cards if not card["picture"]]
        lost = f"{len(gone)} of {len(cards)} pictures are not where they were, or are others now"
        note = [f"{lost} ({data.some(gone)}); --images says where"] * bool(gone)
        complain("note", note)
        report.write_html(
            path,
            "search.html.j2",
            heading=report.Heading(
                self.options.pictures.query, [*note, *self.remarks]
            ),
            cards=cards,
            asked=report.thumbnail(self.picture) if self.picture else "",
            encoder=self.encoder.name,
            looked=self.looked,
        )  # fmt: skip


SEARCH = Call(Options, ABOUT, f"{EPILOG}\n{EXIT_CODES}", Search.run)
