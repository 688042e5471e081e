"""ViLD: the arithmetic of its heads, the network, its files, and the recipe on a tiny scale."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.classification.zero_shot import build_classifier, templates
from cliplab.detection import average_precision, coco_results
from cliplab.encoders import load_encoder
from cliplab.models.distillation import (
    distillation_loss,
    ensemble_cube_root,
    ensemble_geometric,
    text_logits,
    text_loss,
)
from cliplab.models.vild import (
    HEADS,
    Regions,
    ViLD,
    ViLDConfig,
    _as_image_list,
    class_scores,
    load_vild,
    save_vild,
)
from cliplab.pasture import POSTURES, SPECIES
from cliplab.runtime import checkpoint_dir, sha256, write_json
from cliplab.training import vild as recipe
from cliplab.training import vild_evaluation as exam
from cliplab.training import vild_table
from cliplab.training.vild_dataset import (
    BASE,
    CATEGORIES,
    GROUPS,
    NOVEL,
    UNSEEN,
    Batches,
    Views,
    draw_flock,
    load_flock,
    load_views,
    members,
    mirror,
    phrases,
)

# 16 channels, not fewer: with 8, torch 2.15's CPU convolution crashes in the backward pass of
# pictures that lie channels last in memory.
TINY = ViLDConfig(
    embed_dim=8,
    widths=(16,) * 4,
    depths=(1, 1, 1),
    pyramid_width=16,
    head_channels=16,
    head_width=16,
    proposals=20,
)


def rows(n: int, d: int = 8, *, seed: int = 0) -> Tensor:
    """(n, d) unit rows."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator), dim=-1)


def tiny(**changes) -> ViLD:
    torch.manual_seed(0)
    return ViLD(replace(TINY, **changes))


# ---- arithmetic ----------------------------------------------------------------------------


def test_logits_are_cosines_over_tau_with_the_background_first() -> None:
    region, text = rows(3), rows(4, seed=1)
    background = 5 * text[2]  # any length: only its direction counts
    logits = text_logits(7 * region, text, background, 0.01)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(logits[:, 1:], 100 * region @ text.T)
    torch.testing.assert_close(logits[:, 0], logits[:, 3])


def test_logits_stay_exact_in_mixed_precision() -> None:
    region, text = rows(3), rows(4, seed=1)
    exact = text_logits(region, text, text[2], 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(text_logits(region, text, text[2], 0.01), exact)


def test_a_text_of_another_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="got 6 dimensions; expected 8, as the detector's regions"):
        text_logits(rows(3), rows(4, 6), torch.ones(8), 0.01)
    with pytest.raises(ValueError, match=r"expected equal shapes .*embed_dim = teacher.dim"):
        distillation_loss(rows(3), rows(3, 6))


def test_novel_logits_become_zero_or_leave_the_softmax() -> None:
    logits = torch.tensor([[0.3, 2.0, -1.0, 50.0]])  # background and three classes, the last novel
    known, target = torch.tensor([True, True, False]), torch.tensor([2])
    zero = text_loss(logits, target, known, novel="zero")
    masked = text_loss(logits, target, known, novel="masked")
    torch.testing.assert_close(
        zero, -torch.tensor([0.3, 2.0, -1.0, 0.0]).log_softmax(0)[2], rtol=1e-6, atol=0
    )
    torch.testing.assert_close(masked, F.cross_entropy(logits[:, :3], target))
    everything = text_loss(logits, target, torch.tensor([True] * 3))
    torch.testing.assert_close(everything, F.cross_entropy(logits, target))
    with pytest.raises(ValueError, match="novel: got 'drop'; expected one of zero, masked"):
        text_loss(logits, target, known, novel="drop")


