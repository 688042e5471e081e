"""GLIP as a detector: a list or a sentence is read together with the picture.

Letters: B pictures, K phrases, L tokens, R boxes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cliplab.classification import is_chinese
from cliplab.data import shown
from cliplab.detection.boxes import Detections
from cliplab.detection.phrases import class_prompt, relating_words, side_of
from cliplab.detection.settings import OVERLAP, PUBLISHED, Settings
from cliplab.detection.vild import checkpoint_path
from cliplab.detection.words import Query, Words, as_prompt, quoted, remarks_on
from cliplab.models.glip import (
    GLIP,
    Chunk,
    Found,
    Prompt,
    Selection,
    batch_of,
    best_boxes,
    chunks_of,
    load_glip,
    merge,
    prepare,
    same_sizes,
    select,
    to_picture,
)
from cliplab.models.glip.anchors import half_open
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.runtime import read_card, sha256

_SEVERAL = re.compile(r"[.;!?]\s*\w")  # sentences


@dataclass(frozen=True, eq=False, kw_only=True)
class GLIPQuery(Query):
    """A prompt in the model's tokens, read by its text tower; phrase k is class k."""

    prompt: Prompt
    chunks: Sequence[Chunk]  # parts of the prompt that are read at a time
    texts: Sequence[tuple[Tensor, Tensor, Tensor]]  # of each part: hidden, embedded, mask
    twice: bool = False  # its last parts are the phrases as a list, label k being len(phrases) + k
    side: tuple[int, int, int] | None = None  # see `side_of`


