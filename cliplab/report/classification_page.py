"""The gallery of `classify`: photos with a bar for each label, the worst mistakes first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from cliplab.classification import Answer, Reliability, gained
from cliplab.data import UnreadableImage, open_image
from cliplab.report.galleries import Heading, even_sample, sentence, thumbnail, write_html

MAX_CARDS = 2000  # a page with more opens slowly; this many weigh less than 20 MB
MAX_BARS = 6  # classes shown on a card; the CSV of scores has the others
_SIZES = ((500, 320), (1000, 208), (MAX_CARDS, 136))  # cards, pixels of their thumbnails
_MAX_CHIPS = 12  # classes that get a button each
_CLOSE_CALL = 0.1  # margin below which a card is marked
# Okabe and Ito's colours, told apart by colour-blind readers; no yellow and black, which vanish
# on a white and on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#8A8A8A")


def thumbnail_size(cards: int) -> int:
    """Pixels of the longer side, fewer on a page with many cards."""
    return next(size for most, size in _SIZES if min(cards, MAX_CARDS) <= most)


# ---- which cards ---------------------------------------------------------------------------


def choose_cards(found: Answer, *, limit: int) -> list[int]:
    """Rows to show, at most `limit`, in the order to show them: mistakes, the most confident first.

    When there are more images than cards, half of the cards are for mistakes, and the rest is an
    even sample of all others, so that the ordinary is seen too.
    """
    n, wrong = len(found.scores), found.mistakes
    first = wrong if n <= limit else wrong[: limit // 2]
    taken = set(first)
    rest = even_sample([row for row in range(n) if row not in taken], limit - len(first))
    is_shown = set(rest)
    wrong = [row for row in wrong if row in is_shown]
    return [*first, *wrong, *sorted(is_shown.difference(wrong))]


def _thumbnails(found: Answer, rows: Sequence[int]) -> dict[int, str]:
    """From the files, each opened once; one that went away is left out."""
    size, small = thumbnail_size(len(rows)), dict[int, str]()
    pairs = [(row, found.photos[found.kept[row]]) for row in sorted(rows)]
    for path, some in groupby(pairs, key=lambda pair: pair[1].path):
        photos = dict(some)
        whole = any(photo.box_xyxy for photo in photos.values())
        with suppress(UnreadableImage):
            image = open_image(path, side=None if whole else size)
            small |= {row: thumbnail(one.crop(image), size=size) for row, one in photos.items()}
    return small


# ---- the page ------------------------------------------------------------------------------


def write_gallery(
    path: Path,
    found: Answer,
    encoder: str,
    *,
    title: str,
    templates: Sequence[str],
    notes: Sequence[str],
    unreadable: Sequence[Mapping[str, str]],
) -> str:
    """Write the gallery; what is to be said about it, "" if nothing.

    Args:
        notes: what was assumed, and what is odd.
        unreadable: file, cause and remedy of each.
    """
    rows = choose_cards(found, limit=MAX_CARDS)
    note = _on_sample(found, len(rows))
    pictures = _thumbnails(found, rows)
    cards = [_card(found, i) | {"picture": pictures[i]} for i in rows if i in pictures]
    judged, before = found.judged, found.before
    heading = Heading(
        f"{title}, by label",
        [sentence(text, encoder) for text in (note, *notes) if text],
        {f["file"]: f"{f['cause']}; {f['remedy']}" for f in unreadable},
    )
    write_html(
        path, "classify.html.j2", heading=heading, found=found, encoder=encoder, judged=judged,
        examples=sum(sum(part.values()) for part in found.shots.values()),
        gain=gained(before, judged) if before and judged else None,
        bins=_bins(judged.reliability) if judged else [], **_words(found, templates),
        cards=cards, **_choices(found, cards),
    )  # fmt: skip
    return note


def _on_sample(found: Answer, cards: int) -> str:
    """That not all have a card; "" if they have."""
    if cards == len(found.scores):
        return ""
    some = "the worst mistakes and " * bool(found.judged) + "an even sample"
    total = len(found.scores)
    return f"the gallery shows {cards:,} of {total:,} images, {some}; the CSV of scores has all"


def _words(found: Answer, templates: Sequence[str]) -> dict[str, list[str]]:
    """The labels that have a text of their own, and the prompts that all were put into."""
    pairs = zip(found.classes.names, found.classes.prompts, strict=True)
    own = [f"{name} = {prompt}" for name, prompt in pairs if name != prompt]
    own[_MAX_CHIPS:] = [f"{len(own) - _MAX_CHIPS} more"] * (len(own) > _MAX_CHIPS)
    bare = "its text alone" if own else "the bare label"
    return {"own": own, "prompts": [bare if text == "{}" else text for text in templates]}


def _choices(found: Answer, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Names and colours of the labels, and how many cards have which, predicted and true."""
    names, predicted = found.scores.class_names, Counter(card["best"] for card in cards)
    most = sorted(range(len(names)), key=lambda k: -predicted[k])[:_MAX_CHIPS]
    return {
        "names": names,
        "colours": [COLOURS[k % len(COLOURS)] for k in range(len(names))],
        "predicted": [(k, predicted[k]) for k in sorted(most)],
        "truth": sorted(Counter(c["true"] for c in cards if c["true"] is not None).items()),
    }


def _card(found: Answer, i: int) -> dict[str, Any]:
    """Row i; its bars in the order of the labels, or the best first where some are left out."""
    scores, true = found.scores.subset([i]), found.true[i]
    shares, best = scores.probability[0].tolist(), int(scores.prediction[0])
    order = list(range(len(shares)))
    if len(order) > MAX_BARS:
        order.sort(key=lambda k: -shares[k])
        if true is not None and true not in order[:MAX_BARS]:  # the truth is never left out
            order.remove(true)
            order.insert(MAX_BARS - 1, true)
    margin, entropy = float(scores.margin[0]), float(scores.relative_entropy[0])
    return {
        "row": i, "name": found.photos[found.kept[i]].name, "shares": shares, "best": best,
        "true": true, "right": None if true is None else true == best, "order": order[:MAX_BARS],
        "margin": margin, "entropy": entropy, "close": margin < _CLOSE_CALL,
    }  # fmt: skip


def _bins(said: Reliability) -> list[dict[str, float]]:
    """The bins that are not empty: their edges, shares and counts."""
    columns = (said.edges[:-1], said.edges[1:], said.confidence, said.accuracy, said.count)
    keys = ("left", "right", "confidence", "accuracy", "count")
    bins = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(keys, one, strict=True)) for one in bins if one[-1]]
