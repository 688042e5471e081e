"""What the pages with pictures share: small pictures as text, a heading, a template made a file.

Such a page is one file. It loads nothing, works without JavaScript, in light and dark, by mouse and
by keyboard; whatever a file or a label is called is shown, never interpreted.
"""

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import markupsafe
from PIL import Image

from cliplab.data import UnreadableImage, shown
from cliplab.runtime import atomic_write

MAX_CARDS = 500  # of a page of boxes or segments: 10 to 35 KB each
_FEW, _LARGE, _SMALL = 150, 480, 220  # up to _FEW cards have thumbnails _LARGE pixels long
_TEMPLATES = Path(__file__).parent / "templates"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Heading:
    """What a gallery says besides its pictures."""

    title: str
    notes: Sequence[str] = ()  # sentences; the first ones are shown, the others fold away
    unreadable: Mapping[str, str] = field(default_factory=dict)  # file -> why, and what to do


def thumbnail(image: Image.Image, *, size: int = 320) -> str:
    """The image at most `size` pixels long, as a JPEG inside a data URI, without metadata."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    return data_uri(small, "jpeg", quality=80, optimize=True)


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as the text that a page holds in place of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def even_sample(things: Sequence[_T], most: int) -> list[_T]:
    """At most `most` of them, evenly over all."""
    n = len(things)
    return list(things) if n <= most else [things[i * n // most] for i in range(most)]


def choose_pictures(paths: Sequence[Path]) -> tuple[set[Path], int]:
    """Which pictures get a card, an even sample if there are many, and how long it is in pixels."""
    chosen = set(even_sample(paths, MAX_CARDS))
    return chosen, _LARGE if len(chosen) <= _FEW else _SMALL


def sentence(text: str, name: str) -> str:
    """`text` with a full stop, and a capital unless it begins with `name`, that of a model."""
    first = text[:1] if text.startswith(name) else text[:1].upper()
    return first + text[1:].rstrip(".") + "."


def reasons(errors: Iterable[UnreadableImage]) -> dict[str, str]:
    """File -> why it was not read, and what to do."""
    return {shown(error.path): f"{error.cause}; {error.remedy}" for error in errors}


def write_html(path: Path, template: str, **values: Any) -> None:
    """Write the page that a file of `templates` makes of values; all of them are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"file": _embedded, "policy": _policy}
    environment.filters |= _FILTERS
    page = environment.get_template(template).render(values)
    with atomic_write(path, "w") as file:
        file.write(page)


def _embedded(name: str) -> str:
    """A style or a script as it stands: what is ours needs no escaping."""
    return markupsafe.Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(script: str = "") -> str:
    """Content-security policy of a page: it loads nothing, and runs at most this script of ours."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    ours = f"; script-src 'sha256-{digest}'" if script else ""
    return (
        "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "
        f"base-uri 'none'; form-action 'none'{ours}"
    )


def percent(value: float | None, decimals: int = 1) -> str:
    """A share for people; a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}%}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


_FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "duration": duration,
    "number": lambda value: "–" if value is None else f"{value:,}",
}
