"""The gallery that `classify` leaves for people."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cliplab.classification import Answer, Assessment, gained
from cliplab.data import UnreadableImage
from cliplab.report.gallery import (
    MAX_CARDS,
    THUMBNAIL,
    Heading,
    choose_cards,
    gallery_html,
    panel_html,
    thumbnail,
)
from cliplab.runtime import atomic_write

__all__ = ["MAX_CARDS", "sentence", "thumbnail", "thumbnail_size", "write_gallery"]

FEW, SMALL = 500, 208  # with more cards than FEW the thumbnails are SMALL pixels long


def thumbnail_size(cards: int) -> int:
    """Pixels of the longer side, fewer on a page with many cards."""
    return THUMBNAIL if cards <= FEW else SMALL


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
    scores, n = found.scores, len(found.scores)
    rows = choose_cards(scores, found.true, limit=MAX_CARDS)
    note = ""
    if len(rows) < n:
        worst = "the worst mistakes, " if found.judged else ""
        note = (
            f"the gallery shows {len(rows):,} of {n:,} images: {worst}the closest calls and an "
            "even sample of the rest; --out CSV has all"
        )
    said = (note, *notes, *found.remarks)
    page = gallery_html(
        scores,
        found.names,
        _thumbnails(found, rows, thumbnails),
        heading=Heading(
            title=f"{title}, by label",
            facts=_facts(encoder, found, templates),
            notes=[sentence(text, encoder) for text in said if text],
            unreadable={f["file"]: f"{f['cause']}; {f['remedy']}" for f in unreadable},
        ),
        true=found.true,
        panel=panel_html(found.judged, _summary(found, found.judged)) if found.judged else "",
    )
    with atomic_write(path, "w") as file:
        file.write(page)
    return note


def sentence(text: str, name: str) -> str:
    """`text` with a full stop, and a capital unless it begins with the encoder's `name`."""
    first = text[:1] if text.startswith(name) else text[:1].upper()
    return first + text[1:].rstrip(".") + "."


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
        facts |= {"fitted on": f"{examples} examples"} if examples else {}
        return facts
    pairs = zip(found.classes.names, found.classes.prompts, strict=True)
    own = [f"{name} = {prompt}" for name, prompt in pairs if name != prompt]
    bare = "its text alone" if own else "the bare label"
    facts |= {"labels": ", ".join(own)} if own else {}
    return facts | {"prompts": ", ".join(bare if t == "{}" else t for t in templates)}


def _summary(found: Answer, judged: Assessment) -> list[tuple[str, str]]:
    """Rows below the accuracy."""
    name, share = judged.majority
    rows = []
    if judged.by_group and judged.groups:
        low, high = judged.by_group
        rows.append((f"interval, {len(set(judged.groups))} groups", f"{low:.1%} to {high:.1%}"))
    rows.append(("balanced accuracy", f"{judged.balanced_accuracy:.1%}"))
    rows.append((f"always saying {name}", f"{share:.1%}"))
    rows.append(("shuffled truth", f"p = {judged.control.p_value:.2g}"))
    luck = judged.error_by_luck
    by_luck = "" if luck is None else f" (luck: {luck:.3f})"
    rows.append(("sure on average", f"{judged.confidence:.1%}"))
    rows.append(("calibration error", f"{judged.calibration_error:.3f}{by_luck}"))
    if before := found.before:
        gain, low, high = gained(before, judged)
        rows.append(("prompts alone", f"{before.accuracy.value:.1%}"))
        rows.append(
            ("gained, in points", f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
        )
    return rows
