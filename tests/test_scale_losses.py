"""Losses, gradients and traffic over ranks: real processes on this machine, beside one process."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cliplab.models.clip import CLIP, CLIPConfig
from cliplab.models.layers import unit_rows
from cliplab.models.losses import clip_loss, siglip_loss
from cliplab.scale import (
    counted_traffic,
    encode_in_chunks,
    gathered_clip_loss,
    over_ranks,
    own_share,
    ring_clip_loss,
    ring_siglip_loss,
    run_local,
)

RANKS, N, D = 3, 12, 5  # with two ranks, the next one and the one before would be the same
OWN = N // RANKS
COUNTS = (RANKS - 1) * 2 * 8  # how many rows everybody has
TRIP = (RANKS - 1) * OWN * D * 8  # bytes that a rank sends when its rows go to everybody, float64

# Loss over ranks, that of one process, its scalars; bytes without those of the loss's own value.
LOSSES: dict[str, tuple[Callable, Callable, tuple[float, ...], int]] = {
    "gathered": (gathered_clip_loss, clip_loss, (7.0,), 2 * TRIP + 2 * (RANKS - 1) * OWN * 8),
    "ring": (ring_clip_loss, clip_loss, (7.0,), 3 * TRIP + 3 * (RANKS - 1) * OWN * 8),
    "sigmoid": (ring_siglip_loss, siglip_loss, (7.0, -3.0), 2 * TRIP),
}
CASES = [(name, tile) for name in LOSSES for tile in (None, 3)]


def rows(seed: int, width: int = D) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, width, dtype=torch.float64, generator=generator)


def with_gradients(loss_of: Callable, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    loss = loss_of(*leaves)
    (2 * loss).backward()
    return [loss.detach(), *(x.grad for x in leaves)]


# ---- what a rank does: run_local calls it, and tests read what it found ------------------------


def on_a_rank() -> dict[str, Any]:
    own = own_share(N)
    found: dict[str, Any] = {name: beside_one(*name, own) for name in CASES}
    found["towers"] = towers(own)
    found["chunks"] = chunks(own)
    for what, refused in (("share", lambda: own_share(N + 1)), ("loss", uneven), ("tile", no_tile)):
        try:
            refused()
        except ValueError as error:
            found[what] = str(error)
    return found


def uneven() -> None:
    pairs = rows(0)[: 2 + dist.get_rank()]
    ring_siglip_loss(pairs, pairs[1:], torch.tensor(1.0), torch.tensor(0.0))


def no_tile() -> None:
    ring_siglip_loss(rows(0), rows(1), torch.tensor(1.0), torch.tensor(0.0), tile=0)


def beside_one(name: str, tile: int | None, own: slice) -> tuple[float, int]:
    """The largest difference from one process, gradients among them; bytes sent."""
    over, alone, scalars, _ = LOSSES[name]
    pairs = [unit_rows(rows(seed)) for seed in (0, 1)]
    numbers = [pairs[0].new_tensor(x) for x in scalars]
    expected = with_gradients(alone, [*pairs, *numbers])
    with counted_traffic() as sent:
        found = with_gradients(lambda *a: over(*a, tile=tile), [*(x[own] for x in pairs), *numbers])
    for grad in found[3:]:
        dist.all_reduce(grad)  # of scalars: the mean over the ranks is that of one process
    loss, *of_pairs = expected[:3]
    mine = [loss, *(RANKS * x[own] for x in of_pairs), *(RANKS * x for x in expected[3:])]
    worst = max((a - b).abs().max().item() for a, b in zip(found, mine, strict=True))
    return worst, sum(sent.values()) - sent["all_reduce"]


def tiny_clip() -> CLIP:
    torch.manual_seed(0)
    sizes = {"vision_layers": (1, 1, 1, 1), "vision_width": 2, "vision_patch_size": None}
    text = {"transformer_width": 64, "transformer_heads": 1, "transformer_layers": 1}
    config = CLIPConfig(
        embed_dim=D, image_resolution=32, context_length=8, vocab_size=11, **sizes, **text
    )
    return CLIP(config).double()


def towers(own: slice) -> float:
    """One step of a CLIP with batch norms: gradients and statistics beside one process."""
    pixels = rows(2, 3 * 32 * 32).unflatten(1, (3, 32, 32))
    ids = torch.arange(N * 8).reshape(N, 8) * 7 % 11
    alone, over = tiny_clip(), tiny_clip()
    image, text = alone.encode_image(pixels), alone.encode_text(ids)
    clip_loss(unit_rows(image), unit_rows(text), alone.logit_scale.exp()).backward()
    trained = over_ranks(over)
    gathered_clip_loss(*trained(pixels[own], ids[own])).backward()
    assert alone.state_dict().keys() == over.state_dict().keys()
    expected, found = (
        torch.cat([t.flatten() for t in [*(p.grad for p in m.parameters()), *m.buffers()]])
        for m in (alone, over)
    )
    return ((expected - found).norm() / expected.norm()).item()


def chunks(own: slice) -> float:
    """Chunks of two rows inside ranks of four, beside one process with all twelve."""
    torch.manual_seed(0)
    tower = nn.Linear(7, D).double()
    image, text = rows(3, 7), unit_rows(rows(4))
    scale = torch.tensor(5.0)
    whole = torch.autograd.grad(clip_loss(unit_rows(tower(image)), text, scale), tower.weight)[0]
    emb = unit_rows(encode_in_chunks(tower, image[own], 2))
    part = torch.autograd.grad(ring_clip_loss(emb, text[own], scale), tower.weight)[0]
    dist.all_reduce(part)
    return (part / RANKS - whole).abs().max().item()


@pytest.fixture(scope="module")
def found() -> list[dict]:
    return run_local(on_a_rank, ranks=RANKS)


# ---- the tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tile"), CASES)
def test_values_gradients_and_traffic_are_as_computed(found, name: str, tile: int | None) -> None:
    for of_rank in found:
        worst, sent = of_rank[name, tile]
        assert worst < 1e-12
        assert sent == LOSSES[name][3] + COUNTS


@pytest.mark.parametrize("what", ["towers", "chunks"])
def test_ranks_learn_what_one_process_would(found, what: str) -> None:
    assert max(of_rank[what] for of_rank in found) < 1e-12


def test_rows_that_cannot_be_shared_out_are_refused_on_all_ranks(found) -> None:
    for of_rank in found:
        assert "got 13 rows for 3 ranks; expected a multiple of 3" in of_rank["share"]
        assert "tile: got 0; expected a whole number of 1 or more" in of_rank["tile"]
        assert "got [2, 3, 4] images and [1, 2, 3] texts on the ranks" in of_rank["loss"]


@pytest.mark.parametrize("loss", [gathered_clip_loss, ring_clip_loss])
def test_a_loss_over_ranks_needs_ranks(loss: Callable) -> None:
    with pytest.raises(ValueError, match="got no process group; start the program with torchrun"):
        loss(rows(0), rows(1), torch.tensor(1.0))


def die_on_rank(rank: int) -> None:
    if dist.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def test_a_rank_that_dies_is_named_and_functions_of_a_notebook_are_refused() -> None:
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL") as caught:
        run_local(die_on_rank, 1)
    assert caught.value.error_index == 1
    local = type("f", (), {"__module__": "__main__", "__qualname__": "f"})
    with pytest.raises(ValueError, match="got f, which is defined in the notebook or script"):
        run_local(local)


# ---- chunks in one process ----------------------------------------------------------------------


def test_chunks_with_dropout_are_exact_and_hold_one_chunk() -> None:
    """Equal to chunks that keep everything, to the last bit: the second pass drops the same."""
    tower = nn.Sequential(nn.Linear(7, 64), nn.Dropout(0.5), nn.Linear(64, D)).double()
    image, text, scale = rows(3, 7), unit_rows(rows(4)), torch.tensor(5.0)

    def gradients(encode: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], int]:
        torch.manual_seed(1)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (kept.append(t.numel()), t)[1], lambda t: t
        ):
            emb = encode(image)
        loss = clip_loss(unit_rows(emb), text, scale)
        return torch.autograd.grad(loss, list(tower.parameters())), sum(kept)

    plain, kept_plain = gradients(lambda x: torch.cat([tower(part) for part in x.split(5)]))
    cached, kept_cached = gradients(lambda x: encode_in_chunks(tower, x, 5))
    assert all(torch.equal(a, b) for a, b in zip(plain, cached, strict=True))
    assert kept_cached < kept_plain / 5


def test_chunks_refuse_what_would_not_be_exact() -> None:
    with pytest.raises(ValueError, match="chunk: got 0; expected at least one row"):
        encode_in_chunks(nn.Identity(), rows(0), 0)
    with pytest.raises(ValueError, match=r"batch norm in training \(visual.bn1\)"):
        encode_in_chunks(tiny_clip().encode_image, rows(2), 2)
    model = tiny_clip().eval()
    assert len(encode_in_chunks(model.encode_text, torch.ones(5, 8, dtype=torch.long), 2)) == 5
