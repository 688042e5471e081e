"""What a reader of photos clipped, skipped or guessed, collected as sentences for people."""

from collections.abc import Iterable

_SHOWN = 3  # examples in a sentence


class Remarks:
    """Counts what happened, kind by kind, and remembers where."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, *where: str) -> None:
        """Note that `what` happened, at no, one or several places."""
        self._found.setdefault(what, []).extend(where)

    def sentences(self) -> tuple[str, ...]:
        """One line for each kind: what, how often, the first places."""
        return tuple(f"{what}{_places(where)}" for what, where in self._found.items())


def _places(where: list[str]) -> str:
    return f" ({len(where)}): {some(dict.fromkeys(where))}" if where else ""


def some(names: Iterable[str], most: int = _SHOWN) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
