"""Photos to embeddings: order, bounded memory, work that overlaps, and a cache never in the way."""

import errno
import os
import threading
import weakref
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliplab.data import Sample, open_image
from cliplab.encoders import (
    EmbeddingCache,
    Encoder,
    embed_photos,
    embeddings,
    openai_preprocess,
)


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


def colours(model: torch.nn.Module | None = None, *, size: int = 8, **kwargs: str) -> Encoder:
    return Encoder(
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


def rows_in(cache: EmbeddingCache) -> int:
    return len(list(cache.folder.rglob("*.npy")))


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


def test_unreadable_files_are_collected_and_the_rest_goes_on(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 6)
    paths[0].write_bytes(b"")
    paths[3].write_bytes(b"not an image")
    paths[5] = tmp_path / "absent.png"
    encoder = colours()
    done = embed_photos(encoder, paths, batch_size=2)
    assert (done.kept, encoder.model.batches) == ([1, 2, 4], [2, 1])
    assert [error.path for error in done.unreadable] == [paths[0], paths[3], paths[5]]
    expected = encoder.encode_image([open_image(paths[i]) for i in done.kept])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)


def test_boxes_of_one_file_are_cut_from_one_opening(tmp_path: Path, opened: list[str]) -> None:
    first, second = make_photos(tmp_path, 2)
    photos = [
        Sample(first, box_xyxy=(0, 0, 4, 4)),
        Sample(first),
        Sample(second, box_xyxy=(1, 1, 9, 9)),
        Sample(first, box_xyxy=(4, 2, 12, 9)),
    ]
    encoder = colours()
    done = embed_photos(encoder, photos)
    assert sorted(opened) == sorted(["000.png", "001.png", "000.png"])
    assert done.kept == [0, 1, 2, 3]
    expected = encoder.encode_image([photos[i].open() for i in done.kept])
    torch.testing.assert_close(done.image_emb, expected, rtol=0, atol=1e-6)


def test_on_image_sees_every_readable_picture_in_order(tmp_path: Path) -> None:
    paths, seen = make_photos(tmp_path, 20), []
    paths[4].write_bytes(b"")
    photos = [*paths[:19], Sample(paths[19], box_xyxy=(0, 0, 5, 3))]
    embed_photos(colours(), photos, batch_size=3, on_image=lambda i, x: seen.append((i, x.size)))
    assert seen == [(i, (12, 9)) for i in range(19) if i != 4] + [(19, (5, 3))]


# ---- threads and memory ----------------------------------------------------------------------


def test_files_are_read_while_the_encoder_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    prepared, more = [], threading.Event()

    class Waiting(Colours):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            assert more.wait(20), "nothing was read while the first batch was encoded"
            return super().encode_image(pixels)

    encoder = colours(Waiting())
    preprocess = encoder.preprocess

    def counting(image: Image.Image) -> torch.Tensor:
        prepared.append(image)
        if len(prepared) == 6:  # a batch of 3 and some of the four files ahead
            more.set()
        return preprocess(image)

    encoder.preprocess = counting
    assert embed_photos(encoder, make_photos(tmp_path, 15), batch_size=3).kept == list(range(15))


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

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(
        embeddings, "open_image", lambda _: counted("images", Image.new("RGB", (8, 8)))
    )
    encoder, seen, paths = colours(), [], [Path(f"{i}.png") for i in range(1000)]
    encoder.preprocess = lambda image: counted("pixels", torch.ones(3, 8, 8))
    see = (lambda index, _: seen.append(index)) if with_images else None
    assert embed_photos(encoder, paths, batch_size=16, on_image=see).kept == list(range(1000))
    assert seen == list(range(1000)) * with_images
    assert most["images"] <= 8, "two threads, four files ahead, one in hand"
    assert most["pixels"] <= 2 * 16 + 8, "one batch, its copy in a stack, some files ahead"
    assert threading.active_count() < 4


