"""A finished run as an RO-Crate: what was executed, with what, when, and what came of it.

The folder of a run keeps its form; `ro-crate-metadata.json` beside results.json says the same in
the terms of RO-Crate 1.1 and of the profile Process Run Crate 0.5, for archives and other programs.
"""

import mimetypes
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from cliplab.runtime import sha256, write_json

METADATA = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_LICENCE = "https://spdx.org/licenses/Apache-2.0"
_TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}


def write_crate(state: Mapping[str, Any], folder: Path) -> None:
    """Write `ro-crate-metadata.json` of the run in `folder`, whose results.json says `state`.

    A run that is not finished has none, and loses one that was there: it may become another.
    """
    if not state.get("finished"):
        if (folder / METADATA).is_file():
            (folder / METADATA).unlink()
        return
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms = dict(_TERMS)
    add, root = partial(_entity, crate), crate.root_dataset
    files = {name: _file(crate, folder / name, name) for name in _files(folder)}
    shared = {"instrument": add("cliplab", "SoftwareApplication", **_version(state))}
    if state["student"]:
        shared["agent"] = root["author"] = add("agent", "Person", name=state["student"])
    crate.name = f"cliplab run: {'; '.join(r['title'] for r in state['notebooks'].values())}"
    crate.description = "Executed notebooks of cliplab, their results and figures, and a page."
    rest = "Of cliplab and its lessons. What was written into them is its author's."
    crate.license = add(_LICENCE, "CreativeWork", name="Apache License 2.0", description=rest)
    root["datePublished"] = state["ended"]
    root["conformsTo"] = add(PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    root["mentions"] = list(_actions(add, state, files, shared))
    write_json(folder / METADATA, crate.metadata.generate())


def _entity(crate: ROCrate, identity: str, kind: str | list[str], /, **said: Any) -> Any:
    """Add something that is no file, under an address or a name of ours -> the entity."""
    place = identity if identity.startswith("https:") else f"#{quote(identity)}"
    entity = crate.add(ContextEntity(crate, place, properties={"@type": kind}))
    for key, value in said.items():
        entity[key] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return entity


def _actions(
    add: Callable[..., Any], state: Mapping[str, Any], files: Mapping[str, Any], shared: Any
) -> Iterator[Any]:
    """The executions; a file that is gone is not claimed."""
    for name, record in state["notebooks"].items():
        made = [files[n] for n in (record["notebook"], *record["figures"]) if n in files]
        known = {"startTime": record.get("started"), "endTime": record.get("ended")}
        yield add(
            f"{name}/execution", "CreateAction", **shared, name=f"Execute {record['title']}",
            description=f"cliplab run, {record['seconds']:g} s", result=made,
            object=list(_inputs(add, name, record)), **{k: v for k, v in known.items() if v},
        )  # fmt: skip


def _inputs(add: Callable[..., Any], name: str, record: Mapping[str, Any]) -> Iterator[Any]:
    """What an execution read: the notebook before it, its parameters, hashes of own pictures."""
    kinds, version = ["CreativeWork", "SoftwareSourceCode"], record["source_sha256"]
    note = "its version is the SHA-256 of its cells, without outputs"
    yield add(name, kinds, name=record["title"], version=version, description=note)
    hashes = {f"{key}, SHA-256": digest for key, digest in record.get("inputs", {}).items()}
    for key, value in (record["parameters"] | hashes).items():
        plain = value if isinstance(value, str | bool | int | float) else repr(value)
        yield add(f"{name}/{key}", "PropertyValue", name=key, value=plain)


def _version(state: Mapping[str, Any]) -> dict[str, Any]:
    """Which cliplab it was, and on what it stood."""
    versions, commit = dict(state["versions"]), state["commit"]
    place = f"commit {commit['id']}{', changed' * commit['dirty']}; " if commit else ""
    about = f"{place}SHA-256 of its Python files {state['code_sha256']}"
    facts = {"name": "cliplab", "softwareVersion": versions.pop("cliplab"), "description": about}
    needed = [f"{name} {version}" for name, version in versions.items() if version != "absent"]
    return facts | {"softwareRequirements": needed}


def _files(folder: Path) -> list[str]:
    """What a run consists of, as seen from its folder; other things that lie there are not ours."""
    inner = (path for name in ("notebooks", "figures") for path in (folder / name).rglob("*"))
    outer = (folder / name for name in ("results.json", "index.html"))
    return sorted(p.relative_to(folder).as_posix() for p in (*inner, *outer) if p.is_file())


def _file(crate: ROCrate, path: Path, name: str) -> Any:
    kind = mimetypes.guess_type(path)[0] or "application/x-ipynb+json"
    facts = {"name": path.name, "encodingFormat": kind, "sha256": sha256(path)}
    return crate.add_file(dest_path=name, properties=facts)
