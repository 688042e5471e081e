"""The doctor: a status and a remedy for everything that tends to go wrong, and an exit code."""

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.kernelspec import NoSuchKernel

from cliplab.cli import doctor as checks
from cliplab.cli.doctor import FAULT, NOTE, OK, Finding
from cliplab.cli.main import main

# ---- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [(OK, 0, "all well"), (NOTE, 0, "0 faults, 1 notes"), (FAULT, 1, "1 faults, 0 notes")],
)
def test_the_worst_finding_decides(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: str,
    code: int,
    verdict: str,
) -> None:
    found = [Finding("long", OK, "good"), Finding("羊", status, "hm", "look")]
    monkeypatch.setattr(checks, "CHECKS", (lambda: iter(found),))
    assert main(["doctor"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok     long  good"
    assert lines[1] == f"{status:5}  羊    hm"  # a Chinese character is two columns wide
    assert lines[2].strip() == "-> look"
    assert lines[-1] == verdict


def test_every_check_says_something_here_and_one_that_breaks_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check_stars() -> Iterator[Finding]:
        raise RuntimeError("clouds")

    monkeypatch.setattr(checks, "CHECKS", [*checks.CHECKS, check_stars])
    *findings, broken = checks.examine()
    assert (broken.subject, broken.status) == ("stars", FAULT)
    assert "RuntimeError: clouds" in broken.text
    subjects = {f.subject for f in findings}
    assert {"python", "machine", "disk", "packages", "device", "hf:", "fonts", "kernel"} <= subjects
    assert {"network", "cache", *checks.CHECKPOINTS} <= subjects
    for f in findings:
        assert f.text
        assert "could not be checked" not in f.text
        assert bool(f.remedy) == (f.status != OK), f


# ---- the checks ----------------------------------------------------------------------------


def unknown(*_: object) -> None:
    raise NoSuchKernel("python3")


USES = "jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec"


@pytest.mark.parametrize(
    ("check", "target", "value", "expected"),
    [
        ("python", "sys.version_info", (3, 10, 1), ("python", FAULT)),
        ("python", "sys.version_info", (3, 13, 1), ("python", OK)),
        ("python", "sys.version_info", (3, 14, 1), ("python", FAULT)),
        ("python", "sys.stdout", SimpleNamespace(encoding="cp1252"), ("terminal", NOTE)),
        ("machine", "psutil.virtual_memory", lambda: SimpleNamespace(available=1e9),
         ("machine", NOTE)),
        ("machine", "shutil.disk_usage", lambda _: SimpleNamespace(free=5e8), ("disk", FAULT)),
        ("fonts", "cliplab.viz.cjk_fonts", lambda: [], ("fonts", FAULT)),
        ("kernel", USES, lambda *_: SimpleNamespace(argv=["python"]), ("kernel", OK)),
        ("kernel", USES, lambda *_: SimpleNamespace(argv=["/other/bin/python"]), ("kernel", NOTE)),
        ("kernel", USES, unknown, ("kernel", NOTE)),
    ],
)  # fmt: skip
def test_what_a_machine_may_lack(
    monkeypatch: pytest.MonkeyPatch, check: str, target: str, value: object, expected: Any
) -> None:
    monkeypatch.setattr(target, value)
    findings = getattr(checks, f"check_{check}")()
    assert expected in [(found.subject, found.status) for found in findings]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [("packages", OK, "3 of 3")]),
        ({"papermill": None}, [("papermill", FAULT, "not installed"), ("packages", OK, "2 of 3")]),
        ({"ruff": None}, [("packages", OK, "2 of 3"), ("packages", NOTE, "absent: ruff")]),
        (
            {"torch": "2.16.0+cpu"},
            [("packages", OK, "3 of 3"), ("packages", NOTE, "torch 2.16.0+cpu (pinned: 2.15.0)")],
        ),
        ({"ruff": "0.17.7"}, [("packages", OK, "3 of 3")]),  # pinned so for another Python
    ],
)
def test_packages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    expected: list[tuple[str, str, str]],
) -> None:
    installed = {"torch": "2.15.0+cu132", "papermill": "2.7.0", "ruff": "0.17.6"} | change
    (tmp_path / "constraints.txt").write_text(
        "# pins\ntorch==2.15.0\npapermill==2.7.0\nruff==0.17.6 ; python_version < '3.12'\n"
        "ruff==0.17.7 ; python_version >= '3.12'\n",
        encoding="utf-8",
    )
    declared = ["torch>=2", 'papermill; extra == "notebooks"', 'ruff; extra == "dev"']
    monkeypatch.setattr("cliplab.report.provenance.root", lambda: tmp_path)
    monkeypatch.setattr("cliplab.report.provenance.version", lambda name: installed[name] or "")
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda name: declared)
    found = list(checks.check_packages())
    assert [(f.subject, f.status) for f in found] == [one[:2] for one in expected]
    for f, (_, _, text) in zip(found, expected, strict=True):
        assert text in f.text


