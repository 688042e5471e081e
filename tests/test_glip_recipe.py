"""How the shipped GLIP was made: pool, batches, training, exam, table, and the weights' card."""

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.cli.main import read_recipe
from cliplab.models.glip import (
    GLIP,
    GLIPConfig,
    chunks_of,
    load_glip,
    prepare,
)
from cliplab.models.glip.training import losses, targets_of
from cliplab.models.tokenizers import WordPieceTokenizer
from cliplab.models.vild import load_vild
from cliplab.pasture import SPECIES
from cliplab.pasture.grounding import Annotations, Words, say
from cliplab.pasture.scene import Dice
from cliplab.runtime import checkpoint_dir, read_card, sha256, write_json
from cliplab.training import glip as recipe, glip_dataset as dataset, glip_evaluation as evaluation
from cliplab.training.cards import load_rows

CPU = torch.device("cpu")
MIX = dataset.PromptMix((0.4, 0.3, 0.3))
PAIRS = replace(MIX, pairs=1)
COLOURS = dataset.PromptMix((1, 0, 0), levels=((("colour",), 1.0),), classes=14, untrue=0.5)
ROUNDS = tuple(
    recipe.Round(1e-3, 1, mix, batch=3) for mix in (MIX, MIX, COLOURS, MIX, PAIRS, PAIRS)
)
TINY = recipe.GLIPRecipe(pictures=6, steps=(2,) * 6)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch) -> None:
    monkeypatch.setattr(recipe, "ROUNDS", ROUNDS)


@pytest.fixture(scope="module")
def flock() -> dataset.GLIPDataset:
    return dataset.draw_herds("train", 6)


@pytest.fixture(scope="module")
def paired() -> dataset.GLIPDataset:
    return dataset.draw_few_kinds("train", 40, paired=True)


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(dataset.vocabulary(), 64)


@pytest.fixture(scope="module")
def config() -> GLIPConfig:
    return recipe.new_model(recipe.GLIPRecipe(start=""))[0].config


# ---- words ---------------------------------------------------------------------------------


def test_the_vocabulary_knows_every_prompt(flock, paired, tokenizer) -> None:
    batches = dataset.GLIPBatches(flock, tokenizer, GLIPConfig(), seed=0, batch=2, prompts=MIX)
    captions = [
        batches.say(annotated, Dice("words", i, j)).caption
        for i, annotated in enumerate(flock.annotations)
        for j in range(20)
    ]
    for i, annotated in enumerate(paired.annotations):
        captions += [one.caption for one in batches.say_twice(annotated, Dice("twice", i))]
    # The mark between the members of a Chinese series is no word of the vocabulary.
    spoken = " ".join(captions).replace("、", " ")
    assert tokenizer.unknown_token not in tokenizer.pieces(spoken)
    assert any("羊" in c for c in captions)
    assert any("left" in c for c in captions)
    assert any(" near " in c for c in captions)


def test_names_that_training_never_says_are_words_all_the_same(tokenizer) -> None:
    assert set(dataset.NAMED) | set(dataset.UNNAMED) == set(SPECIES)
    for language in dataset.LANGUAGES:
        for species in dataset.UNNAMED:
            assert tokenizer.coverage(say(Words(species), language)) == 1


# ---- pictures ------------------------------------------------------------------------------


def test_herds_come_back_from_their_files(tmp_path) -> None:
    drawn = dataset.load_herds(tmp_path, 3)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    again, fresh = dataset.load_herds(tmp_path, 3), dataset.draw_herds("train", 3)
    assert path.stat().st_mtime_ns == stamp  # read, not drawn
    assert (again.images == fresh.images).all()
    assert again.annotations == drawn.annotations == fresh.annotations
    assert again.first(2).annotations == fresh.annotations[:2]


def test_paired_herds_are_those_that_allow_a_pair(paired, tmp_path) -> None:
    every = dataset.draw_few_kinds("train", 40)
    kept = [
        s
        for i, s in enumerate(every.annotations)
        if dataset.pair_of(s, "en", Dice("paired", i), width=171)
    ]
    assert 0 < len(kept) < 40
    assert kept == paired.annotations
    assert every.width == 171
    first, again = (dataset.load_herds(tmp_path, 40, paired=True) for _ in range(2))
    assert first.annotations == again.annotations == kept
    assert (again.images == paired.images).all()
    with pytest.raises(ValueError, match="none of the herds allows a pair; draw more"):
        dataset.draw_few_kinds("train", 1, paired=True)


