"""The gallery of `classify`: photos with a bar for each label, the worst mistakes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from cliplab.classification import Answer, Assessment, Scores, gained
from cliplab.data import UnreadableImage
from cliplab.report.galleries import Heading, percent, render, sentence, thumbnail
from cliplab.runtime import atomic_write

MAX_CARDS = 2000  # a page with more opens slowly: about 10 KB for each
MAX_BARS = 6  # classes shown at once on a card; the others fold away
_FEW, _LARGE, _SMALL = 500, 320, 208  # up to _FEW cards have thumbnails _LARGE pixels long
_MAX_CHIPS = 12  # classes that get a button each
_CLOSE_CALL = 0.1  # margin below which a card is marked
_SURE = 10  # images in a bin from which its bar has its full colour
# Okabe and Ito's colours, told apart by colour-blind readers; no yellow and black, which vanish
# on a white and on a dark page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#8A8A8A")


def thumbnail_size(cards: int) -> int:
    """Pixels of the longer side, fewer on a page with many cards."""
    return _LARGE if cards <= _FEW else _SMALL


# ---- which cards ---------------------------------------------------------------------------


def most_wrong(scores: Scores, true: Sequence[int | None]) -> list[int]:
    """Rows whose prediction is wrong, the most confident mistake first."""
    share = scores.probability.amax(dim=1).tolist()
    predicted = scores.prediction.tolist()
    wrong = [i for i, t in enumerate(true) if t is not None and t != predicted[i]]
    return sorted(wrong, key=lambda i: -share[i])


def choose_cards(
    scores: Scores, true: Sequence[int | None] | None = None, *, limit: int = MAX_CARDS
) -> list[int]:
    """Rows to show, at most `limit`, in the order to show them.

    With truth the mistakes come first, the most confident ones on top. When there are more images
    than cards, half of the cards are for mistakes, then half of what is left for the closest
    calls, and the rest is an even sample of all others, so that the ordinary is seen too.
    """
    n = len(scores)
    wrong = most_wrong(scores, true or [None] * n)
    if n <= limit:
        return wrong + _without(range(n), wrong)
    first = wrong[: limit // 2]
    close = _without(torch.argsort(scores.margin, stable=True).tolist(), first)
    close = close[: (limit - len(first)) // 2]
    rest = _without(range(n), [*first, *close])
    room = limit - len(first) - len(close)
    chosen = {*close, *(rest[i * len(rest) // room] for i in range(room))}
    also_wrong = [i for i in wrong[len(first) :] if i in chosen]
    return [*first, *also_wrong, *sorted(chosen - set(also_wrong))]


def _without(rows: Iterable[int], taken: Sequence[int]) -> list[int]:
    gone = set(taken)
    return [row for row in rows if row not in gone]


# ---- the page ------------------------------------------------------------------------------


def write_gallery(
    path: Path,
    found: Answer,
    encoder: str,
    *,
    title: str,
    templates: Sequence[str],
    notes: Sequence[str],
    thumbnails: Mapping[int, str],
    unreadable: Sequence[Mapping[str, str]],
) -> str:
    """Write the gallery; what is to be said about it, "" if nothing.

    Args:
        path: of the HTML.
        found: answers, and the truth where it is known.
        encoder: its name.
        title: of the source.
        templates: of the prompts.
        notes: what was assumed.
        thumbnails: row of the photos -> data URI, of those that were made on the way.
        unreadable: file, cause and remedy of each.
    """
    n, note = len(found.scores), ""
    rows = choose_cards(found.scores, found.true, limit=MAX_CARDS)
    if len(rows) < n:
        worst = "the worst mistakes, " if found.judged else ""
        note = (
            f"the gallery shows {len(rows):,} of {n:,} images: {worst}the closest calls and an "
            "even sample of the rest; the CSV of scores has all"
        )
    heading = Heading(
        f"{title}, by label",
        _facts(encoder, found, templates),
        [sentence(text, encoder) for text in (note, *notes, *found.remarks) if text],
        {f["file"]: f"{f['cause']}; {f['remedy']}" for f in unreadable},
    )
    judged = found.judged
    page = gallery_html(
        found.scores, found.names, _thumbnails(found, rows, thumbnails), heading=heading,
        true=found.true, judged=judged, summary=_summary(found, judged) if judged else (),
    )  # fmt: skip
    with atomic_write(path, "w") as file:
        file.write(page)
    return note


def gallery_html(
    scores: Scores,
    names: Sequence[str],
    thumbnails: Mapping[int, str],
    *,
    heading: Heading,
    true: Sequence[int | None],
    judged: Assessment | None = None,
    summary: Sequence[tuple[str, Sequence[str]]] = (),
) -> str:
    """The page for those of N scored images that have a thumbnail, in the order of these.

    Args:
        scores: of the N images.
        names: N file names.
        thumbnails: row -> data URI.
        heading: title and what else there is to say.
        true: N class indices, None where unknown.
        judged: the answers against the truth, if that is known.
        summary: rows for the table below the accuracy.
    """
    cards = [_card(scores, i, names[i], true[i]) | {"picture": thumbnails[i]} for i in thumbnails]
    predicted = Counter(card["best"] for card in cards)
    most = sorted(range(len(scores.class_names)), key=lambda k: -predicted[k])[:_MAX_CHIPS]
    known = Counter(card["true"] for card in cards if card["true"] is not None)
    return render(
        "classify.html.j2",
        heading=heading,
        names=scores.class_names,
        colours=[COLOURS[k % len(COLOURS)] for k in range(len(scores.class_names))],
        cards=cards,
        predicted=[(k, predicted[k]) for k in sorted(most)],
        truth=sorted(known.items()),
        judged=judged,
        summary=summary,
        bins=_bins(judged) if judged else [],
    )


def _card(scores: Scores, i: int, name: str, true: int | None) -> dict[str, Any]:
    """Row i; its bars in the order of the labels, or the best first where some fold away."""
    shares, best = scores.probability[i].tolist(), int(scores.prediction[i])
    order = list(range(len(shares)))
    if len(order) > MAX_BARS:
        order.sort(key=lambda k: -shares[k])
        if true is not None and true not in order[:MAX_BARS]:  # the truth is never folded away
            order.remove(true)
            order.insert(MAX_BARS - 1, true)
    margin, entropy = float(scores.margin[i]), float(scores.relative_entropy[i])
    return {
        "row": i, "name": name, "shares": shares, "best": best, "true": true,
        "right": None if true is None else true == best, "order": order[:MAX_BARS],
        "folded": order[MAX_BARS:], "margin": margin, "entropy": entropy,
        "close": margin < _CLOSE_CALL,
    }  # fmt: skip


def _bins(judged: Assessment) -> list[dict[str, Any]]:
    """Bars of the reliability diagram, in units of its SVG: 220 wide and high from (52, 8)."""
    said, bars = judged.reliability, []
    for b, count in enumerate(said.count.tolist()):
        if count:
            left, right = (52 + 220 * float(edge) for edge in said.edges[b : b + 2])
            confidence, accuracy = float(said.confidence[b]), float(said.accuracy[b])
            bar = {
                "x": left + 0.7, "width": right - left - 1.4, "middle": 52 + 220 * confidence,
                "top": 228 - 220 * accuracy, "height": max(0.8, 220 * accuracy),
                "ideal": 228 - 220 * confidence, "tall": 30 * count / float(said.count.max()),
                "opacity": 0.3 + 0.7 * min(1, count / _SURE),
            }  # fmt: skip
            text = {key: f"{value:.2f}" for key, value in bar.items() if key != "tall"}
            text |= {"tall": bar["tall"], "count": count}
            bars.append(text | {"confidence": confidence, "accuracy": accuracy})
    return bars


# ---- what is said --------------------------------------------------------------------------


def _thumbnails(found: Answer, rows: list[int], made: Mapping[int, str]) -> dict[int, str]:
    """Those that were made on the way; the others from the files, a file that went away is left."""
    size, small = thumbnail_size(len(rows)), {}
    for row in rows:
        with suppress(UnreadableImage):
            i = found.kept[row]
            small[row] = made.get(i) or thumbnail(found.photos[i].open(), size=size)
    return small


def _facts(encoder: str, found: Answer, templates: Sequence[str]) -> dict[str, str]:
    facts = {"images": str(len(found.scores)), "encoder": encoder}
    if found.classifier is not None:
        examples = sum(sum(part.values()) for part in found.shots.values())
        facts["classifier"] = str(found.classifier.choices.get("method", "as it was kept"))
        return facts | ({"fitted on": f"{examples} examples"} if examples else {})
    pairs = zip(found.classes.names, found.classes.prompts, strict=True)
    own = [f"{name} = {prompt}" for name, prompt in pairs if name != prompt]
    bare = "its text alone" if own else "the bare label"
    facts |= {"labels": ", ".join(own)} if own else {}
    return facts | {"prompts": ", ".join(bare if t == "{}" else t for t in templates)}


def _summary(found: Answer, judged: Assessment) -> list[tuple[str, list[str]]]:
    """Rows below the accuracy."""
    name, share = judged.majority
    luck = judged.error_by_luck
    by_luck = "" if luck is None else f" (luck: {luck:.3f})"
    rows = {}
    if judged.by_group and judged.groups:
        low, high = map(percent, judged.by_group)
        rows[f"interval, {len(set(judged.groups))} groups"] = f"{low} to {high}"
    rows |= {
        "balanced accuracy": percent(judged.balanced_accuracy),
        f"always saying {name}": percent(share),
        "shuffled truth": f"p = {judged.control.p_value:.2g}",
        "sure on average": percent(judged.confidence),
        "calibration error": f"{judged.calibration_error:.3f}{by_luck}",
    }
    if before := found.before:
        gain, least, most = (f"{100 * x:+.1f}" for x in gained(before, judged))
        rows["prompts alone"] = percent(before.accuracy.value)
        rows["gained, in points"] = f"{gain} ({least} to {most})"
    return [(what, [value]) for what, value in rows.items()]
