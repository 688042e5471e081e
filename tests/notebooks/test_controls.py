"""What a control draws again still works when the cells below have run."""

import re
from collections.abc import Sequence
from pathlib import Path
from symtable import SymbolTable, symtable

import pytest

from cliplab.report.notebook import notebooks_dir, read_notebook

TOUCHED = [
    path
    for path in sorted(notebooks_dir().rglob("[0-9][0-9]_*.ipynb"))
    if "report.touch(" in path.read_text(encoding="utf-8")
]


def looked_up(table: SymbolTable) -> set[str]:
    """Global names that a function reads when it is called, those of its inner scopes too."""
    here = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return here.union(*(looked_up(inner) for inner in table.get_children()))


def rebound(cells: Sequence[str]) -> list[str]:
    """Names that a touched function reads, itself or through another, and a later cell binds."""
    tables = [symtable(source, "cell", "exec") for source in cells]
    functions = {inner.get_name(): inner for t in tables for inner in t.get_children()}
    found = []
    for i, source in enumerate(cells):
        for name in re.findall(r"report\.touch\(\s*(\w+)", source):
            read, new = set[str](), {name}
            while new:
                read |= new
                new = set().union(*(looked_up(functions[n]) for n in new & set(functions))) - read
            for later in tables[i + 1 :]:
                bound = {s.get_name() for s in later.get_symbols() if s.is_assigned()}
                found += [f"{name} reads {again}" for again in sorted(read & bound)]
    return found


@pytest.mark.parametrize("path", TOUCHED, ids=lambda path: path.stem)
def test_no_later_cell_binds_what_a_control_reads(path: Path) -> None:
    cells = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]
    assert rebound(cells) == []


def test_a_name_bound_again_is_seen() -> None:
    draw = "def helper():\n    return [x for x in curves]\n\n\ndef draw(s):\n    fig = helper()\n"
    cells = ["curves = [1]", draw, "report.touch(draw, s=(1, 0, 2, 1))", "fig = x = s = 3"]
    assert rebound(cells) == []
    assert rebound([*cells, "for curves in (1, 2):\n    pass"]) == ["draw reads curves"]
