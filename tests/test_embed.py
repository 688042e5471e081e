"""Embedding a collection: every picture one row, whatever stops it; what is refused."""

import io
import multiprocessing
import os
import random
import re
import socket
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from collections_world import colours, digest, folder, picture, shard
from PIL import Image

from cliplab import scale
from cliplab.cli.main import main
from cliplab.data import open_image
from cliplab.encoders import load_encoder
from cliplab.runtime import ArgumentError, held
from cliplab.scale import Embeddings, embed, open_embeddings, read_collection


def rows(found: Embeddings | Path) -> pd.DataFrame:
    found = open_embeddings(found) if isinstance(found, Path) else found
    return found.dataset.to_table().to_pandas().set_index("key").sort_index()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", range(10))


# ---- what is written -------------------------------------------------------------------------


def test_every_picture_is_a_row_and_the_file_says_what_made_it(photos, tmp_path) -> None:
    (photos / "broken.png").write_bytes(picture(0)[:60])
    (photos / "empty.jpg").write_bytes(b"")
    Image.new("L", (1, 1001)).save(photos / "line.png")  # would be blown up
    encoder = colours()
    done = embed(photos, encoder, tmp_path / "out", block=4, batch_size=3)
    table = rows(done.embeddings)
    assert list(table.columns) == ["embedding", "width", "height", "sha256", "error"]
    assert list(table.index) == [*(f"{i:04d}.png" for i in range(10)), "broken.png", "empty.jpg",
                                 "line.png"]  # fmt: skip
    assert len(list((tmp_path / "out").iterdir())) == 4
    good = table[table.error.isna()]
    images = [open_image(photos / key) for key in good.index]
    truth = encoder.encode_image(images).numpy().astype(np.float16)
    assert np.array_equal(np.stack(good.embedding), truth)
    assert [*zip(good.width, good.height, strict=True)] == [image.size for image in images]
    assert list(good.sha256) == [digest(i) for i in range(10)]
    bad = table[table.error.notna()]
    assert bad.embedding.isna().all()
    assert "damaged or incomplete" in bad.error["broken.png"]
    assert "empty" in bad.error["empty.jpg"]
    assert "1 x 1001 px" in bad.error["line.png"]
    about = done.embeddings.about
    assert (about.encoder, about.fingerprint, about.dim) == ("colours", encoder.fingerprint, 48)
    for path in done.embeddings.files:
        assert b"cliplab" in pq.read_schema(path).metadata
    assert (done.computed, done.total, len(done.embeddings)) == (13, 13, 10)


def test_folders_tables_and_shards_give_the_same_embeddings(photos, tmp_path) -> None:
    names = [f"{i:04d}.png" for i in range(10)]
    pd.DataFrame({"image": names}).to_csv(photos / "list.csv", index=False)
    keys = [f"k{i}" for i in range(10)]
    pd.DataFrame({"path": names, "key": keys}).to_parquet(tmp_path / "list.parquet")
    shard(tmp_path / "shards" / "a.tar", range(6))
    shard(tmp_path / "shards" / "b.tar", range(6, 10))
    sources = {
        "folder": (photos, names),
        "csv": (photos / "list.csv", names),
        "parquet": (read_collection(tmp_path / "list.parquet", images=photos), keys),
        "tar": (tmp_path / "shards" / "a.tar", [f"a.tar/{name}" for name in names[:6]]),
        "tars": (
            tmp_path / "shards",
            [f"{'a' if i < 6 else 'b'}.tar/{name}" for i, name in enumerate(names)],
        ),
    }
    whole = None
    for name, (source, expected) in sources.items():
        table = rows(embed(source, colours(), tmp_path / name, block=4).embeddings)
        assert list(table.index) == expected, name
        whole = table if whole is None else whole
        columns = ["width", "height", "sha256", "error"]
        first = whole.iloc[: len(table)].reset_index()
        pd.testing.assert_frame_equal(table.reset_index()[columns], first[columns])
        assert np.array_equal(np.stack(table.embedding), np.stack(first.embedding)), name


# ---- going on --------------------------------------------------------------------------------


def test_only_what_is_missing_is_computed(photos, tmp_path, monkeypatch) -> None:
    out, opened = tmp_path / "out", list[str]()
    (photos / "0004.png").write_bytes(b"not yet")
    embed(photos, colours(), out, block=4)
    before = {path: path.stat().st_mtime_ns for path in out.glob("block-*")}
    for i in (10, 11):
        (photos / f"{i:04d}.png").write_bytes(picture(i))
    monkeypatch.setattr(
        scale.embedding, "open_image",
        lambda key, **more: opened.append(key) or open_image(key, **more), raising=True,
    )  # fmt: skip
    assert embed(photos, colours(), out, block=4).computed == 2
    assert sorted(opened) == ["0010.png", "0011.png"]
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert embed(photos, colours(), out).computed == 0
    (photos / "0004.png").write_bytes(picture(4))  # among those that are compared
    assert embed(photos, colours(), out).computed == 0
    again = embed(photos, colours(), out, retry=True)
    assert again.computed == 1
    assert not again.embeddings.told("error")
    table = rows(out)
    assert list(table.sha256) == [digest(i) for i in range(12)]
    (photos / "0001.png").unlink()
    assert embed(photos, colours(), out).total == 11
    assert len(rows(out)) == 12  # nothing is deleted


