"""The model cards of all trainings of a stem in one table: `python tools/gather_rows.py vild`.

Every training of `python -m cliplab train <stem>` leaves a model card, and
`python tools/groupvit_baselines.py` a file of baselines. This puts those of all variants and seeds
in `data/checkpoints/<stem>/rows.json`, which the lessons show beside the tables of the papers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from cliplab.runtime import checkpoint_dir, write_json
from cliplab.training.cards import load_rows
from cliplab.training.groupvit_model import GroupViTRecipe

Card = dict[str, Any]
# What a row keeps of one card: where in the row -> the value, one a seed
Entry = Mapping[tuple[str, ...], Any]


@dataclass(frozen=True)
class Table:
    """How the cards of a stem become rows."""

    entries: Callable[[Card], Mapping[str, Entry]]  # rows that a card has a part in; none: left out
    alike: Mapping[str, Callable[[Card], Any]]  # that is the same in all: name -> how to read it
    order: Sequence[str] = ()  # of the rows; none: by name
    apart: tuple[str, ...] = ()  # rows that may differ from the others
    also: tuple[str, ...] = ()  # checkpoints besides the stem's own
    keep: tuple[str, ...] = ()  # parts of a row's first card that it holds as they are
    extra: Callable[[Sequence[Card]], dict[str, Any]] = field(default=lambda cards: {})


def read_cards(folders: Iterable[Path]) -> list[Card]:
    """All model cards anywhere below some folders."""
    paths = sorted({p.resolve() for folder in folders for p in folder.glob("**/model_card.json")})
    return [json.loads(path.read_text("utf-8")) for path in paths]


def gather(stem: str, table: Table, cards: Sequence[Card]) -> dict[str, Any]:
    """Model cards -> the table of `load_rows`.

    Raises:
        ValueError: no card at all; cards of evaluations or trainings of different length, which
            must not stand in one table; two cards of one training.
    """
    entries = [(card, table.entries(card)) for card in cards]
    for card, some in entries:
        if not some:
            print("left out, since it is in no row:", card["command"])
    used = [card for card, some in entries if some]
    compared = [card for card, some in entries if some and not set(some) & set(table.apart)]
    check_alike(compared or used, table.alike)
    rows: dict[str, dict[str, Any]] = {}
    for card, some in sorted(entries, key=lambda entry: entry[0]["recipe"]["seed"]):
        for name, entry in some.items():
            row = rows.setdefault(name, {part: card[part] for part in table.keep})
            _append(row, {("seeds",): card["recipe"]["seed"], **entry})
            _check_seeds(name, row["seeds"])
    order = [name for name in table.order if name in rows] or sorted(rows)
    return {
        "command": f"python tools/gather_rows.py {stem}",
        "pictures": (compared or used)[0]["metrics"]["pictures"],
        "trainings": sorted(card["command"] for card in used),
        "rows": {name: rows[name] for name in order},
        **table.extra(compared or used),
    }


def check_alike(cards: Sequence[Card], facts: Mapping[str, Callable[[Card], Any]]) -> None:
    """Refuse cards that must not stand in one table.

    Raises:
        ValueError: no card at all, or two that differ in one of the facts.
    """
    if not cards:
        raise ValueError("no model card found; train first: `python -m cliplab train <stem>`")
    for what, read in facts.items():
        found = {str(read(card)) for card in cards}
        if len(found) > 1:
            raise ValueError(
                f"{what}: the cards have {', '.join(sorted(found))}; expected one value for all: "
                "train and evaluate the others again, or give other folders"
            )


def _check_seeds(name: str, seeds: Sequence[int]) -> None:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"row {name!r}: two cards of seed {seeds[-1]}; expected one")


def _append(row: dict[str, Any], entry: Entry) -> None:
    """Add the values of one card to the lists of a row."""
    for path, value in entry.items():
        *parents, last = path
        inner = row
        for key in parents:
            inner = inner.setdefault(key, {})
        inner.setdefault(last, []).append(value)


# ---- vild ----------------------------------------------------------------------------------

# (variant, novel) of a recipe -> head that is asked -> name of the row
_ROWS: dict[tuple[str, str], dict[str, str]] = {
    ("text", "zero"): {"text": "text"},
    ("image", "zero"): {"image": "image"},
    ("vild", "zero"): {"text": "vild"},
    ("ensemble", "zero"): {
        "ensemble": "ensemble",
        "text": "ensemble: text head",
        "image": "ensemble: image head",
    },
    ("supervised", "zero"): {"text": "supervised"},
    ("text", "masked"): {"text": "text, masked"},
    ("ensemble", "masked"): {"ensemble": "ensemble, masked"},
}


def _vild_entries(card: Card) -> dict[str, Entry]:
    recipe, metrics = card["recipe"], card["metrics"]
    heads = _ROWS.get((recipe["variant"], recipe["novel"]), {})
    entries = {}
    for head, name in heads.items():
        entry = {("recall", g): metrics["recall"][g]["value"] for g in ("base", "novel")}
        for group in ("base", "novel"):
            entry |= {(group, m): metrics[head][group][m] for m in ("ap50", "ap", "ar")}
        entries[name] = entry
    return entries


VILD = Table(
    entries=_vild_entries,
    alike={
        "pictures in the evaluation": lambda card: card["metrics"]["pictures"],
        "steps": lambda card: card["recipe"]["steps"],
        "teacher": lambda card: card["teacher"]["fingerprint"],
    },
    order=[name for heads in _ROWS.values() for name in heads.values()],
)


# ---- glip ----------------------------------------------------------------------------------

_HALF = 2  # rounds


def _steps(card: Card) -> list[int]:
    return [one["steps"] for one in card["recipe"]["rounds"]]


def _glip_entries(card: Card) -> dict[str, Entry]:
    """Whole trainings, and those of the first two rounds of six."""
    name = "fusion" if card["recipe"]["fusion"] else "no fusion"
    early, late = _steps(card)[:_HALF], _steps(card)[_HALF:]
    if all(early) and not any(late):
        name += ", halfway"
    elif not all(early + late):
        return {}
    return {name: {("metrics",): card["metrics"]}}


GLIP = Table(
    entries=_glip_entries,
    alike={
        "pictures in the evaluation": lambda card: card["metrics"]["pictures"],
        "steps of the first two rounds": lambda card: _steps(card)[:_HALF],
        "distinct herds": lambda card: card["recipe"]["pictures"],
    },
    order=("fusion", "no fusion", "fusion, halfway", "no fusion, halfway"),
    also=("glip-no-fusion",),
)


# ---- groupvit ------------------------------------------------------------------------------

BASELINES = Path("runs/train/groupvit/baselines.json")
_SHIPPED = "shipped"  # the row of the shipped training and those like it, of other seeds


_FORMER = {  # names of fields in cards that are shipped
    "more": "second_round_steps",
    "answered": "second_round_pictures",
    "frame_every": "snapshot_every",
}


def recipe_of(card: Card) -> GroupViTRecipe:
    """The recipe of a card, also of one that was written when fields had other names."""
    return GroupViTRecipe(**{_FORMER.get(k, k): value for k, value in card["recipe"].items()})


def _groupvit_entries(card: Card) -> dict[str, Entry]:
    recipe = recipe_of(card)
    name = (
        _SHIPPED if replace(recipe, seed=GroupViTRecipe.seed) == GroupViTRecipe() else recipe.name
    )
    return {name: {("metrics",): card["metrics"]}}


def _groupvit_extra(cards: Sequence[Card]) -> dict[str, Any]:
    """The recipes' steps, and baselines: those just measured, else those of the shipped table.

    Raises:
        ValueError: baselines of another evaluation.
    """
    pictures, steps = cards[0]["metrics"]["pictures"], cards[0]["recipe"]["steps"]
    if BASELINES.is_file():
        known = json.loads(BASELINES.read_text("utf-8"))
    else:
        table = load_rows("groupvit")
        known = {"pictures": table["pictures"], "rows": table["baselines"]}
    if known["pictures"] != pictures:
        raise ValueError(
            f"baselines: got {known['pictures']} pictures, the cards have {pictures}; expected "
            "one evaluation: measure the baselines again with --pictures"
        )
    return {"steps": steps, "baselines": known["rows"]}


def _of_recipe(name: str) -> Callable[[Card], Any]:
    return lambda card: getattr(recipe_of(card), name)


GROUPVIT = Table(
    entries=_groupvit_entries,
    alike={
        "pictures in the evaluation": lambda card: card["metrics"]["pictures"],
        "pictures to choose on": lambda card: card["metrics"]["val pictures"],
        "steps": _of_recipe("steps"),
        "batch": _of_recipe("batch"),
        "steps of a second round": _of_recipe("second_round_steps"),
        "distinct pictures": _of_recipe("pictures"),
        "layers of the stem": _of_recipe("stem_layers"),
    },
    apart=(_SHIPPED,),
    keep=("recipe",),
    extra=_groupvit_extra,
)


# ---- the command ---------------------------------------------------------------------------

TABLES = {"vild": VILD, "glip": GLIP, "groupvit": GROUPVIT}


@dataclass(frozen=True)
class Options:
    """What can be told."""

    stem: tyro.conf.Positional[Literal["vild", "glip", "groupvit"]]
    folders: tuple[Path, ...] = ()  # of cards (default: runs/train/<stem> and the shipped)
    out: Path | None = None  # the table (default: rows.json beside the shipped weights)


def main(typed: Sequence[str] | None = None) -> None:
    """Read cards, gather them, write the table."""
    options = tyro.cli(Options, args=typed, description=__doc__)
    stem, table = options.stem, TABLES[options.stem]
    shipped = [checkpoint_dir(name) for name in (stem, *table.also)]
    cards = read_cards(options.folders or [Path("runs/train") / stem, *shipped])
    path = options.out or checkpoint_dir(stem) / "rows.json"
    write_json(path, gather(stem, table, cards))
    print(f"{len(cards)} cards in {path}")


if __name__ == "__main__":
    main()
