"""Tiled losses: equal to the plain ones in value and gradient, and no table in memory."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cliplab.models.losses import clip_loss, siglip_loss
from cliplab.models.tiled_losses import multiply, softmax_table

GROUPS = torch.tensor([3, 1, 3, 2, 1, 3, 0, 2, 2, 3, 1])
N, D = len(GROUPS), 6
LOSSES = {
    "clip": lambda a, b, s, _, **how: clip_loss(a, b, s, **how),
    "groups": lambda a, b, s, _, **how: clip_loss(a, b, s, groups=GROUPS, **how),
    "siglip": siglip_loss,
}


def unit_rows(n: int, d: int = D, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1).to(
        dtype
    )


def inputs(
    n: int, d: int = D, *, scale: float = 100.0, near: float = 0.25, dtype: torch.dtype
) -> list[Tensor]:
    """Images, texts that resemble them (the nearer the more), scale and bias, as leaves."""
    image = unit_rows(n, d)
    text = F.normalize(near * image + unit_rows(n, d, seed=1), dim=-1)
    numbers = torch.tensor(scale, dtype=dtype), torch.tensor(-10.0, dtype=dtype)
    return [x.to(dtype).requires_grad_() for x in (image, text, *numbers)]


def value_and_gradients(loss: Callable[..., Tensor], leaves: list[Tensor], **how) -> list[Tensor]:
    """Loss, then its gradients in the order of the leaves (0 where one is not used)."""
    found = loss(*leaves, **how)
    grads = torch.autograd.grad(found, leaves, allow_unused=True, materialize_grads=True)
    return [found.detach(), *grads]


# ---- equal to the plain form -----------------------------------------------------------------


@pytest.mark.parametrize("near", [0.25, 10.0])  # early in training; late: the others are far off
@pytest.mark.parametrize("tile", [1, 4, 5, N, 99])
@pytest.mark.parametrize("name", LOSSES)
def test_equal_to_the_plain_form_whatever_the_tile(name: str, tile: int, near: float) -> None:
    leaves = inputs(N, near=near, dtype=torch.float64)
    plain = value_and_gradients(LOSSES[name], leaves)
    tiled = value_and_gradients(LOSSES[name], leaves, tile=tile)
    for found, expected in zip(tiled, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "products", "of_value", "of_gradient"),
    [
        (torch.float64, None, 1e-10, 1e-10),
        (torch.float32, None, 1e-5, 1e-5),
        (torch.float32, torch.bfloat16, 0.002, 0.01),
        (torch.bfloat16, None, 1e-5, 0.004),  # gradients are handed back in bfloat16
    ],
)
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_as_near_as_the_docstring_says(
    name: str, dtype: torch.dtype, products: torch.dtype, of_value: float, of_gradient: float
) -> None:
    """Relative errors against float64 on the same numbers, at the scale where training ends."""
    leaves = inputs(300, 64, dtype=dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    plain = value_and_gradients(LOSSES[name], exact)
    tiled = value_and_gradients(LOSSES[name], leaves, tile=128, products=products)
    assert tiled[0].dtype == torch.promote_types(dtype, torch.float32)
    assert [grad.dtype for grad in tiled[1:]] == [dtype] * 4
    assert (tiled[0] - plain[0]).abs() <= of_value * plain[0]
    for found, expected in zip(tiled[1:], plain[1:], strict=True):
        assert (found - expected).norm() <= of_gradient * expected.norm()


def test_a_block_has_gradients_for_each_of_its_results() -> None:
    """Rows, columns and right logits, each weighted alike nowhere."""
    image, text, scale, _ = inputs(5, dtype=torch.float64, scale=14.0)
    ids = {"image_ids": torch.tensor([2, 9, 4]), "text_ids": torch.arange(5)}
    assert torch.autograd.gradcheck(
        lambda *x: softmax_table(*x, tile=2, **ids), (image[:3], text, scale)
    )


def test_a_frozen_tower_gets_no_gradient_and_the_other_the_same() -> None:
    for frozen in range(3):
        leaves = inputs(N, dtype=torch.float64)[:3]
        expected = torch.autograd.grad(clip_loss(*leaves), leaves)
        leaves[frozen].requires_grad_(False)
        clip_loss(*leaves, tile=4).backward()
        assert leaves[frozen].grad is None
        for i in {0, 1, 2} - {frozen}:
            torch.testing.assert_close(leaves[i].grad, expected[i])


# ---- closed forms ----------------------------------------------------------------------------


def test_rows_that_point_away_from_everything_do_not_underflow() -> None:
    """Row 1 is opposite to both texts: its logits are -100 where its neighbour's are 100."""
    image = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    text, scale = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor(100.0)
    assert clip_loss(image, text, scale, tile=1).item() == pytest.approx(50 + math.log(2) / 2)
    assert clip_loss(image, text, scale, tile=1) == clip_loss(image, text, scale)


def test_bfloat16_products_are_products_of_rounded_numbers_summed_in_float32() -> None:
    a, b = (unit_rows(64, 96, seed=seed, dtype=torch.float32) for seed in (0, 1))
    found = multiply(a, b.T, torch.bfloat16)
    exact = a.bfloat16().double() @ b.bfloat16().double().T
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)
    assert (found - a @ b.T).abs().max() > 1e-4  # rounding is seen


# ---- memory ----------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest storage that any operation gave back."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.parametrize("products", [None, torch.bfloat16])
def test_no_table_is_ever_held(name: str, products: torch.dtype | None) -> None:
    leaves = inputs(256, 4, dtype=torch.float32)
    seen = {}
    for tile in (None, 32):
        with Largest() as largest:
            LOSSES[name](*leaves, tile=tile, products=tile and products).backward()
        seen[tile] = largest.elements
    assert seen == {None: 256 * 256, 32: 32 * 32}  # 32 * 32 = 256 * 4: no more than an input


def test_autocast_does_not_touch_the_tiles() -> None:
    leaves = inputs(N, dtype=torch.float32)
    expected = value_and_gradients(LOSSES["clip"], leaves, tile=4)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradients(LOSSES["clip"], leaves, tile=4)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_switch_of_the_products_is_put_back() -> None:
    """Torch's own, for what a CPU may compute float32 products in."""
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    multiply(unit_rows(3).float(), unit_rows(6).float(), torch.bfloat16)
    assert switch.fp32_precision == before
    with pytest.raises(RuntimeError):
        multiply(unit_rows(3).float(), unit_rows(5).float(), torch.bfloat16)
    assert switch.fp32_precision == before != "bf16"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tile": 0}, "tile: got 0; expected a whole number of 1 or more"),
        ({"tile": "all"}, "tile: got 'all'; expected a whole number"),
        ({"products": torch.bfloat16}, "tile: got None; .* and then no `products`"),
        ({"tile": 2, "products": torch.float16}, "products: got torch.float16; expected torch.bf"),
    ],
)
def test_tiles_and_products_that_cannot_be_are_refused(how: dict, message: str) -> None:
    leaves = inputs(3, dtype=torch.float32)
    for name in ("clip", "siglip"):
        with pytest.raises(ValueError, match=message):
            LOSSES[name](*leaves, **how)