def embed_small_blocks(photos: Path, out: Path) -> None:
    """What the processes do that are killed."""
    embed(photos, colours(), out, block=8, batch_size=4)


@pytest.mark.skipif(sys.platform != "linux", reason="needs forkserver, and SIGKILL")
def test_killed_at_any_moment_it_loses_no_row_and_doubles_none(tmp_path) -> None:
    photos, out = folder(tmp_path / "photos", range(240)), tmp_path / "out"
    embed_small_blocks(photos, tmp_path / "whole")
    # from a server without threads: a fork of this process may inherit a lock that nobody frees
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cliplab.scale", "torch"])
    generator = random.Random(0)
    for _ in range(5):
        child = context.Process(target=embed_small_blocks, args=(photos, out))
        goal = len(list(out.glob("block-*"))) + generator.randrange(1, 5)
        child.start()
        while child.is_alive() and len(list(out.glob("block-*"))) < goal:
            time.sleep(0.001)
        time.sleep(generator.random() * 0.03)
        child.kill()
        child.join()
    found = [key for path in out.glob("block-*") for key in pq.read_table(path)["key"].to_pylist()]
    assert 0 < len(found) == len(set(found))
    done = embed(photos, colours(), out, block=8, batch_size=4)
    assert done.computed == 240 - len(found)
    pd.testing.assert_frame_equal(rows(out), rows(tmp_path / "whole"))
    names = [{path.name for path in one.iterdir()} for one in (out, tmp_path / "whole")]
    assert names[0] == names[1]  # nothing half-written is left, no block has another name


# ---- what is refused -------------------------------------------------------------------------


