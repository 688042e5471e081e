"""How the shipped ViLD was made: herds, views, batches, losses, evaluation, and its card."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vild_world import rows, tiny

from cliplab.classification.zero_shot import build_classifier, templates
from cliplab.cli.main import read_recipe
from cliplab.detection.boxes import average_precision, coco_results
from cliplab.encoders import load_encoder
from cliplab.models.vild import HEADS, Regions, ViLD, load_vild
from cliplab.pasture import POSTURES, SPECIES
from cliplab.runtime import checkpoint_dir, read_card, sha256
from cliplab.training import vild as recipe, vild_evaluation as evaluation
from cliplab.training.cards import load_rows
from cliplab.training.vild_dataset import (
    BASE,
    CATEGORIES,
    GROUPS,
    NOVEL,
    UNSEEN,
    Views,
    ViLDBatches,
    ViLDDataset,
    draw_herds,
    load_herds,
    load_views,
    members,
    phrases,
)

VARIANTS = tuple(evaluation.HEADS_OF)


# ---- what is learned from ------------------------------------------------------------------


@pytest.fixture(scope="module")
def herds() -> ViLDDataset:
    return draw_herds("train", 6)


def test_each_category_is_in_one_group() -> None:
    assert sorted(BASE + NOVEL + UNSEEN) == sorted(CATEGORIES)
    assert len(set(BASE + NOVEL + UNSEEN)) == 20
    assert (len(BASE), len(NOVEL), len(UNSEEN)) == (12, 6, 2)
    # what is new is the pair, never a species or a posture
    for part, values in ((0, SPECIES), (1, POSTURES)):
        assert {c[part] for c in NOVEL} == set(values)
        assert all(sum(c[part] == v for c in BASE) >= 2 for v in values)
    assert phrases()[CATEGORIES.index(("sheep", "drinking"))] == "sheep drinking"


def test_novel_animals_are_present_without_boxes(herds) -> None:
    kinds = torch.cat(herds.labels)
    assert members("novel")[kinds].any()
    assert not members("unseen")[kinds].any()
    for i in range(len(herds)):
        boxes, labels = herds.labelled(i, members("base"))
        assert members("base")[labels].all()
        assert len(boxes) == len(labels) == int(members("base")[herds.labels[i]].sum())
    hidden = replace(herds, visible=[torch.zeros_like(v) for v in herds.visible])
    assert all(len(hidden.labelled(i, members("base"))[0]) == 0 for i in range(len(herds)))


def test_herds_are_drawn_once(tmp_path, monkeypatch, herds) -> None:
    first = load_herds(tmp_path, 6)
    monkeypatch.setattr("cliplab.training.vild_dataset.draw_herds", None)
    again = load_herds(tmp_path, 6)
    assert (again.images == herds.images).all()
    for name, one in product(("boxes", "labels", "visible"), (first, again)):
        pairs = zip(getattr(one, name), getattr(herds, name), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


class Teacher:
    """Embeds a crop by its mean colours in the corners; counts how often it is asked."""

    dim, name = 8, "corners"

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint, self.asked = fingerprint, 0
        self.provenance = {"spec": "corners", "sha256 model.pt": "cd34"}

    def encode_image(self, images, *, batch_size: int = 64, progress: bool = False) -> Tensor:
        self.asked += 1
        grids = [np.asarray(i.resize((2, 2)), np.float32)[..., :2].ravel() - 99 for i in images]
        return F.normalize(torch.from_numpy(np.stack(grids)), dim=-1)


def test_the_teacher_looks_once_and_another_looks_again(tmp_path, herds) -> None:
    first, second = Teacher("one"), Teacher("two")
    views = load_views(tmp_path, herds, herds.boxes, first)
    again = load_views(tmp_path, herds, herds.boxes, first)
    assert first.asked == 2  # 1x and 1.5x, once
    assert [e.shape for e in views.emb] == [(len(b), 8) for b in herds.boxes]
    assert torch.equal(torch.cat(again.emb), torch.cat(views.emb))
    load_views(tmp_path, herds, herds.boxes, second)
    assert second.asked == 2
    load_views(tmp_path, herds, [b + 1 for b in herds.boxes], first)
    assert first.asked == 4


def views_of(herds) -> Views:
    return Views(herds.boxes, [rows(len(b), seed=i) for i, b in enumerate(herds.boxes)])


def batches_of(herds, known: Tensor) -> ViLDBatches:
    return ViLDBatches(herds, known, 0, 2, views_of(herds), view_batch=3)


def test_a_batch_depends_on_its_step_alone(herds) -> None:
    make = batches_of(herds, members("base"))
    a, b, other = make(4), make(4), make(5)
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.view_emb, b.view_emb)
    assert not torch.equal(a.pixels, other.pixels)
    assert a.pixels.shape == (2, 3, 128, 171)
    assert 0 <= a.pixels.min() < a.pixels.max() <= 1
    assert len(a.view_emb) == sum(map(len, a.view_boxes))
    assert max(map(len, a.view_boxes)) <= 3


# ---- learning ------------------------------------------------------------------------------


def test_regions_are_matched_with_animals() -> None:
    model = tiny()
    true, labels = [torch.tensor([[10.0, 10, 40, 40]])], [torch.tensor([7])]
    proposals = [torch.tensor([[11.0, 10, 41, 40], [30, 30, 60, 60], [80, 80, 90, 90]])]
    found = recipe.sample_regions(model, proposals, true, labels)
    # the true box itself is offered too
    assert sorted(found.targets.tolist()) == [0, 0, 8, 8]
    animal = found.targets > 0
    moved = model.box_coder.decode(found.deltas, found.boxes).view(-1, 4)
    torch.testing.assert_close(moved[animal], true[0].expand(2, 4))


def test_a_picture_without_animals_is_all_background(herds) -> None:
    proposals = [torch.tensor([[11.0, 10, 41, 40], [30, 30, 60, 60]])]
    none = torch.zeros(0, dtype=torch.long)
    found = recipe.sample_regions(tiny(), proposals, [torch.zeros(0, 4)], [none])
    assert found.targets.tolist() == [0, 0]
    nothing = torch.zeros(20, dtype=torch.bool)
    given = tiny().train(), batches_of(herds, nothing)(0), rows(20, seed=3), members("base")
    parts = recipe.losses(*given, recipe.ViLDRecipe())
    assert parts["box"] == 0
    assert all(loss.isfinite() for loss in parts.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_learns_from_its_own(variant: str, herds) -> None:
    model = tiny(separate_heads=variant == "ensemble").train()
    chosen = recipe.ViLDRecipe(variant=variant)
    known = members("base", "novel") if variant == "supervised" else members("base")
    batch = batches_of(herds, known)(0)
    torch.manual_seed(0)
    parts = recipe.losses(model, batch, rows(20, seed=3), known, chosen)
    named = set() if variant == "image" else {"text"}
    distilled = set() if variant in ("text", "supervised") else {"distill"}
    assert set(parts) == {"propose", "box"} | named | distilled
    torch.stack(list(parts.values())).sum().backward()
    assert (model.background_emb.grad is not None) == (variant != "image")
    assert model.head.embed.weight.grad is not None
    assert model.image_head is None or model.image_head.embed.weight.grad.abs().sum() > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)


def test_the_evaluation_knows_a_perfect_detector(herds) -> None:
    text, model = rows(20, seed=3), tiny()
    model.background_emb.data = -text.sum(0)
    perfect = [
        Regions(b, torch.ones(len(b)), text[k], text[k])
        for b, k in zip(herds.boxes, herds.labels, strict=True)
    ]
    found = evaluation.detect(model, perfect, text)
    for one, boxes, labels in zip(found, herds.boxes, herds.labels, strict=True):
        best = one.above(0.9)
        assert sorted(best.labels.tolist()) == sorted(labels.tolist())
        assert len(best) == len(boxes)
    recall = evaluation.proposal_recall(model, perfect, herds, ["base", "novel"])
    assert recall["base"]["value"] == recall["novel"]["value"] == 1


def options(folder, *changes: str) -> recipe.Options:
    always = "--steps 1 --proposer-steps 1 --pictures 16 --test-pictures 4"
    return read_recipe("vild", *always.split(), "--work", str(folder), "--device", "cpu", *changes)


def test_the_command_writes_weights_and_their_card(tmp_path, monkeypatch) -> None:
    teacher, drawn = Teacher("texts"), []
    teacher.encode_text = lambda texts, **_: rows(len(texts), seed=len(texts))
    # Failures first: it is imported here, and would keep the teacher as what loads encoders.
    monkeypatch.setattr("cliplab.training.failures.add_failures", lambda *a: drawn.append(a))
    monkeypatch.setattr("cliplab.encoders.load_encoder", lambda *a, **k: teacher)
    recipe.run(options(tmp_path))
    folder = tmp_path / "seed0" / "ensemble" / "checkpoint"
    card = read_card(folder)
    assert load_vild(folder / "model.safetensors").config.embed_dim == teacher.dim
    assert "--variant ensemble --novel zero" in card["command"]
    assert card["teacher"] == recipe.identity_of(teacher)
    assert card["teacher"]["sha256 model.pt"] == "cd34"
    assert set(card["files"]) == {"model.safetensors"}
    assert card["categories"]["unseen"] == ["sheep lying down", "horse eating"]
    assert len(card["categories"]["novel"]) == 6
    assert drawn == [("vild", folder, 4)]
    assert set(card["metrics"]) >= {"recall", *HEADS, "unseen pairs"}
    # the proposer and the views are there: another variant does not look again
    asked = teacher.asked
    recipe.run(options(tmp_path, "--variant", "text", "--novel", "masked"))
    assert (tmp_path / "seed0" / "text-masked" / "checkpoint" / "model_card.json").is_file()
    assert teacher.asked == asked


# ---- the shipped detector ------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> dict:
    return read_card(checkpoint_dir("vild"))


@pytest.fixture(scope="module")
def shipped() -> ViLD:
    return load_vild(checkpoint_dir("vild") / "model.safetensors")


@pytest.fixture(scope="module")
def teacher():
    return load_encoder("pasture", device="cpu")


def test_the_teacher_is_the_shipped_clip(card: dict, shipped: ViLD, teacher) -> None:
    assert shipped.teacher == card["teacher"] == recipe.identity_of(teacher)
    assert shipped.teacher["sha256 model.pt"] == sha256(checkpoint_dir("clip-openai") / "model.pt")


def test_the_table_reaches_the_floors(card: dict) -> None:
    assert card["metrics"]["recall"]["base"]["value"] >= 0.95
    assert card["metrics"]["recall"]["novel"]["value"] >= 0.90
    rows = load_rows("vild")["rows"]
    seeds = rows["ensemble"]["seeds"]
    assert seeds == rows["text"]["seeds"] == rows["image"]["seeds"] == [0, 1, 2]
    assert rows["supervised"]["seeds"] == seeds
    for group in ("base", "novel"):
        own = rows["ensemble"][group]["ap50"][0]
        assert own == card["metrics"]["ensemble"][group]["ap50"]  # seed 0 is shipped
    ap50 = {name: {g: row[g]["ap50"] for g in ("base", "novel")} for name, row in rows.items()}
    for i in seeds:
        assert ap50["ensemble"]["novel"][i] >= 0.6 * ap50["supervised"]["novel"][i]
        assert ap50["ensemble"]["base"][i] >= 0.9 * ap50["supervised"]["base"][i]
        assert ap50["image"]["novel"][i] > ap50["text"]["novel"][i]
        assert ap50["text"]["base"][i] > ap50["image"]["base"][i]


def test_the_card_is_true(card: dict, shipped: ViLD, teacher) -> None:
    """Other pictures than the card's, and fewer of them."""
    herds = draw_herds("test", 80, start=900_000)
    regions = evaluation.find_regions(shipped, herds)
    text = build_classifier(teacher, phrases(), templates("pasture", "en"))
    results = coco_results(evaluation.detect(shipped, regions, text))
    groups = {name: GROUPS[name] for name in ("base", "novel")}
    found = average_precision(evaluation.truth_of(herds), results, groups)
    recall = evaluation.proposal_recall(shipped, regions, herds, list(groups))
    for name in groups:
        claimed = card["metrics"]["ensemble"][name]["ap50"]
        assert abs(found[name].ap50 - claimed) < 0.08, name
        assert recall[name]["low"] <= card["metrics"]["recall"][name]["value"]
        assert recall[name]["value"] > 0.95


def test_only_the_defaults_replace_what_is_shipped() -> None:
    default, work = recipe.ViLDRecipe(), Path("w")
    assert recipe.target_of(default, "pasture", work) == checkpoint_dir("vild")
    assert recipe.target_of(default, "openai:x.pt", work) == work / "ensemble/checkpoint"
    for changes in ({"steps": 1}, {"seed": 1}, {"pictures": 9}):
        other = replace(default, **changes)
        assert recipe.target_of(other, "pasture", work) == work / "ensemble/checkpoint"
