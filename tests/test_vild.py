"""ViLD: the arithmetic of its heads, the network, its files, and the recipe on a tiny scale."""

import pytest
import torch
import torch.nn.functional as F
from vild_world import rows, tiny

from cliplab.models.distillation import (
    distillation_loss,
    ensemble_geometric,
    text_logits,
    text_loss,
)
from cliplab.models.vild import (
    HEADS,
    Regions,
    ViLD,
    _as_image_list,
    class_scores,
    load_vild,
    save_vild,
)
from cliplab.models.weights import save_model

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


def test_words_may_come_in_another_precision() -> None:
    """Rows that scikit-learn or numpy made are float64."""
    region, text = rows(3), rows(4, seed=1)
    exact = text_logits(region, text, text[2], 0.01)
    torch.testing.assert_close(text_logits(region, text.double(), text[2], 0.01), exact)


def test_a_text_of_another_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="got 6 dimensions; expected 8, as the detector's regions"):
        text_logits(rows(3), rows(4, 6), torch.ones(8), 0.01)


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


def test_distillation_is_l1_summed_over_dimensions() -> None:
    student, teacher = torch.eye(4)[:2] * 3, torch.eye(4)[1:3]  # not unit: it is normalised
    assert distillation_loss(student, teacher).item() == 2
    assert distillation_loss(teacher, teacher).item() == 0
    a, b = rows(5), rows(5, seed=1)
    torch.testing.assert_close(distillation_loss(a, b), (a - b).abs().mean() * a.shape[1])
    assert distillation_loss(rows(0), rows(0)).item() == 0


def test_the_ensemble_is_a_cube_root() -> None:
    text, image = (torch.rand(6, 5, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    base = torch.tensor([True, False, True, False, False])
    both = ensemble_geometric(text, image, base)
    torch.testing.assert_close(both[:, 0], (text[:, 0] ** 2 * image[:, 0]) ** (1 / 3))
    torch.testing.assert_close(both[:, 1], (text[:, 1] * image[:, 1] ** 2) ** (1 / 3))


# ---- network -------------------------------------------------------------------------------


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
    torch.testing.assert_close(both, ensemble_geometric(by_text, no_background, base))
    with pytest.raises(ValueError, match="head: got 'crops'; expected one of text, image, ensem"):
        class_scores(model, regions, text, base, head="crops")


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
    save_model(tiny(), tmp_path / "kind.safetensors", "cliplab.glip", config={}, teacher={})
    for name in ("other", "kind"):
        with pytest.raises(ValueError, match="not a ViLD of this package"):
            load_vild(tmp_path / f"{name}.safetensors")
