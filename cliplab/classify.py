"""`python -m cliplab classify FOLDER --labels ...`: table, CSV and gallery of a folder."""

import argparse
import csv
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.runtime import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from cliplab.encoders import Encoder
    from cliplab.photos import UnreadableImage
    from cliplab.zero_shot import Scores

SOME_UNREADABLE = 3  # exit code: the others were classified
MAX_LINES = 60  # of the printed table; the CSV has all

DESCRIPTION = """\
Sort a folder of images by labels of your own, without training. Every image below FOLDER gets a
probability for each label; files that cannot be read are listed and skipped."""

EXAMPLES = """\
examples:
  cliplab classify photos --labels "a sheep standing" "a sheep lying down"
  cliplab classify photos --labels standing,eating,lying --template "a photo of a {} sheep."
  cliplab classify photos --labels 站立的羊 躺着的羊 --encoder pasture-zh --html gallery.html

exit codes: 0 all images read, 3 some could not be read, 2 bad arguments or inputs, 1 unexpected"""


def add_parser(subparsers: "argparse._SubParsersAction") -> argparse.ArgumentParser:
    """Add the `classify` sub-command."""
    parser = subparsers.add_parser(
        "classify",
        help="sort a folder of images by labels of yours",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments of `classify`."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="folder with images, searched recursively")
    add(
        "--labels",
        nargs="+",
        required=True,
        metavar="LABEL",
        help="two or more, apart by spaces or commas; quote labels that contain spaces",
    )
    add(
        "--encoder",
        default="pasture",
        metavar="NAME",
        help="pasture (default), pasture-zh, openai:<model.pt> or modelscope:<folder>",
    )
    add(
        "--template",
        nargs="+",
        default=["{}"],
        metavar="TEXT",
        help='prompts with {} for the label, averaged, such as "a photo of a {}." (default: "{}")',
    )
    add("--out", type=Path, metavar="CSV", help="write the scores of every image")
    add("--html", type=Path, metavar="HTML", help="write a gallery to look through")
    add("--force", action="store_true", help="overwrite existing output files")
    add("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    add("--device", default="auto", help="auto (default), cpu, cuda or mps")
    add("--truncate", action="store_true", help="cut prompts that are too long for the encoder")


def run(args: argparse.Namespace) -> int:
    """Classify the folder, print the table and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad labels, folder, outputs or encoder; with the remedy.
    """
    from cliplab.photos import list_images
    from cliplab.zero_shot import build_classifier, check_class_names

    labels = check_class_names(split_labels(args.labels))
    _check_outputs(args.out, args.html, force=args.force)
    paths = list_images(args.folder)

    from cliplab.encoders import load_encoder

    encoder = load_encoder(args.encoder, device=args.device)
    classifier = build_classifier(encoder, labels, args.template, truncate=args.truncate)
    result = classify_files(
        encoder, paths, classifier, labels, batch_size=args.batch_size, thumbnails=bool(args.html)
    )
    for error in result.unreadable:
        print(f"unreadable: {error}", file=sys.stderr)
    if not result.paths:
        raise ValueError(f"none of the {len(paths)} images in {args.folder} could be read")
    names = _relative(result.paths, args.folder)
    _print_table(result.scores, names)
    if args.out:
        write_csv(args.out, result.scores, names)
    if args.html:
        _write_gallery(args, encoder, result, names)
    return SOME_UNREADABLE if result.unreadable else 0


def split_labels(texts: Sequence[str]) -> list[str]:
    """Labels given one by one, or in one text with commas, Western or Chinese."""
    return [part for text in texts for part in re.split(r"\s*[,，、]\s*", text.strip()) if part]


@dataclass(frozen=True)
class FolderScores:
    """What was read of a folder, and what was not."""

    paths: list[Path]  # N, readable
    scores: "Scores"  # of the N
    thumbnails: list[str]  # N data URIs, or none
    unreadable: "list[UnreadableImage]"


def classify_files(
    encoder: "Encoder",
    paths: Sequence[Path],
    classifier: "Tensor",
    labels: Sequence[str],
    *,
    batch_size: int = 64,
    thumbnails: bool = False,
) -> FolderScores:
    """Scores of image files, one batch in memory at a time; a bar on stderr if it is a terminal."""
    from tqdm import tqdm

    from cliplab.gallery import thumbnail
    from cliplab.photos import iter_images
    from cliplab.zero_shot import classify

    read: list[Path] = []
    small: list[str] = []
    unreadable: list[UnreadableImage] = []

    def images() -> "Iterator[Image]":
        for path, image in iter_images(tqdm(paths, unit="image", disable=None), unreadable):
            read.append(path)
            if thumbnails:
                small.append(thumbnail(image))
            yield image

    scores = classify(encoder, images(), classifier, class_names=labels, batch_size=batch_size)
    return FolderScores(read, scores, small, unreadable)


# ---- outputs -------------------------------------------------------------------------------


class _ProbeError(Exception):
    """Leaves atomic_write before anything is written."""


def _check_outputs(*outputs: Path | None, force: bool) -> None:
    """Find out before the long work, not after it, that a result cannot be written."""
    paths = [path for path in outputs if path]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"--out and --html are both {paths[0]}; expected two files")
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: a folder; expected the name of a file to write")
        if path.exists() and not force:
            raise FileExistsError(f"{path}: exists already; choose another name or pass --force")
        with suppress(_ProbeError), atomic_write(path):
            raise _ProbeError


def _relative(paths: Sequence[Path], folder: Path) -> list[str]:
    from cliplab.photos import shown

    return [shown(path.relative_to(folder)) for path in paths]


def _print_table(scores: "Scores", names: Sequence[str]) -> None:
    """One line per image, then how many fell to each label."""
    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    shares, margins = scores.probability.amax(1).tolist(), scores.margin.tolist()
    lines = [["file", "label", "probability", "margin", "entropy"]]
    numbers = zip(shares, margins, scores.relative_entropy.tolist(), strict=True)
    predicted = scores.predicted_names
    for name, label, values in zip(names, predicted, numbers, strict=True):
        lines.append([name, label, *(f"{value:.1%}" for value in values)])
    print("\n".join(_aligned(lines[: MAX_LINES + 1])))
    if len(scores) > MAX_LINES:
        print(f"... and {len(scores) - MAX_LINES} more; --out CSV writes all")
    counts = [f"{name} {predicted.count(name)}" for name in scores.class_names]
    print(f"\n{len(scores)} images: {', '.join(counts)}")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with two columns of text, then numbers; a Chinese character is two columns wide."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        gaps = [" " * (width - _width(cell)) for width, cell in zip(widths, row, strict=True)]
        left = [cell + gap for cell, gap in zip(row[:2], gaps[:2], strict=True)]
        right = [gap + cell for cell, gap in zip(row[2:], gaps[2:], strict=True)]
        yield "  ".join(left + right)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def write_csv(path: Path, scores: "Scores", names: Sequence[str]) -> None:
    """One row per image: file, predicted, probability, margin, entropy (nats), then each label."""
    labels = scores.class_names
    each = [f"{kind}({label})" for kind in ("probability", "cosine") for label in labels]
    parts = zip(names, scores.predicted_names, scores.probability.amax(1).tolist(), strict=True)
    columns = [scores.margin[:, None], scores.entropy[:, None], scores.probability, scores.cosine]
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "predicted", "probability", "margin", "entropy", *each])
        for i, (name, predicted, share) in enumerate(parts):
            numbers = [share, *(x for column in columns for x in column[i].tolist())]
            writer.writerow([name, predicted, *(f"{x:.6f}" for x in numbers)])


def _write_gallery(
    args: argparse.Namespace, encoder: "Encoder", result: FolderScores, names: Sequence[str]
) -> None:
    from cliplab.gallery import gallery_html
    from cliplab.photos import shown

    failed = _relative([error.path for error in result.unreadable], args.folder)
    html = gallery_html(
        result.scores,
        names,
        result.thumbnails,
        title=f"{shown(args.folder.resolve().name)}, by label",
        facts={
            "images": str(len(names)),
            "encoder": encoder.name,
            "prompts": ", ".join("the bare label" if t == "{}" else t for t in args.template),
        },
        unreadable={
            name: f"{error.cause}; {error.remedy}"
            for name, error in zip(failed, result.unreadable, strict=True)
        },
    )
    with atomic_write(args.html, "w") as file:
        file.write(html)
