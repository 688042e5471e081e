"""Files that are whole or absent, seeds, devices, names, results."""

import errno
import hashlib
import json
import os
import random
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from cliplab import runtime


def entries(folder: Path) -> list[str]:
    """Everything in the folder, hidden files too: a forgotten partial file shows up here."""
    return sorted(path.name for path in folder.iterdir())


# ---- places ----------------------------------------------------------------------------------


def test_data_dir_is_beside_the_package_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLIPLAB_DATA", raising=False)
    assert runtime.data_dir() == Path(runtime.__file__).resolve().parent.parent / "data"
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    assert runtime.checkpoint_dir("clip-openai") == tmp_path / "checkpoints" / "clip-openai"


# ---- atomic_write ----------------------------------------------------------------------------


def test_atomic_write_bytes_and_text_create_parents_and_leave_only_the_file(tmp_path: Path) -> None:
    with runtime.atomic_write(tmp_path / "a" / "b" / "x.bin") as file:
        file.write(b"\x00\xff")
    with runtime.atomic_write(str(tmp_path / "a" / "b" / "羊.txt"), "w") as file:
        file.write("躺着的羊\n")
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a" / "b" / "羊.txt").read_bytes() == "躺着的羊\n".encode()
    assert entries(tmp_path / "a" / "b") == ["x.bin", "羊.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("boom"), SystemExit(3)])
@pytest.mark.parametrize("before", [None, b"old"])
def test_atomic_write_interrupted_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException, before: bytes | None
) -> None:
    target = tmp_path / "x.bin"
    if before is not None:
        target.write_bytes(before)

    def interrupted() -> None:
        with runtime.atomic_write(target) as file:
            file.write(b"half")
            file.flush()
            raise failure

    with pytest.raises(type(failure)):
        interrupted()
    assert entries(tmp_path) == ([] if before is None else ["x.bin"])
    assert before is None or target.read_bytes() == before


def test_atomic_write_shows_nothing_under_the_final_name_until_it_is_complete(
    tmp_path: Path,
) -> None:
    target = tmp_path / "x.bin"
    with runtime.atomic_write(target) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"half"


class FullDisk:
    """File whose `call` (write, or fsync through fileno) finds no space left."""

    def __init__(self, path: Path, mode: str, **text: str) -> None:
        self.file = open(path, mode, **text)  # noqa: SIM115 - closed by __exit__
        self.closed = False

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_write_on_a_full_disk_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "open", FullDisk, raising=False)
    with (
        pytest.raises(OSError, match=r"cannot write .*x\.bin: the disk is full; free") as caught,
        runtime.atomic_write(tmp_path / "x.bin") as file,
    ):
        file.write(b"too much for this disk")
    assert caught.value.errno == errno.ENOSPC
    assert entries(tmp_path) == []


def test_atomic_write_full_disk_found_only_by_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(runtime.os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        runtime.write_json(tmp_path / "x.json", {"a": 1})
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


def test_atomic_write_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(runtime, "open", denied, raising=False)
    with (
        pytest.raises(PermissionError, match=r"no permission to write there; choose another"),
        runtime.atomic_write(tmp_path / "x.bin"),
    ):
        pytest.fail("the block must not run")
    assert entries(tmp_path) == []


def test_atomic_write_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="cannot write"), runtime.atomic_write(tmp_path / "x") as file:
        file.write(b"1")
    assert entries(tmp_path) == ["x"]
    assert entries(tmp_path / "x") == []


def test_atomic_write_passes_on_errors_about_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        pytest.raises(OSError, match="other") as caught,
        runtime.atomic_write(tmp_path / "x") as file,
    ):
        file.write((tmp_path / "other").read_bytes())  # EISDIR; EACCES on Windows
    assert "cannot write" not in str(caught.value)
    assert entries(tmp_path) == ["other"]


def test_atomic_write_refuses_other_modes(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"mode: got 'a'; expected 'w'"),
        runtime.atomic_write(tmp_path / "x", "a"),
    ):
        pytest.fail("the block must not run")


