"""Closed forms and invariances of the losses; values of the official code are in tests/parity."""

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


def test_a_single_pair_has_nothing_to_tell_apart() -> None:
    assert clip_loss(unit_rows(1), unit_rows(1, seed=1), SCALE).item() == 0


@pytest.mark.parametrize("n", [2, 7])
def test_infonce_equals_the_loop_over_rows_and_columns(n: int) -> None:
    image, text = unit_rows(n), unit_rows(n, seed=1)
    total = 0.0
    for i in range(n):
        row = [SCALE.item() * float(image[i] @ text[j]) for j in range(n)]
        column = [SCALE.item() * float(image[j] @ text[i]) for j in range(n)]
        for logits in (row, column):
            total += math.log(sum(math.exp(z) for z in logits)) - logits[i]
    assert clip_loss(image, text, SCALE).item() == pytest.approx(total / (2 * n), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_siglip_equals_the_loop_over_cells(n: int) -> None:
    image, text = unit_rows(n), unit_rows(n, seed=1)
    total = 0.0
    for i in range(n):
        for j in range(n):
            logit = SCALE.item() * float(image[i] @ text[j]) + BIAS.item()
            total += math.log1p(math.exp(-logit if i == j else logit))
    assert siglip_loss(image, text, SCALE, BIAS).item() == pytest.approx(total / n, rel=1e-5)


def test_losses_ignore_the_order_of_the_pairs_and_which_tower_is_which() -> None:
    image, text, order = unit_rows(7), unit_rows(7, seed=1), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for loss in (lambda a, b: clip_loss(a, b, SCALE), lambda a, b: siglip_loss(a, b, SCALE, BIAS)):
        expected = loss(image, text)
        torch.testing.assert_close(loss(image[order], text[order]), expected)
        torch.testing.assert_close(loss(text, image), expected)
        assert loss(image, text[order]) != pytest.approx(expected.item(), rel=1e-3)


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


def test_groups_stop_paraphrases_from_pushing_each_other_away() -> None:
    """Two captions say the same of both images: once grouped, their rows pull, not push."""
    image = unit_rows(3, dtype=torch.float64)
    text = unit_rows(3, seed=1, dtype=torch.float64)
    pull = {}
    for name, groups in (("pairs", None), ("groups", torch.tensor([0, 0, 1]))):
        leaf = text.clone().requires_grad_()
        clip_loss(image, leaf, SCALE, groups=groups).backward()
        pull[name] = (-leaf.grad[1] @ image[0]).item()  # of image 0 on the other's paraphrase
    assert pull["groups"] > pull["pairs"]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_perfect_group_costs_the_log_of_its_size(size: int) -> None:
    emb = torch.eye(3).repeat_interleave(size, dim=0)  # 3 groups, images on their captions
    groups = torch.arange(3).repeat_interleave(size)
    loss = clip_loss(emb, emb, torch.tensor(100.0), groups=groups)
    assert loss.item() == pytest.approx(math.log(size), abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_gradients_are_right_and_finite(scale: float) -> None:
    def leaf(tensor: Tensor) -> Tensor:
        return tensor.double().requires_grad_()

    image, text = leaf(unit_rows(3)), leaf(unit_rows(3, seed=1))
    scale_leaf, bias = leaf(torch.tensor(scale)), leaf(BIAS.clone())
    groups = torch.tensor([0, 1, 0])
    assert torch.autograd.gradcheck(clip_loss, (image, text, scale_leaf))
    assert torch.autograd.gradcheck(
        lambda *x: clip_loss(*x, groups=groups), (image, text, scale_leaf)
    )
    assert torch.autograd.gradcheck(siglip_loss, (image, text, scale_leaf, bias))


def test_autocast_does_not_touch_the_logits() -> None:
    image, text, scale = unit_rows(7), unit_rows(7, seed=1), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = clip_loss(image, text, scale), siglip_loss(image, text, scale, BIAS)
    assert losses == (clip_loss(image, text, scale), siglip_loss(image, text, scale, BIAS))


def test_half_precision_embeddings_give_a_float32_loss() -> None:
    image, text = unit_rows(7).bfloat16(), unit_rows(7, seed=1).bfloat16()
    loss = clip_loss(image, text, SCALE)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, clip_loss(image.float(), text.float(), SCALE))


@pytest.mark.parametrize(("start", "expected"), [(150.0, 100.0), (100.0, 100.0), (14.3, 14.3)])
def test_clamp_lowers_what_is_above_and_leaves_the_rest(start: float, expected: float) -> None:
    log_scale = torch.nn.Parameter(torch.tensor(start).log())
    clamp_logit_scale(log_scale)
    assert log_scale.exp().item() == pytest.approx(expected, rel=1e-5)
    assert log_scale.requires_grad


def test_clamp_takes_another_ceiling_but_no_absurd_one() -> None:
    log_scale = torch.nn.Parameter(torch.tensor(50.0).log())
    clamp_logit_scale(log_scale, max_scale=20)
    assert log_scale.exp().item() == pytest.approx(20, rel=1e-5)
    with pytest.raises(ValueError, match="max_scale: got 0; expected a positive number"):
        clamp_logit_scale(log_scale, max_scale=0)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((4,), (4,)), ((0, 4), (0, 4))]
)
def test_shapes_that_do_not_pair_are_refused(shapes: tuple[tuple, tuple]) -> None:
    image, text = (torch.zeros(shape) for shape in shapes)
    for loss in (
        lambda: clip_loss(image, text, SCALE),
        lambda: siglip_loss(image, text, SCALE, BIAS),
    ):
        with pytest.raises(ValueError, match=r"got shapes .*expected the same \(N, D\)"):
            loss()


