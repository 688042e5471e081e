"""GLIP for `detect`: a list or a sentence is read together with the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch import Tensor

from cliplab.classification.labels import Classes
from cliplab.cli.detect.words import prompt_of, quoted, unread_words
from cliplab.data import shown
from cliplab.detection.boxes import Detections
from cliplab.detection.checkpoints import checkpoint_path, read_card
from cliplab.detection.detectors import PUBLISHED, Options
from cliplab.detection.phrases import Prompt, chunks_of
from cliplab.models.glip import Finder, Selection, answers, load_glip
from cliplab.models.glip.detect import PRECISIONS
from cliplab.models.tokenizers import WordPieceTokenizer, is_cjk
from cliplab.runtime import sha256


@dataclass(frozen=True)
class Source:
    """Where a GLIP comes from."""

    path: Path
    variant: str  # one of PUBLISHED, or what the card beside our own weights calls it; or ""

    @property
    def is_published(self) -> bool:
        """Whether others trained it."""
        return self.variant in PUBLISHED

    @cached_property
    def sha256(self) -> str:
        """Of the weights; a published file takes seconds."""
        return sha256(self.path)


@dataclass(eq=False)
class GLIPDetector:
    """A GLIP that has read its prompt; see `Detector`. Phrase k is class k."""

    finder: Finder
    prompt: Prompt
    classes: Classes
    source: Source
    together: int = 1  # pictures at a time
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: which GLIP."""
        return f"GLIP ({self.source.variant or shown(self.source.path.name)})"

    def find(self, image: Image.Image, boxes_xyxy: Tensor | None = None) -> Detections:
        """See `Detector.find`.

        Raises:
            ValueError: boxes to be named; a GLIP finds its own.
        """
        if boxes_xyxy is not None:
            raise ValueError(f"boxes_xyxy: got {len(boxes_xyxy)}; a GLIP finds its own, drop them")
        return self.find_all([image])[0]

    def find_all(self, images: Sequence[Image.Image]) -> list[Detections]:
        """The same for several pictures; those of one size are computed together."""
        found = answers(self.finder, images, self.prompt, batch_size=self.together)
        return [replace(one, phrases=self.classes.names) for one in found]

    def describe(self) -> dict[str, Any]:
        """See `Detector.describe`."""
        return {
            "model": "glip",
            "variant": self.source.variant or None,
            "file": shown(self.source.path),
            "sha256": self.source.sha256,
            "fusion": self.finder.model.config.fusion,
            "prompt": self.prompt.caption,
            "phrases": [
                {"label": label, "phrase": phrase, "spans": [list(span) for span in spans]}
                for label, phrase, spans in zip(
                    self.classes.names, self.prompt.phrases, self.prompt.spans, strict=True
                )
            ],
            "prompt_parts": len(self.finder.chunks),
            "selection": asdict(self.finder.selection),
            "precision": self.finder.precision,
            "batch_size": self.together,
        }


def load_glip_detector(where: str, classes: Classes, options: Options) -> GLIPDetector:
    """The GLIP at `where` (default: the shipped one), and the prompt in its tokens.

    Args:
        where: "", a path, or a published file with its variant in front, "glip-t:<path>".
        classes: with `options.phrases` those of that prompt.
        options: of the command.

    Raises:
        FileNotFoundError: no such file, or no vocabulary beside a published one.
        ValueError: a file of another model or variant, phrases that the model cannot read.
    """
    prompt = options.phrases or prompt_of(classes)
    selection = selection_of(options)
    precision = options.precision or PRECISIONS[0]
    together = options.batch_size or 1
    if precision not in PRECISIONS:
        raise ValueError(f"--precision: got {precision!r}; expected one of {', '.join(PRECISIONS)}")
    source, spec = _source(where, options)
    model = load_glip(spec, vocab=options.vocab, device=options.device)
    tokenizer = cast(WordPieceTokenizer, model.tokenizer)  # which load_glip has found
    try:
        chunks = chunks_of(prompt, tokenizer, model.config.max_tokens)
    except ValueError as error:
        option = "--phrases" if options.phrases else "--labels"
        raise ValueError(f"{option}: {error}") from error
    notes = _on_length([len(chunk.token_ids) - 2 for chunk in chunks], model.config.max_tokens)
    remarks = [*unread_words(prompt, tokenizer), *_on_language(prompt, source)]
    finder = Finder(model, chunks, selection, precision)
    return GLIPDetector(finder, prompt, classes, source, together, notes, remarks)


def selection_of(options: Options) -> Selection:
    """What becomes a detection.

    A box's score is the square root of its phrase's score times its centerness, so that none with
    a score of S or more has a phrase's score below the square of S.
    """
    own = Selection()
    return Selection(
        least=own.least if options.score is None else min(own.least, options.score**2),
        nms=own.nms if options.iou is None else options.iou,
        top=options.most,
        aggregate=options.aggregate or own.aggregate,
    )


def _source(where: str, options: Options) -> tuple[Source, str | Path]:
    """Where the weights are, and how `load_glip` calls them."""
    name, _, path = where.partition(":")
    if name in PUBLISHED:
        return Source(Path(path), name), where
    if options.vocab is not None:
        raise ValueError(
            "--vocab: means nothing to a GLIP that has its vocabulary in its file; drop it, or "
            f"use a published one: --model {PUBLISHED[0]}:PATH"
        )
    own = checkpoint_path(where, "glip")
    return Source(own, str(read_card(own).get("name") or "")), own


def _on_length(tokens: Sequence[int], limit: int) -> list[str]:
    if len(tokens) < 2:
        return []
    return [
        f"the prompt has {sum(tokens):,} tokens, and the model reads {limit} at a time: it is read "
        f"in {len(tokens)} parts, which do not know of each other"
    ]


def _on_language(prompt: Prompt, source: Source) -> list[str]:
    chinese = [phrase for phrase in prompt.phrases if any(map(is_cjk, phrase))]
    if not source.is_published or not chinese:
        return []
    return [
        f"{source.variant} was trained on English and reads Chinese as single characters that it "
        f"hardly knows ({quoted(chinese)}): ask it in English, as in --labels "
        f'{chinese[0]}="black goat"'
    ]
