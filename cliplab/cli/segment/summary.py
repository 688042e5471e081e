"""Numbers for each label, as the terminal, the page and the summary show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cliplab.segmentation.finding import Found
from cliplab.segmentation.judging import Judged


@dataclass(frozen=True)
class Row:
    """One label."""

    index: int  # in label PNGs
    name: str
    words: tuple[str, ...]
    colour: str  # "#RRGGBB"
    share: float  # of the pixels of all pictures
    pictures: int  # with a pixel of it
    true_share: float | None = None  # of the judged pixels, None if nothing is known
    iou: float | None = None
    oracle_iou: float | None = None
    boundary_iou: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fractions with 4 decimals."""
        plain = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}


def percent(share: float) -> str:
    """A share of a picture for people: "12%", and "<1%" for what is there but rounds to nothing."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def summarise(
    found: Found,
    judged: Judged | None,
    words: Sequence[Sequence[str]],
    colours: Sequence[str],
) -> list[Row]:
    """A row for each label, in the order of the labels."""
    pixels = [width * height for width, height in found.sizes]
    rows = []
    for k, name in enumerate(found.names):
        own = [shares[k] for shares in found.shares]
        share = sum(s * n for s, n in zip(own, pixels, strict=True)) / max(1, sum(pixels))
        known: dict[str, float | None] = {}
        if judged and k in judged.known:
            counts = judged.quality.confusion
            known = {
                "true_share": float(counts[k].sum() / counts.sum()),
                "iou": judged.value(judged.quality.iou, k),
                "oracle_iou": judged.value(judged.quality.oracle_iou, k),
                "boundary_iou": judged.value(judged.quality.boundary_iou, k),
            }
        there = sum(s > 0 for s in own)
        rows.append(Row(k, name, tuple(words[k]), colours[k], share, there, **known))
    return rows
