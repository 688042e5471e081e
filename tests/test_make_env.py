"""tools/make_env.py: an environment is believed only when its installation came to its end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_env as tool
import pytest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path has a space."""
    root = tmp_path / "my work"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).write_text(f"{name}\n", encoding="utf-8")
    return root


class Steps(list):
    """What was run, as words: "venv", "pip", "try"; and what shall happen then."""

    fails: Callable[[str], Any] = staticmethod(lambda step: None)


@pytest.fixture
def steps(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    done = Steps()

    def run(command: list[Any], check: bool = False, cwd: Path | None = None) -> Any:
        step = next(word for word in ("venv", "pip", "-c") if word in command[1:4])
        done.append(step)
        if (error := done.fails(step)) is not None:
            raise error
        if step == "venv":
            tool.interpreter(Path(command[-1])).parent.mkdir(parents=True, exist_ok=True)
            tool.interpreter(Path(command[-1])).touch()
        if step == "pip":
            assert cwd == checkout
            assert command[-4:] == ["-c", "constraints.txt", "-e", ".[all]"]
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(tool.subprocess, "run", run)
    return done


def test_it_is_made_once_and_reused(checkout: Path, steps: Steps) -> None:
    assert [tool.main(checkout), tool.main(checkout)] == [0, 0]
    assert steps == ["venv", "pip"]


def changed(checkout: Path, name: str, content: bytes = b"changed\n") -> None:
    (checkout / name).write_bytes(content)


def moved(checkout: Path) -> None:
    stamp = checkout / ".venv" / "cliplab-stamp.json"
    before = json.loads(stamp.read_text(encoding="utf-8"))
    stamp.write_text(json.dumps(before | {"place": "old"}), encoding="utf-8")


def by_hand(checkout: Path) -> None:
    """As after `python -m venv`, without us."""
    (checkout / ".venv" / "cliplab-stamp.json").unlink()


@pytest.mark.parametrize(
    ("change", "gone", "expected"),
    [
        (lambda at: changed(at, "pyproject.toml"), False, ["-c", "pip"]),  # it runs: into it
        (lambda at: changed(at, "constraints.txt"), False, ["-c", "pip"]),
        (lambda at: changed(at, "pyproject.toml", b"pyproject.toml\r\n"), False, []),  # of Windows
        (moved, False, ["venv", "pip"]),
        (by_hand, False, ["-c", "pip"]),
        (by_hand, True, ["-c", "venv", "pip"]),
    ],
)
def test_it_is_mended_as_far_as_is_needed(
    checkout: Path, steps: Steps, change: Any, gone: bool, expected: list[str]
) -> None:
    tool.main(checkout)
    (checkout / ".venv" / "mine").touch()
    change(checkout)
    steps.clear()
    steps.fails = lambda now: FileNotFoundError("gone") if gone and now == "-c" else None
    assert tool.main(checkout) == 0
    assert steps == expected
    assert (checkout / ".venv" / "mine").exists() == ("venv" not in expected)


@pytest.mark.parametrize("step", ["venv", "pip"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (subprocess.CalledProcessError(1, "pip"), 1),
        (OSError("full"), 1),
    ],
)
def test_what_did_not_come_to_its_end_is_made_anew(
    checkout: Path,
    steps: Steps,
    capsys: pytest.CaptureFixture[str],
    step: str,
    error: BaseException,
    code: int,
) -> None:
    steps.fails = lambda now: error if now == step else None
    assert tool.main(checkout) == code
    assert "again" in capsys.readouterr().err.replace("anew", "again")
    left = checkout / ".venv" / "left behind"
    left.touch()
    steps.clear()
    steps.fails = lambda now: None
    assert tool.main(checkout) == 0
    assert steps == ["venv", "pip"]
    assert not left.exists()


def test_another_python_is_refused(
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for version in ((3, 10, 9), (3, 14, 0)):
        monkeypatch.setattr(tool.sys, "version_info", version)
        assert tool.main(checkout) == 1
        error = capsys.readouterr().err
        assert f"cliplab needs Python 3.11 to 3.13; this is 3.{version[1]}" in error
        assert "make PYTHON=" in error
    assert not (checkout / ".venv").exists()


def test_it_starts_without_anything_installed() -> None:
    # -S: without site-packages; -I: without this folder and the user's settings
    program = f"import runpy; runpy.run_path({tool.__file__!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
