import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cliplab.cli import doctor as checks
from cliplab.cli.doctor import FAULT, NOTE, OK, Finding
from cliplab.cli.main import main
from cliplab.runtime import OFFLINE_VARIABLES


def statuses(findings: Iterator[Finding]) -> dict[str, str]:
    return {f.subject: f.status for f in findings}


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


# ---- the command ---------------------------------------------------------------------------


def pretend(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    def check_all() -> Iterator[Finding]:
        yield from findings

    monkeypatch.setattr(checks, "CHECKS", (check_all,))


def test_all_well_is_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, Finding("a", OK, "good"), Finding("long", NOTE, "hm", "look"))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["ok     a     good", "note   long  hm", "             -> look"]
    assert lines[-1] == "0 faults, 1 notes"


def test_a_fault_is_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, Finding("a", FAULT, "bad", "mend it"))
    assert main(["doctor"]) == 1
    assert "FAULT  a  bad\n          -> mend it" in capsys.readouterr().out


def test_json_is_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, Finding("羊", FAULT, "bad", "mend it"))
    assert main(["doctor", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown == [{"subject": "羊", "status": FAULT, "text": "bad", "remedy": "mend it"}]


def test_a_check_that_breaks_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_stars() -> Iterator[Finding]:
        raise RuntimeError("clouds")
        yield

    monkeypatch.setattr(checks, "CHECKS", (check_stars,))
    found = only(iter(checks.examine()))
    assert (found.subject, found.status) == ("stars", FAULT)
    assert "RuntimeError: clouds" in found.text
    assert found.remedy


def test_every_check_says_something_here(capsys: pytest.CaptureFixture[str]) -> None:
    findings = checks.examine()
    assert {"python", "machine", "disk", "packages", "device", "fonts", "kernel"} <= {
        f.subject for f in findings
    }
    assert "could not be checked" not in " ".join(f.text for f in findings)
    for f in findings:
        assert f.text
        assert bool(f.remedy) == (f.status != OK), f


# ---- the checks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), FAULT), ((3, 11), OK), ((3, 13), OK), ((3, 14), FAULT)]
)
def test_python(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], status: str) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 1))
    assert statuses(checks.check_python())["python"] == status


def test_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sys, "stdout", SimpleNamespace(encoding="cp1252"))
    assert statuses(checks.check_python())["terminal"] == NOTE


Usage = namedtuple("Usage", "free")
Memory = namedtuple("Memory", "total available")


@pytest.mark.parametrize(("free", "status"), [(2e9, OK), (5e8, FAULT)])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Usage(free))
    assert statuses(checks.check_machine())["disk"] == status


@pytest.mark.parametrize(("available", "status"), [(4e9, OK), (1e9, NOTE)])
def test_memory(monkeypatch: pytest.MonkeyPatch, available: float, status: str) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(8e9, available))
    found = next(f for f in checks.check_machine() if f.subject == "machine")
    assert (found.status, "takes up to 1.5 GB" in found.remedy) == (status, status == NOTE)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed packages, as the doctor sees them: two needed, one optional."""
    installed = {"torch": "2.15.0+cu132", "papermill": "2.7.0", "ruff": "0.17.6"}
    declared = ["torch>=2", 'papermill; extra == "notebooks"', 'ruff; extra == "dev"']
    (tmp_path / "constraints.txt").write_text(
        "# pins\ntorch==2.15.0\npapermill==2.7.0\nruff==0.17.6\n"
        "colorama==1.0 ; sys_platform == 'no-such-system'\n",
        encoding="utf-8",
    )

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(checks, "root", lambda: tmp_path)
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda name: declared)
    monkeypatch.setattr(checks.importlib.metadata, "version", version)
    return installed


def test_packages_as_pinned(packages: dict[str, str]) -> None:
    found = only(checks.check_packages())
    assert (found.status, found.text) == (OK, "3 of 3 installed")


def test_a_needed_package_is_missing(packages: dict[str, str]) -> None:
    del packages["papermill"]
    assert statuses(checks.check_packages())["papermill"] == FAULT


def test_an_optional_package_is_missing(packages: dict[str, str]) -> None:
    del packages["ruff"]
    findings = list(checks.check_packages())
    assert [f.status for f in findings] == [OK, NOTE]
    assert findings[1].text == "optional ones absent: ruff"


def test_another_version_than_pinned(packages: dict[str, str]) -> None:
    packages["torch"] = "2.16.0+cpu"
    findings = list(checks.check_packages())
    assert findings[1].text == "torch 2.16.0+cpu (pinned: 2.15.0)"
    assert findings[1].status == NOTE


def test_pins_of_other_systems_do_not_count(packages: dict[str, str], tmp_path: Path) -> None:
    assert "colorama" not in checks.read_pins(tmp_path / "constraints.txt")
    assert checks.read_pins(tmp_path / "none.txt") == {}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"clip", "pkg_resources"}, [OK]),
        ({"clip"}, [FAULT]),
        (set(), []),
    ],
)
def test_the_official_clip(
    monkeypatch: pytest.MonkeyPatch, present: set[str], expected: list[str]
) -> None:
    monkeypatch.setattr(
        checks.importlib.util, "find_spec", lambda name: object() if name in present else None
    )
    findings = list(checks.check_official_clip())
    assert [f.status for f in findings] == expected
    assert all("setuptools<81" in f.remedy for f in findings if f.status == FAULT)


@pytest.mark.parametrize(("font", "status"), [("Noto Sans SC", OK), (None, FAULT)])
def test_fonts(monkeypatch: pytest.MonkeyPatch, font: str | None, status: str) -> None:
    monkeypatch.setattr("cliplab.viz.figures.cjk_font", lambda: font)
    assert only(checks.check_fonts()).status == status


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole checkpoint, the only one that the doctor looks for."""
    monkeypatch.setattr(checks, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(checks, "CHECKPOINTS", {"tiny": "clip"})
    folder = tmp_path / "checkpoints" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"weights")
    card = {"files": {"model.pt": hashlib.sha256(b"weights").hexdigest()}}
    (folder / "model_card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def test_a_whole_checkpoint(checkpoint: Path) -> None:
    assert only(checks.check_checkpoints()).status == OK


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: shutil.rmtree(f), "model_card.json is missing"),
        (lambda f: (f / "model.pt").unlink(), "model.pt is missing"),
        (lambda f: (f / "model.pt").write_bytes(b"Weights"), "is not the file that the model card"),
        (
            lambda f: (f / "model.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1"),
            "model.pt is a Git LFS pointer",
        ),
    ],
)
def test_a_broken_checkpoint(checkpoint: Path, spoil, text: str) -> None:
    spoil(checkpoint)
    found = only(checks.check_checkpoints())
    assert found.status == FAULT
    assert text in found.text
    assert "python -m cliplab train clip" in found.remedy


