"""A finished run is an RO-Crate that says no more than what happened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from notebook_builder import RUN, markdown, write
from rocrate.rocrate import ROCrate

from cliplab.cli.main import main
from cliplab.report import folder
from cliplab.report.crate import METADATA, PROFILE
from cliplab.runtime import sha256, write_json

STATE: dict[str, Any] = RUN | {
    "student": "Li Lei",
    "versions": {"cliplab": "0.1.0", "torch": "2.9.0", "timm": "absent"},
    "commit": {"id": "abc", "dirty": True},
}
RECORD: dict[str, Any] = {
    "finished": True, "seconds": 2.0, "figures": [], "results": {"x": 1}, "source_sha256": "5ec",
    "parameters": {"SEED": 0, "QUICK": True, "PHOTOS": "", "SIZES": [1, 2]},
}  # fmt: skip
TIMES = {"started": "2026-01-01T10:00:01+01:00", "ended": "2026-01-01T10:00:03+01:00"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two notebooks; one has a name that no address can hold, a figure and pictures."""
    place, records = tmp_path / "run", {}
    (place / "figures").mkdir(parents=True)
    (place / "notebooks").mkdir()
    (place / "figures" / "a b 1.png").write_bytes(b"\x89PNG")
    for name in ("a b", "02_羊"):
        write(place / "notebooks" / f"{name}.ipynb", markdown(f"# {name}"))
        records[name] = RECORD | {"title": name, "notebook": f"notebooks/{name}.ipynb"}
    records["a b"] |= TIMES | {"figures": ["figures/a b 1.png"], "inputs": {"PHOTOS": "f00d"}}
    write_json(place / "results.json", STATE | {"notebooks": records})
    (place / "private.txt").write_text("a file of the student's", encoding="utf-8")
    assert main(["report", str(place)]) == 0
    return place


def of_type(graph: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in graph.values() if kind in one["@type"]]


def refers(graph: dict[str, Any], entity: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """What a property leads to; each must be in the graph."""
    value = entity.get(key, [])
    return [graph[one["@id"]] for one in (value if isinstance(value, list) else [value])]


Rule = Callable[[dict[str, Any]], bool]
# The MUSTs of RO-Crate 1.1 and of Process Run Crate 0.5, by the words of their tables.
MUSTS: dict[str, Rule] = {
    "RO-Crate 1.1, descriptor: about is the root, conformsTo the version": lambda g: (
        g[METADATA]["about"] == {"@id": "./"}
        and g[METADATA]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    ),
    "RO-Crate 1.1, every entity has @id and @type": lambda g: all(
        one["@id"] and one["@type"] for one in g.values()
    ),
    "RO-Crate 1.1, root: Dataset with name, description, licence, ISO 8601 datePublished": (
        lambda g: (
            {"name", "description", "license"} <= g["./"].keys()
            and g["./"]["datePublished"] == STATE["ended"]
        )
    ),
    "RO-Crate 1.1, files are linked from the root by hasPart": lambda g: (
        {one["@id"] for one in of_type(g, "File")} == {one["@id"] for one in g["./"]["hasPart"]}
    ),
    "Process Run Crate 0.5, Dataset conformsTo: a CreativeWork that is the permalink": lambda g: (
        refers(g, g["./"], "conformsTo") == [g[PROFILE]] and g[PROFILE]["@type"] == "CreativeWork"
    ),
    "Process Run Crate 0.5, CreateAction instrument: the executed tool": lambda g: all(
        [tool["@type"] for tool in refers(g, action, "instrument")] == ["SoftwareApplication"]
        for action in of_type(g, "CreateAction")
    ),
    "Process Run Crate 0.5, CreateAction @id: listed under mentions of the root": lambda g: (
        refers(g, g["./"], "mentions") == of_type(g, "CreateAction")
    ),
    "Process Run Crate 0.5, object and result: entities of the crate": lambda g: all(
        refers(g, action, "object") and refers(g, action, "result")
        for action in of_type(g, "CreateAction")
    ),
}


def read(place: Path) -> dict[str, Any]:
    graph = json.loads((place / METADATA).read_text(encoding="utf-8"))["@graph"]
    found = {one["@id"]: one for one in graph}
    assert len(found) == len(graph)
    return found


@pytest.mark.parametrize("rule", MUSTS)
def test_the_crate_keeps_the_rules(run: Path, rule: str) -> None:
    assert MUSTS[rule](read(run))


def test_the_crate_says_what_happened_and_no_more(run: Path) -> None:
    crate = ROCrate(run)  # the library reads it, and finds every file
    for file in crate.get_by_type("File"):
        assert file.get("sha256") == sha256(Path(file.source))
    assert "private.txt" not in crate
    actions = {action["name"]: action for action in crate.get_by_type("CreateAction")}
    action = actions["Execute a b"]
    assert (action["startTime"], action["endTime"]) == (*TIMES.values(),)
    assert action["agent"]["name"] == "Li Lei"
    assert action["instrument"]["softwareVersion"] == "0.1.0"
    assert action["instrument"]["softwareRequirements"] == "torch 2.9.0"
    source, *values = action["object"]
    assert source["version"] == "5ec"
    assert {one["name"]: one.get("value") for one in values} == {
        "SEED": 0, "QUICK": True, "PHOTOS": "", "SIZES": "[1, 2]", "PHOTOS, SHA-256": "f00d",
    }  # fmt: skip
    names = [one["name"] for one in action["result"]]
    assert names == ["a b.ipynb", "a b 1.png"]
    assert "startTime" not in actions["Execute 02_羊"]  # of a run that did not note it


def test_what_is_not_so_is_not_claimed(run: Path) -> None:
    (run / "figures" / "a b 1.png").unlink()
    nameless = folder.load(run) | {"student": "", "commit": None}
    write_json(run / "results.json", nameless)
    assert main(["report", str(run)]) == 0
    found = read(run)
    assert not of_type(found, "Person")
    assert not any("a%20b%201.png" in name for name in found)
    write_json(run / "results.json", nameless | {"finished": False})
    assert main(["report", str(run)]) == 0  # the page of an unfinished run, which is no crate
    assert not (run / METADATA).exists()
