"""Numbers for each class, as the terminal, the page and the report show them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cliplab.detection.detectors import Detector
from cliplab.detection.finding import Found
from cliplab.detection.judging import Judged


@dataclass(frozen=True)
class Row:
    """One class."""

    name: str
    group: str  # such as base or novel; "" if the model has none
    boxes: int  # that count as found
    pictures: int  # with such a box
    score: float | None  # mean of these boxes
    true: int | None = None  # boxes there are, None if nothing is known
    hit: int | None = None  # of them, found
    counted: int | None = None  # boxes found in judged pictures
    ap50: float | None = None
    ap: float | None = None

    @property
    def wrong(self) -> int | None:
        """Boxes found in judged pictures that are not there."""
        return None if self.counted is None or self.hit is None else self.counted - self.hit

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fractions with 4 decimals."""
        plain = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}


def summarise(found: Found, detector: Detector, judged: Judged | None) -> list[Row]:
    """A row for each class, in the order of the labels."""
    return list(_rows(found, detector, judged))


def _rows(found: Found, detector: Detector, judged: Judged | None) -> Iterator[Row]:
    group_of = {k: group for group, ks in detector.groups.items() for k in ks}
    for k, name in enumerate(detector.classes.names):
        scores = [one.scores[one.labels == k] for one in found.found]
        total = sum(map(len, scores))
        mean = float(sum(float(s.sum()) for s in scores)) / total if total else None
        known: dict[str, Any] = {}
        if judged and k in judged.known:
            precision = judged.classes.get(k)
            known = {
                "true": judged.true[k],
                "hit": judged.hit[k],
                "counted": judged.counted[k],
                "ap50": precision.ap50 if precision else None,
                "ap": precision.ap if precision else None,
            }
        pictures = sum(bool(len(s)) for s in scores)
        yield Row(name, group_of.get(k, ""), total, pictures, mean, **known)
