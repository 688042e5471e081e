"""Files that are whole or absent, seeds, devices, names, results."""

import errno
import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cliplab import runtime


def entries(folder: Path) -> list[str]:
    """Everything in the folder, hidden files too: a forgotten partial file shows up here."""
    return sorted(path.name for path in folder.iterdir())


# ---- places ----------------------------------------------------------------------------------


def test_places_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLIPLAB_DATA", "CLIPLAB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert runtime.data_dir() == Path(runtime.__file__).resolve().parent.parent / "data"
    assert runtime.cache_dir().name == "cliplab"
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    monkeypatch.setenv("CLIPLAB_CACHE", "mine")
    assert runtime.checkpoint_dir("clip-openai") == tmp_path / "checkpoints" / "clip-openai"
    assert runtime.cache_dir() == Path("mine")
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"no such folder.*set \$CLIPLAB_DATA"):
        runtime.data_dir()


# ---- atomic_write ----------------------------------------------------------------------------


def test_atomic_write_bytes_and_text_create_parents_and_leave_only_the_file(tmp_path: Path) -> None:
    with runtime.atomic_write(tmp_path / "a" / "b" / "x.bin") as file:
        file.write(b"\x00\xff")
    with runtime.atomic_write(str(tmp_path / "a" / "b" / "羊.txt"), "w") as file:
        file.write("躺着的羊\n")
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a" / "b" / "羊.txt").read_bytes() == "躺着的羊\n".encode()
    assert entries(tmp_path / "a" / "b") == ["x.bin", "羊.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("boom")])
def test_atomic_write_interrupted_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    (tmp_path / "x.bin").write_bytes(b"old")

    def interrupted(name: str) -> None:
        with runtime.atomic_write(tmp_path / name) as file:
            file.write(b"half")
            file.flush()
            assert entries(tmp_path)[-1] == "x.bin"  # nothing new under its own name
            raise failure

    for name in ("x.bin", "y.bin"):
        with pytest.raises(type(failure)):
            interrupted(name)
    assert entries(tmp_path) == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("os.fsync", errno.ENOSPC, r"cannot write .*x\.bin: the disk is full; free some space"),
        ("open", errno.EACCES, "no permission to write there; choose another folder"),
        ("open", errno.EPERM, "no permission to write there"),  # macOS guards some folders so
        ("os.replace", errno.EISDIR, "the path is a folder; give a file name"),
    ],
)
def test_atomic_write_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int, message: str
) -> None:
    def fails(*args: object, **_: object) -> None:
        raise OSError(code, os.strerror(code), *([str(args[0])] if place == "open" else []))

    monkeypatch.setattr(f"cliplab.runtime.{place}", fails, raising=False)
    with (
        pytest.raises(OSError, match=message) as caught,
        runtime.atomic_write(tmp_path / "x.bin") as file,
    ):
        file.write(b"too much for this disk")
    assert caught.value.errno == code
    assert entries(tmp_path) == []


@pytest.mark.parametrize("below", ["x.bin", "deep/er/x.bin"])
def test_atomic_write_below_a_file_says_choose_another_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(OSError, match=r"cannot write .*x\.bin: .*choose another folder"),
        runtime.atomic_write(tmp_path / "file" / below),
    ):
        pytest.fail("the block must not run")
    assert entries(tmp_path) == ["file"]


