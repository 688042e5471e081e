"""Photos to embeddings: order, bounded memory, work that overlaps, and a cache never in the way."""

import sqlite3
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cliplab.data import Sample, open_image
from cliplab.encoders import cache as embedding_cache
from cliplab.encoders import embeddings
from cliplab.encoders.embeddings import CacheWarning, EmbeddingCache, embed_photos, picture_key
from cliplab.encoders.two_towers import TwoTowers, openai_preprocess


class Colours(torch.nn.Module):
    """Model whose embedding is the mean colour: quick, and different for different pictures."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.text_projection = torch.nn.Parameter(torch.full((5, 3), weight))
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))
        self.batches: list[int] = []

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        return pixels.mean(dim=(2, 3)) * self.text_projection[0, 0]


def colours(model: torch.nn.Module | None = None, *, size: int = 8, **kwargs: str) -> TwoTowers:
    return TwoTowers(
        "colours",
        Colours() if model is None else model,
        tokenizer=None,
        preprocess=openai_preprocess(size),
        languages=("en",),
        device=torch.device("cpu"),
        **kwargs,
    )


def make_photos(folder: Path, n: int, *, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.png" for i in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened, as they are opened."""
    names: list[str] = []

    def spy(path: Path) -> Image.Image:
        names.append(Path(path).name)
        return open_image(path)

    monkeypatch.setattr(embeddings, "open_image", spy)
    return names


# ---- what comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_rows_are_those_of_the_encoder_in_order(tmp_path: Path, batch_size: int) -> None:
    paths = make_photos(tmp_path, 7)
    encoder = colours()
    done = embed_photos(encoder, paths, batch_size=batch_size)
    expected = encoder.encode_image([open_image(path) for path in paths])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)
    assert done.kept == list(range(7))
    assert done.unreadable == []
    assert not done.image_emb.is_inference()


def test_unreadable_files_are_collected_and_the_rest_goes_on(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 6)
    paths[0].write_bytes(b"")
    paths[3].write_bytes(b"not an image")
    paths[5] = tmp_path / "absent.png"
    encoder = colours()
    done = embed_photos(encoder, paths, batch_size=2)
    assert done.kept == [1, 2, 4]
    assert [error.path for error in done.unreadable] == [paths[0], paths[3], paths[5]]
    expected = encoder.encode_image([open_image(paths[i]) for i in done.kept])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)


def test_nothing_gives_no_rows(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    assert embed_photos(colours(), []).image_emb.shape == (0, 3)
    assert embed_photos(colours(), [tmp_path / "x.png"]).image_emb.shape == (0, 3)


def test_boxes_of_one_file_are_cut_from_one_opening(tmp_path: Path, opened: list[str]) -> None:
    first, second = make_photos(tmp_path, 2)
    photos = [
        Sample(first, box_xyxy=(0, 0, 4, 4)),
        Sample(first, box_xyxy=(50, 50, 60, 60)),  # outside
        Sample(first),
        Sample(second, box_xyxy=(1, 1, 9, 9)),
        Sample(first, box_xyxy=(4, 2, 12, 9)),
    ]
    encoder = colours()
    done = embed_photos(encoder, photos)
    assert sorted(opened) == sorted(["000.png", "001.png", "000.png"])
    assert done.kept == [0, 2, 3, 4]
    assert "lies outside the picture" in str(done.unreadable[0])
    expected = encoder.encode_image([photos[i].open() for i in done.kept])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)


def test_many_boxes_of_one_file_are_cut_some_at_a_time(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_BOXES_AT_ONCE", 3)
    (path,) = make_photos(tmp_path, 1)
    photos = [Sample(path, box_xyxy=(i, 0, i + 2, 4)) for i in range(7)]
    done = embed_photos(colours(), photos)
    assert len(opened) == 3
    expected = colours().encode_image([photo.open() for photo in photos])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)


