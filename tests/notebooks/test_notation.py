"""A symbol means one thing in all notebooks."""

import re

from anatomy import LESSONS, notation

from cliplab.report.notebook import notebooks_dir, read_notebook

MEANS_TWO = {"$N$": {"01": "pictures, each with a caption", "02": "pixels"}}


def symbols() -> dict[str, dict[str, str]]:
    """Symbol, without its index -> notebook -> meaning, as the tables of the notation have it."""
    found: dict[str, dict[str, str]] = {}
    for path in LESSONS:
        table = notation(read_notebook(path))
        for row in re.findall(r"^\| (\$.*) \|$", table, re.MULTILINE):
            names, *_, meaning = row.split(" | ")
            for name in re.findall(r"\$[^$]+\$", names):
                bare = re.sub(r"_(\{\w+\}|\w)|\s", "", name)
                found.setdefault(bare, {})[path.name[:2]] = meaning
    return found


def clashes(table: dict[str, dict[str, str]]) -> list[str]:
    """Symbols with different meanings; what follows the first comma may differ."""
    starts = {name: {m.split(",")[0] for m in of.values()} for name, of in table.items()}
    return sorted(name for name, meanings in starts.items() if len(meanings) > 1)


def test_a_symbol_means_one_thing_in_all_notebooks() -> None:
    table = symbols()
    assert {"$N$", "$D$", r"$\mathbfu$", r"$\mathbft$"} <= {n for n in table if len(table[n]) > 1}
    assert clashes(table) == []
    assert clashes(table | MEANS_TWO) == ["$N$"]


def test_the_glossary_has_every_symbol() -> None:
    table = (notebooks_dir().parent / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\$[^|]*) \|", table, re.MULTILINE)
    listed = {re.sub(r"\s", "", name) for row in rows for name in re.findall(r"\$[^$]+\$", row)}
    assert set(symbols()) <= listed, set(symbols()) - listed
