"""The recipe: schedules, resuming, words, and the shipped checkpoints against their cards."""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cliplab.encoders import load_encoder
from cliplab.models.tokenizers import BytePairTokenizer
from cliplab.pasture import COMBOS, caption, class_phrase, portrait
from cliplab.runtime import checkpoint_dir, sha256
from cliplab.training import clip as recipe
from cliplab.training.clip_dataset import augment, load_pool, to_pixels
from cliplab.training.clip_evaluation import answer, exam_pictures, examine, retrieval
from cliplab.training.loop import Ahead, Run, Schedule, adamw, devices_of, fit, learning_rate

TINY = recipe.Recipe(
    portraits=24, crops=8, batch=8, width=2, text_width=64, text_layers=1, embed_dim=16,
    steps=4, locked_steps=3, joint_steps=2,
)  # fmt: skip
CPU = torch.device("cpu")


# ---- training ------------------------------------------------------------------------------


def test_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(steps=100, lr=0.1, warmup=10)
    rates = [learning_rate(s, schedule) for s in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_only_matrices_decay() -> None:
    layer = nn.Linear(3, 2)
    matrices, others = adamw(layer.parameters(), Schedule(steps=1)).param_groups
    assert matrices["params"][0] is layer.weight
    assert others["params"][0] is layer.bias
    assert others["weight_decay"] == 0 < matrices["weight_decay"]


def line(folder: Path, steps: int, *, save_every: int = 2, stop: int | None = None) -> torch.Tensor:
    """Fit a line; `stop` raises Ctrl-C at that step."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def loss_of(step: int) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    schedule = Schedule(steps=steps, lr=0.05, warmup=2)
    fit(model, loss_of, schedule, Run(folder, {"steps": steps}), save_every=save_every)
    return model.weight.detach()


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path) -> None:
    whole = line(tmp_path / "whole", 30)
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "halves", 30, stop=17)
    assert torch.equal(line(tmp_path / "halves", 30), whole)
    lines = [json.loads(x) for x in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == [20]


def test_a_log_names_every_machine_that_did_a_step(tmp_path) -> None:
    """A training may be begun on one machine and ended on another."""
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "a", 30, stop=17)
    log = tmp_path / "a" / "log.jsonl"
    log.write_text(log.read_text().replace("cpu", "GPU"))
    for _ in range(2):
        line(tmp_path / "a", 30)  # the second time there is nothing left to do
    here = f"cpu, {torch.get_num_threads()} threads"
    assert log.read_text().count("trained on") == 2
    assert devices_of([tmp_path / "a"]) == [here.replace("cpu", "GPU"), here]
    line(tmp_path / "b", 4)
    assert devices_of([tmp_path / "b", tmp_path / "a"]) == [here, here.replace("cpu", "GPU")]


def test_a_state_of_other_settings_is_refused(tmp_path) -> None:
    line(tmp_path, 4)
    with pytest.raises(ValueError, match=r"other steps: remove the folder to start anew"):
        line(tmp_path, 6)


def test_a_loss_that_explodes_stops_the_training(tmp_path) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        fit(
            model, lambda step: model.weight.sum() * torch.nan, Schedule(steps=1), Run(tmp_path, {})
        )


# ---- pictures and words --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return load_pool(folder, portrait_count=TINY.portraits, crop_count=TINY.crops)


def test_pool_knows_what_each_picture_shows(pool) -> None:
    assert pool.images.shape == (32, 64, 64, 3)
    assert pool.is_crop.sum() == 8
    assert pool.caption(3, "en", 5) == caption(portrait(3), "en", 5)
    assert pool.caption(30, "zh", 1)


def test_a_drawn_pool_is_read_not_drawn_again(tmp_path, monkeypatch) -> None:
    first = load_pool(tmp_path, portrait_count=6, crop_count=0)
    monkeypatch.setattr(
        "cliplab.training.clip_dataset.in_parallel", lambda *a, **k: pytest.fail("drawn")
    )
    again = load_pool(tmp_path, portrait_count=6, crop_count=0)
    assert (first.images == again.images).all()


def test_augmentation_changes_pixels_only(pool) -> None:
    out = augment(pool.images, np.random.default_rng(0))
    assert out.shape == pool.images.shape
    assert out.dtype == np.uint8
    assert not (out == pool.images).all()
    pixels = to_pixels(np.full((1, 64, 64, 3), 255, np.uint8), CPU)
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([1.93, 2.07, 2.15], abs=0.01)


def test_batches_depend_on_step_and_seed_alone(pool) -> None:
    batches = recipe.Batches(pool, "en", TINY, CPU)
    pixels, texts = batches(7)
    again, same = recipe.Batches(pool, "en", TINY, CPU)(7)
    assert torch.equal(pixels, again)
    assert texts == same
    assert batches(8)[1] != texts


def test_compact_vocabulary_keeps_the_end_token_highest() -> None:
    words = recipe.CompactVocabulary(BytePairTokenizer())
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
    words = recipe.CompactVocabulary(BytePairTokenizer())
    trained = torch.randn(len(words.official), 8)
    rows = words.scatter({"token_embedding.weight": trained})["token_embedding.weight"]
    assert rows.shape == (49408, 8)
    assert torch.equal(rows[words.official], trained)
    others = torch.ones(49408, dtype=torch.bool)
    others[words.official] = False
    assert not rows[others].any()


def test_the_recipe_makes_files_that_both_loaders_read(pool, tmp_path) -> None:
    english = recipe.train_english(TINY, pool, tmp_path / "en", CPU)
    chinese = recipe.train_chinese(TINY, pool, english, tmp_path / "zh", CPU)
    picture = [portrait_image()]
    for ours, official, text in (
        (recipe_encoder(english), f"openai:{english}", "a white sheep"),
        (recipe_encoder(chinese), f"modelscope:{chinese}", "一只白羊"),
    ):
        theirs = load_encoder(official)
        torch.testing.assert_close(
            ours.encode_image(picture), theirs.encode_image(picture), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            ours.encode_text([text]), theirs.encode_text([text]), atol=1e-5, rtol=0
        )


def portrait_image():
    from cliplab.pasture import draw

    return draw(portrait(0, split="test"), 64)


def recipe_encoder(path: Path):
    from cliplab.encoders import read_modelscope, read_openai

    read = read_modelscope if path.is_dir() else read_openai
    return read(path, name="made", device=CPU)


def test_command_line_defaults_are_the_recipe() -> None:
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    args = parser.parse_args([])
    assert (args.steps, args.portraits, args.crops, args.seed) == (
        recipe.Recipe.steps, recipe.Recipe.portraits, recipe.Recipe.crops, recipe.Recipe.seed,
    )  # fmt: skip


# ---- shipped checkpoints -------------------------------------------------------------------

SHIPPED = {"clip-openai": ("pasture", "en"), "clip-chinese": ("pasture-zh", "zh")}


def model_card(name: str) -> dict:
    return json.loads((checkpoint_dir(name) / "model_card.json").read_text("utf-8"))


@pytest.mark.parametrize("name", SHIPPED)
def test_files_are_those_of_the_card(name: str) -> None:
    card = model_card(name)
    found = {p.name for p in checkpoint_dir(name).iterdir()} - {"model_card.json"}
    assert found == set(card["files"])
    assert all(sha256(checkpoint_dir(name) / f) == h for f, h in card["files"].items())
    assert card["command"].startswith("python -m cliplab train clip")


FLOORS = [
    ("triples", "posture", 0.95),
    ("triples", "species", 0.92),
    ("triples", "joint", 0.88),
    ("seen", "joint", 0.97),
    ("sheep lying", "posture", 0.95),
]


@pytest.mark.parametrize(("group", "question", "floor"), FLOORS)
def test_the_card_reaches_the_floors(group: str, question: str, floor: float) -> None:
    metrics = model_card("clip-openai")["metrics"]
    ensemble, bare = (metrics[group][w][question]["value"] for w in ("ensemble", "bare"))
    assert ensemble >= floor
    assert bare >= ensemble - 0.03
    chinese = model_card("clip-chinese")["metrics"][group]["ensemble"][question]["value"]
    assert chinese >= ensemble - 0.05


def test_the_card_reaches_the_floor_of_retrieval() -> None:
    assert model_card("clip-openai")["metrics"]["retrieval"]["image_to_text_r1"]["value"] >= 0.88


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_true(name: str) -> None:
    """Other pictures than the card's, fewer of them: the card's rate must lie in the interval."""
    spec, language = SHIPPED[name]
    encoder, card = load_encoder(spec), model_card(name)["metrics"]
    pictures = exam_pictures("triples", 300, skip=50_000)
    image_emb = encoder.encode_image(pictures.pil())
    found = answer(encoder, image_emb, pictures, language=language, wording=("{}",))
    for question in ("species", "posture", "joint"):
        measured, claimed = getattr(found, question), card["triples"]["bare"][question]["value"]
        assert measured.low - 0.02 <= claimed <= measured.high + 0.02, question


def test_the_english_model_is_lost_in_chinese() -> None:
    card = model_card("clip-openai")["metrics with zh prompts"]
    assert card["seen"]["bare"]["posture"]["value"] < 0.35  # chance is 0.25
    assert card["seen"]["bare"]["joint"]["value"] < 0.05  # chance is 0.0125


def test_examination_of_a_guesser_is_chance() -> None:
    class Guesser:
        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(0)

        def encode_image(self, images, **options):
            rows = torch.randn(len(list(images)), 32, generator=self.generator)
            return nn.functional.normalize(rows, dim=-1)

        encode_text = encode_image

    report = examine(Guesser(), "en", count=200)
    assert report["seen"]["bare"]["posture"]["value"] == pytest.approx(0.25, abs=0.12)
    assert report["seen"]["bare"]["joint"]["value"] < 0.07
    assert retrieval(Guesser(), "en", count=64)["image_to_text_r1"]["value"] < 0.12


def test_batches_drawn_ahead_are_those_of_their_steps() -> None:
    here, there = Ahead(_draw, 0), Ahead(_draw, 2)
    state = torch.get_rng_state()
    for step in range(5, 12):  # a resumed training starts anywhere
        mine, theirs = here(step), there(step)
        assert torch.equal(mine["pixels"], theirs["pixels"])
        assert theirs["texts"] == [f"step {step}"]
    assert torch.equal(torch.get_rng_state(), state)  # of the model
    assert mine["process"] == os.getpid() != theirs["process"]
    with pytest.raises(ValueError, match="step: got 3; expected 12, the one after the last"):
        there(3)


def _draw(step: int) -> dict:
    return {"pixels": torch.full((2,), step), "texts": [f"step {step}"], "process": os.getpid()}