@pytest.mark.parametrize(
    "groups", [torch.zeros(2, dtype=torch.long), torch.zeros(3), torch.zeros(3, 3).long()]
)
def test_groups_that_do_not_fit_are_refused(groups: Tensor) -> None:
    with pytest.raises(ValueError, match=r"groups: got shape .*expected \(3,\) integers"):
        clip_loss(unit_rows(3), unit_rows(3), SCALE, groups=groups)


# ---- focal loss on tokens --------------------------------------------------------------------


def pairs(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and whole targets (2, 5, 4)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 4, generator=generator)
    return logits, (torch.rand(2, 5, 4, generator=generator) > 0.7).float()


def test_token_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, targets = pairs()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    found = token_focal_loss(logits, targets, alpha=-1.0, gamma=0.0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        token_focal_loss(logits, targets, alpha=0.5, gamma=0.0), expected / 2
    )


def test_token_focal_loss_of_one_pair() -> None:
    """Logit 0 is probability 1/2: 0.25 * (1/2)^2 * log 2 for a yes, 0.75 * ... for a no."""
    zero = torch.zeros(1, 1, 1)
    assert token_focal_loss(zero, zero + 1).item() == pytest.approx(math.log(2) / 16)
    assert token_focal_loss(zero, zero).item() == pytest.approx(3 * math.log(2) / 16)


def test_token_focal_loss_is_deaf_to_padding() -> None:
    logits, targets = pairs()
    logits.requires_grad_()
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    loss = token_focal_loss(logits, targets, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    real = mask[:, None].expand_as(logits)
    assert not gradient[~real].any()
    assert gradient[real].all()
    cut = token_focal_loss(logits[1:, :, :1], targets[1:, :, :1])
    rest = token_focal_loss(logits[:1, :, [0, 1, 3]], targets[:1, :, [0, 1, 3]])
    torch.testing.assert_close(loss, cut + rest)


def test_token_focal_loss_is_computed_in_float32_under_autocast() -> None:
    logits, targets = pairs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = token_focal_loss(logits.bfloat16(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, token_focal_loss(logits.bfloat16().float(), targets))


@pytest.mark.parametrize(
    ("logits", "targets", "mask"),
    [
        ((2, 5, 4), (2, 5, 3), None),
        ((5, 4), (5, 4), None),
        ((2, 5, 4), (2, 5, 4), (2, 5)),
    ],
)
def test_token_focal_loss_refuses(logits: tuple, targets: tuple, mask: tuple | None) -> None:
    real = None if mask is None else torch.ones(mask)
    with pytest.raises(ValueError, match=r"expected .*\((B, A, L|B, L)\)"):
        token_focal_loss(torch.zeros(logits), torch.zeros(targets), real)