def test_atomic_write_passes_on_errors_about_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        pytest.raises(OSError, match="other") as caught,
        runtime.atomic_write(tmp_path / "x") as file,
    ):
        file.write((tmp_path / "other").read_bytes())  # EISDIR; EACCES on Windows
    assert "cannot write" not in str(caught.value)
    assert entries(tmp_path) == ["other"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_atomic_write_gives_the_permissions_that_open_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with runtime.atomic_write(tmp_path / "atomic"):
        pass
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


# ---- JSON and hashes -------------------------------------------------------------------------


def test_write_json_is_readable_utf8_with_a_newline(tmp_path: Path) -> None:
    runtime.write_json(tmp_path / "x.json", {"名": ["羊"], "n": 1})
    expected = '{\n "名": [\n  "羊"\n ],\n "n": 1\n}\n'
    assert (tmp_path / "x.json").read_bytes() == expected.encode()


def test_verify_checkpoint_compares_what_the_card_lists(tmp_path: Path) -> None:
    assert runtime.verify_checkpoint(tmp_path) == []  # no card: nothing to compare
    for name in ("a.bin", "b.bin", "unlisted.bin"):
        (tmp_path / name).write_bytes(name.encode())
    hashes = {name: runtime.sha256(tmp_path / name) for name in ("b.bin", "a.bin")}
    runtime.write_json(tmp_path / "model_card.json", {"files": hashes})
    assert runtime.verify_checkpoint(tmp_path) == ["a.bin", "b.bin"]
    (tmp_path / "b.bin").write_bytes(b"changed")
    assert runtime.verify_checkpoint(tmp_path, ["a.bin", "unlisted.bin"]) == ["a.bin"]
    with pytest.raises(ValueError, match=r"b\.bin: its sha256 is .*; the file is damaged or an"):
        runtime.verify_checkpoint(tmp_path)
    (tmp_path / "b.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.bin: missing, though model_card\.json lists"):
        runtime.verify_checkpoint(tmp_path, ["b.bin"])


# ---- save_results ----------------------------------------------------------------------------


def test_save_results_writes_numpy_numbers_as_plain_ones(tmp_path: Path) -> None:
    results = {"x": np.float32(0.5), "n": np.int64(7), "ok": True, "names": ("羊", [1, 2.5])}
    runtime.save_results(results, tmp_path / "out" / "results.json")
    assert json.loads((tmp_path / "out" / "results.json").read_text("utf-8")) == {
        "x": 0.5, "n": 7, "ok": True, "names": ["羊", [1, 2.5]],
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", [float("nan"), np.float32("inf"), torch.zeros(2), b"raw", {1, 2}, Path("x")]
)
@pytest.mark.parametrize("path", ["", "results.json"])
def test_save_results_refuses_what_json_has_not_even_when_nothing_is_written(
    tmp_path: Path, value: object, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runtime.save_results({"a": 1}, "")
    with pytest.raises(ValueError, match=r"results(\.json)?: not written, .*use finite plain"):
        runtime.save_results({"a": [value]}, path)
    assert entries(tmp_path) == []


# ---- seeds and devices -----------------------------------------------------------------------


def test_seed_all_repeats_all_three_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    runtime.seed_all(3)
    first = draw()
    assert draw() != first
    runtime.seed_all(3)
    assert draw() == first
    runtime.seed_all(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=rf"seed: got {seed}; expected .* 0 to 4294967295"):
            runtime.seed_all(seed)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_pick_device_auto_takes_the_best_present(
    cuda: bool, mps: bool, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.pick_device().type == best
    assert runtime.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cuda:1", r"'cuda:1' is absent here \(present: cpu, cuda\); use \"auto\""),
        ("mps", r"'mps' is absent here \(present: cpu, cuda\); use \"auto\""),
        *(
            (name, r"unknown device .*valid: auto, cpu, cuda, mps")
            for name in ("gpu", "cuda:x", "")
        ),
    ],
)
def test_pick_device_absent_or_unknown(
    spec: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(ValueError, match=message):
        runtime.pick_device(spec)


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [(None, "", False), (None, "1", True), (None, "Yes", True), (False, "1", False),
     (True, "0", True)],
)  # fmt: skip
@pytest.mark.parametrize("variable", runtime.OFFLINE_VARIABLES)
def test_is_offline(
    argument: bool | None, environment: str, expected: bool, variable: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for other in runtime.OFFLINE_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, environment)
    assert runtime.is_offline(argument) is expected
    monkeypatch.setenv(variable, "maybe")
    with pytest.raises(ValueError, match=rf"{variable}: got 'maybe'; expected 1 or 0"):
        runtime.is_offline()


# ---- names -----------------------------------------------------------------------------------


def test_nearest_is_ordered_and_ignores_case() -> None:
    options = ["pasture", "pasture-zh", "openai:", "QUICK"]
    assert runtime.nearest("pastur", options) == ["pasture", "pasture-zh"]
    assert runtime.nearest("quick", options) == ["QUICK"]
    assert runtime.nearest("pastur", options, n=1) == ["pasture"]
    assert runtime.nearest("zzz", options) == []
    message = "unknown encoder 'pastur'; did you mean 'pasture'? valid: x, pasture"
    assert runtime.unknown_name("encoder", "pastur", ["x", "pasture"]) == message
    assert runtime.unknown_name("encoder", "q", ["x"]) == "unknown encoder 'q'; valid: x"


def test_importing_runtime_imports_nothing_heavy() -> None:
    code = "import sys, cliplab.runtime; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- one process at a time -------------------------------------------------------------------

WRITES = """
import sys
from pathlib import Path
from cliplab import runtime
folder = Path(sys.argv[1])
with (runtime.held(folder / "x", folder / "y.bin"),
      runtime.atomic_write(folder / "y.bin") as y, runtime.atomic_write(folder / "x/deep/z") as z):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_is_held_is_refused_and_what_its_killed_holder_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path / "cache"))
    users = [".notes.partial", ".a.0123abcd.partial", ".y.bin.more.partial", "x/.b.partial"]
    (tmp_path / "x").mkdir()
    for name in users:
        (tmp_path / name).write_bytes(b"a user's")
    child = subprocess.Popen(
        [sys.executable, "-c", WRITES, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    left = [*tmp_path.glob(".y.bin.????????.partial"), *(tmp_path / "x/deep").iterdir()]
    for name in ("x", "y.bin"):
        with pytest.raises(BlockingIOError, match="wait"), runtime.held(tmp_path / name):
            pytest.fail("the block must not run")
    assert [path.exists() for path in left] == [True, True]
    child.kill()
    child.communicate()
    with runtime.held(tmp_path / "x"), runtime.held(tmp_path / "y.bin", tmp_path / "y.bin"):
        assert [path.exists() for path in left] == [False, False]
    assert all((tmp_path / name).exists() for name in users)
    assert not list((tmp_path / "cache/locks").iterdir())