@pytest.mark.parametrize("novel", ["zero", "masked"])
def test_a_novel_class_teaches_nothing(novel: str) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    known = torch.tensor([True, False, True])
    text_loss(logits, torch.tensor([0, 1, 3, 1, 0]), known, novel=novel).backward()
    assert logits.grad[:, 2].abs().max() == 0
    assert logits.grad[:, [0, 1, 3]].abs().min() > 0


def test_distillation_is_l1_summed_over_dimensions() -> None:
    student, teacher = torch.eye(4)[:2] * 3, torch.eye(4)[1:3]  # not unit: it is normalised
    assert distillation_loss(student, teacher).item() == 2
    assert distillation_loss(teacher, teacher).item() == 0
    a, b = rows(5), rows(5, seed=1)
    torch.testing.assert_close(distillation_loss(a, b), (a - b).abs().mean() * a.shape[1])
    assert distillation_loss(rows(0), rows(0)).item() == 0


def test_both_forms_of_the_ensemble_agree() -> None:
    text, image = (torch.rand(6, 5, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    base = torch.tensor([True, False, True, False, False])
    both = ensemble_geometric(text, image, base)
    torch.testing.assert_close(both, ensemble_cube_root(text, image, base))
    torch.testing.assert_close(both[:, 0], (text[:, 0] ** 2 * image[:, 0]) ** (1 / 3))
    torch.testing.assert_close(both[:, 1], (text[:, 1] * image[:, 1] ** 2) ** (1 / 3))
    assert torch.equal(ensemble_geometric(text, image, base, 1.0)[:, 0], text[:, 0])


# ---- network -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"widths": (4, 8)}, r"widths: got \(4, 8\); expected 4 numbers"),
        ({"depths": (1,)}, r"depths: got \(1,\); expected 3"),
        ({"temperature": 0}, "temperature: got 0; expected more"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(fault: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViLDConfig(**fault)


@pytest.mark.parametrize("separate", [True, False])
def test_regions_of_a_picture_of_any_size(separate: bool) -> None:
    model = tiny(separate_heads=separate).eval()
    found = model(torch.rand(2, 3, 50, 71, generator=torch.Generator().manual_seed(0)))
    assert len(found) == 2
    for one in found:
        count = len(one.boxes_xyxy)
        assert 0 < count <= 20
        assert one.text_emb.shape == one.image_emb.shape == (count, 8)
        torch.testing.assert_close(one.image_emb.norm(dim=1), torch.ones(count))
        assert one.boxes_xyxy.min() >= 0
        assert one.boxes_xyxy[:, 2].max() <= 71
        assert one.boxes_xyxy[:, 3].max() <= 50
        assert one.objectness.tolist() == sorted(one.objectness.tolist(), reverse=True)
        assert torch.equal(one.text_emb, one.image_emb) is not separate


def test_maps_have_whole_cells() -> None:
    maps, size = tiny().eval().maps(torch.rand(1, 3, 50, 71))
    assert size == (50, 71)
    assert [tuple(m.shape[-2:]) for m in maps.values()] == [(16, 20), (8, 10), (4, 5)]  # of 64, 80


def test_given_boxes_are_used_as_they_are() -> None:
    model = tiny().eval()
    pixels = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    mine = [torch.tensor([[3.0, 4, 30, 40]]), torch.zeros(0, 4)]
    first, second = model(pixels, mine)
    assert torch.equal(first.boxes_xyxy, mine[0])
    assert len(second.boxes_xyxy) == len(second.text_emb) == 0
    alone = model(pixels[:1], mine[:1])[0]
    torch.testing.assert_close(alone.text_emb, first.text_emb)


def test_proposals_are_those_of_torchvision() -> None:
    model = tiny().train()
    pixels = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    truth = [torch.tensor([[3.0, 4, 30, 40]]), torch.tensor([[20.0, 9, 60, 30], [1, 1, 18, 14]])]
    maps, size = model.maps(pixels)
    torch.manual_seed(3)
    boxes, _, loss = model.propose(maps, size, truth)
    levels = {name: maps[name] for name in ("1", "2")}
    torch.manual_seed(3)
    images = _as_image_list(maps["2"], size)
    theirs, parts = model.rpn(images, levels, [{"boxes": b} for b in truth])
    torch.testing.assert_close(loss, sum(parts.values()))
    for mine, other in zip(boxes, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    assert model.eval().propose(maps, size)[2].item() == 0


# ---- names ---------------------------------------------------------------------------------


def some_regions(model: ViLD, count: int = 6) -> Regions:
    boxes = torch.tensor([[10.0 * i, 0, 10 * i + 8, 8] for i in range(count)])
    objectness = torch.linspace(0.9, 0.1, count)
    return Regions(boxes, objectness, rows(count), rows(count, seed=1))


def test_each_head_answers_for_itself() -> None:
    model = tiny()
    regions, text, base = some_regions(model), rows(3, seed=2), torch.tensor([True, False, True])
    by_text, by_image, both = (
        class_scores(model, regions, text, base, head=head) for head in HEADS
    )
    background = F.normalize(model.background_emb.detach(), dim=0)
    logits = 100 * regions.text_emb @ torch.cat([background[None], text]).T
    torch.testing.assert_close(by_text, logits.softmax(1)[:, 1:])
    no_background = (100 * regions.image_emb @ text.T).softmax(1)
    torch.testing.assert_close(by_image**2, no_background * regions.objectness[:, None])
    torch.testing.assert_close(both, ensemble_cube_root(by_text, no_background, base))
    with pytest.raises(ValueError, match="head: got 'crops'; expected one of text, image, ensem"):
        class_scores(model, regions, text, base, head="crops")


def test_a_class_called_background_is_a_class() -> None:
    model = tiny()
    text = rows(2, seed=2)
    nothing = F.normalize(model.background_emb.detach(), dim=0)[None]
    regions = Regions(torch.zeros(2, 4), torch.ones(2), torch.cat([nothing, text[:1]]), rows(2))
    scores = class_scores(model, regions, text, torch.tensor([True, True]), head="text")
    assert scores.shape == (2, 2)  # the learned background has no column, whatever is asked for
    assert scores[0].sum() < 0.01
    assert scores[1].sum() > 0.99


# ---- files ---------------------------------------------------------------------------------


def test_weights_come_back(tmp_path) -> None:
    model = tiny().eval()
    model.teacher = {"name": "老师", "fingerprint": "ab12"}
    save_vild(model, tmp_path / "model.safetensors")
    again = load_vild(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert again.teacher == model.teacher
    assert not again.training
    pixels = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    mine = [torch.tensor([[3.0, 4, 30, 40]])]
    torch.testing.assert_close(
        again(pixels, mine)[0].text_emb, model(pixels, mine)[0].text_emb, atol=5e-3, rtol=0
    )


def test_weights_of_something_else_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load_vild(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a ViLD of this package"):
        load_vild(tmp_path / "other.safetensors")


# ---- what is learned from ------------------------------------------------------------------


@pytest.fixture(scope="module")
def flock():
    return draw_flock("train", 6)


def test_each_category_is_in_one_group() -> None:
    assert sorted(BASE + NOVEL + UNSEEN) == sorted(CATEGORIES)
    assert len(set(BASE + NOVEL + UNSEEN)) == 20
    assert (len(BASE), len(NOVEL), len(UNSEEN)) == (12, 6, 2)
    # what is new is the pair, never a species or a posture
    for part, values in ((0, SPECIES), (1, POSTURES)):
        assert {c[part] for c in NOVEL} == set(values)
        assert all(sum(c[part] == v for c in BASE) >= 2 for v in values)
    assert phrases()[CATEGORIES.index(("sheep", "drinking"))] == "sheep drinking"


def test_novel_animals_are_present_without_boxes(flock) -> None:
    kinds = torch.cat(flock.labels)
    assert members("novel")[kinds].any()
    assert not members("unseen")[kinds].any()
    for i in range(len(flock)):
        boxes, labels = flock.labelled(i, members("base"))
        assert members("base")[labels].all()
        assert len(boxes) == len(labels) == int(members("base")[flock.labels[i]].sum())


def test_animals_that_hardly_show_are_not_labelled(flock) -> None:
    hidden = replace(flock, visible=[torch.zeros_like(v) for v in flock.visible])
    assert all(len(hidden.labelled(i, members("base"))[0]) == 0 for i in range(len(flock)))


def test_herds_are_drawn_once(tmp_path, monkeypatch, flock) -> None:
    first = load_flock(tmp_path, 6)
    monkeypatch.setattr(
        "cliplab.training.vild_dataset.draw_flock", lambda *a, **k: pytest.fail("drawn")
    )
    again = load_flock(tmp_path, 6)
    assert (again.images == flock.images).all()
    for name in ("boxes", "labels", "visible"):
        for a, b, c in zip(*(getattr(f, name) for f in (first, again, flock)), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


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


def test_the_teacher_looks_once_and_another_looks_again(tmp_path, flock) -> None:
    first, second = Teacher("one"), Teacher("two")
    views = load_views(tmp_path, flock, flock.boxes, first)
    assert first.asked == 2  # 1x and 1.5x
    again = load_views(tmp_path, flock, flock.boxes, first)
    assert first.asked == 2
    assert [e.shape for e in views.emb] == [(len(b), 8) for b in flock.boxes]
    torch.testing.assert_close(
        torch.cat(again.emb), torch.cat(views.emb), atol=1e-3, rtol=0
    )  # kept in half precision
    load_views(tmp_path, flock, flock.boxes, second)
    assert second.asked == 2
    moved = [b + 1 for b in flock.boxes]
    load_views(tmp_path, flock, moved, first)
    assert first.asked == 4


def test_mirrored_boxes_follow_their_animals(flock) -> None:
    image, (x0, y0, x1, y1) = flock.images[0], flock.boxes[0][0].int().tolist()
    turned = mirror(flock.boxes[0], image.shape[1])
    assert torch.equal(mirror(turned, image.shape[1]), flock.boxes[0])
    a, b, c, d = turned[0].int().tolist()
    assert (image[:, ::-1][b:d, a:c] == image[y0:y1, x0:x1][:, ::-1]).all()


def views_of(flock) -> Views:
    return Views(flock.boxes, [rows(len(b), seed=i) for i, b in enumerate(flock.boxes)])


def batches_of(flock, known: Tensor) -> Batches:
    return Batches(flock, known, seed=0, batch=2, views=views_of(flock), view_batch=3)


def test_a_batch_depends_on_its_step_alone(flock) -> None:
    make = batches_of(flock, members("base"))
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


def test_a_picture_without_animals_is_all_background() -> None:
    proposals = [torch.tensor([[11.0, 10, 41, 40], [30, 30, 60, 60]])]
    none = ([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])
    found = recipe.sample_regions(tiny(), proposals, *none)
    assert found.targets.tolist() == [0, 0]
    assert found.deltas.isfinite().all()
    maps, size = tiny().maps(torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)))
    assert tiny().propose(maps, size, none[0])[2].isfinite()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_each_variant_learns_from_its_own(variant: str, flock) -> None:
    model = tiny(separate_heads=variant == "ensemble").train()
    chosen = recipe.Recipe(variant=variant)
    known = members("base", "novel") if variant == "supervised" else members("base")
    batch = batches_of(flock, known)(0)
    torch.manual_seed(0)
    parts = recipe.losses(model, batch, rows(20, seed=3), known, chosen)
    expected = {"propose", "box"}
    expected |= set() if variant == "image" else {"text"}
    expected |= {"distill"} & ({"distill"} if variant not in ("text", "supervised") else set())
    assert set(parts) == expected
    torch.stack(list(parts.values())).sum().backward()
    taught = {
        "background": model.background_emb.grad is not None,
        "embedding": model.head.embed.weight.grad is not None,
    }
    assert taught == {"background": variant != "image", "embedding": True}
    if model.image_head is not None:
        assert model.image_head.embed.weight.grad.abs().sum() > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)


def test_the_exam_knows_a_perfect_detector(flock) -> None:
    width, height = 171, 128
    text = rows(20, seed=3)
    model = tiny()
    model.background_emb.data = -text.sum(0)
    perfect = [
        Regions(b, torch.ones(len(b)), text[k], text[k])
        for b, k in zip(flock.boxes, flock.labels, strict=True)
    ]
    truth = exam.truth_of(flock)
    assert {(i["width"], i["height"]) for i in truth["images"]} == {(width, height)}
    found = exam.detect(model, perfect, text)
    for one, boxes, labels in zip(found, flock.boxes, flock.labels, strict=True):
        best = one.above(0.9)
        assert sorted(best.labels.tolist()) == sorted(labels.tolist())
        assert len(best) == len(boxes)
    recall = exam.proposal_recall(model, perfect, flock, ["base", "novel"])
    assert recall["base"]["value"] == recall["novel"]["value"] == 1


def options(tmp_path, *changes: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    always = ["--steps", "1", "--proposer-steps", "1", "--pictures", "16", "--test-pictures", "4"]
    return parser.parse_args([*always, "--work", str(tmp_path), "--device", "cpu", *changes])


def test_the_command_writes_weights_and_their_card(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "checkpoint_dir", lambda name: tmp_path / "shipped" / name)
    teacher = exam_teacher()
    monkeypatch.setattr("cliplab.encoders.load_encoder", lambda *a, **k: teacher)
    assert recipe.run(options(tmp_path)) == 0
    folder = tmp_path / "shipped" / "vild"
    card = json.loads((folder / "model_card.json").read_text("utf-8"))
    assert load_vild(folder / "model.safetensors").config.embed_dim == teacher.dim
    assert "--variant ensemble --novel zero" in card["command"]
    told_by = {"name": "corners", "fingerprint": "texts", "sha256 model.pt": "cd34"}
    assert card["teacher"] == told_by
    assert set(card["files"]) == {"model.safetensors"}
    assert card["categories"]["unseen"] == ["sheep lying down", "horse eating"]
    assert len(card["categories"]["novel"]) == 6
    assert set(card["metrics"]) >= {"recall", *HEADS, "unseen pairs", "teacher on true boxes"}
    # the proposer and the views are there: another variant does not look again
    asked = teacher.asked
    views = len(list((tmp_path / "views").iterdir()))
    assert recipe.run(options(tmp_path, "--variant", "text", "--novel", "masked")) == 0
    assert (tmp_path / "seed0" / "text-masked" / "checkpoint" / "model_card.json").is_file()
    assert len(list((tmp_path / "views").iterdir())) == views
    assert teacher.asked - asked == 4  # of the exam: two flocks, two crops


def exam_teacher() -> Teacher:
    """A teacher with texts, quick and of the dimension it likes."""
    teacher = Teacher("texts")
    teacher.encode_text = lambda texts, **_: rows(len(texts), seed=len(texts))
    return teacher


# ---- the table of all trainings ------------------------------------------------------------


def card_of(seed: int, variant: str = "text", novel: str = "zero", **changes) -> dict:
    """A model card with AP50 0.5 on base and 0.25 on novel kinds, plus a hundredth per seed."""
    scored = {
        g: dict.fromkeys(("ap50", "ap", "ar"), v + seed / 100)
        for g, v in (("base", 0.5), ("novel", 0.25))
    }
    heads = exam.HEADS_OF[variant]
    recall = {"base": {"value": 1.0}, "novel": {"value": 0.9}}
    return {
        "recipe": {"variant": variant, "novel": novel, "seed": seed, "steps": 5},
        "command": f"train {variant} {novel} {seed}",
        "teacher": {"fingerprint": "ab"},
        "metrics": {"pictures": 600, "recall": recall, **dict.fromkeys(heads, scored)},
    } | changes


def test_rows_hold_a_number_per_seed(tmp_path) -> None:
    cards = [card_of(1), card_of(0), card_of(0, "ensemble"), card_of(0, "text", "masked")]
    for i, card in enumerate(cards):
        write_json(tmp_path / str(i) / "model_card.json", card)
    assert vild_table.main([str(tmp_path), "--out", str(tmp_path / "rows.json")]) == 0
    table = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    rows = table["rows"]
    assert rows["text"]["seeds"] == [0, 1]
    assert rows["text"]["novel"]["ap50"] == [0.25, 0.26]
    assert rows["text"]["recall"] == {"base": [1.0, 1.0], "novel": [0.9, 0.9]}
    assert set(rows) == {"text", "text, masked", "ensemble"} | {
        f"ensemble: {head} head" for head in ("text", "image")
    }
    assert len(table["trainings"]) == 4


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([], "no model card found; train first"),
        ([card_of(0), card_of(0)], "row 'text': two cards of seed 0; expected one"),
        ([card_of(0), card_of(1, teacher={"fingerprint": "cd"})], "teacher: the cards have ab, cd"),
        (
            [card_of(0), card_of(1, recipe={"seed": 1, "steps": 9})],
            "steps: the cards have 5, 9; expected one value for all",
        ),
    ],
)
def test_cards_that_cannot_be_compared_make_no_table(cards: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vild_table.gather(cards)


# ---- the shipped detector ------------------------------------------------------------------


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((checkpoint_dir("vild") / "model_card.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def shipped() -> ViLD:
    return load_vild(checkpoint_dir("vild") / "model.safetensors")


@pytest.fixture(scope="module")
def teacher():
    return load_encoder("pasture", device="cpu")


def test_the_weights_are_those_of_the_card(card: dict) -> None:
    folder = checkpoint_dir("vild")
    assert {p.name for p in folder.iterdir()} == {*card["files"], "model_card.json", "rows.json"}
    assert all(sha256(folder / f) == digest for f, digest in card["files"].items())
    assert card["command"].startswith("python -m cliplab train vild --teacher pasture")


def test_the_teacher_is_the_shipped_clip(card: dict, shipped: ViLD, teacher) -> None:
    assert shipped.teacher == card["teacher"] == recipe.known_by(teacher)
    assert shipped.teacher["sha256 model.pt"] == sha256(checkpoint_dir("clip-openai") / "model.pt")


def test_the_card_reaches_the_floors(card: dict) -> None:
    metrics = card["metrics"]
    assert metrics["recall"]["base"]["value"] >= 0.95
    assert metrics["recall"]["novel"]["value"] >= 0.90
    assert metrics["teacher on true boxes"]["species"]["value"] >= 0.85
    assert metrics["teacher on true boxes"]["posture"]["value"] >= 0.85


def test_the_table_reaches_the_floors(card: dict) -> None:
    rows = vild_table.load_rows()["rows"]
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
    flock = draw_flock("test", 80, start=900_000)
    regions = exam.find_regions(shipped, flock)
    text = build_classifier(teacher, phrases(), templates("pasture", "en"))
    results = coco_results(exam.detect(shipped, regions, text))
    groups = {name: GROUPS[name] for name in ("base", "novel")}
    found = average_precision(exam.truth_of(flock), results, groups)
    recall = exam.proposal_recall(shipped, regions, flock, list(groups))
    for name in groups:
        claimed = card["metrics"]["ensemble"][name]["ap50"]
        assert abs(found[name].ap50 - claimed) < 0.08, name
        assert recall[name]["low"] <= card["metrics"]["recall"][name]["value"]
        assert recall[name]["value"] > 0.95
