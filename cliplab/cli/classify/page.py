"""The gallery that `classify` leaves for people."""

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from cliplab.cli.classify.answer import Answer, thumbnail_size
from cliplab.cli.classify.assess import Assessment, gained
from cliplab.cli.classify.outputs import unreadable_files
from cliplab.data import UnreadableImage, shown
from cliplab.report.gallery import (
    MAX_CARDS,
    Heading,
    choose_cards,
    gallery_html,
    panel_html,
    thumbnail,
)
from cliplab.runtime import atomic_write

if TYPE_CHECKING:
    from cliplab.encoders import Encoder


def write_gallery(
    args: argparse.Namespace, encoder: "Encoder", found: Answer, judged: Assessment | None
) -> str:
    """The gallery to --html; what is to be said about it, "" if nothing."""
    scores, n = found.scores, len(found.scores)
    rows = choose_cards(scores, found.true, limit=MAX_CARDS)
    note = ""
    if len(rows) < n:
        worst = "the worst mistakes, " if judged else ""
        note = (
            f"the gallery shows {len(rows):,} of {n:,} images: {worst}the closest calls and an "
            "even sample of the rest; --out CSV has all"
        )
    page = gallery_html(
        scores,
        found.names,
        _thumbnails(found, rows),
        heading=Heading(
            title=f"{shown(args.source.resolve().name)}, by label",
            facts=_facts(args, encoder, found),
            notes=[sentence(text, encoder.name) for text in (note, *task_notes(found)) if text],
            unreadable={f: "; ".join(why) for f, why in unreadable_files(found).items()},
        ),
        true=found.true,
        panel=panel_html(judged, _summary(found, judged)) if judged else "",
    )
    with atomic_write(args.html, "w") as file:
        file.write(page)
    return note


def task_notes(found: Answer) -> list[str]:
    """What was assumed, and what the diagnosis says."""
    return [*found.task.notes, *found.remarks]


def sentence(text: str, name: str) -> str:
    """`text` with a full stop, and a capital unless it begins with the encoder's `name`."""
    first = text[:1] if text.startswith(name) else text[:1].upper()
    return first + text[1:].rstrip(".") + "."


def _thumbnails(found: Answer, rows: list[int]) -> dict[int, str]:
    """Those that were made on the way; the others from the files, a file that went away is left."""
    size, small = thumbnail_size(len(rows)), {}
    for row in rows:
        with suppress(UnreadableImage):
            photo = found.task.photos[found.kept[row]]
            small[row] = found.thumbnails.get(row) or thumbnail(photo.open(), size=size)
    return small


def _facts(args: argparse.Namespace, encoder: "Encoder", found: Answer) -> dict[str, str]:
    facts = {"images": str(len(found.scores)), "encoder": encoder.name}
    if found.fitted is not None:
        examples = sum(sum(part.values()) for part in found.shots.values())
        facts["classifier"] = str(found.fitted.choices.get("method", args.method))
        facts |= {"fitted on": f"{examples} examples"} if examples else {}
        return facts
    classes = found.task.classes
    pairs = zip(classes.names, classes.prompts, strict=True)
    own = [f"{name} = {prompt}" for name, prompt in pairs if name != prompt]
    bare = "its text alone" if own else "the bare label"
    facts |= {"labels": ", ".join(own)} if own else {}
    return facts | {"prompts": ", ".join(bare if t == "{}" else t for t in args.template)}


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
