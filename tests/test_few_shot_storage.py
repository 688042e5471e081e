"""Classifiers as files: whole, the same when read back, never used with another encoder."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from few_shot_world import NAMES, SCALE, make_shots, zero_shot
from safetensors.torch import load_file, save_file

from cliplab.classification import few_shot
from cliplab.classification.few_shot import (
    Classifier,
    load_classifier,
    save_classifier,
)

DROP = "drop"
EMB = make_shots(9, seed=21).image_emb


class Known:
    """What a classifier asks of an encoder: its dimension, name and fingerprint."""

    dim, precision = 8, "float32"

    def __init__(self, name: str = "known", fingerprint: str = "ab" * 32) -> None:
        self.name, self.fingerprint = name, fingerprint


def fitted(method: str = "tip-adapter", **options: object) -> Classifier:
    return few_shot.fit(
        method,
        make_shots(),
        make_shots(split="val", seed=2),
        zero_shot=zero_shot(),
        logit_scale=SCALE,
        **options,
    )


@pytest.mark.parametrize("method", ["linear-probe", "text-probe", "tip-adapter-f", "wise-ft"])
def test_what_is_read_is_what_was_written(method: str, tmp_path: Path) -> None:
    before = replace(fitted(method), temperature=1.7)
    save_classifier(before, tmp_path / "c.safetensors")
    after = load_classifier(tmp_path / "c.safetensors")
    assert torch.equal(after.logits(EMB), before.logits(EMB))
    for name in ("class_names", "logit_scale", "temperature", "choices", "encoder"):
        assert getattr(after, name) == getattr(before, name), name
    assert type(after) is type(before)


def test_chinese_names_survive(tmp_path: Path) -> None:
    names = ("躺着的羊", "躺着的山羊", "躺着的牛")
    before = few_shot.fit(
        "text-probe", make_shots(names=names), zero_shot=zero_shot(), logit_scale=SCALE
    )
    save_classifier(before, tmp_path / "分类器.safetensors")
    after = load_classifier(tmp_path / "分类器.safetensors")
    assert after.class_names == names
    assert list(after.choices["hold"]) == list(names)


def test_other_tools_can_read_the_file(tmp_path: Path) -> None:
    save_classifier(fitted(), tmp_path / "c.safetensors", encoder=Known())
    assert set(load_file(tmp_path / "c.safetensors")) == {"weight", "keys", "labels"}
    raw = (tmp_path / "c.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["cliplab classifier"])
    assert header["class_names"] == list(NAMES)
    assert header["encoder"] == {"name": "known", "fingerprint": "ab" * 32}


# ---- the encoder it belongs to -------------------------------------------------------------


@pytest.mark.parametrize("when", ["fitting", "saving"])
def test_another_encoder_is_refused(when: str, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    known = Known()
    if when == "fitting":
        save_classifier(fitted(encoder=known), path)
    else:
        save_classifier(fitted(), path, encoder=known)
    assert load_classifier(path, encoder=known).encoder == ("known", "ab" * 32)
    with pytest.raises(ValueError, match=r"made for the encoder known \(abab.*got other \(cdcd"):
        load_classifier(path, encoder=Known("other", "cd" * 32))
    renamed = Known("the same weights elsewhere")
    assert load_classifier(path, encoder=renamed).class_names == NAMES


def test_without_a_stamp_the_dimension_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(fitted(), path)
    wide = Known()
    wide.dim = 512
    with pytest.raises(ValueError, match="512 dimensions; expected 8"):
        load_classifier(path, encoder=wide)
    with pytest.raises(ValueError, match="512 dimensions; expected 8"):
        save_classifier(fitted(), path, encoder=wide)
    with pytest.raises(ValueError, match=r"got \(1, 512\); expected"):
        load_classifier(path).scores(F.normalize(torch.ones(1, 512), dim=1))


# ---- files that are none -------------------------------------------------------------------


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: no such file"):
        load_classifier(tmp_path / "none.safetensors")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(fitted(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="damaged, or no safetensors file"):
        load_classifier(path)


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the header; DROP deletes."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["cliplab classifier"])
    header = {k: v for k, v in {**header, **changes}.items() if v != DROP}
    save_file(load_file(path), path, metadata={"cliplab classifier": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "another version of cliplab"),
        ({"kind": "tree"}, "unknown kind 'tree'"),
        ({"kind": "linear"}, "do not make a classifier"),
        ({"alpha": DROP}, "do not make a classifier"),
        ({"alpha": -1.0}, "expected alpha >= 0"),
        ({"class_names": ["sheep", "goat"]}, "weight: got shape"),
        ({"encoder": {"name": "x"}}, "do not make a classifier"),
        ({"temperature": 0.0}, "temperature: got 0.0"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(fitted(), path)
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=message):
        load_classifier(path)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 8)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="safetensors file of something else"):
        load_classifier(tmp_path / "other.safetensors")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(fitted(), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_classifier(fitted("wise-ft"), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
