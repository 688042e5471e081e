"""Searching embeddings: the true nearest, in bounded memory; what the command says and refuses."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from collections_world import colours, folder, picture, shard
from pages import read_page, texts

from cliplab import encoders, scale
from cliplab.cli.main import main
from cliplab.data import open_image
from cliplab.pasture import draw, herd
from cliplab.runtime import ArgumentError
from cliplab.scale import open_embeddings, open_index, search
from cliplab.scale.store import About, Row, write_block


def made(path: Path, rows: np.ndarray, block: int = 50) -> Path:
    """A folder of rows (N, D) as `embed` leaves it, every seventh of them broken."""
    about = About("none", "0" * 64, "float32", rows.shape[1], "float16", "photos", {})
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        told = [Row(f"{i:06d}", 4, 3, "0", "broken" if i % 7 == 6 else None)
                for i in range(start, start + len(some))]  # fmt: skip
        write_block(path / f"block-{start:09d}.parquet", about, told, some)
    return path


def unit(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Rows (N, D) about 20 centres, as embeddings are."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, dim, generator=generator)
    near = centres[torch.randint(20, (n,), generator=generator)]
    return F.normalize(near + 0.7 * torch.randn(n, dim, generator=generator), dim=-1)


# ---- the nearest -----------------------------------------------------------------------------


@pytest.mark.parametrize("can_be_written", [True, False])
def test_the_nearest_are_those_of_the_whole_table(tmp_path, monkeypatch, can_be_written):
    rows, queries = unit(400, 16), unit(5, 16, seed=1)
    found = open_embeddings(made(tmp_path / "out", rows.numpy()))
    monkeypatch.setattr(scale.store, "_VALUES", 16 * 30)  # many blocks
    if not can_be_written:
        (found.folder / "_search").write_bytes(b"no folder")
    good = [i for i in range(400) if i % 7 != 6]
    assert len(found) == len(good)
    table = rows.numpy().astype(np.float16).astype(np.float64)[good]
    truth = queries.double().numpy() @ table.T
    order = np.argsort(-truth, axis=1)[:, :9]
    hits = search(found, queries, 9)
    assert [[hit.key for hit in one] for one in hits] == [
        [f"{good[i]:06d}" for i in row] for row in order
    ]
    scores = [[hit.score for hit in one] for one in hits]
    assert np.allclose(scores, np.take_along_axis(truth, order, axis=1), atol=1e-5)
    assert (hits[0][0].width, hits[0][0].height) == (4, 3)
    assert len(search(found, queries, 1000)[0]) == len(good)
    assert [path.suffix for path in (found.folder / "_search").glob("*")] == [".npy"] * (
        can_be_written
    )


def test_new_blocks_are_found_and_the_old_copy_goes(tmp_path) -> None:
    rows = unit(200, 8)
    out = made(tmp_path / "out", rows[:100].numpy())
    search(open_embeddings(out), rows[:1])
    (copy,) = (out / "_search").iterdir()
    made(out, rows.numpy())
    assert search(open_embeddings(out), rows[150:151])[0][0].key == "000150"
    (other,) = (out / "_search").iterdir()
    assert other != copy


def test_queries_that_do_not_fit_and_folders_without_pictures(tmp_path) -> None:
    found = open_embeddings(made(tmp_path / "out", unit(9, 8).numpy()))
    for query, k, said in (
        (torch.zeros(1, 8), 0, "k: got 0"),
        (torch.zeros(1, 9), 1, r"got the shape \(1, 9\); expected \(queries, 8\)"),
    ):
        with pytest.raises(ArgumentError, match=said):
            search(found, query, k)
    about = About("none", "0" * 64, "float32", 8, "float16", "photos", {})
    rows = [Row("a", error="broken"), Row("b", error="broken")]
    write_block(tmp_path / "broken" / "block-0.parquet", about, rows, np.zeros((2, 8)))
    assert search(open_embeddings(tmp_path / "broken"), torch.zeros(3, 8)) == [[], [], []]


# ---- the index -------------------------------------------------------------------------------


def test_an_index_says_its_recall_and_is_built_once_for_the_same_rows(
    tmp_path, monkeypatch
) -> None:
    pytest.importorskip("usearch")
    searching, told = sys.modules["cliplab.scale.searching"], list[str]()
    rows, queries = unit(3000, 32), unit(20, 32, seed=1)
    found = open_embeddings(made(tmp_path / "out", rows.numpy(), block=1000))
    assert open_index(found, tell=told.append) is None  # too few
    monkeypatch.setattr(searching, "INDEX_FROM", 1000)
    index = open_index(found, tell=told.append)
    again = open_index(open_embeddings(found.folder), tell=told.append)
    assert told == [f"building an index of {len(found):,} rows, once"]
    assert index.recall == again.recall >= 0.95
    pairs = zip(search(found, queries), search(found, queries, index=again), strict=True)
    common = [len({hit.key for hit in a} & {hit.key for hit in b}) for a, b in pairs]
    assert sum(common) >= 0.9 * 10 * 20
    (hit,) = search(found, rows[5:6], 1, index=again)[0]
    assert (hit.key, hit.score) == ("000005", pytest.approx(1, abs=2e-3))
    truth = torch.arange(11)[None]  # recall counts what was found of the ten others
    some = torch.tensor([[0, 1, 2, 3, 4, 5, 90, 91, 92, 93, 94]])
    assert [searching.recall_at_10(truth, one, [0]) for one in (truth, some)] == [1, 0.5]


@pytest.mark.parametrize("queries", [1, 2])
def test_an_index_that_reaches_fewer_rows_finds_those(tmp_path, queries) -> None:
    graphs = pytest.importorskip("usearch.index")
    found = open_embeddings(made(tmp_path / "out", unit(50, 8).numpy()))
    graph = graphs.Index(ndim=8, metric="ip", dtype="f16")
    graph.add(np.arange(3), found.matrix()[:3])
    index = scale.Index(graph, 0.0, 64)
    for hits in search(found, unit(queries, 8, seed=1), 10, index=index):
        assert {hit.key for hit in hits} == {"000000", "000001", "000002"}
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_without_ray_and_usearch_the_rest_works(tmp_path, monkeypatch) -> None:
    for name in ("ray", "ray.data", "usearch", "usearch.index"):
        monkeypatch.setitem(sys.modules, name, None)
    photos, encoder = folder(tmp_path / "photos", range(4)), colours()
    with pytest.raises(ImportError, match=r"needs Ray .*pip install 'ray\[data\]'"):
        scale.embed(photos, encoder, tmp_path / "out", engine=scale.Ray())
    found = scale.embed(photos, encoder, tmp_path / "out").embeddings
    monkeypatch.setattr(sys.modules["cliplab.scale.searching"], "INDEX_FROM", 1)
    with pytest.raises(ImportError, match="needs usearch"):
        open_index(found)
    (hits,) = search(found, encoder.encode_image([open_image(photos / "0002.png")]), 1)
    assert hits[0].key == "0002.png"


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flock(tmp_path_factory) -> tuple[Path, Path]:
    """Drawn herds and their embeddings."""
    place = tmp_path_factory.mktemp("flock")
    photos = place / "photos"
    photos.mkdir()
    for i in range(12):
        draw(herd(i)).save(photos / f"{i:02d}.png")
    scale.embed(photos, encoders.load_encoder("pasture"), place / "out", block=5)
    return photos, place / "out"


def test_a_picture_finds_itself_and_words_find_as_the_encoder_ranks(flock, tmp_path, capsys):
    photos, out = flock
    files = [str(tmp_path / name) for name in ("hits.csv", "hits.html", "hits.json")]
    written = [
        word for pair in zip(("--out", "--html", "--json"), files, strict=True) for word in pair
    ]
    assert main(["search", str(out), str(photos / "07.png"), "--top", "3", *written]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1].split()[:2] == ["07.png", "1.0000"]
    assert "all 12 pictures looked at" in said
    with open(files[0], encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    assert table[0]["key"] == "07.png"
    page = read_page(Path(files[1]))
    assert texts(page, ".card .name") == [row["key"] for row in table]
    assert len(page.select("img")) == 4  # the query too
    report = json.loads(Path(files[2]).read_text("utf-8"))
    assert [hit["key"] for hit in report["found"]] == [row["key"] for row in table]

    assert main(["search", str(out), "a herd of goats", "--top", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:13]
    encoder = encoders.load_encoder("pasture")
    images = [draw(herd(i)) for i in range(12)]
    scores = encoder.encode_text(["a herd of goats"]) @ encoder.encode_image(images).T
    order = scores[0].argsort(descending=True).tolist()
    assert [line.split()[0] for line in lines] == [f"{i:02d}.png" for i in order]
    assert main(["search", str(out), "躺着的羊"]) == 0
    assert "remark: pasture cannot read the prompt '躺着的羊'" in capsys.readouterr().err


def test_pictures_in_shards_and_pictures_that_went_away(tmp_path, capsys) -> None:
    shard(tmp_path / "shards" / "a.tar", range(3))
    encoder = encoders.load_encoder("pasture")
    scale.embed(tmp_path / "shards", encoder, tmp_path / "out")
    (tmp_path / "query.png").write_bytes(picture(1))
    command = ["search", str(tmp_path / "out"), str(tmp_path / "query.png"), "--force", "--html"]
    page = tmp_path / "hits.html"
    assert main([*command, str(page)]) == 0
    assert len(read_page(page).select(".card img")) == 3
    assert texts(read_page(page), ".card .name")[0] == "a.tar/0001.png"
    (tmp_path / "shards").rename(tmp_path / "moved")
    assert main([*command, str(page)]) == 0
    assert not read_page(page).select(".card img")
    lost = "3 of 3 pictures are not where they were, or are others now (a.tar/0001.png, "
    assert texts(read_page(page), ".note")[0].startswith(lost)
    assert f"note: {lost}" in capsys.readouterr().err
    assert texts(read_page(page), ".card > .meta") == ["the picture is not where it was"] * 3
    assert main([*command, str(page), "--images", str(tmp_path / "moved")]) == 0
    assert len(read_page(page).select(".card img")) == 3
    folder(tmp_path / "others" / "a.tar", range(100, 103))  # of the same names
    assert main([*command, str(page), "--images", str(tmp_path / "others")]) == 0
    assert not read_page(page).select(".card img")


def test_two_collections_in_one_folder_and_pictures_outside_of_theirs(tmp_path, capsys) -> None:
    encoder, out = encoders.load_encoder("pasture"), tmp_path / "out"
    for name, numbers in (("a", range(3)), ("b", range(3, 6)), ("c", range(6, 9))):
        folder(tmp_path / name, numbers)
        for path in sorted((tmp_path / name).iterdir()):
            path.rename(path.with_name(name + path.name))
    (tmp_path / "tables").mkdir()
    rows = [str(path) for path in sorted((tmp_path / "c").iterdir())]
    (tmp_path / "tables" / "c.csv").write_text("\n".join(["image", *rows]), "utf-8")
    for source in ("a", "b", "tables/c.csv"):
        scale.embed(tmp_path / source, encoder, out)
    page = tmp_path / "hits.html"
    query = str(tmp_path / "b" / "b0001.png")
    assert main(["search", str(out), query, "--top", "9", "--html", str(page)]) == 0
    assert len(read_page(page).select(".card img")) == 9
    said = capsys.readouterr().err
    assert "not where" not in said
    assert "means nothing (b0001.png, " in said  # the same in every run: first what is found first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["OUT", "nothing.png"], "nothing.png: no such file; check the name"),
        (["OUT", "  "], "QUERY: got nothing"),
        (["OUT", "NOTES"], "not an image, or damaged"),
        (["OUT", "goat " * 200], "has 202 tokens with start and end"),
        (["OUT", "goats", "--top", "0"], "--top: got 0; expected 1 or more"),
        (["OUT", "goats", "--encoder", "pasture-zh"], "pasture-zh is another encoder"),
        (["OUT", "goats", "--out", "OUT/hits.csv"], "among the embeddings; choose another"),
        (["EMPTY", "goats"], "no embeddings there"),
        (["PHOTOS", "goats"], "no block of embeddings; give a folder that `embed` alone fills"),
    ],
)
def test_what_cannot_be_searched(flock, tmp_path, capsys, arguments, said) -> None:
    (tmp_path / "notes.md").write_text("no picture", "utf-8")
    (tmp_path / "empty").mkdir()
    places = {
        "OUT": flock[1], "PHOTOS": flock[0], "EMPTY": tmp_path / "empty",
        "NOTES": tmp_path / "notes.md",
    }  # fmt: skip
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    assert main(["search", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(flock[1].glob("*.csv"))