@dataclass(eq=False)
class GLIPDetector:
    """A GLIP with its tokenizer; see `Detector`.

    The text tower runs once a prompt, the picture's pyramid once for all parts of a prompt. A
    prompt of more tokens than the model reads at a time is read in parts; what they find is merged,
    the best first, so that a hundred boxes remain in all.

    Where the card says that a relation means one thing, a sentence with relations is asked twice,
    see `agreed`.
    """

    model: GLIP  # with its tokenizer
    selection: Selection = field(default_factory=Selection)  # what becomes a detection
    batch_size: int = 1  # pictures of one size that are computed together
    max_tokens: int | None = None  # read at a time; None: as many as the model can
    path: Path | None = None  # of the weights, for `describe`
    variant: str = ""  # one of PUBLISHED, for files of others
    card: Mapping[str, Any] = field(default_factory=dict)  # beside our own weights
    teacher = None

    def __post_init__(self) -> None:
        self.model.eval()
        self.variant = self.variant or str(self.card.get("name") or "")

    @property
    def tokenizer(self) -> WordPieceTokenizer:
        """The model's."""
        assert self.model.tokenizer is not None
        return self.model.tokenizer

    @property
    def name(self) -> str:
        """For people: which GLIP."""
        return f"GLIP ({self.variant or (shown(self.path.name) if self.path else 'of your own')})"

    @torch.no_grad()
    def read(self, prompts: Words) -> GLIPQuery:
        """See `Detector.read`.

        Raises:
            ValueError: a prompt without phrases, or with one that the model cannot read.
        """
        if isinstance(prompts, GLIPQuery):
            return prompts
        prompt, classes = as_prompt(prompts)
        plain, form, said = self._asked(prompt)
        own = self._chunks(prompt)
        alone = [] if plain is None else self._chunks(plain)
        k = len(prompt.phrases)
        chunks = [*own, *(chunk._replace(labels=chunk.labels + k) for chunk in alone)]
        device, texts = next(self.model.parameters()).device, []
        for chunk in chunks:
            ids = chunk.token_ids[None].to(device)
            mask = torch.ones_like(ids, dtype=torch.bool)
            texts.append((*self.model.language_backbone(ids, mask), mask))
        remarks = [*remarks_on(prompt, self.tokenizer, self.card), *self._on_language(prompt)]
        if len(own) > 1:
            said.append(f"a long prompt: read in {len(own)} parts that do not know of each other")
        return GLIPQuery(
            classes=classes, notes=said, remarks=remarks,
            prompt=prompt, chunks=chunks, texts=texts, twice=plain is not None,
            side=side_of(prompt), threshold=self.card.get("thresholds", {}).get(form, {}),
        )  # fmt: skip

    def _chunks(self, prompt: Prompt) -> list[Chunk]:
        return chunks_of(prompt, self.tokenizer, self.max_tokens or self.model.config.max_tokens)

    def _asked(self, prompt: Prompt) -> tuple[Prompt | None, str, list[str]]:
        """What must be found as well; the card's name for such a prompt; a note."""
        language = "zh" if any(map(is_chinese, prompt.phrases)) else "en"
        if not relating_words(prompt):
            return None, f"{language}, list", []
        if not self.card.get("a relation means one thing"):
            return None, "", []
        plain = class_prompt(prompt.phrases)
        if len(plain.phrases) < len(prompt.phrases) or _SEVERAL.search(prompt.caption):
            return None, "", ["relations in several sentences are not checked; ask one at a time"]
        note = (
            "a relation means one thing: the best box of each phrase counts, if a list finds "
            f"{quoted(prompt.phrases)} as well" + (", on the named side" if side_of(prompt) else "")
        )
        return plain, f"{language}, relation", [note]

    def detect(
        self, images: Iterable[Image.Image], prompts: Words,
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Detections]:  # fmt: skip
        """See `Detector.detect`.

        Raises:
            ValueError: boxes to be named; a GLIP finds its own.
        """
        if boxes is not None:
            raise ValueError("boxes: got some; a GLIP finds its own, drop them")
        query = self.read(prompts)
        source, found = iter(images), list[Detections]()
        while block := list(islice(source, self.batch_size)):
            ready = [prepare(image, self.model.config) for image in block]
            for batch in same_sizes([pixels for pixels, _ in ready]):
                shapes = [ready[i][1] for i in batch]
                pixels = torch.stack([ready[i][0] for i in batch])
                for i, one in zip(batch, self._found(pixels, shapes, query), strict=True):
                    px = to_picture(one.boxes.float().cpu(), ready[i][1], block[i].size)
                    parts = (px, one.scores.float().cpu(), one.labels.cpu())
                    found.append(Detections(*parts, query.classes.names))
        return found

    @torch.no_grad()
    def _found(
        self, pixels: Tensor, shapes: Sequence[tuple[int, int]], query: GLIPQuery
    ) -> list[Found]:
        """(B, 3, H, W), own (H, W) of each -> `Found` of each, labels of the whole prompt."""
        device, parts = query.texts[0][0].device, []
        maps = self.model.backbone(pixels.to(device))
        for chunk, text in zip(query.chunks, query.texts, strict=True):
            given = (x.expand(len(pixels), *x.shape[1:]) for x in text)
            raw = self.model.head(maps, *given)
            found = select(raw, chunk.positive, shapes, self.model.config, self.selection)
            labels = chunk.labels.to(device)
            parts.append([one._replace(labels=labels[one.labels]) for one in found])
        merged = [merge(one, self.selection) for one in zip(*parts, strict=True)]
        count = len(query.prompt.phrases)
        return [agreed(one, count, query.side) for one in merged] if query.twice else merged

    def ground(self, pixels: Tensor, prompts: Sequence[Prompt]) -> list[Tensor]:
        """The best box of each phrase, for B pictures with a prompt each: B tensors (K, 4) px.

        Args:
            pixels: (B, 3, H, W), normalised and filled up as `prepare` does.
            prompts: B, each of no more tokens than the model reads at a time.
        """
        chunks = []
        for prompt in prompts:
            (chunk,) = self._chunks(prompt)
            chunks.append(chunk)
        ids, mask, positive = batch_of(chunks)
        with torch.no_grad():
            raw = self.model(pixels, ids.to(pixels.device), mask.to(pixels.device))
        return best_boxes(raw, positive, self.model.config)

    def describe(self, prompts: Words) -> dict[str, Any]:
        """See `Detector.describe`."""
        asked = self.read(prompts)
        prompt = asked.prompt
        named = zip(asked.classes.names, prompt.phrases, prompt.spans, strict=True)
        return {
            "model": "glip",
            "variant": self.variant or None,
            "file": shown(self.path) if self.path else None,
            "sha256": sha256(self.path) if self.path else None,  # seconds for a published one
            "fusion": self.model.config.fusion,
            "prompt": prompt.caption,
            "phrases": [
                {"label": label, "phrase": phrase, "spans": [list(span) for span in spans]}
                for label, phrase, spans in named
            ],
            "prompt_parts": len(asked.chunks),
            "asked_twice": asked.twice,
            "selection": asdict(self.selection),
        }

    def _on_language(self, prompt: Prompt) -> Iterator[str]:
        if self.variant in PUBLISHED and any(map(is_chinese, prompt.phrases)):
            yield (
                f"{self.variant} was trained on English and reads Chinese as single characters "
                "that it hardly knows: ask it in English"
            )


