"""A finished run as an RO-Crate: what was executed, with what, when, and what came of it.

The folder of a run keeps its form; `ro-crate-metadata.json` beside results.json says the same in
the terms of RO-Crate 1.1 and of the profile Process Run Crate 0.5, for archives and other programs.
"""

import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
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
_KINDS = {".ipynb": "application/x-ipynb+json"}


def write_crate(state: Mapping[str, Any], folder: Path) -> Path | None:
    """Write `ro-crate-metadata.json` of the run in `folder`, whose results.json says `state`.

    None, and there is none from then on, for a run that is not finished: it may become another.
    """
    if not state.get("finished"):
        if (folder / METADATA).is_file():
            (folder / METADATA).unlink()
        return None
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms = dict(_TERMS)
    files = {path: _file(crate, path, folder) for path in _files(folder)}
    add = partial(_entity, crate)
    shared = {"instrument": add("cliplab", "SoftwareApplication", **_version(state))}
    if state["student"]:
        shared["agent"] = crate.root_dataset["author"] = add(
            "agent", "Person", name=state["student"]
        )
    _describe(crate, state)
    crate.root_dataset["mentions"] = list(_actions(add, state, files, shared))
    write_json(folder / METADATA, crate.metadata.generate())
    return folder / METADATA


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
    """The executions, and the page that was made of them; a file that is gone is not claimed."""

    def there(names: Iterable[str]) -> list[Any]:
        return [files[name] for name in names if name in files]

    for name, record in state["notebooks"].items():
        made = there([record["notebook"], *record["figures"]])
        what = _execution(record) | {"object": list(_inputs(add, name, record)), "result": made}
        yield add(f"{name}/execution", "CreateAction", **shared, **what)
    yield add(
        "report", "CreateAction", **shared, name="Gather the results and make the page",
        description="cliplab run, or cliplab report when it was made again",
        object=there(record["notebook"] for record in state["notebooks"].values()),
        result=there(["results.json", "index.html"]),
        endTime=datetime.now().astimezone().isoformat(timespec="seconds"),
    )  # fmt: skip


def _describe(crate: ROCrate, state: Mapping[str, Any]) -> None:
    """The root: what the folder is, to which profile it keeps, and under which licence."""
    add = partial(_entity, crate)
    titles = [record["title"] for record in state["notebooks"].values()]
    crate.name = f"cliplab run: {'; '.join(titles)}"
    crate.description = "Executed notebooks of cliplab, their results and figures, and a page."
    crate.root_dataset["datePublished"] = state["ended"]
    crate.license = add(
        _LICENCE, "CreativeWork", name="Apache License 2.0",
        description="Of cliplab and its lessons. What was written into them is its author's.",
    )  # fmt: skip
    named = {"name": "Process Run Crate", "version": PROFILE.rpartition("/")[2]}
    crate.root_dataset["conformsTo"] = add(PROFILE, "CreativeWork", **named)


def _version(state: Mapping[str, Any]) -> dict[str, Any]:
    """Which cliplab it was, and on what it stood."""
    versions, commit = dict(state["versions"]), state["commit"]
    own = versions.pop("cliplab")
    place = f"commit {commit['id']}{', changed' * commit['dirty']}; " if commit else ""
    return {
        "name": "cliplab",
        "softwareVersion": own,
        "description": f"{place}SHA-256 of its Python files {state['code_sha256']}",
        "softwareRequirements": [f"{n} {v}" for n, v in versions.items() if v != "absent"],
    }


def _files(folder: Path) -> list[str]:
    """What a run consists of, as seen from its folder; other things that lie there are not ours."""
    inner = (path for name in ("notebooks", "figures") for path in (folder / name).rglob("*"))
    outer = (folder / name for name in ("results.json", "index.html"))
    return sorted(p.relative_to(folder).as_posix() for p in (*inner, *outer) if p.is_file())


def _file(crate: ROCrate, name: str, folder: Path) -> Any:
    path = folder / name
    kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    facts = {"name": path.name, "encodingFormat": kind, "sha256": sha256(path)}
    facts["contentSize"] = str(path.stat().st_size)
    return crate.add_file(dest_path=name, properties=facts)


def _execution(record: Mapping[str, Any]) -> dict[str, Any]:
    """When a notebook was executed, so far as that was recorded."""
    times = {"startTime": record.get("started"), "endTime": record.get("ended")}
    return {
        "name": f"Execute {record['title']}",
        "description": f"cliplab run, {record['seconds']:g} s",
        **{key: value for key, value in times.items() if value},
    }


def _inputs(add: Callable[..., Any], name: str, record: Mapping[str, Any]) -> Iterator[Any]:
    """What an execution read: the notebook before it, its parameters, hashes of own pictures."""
    kinds, version = ["CreativeWork", "SoftwareSourceCode"], record["source_sha256"]
    note = "its version is the SHA-256 of its cells, without outputs"
    yield add(name, kinds, name=record["title"], version=version, description=note)
    hashes = {f"{key}, SHA-256": digest for key, digest in record.get("inputs", {}).items()}
    for key, value in (record["parameters"] | hashes).items():
        plain = value if isinstance(value, str | bool | int | float) else repr(value)
        yield add(f"{name}/{key}", "PropertyValue", name=key, value=plain)
