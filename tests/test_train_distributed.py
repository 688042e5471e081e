"""`torchrun -m cliplab train clip`: two processes, one of which dies, learn what one learns."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ranks_train
import torch

from cliplab.cli.main import main
from cliplab.training import clip

TINY = {
    "portraits": 24, "crops": 8, "batch": 8, "width": 2, "text-width": 64, "text-layers": 1,
    "embed-dim": 16, "steps": 8, "locked-steps": 4, "joint-steps": 4, "device": "cpu",
}  # fmt: skip
STAGES = ("clip-openai-seed0", "clip-chinese-seed0/locked", "clip-chinese-seed0/joint")


def typed(folder: Path, **more: object) -> list[str]:
    options = TINY | {"work": folder, "out": folder / "out"} | more
    return ["train", "clip", *(f"--{name}={value}" for name, value in options.items())]


def torchrun(folder: Path, *, dies: str = "") -> subprocess.CompletedProcess:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launch, ranks_train.__file__, *typed(folder)],
        capture_output=True, encoding="utf-8", env=os.environ | {"DIES": dies}, timeout=300,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ranks_train.FASTER.items():
        monkeypatch.setattr(clip, name, value)


def weights(folder: Path, stage: str) -> torch.Tensor:
    state = torch.load(folder / stage / "state.pt", weights_only=True)["model"]
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def test_a_rank_dies_and_any_number_of_ranks_goes_on(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(typed(one)) == 0

    rank, step = random.randrange(2), random.randrange(2, 8)
    died = torchrun(two, dies=f"{rank}:{step}")
    state = two / STAGES[0] / "state.pt"
    told = f"rank {rank} is gone; the same command, with any number of ranks, goes on from {state}"
    assert told in died.stderr
    assert died.returncode == 1
    assert torch.load(state, weights_only=True)["step"] == step // 2 * 2
    assert not (two / "out").exists()

    shutil.copytree(two, tmp_path / "two-one")
    assert main(typed(tmp_path / "two-one")) == 0
    done = torchrun(two)
    assert done.returncode == 0, done.stderr
    for other in (two, tmp_path / "two-one"):
        for stage in STAGES:
            expected, found = weights(one, stage), weights(other, stage)
            assert (found - expected).norm() < 1e-4 * expected.norm(), (other, stage, rank, step)
    files = [sorted(p.name for p in (folder / "out").rglob("*")) for folder in (one, two)]
    assert files[0] == files[1]
    log = [json.loads(line) for line in (two / STAGES[2] / "log.jsonl").read_text().splitlines()]
    assert log == [{"trained on": "2 ranks, each cpu, 1 threads"}]


def test_a_batch_that_ranks_cannot_share_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for room in ("launch", "ranks"):
        monkeypatch.setattr(f"cliplab.scale.{room}.place", lambda group=None: (0, 2))
    assert main(typed(tmp_path, batch=9)) == 2
    assert "got 9 rows for 2 ranks; expected a multiple of 2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["train", "glip", "--work", str(tmp_path)]) == 2
    assert "train glip runs in one process: start it without torchrun" in capsys.readouterr().err
