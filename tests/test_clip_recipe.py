"""How the shipped CLIPs were made: pictures, words, training; and their cards."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cliplab.encoders import load_encoder, read_modelscope, read_openai
from cliplab.models.chinese_clip import save_modelscope
from cliplab.models.clip import load_openai, save_openai
from cliplab.models.tokenizers import BytePairTokenizer
from cliplab.pasture import (
    COMBOS,
    HELD_OUT_TRIPLES,
    caption,
    class_phrase,
    draw,
    portrait,
    portraits,
)
from cliplab.runtime import checkpoint_dir, read_card, verify_checkpoint
from cliplab.training import clip as recipe
from cliplab.training.clip_dataset import (
    CLIPBatches,
    CompactVocabulary,
    chinese_vocabulary,
    load_dataset,
)
from cliplab.training.clip_evaluation import classify, evaluate, retrieval

TINY = recipe.CLIPRecipe(
    portraits=24, crops=8, batch=8, width=2, text_width=64, text_layers=1, embed_dim=16,
    steps=4, locked_steps=3, joint_steps=2,
)  # fmt: skip
CPU = torch.device("cpu")


# ---- pictures and words --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return load_dataset(folder, portrait_count=TINY.portraits, crop_count=TINY.crops)


def test_pool_knows_what_each_picture_shows(pool) -> None:
    assert pool.images.shape == (32, 64, 64, 3)
    assert pool.is_crop.sum() == 8
    assert pool.caption(3, "en", 5)[0] == caption(portrait(3), "en", 5)
    assert pool.caption(30, "zh", 1)[0]


def test_batches_depend_on_step_and_seed_alone(pool) -> None:
    (pixels, texts), again = (CLIPBatches(pool, "en", 0, 8, 0.7)(7) for _ in range(2))
    assert torch.equal(pixels, again[0])
    assert texts == again[1]
    assert CLIPBatches(pool, "en", 0, 8, 0.7)(8)[1] != texts


def test_compact_vocabulary_keeps_the_end_token_highest() -> None:
    words = CompactVocabulary(BytePairTokenizer())
    texts = [class_phrase(**c._asdict()) for c in COMBOS] + [
        caption(portrait(s)) for s in range(50)
    ]
    ids = words(texts)
    assert (ids.max(dim=1).values == len(words.official) - 1).all()
    official = torch.tensor(words.official)[ids]
    assert torch.equal(official, BytePairTokenizer()(texts)[:, : ids.shape[1]])
    with pytest.raises(ValueError, match=r"has a word that captions\.lexicon does not know"):
        words(["a zebra"])


def test_scatter_puts_trained_rows_in_place() -> None:
    words = CompactVocabulary(BytePairTokenizer())
    trained = torch.randn(len(words.official), 8)
    rows = words.scatter({"token_embedding.weight": trained})["token_embedding.weight"]
    assert rows.shape == (49408, 8)
    assert torch.equal(rows[words.official], trained)
    assert rows.any(dim=1).sum() == len(trained)  # all others are zero


def test_the_recipe_makes_files_that_the_official_loaders_read(pool, tmp_path) -> None:
    english, chinese = tmp_path / "out" / "model.pt", tmp_path / "zh"
    save_openai(recipe.train_english(TINY, pool, tmp_path / "1", CPU), english)
    model = recipe.train_chinese(TINY, pool, english, tmp_path / "2", CPU)
    save_modelscope(model, chinese, chinese_vocabulary())
    picture = [draw(portrait(0, split="test"), 64)]
    for read, path, official, text in (
        (read_openai, english, f"openai:{english}", "a white sheep"),
        (read_modelscope, chinese, f"modelscope:{chinese}", "一只白羊"),
    ):
        ours, theirs = read(path).encoder("made", CPU), load_encoder(official)
        for made, given in (("encode_image", picture), ("encode_text", [text])):
            emb = (getattr(one, made)(given) for one in (ours, theirs))
            torch.testing.assert_close(*emb, atol=1e-5, rtol=0)


# ---- shipped checkpoints -------------------------------------------------------------------

SHIPPED = {"clip-openai": ("pasture", "en"), "clip-chinese": ("pasture-zh", "zh")}


@pytest.mark.parametrize(
    ("group", "question", "floor"),
    [
        ("triples", "posture", 0.95), ("triples", "species", 0.92), ("triples", "joint", 0.88),
        ("seen", "joint", 0.97), ("sheep lying", "posture", 0.95),
    ],
)  # fmt: skip
def test_the_cards_reach_the_floors(group: str, question: str, floor: float) -> None:
    english, chinese = (read_card(checkpoint_dir(name))["metrics"][group] for name in SHIPPED)
    reached = english["ensemble"][question]["value"]
    assert reached >= floor
    assert english["bare"][question]["value"] >= reached - 0.03
    assert chinese["ensemble"][question]["value"] >= reached - 0.05


def test_english_reads_no_chinese() -> None:
    lost = read_card(checkpoint_dir("clip-openai"))["metrics with zh prompts"]["seen"]["bare"]
    assert lost["posture"]["value"] < 0.35  # chance is 0.25
    assert lost["joint"]["value"] < 0.05  # chance is 0.0125


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_true(name: str) -> None:
    """Other pictures than the card's, fewer of them: the card's rate must lie in the interval."""
    spec, language = SHIPPED[name]
    encoder, card = load_encoder(spec), read_card(checkpoint_dir(name))["metrics"]
    pictures = portraits("test", 300, start=150_000, combos=HELD_OUT_TRIPLES)
    image_emb = encoder.encode_image(pictures.pil())
    found = classify(encoder, image_emb, pictures, language=language, wording=("{}",))
    for question in ("species", "posture", "joint"):
        measured, claimed = found[question], card["triples"]["bare"][question]["value"]
        assert measured["low"] - 0.02 <= claimed <= measured["high"] + 0.02, question


def test_evaluation_of_a_guesser_is_chance() -> None:
    class Guesser:
        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(0)

        def encode_image(self, images, **options):
            rows = torch.randn(len(list(images)), 32, generator=self.generator)
            return nn.functional.normalize(rows, dim=-1)

        encode_text = encode_image

    report = evaluate(Guesser(), "en", count=200)
    assert report["seen"]["bare"]["posture"]["value"] == pytest.approx(0.25, abs=0.12)
    assert report["seen"]["bare"]["joint"]["value"] < 0.07
    assert retrieval(Guesser(), "en", count=64)["image_to_text_r1"]["value"] < 0.12


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({}, checkpoint_dir("")),
        ({"steps": 10}, Path("w/seed0")),
        ({"seed": 1}, Path("w/seed1")),
    ],
)
def test_only_the_defaults_replace_what_is_shipped(
    changes: dict, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    monkeypatch.setattr(recipe, "load_dataset", lambda *_, **__: None)
    monkeypatch.setattr(recipe, "train_english", lambda *_: None)
    monkeypatch.setattr(recipe, "_publish", lambda save, recipe, out, count: left.append(out))
    made = recipe.CLIPRecipe(**changes)
    recipe.run(recipe.Options(recipe=made, model="clip-openai", work=Path("w")))
    assert left == [folder / "clip-openai"]


def test_new_weights_are_not_measured_by_the_card_of_others(tmp_path, monkeypatch) -> None:
    folder = Path(shutil.copytree(checkpoint_dir("clip-openai"), tmp_path / "clip-openai"))
    weights = load_openai(folder / "model.pt").state_dict()
    weights["visual.conv1.weight"] *= 0.5
    monkeypatch.setattr("cliplab.training.clip_evaluation.evaluate", lambda *_, count: count)
    save = partial(save_openai, weights, folder / "model.pt")
    recipe._publish(save, TINY, folder, 2)
    assert verify_checkpoint(folder)
    assert read_card(folder)["metrics"] == 2