def test_pictures_are_prepared_as_the_detector_does(flock, config) -> None:
    from PIL import Image

    pixels, shape = prepare(Image.fromarray(flock.images[0]), config)
    assert shape == flock.images.shape[1:3]
    torch.testing.assert_close(dataset.normalised(flock.images[:1], config)[0], pixels)


# ---- batches -------------------------------------------------------------------------------


def batches_of(flock, tokenizer, config, **changes) -> dataset.GLIPBatches:
    given = {"seed": 0, "batch": 3, "prompts": MIX} | changes
    return dataset.GLIPBatches(flock, tokenizer, config, **given)


def test_a_batch_depends_on_its_step_alone(flock, tokenizer, config) -> None:
    make = batches_of(flock, tokenizer, config)
    a, b, other = make(4), make(4), make(5)
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.token_ids, b.token_ids)
    assert not torch.equal(a.pixels, other.pixels)
    assert a.pixels.shape == (3, 3, 128, 192)
    assert a.text_mask.sum(1).max() == a.text_mask.shape[1] <= config.max_tokens


def test_a_batch_comes_with_what_its_truth_asks_of_the_anchors(flock, tokenizer, config) -> None:
    torch.manual_seed(0)
    model, batch = GLIP(config, tokenizer).train(), batches_of(flock, tokenizer, config)(1).to(CPU)
    raw = model(batch.pixels, batch.token_ids, batch.text_mask)
    assert raw.sizes == config.cells(*batch.pixels.shape[2:])
    expected = losses(raw, targets_of(batch.truth, raw.sizes, config), batch.text_mask)
    assert losses(raw, batch.targets, batch.text_mask) == expected


def test_the_words_of_a_box_are_those_that_mean_it(flock, tokenizer, config) -> None:
    make = batches_of(flock, tokenizer, config)
    annotated = flock.annotations[0]
    said = make.say(annotated, Dice("words of a box"))
    (chunk,) = chunks_of(dataset.to_prompt(said), tokenizer)
    truth = dataset.truth_of(annotated, [said.things[k] for k in chunk.labels], chunk.positive)
    meant = sorted({i for things in said.things for i in things})
    assert truth.boxes_xyxy.tolist() == [list(annotated.things[i].box) for i in meant]
    for row, i in zip(truth.positive, meant, strict=True):
        phrases = [k for k, things in enumerate(said.things) if i in things]
        assert torch.equal(row, chunk.positive[phrases].any(0))
        assert row.any()


def test_a_list_that_is_too_long_is_asked_in_part(flock, tokenizer, config) -> None:
    """As the detector asks it; the boxes are those that this part speaks of."""
    make = batches_of(flock, tokenizer, config, prompts=dataset.PromptMix((1, 0, 0), classes=40))
    seen = set()
    for step in range(6):
        batch = make(step)
        assert batch.text_mask.sum(1).max() <= config.max_tokens
        generator = np.random.default_rng([0, step])
        chosen, mirrored = generator.choice(len(flock), 3, replace=False), generator.random(3) < 0.5
        for i, (picture, mirror) in enumerate(zip(chosen, mirrored, strict=True)):
            annotated = flock.annotations[picture]
            annotated = annotated.mirrored(flock.width) if mirror else annotated
            said = make.say(annotated, Dice("glip", 0, step, i))
            parts = chunks_of(dataset.to_prompt(said), tokenizer, config.max_tokens)
            ids = batch.token_ids[i, : batch.text_mask[i].sum()]
            (part,) = [p for p in parts if torch.equal(p.token_ids, ids)]
            seen.add((len(parts) > 1, parts.index(part) > 0))
            meant = {annotated.things[j].box for k in part.labels for j in said.things[k]}
            assert {tuple(box) for box in batch.truth[i].boxes_xyxy.tolist()} == meant
    assert (True, True) in seen  # not the first part alone


def test_a_picture_is_asked_twice_about_two_that_look_alike(
    flock, paired, tokenizer, config
) -> None:
    make = batches_of(
        flock, tokenizer, config, batch=5, prompts=replace(MIX, pairs=2), paired=paired
    )
    both = [m for s in paired.annotations for m in (s, s.mirrored(171))]
    known = {thing.box for annotated in both for thing in annotated.things}
    told = 0
    for step in range(8):
        batch = make(step)
        assert len(batch.pixels) == len(batch.truth) == 5
        for one, other in ((1, 2), (3, 4)):
            assert torch.equal(batch.pixels[one], batch.pixels[other])  # mirrored and lit alike
            texts = [batch.token_ids[i][batch.text_mask[i]].tolist() for i in (one, other)]
            assert texts[0] != texts[1]
            boxes = [
                {tuple(box) for box in batch.truth[i].boxes_xyxy.tolist()} for i in (one, other)
            ]
            assert boxes[0] | boxes[1] <= known
            told += boxes[0] != boxes[1]
    assert told == 16


