"""Closed forms and refusals of the losses; values of the official code are in tests/parity."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplab.models.losses import clamp_logit_scale, clip_loss, siglip_loss, token_focal_loss

SCALE, BIAS = torch.tensor(14.0), torch.tensor(-10.0)


def unit_rows(n: int, d: int = 5, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=dtype), dim=-1)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_identical_rows_give_log_n(n: int) -> None:
    emb = unit_rows(1).expand(n, -1)
    torch.testing.assert_close(clip_loss(emb, emb, SCALE), torch.tensor(float(n)).log())


def test_groups_of_one_change_nothing() -> None:
    image, text = unit_rows(7), unit_rows(7, seed=1)
    groups = torch.tensor([4, 1, 9, 0, 2, 8, 3])
    torch.testing.assert_close(
        clip_loss(image, text, SCALE, groups=groups), clip_loss(image, text, SCALE)
    )


def test_captions_equal_to_the_letter_need_no_groups() -> None:
    """Cross-entropy is linear in its targets: equal rows share one gradient either way."""
    groups = torch.tensor([0, 1, 2, 0, 3, 0, 1])
    results = []
    for given in (None, groups):
        image = unit_rows(7, dtype=torch.float64).requires_grad_()
        captions = unit_rows(4, seed=1, dtype=torch.float64).requires_grad_()
        loss = clip_loss(image, captions[groups], SCALE, groups=given)
        results.append((loss.detach(), *torch.autograd.grad(loss, (image, captions))))
    for plain, grouped in zip(*results, strict=True):
        torch.testing.assert_close(plain, grouped)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_perfect_group_costs_the_log_of_its_size(size: int) -> None:
    emb = torch.eye(3).repeat_interleave(size, dim=0)  # 3 groups, images on their captions
    groups = torch.arange(3).repeat_interleave(size)
    loss = clip_loss(emb, emb, torch.tensor(100.0), groups=groups)
    assert loss.item() == pytest.approx(math.log(size), abs=1e-6)


def test_neither_autocast_nor_half_precision_touches_the_logits() -> None:
    image, text, scale = unit_rows(7).bfloat16(), unit_rows(7, seed=1).bfloat16(), SCALE * 7
    with torch.autocast("cpu", torch.bfloat16):
        losses = clip_loss(image, text, scale), siglip_loss(image, text, scale, BIAS)
    image, text = image.float(), text.float()
    assert losses == (clip_loss(image, text, scale), siglip_loss(image, text, scale, BIAS))
    assert {loss.dtype for loss in losses} == {torch.float32}


@pytest.mark.parametrize(
    ("start", "most", "end"), [(150.0, 100, 100.0), (14.3, 100, 14.3), (50.0, 20, 20.0)]
)
def test_clamp_lowers_what_is_above_and_leaves_the_rest(
    start: float, most: float, end: float
) -> None:
    log_scale = torch.nn.Parameter(torch.tensor(start).log())
    clamp_logit_scale(log_scale, max_scale=most)
    assert log_scale.exp().item() == pytest.approx(end, rel=1e-5)
    assert log_scale.requires_grad


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((4,), (4,)), ((0, 4), (0, 4))])
@pytest.mark.parametrize("tile", [None, 2])
def test_shapes_that_do_not_pair_are_refused(shapes: tuple[tuple, tuple], tile: int | None) -> None:
    image, text = (torch.zeros(shape) for shape in shapes)
    for loss, rest in ((clip_loss, (SCALE,)), (siglip_loss, (SCALE, BIAS))):
        with pytest.raises(ValueError, match=r"got shapes .*expected the same \(N, D\)"):
            loss(image, text, *rest, tile=tile)


@pytest.mark.parametrize("groups", [torch.zeros(2, dtype=torch.long), torch.zeros(3)])
@pytest.mark.parametrize("tile", [None, 2])
def test_groups_that_do_not_fit_are_refused(groups: Tensor, tile: int | None) -> None:
    with pytest.raises(ValueError, match=r"groups: got shape .*expected \(3,\) integers"):
        clip_loss(unit_rows(3), unit_rows(3), SCALE, groups=groups, tile=tile)


def test_token_focal_loss_of_one_pair() -> None:
    """Logit 0 is probability 1/2: 0.25 * (1/2)^2 * log 2 for a yes, 0.75 * ... for a no."""
    zero = torch.zeros(1, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yes, no = token_focal_loss(zero.bfloat16(), zero + 1), token_focal_loss(zero, zero)
    assert yes.item() == pytest.approx(math.log(2) / 16)
    assert no.item() == pytest.approx(3 * math.log(2) / 16)