def test_a_folder_of_another_encoder_or_other_pictures_is_left_alone(photos, tmp_path) -> None:
    out = tmp_path / "out"
    embed(photos, colours(), out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    (photos / "0010.png").write_bytes(picture(10))
    with pytest.raises(ValueError, match=r"made with the encoder colours .*choose another folder"):
        embed(photos, colours(1.0), out)
    with pytest.raises(ValueError, match=r"its row 000\d.png is of another picture"):
        embed(folder(tmp_path / "others", range(100, 110)), colours(), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_two_runs_into_one_folder(photos, tmp_path) -> None:
    with held(tmp_path / "out"), pytest.raises(BlockingIOError, match="another cliplab is writing"):
        embed(photos, colours(), tmp_path / "out")
    assert embed(photos, colours(), tmp_path / "out").computed == 10


def test_no_space_leaves_whole_blocks_and_the_next_run_goes_on(
    photos, tmp_path, monkeypatch
) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("needs a device that is full")
    import cliplab.scale.store as store

    real, calls = store.atomic_write, []

    def third_fails(path: Path):
        calls.append(path)
        return open("/dev/full", "wb", buffering=0) if len(calls) == 3 else real(path)

    monkeypatch.setattr(store, "atomic_write", third_fails)
    with pytest.raises(OSError, match="No space left"):
        embed(photos, colours(), tmp_path / "out", block=4)
    assert len(rows(tmp_path / "out")) == 8
    assert embed(photos, colours(), tmp_path / "out", block=4).computed == 2


def twice(tar: Path) -> None:
    shard(tar, range(2))
    with tarfile.open(tar, "a") as file:
        file.addfile(tarfile.TarInfo("0000.png"), io.BytesIO())


def table(**columns: list) -> Callable[[Path], None]:
    return pd.DataFrame(columns).to_parquet


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("", lambda place: None, "no images"),
        ("nowhere", lambda place: None, "no such file or folder"),
        ("", lambda place: shard(folder(place, range(1)) / "a.tar", range(2)), "beside pictures"),
        ("a.tar", lambda tar: twice(tar), r"1 keys occur more than once \(a.tar/0000.png\)"),
        ("a.tar.gz", lambda tar: tar.touch(), "expected a folder of pictures"),
        ("a.parquet", table(image=[]), "no pictures in it"),
        ("a.parquet", table(image=["a.png", None]), "row 1 has no text in image"),
        ("a.parquet", table(image=["a"], key=[3]), "row 0 has no text in key"),
        ("a.parquet", table(picture=["a.png"]), "expected one of image, path"),
        (
            "a.parquet",
            lambda path: path.write_bytes(b"PAR1 and no more"),
            "no Parquet file, or dam",
        ),
    ],
)
def test_sources_without_a_meaning(tmp_path, name, make, said) -> None:
    (tmp_path / "source").mkdir()
    make(tmp_path / "source" / name)
    with pytest.raises((ValueError, OSError), match=said):
        embed(tmp_path / "source" / name, colours(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_things_in_the_folder_are_refused_and_a_damaged_block_named(photos, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"holds 0000.png, which is no block"):
        embed(photos, colours(), photos)
    embed(photos, colours(), out, block=4)
    block = open_embeddings(out).files[0]
    block.write_bytes(block.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{block.name}: no block of embeddings of this"):
        embed(photos, colours(), out, block=4)
    block.unlink()
    assert 0 < embed(photos, colours(), out, block=4).computed <= 4
    with pytest.raises(ArgumentError, match="block: got 0"):
        embed(photos, colours(), out, block=0)


# ---- broken tar files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hurt", "lost", "error", "problem"),
    [
        ("data", [], {"a.tar/0001.png": "damaged"}, None),
        ("header", ["a.tar/0001.png"], {}, r"a.tar: damaged from byte [\d,]+, before 0001.txt"),
        ("end", ["a.tar/0004.png"], {"a.tar/0003.png": "tar file ends"}, "ends too early"),
        ("start", ["a.tar/0000.png"], {}, "damaged from byte 0, before 0000.txt"),
        ("all", None, {}, "no tar file, or an empty one"),
    ],
)
def test_a_tar_with_a_broken_member_loses_that_alone(tmp_path, hurt, lost, error, problem) -> None:
    path = shard(tmp_path / "shards" / "a.tar", range(5))
    shard(tmp_path / "shards" / "b.tar", range(5, 8))
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    content, one = bytearray(path.read_bytes()), members["0001.png"]
    parts = {
        "data": slice(one.offset_data + 20, one.offset_data + one.size),
        "header": slice(one.offset, one.offset + 512),
        "start": slice(512),
        "all": slice(None),
    }
    if hurt == "end":
        del content[members["0003.png"].offset_data + 30 :]
    else:
        content[parts[hurt]] = b"\xab" * len(content[parts[hurt]])
    path.write_bytes(content)
    whole = [f"a.tar/{i:04d}.png" for i in range(5)] + [f"b.tar/{i:04d}.png" for i in range(5, 8)]
    collection = read_collection(tmp_path / "shards")
    done = embed(collection, colours(), tmp_path / "out")
    gone = whole[:5] if lost is None else lost
    table = rows(done.embeddings)
    assert list(table.index) == [key for key in whole if key not in gone]
    for key, sha in table.sha256.items():
        if key not in error:
            assert sha == digest(int(key[-8:-4]))
    errors = done.embeddings.told("error")
    assert errors.keys() == error.keys()
    assert all(error[key] in errors[key] for key in error)
    assert len(collection.problems) == (problem is not None)
    assert all(re.search(problem, text) for text in collection.problems)


# ---- the command -----------------------------------------------------------------------------


def test_the_command_says_what_there_is_and_exits_3_for_broken_pictures(
    photos, tmp_path, capsys
) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    command = ["embed", str(photos), "--out", str(tmp_path / "out"), "--block", "4"]
    assert main(command) == 3
    said = capsys.readouterr()
    assert "11 pictures, 11 read now in" in said.out
    assert "10 embeddings of 128 x float16 by pasture" in said.out
    assert "unreadable: broken.png: not an image, or damaged" in said.err
    assert main(command) == 3
    assert "11 pictures, 0 read now in 0 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "127.0.0.1:6379"], "--address: goes with --engine ray"),
        (["--workers", "2"], "--workers: goes with --engine ray"),
        (["--engine", "ray", "--workers", "0"], "--workers: got 0"),
        (["--engine", "ray", "--address", "nowhere"], "answers at nowhere (invalid"),
        (["--engine", "ray", "--address", "127.0.0.1:FREE"], "no Ray cluster answers at 127"),
        (["--batch-size", "0"], "--batch-size: got 0"),
    ],
)
def test_engines_that_cannot_work(photos, tmp_path, capsys, options, said) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = [option.replace("FREE", port) for option in options]
    assert main(["embed", str(photos), "--out", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_ray_writes_the_same_rows_and_says_why_it_cannot(photos, tmp_path, monkeypatch) -> None:
    ray = pytest.importorskip("ray")
    end = ray.shutdown
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # it takes long to start: once
    (photos / "broken.png").write_bytes(b"no picture")
    command = ["embed", str(photos), "--block", "4", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 3
    try:
        by_ray = ["--engine", "ray", "--workers", "1"]
        assert main([*command, str(tmp_path / "other"), *by_ray]) == 3
        load = partial(load_encoder, "pasture-zh")
        with pytest.raises(ChildProcessError, match="a worker stopped: its encoder has the"):
            embed(photos, load_encoder("pasture"), tmp_path / "none", engine=scale.Ray(load=load))
        assert not list((tmp_path / "none").iterdir())
    finally:
        end()
    one, other = rows(tmp_path / "one"), rows(tmp_path / "other")
    columns = ["width", "height", "sha256", "error"]
    pd.testing.assert_frame_equal(one[columns], other[columns])
    good = one.error.isna()
    pairs = [np.stack(table[good].embedding).astype(np.float32) for table in (one, other)]
    assert np.allclose(*pairs, atol=2e-3)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        path.name for path in (tmp_path / "other").iterdir()
    }