@pytest.mark.parametrize("name", ["glip", "glip-no-fusion"])
def test_either_twin_is_told_the_training_that_makes_it(name: str) -> None:
    from cliplab.training import glip

    stem, *options = checks.CHECKPOINTS[name].split()
    parser = argparse.ArgumentParser()
    glip.add_arguments(parser)
    args = parser.parse_args(options)
    assert (stem, args.fusion) == ("glip", name == "glip")


@pytest.mark.parametrize(
    ("command", "status"),
    [("python", OK), (sys.executable, OK), (str(Path("/other/bin/python")), NOTE), (None, NOTE)],
)
def test_kernel(monkeypatch: pytest.MonkeyPatch, command: str | None, status: str) -> None:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    def get(self: object, name: str) -> SimpleNamespace:
        if command is None:
            raise NoSuchKernel(name)
        return SimpleNamespace(argv=[command])

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", get)
    assert only(checks.check_kernel()).status == status


# ---- encoders --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and none of the variables that encoders heed."""
    names = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "CLIPLAB_CACHE")
    names += ("MODELSCOPE_CACHE", "MS_CACHE_HOME", "CLIPLAB_TIMEOUT", *OFFLINE_VARIABLES)
    names += ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def encoders() -> dict[str, Finding]:
    return {f.subject: f for f in checks.check_encoders()}


def test_every_family_says_its_version_and_where_its_models_lie(home: Path) -> None:
    for folder in ("huggingface/hub/models--a--b", "modelscope/models/damo--x/snapshots/v1"):
        (home / ".cache" / folder).mkdir(parents=True)
    found = encoders()
    assert list(found) == ["openai:", "modelscope:", "hf:", "open_clip:", "network", "cache"]
    version = importlib.metadata.version("transformers")
    assert found["hf:"].text == f"transformers {version}; 1 models in ~/.cache/huggingface/hub"
    assert "1 models in ~/.cache/modelscope" in found["modelscope:"].text
    assert found["openai:"].text == "clip 1.0.1; no models yet in ~/.cache/clip"
    assert {f.status for f in found.values()} <= {OK, NOTE}
    assert str(home) not in " ".join(f.text for f in found.values())


def test_missing_and_wrong_packages_say_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = str(home / "clip" / "__init__.py")
    real = importlib.util.find_spec

    def find_spec(name: str) -> object:
        if name == "clip":
            return SimpleNamespace(origin=origin)
        return None if name == "open_clip" else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    found = encoders()
    assert found["openai:"].status == FAULT
    assert found["openai:"].remedy.startswith('pip uninstall clip; pip install "openai-clip==1')
    assert (found["open_clip:"].status, found["hf:"].status) == (NOTE, OK)
    assert found["open_clip:"].remedy == 'pip install "open-clip-torch", if you need it'


def test_network_tells_the_switch_the_proxy_and_a_wrong_value(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoders()["network"].text == "downloads are allowed, 10 s for an answer"
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:8080")
    assert "through the proxy proxy:8080, 10 s" in encoders()["network"].text
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert encoders()["network"].text.startswith("not used, as $TRANSFORMERS_OFFLINE says")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "perhaps")
    found = encoders()["network"]
    assert (found.status, found.remedy[:27]) == (FAULT, "unset TRANSFORMERS_OFFLINE,")


def test_cache_tells_its_size_and_its_faults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_CACHE", str(home / "kept"))
    assert encoders()["cache"].text == "~/kept, 0.0 MB"
    (home / "kept" / "deep").mkdir(parents=True)
    (home / "kept" / "deep" / "a.sqlite").write_bytes(b"x" * 2_500_000)
    assert encoders()["cache"].text == "~/kept, 2.5 MB"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1.5e9))
    found = encoders()["cache"]
    assert (found.status, found.text) == (NOTE, "~/kept, 2.5 MB, but only 1.5 GB free there")
    monkeypatch.setattr("os.access", lambda *_: False)
    found = encoders()["cache"]
    assert (found.status, found.text) == (FAULT, "~/kept cannot be written")
    assert "$CLIPLAB_CACHE" in found.remedy
    monkeypatch.setenv("CLIPLAB_CACHE", str(home / "kept" / "deep" / "a.sqlite" / "below"))
    assert encoders()["cache"].text == "~/kept/deep/a.sqlite is a file, not a folder"