def test_a_picture_without_a_pair_is_asked_twice_all_the_same(flock, tokenizer, config) -> None:
    make = batches_of(flock, tokenizer, config, prompts=PAIRS, paired=flock)
    lonely = Annotations(flock.annotations[0].things[:1], ())
    one, other = make.say_twice(lonely, Dice("lonely"))
    assert {one.family, other.family} <= {"list", "attributes"}


# ---- training ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(flock, paired, tmp_path_factory) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a whole training of all rounds, and its weights."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "ROUNDS", ROUNDS)
        model = recipe.train(TINY, flock, folder, CPU, paired=paired)
    return folder, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_an_interrupted_training_ends_like_another(
    flock, paired, whole, tmp_path, monkeypatch
) -> None:
    make = dataset.GLIPBatches.__call__

    def stop(self: dataset.GLIPBatches, step: int) -> dataset.GLIPBatch:
        if step == 1 and self.seed == 4000:
            raise KeyboardInterrupt
        return make(self, step)

    monkeypatch.setattr(recipe, "SAVE_EVERY", 1)
    monkeypatch.setattr(dataset.GLIPBatches, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(TINY, flock, tmp_path, CPU, paired=paired)
    monkeypatch.setattr(dataset.GLIPBatches, "__call__", make)
    again = recipe.train(TINY, flock, tmp_path, CPU, paired=paired).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole[1].items())


def test_the_training_starts_from_the_body_of_vild() -> None:
    model, _ = recipe.new_model(recipe.GLIPRecipe(seed=3))
    fresh, _ = recipe.new_model(recipe.GLIPRecipe(seed=3, start=""))
    body = load_vild(checkpoint_dir("vild") / "model.safetensors").backbone
    pixels = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.45) / 0.25
    seen = F.relu(body.stem(pixels))
    for model_map, stage in zip(model.eval().backbone.body(pixels), body.stages, strict=False):
        seen = stage(seen)
        torch.testing.assert_close(model_map, seen)
    assert not torch.allclose(fresh.eval().backbone.body(pixels)[0], model.backbone.body(pixels)[0])
    # all the rest is new, and the same whatever the body
    own, other = (m.head.dot_product_projection_text.weight for m in (model, fresh))
    assert torch.equal(own, other)


def test_the_first_layers_stay_as_they_were(whole) -> None:
    seen = load_vild(checkpoint_dir("vild") / "model.safetensors").backbone.state_dict()
    for name, tensor in seen.items():
        if name.startswith("stem."):
            frozen = name.replace("stem.", "backbone.body.stem.0.")
            assert torch.equal(whole[1][frozen], tensor), name
        elif name.startswith("stages.1.0.first.0."):
            moved = name.replace("stages.", "backbone.body.layers.")
            assert not torch.equal(whole[1][moved], tensor), name


def test_the_twin_has_no_fusion_and_the_same_batches(flock, paired, tokenizer) -> None:
    twins = [recipe.new_model(replace(TINY, fusion=fusion))[0] for fusion in (True, False)]
    assert [any("b_attn" in name for name in twin.state_dict()) for twin in twins] == [True, False]
    assert all(any("DyConv" in name for name in twin.state_dict()) for twin in twins)
    one, other = (
        dataset.GLIPBatches(flock, tokenizer, twin.config, 0, 3, PAIRS, paired)(1) for twin in twins
    )
    assert torch.equal(one.token_ids, other.token_ids)
    assert torch.equal(one.pixels, other.pixels)


def test_a_round_that_is_left_out_leaves_the_others_as_they_were(flock, whole, tmp_path) -> None:
    """So the table's rows of halfway are of the same trainings as the others."""
    early = replace(TINY, steps=(2, 2, 0, 0, 0, 0))
    half = recipe.train(early, flock, tmp_path, CPU).state_dict()
    assert {p.parent.name for p in tmp_path.rglob("state.pt")} == {"round-1", "round-2"}
    state = torch.load(whole[0] / "round-2" / "state.pt", weights_only=True)["model"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in half.items())
    again = recipe.train(early, flock, whole[0], CPU).state_dict()  # nothing is left to do
    assert all(torch.equal(tensor, again[name]) for name, tensor in half.items())


