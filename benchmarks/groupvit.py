"""How fast is GroupViT, beside transformers' on the same weights?

One random model of the official shape in both classes, all threads that torch takes, batches of 32
pictures and captions. The contenders take turns, so that whatever else the machine does hits all
alike; the figures are medians over the rounds. Outputs are compared before anything is timed.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from _shared import Work, take_turns, verdicts
from torch import Tensor

from cliplab.models.groupvit import GroupViT, load_groupvit

BATCH, ROUNDS = 32, 3
SMALL = 8  # pictures that transformers is given at a time in a row of its own
CONTEXT, LONGEST = 77, 24  # tokens of a padded caption; of the longest caption without padding
START, END = 49406, 49407
MEANT = 1.2


def models() -> tuple[torch.nn.Module, GroupViT]:
    """transformers' model with random weights, and ours with the same, read from its folder."""
    from transformers import GroupViTConfig, GroupViTModel

    torch.manual_seed(0)
    theirs = GroupViTModel(GroupViTConfig()).eval()  # its defaults are the official shape
    with tempfile.TemporaryDirectory() as name:
        theirs.save_pretrained(name)
        ours = load_groupvit(Path(name))
    return theirs, ours


def captions() -> Tensor:
    """Ids (32, 77) of captions of 8 to 24 tokens, start and end included."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, START, (BATCH, CONTEXT), generator=generator)
    lengths = torch.linspace(8, LONGEST, BATCH).round().long()
    ids[:, 0] = START
    ids[torch.arange(BATCH), lengths - 1] = END
    return torch.where(torch.arange(CONTEXT) < lengths[:, None], ids, 0)


def check_same(theirs: torch.nn.Module, ours: GroupViT, pixels: Tensor, ids: Tensor) -> float:
    """The largest difference of logits and soft maps; an error if it is no rounding error."""
    expected = theirs(pixel_values=pixels, input_ids=ids, output_attentions=True)
    logits, groups = ours(pixels, ids)[0], ours.group(pixels)
    differences = [(logits - expected.logits_per_image).abs().max() / logits.abs().max()]
    maps = expected.vision_model_output.attentions
    for soft, mine in zip(maps, groups.assignments, strict=True):
        differences.append((soft.reshape(mine.soft.shape) - mine.soft).abs().max())
        if not torch.equal(soft.reshape(mine.soft.shape).argmax(1), mine.hard.argmax(1)):
            raise ValueError("some patches are in other groups than transformers puts them in")
    worst = max(d.item() for d in differences)
    if not worst < 1e-4:
        raise ValueError(f"outputs differ by {worst:.1e}; expected less than 1e-4")
    return worst


def contenders(
    theirs: torch.nn.Module, ours: GroupViT, pixels: Tensor, ids: Tensor
) -> dict[str, Work]:
    """What is timed; the rows come in pairs or threes, ours last."""
    cut = ids[:, :LONGEST]

    def in_parts() -> None:
        for some, texts in zip(pixels.split(SMALL), cut.split(SMALL), strict=True):
            theirs(pixel_values=some, input_ids=texts)

    return {
        "forward, padded to 77: `transformers`": lambda: theirs(pixel_values=pixels, input_ids=ids),
        "forward, padded to 77: ours": lambda: ours(pixels, ids),
        "forward, cut at 24: `transformers`": lambda: theirs(pixel_values=pixels, input_ids=cut),
        f"forward, cut at 24: `transformers`, {SMALL} at a time": in_parts,
        "forward, cut at 24: ours": lambda: ours(pixels, cut),
        "pictures: `transformers`": lambda: theirs.get_image_features(pixel_values=pixels),
        "pictures: ours": lambda: ours.encode_image(pixels),
        "captions of 77: `transformers`": lambda: theirs.get_text_features(input_ids=ids),
        "captions of 77: ours": lambda: ours.encode_text(ids),
    }


def beside_goals(rates: dict[str, float]) -> Iterator[tuple[str, float | None, float]]:
    """How many times as fast we are, for every kind of work."""
    for name, rate in rates.items():
        what, _, who = name.partition(": ")
        if who != "ours":
            meant = MEANT if what.startswith("forward") and who == "`transformers`" else None
            yield f"{what}: ours / {who}", meant, rates[f"{what}: ours"] / rate


@torch.inference_mode()
def main() -> None:
    warnings.simplefilter("ignore")  # of transformers, which are on stderr
    logging.disable(logging.WARNING)
    theirs, ours = models()
    pixels = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    ids = captions()
    worst = check_same(theirs, ours, pixels[:SMALL], ids[:SMALL])
    took = take_turns(contenders(theirs, ours, pixels, ids), ROUNDS)
    rates = {name: BATCH / seconds for name, seconds in took.items()}
    print(f"Official shape, random weights, float32, batches of {BATCH}; outputs differ by at most")
    print(f"{worst:.0e}.\n\n| what | pairs per second |\n|---|---:|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.1f} |")
    verdicts(beside_goals(rates))
    print(
        "Most of the time goes into matrix products, which are as fast in both. What is saved: "
        "memory\nthat is mapped anew for every layer of a large batch, attention matrices that "
        "are written down,\nand the padding of captions."
    )


if __name__ == "__main__":
    main()