def agreed(found: Found, count: int, side: tuple[int, int, int] | None = None) -> Found:
    """The best box of each of K phrases, as sure as the least sure of three answers.

    These are the sentence's (labels below K); that of a list of its phrases (labels from K on),
    which must find this one at the same place; and the list's to the others, which must be
    somewhere: if the sentence names a `side` (see `side_of`), on that side, by the middles of both
    boxes, and at another place: no animal is left of itself, whatever it is called. A sentence by
    itself is answered where its things are not there, or elsewhere, too.
    """
    from torchvision.ops import box_iou

    listed = found.labels >= count
    said, alone = (Found(*(x[rows] for x in found)) for rows in (~listed, listed))
    names = torch.arange(count, device=found.labels.device)[:, None]  # (K, 1)
    known = F.pad((names + count == alone.labels) * alone.scores, (0, 1))  # (K, S + 1), 0: nowhere
    others = known.amax(1).repeat(count, 1).fill_diagonal_(1).amin(1)[said.labels]  # (R,)
    same = box_iou(half_open(said.boxes), half_open(alone.boxes)) >= OVERLAP  # (R, S)
    if side is not None:
        thing, _, sign = side
        away = said.boxes[:, ::2].sum(1)[:, None] - alone.boxes[:, ::2].sum(1)  # (R, S)
        there = torch.where(said.labels == thing, sign, -sign)[:, None] * away > 0
        others = (F.pad(there & ~same, (0, 1)) * known[1 - said.labels]).amax(1)
    own = (F.pad(same, (0, 1)) * known[said.labels]).amax(1)  # (R,)
    scores = torch.stack([said.scores, own, others]).amin(0)
    best = [int((scores - 2.0 * (said.labels != k)).argmax()) for k in said.labels.unique()]
    best.sort(key=lambda row: -float(scores[row]))
    return Found(said.boxes[best], scores[best], said.labels[best])


def selection_of(settings: Settings) -> Selection:
    """What becomes a detection.

    A box's score is the square root of its phrase's score times its centerness, so that none with
    a score of S or more has a phrase's score below the square of S.
    """
    own = Selection()
    return Selection(
        least=own.least if settings.score is None else min(own.least, settings.score**2),
        nms=own.nms if settings.iou is None else settings.iou,
        top=settings.most,
    )


def load_glip_detector(where: str, settings: Settings) -> GLIPDetector:
    """The GLIP at `where`: "" (shipped), a path, or "glip-t:<path>"; errors as `load_detector`."""
    variant, _, published = where.partition(":")
    if variant in PUBLISHED:
        path, card = Path(published), {}
    else:
        path = checkpoint_path(where, "glip")
        variant, where, card = "", str(path), read_card(path.parent)
    model = load_glip(where, device=settings.device)
    selection = selection_of(settings)
    return GLIPDetector(model, selection=selection, path=path, variant=variant, card=card)