def test_a_training_with_other_rounds_is_not_resumed(flock, whole) -> None:
    with pytest.raises(ValueError, match="from a training with other rounds"):
        recipe.train(replace(TINY, steps=(3, 0, 0, 0, 0, 0)), flock, whole[0], CPU)
    with pytest.raises(ValueError, match="steps: got none in any round"):
        replace(TINY, steps=(0,) * 6)


def test_the_command_writes_weights_and_their_card(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "evaluate", lambda model, count: {"pictures": count})
    folder = tmp_path / "glip-no-fusion" / "seed0" / "round-6" / "checkpoint"
    write_json(folder / "rows.json", {})  # the table of all trainings, which is no part of one
    words = "--steps 0 0 1 0 0 1 --pictures 64 --test-pictures 3 --device cpu --no-fusion"
    options = read_recipe("glip", *words.split(), "--work", str(tmp_path))
    recipe.run(options)
    card = read_card(folder)
    assert load_glip(folder / "model.safetensors").tokenizer.vocab == dataset.vocabulary()
    assert read_recipe(*shlex.split(card["command"])[4:]).recipe == options.recipe
    weights = checkpoint_dir("vild") / "model.safetensors"
    assert card["started from"] == {"vild": sha256(weights)}
    assert card["metrics"] == {"pictures": 3}
    assert card["where it fails"]["of"] == 3
    assert card["trained on"] == f"cpu, {torch.get_num_threads()} threads"
    assert set(card["files"]) == {"model.safetensors"}


def test_only_the_defaults_are_shipped() -> None:
    """A trial of a few steps must not write over the weights of the repository."""
    default, work = recipe.GLIPRecipe(), Path("work")
    assert recipe.target_of(default, work) == checkpoint_dir("glip")
    twin = replace(default, fusion=False)
    assert recipe.target_of(twin, work) == checkpoint_dir("glip-no-fusion")
    for changes in ({"seed": 1}, {"pictures": 5}):
        assert recipe.target_of(replace(default, **changes), work) == work / "round-6/checkpoint"
    half = replace(default, steps=(2500, 800, 0, 0, 0, 0))
    assert recipe.target_of(half, work) == work / "round-2/checkpoint"


# ---- evaluation -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> dataset.GLIPDataset:
    """Some with pairs that look alike."""
    return dataset.draw_few_kinds("train", 40)


@pytest.mark.parametrize("family", ["attributes", "relation", "near"])
def test_the_evaluation_tells_right_boxes_from_wrong_ones(few, family: str, monkeypatch) -> None:
    asked = evaluation.ask_about(few, "zh", family)
    assert asked
    boxes = {
        True: [[one.annotated.things[i[0]].box for i in one.said.things] for one in asked],
        False: [[(0.0, 0.0, 3.0, 3.0)] * len(one.said.things) for one in asked],
    }
    for right, given in boxes.items():
        rows = iter([torch.tensor(some) for some in given])
        answer = partial(lambda rows, model, herds, some: [next(rows) for _ in some], rows)
        monkeypatch.setattr(evaluation, "best_boxes", answer)
        hits = evaluation.right_boxes(None, few, asked)
        assert hits == [[right] * len(one.said.phrases) for one in asked]


def test_truth_holds_each_animal_under_each_name_that_fits(flock) -> None:
    asked = (Words("sheep"), Words(), Words("", "", "white"), Words("pond"))
    truth = evaluation.truth_of(flock, asked, ["sheep", "animal", "white animal", "pond"])
    clear = [a for a in truth["annotations"] if not a["iscrowd"]]
    things = [t for annotated in flock.annotations for t in annotated.things]
    count = {k + 1: sum(t.fits(w) for t in things) for k, w in enumerate(asked)}
    found = {k: sum(a["category_id"] == k for a in clear) for k in count}
    assert found == count
    assert count[2] == sum(t.is_animal for t in things) > count[1] > 0
    ponds = sum(t.kind == "pond" for annotated in flock.annotations for t in annotated.hidden)
    assert len(truth["annotations"]) - len(clear) == ponds > 0
    none = evaluation.truth_of(dataset.GLIPDataset(flock.images[:0], []), asked, [*"abcd"])
    assert (none["images"], none["annotations"], len(none["categories"])) == ([], [], 4)


def test_a_relation_unsaid_keeps_its_phrase(flock) -> None:
    for one in evaluation.ask_about(flock, "en", "relation"):
        alone = evaluation._unsaid(one).said
        assert alone.caption == one.said.phrases[0] == alone.phrases[0]
        assert evaluation._alike(one) >= 2


