"""Hand-ins of a class on one page: who ran what, what differs, what is alike, what is broken."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from notebook_builder import code, markdown, stream
from pages import TRAP, soup, texts
from test_page import assert_harmless

from cliplab.cli.main import main
from cliplab.report.class_page import PAGE, TABLE
from cliplab.report.execute import write_notebook
from cliplab.report.notebook import read_notebook
from cliplab.runtime import write_json

OWN = "answer = sum(one * two for one, two in zip(left, right, strict=True))"
REPLIES = "01.1 right: f passes.\n01.2 wrong: …\n01.3 not yet: …\n01.a right: …\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A laboratory with one lesson of six cells, executed once: the run of the teacher."""
    from conftest import small_notebook

    place = tmp_path_factory.mktemp("class")
    lesson = place / "notebooks" / "01_small.ipynb"
    lesson.parent.mkdir()
    small_notebook(lesson, title="01 Small")
    notebook = read_notebook(lesson)
    notebook.cells.insert(4, code("def f():\n    raise NotImplementedError", "exercise"))
    for name, cell in zip("abcdef", notebook.cells, strict=True):
        cell.id = f"step-{name}"
    write_notebook(notebook, lesson)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliplab.report.notebook.notebooks_dir", lambda: lesson.parent)
        assert main(["run", "--out", str(place / "mine"), "--student", "Teacher"]) == 0
    return place / "mine"


