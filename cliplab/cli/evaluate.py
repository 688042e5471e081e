"""``python -m cliplab evaluate imagenet``: the protocol of the CLIP paper, on one's own machine."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.runtime import unknown_name, write_json

if TYPE_CHECKING:
    from cliplab.classification.imagenet.chunks import RunFolder

BENCHMARKS = ("imagenet",)
SOME_UNREADABLE = 3  # exit code, as of `classify`

DESCRIPTION = """\
Zero-shot accuracy on ImageNet by the protocol of the CLIP paper: each class name in each template,
the mean of the prompts' embeddings as classifier, top-1 and top-5 among all 1,000 classes.

DIR holds the validation pictures: val/n01440764/*.JPEG and so on, or ImageNetV2's 0 ... 999, or all
in one folder with the list of their labels beside it. A part of the classes will do for a look; it
is judged among all 1,000 and says so.

Finished chunks are kept in --out: the same command goes on where it was stopped. With --shard 1/8
to 8/8, eight machines share one --out; whoever finishes last prints the result, and so does
--merge."""

EXAMPLES = """\
examples:
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32
  cliplab evaluate imagenet --data imagenet --encoder openai:ViT-B/32 --limit 2000 --templates one
  cliplab evaluate imagenet --data imagenet --encoder hf:OFA-Sys/chinese-clip-vit-large-patch14 \\
      --templates chinese
  cliplab evaluate imagenet --data imagenet --encoder openai:RN50 --out shared/run --shard 2/8
  cliplab evaluate imagenet --merge --out shared/run --json result.json

exit codes: 0 finished (or this shard is), 3 some images could not be read, 2 bad arguments or
inputs, 130 interrupted: finished chunks are kept"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("benchmark", metavar="BENCHMARK", help=f"one of: {', '.join(BENCHMARKS)}")
    add("--data", type=Path, metavar="DIR", help="folder of the images")
    add(
        "--encoder",
        metavar="NAME",
        help="openai:<name or .pt>, modelscope:<id or folder>, hf:<repo or folder>, "
        "open_clip:<architecture>/<tag or file>, pasture, pasture-zh",
    )
    add("--split", default="val", help="folder below DIR (default: val)")
    add("--labels", type=Path, metavar="FILE", help="list of labels of a flat folder")
    add(
        "--templates",
        default="openai80",
        metavar="SET",
        help="openai80 (default), openai7 or simple (the best seven), one (a photo of a ...), "
        "bare (the name alone), chinese or chinese183 (80 or 183, need cn_clip)",
    )
    add("--class-names", type=Path, metavar="FILE", help="1,000 names of your own, one a line")
    add("--limit", type=int, metavar="N", help="judge N images only, evenly spread")
    add("--truncate", action="store_true", help="cut prompts that are too long for the encoder")
    _add_running(parser)


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shard", metavar="I/N", help="compute the I-th of N parts")
    add("--merge", action="store_true", help="only put the finished chunks of --out together")
    add("--out", type=Path, metavar="FOLDER", help="chunks and result (default: below runs/)")
    add("--json", type=Path, metavar="FILE", help="write the result here too")
    add("--force", action="store_true", help="overwrite FILE")
    add("--batch-size", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    add("--chunk-size", type=int, metavar="N", help="images per finished file (default: 512)")
    add("--precision", default="float32", help="float32 (default) or bfloat16")
    add("--device", default="auto", help="auto (default), cpu, cuda or mps")
    add("--offline", action="store_true", default=None, help="never download anything")
    add(
        "--cache",
        action="store_true",
        help="keep embeddings, so that another --templates encodes no image again",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the result and write what was asked for -> exit code.

    Raises:
        ValueError, OSError, ImportError: bad arguments, data, encoder or packages; with the remedy.
    """
    from cliplab.classification.imagenet.chunks import RunFolder, parse_shard

    if args.benchmark not in BENCHMARKS:
        raise ValueError(unknown_name("benchmark", args.benchmark, BENCHMARKS))
    shard = parse_shard(args.shard) if args.shard else (1, 1)
    _check(args)
    if args.merge:
        return _finish(RunFolder.open(args.out), args)
    folder = _compute(args, shard)
    if folder.missing():
        print(
            f"shard {args.shard}: finished; {len(folder.missing())} of {len(folder)} chunks of the "
            f"other shards are still missing in {folder.path}. The last one prints the result; so "
            f"does: cliplab evaluate {args.benchmark} --merge --out {folder.path}"
        )
        return 0
    return _finish(folder, args)


def _check(args: argparse.Namespace) -> None:
    """Find out before the long work what would fail after it."""
    if args.merge and not args.out:
        raise ValueError("--merge: give the folder of the chunks with --out")
    needed = [] if args.merge else ["data", "encoder"]
    if absent := [f"--{name}" for name in needed if getattr(args, name) is None]:
        raise ValueError(f"{' and '.join(absent)}: missing; see cliplab evaluate --help")
    for name in ("labels", "class_names"):
        if (path := getattr(args, name)) is not None and not path.is_file():
            raise FileNotFoundError(f"--{name.replace('_', '-')}: there is no file {path}")
    for name in ("batch_size", "chunk_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option}: got {getattr(args, name)}; expected 1 or more")
    if args.json and args.json.is_dir():
        raise IsADirectoryError(f"{args.json}: a folder; expected the name of a file to write")
    if args.json and args.json.exists() and not args.force:
        raise FileExistsError(f"{args.json}: exists already; choose another name or pass --force")


def _compute(args: argparse.Namespace, shard: tuple[int, int]) -> "RunFolder":
    """Compute what is missing of a shard; what can be refused is refused before the work."""
    from cliplab.classification.imagenet.chunks import CHUNK, RunFolder
    from cliplab.classification.imagenet.dataset import read_validation
    from cliplab.classification.imagenet.prompts import read_prompts
    from cliplab.classification.imagenet.protocol import compute, default_folder, make_plan

    prompts = read_prompts(args.templates, class_names=args.class_names)
    pictures = read_validation(
        args.data, prompts.wnids, split=args.split, label_list=args.labels
    ).spread(args.limit)

    from cliplab.encoders import load_encoder

    encoder = load_encoder(
        args.encoder, device=args.device, offline=args.offline, precision=args.precision
    )
    plan = make_plan(
        encoder,
        prompts,
        pictures,
        split=args.split,
        truncate=args.truncate,
        chunk=args.chunk_size or CHUNK,
    )
    plan["encoder"]["spec"] = args.encoder
    folder = RunFolder.start(args.out or default_folder(plan), plan)
    for note in plan["notes"]:  # now, since the result may be hours away
        print(f"note: {note}", file=sys.stderr)
    try:
        with _cache(args.cache) as cache:
            compute(
                folder,
                encoder,
                prompts,
                pictures,
                shard=shard,
                batch_size=args.batch_size,
                cache=cache,
                progress=True,
            )
    except KeyboardInterrupt:
        print(f"finished chunks are in {folder.path}; the same command goes on", file=sys.stderr)
        raise
    return folder


def _cache(wanted: bool) -> AbstractContextManager:
    if not wanted:
        return nullcontext()
    from cliplab.encoders.embeddings import EmbeddingCache

    return EmbeddingCache()


def _finish(folder: "RunFolder", args: argparse.Namespace) -> int:
    """Merge, print and write the result."""
    from cliplab.classification.imagenet.result import as_text, summarise

    report = summarise(folder)
    for path in (folder.path / "result.json", args.json):
        if path:
            write_json(path, report)
    with suppress(AttributeError):  # a redirected console may lack Chinese: "?" beats a crash
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    print(as_text(report))
    print(f"\nresult in {folder.path / 'result.json'}")
    return SOME_UNREADABLE if report["unreadable"] else 0