def test_on_image_sees_every_readable_picture_in_order(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 20)
    paths[4].write_bytes(b"")
    photos = [*paths[:19], Sample(paths[19], box_xyxy=(0, 0, 5, 3))]
    seen: list[tuple[int, tuple[int, int]]] = []
    embed_photos(colours(), photos, batch_size=3, on_image=lambda i, x: seen.append((i, x.size)))
    assert [i for i, _ in seen] == [i for i in range(20) if i != 4]
    assert seen[-1] == (19, (5, 3))
    assert {size for _, size in seen[:-1]} == {(12, 9)}


def test_an_encoder_without_encode_pixels_is_given_images(tmp_path: Path) -> None:
    paths, encoder = make_photos(tmp_path, 3), colours()
    plain = SimpleNamespace(dim=3, encode_image=encoder.encode_image)
    expected = embed_photos(encoder, paths).image_emb
    torch.testing.assert_close(embed_photos(plain, paths, batch_size=2).image_emb, expected)


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"photos: got one path; expected several: use \[path\]"):
        embed_photos(colours(), tmp_path)
    with pytest.raises(ValueError, match="batch_size: got 0; expected 1 or more"):
        embed_photos(colours(), [], batch_size=0)


def test_progress_is_on_stderr_and_only_when_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = make_photos(tmp_path, 3)
    paths[1].write_bytes(b"")
    embed_photos(colours(), paths)
    assert capfd.readouterr() == ("", "")
    embed_photos(colours(), paths, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "3/3" in err


# ---- threads and memory ----------------------------------------------------------------------


def test_files_are_read_while_the_encoder_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_processors", lambda: 2)
    monkeypatch.setattr(embeddings, "_on_cpu", lambda encoder: False)  # as one on a GPU
    prepared, more = [], threading.Event()

    class Waiting(Colours):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            assert more.wait(20), "nothing was read while the first batch was encoded"
            return super().encode_image(pixels)

    encoder = colours(Waiting())
    preprocess = encoder.preprocess

    def counting(image: Image.Image) -> torch.Tensor:
        prepared.append(image)
        if len(prepared) == 12:  # three batches of 3 and some of the five files ahead
            more.set()
        return preprocess(image)

    encoder.preprocess = counting
    assert embed_photos(encoder, make_photos(tmp_path, 15), batch_size=3).kept == list(range(15))


def test_an_encoder_on_the_cpu_has_it_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few files may be ready, but no batch is put together while another is encoded."""
    monkeypatch.setattr(embeddings, "_processors", lambda: 2)
    prepared: list[Image.Image] = []
    ahead: list[int] = []

    class Slow(Colours):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            time.sleep(0.2)  # time enough to read all of the files
            ahead.append(len(prepared) - sum(self.batches) - len(pixels))
            return super().encode_image(pixels)

    encoder = colours(Slow())
    preprocess = encoder.preprocess
    encoder.preprocess = lambda image: prepared.append(image) or preprocess(image)
    embed_photos(encoder, make_photos(tmp_path, 32), batch_size=10)
    assert max(ahead) <= 5  # twice two threads, and the one that is handed out


class Endless(Sequence):
    """A hundred thousand paths, made when they are asked for."""

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> Path:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Path]:
        return (Path(f"{i}.png") for i in range(len(self)))


class Stop(Exception):
    pass


@pytest.mark.parametrize("with_images", [False, True])
def test_memory_is_bounded_whatever_the_number(
    monkeypatch: pytest.MonkeyPatch, with_images: bool
) -> None:
    live, most, lock = {"images": 0, "pixels": 0}, {"images": 0, "pixels": 0}, threading.Lock()

    def count(kind: str, change: int) -> None:
        with lock:
            live[kind] += change
            most[kind] = max(most[kind], live[kind])

    def counted(kind: str, thing: object) -> object:
        count(kind, 1)
        weakref.finalize(thing, count, kind, -1)
        return thing

    monkeypatch.setattr(embeddings, "_processors", lambda: 2)
    monkeypatch.setattr(
        embeddings, "open_image", lambda _: counted("images", Image.new("RGB", (8, 8)))
    )
    encoder = colours()
    encoder.preprocess = lambda image: counted("pixels", torch.ones(3, 8, 8))
    seen = []

    def on_image(index: int, image: Image.Image) -> None:
        seen.append(index)
        if index == 2500:
            raise Stop

    if with_images:
        with pytest.raises(Stop):
            embed_photos(encoder, Endless(), batch_size=16, on_image=on_image)
        assert seen == list(range(2501))
    else:
        some = [Path(f"{i}.png") for i in range(2500)]
        assert len(embed_photos(encoder, some, batch_size=16).kept) == 2500
    assert most["images"] <= 8, "two threads, four files ahead, one in hand"
    assert most["pixels"] <= 4 * 16, "one batch filling, two on their way, some files ahead"
    assert threading.active_count() < 4


def test_an_error_in_the_encoder_ends_it_and_keeps_nothing(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 9)
    encoder = colours(Colours(float("nan")))
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(ValueError, match="colours: embeddings are not finite"):
            embed_photos(encoder, paths, batch_size=2, cache=cache)
        assert len(cache) == 0


def test_the_process_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that open images at once must not restore each other's warning filters."""
    monkeypatch.setenv("CLIPLAB_MAX_PIXELS", "1000")
    before = (list(warnings.filters), Image.MAX_IMAGE_PIXELS)
    paths = make_photos(tmp_path, 40)
    Image.new("RGB", (40, 40)).save(paths[20])
    done = embed_photos(colours(), paths, batch_size=4)
    assert [error.path for error in done.unreadable] == [paths[20]]
    assert "more than 1,000 pixels" in str(done.unreadable[0])
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before


# ---- the cache -------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "c.sqlite"


def test_a_hit_skips_decoding_and_gives_the_same_bits(
    tmp_path: Path, file: Path, opened: list[str]
) -> None:
    paths, encoder = make_photos(tmp_path, 5), colours()
    without = embed_photos(encoder, paths)
    opened.clear()
    with EmbeddingCache(file) as cache:
        first = embed_photos(encoder, paths[:3], cache=cache)
        assert (len(opened), len(cache)) == (3, 3)
    with EmbeddingCache(file) as cache:
        mixed = embed_photos(encoder, paths, cache=cache, batch_size=1)
        assert (sorted(opened[3:]), len(cache)) == (["003.png", "004.png"], 5)
    assert torch.equal(mixed.image_emb[:3], first.image_emb)
    torch.testing.assert_close(mixed.image_emb, without.image_emb, rtol=0, atol=1e-6)
    assert mixed.kept == [0, 1, 2, 3, 4]


def test_on_image_decodes_hits_too(tmp_path: Path, file: Path, opened: list[str]) -> None:
    paths, encoder, seen = make_photos(tmp_path, 3), colours(), []
    with EmbeddingCache(file) as cache:
        first = embed_photos(encoder, paths, cache=cache)
        encoder.model.batches.clear()
        encoder.preprocess = None  # a hit needs no pixels
        again = embed_photos(encoder, paths, cache=cache, on_image=lambda i, _: seen.append(i))
    assert (seen, len(opened), encoder.model.batches) == ([0, 1, 2], 6, [])
    assert torch.equal(again.image_emb, first.image_emb)


def test_the_content_counts_and_not_the_name(tmp_path: Path, file: Path, opened: list[str]) -> None:
    (path,), encoder = make_photos(tmp_path / "a", 1), colours()
    with EmbeddingCache(file) as cache:
        before = embed_photos(encoder, [path], cache=cache).image_emb
        twin = path.rename(tmp_path / "twin.png")
        assert torch.equal(embed_photos(encoder, [twin], cache=cache).image_emb, before)
        assert len(opened) == 1
        Image.new("RGB", (12, 9), "red").save(twin)
        after = embed_photos(encoder, [twin], cache=cache).image_emb
        assert len(opened) == 2
    torch.testing.assert_close(after, colours().encode_image([open_image(twin)]))
    assert not torch.allclose(after, before)


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_photos(tmp_path, 2)

    def meddling(path: Path) -> Image.Image:
        if path == paths[0]:
            Image.new("RGB", (30, 30), "red").save(path)
        return open_image(path)

    monkeypatch.setattr(embeddings, "open_image", meddling)
    with EmbeddingCache(file) as cache:
        assert len(embed_photos(colours(), paths, cache=cache).kept) == 2
        assert len(cache) == 1


def test_weights_preprocessing_precision_and_box_have_rows_of_their_own(
    tmp_path: Path, file: Path
) -> None:
    (path,) = make_photos(tmp_path, 1)
    encoders = [
        colours(),
        colours(Colours(2.0)),
        colours(size=6),
        colours(precision="bfloat16"),
    ]
    with EmbeddingCache(file) as cache:
        for photo in (
            path,
            Sample(path, box_xyxy=(0, 0, 6, 6)),
            Sample(path, box_xyxy=(0, 0, 6, 7)),
        ):
            for encoder in encoders:
                embed_photos(encoder, [photo], cache=cache)
                encoder.model.batches.clear()
        assert len(cache) == 12
        embed_photos(colours(), [Sample(path)], cache=cache)
        assert len(cache) == 12


def test_the_default_file_is_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_CACHE", str(tmp_path / "chosen"))
    with EmbeddingCache() as cache:
        assert (bool(cache), len(cache)) == (True, 0)
        cache.put([b"k"], torch.ones(1, 3))
    assert (tmp_path / "chosen" / "embeddings.sqlite").is_file()


def test_rows_come_back_bit_for_bit(file: Path) -> None:
    rows = torch.randn(1200, 5, generator=torch.Generator().manual_seed(0))
    keys = [picture_key("f", str(i), None) for i in range(1200)]
    with EmbeddingCache(file) as cache:
        cache.put(keys, rows)
        found = cache.get([*keys, b"absent"])
    assert torch.equal(torch.stack([found[key] for key in keys]), rows)
    assert b"absent" not in found


FILL = """
import sys, warnings
from pathlib import Path
from types import SimpleNamespace
import numpy, torch
from cliplab.embeddings import EmbeddingCache, embed_photos
warnings.simplefilter("error")
encoder = SimpleNamespace(
    dim=3,
    fingerprint="mean colour",
    preprocess=lambda image: torch.from_numpy(numpy.array(image)).float().mean(dim=(0, 1)),
    encode_pixels=lambda batches: torch.cat(list(batches)),
)
folder, file = map(Path, sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()  # both begin at the same time, neither with a file
with EmbeddingCache(file) as cache:
    done = embed_photos(encoder, sorted(folder.glob("*.png")), cache=cache, batch_size=1)
print(done.image_emb.tolist())
"""


def test_two_processes_fill_one_file_at_once(tmp_path: Path, file: Path) -> None:
    paths = make_photos(tmp_path, 60)
    command = [sys.executable, "-c", FILL, str(tmp_path), str(file)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1] != ""
    with EmbeddingCache(file) as cache:
        assert len(cache) == len(paths)


def test_opening_waits_for_whoever_is_making_the_file(file: Path) -> None:
    file.parent.mkdir()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    timer.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with EmbeddingCache(file) as cache:
            cache.put([b"k"], torch.ones(1, 3))
            assert len(cache) == 1
    timer.join()
    other.close()


# ---- a cache in trouble ----------------------------------------------------------------------


def check_survives(cache: EmbeddingCache, paths: list[Path], remedy: str) -> None:
    """One warning with the remedy, and the rows that there are without a cache."""
    expected = embed_photos(colours(), paths, batch_size=2).image_emb
    with pytest.warns(CacheWarning, match=remedy) as told:
        done = embed_photos(colours(), paths, batch_size=2, cache=cache)
    assert len(told) == 1
    assert torch.equal(done.image_emb, expected)


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path: Path, file: Path) -> None:
    paths = make_photos(tmp_path, 10)
    with EmbeddingCache(file) as cache:
        embed_photos(colours(), paths[:4], cache=cache)
        (pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
        cache._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own full disk
        many = [picture_key("x", str(i), None) for i in range(500)]
        with pytest.warns(
            CacheWarning, match=r"full; going on without it.*free some space"
        ) as told:
            cache.put(many, torch.zeros(500, 3))
        assert len(told) == 1
        assert len(cache) == 4, "half a batch was written"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            done = embed_photos(colours(), paths, cache=cache)
            assert len(cache) == 4, "writing went on"
            cache._connection.close()  # more trouble is not told again
            assert cache.get(many) == {}
        assert torch.equal(done.image_emb, embed_photos(colours(), paths).image_emb)
    with EmbeddingCache(file) as cache:  # with space again all is as before
        embed_photos(colours(), paths, cache=cache)
        assert len(cache) == 10


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_left_alone(tmp_path: Path, file: Path, content: bytes) -> None:
    paths = make_photos(tmp_path, 3)
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.warns(CacheWarning, match=r"c\.sqlite: .*results are the same.*delete it") as told:
        cache = EmbeddingCache(file)
    done = embed_photos(colours(), paths, cache=cache)
    assert (len(told), len(done.kept), len(cache)) == (1, 3, 0)
    assert file.read_bytes() == content


def test_damage_found_while_reading(tmp_path: Path, file: Path) -> None:
    paths = make_photos(tmp_path, 4)
    with EmbeddingCache(file) as cache:
        cache.put([picture_key("x", str(i), None) for i in range(2000)], torch.zeros(2000, 64))
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    check_survives(EmbeddingCache(file), paths, r"malformed.*delete it and what is beside it")


def test_a_row_with_a_flipped_bit_counts_as_missing(tmp_path: Path, file: Path) -> None:
    paths = make_photos(tmp_path, 2)
    with EmbeddingCache(file) as cache:
        good = embed_photos(colours(), paths, cache=cache).image_emb
    with sqlite3.connect(file) as connection:
        (one, two) = connection.execute("SELECT key, row FROM embeddings").fetchall()
        flipped = bytes([one[1][0], one[1][1], one[1][2], one[1][3], one[1][4] ^ 1]) + one[1][5:]
        for key, row in ((one[0], flipped), (two[0], two[1][:-4])):
            connection.execute("UPDATE embeddings SET row = ? WHERE key = ?", (row, key))
    connection.close()
    with EmbeddingCache(file) as cache:
        assert torch.equal(embed_photos(colours(), paths, cache=cache).image_emb, good)


def test_another_programs_database_is_not_written_to(tmp_path: Path, file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE sheep (name TEXT)")
    connection.close()
    with pytest.warns(CacheWarning, match="another program's database.*give another path"):
        cache = EmbeddingCache(file)
    assert len(embed_photos(colours(), make_photos(tmp_path, 1), cache=cache).kept) == 1
    with sqlite3.connect(file) as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert names == [("sheep",)]


@pytest.mark.parametrize("kind", ["a folder", "below a file"])
def test_a_place_that_cannot_be_written(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path if kind == "a folder" else tmp_path / "file" / "c.sqlite"
    with pytest.warns(CacheWarning, match=r"going on without it.*\$CLIPLAB_CACHE") as told:
        cache = EmbeddingCache(path)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(embed_photos(colours(), make_photos(tmp_path / "p", 2), cache=cache).kept) == 2


def test_a_file_that_stays_locked(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "_BUSY_SECONDS", 0.1)
    paths = make_photos(tmp_path, 6)
    with EmbeddingCache(file) as cache:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        check_survives(cache, paths, "locked.*end that program")
        other.execute("ROLLBACK")
        other.close()


def test_a_closed_cache_is_empty_and_harmless(tmp_path: Path, file: Path) -> None:
    with EmbeddingCache(file) as cache:
        cache.put([b"k"], torch.ones(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(cache) == 0
        assert cache.get([b"k"]) == {}
        cache.put([b"j"], torch.ones(1, 3))
        assert len(embed_photos(colours(), make_photos(tmp_path, 1), cache=cache).kept) == 1