# ---- the cache -------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def test_a_hit_skips_decoding_and_gives_the_same_bits(
    tmp_path: Path, cache: EmbeddingCache, opened: list[str]
) -> None:
    paths, encoder = make_photos(tmp_path, 5), colours()
    without = embed_photos(encoder, paths)
    opened.clear()
    first = embed_photos(encoder, paths[:3], cache=cache)
    assert (len(opened), rows_in(cache)) == (3, 3)
    mixed = embed_photos(encoder, paths, cache=EmbeddingCache(cache.folder), batch_size=1)
    assert (sorted(opened[3:]), rows_in(cache)) == (["003.png", "004.png"], 5)
    assert torch.equal(mixed.image_emb[:3], first.image_emb)
    torch.testing.assert_close(mixed.image_emb, without.image_emb, rtol=0, atol=1e-6)
    assert mixed.kept == [0, 1, 2, 3, 4]


def test_on_image_decodes_hits_too(
    tmp_path: Path, cache: EmbeddingCache, opened: list[str]
) -> None:
    paths, encoder, seen = make_photos(tmp_path, 3), colours(), []
    first = embed_photos(encoder, paths, cache=cache)
    encoder.model.batches.clear()
    encoder.preprocess = None  # a hit needs no pixels
    again = embed_photos(encoder, paths, cache=cache, on_image=lambda i, _: seen.append(i))
    assert (seen, len(opened), encoder.model.batches) == ([0, 1, 2], 6, [])
    assert torch.equal(again.image_emb, first.image_emb)


def test_the_content_counts_and_not_the_name(
    tmp_path: Path, cache: EmbeddingCache, opened: list[str]
) -> None:
    (path,), encoder = make_photos(tmp_path / "a", 1), colours()
    before = embed_photos(encoder, [path], cache=cache).image_emb
    twin = path.rename(tmp_path / "twin.png")
    assert torch.equal(embed_photos(encoder, [twin], cache=cache).image_emb, before)
    assert len(opened) == 1
    Image.new("RGB", (12, 9), "red").save(twin)
    after = embed_photos(encoder, [twin], cache=cache).image_emb
    assert len(opened) == 2
    torch.testing.assert_close(after, colours().encode_image([open_image(twin)]))
    assert not torch.allclose(after, before)


def test_weights_preprocessing_precision_and_box_have_rows_of_their_own(
    tmp_path: Path, cache: EmbeddingCache
) -> None:
    (path,) = make_photos(tmp_path, 1)
    encoders = [colours(), colours(Colours(2.0)), colours(size=6), colours(precision="bfloat16")]
    boxes = [None, (0, 0, 6, 6), (0, 0, 6, 7)]
    for encoder, box in product(encoders, boxes):
        embed_photos(encoder, [Sample(path, box_xyxy=box)], cache=cache)
    assert rows_in(cache) == 12
    embed_photos(colours(), [path], cache=cache)
    assert rows_in(cache) == 12


@pytest.mark.parametrize("damage", [b"", b"not numpy at all", None])
def test_a_damaged_row_counts_as_missing(
    tmp_path: Path, cache: EmbeddingCache, damage: bytes | None
) -> None:
    paths = make_photos(tmp_path, 2)
    good = embed_photos(colours(), paths, cache=cache).image_emb
    for path in cache.folder.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    assert torch.equal(embed_photos(colours(), paths, cache=cache).image_emb, good)


def test_a_place_that_cannot_be_written_costs_the_cache_and_nothing_else(
    tmp_path: Path, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_photos(tmp_path, 5)
    expected = embed_photos(colours(), paths, batch_size=2).image_emb

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(RuntimeWarning, match=r"results are the same.*\$CLIPLAB_CACHE") as told:
        done = embed_photos(colours(), paths, batch_size=2, cache=cache)
    assert len(told) == 1
    assert torch.equal(done.image_emb, expected)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