def test_atomic_write_accepts_a_writer_that_closes_the_file(tmp_path: Path) -> None:
    with runtime.atomic_write(tmp_path / "x") as file:
        file.write(b"1")
        file.close()
    assert (tmp_path / "x").read_bytes() == b"1"


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_write_json_refuses_what_json_has_not(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"x\.json: not written, .*use finite plain"):
        runtime.write_json(tmp_path / "x.json", {"a": value})
    assert entries(tmp_path) == []


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert runtime.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


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
    results = {
        "accuracy": np.float32(0.5),
        "n": np.int64(7),
        "ok": True,
        "names": ("羊", "goat"),
        "nested": {"rows": [[1, 2.5]]},
    }
    runtime.save_results(results, tmp_path / "out" / "results.json")
    assert json.loads((tmp_path / "out" / "results.json").read_text("utf-8")) == {
        "accuracy": 0.5,
        "n": 7,
        "ok": True,
        "names": ["羊", "goat"],
        "nested": {"rows": [[1, 2.5]]},
    }


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, r"results\['a'\]\['b'\]\[1\] is nan; expected a fin"),
        ({"a": np.float32("inf")}, r"results\['a'\] is inf"),
        ({"a": torch.zeros(2)}, r"results\['a'\] is a Tensor; .*\.tolist\(\)"),
        ({"a": None}, r"results\['a'\] is a NoneType"),
        ({"a": b"raw"}, r"results\['a'\] is a bytes"),
        ({1: 2}, r"results has the key 1; expected text"),
        ([1], r"results: got list; expected a dict"),
    ],
)
@pytest.mark.parametrize("path", ["", "results.json"])
def test_save_results_refuses_with_the_place_even_when_nothing_is_written(
    tmp_path: Path, results: dict, message: str, path: str
) -> None:
    with pytest.raises(ValueError, match=message):
        runtime.save_results(results, tmp_path / path if path else "")
    assert entries(tmp_path) == []


def test_save_results_to_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runtime.save_results({"a": 1}, "")
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


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_all_names_the_range(seed: int) -> None:
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


@pytest.mark.parametrize("spec", ["cuda", "cuda:0", "mps"])
def test_pick_device_absent(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"{spec}' is absent here \(present: cpu\); use \"auto\""):
        runtime.pick_device(spec)


def test_pick_device_number_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert runtime.pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(ValueError, match="'cuda:1' is absent"):
        runtime.pick_device("cuda:1")


@pytest.mark.parametrize("spec", ["gpu", "cuad", "cuda:x", ""])
def test_pick_device_unknown(spec: str) -> None:
    with pytest.raises(ValueError, match=r"unknown device .*valid: auto, cpu, cuda, mps"):
        runtime.pick_device(spec)


def test_versions_is_one_line_without_a_path() -> None:
    line = runtime.versions()
    assert torch.__version__ in line
    assert "cliplab" in line
    assert not set(line) & set("\n/\\")


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [
        (None, "", False),
        (None, "1", True),
        (None, "Yes", True),
        (False, "1", False),
        (True, "0", True),
    ],
)
def test_is_offline(
    argument: bool | None, environment: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in runtime.OFFLINE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLIPLAB_OFFLINE", environment)
    assert runtime.is_offline(argument) is expected


@pytest.mark.parametrize(
    "variable", ["CLIPLAB_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MODELSCOPE_OFFLINE"]
)
def test_every_hubs_variable_counts(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in runtime.OFFLINE_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    assert not runtime.is_offline()
    monkeypatch.setenv(variable, "ON")
    assert runtime.is_offline()


def test_is_offline_refuses_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_OFFLINE", "maybe")
    with pytest.raises(ValueError, match=r"CLIPLAB_OFFLINE: got 'maybe'; expected 1 or 0"):
        runtime.is_offline()


# ---- places ----------------------------------------------------------------------------------


def test_cache_dir_is_the_systems_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLIPLAB_CACHE", raising=False)
    assert runtime.cache_dir().name == "cliplab"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        assert runtime.cache_dir() == Path("/xdg/cliplab")
    monkeypatch.setenv("CLIPLAB_CACHE", "mine")
    assert runtime.cache_dir() == Path("mine")


# ---- names -----------------------------------------------------------------------------------


def test_nearest_is_ordered_and_ignores_case() -> None:
    options = ["pasture", "pasture-zh", "openai:", "QUICK"]
    assert runtime.nearest("pastur", options) == ["pasture", "pasture-zh"]
    assert runtime.nearest("quick", options) == ["QUICK"]
    assert runtime.nearest("pastur", options, n=1) == ["pasture"]
    assert runtime.nearest("zzz", options) == []


def test_unknown_name_lists_nearest_then_all() -> None:
    assert runtime.unknown_name("encoder", "pastur", ["x", "pasture"]) == (
        "unknown encoder 'pastur'; did you mean 'pasture'? valid: x, pasture"
    )
    assert runtime.unknown_name("encoder", "q", ["pasture"]) == (
        "unknown encoder 'q'; valid: pasture"
    )


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


def test_locks_are_taken_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path / "cache"))
    taken: list[Path] = []
    lock = lambda path, timeout: nullcontext(taken.append(path))  # noqa: E731
    monkeypatch.setattr("filelock.FileLock", lock)
    names = [tmp_path / f"{i}" for i in range(9)]
    with runtime.held(*names), runtime.held(*reversed(names)):
        assert taken[:9] == taken[9:]
    wanted = [hashlib.sha256(os.fsencode(path)).hexdigest() for path in names]
    assert [path.name for path in taken[:9]] == wanted