@pytest.mark.parametrize(
    ("absent", "subject", "status", "remedy"),
    [
        ("clip", "openai:", NOTE, "if you need it"),
        ("open_clip", "open_clip:", NOTE, "if you need it"),
        ("pkg_resources", "openai:", FAULT, "setuptools<81"),
        ("openai-clip", "openai:", FAULT, "pip uninstall clip"),
    ],
)
def test_encoders_whose_packages_are_absent_or_others(
    monkeypatch: pytest.MonkeyPatch, absent: str, subject: str, status: str, remedy: str
) -> None:
    here, version = importlib.util.find_spec, checks.provenance.version
    monkeypatch.setattr(
        checks.importlib.util, "find_spec", lambda name: None if name == absent else here(name)
    )
    monkeypatch.setattr(
        "cliplab.report.provenance.version", lambda name: "" if name == absent else version(name)
    )
    by_subject = {f.subject: f for f in checks.check_encoders()}
    assert list(by_subject) == ["openai:", "modelscope:", "hf:", "open_clip:"]
    assert by_subject[subject].status == status
    assert remedy in by_subject[subject].remedy
    assert {f.status for name, f in by_subject.items() if name != subject} == {OK}


def test_the_network_and_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path / "kept"))
    for switch, status in (("1", OK), ("0", OK), ("perhaps", FAULT)):
        monkeypatch.setenv("CLIPLAB_OFFLINE", switch)
        network, cache = checks.check_cache()
        assert network.status == status
        assert (cache.status, cache.text) == (OK, "~/kept")
    (tmp_path / "kept").write_text("a file", encoding="utf-8")
    _, cache = checks.check_cache()
    assert cache.status == FAULT
    assert "$CLIPLAB_CACHE" in cache.remedy


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda f: None, OK),
        (lambda f: shutil.rmtree(f), FAULT),
        (lambda f: (f / "model_card.json").unlink(), FAULT),
        (lambda f: (f / "model.pt").write_bytes(b"version https://git-lfs.github.com"), FAULT),
    ],
)
def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil, status: str) -> None:
    monkeypatch.setattr(checks, "checkpoint_dir", lambda name: tmp_path / name)
    monkeypatch.setattr(checks, "CHECKPOINTS", {"tiny": "clip"})
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.pt").write_bytes(b"weights")
    card = {"files": {"model.pt": hashlib.sha256(b"weights").hexdigest()}}
    (tmp_path / "tiny" / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    spoil(tmp_path / "tiny")
    (found,) = checks.check_checkpoints()
    assert found.status == status
    assert ("cliplab train clip" in found.remedy) == (status == FAULT)


def test_without_a_checkout_the_commands_and_the_doctor_name_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "data"))  # as beside an installed wheel
    (tmp_path / "a.png").write_bytes(b"")
    for command in ("classify", "detect", "segment"):
        assert main([command, str(tmp_path), "--labels", "a", "b"]) == 2
        said = capsys.readouterr().err
        assert "set $CLIPLAB_DATA to the folder `data`" in said
        assert "git checkout" not in said
    monkeypatch.setattr(checks, "CHECKS", [checks.check_checkpoints, checks.check_fonts])
    found = {one.subject: one for one in checks.examine()}
    assert "set $CLIPLAB_DATA to the folder `data`" in found["checkpoints"].text
    assert not any("git checkout" in one.remedy for one in found.values())