class Class:
    """A folder of hand-ins, made from one run."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.original, self.folder, self.count = original, folder, 0
        folder.mkdir()

    def add(self, name: str, change: Callable[[Any], None] | None = None, **record: Any) -> Path:
        """A hand-in that was executed at a time of its own."""
        place = Path(shutil.copytree(self.original, self.folder / name))
        self.count += 1
        state = json.loads((place / "results.json").read_text("utf-8")) | {"student": f"S {name}"}
        state["notebooks"]["01_small"] |= {"started": f"2026-01-0{self.count}"} | record
        write_json(place / "results.json", state)
        if change:
            path = place / "notebooks" / "01_small.ipynb"
            notebook = read_notebook(path)
            change(notebook)
            write_notebook(notebook, path)
        return place

    def rows(self, *more: str, code: int = 0) -> dict[str, dict[str, str]]:
        """What the table says, by hand-in; the page says no less and runs nothing."""
        assert main(["report", "--class", str(self.folder), *more]) == code
        page = self.folder / PAGE
        html = soup(page)
        policy = html.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy
        body = self.folder / "body.html"
        body.write_text(page.read_text("utf-8").partition("</head>")[2], "utf-8")
        assert_harmless(body)
        body.unlink()
        with (self.folder / TABLE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        shown = texts(html, "th[scope=row]")[: len(rows)]
        assert shown == [" ".join(row["folder"].lstrip("'").split()) for row in rows]
        return {row["folder"]: row for row in rows}


@pytest.fixture
def room(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Class:
    notebooks = original.parent / "notebooks"
    monkeypatch.setattr("cliplab.report.notebook.notebooks_dir", lambda: notebooks)
    return Class(original, tmp_path / "hand-ins")


def edit(notebook: Any) -> None:
    notebook.cells[2].source += f"\n{notebook.cells[1].source}"  # what was given out is nobody's
    notebook.cells[3].source = "x = 7"
    notebook.cells.insert(5, markdown("A thought."))
    del notebook.cells[0]


def solve(notebook: Any) -> None:
    notebook.cells[4].source = OWN
    notebook.cells[4].outputs = [stream(REPLIES)]


def test_a_class_of_six(room: Class, capsys: pytest.CaptureFixture[str]) -> None:
    room.add("ann")
    room.add("bea", edit, results={"x": 7, "quick": False})
    room.add("cai", solve)
    room.add("dan", solve)  # the answer of cai, executed by himself
    shutil.copytree(room.folder / "ann", room.folder / "eve")  # a copy of ann's whole run
    broken = room.add("fox")
    (broken / "results.json").write_text('{"notebooks": ', encoding="utf-8")
    (room.folder / "gus").mkdir()
    (room.folder / "hal.zip").write_bytes(b"PK")
    room.add("ian", edit)
    rows = room.rows(str(room.original), code=1)
    kept = ("name", "state", "results that differ", "of results", "cells edited", "cells added",
            "cells removed", "exercises right", "of", "quiz right", "of quiz", "alike")  # fmt: skip
    found = {name: [row[key] for key in kept] for name, row in rows.items()}
    plain = ["finished", "0", "2", "0", "0", "0"]
    none, same = ["0"] * 4, "1 of 1 own cells"
    assert found["ann"] == ["S ann", *plain, *none, "eve: the same execution"]
    assert found["bea"] == ["S bea", "finished", "1", "2", "2", "1", "1", *none, ""]
    assert found["cai"] == ["S cai", *plain, "1", "3", "1", "1", f"dan: {same}"]
    assert found["dan"] == ["S dan", *plain, "1", "3", "1", "1", f"cai: {same}"]
    assert found["eve"] == ["S ann", *plain, *none, "ann: the same execution"]
    assert found["ian"] == ["S ian", "finished", "0", "2", "2", "1", "1", *none, ""]
    assert "not what a run writes" in found["fox"][1]
    assert "gus is no run" in found["gus"][1]
    assert "unpack it" in found["hal.zip"][1]
    page = (room.folder / PAGE).read_text("utf-8")
    assert "9 hand-ins, 6 executed notebooks,\n3 that cannot be read" in page
    assert "edited: step-c, step-d" in page
    said = capsys.readouterr()
    assert str(room.folder) not in page + said.err
    assert said.err.count("\n") == 3


def test_without_a_run_the_class_says_what_is_expected(room: Class) -> None:
    for name, x in (("a", 6), ("b", 6.001)):
        room.add(name, results={"x": x, "quick": False})
    assert {row["of results"] for row in room.rows().values()} == {"0"}  # two are no class
    room.add("c", results={"x": 6.5})
    room.add("d", parameters={"QUICK": True}, results={"x": 1})
    found = {name: row["results that differ"] for name, row in room.rows().items()}
    assert found == {"a": "0", "b": "0", "c": "2", "d": "0"}
    assert room.rows("--rtol", "0.1")["c"]["results that differ"] == "1"
    assert room.rows(str(room.original))["d"]["of results"] == "0"  # another question


def damaged(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state | changes


@pytest.mark.parametrize(
    "change",
    [
        damaged(notebooks=[]), damaged(notebooks={"a": 3}), damaged(machine=[]), lambda state: [],
        lambda state: {"notebooks": {"a": state["notebooks"]["01_small"] | {"seconds": "long"}}},
    ],
)  # fmt: skip
def test_a_damaged_hand_in_is_named(room: Class, change: Callable[[dict[str, Any]], Any]) -> None:
    path = room.add("a") / "results.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")
    room.add("b")
    rows = room.rows(code=1)
    assert rows["b"]["state"] == "finished"
    assert rows["a"]["notebook"] == ""


def test_what_a_hand_in_says_is_shown_and_never_interpreted(room: Class) -> None:
    evil = {"results": {TRAP: "=1+1", "x": 1}, "failure": {"cell": 1, "error": TRAP}}
    place = room.add("=cmd", notebook="../secret.ipynb", **evil)
    state = json.loads((place / "results.json").read_text("utf-8"))
    state["student"] = f"@{TRAP}"
    (place / "results.json").write_text(json.dumps(state).replace('"x": 1', '"x": NaN'), "utf-8")
    other = read_notebook(room.original / "notebooks" / "01_small.ipynb")
    solve(other)
    write_notebook(other, room.folder / "secret.ipynb")
    row = next(row for name, row in room.rows(code=1).items() if "cmd" in name)
    assert row["folder"] == "'=cmd"
    assert row["name"].startswith("'@")
    assert row["of"] == "0"  # a notebook of somebody else's is not looked at


def test_nothing_to_gather(room: Class, capsys: pytest.CaptureFixture[str]) -> None:
    assert room.rows() == {}
    assert "there are no hand-ins" in capsys.readouterr().err
    assert "There are no hand-ins" in (room.folder / PAGE).read_text("utf-8")
    (room.folder / TABLE).write_text("a,b\n", encoding="utf-8")
    for words, said in (
        (["--class", str(room.folder)], "not ours"),
        (["--class", "nowhere"], "is no folder"),
        (["--class", str(room.folder), "nowhere"], "nowhere is no run"),
        (["--class", str(room.folder), "--compare", "a", "b"], "give one RUN"),
    ):
        assert main(["report", *words]) == 2
        assert said in capsys.readouterr().err
    assert (room.folder / TABLE).read_text("utf-8") == "a,b\n"
