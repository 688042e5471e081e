"""Refining scores: the formula pixel by pixel, what it keeps, and borders that find the edge."""

import pytest
import torch
from torch import Tensor

from cliplab.segmentation import refine


def draw(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, height, width, generator=generator)


def slowly(scores: Tensor, image: Tensor, steps: int) -> Tensor:
    """The formula in words, one pixel after another: (K, H, W) and (3, H, W) -> (K, H, W)."""
    _, height, width = image.shape
    ways = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    apart = [(reach * y, reach * x) for reach in (1, 2, 4, 8) for y, x in ways]
    for _ in range(steps):
        found = torch.empty_like(scores)
        for y in range(height):
            for x in range(width):
                rows = [min(max(y + down, 0), height - 1) for down, _ in apart]
                columns = [min(max(x + right, 0), width - 1) for _, right in apart]
                near, here = image[:, rows, columns], image[:, y, x, None]  # (3, N), (3, 1)
                spread = torch.cat([near, here], dim=1).std(dim=1, keepdim=True)
                weight = (-((near - here).abs() / (0.1 * spread)).mean(dim=0)).softmax(dim=0)
                found[:, y, x] = scores[:, rows, columns] @ weight
        scores = found
    return scores


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (3, 1), (12, 11)])
def test_refining_is_the_formula_pixel_by_pixel(size: tuple[int, int]) -> None:
    scores, image = draw(2, 3, *size).double(), draw(2, 3, *size, seed=1).double()
    image[1] = image[1] * 0.1 + 0.5  # of low contrast, which changes nothing
    expected = torch.stack([slowly(*pair, 2) for pair in zip(scores, image, strict=True)])
    torch.testing.assert_close(refine(scores, image, 2), expected, atol=1e-5, rtol=0)


def test_probabilities_stay_probabilities_and_equal_scores_stay_equal() -> None:
    image = draw(2, 3, 9, 13)
    found = refine(draw(2, 4, 9, 13, seed=1).softmax(dim=1), image, 20)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 9, 13))
    same = torch.tensor([0.7, 0.2, 0.0]).view(1, 3, 1, 1).expand(2, 3, 9, 13)
    torch.testing.assert_close(refine(same, image, 20), same)
    black = torch.zeros(1, 3, 9, 13)  # no edge, no spread
    assert refine(draw(1, 2, 9, 13), black, 5).isfinite().all()


def test_no_steps_leave_the_scores_alone() -> None:
    scores = draw(1, 2, 5, 6)
    assert torch.equal(refine(scores, draw(1, 3, 5, 6, seed=1), 0), scores)


def test_a_border_that_is_3_px_off_finds_the_edge_of_the_picture() -> None:
    image = 0.05 * draw(1, 3, 30, 40)
    image[..., 20:] += 0.2
    scores = torch.zeros(1, 2, 30, 40)
    scores[:, 0, :, :23], scores[:, 1, :, 23:] = 1, 1
    expected = (torch.arange(40) >= 20).long().expand(30, 40)
    assert torch.equal(refine(scores, image, 20).argmax(dim=1)[0], expected)


def test_pictures_of_a_batch_know_nothing_of_one_another() -> None:
    scores, image = draw(3, 2, 8, 9), draw(3, 3, 8, 9, seed=1)
    found = refine(scores, image, 4)
    for b in range(3):
        alone = refine(scores[b : b + 1], image[b : b + 1], 4)
        torch.testing.assert_close(found[b : b + 1], alone)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 6, 6), (1, 3, 5, 6)])
def test_another_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image: got \(.*\) for scores \(2, 4, 5, 6\); expected"):
        refine(torch.zeros(2, 4, 5, 6), torch.zeros(shape), 1)


def test_fewer_than_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps: got -1; expected 0 or more"):
        refine(torch.zeros(1, 2, 5, 6), torch.zeros(1, 3, 5, 6), -1)