def test_who_does_not_read_the_landmark_is_right_in_one_of_two(few, monkeypatch) -> None:
    """A grounder that gives both of a pair one answer, and then one that reads."""

    def blind(model, herds, asked: list[evaluation.Asked]) -> list[list[bool]]:
        firsts = [one.said.things[0] for one in asked[::2] for _ in range(2)]
        return [[one.said.things[0] == t, True] for one, t in zip(asked, firsts, strict=True)]

    def reads(model, herds, asked: list[evaluation.Asked]) -> list[list[bool]]:
        return [[True, True]] * len(asked)

    for answer, each, both in ((blind, 0.5, 0), (reads, 1, 1)):
        monkeypatch.setattr(evaluation, "right_boxes", answer)
        row = evaluation.near_rows(None, few, "zh")
        assert (row["each"]["value"], row["both"]["value"]) == (each, both)
        assert row["each"]["n"] == 2 * row["both"]["n"] > 0
        assert 0 < row["chance"] <= 0.5


def test_an_untrained_model_is_evaluated_whole(flock, tokenizer, config) -> None:
    torch.manual_seed(0)
    model = GLIP(config, tokenizer).eval()
    model.head.bias0.data.fill_(-9.0)  # finds nothing, so that this is quick
    report = evaluation.evaluate(model, count=2)
    assert set(report["detection"]) == set(report["grounding"]) == {"seen", "held-out"}
    for language in dataset.LANGUAGES:
        assert set(report["detection"]["seen"][language]) == set(evaluation.LEVELS)
        assert report["detection"]["seen"][language]["species"]["ap50"] == 0
        by_name = report["species without a name"][language]["AP50 by name"]
        assert set(by_name) <= set(dataset.UNNAMED)
        assert set(by_name.values()) <= {0}


# ---- what was shipped ----------------------------------------------------------------------

LANGUAGES = dataset.LANGUAGES


def of(row: str, *path: str) -> list[Any]:
    """A number, or a rate, of every training in a row and either language ("*" in the path)."""
    found = []
    for metrics in load_rows("glip")["rows"][row]["metrics"]:
        for language in LANGUAGES:
            part = metrics
            for key in path:
                part = part[language if key == "*" else key]
            found.append(part)
    return found


def test_what_is_said_of_all_trainings_is_in_their_rows() -> None:
    for row in ("fusion", "no fusion"):
        assert min(of(row, "detection", "seen", "*", "species", "ap50")) >= 0.90
        assert min(of(row, "detection", "held-out", "*", "species", "ap50")) >= 0.70
        assert min(of(row, "detection", "seen", "*", "colour", "ap50")) >= 0.90
    assert min(r["value"] for r in of("fusion", "grounding", "seen", "*", "attributes")) >= 0.90
    related, apart = (of(r, "grounding", "seen", "*", "relation") for r in ("fusion", "no fusion"))
    assert min(rate["value"] for rate in related) >= 0.90
    assert all(r["low"] > a["high"] + 0.05 for r, a in zip(related, apart, strict=True))
    assert max(of("fusion, halfway", "detection", "seen", "*", "colour", "ap50")) < 0.5
    assert min(of("no fusion, halfway", "detection", "seen", "*", "colour", "ap50")) >= 0.90
    assert min(rate["low"] for rate in of("fusion", "near", "*", "each")) > 0.5
    near, blind = (of(row, "near", "*", "both") for row in ("fusion", "no fusion"))
    assert min(rate["low"] for rate in near) > max(rate["high"] for rate in blind) + 0.2


def test_the_first_rows_are_the_shipped_models() -> None:
    rows = load_rows("glip")["rows"]
    assert all(row["seeds"] == [0, 1, 2] for row in rows.values())
    for row, name in (("fusion", "glip"), ("no fusion", "glip-no-fusion")):
        card = read_card(checkpoint_dir(name))
        assert rows[row]["metrics"][0] == card["metrics"]


def test_the_shipped_model_finds_what_it_is_asked_for() -> None:
    flock = dataset.draw_herds("test", 12, start=2_300_000)
    shipped = load_glip(checkpoint_dir("glip") / "model.safetensors")
    row = evaluation.ap_row(shipped, flock, evaluation.LEVELS["species"], "en")
    assert row["ap50"] > 0.8
    assert evaluation.relation_rows(shipped, flock, "en")["relation"]["value"] > 0.6
